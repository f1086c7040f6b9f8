"""What of an attempt is secret: the config's secrets, what was sent of them, and what came."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from ..secret import Secret, SecretUnreadableError
from ..tokens.answer import Answer, parse
from ..tokens.credential import Assertion, Reading, TokenEndpoint
from ..tokens.recipe import PLACEHOLDERS, TokenRequest, secrets_in
from .exchange import (
    HARMLESS_FIELDS,
    HARMLESS_HEADERS,
    HARMLESS_PARAMETERS,
    descriptions,
    last_name,
    leaves,
    parameters,
)
from .masking import Mask, Masks
from .steps import Step

_LEAST_TO_HIDE: Final = 8
_MOST_TO_HIDE: Final = 64 << 10
"""Of an answer's texts, in characters."""
_STRUCTURE: Final = re.compile(r"^[A-Za-z-]+ $|[\w.-]+=$|</?[\w:.-]+/?>")
"""What stands beside placeholders and is no secret: a scheme as in `Bearer {assertion}`, a parameter's name, a tag."""


def masks_of(steps: list[Step]) -> Masks:
    """What hides the secrets of all steps."""
    hidden, ids = [text for step in steps for text in _exchanged(step)], list[str]()
    for step in steps:
        source = step.source.credential.source
        harmless: list[Secret] = []
        if isinstance(source, TokenEndpoint):
            shown = [source.params[name] for name in HARMLESS_PARAMETERS & source.params.keys()]
            harmless = list(secrets_in([source.client.id, source.scope, *shown]))
            for signed in (source.client.assertion, source.assertion):
                if isinstance(signed, Assertion):
                    harmless += secrets_in([signed.issuer, signed.subject, signed.audience, signed.key_id])
            ids += revealed(secrets_in(source.client.id))
            if source.body is not None and any(_has_values(exchange.request) for exchange in step.exchanges):
                harmless.append(source.body)  # its values are hidden one by one
        written = revealed(one for one in secrets_in(source) if not any(one is known for known in harmless))
        hidden += [part for text in written for part in _literal(text)]
    return Masks(Mask(hidden), Mask([*hidden, *ids]))


def revealed(secrets: Iterable[Secret]) -> Iterator[str]:
    """Those that can be read."""
    for secret in secrets:
        with suppress(SecretUnreadableError):
            yield secret.reveal()


def _literal(text: str) -> Iterator[str]:
    """What is secret of a text itself, without its placeholders: their words are none."""
    ends = [0, *(end for found in PLACEHOLDERS.finditer(text) for end in found.span()), len(text)]
    parts = [text[start:end] for start, end in zip(ends[::2], ends[1::2], strict=True)]
    if len(parts) == 1:
        yield text
    else:
        secret = [one for part in parts for one in _STRUCTURE.sub("\0", part).split("\0")]
        yield from (one for one in secret if any(character.isalnum() for character in one))


def _has_values(request: TokenRequest) -> bool:
    """Whether its body is a form or JSON of names and values, and none of its names may be a secret by itself."""
    label, asked = parameters(request)
    return label in {"form", "JSON"} and bool(asked) and all(path and value != "" for path, value in asked)


def _exchanged(step: Step) -> Iterator[str]:
    """What was sent and what came that is not harmless."""
    for exchange in step.exchanges:
        for name, value in exchange.request.headers.items():
            if name.lower() not in HARMLESS_HEADERS:
                yield from (value, value.partition(" ")[2])
        query = parse_qsl(urlsplit(exchange.request.url).query, keep_blank_values=True)
        for path, value in (*parameters(exchange.request)[1], *query):
            is_text = isinstance(value, str) or len(str(value)) >= _LEAST_TO_HIDE
            if last_name(path) not in HARMLESS_PARAMETERS and is_text:
                yield str(value)
        yield from (name for name, value in query if not value)  # as in ?KEY
        if exchange.answer is not None:
            yield from _answered(exchange.answer, step.source.credential.reading)
    if step.issued is not None:
        yield from filter(None, (step.issued.token, step.issued.refresh_token))


def _answered(answer: Answer, reading: Reading) -> Iterator[str]:
    """The texts of an answer that may be secret, as far as they are not too many."""
    told, room = set(descriptions(answer, reading)), _MOST_TO_HIDE
    for path, value in leaves(parse(answer, reading)):
        if isinstance(value, str) and value not in told and last_name(path) not in HARMLESS_FIELDS:
            room -= len(value)
            if len(value) >= _LEAST_TO_HIDE and room >= 0:
                yield value
