"""What was said to a token endpoint and what it answered, as rows: names as they are, values where they are harmless.

Harmless is what is listed here; whatever else a vendor or an operator may name is hidden.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from ..tokens.answer import KNOWN_CODES, Answer, parse
from ..tokens.credential import Reading, TokenEndpoint
from ..tokens.lifetime import claims
from ..tokens.recipe import TokenRequest
from .masking import HIDDEN, Mask, Masks
from .steps import Exchange, Step

Row = tuple[str, str]
"""A label, and a text; an empty label belongs to the one above."""

HARMLESS_PARAMETERS: Final = frozenset({
    "grant_type", "scope", "audience", "resource", "client_id", "client_assertion_type", "subject_token_type",
    "requested_token_type",
})  # fmt: skip
HARMLESS_HEADERS: Final = frozenset({"accept", "content-type", "metadata", "metadata-flavor", "user-agent"})
HARMLESS_FIELDS: Final = frozenset({
    "token_type", "scope", "issued_token_type", "not-before-policy", "code", "status", "success", "error",
    "expires_in", "expires_on", "expires_at", "expires", "expirestime", "expiretime", "expiration", "refresh_in",
    "refresh_expires_in", "ext_expires_in",
})  # fmt: skip
_DESCRIPTIONS = frozenset({
    "error_description", "error_message", "errormessage", "errordescription", "message", "msg", "detail", "title",
    "error_title", "reason", "description", "errors", "error",
})  # fmt: skip
_PARAMETERS = HARMLESS_PARAMETERS | {
    "assertion", "client_assertion", "client_secret", "password", "refresh_token", "subject_token", "username",
}  # fmt: skip
"""Names that are no secret, whatever a secret may look like."""
_HARMLESS_CLAIMS = frozenset({
    "iss", "sub", "aud", "iat", "nbf", "exp", "jti", "scope", "alg", "kid", "typ", "x5t#S256",
})  # fmt: skip
_WORDS = frozenset({"code", "status", "success", "error"})
"""Of these, texts are harmless only where they are a word."""
_TOLD_HEADERS = ("Content-Type", "Retry-After")
_MOST_FIELDS = 30
_MOST_DEPTH = 8
_ORDINARY_PATH = re.compile(r"[\w.:@$ -]{1,80}", re.ASCII)
_WORD = re.compile(r"[A-Za-z_.:-]{1,40}", re.ASCII)
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


# ── what is in an exchange ───────────────────────────────────────────────────────────────────────────────────


def parameters(request: TokenRequest) -> tuple[str, list[tuple[str, Any]]]:
    """Where the parameters of a request stand, and what they are."""
    kind = next((value for name, value in request.headers.items() if name.lower() == "content-type"), "")
    text = request.body.decode("utf-8", "replace")
    if not request.body:
        return "query", parse_qsl(urlsplit(request.url).query, keep_blank_values=True)
    if "json" in kind:
        try:
            return "JSON", list(leaves(json.loads(text)))
        except (ValueError, RecursionError):
            return "body", []
    return ("form", parse_qsl(text, keep_blank_values=True)) if "urlencoded" in kind else ("body", [])


def leaves(document: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Each field of a document with its dotted path; what lies very deep is left out."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(document, Mapping):
        inner = document.items()
    elif isinstance(document, list):
        inner = enumerate(document)
    else:
        yield path, document
    for name, value in inner if depth < _MOST_DEPTH else ():
        yield from leaves(value, f"{path}.{name}" if path else str(name), depth + 1)


def fields_of(step: Step, mask: Mask) -> list[tuple[str, Any]]:
    """The fields of the last answer whose names may be repeated, with their paths."""
    answer = last_answer(step)
    found = leaves(parse(answer, step.source.credential.reading)) if answer else ()
    return [(path, value) for path, value in found if _ORDINARY_PATH.fullmatch(path) and mask.is_clean(path)]


def last_answer(step: Step) -> Answer | None:
    return step.exchanges[-1].answer if step.exchanges else None


def descriptions(answer: Answer, reading: Reading) -> list[str]:
    """What an answer says in words of its own; a page for people says nothing."""
    document = parse(answer, reading)
    if document is None and answer.status >= 400 and not is_html(answer):
        text = answer.body.decode("utf-8", "replace").strip()
        return [text] if " " in text else []
    found = [value for path, value in leaves(document) if isinstance(value, str) and _is_description(path, value)]
    return [text for text in found if text not in KNOWN_CODES]


def _is_description(path: str, text: str) -> bool:
    """A sentence, or a word where one is to be expected; anything else may be a token."""
    if " " in text:
        return not {part.lower() for part in path.split(".")}.isdisjoint(_DESCRIPTIONS)
    return last_name(path) in _DESCRIPTIONS and _WORD.fullmatch(text) is not None


# ── how it is shown ──────────────────────────────────────────────────────────────────────────────────────────


def shown_url(url: str) -> str:
    """Without its query, which may be secret."""
    bare, mark, _ = url.partition("?")
    return f"{bare}?{HIDDEN}" if mark else bare


def rows(step: Step, exchange: Exchange, masks: Masks) -> Iterator[Row]:
    """One exchange."""
    endpoint = step.source.credential.source
    assert isinstance(endpoint, TokenEndpoint)  # noqa: S101 - others have no exchanges
    request, mask = exchange.request, masks.values
    url = shown_url(request.url)
    bare, _, _ = url.partition("?")
    # What was filled into the path may be secret: then the URL stands as in the config.
    is_other = bare != step.source.token_url.partition("?")[0] and mask.is_clean(bare)
    yield "request", f"{request.method} {url if is_other else 'to the token URL'}"
    label, asked = parameters(request)
    yield from _block("headers", _header_lines(request, endpoint, mask))
    if label == "body" and not asked:
        yield "body", f"{HIDDEN} ({len(request.body)} bytes)"
    yield from _block(label, [_parameter(path, value, mask) for path, value in asked])
    for name, token in _jwts(request, asked, endpoint):
        header, inner = _taken_apart(token)
        yield from _block(name, [f"header {_shown_claims(header, mask)}", f"claims {_shown_claims(inner, mask)}"])
    yield from _answer_rows(step, exchange, masks)


def _block(label: str, lines: Iterable[str]) -> Iterator[Row]:
    for line in lines:
        yield label, line
        label = ""


def _header_lines(request: TokenRequest, endpoint: TokenEndpoint, mask: Mask) -> Iterator[str]:
    for name, value in request.headers.items():
        scheme, _, rest = value.partition(" ")
        if name.lower() in HARMLESS_HEADERS:
            yield f"{name}: {mask.hide(value)}"
        elif name == "Authorization" and endpoint.client.auth == "client_secret_basic":
            yield f"{name}: Basic {HIDDEN} (basic_encoding: {endpoint.client.basic_encoding})"
        elif name.lower() == "authorization" and rest and scheme in {"Basic", "Bearer"}:
            yield f"{name}: {scheme} {HIDDEN}"
        else:
            yield f"{name}: {HIDDEN}"


def _parameter(path: str, value: Any, mask: Mask) -> str:
    is_shown = last_name(path) in HARMLESS_PARAMETERS and mask.is_clean(str(value))
    return f"{path if path in _PARAMETERS else mask.hide(path)}: {value if is_shown else HIDDEN}"


def last_name(path: str) -> str:
    """The name of a field, without the places in lists that end its path."""
    names = [part for part in path.lower().split(".") if not part.isdigit()]
    return names[-1] if names else ""


def _jwts(request: TokenRequest, asked: list[tuple[str, Any]], endpoint: TokenEndpoint) -> Iterator[tuple[str, str]]:
    """The assertions in a request; a JWT that is somebody's token is none."""
    if endpoint.client.assertion is None and endpoint.assertion is None:
        return
    seen: set[str] = set()
    headers = [("assertion", value.partition(" ")[2] or value) for value in request.headers.values()]
    for path, value in [*asked, *headers]:
        is_own = last_name(path) in {"assertion", "client_assertion"} or endpoint.assertion is not None
        is_jwt = isinstance(value, str) and _JWT.fullmatch(value) is not None and claims(value) is not None
        if is_jwt and is_own and value not in seen and last_name(path) != "subject_token":
            seen.add(value)
            yield "client JWT" if last_name(path) == "client_assertion" else "assertion", value


