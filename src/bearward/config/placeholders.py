"""Where placeholders stand in a credential, and whether there is something that can stand for each."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..secret import Secret, SecretUnreadableError
from ..tokens.credential import Assertion, Credential, OwnJwt, Source, TokenEndpoint
from ..tokens.recipe import PLACEHOLDERS
from .diagnostics import Path, Report, did_you_mean

FIELDS = ("token_url", "params", "headers", "body", "subject_token", "assertion")
"""The fields of a credential in which they may stand."""
NEEDS = {
    "principal": ("principal",),
    "assertion": ("assertion",),
    "client_id": ("client_id",),
    "client_secret": ("client_secret",),
    "client_basic": ("client_id", "client_secret"),
    "username": ("username",),
    "password": ("password",),
}
"""The fields that each stands for; `{token:NAME}` stands for none."""
_UNUSED = (
    "{principal} stands nowhere in token_url, params, headers, body, subject_token or assertion: all users would "
    "share one token; use it, or write principal: null"
)


def standing_in(source: Source) -> frozenset[str]:
    """The placeholders that stand in it, without their braces."""
    return frozenset(word for _, word in _places(source))


def chained_names(source: Source) -> tuple[str, ...]:
    """The credentials that `{token:NAME}` names, each once."""
    return tuple(dict.fromkeys(name for _, name in _chained(source)))


def peek(secret: Secret | None) -> str:
    """The text as it is now; of a file that has just gone, nothing."""
    try:
        return secret.reveal() if secret else ""
    except SecretUnreadableError:
        return ""


def check_placeholders(
    credentials: Mapping[str, Credential], given: Mapping[str, Collection[str]], named: Collection[str], report: Report
) -> None:
    """`given`: the fields that each credential has. `named`: all credentials, the faulty ones included."""
    for name, credential in credentials.items():
        path: Path = ("credentials", name)
        for place, word in _places(credential.source):
            if lacking := _lacking(place, word, given[name]):
                concerned = ("preset", "source", *NEEDS[word], place[0])
                report.add((*path, *place), lacking, at="key", unless=[(*path, field) for field in concerned])
        _check_principal(credential, credentials, path, report)
        for place, inner in _chained(credential.source):
            if inner not in named:
                text = "there is no credential of the name in {token:NAME}" + did_you_mean(inner, named)
                report.add((*path, *place), text, at="key")
            elif inner in credentials:
                _check_chained((*path, *place), credential, credentials[inner], report)
    _check_circles(credentials, report)


def _lacking(place: Path, word: str, given: Collection[str]) -> str | None:
    """What is missing for a placeholder at its place."""
    if word == "assertion" and place[0] == "assertion":
        return "{assertion} cannot stand in the assertion itself"
    for field in NEEDS.get(word, ()):
        if field not in given:
            what = "principal: {header: NAME}" if field == "principal" else field
            return f"{{{word}}} stands here, but the credential has no {what}"
    return None


def _check_principal(credential: Credential, credentials: Mapping[str, Credential], path: Path, report: Report) -> None:
    if credential.principal is None or "principal" in standing_in(credential.source):
        return
    if not any(name in credentials and credentials[name].principal for name in credential.chained):
        concerned = ("preset", "source", "principal", *FIELDS)
        report.add((*path, "principal"), _UNUSED, at="key", unless=[(*path, field) for field in concerned])


def _check_chained(place: Path, outer: Credential, inner: Credential, report: Report) -> None:
    path = place[:2]
    if inner.principal is not None and outer.principal is None:
        text = f"{inner.name} has a token for each principal; write principal: {{header: NAME}} here as well"
        report.add(place, text, at="key", unless=[(*path, "principal"), (*path, "preset")])
    if inner.is_relative and isinstance(outer.source, OwnJwt):
        text = f"the token_url of {inner.name} is a path, which has no origin here; write it in full"
        report.add(place, text, at="key")


def _check_circles(credentials: Mapping[str, Credential], report: Report) -> None:
    """Each circle is reported once, at its first credential."""
    reported: set[str] = set()
    for name, credential in credentials.items():
        circle = _circle(name, credentials)
        if circle and reported.isdisjoint(circle):
            reported.update(circle)
            place = next(place for place, inner in _chained(credential.source) if inner == circle[1])
            text = f"these tokens need each other, in a circle: {' -> '.join(circle)}"
            report.add(("credentials", name, *place), text, at="key")


def _circle(name: str, credentials: Mapping[str, Credential]) -> list[str]:
    """The shortest way along the chains from a credential to itself, or nothing."""
    ways, seen = [[name]], set[str]()
    for way in ways:
        for inner in credentials[way[-1]].chained if way[-1] in credentials else ():
            if inner == name:
                return [*way, name]
            if inner not in seen:
                seen.add(inner)
                ways.append([*way, inner])
    return []


def _places(source: Source) -> Iterator[tuple[Path, str]]:
    """Each placeholder: the fields that lead to it, and its word."""
    for path, text in _source_texts(source):
        for found in PLACEHOLDERS.finditer(text):
            yield path, found[1]


def _chained(source: Source) -> Iterator[tuple[Path, str]]:
    for path, word in _places(source):
        if word.startswith("token:"):
            yield path, word.removeprefix("token:")


def _source_texts(source: Source) -> Iterator[tuple[Path, str]]:
    if isinstance(source, TokenEndpoint | OwnJwt):
        for field in FIELDS:
            yield from _texts(getattr(source, field, None), (field,))


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str | Secret):
        yield path, value if isinstance(value, str) else peek(value)
    elif isinstance(value, Assertion):
        for field in ("issuer", "subject", "audience", "claims"):
            yield from _texts(getattr(value, field), (*path, field))
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, index))
