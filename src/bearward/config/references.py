"""Texts that stand elsewhere: `{env: NAME}`, `{file: PATH}`, `{file: PATH, field: NAME}` for one of a JSON file's.

A secret in a file stays a file; all else is read now.
"""

import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from ..secret import Secret, SecretUnreadableError, read_text
from .diagnostics import WrongError
from .document import Text

_ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")


class Reference(NamedTuple):
    """Where a text stands that is not in the config itself."""

    kind: Literal["env", "file"]
    name: Text
    field: tuple[str, ...] = ()
    """The way to the text within a JSON file."""


def reference(value: object) -> Reference | None:
    """What a mapping refers to that has the one key `env` or `file`, or `file` and `field`."""
    match value:
        case {"env": Text() as name, **rest} if not rest:
            return Reference("env", name)
        case {"file": Text() as name, **rest} if not rest:
            return Reference("file", name)
        case {"file": Text() as name, "field": Text() as field, **rest} if not rest:
            return Reference("file", name, dotted(field))
    return None


def dotted(text: str) -> tuple[str, ...]:
    """The names of `a.b\\.c.0`; of an empty text none."""
    return tuple(name.replace("\\.", ".") for name in re.split(r"(?<!\\)\.", text)) if text else ()


def read_plain(value: object, folder: Path) -> Text:
    """The text itself, fetched where it is a reference."""
    if isinstance(value, Text):
        return value
    return Text(fetch(value, folder)[1])


def read_secret(value: object, folder: Path) -> Secret:
    """The text as a secret. It is not empty, and what it refers to can be read now."""
    return fetch(value, folder)[0]


def fetch(value: object, folder: Path) -> tuple[Secret, str]:
    """A secret, and what it is now."""
    if isinstance(value, Text):
        if not value:
            raise WrongError("is empty")
        if value.endswith("\n"):
            raise WrongError("ends with a line break; write it on one line, or after |- instead of |")
        return Secret(str(value)), str(value)
    source = reference(value)
    if source is None:
        raise WrongError("must be text, or {env: NAME}, or {file: PATH}; put text with braces or brackets in quotes")
    return _from_environment(source.name) if source.kind == "env" else _from_file(source, folder)


def read_file(name: Text, folder: Path) -> str:
    """What the file holds now: something."""
    path = folder / name
    if not name or not name.isprintable():
        raise WrongError("the name of the file is empty or has control characters")
    try:
        content = read_text(path)
    except SecretUnreadableError as error:
        reason = str(error)
    else:
        if content:
            return content
        reason = f"{path} is empty"
    if "/" in name or name.startswith("."):  # a path; what has no slash may be a secret that was put here
        raise WrongError(reason)
    raise WrongError(f"{reason.replace(str(path), 'the file')} (a relative path starts at {folder})")


def _from_environment(name: Text) -> tuple[Secret, str]:
    # A secret written here by mistake must not be repeated; what looks like a variable may be.
    shown = f"the environment variable {name}" if _ENVIRONMENT_NAME.fullmatch(name) else "the environment variable"
    value = os.environ.get(name) if name and "=" not in name and name.isprintable() else None
    if value is None:
        raise WrongError(f"{shown} is not set", ("env",))
    if not value:
        raise WrongError(f"{shown} is empty", ("env",))
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise WrongError(f"{shown} is not UTF-8 text", ("env",))
    return Secret(value, shown), value


def _from_file(source: Reference, folder: Path) -> tuple[Secret, str]:
    try:
        content = read_file(source.name, folder)
    except WrongError as error:
        raise WrongError(str(error), ("file",)) from None
    secret = Secret.from_file(folder / source.name, source.field)
    if not source.field:
        return secret, content
    try:
        return secret, secret.reveal()
    except SecretUnreadableError as error:
        raise WrongError(str(error), ("field",)) from None
