"""Which keys and values of a file a report may show: known keys, and fields that never hold a secret.

Everything else is masked, comments and what is not understood included: a secret also stands behind a misspelt
key, in the wrong field or in the rest of a broken line. What may be shown is said by the model's types.
"""

import re
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from .diagnostics import Path
from .document import Scalar
from .fields import SHOWN
from .model import Config, Section

_ORDINARY_KEY = re.compile(r"[A-Za-z/$][A-Za-z0-9_.~/{}$#% -]{0,99}")
_UNKNOWN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_PATH_CHARACTERS = r"[A-Za-z0-9 ._~/{}+-]*"
_ORDINARY_VALUE = re.compile(
    rf"(['\"]?)(?:urn:[\w:.-]+|(?:[a-z]+://|unix:)?(?:\[[\dA-Fa-f:.]*\])?{_PATH_CHARACTERS}(?::\d{{1,5}}(?:/{_PATH_CHARACTERS})?)?)\1",
    re.ASCII,
)
"""Shapes in which no password stands: a URL with a user, a query or letters for a port is not among them."""


def shows_value(path: Path, text: str) -> bool:
    """Whether a value as written may be shown: its field holds no secret, and it looks like what belongs there."""
    kinds = _kinds_at(path)
    return any(kind is SHOWN for kind in kinds) and bool(_ORDINARY_VALUE.fullmatch(text))


def shows_key(scalar: Scalar) -> bool:
    """Whether a key may be shown: a field, or an ordinary name where the operator chooses names.

    `{client_id: a, client_secret:b}` makes `client_secret:b` a key without a value.
    """
    *above, key = scalar.path
    if key in ("env", "file", "field"):
        return True
    kinds = _kinds_at(tuple(above))
    if any(_is_section(kind) and key in kind.names() for kind in kinds):
        return True
    if any(_is_section(kind) for kind in kinds):
        return not scalar.is_empty and bool(_UNKNOWN_KEY.fullmatch(str(key)))
    holds_secrets = not any(kind is SHOWN or _is_section(kind) for kind in _kinds_at(scalar.path))
    is_mapping = any(get_origin(kind) is dict for kind in kinds)
    return is_mapping and bool(_ORDINARY_KEY.fullmatch(str(key))) and not (scalar.is_empty and holds_secrets)


@cache
def known_keys() -> re.Pattern[str]:
    """Any field's name before a colon."""
    names = "|".join(sorted(_all_names(Config), key=len, reverse=True))
    return re.compile(rf"(?<![^\s{{,])({names}|env|file|field)(?=\s*:(?:\s|$))")


def _all_names(section: type[Section]) -> set[str]:
    names = set(section.names())
    for hint in _hints(section).values():
        for kind in _kinds(hint):
            inner = get_args(kind)[1] if get_origin(kind) is dict else kind
            for below in _kinds(inner):
                names |= _all_names(below) if _is_section(below) else set()
    return names


def known_names(path: Path) -> list[str]:
    """The fields that may stand in the mapping at `path`."""
    return [name for kind in _kinds_at(path) if _is_section(kind) for name in kind.names()]


@cache
def _hints(section: type[Section]) -> dict[str, Any]:
    hints = get_type_hints(section, include_extras=True)
    return {name.rstrip("_"): hint for name, hint in hints.items() if name in section.model_fields}


def _kinds_at(path: Path) -> list[Any]:
    """The types that the model allows at `path`, with `SHOWN` among them where the value may be shown."""
    kinds = [Config]
    for part in path:
        kinds = [inner for kind in kinds for hint in _below(kind, part) for inner in _kinds(hint)]
    return kinds


def _below(kind: Any, part: str | int) -> list[Any]:
    if _is_section(kind):
        return [_hints(kind)[str(part)]] if part in _hints(kind) else []
    if get_origin(kind) is dict:
        return [get_args(kind)[1]]
    return [get_args(kind)[0]] if get_origin(kind) is list and isinstance(part, int) else []


def _kinds(hint: Any) -> list[Any]:
    """An annotation taken apart: the arms of its unions, and its marks."""
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        return [*_kinds(inner), *(mark for mark in marks if mark is SHOWN)]
    if get_origin(hint) in (Union, UnionType):
        return [kind for arm in get_args(hint) for kind in _kinds(arm)]
    return [hint]


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)