def _taken_apart(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    import jwt

    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:  # a kid that is no text, or the like
        header = {}
    return header, claims(token) or {}


def jwt_header(token: str) -> Mapping[str, Any]:
    """Of a token that is known to be a JWT."""
    return _taken_apart(token)[0]


def _shown_claims(named: Mapping[str, Any], mask: Mask) -> str:
    """Claims that say who, to whom and when; of others the names."""
    shown = {
        name: value
        if (name in _HARMLESS_CLAIMS and mask.is_clean(json.dumps(value))) or isinstance(value, bool | int)
        else HIDDEN
        for name, value in named.items()
    }
    return json.dumps(shown)


def _answer_rows(step: Step, exchange: Exchange, masks: Masks) -> Iterator[Row]:
    answer, reading, mask = exchange.answer, step.source.credential.reading, masks.values
    if answer is None:
        yield "answer", f"none within {exchange.seconds:.2f} s"
        return
    yield "answer", f"status {answer.status} after {exchange.seconds:.2f} s"
    told = [f"{name}: {mask.hide(answer.headers[name])}" for name in _TOLD_HEADERS if name in answer.headers]
    if "WWW-Authenticate" in answer.headers:
        told.append(f"WWW-Authenticate: {mask.hide(answer.headers['WWW-Authenticate'].partition(' ')[0])}")
    if "Location" in answer.headers:
        told.append(f"Location: {mask.hide(re.split('[?#]', answer.headers['Location'])[0])}")
    yield from _block("", told)
    document = parse(answer, reading)
    told = descriptions(answer, reading) if step.failure else []
    if document is None:
        yield "body", _kind_of(answer)
    else:
        fields = list(leaves(document))
        lines = [
            f"{mask.hide(path) or 'it'}: {'see below' if value in told else _field(path, value, reading, mask)}"
            for path, value in fields
        ]
        more = [f"and {len(lines) - _MOST_FIELDS} more"] if len(lines) > _MOST_FIELDS else []
        yield from _block("fields", [*lines[:_MOST_FIELDS], *more])
    for text in told[:3]:
        yield "it says", masks.words.hide(text)


def _field(path: str, value: Any, reading: Reading, mask: Mask) -> str:
    place = ".".join(reading.token) if isinstance(reading.token, tuple) else None
    expiry = ".".join(reading.expires.path) if reading.expires else None
    is_harmless = last_name(path) in HARMLESS_FIELDS or path == expiry or isinstance(value, bool) or value is None
    if last_name(path) in _WORDS and isinstance(value, str) and not _WORD.fullmatch(value):
        is_harmless = False
    if is_harmless and path != place:
        return mask.hide(str(value)) if isinstance(value, str) else json.dumps(value)
    return f"{HIDDEN} ({len(value)} characters)" if isinstance(value, str) else HIDDEN


def _kind_of(answer: Answer) -> str:
    if not answer.body:
        return "empty"
    if is_html(answer):
        return f"HTML, {len(answer.body)} bytes" + (", with a form to log in" if has_login(answer) else "")
    return f"{'XML' if is_xml(answer) else 'no JSON'}, {len(answer.body)} bytes"


def is_html(answer: Answer) -> bool:
    start = answer.body[:512].lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html")) or "html" in answer.headers.get("Content-Type", "")


def has_login(answer: Answer) -> bool:
    """Whether it is a page for people to log in."""
    return is_html(answer) and re.search(rb"type=[\"']?password|<form", answer.body, re.IGNORECASE) is not None


def is_xml(answer: Answer) -> bool:
    """Whether it is XML, as of SOAP services, and no page for people."""
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return not is_html(answer) and (answer.body[:512].lstrip().startswith(b"<") or kind.endswith(("/xml", "+xml")))
