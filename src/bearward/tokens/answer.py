"""What was said: status, headers and body of a token endpoint → a token, or why there is none. Pure.

Answers are read leniently (vendors differ in where and how they tell a lifetime) and trusted little: a token
is visible ASCII of bounded length, a lifetime is a finite number, and nothing of an answer is repeated in logs
but error codes of a known list.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from . import schedule
from .credential import HeaderField, Reading, ThrottleMark
from .failure import Reason, TokenRequestError
from .lifetime import at, http_date, lifetime, number

MAX_TOKEN_BYTES: Final = 16 << 10
MAX_SKEW: Final = 86400.0

_VISIBLE = re.compile(r"[\x21-\x7e]+")
_FORM_ENCODED = re.compile(r"[\w.%+-]+=[^&=\s]*(&[\w.%+-]+=[^&=\s]*)*\s*", re.ASCII)
_WAIT_IN_WORDS = re.compile(
    r"\b(?:in|after|for)\s+(\d{1,9}) {0,3}(second|sec|minute|min|hour|s\b|m\b|h\b)", re.IGNORECASE
)
_WORD_SECONDS = {"s": 1, "m": 60, "h": 3600}

_TRANSIENT_CODES = frozenset({"temporarily_unavailable", "server_error", "slow_down", "internal_failure"})
KNOWN_CODES = _TRANSIENT_CODES | {
    *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"),
    *("invalid_scope", "invalid_target", "access_denied", "unknown_error", "invalid_token", "not_found"),
}
"""RFC 6749 §5.2, RFC 8628 §3.5, RFC 8707 §2, and what Keycloak and Google add. Others are not repeated."""
_REFRESH_REFUSALS = frozenset({"invalid_grant", "invalid_token", "unauthorized_client", "unsupported_grant_type"})
_OTHER_TYPES = frozenset({"dpop", "mac"})
"""Token types (RFC 6749 §7.1, RFC 9449 §5) with which a token alone proves nothing."""


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """A token endpoint's answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    asked_at: float
    """When the request was sent, in seconds of `clock.now()`."""
    sent_at: float
    """The same by the wall clock, in Unix seconds."""
    answered_at: float
    """When the head of the answer came, in Unix seconds."""


@dataclass(frozen=True, slots=True, repr=False)
class Issued:
    """A new token. Lifetimes are seconds from the moment that it was asked for."""

    token: str
    asked_at: float
    """When, in seconds of `clock.now()`."""
    lifetime: float
    lifetime_from: str
    refresh_in: float | None = None
    """After how many seconds the identity provider wants it refreshed; None where it does not tell."""
    refresh_token: str | None = None
    refresh_lifetime: float | None = None
    clock_skew: float | None = None
    """The identity provider's clock minus ours, in seconds; None where it does not tell."""


def read_answer(answer: Answer, reading: Reading, *, has_password: bool, refreshing: bool) -> Issued:
    """The token of an answer, to a refresh token's or the credential's own grant. Raises `TokenRequestError`."""
    document = parse(answer, reading)
    try:
        if not 200 <= answer.status < 300:
            raise _error_status(answer, document, has_password, refreshing)
        return _issued(answer, document, reading, has_password, refreshing)
    except TokenRequestError as refusal:
        failure = _disguised(answer, reading.throttled) or refusal
        if failure.reason is Reason.THROTTLED and failure.retry_after is None:
            failure.retry_after = retry_after(answer.headers, answer.answered_at) or _wait_in_words(answer.body)
        failure.refresh_token = _refresh_token(document) if 200 <= answer.status < 300 else None
        failure.status, failure.clock_skew = answer.status, _clock_skew(answer)
        raise failure from None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds of a Retry-After (RFC 9110 §10.2.3), number or date, at most ten minutes; None where there is none."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        seconds: float | None = float(text[:9])
    else:
        date = http_date(text)
        seconds = None if date is None else date - now
    return None if seconds is None else min(max(seconds, 0.0), schedule.RETRY_AFTER_MAX)


def checked(token: Any, document: Any, where: str) -> str:
    """The token, if it is one. Raises `TokenRequestError`."""
    if not isinstance(token, str) or not token:
        raise TokenRequestError(Reason.NO_TOKEN, f"{describe(document)}: no token in {where}")
    if not is_token(token):
        raise TokenRequestError(Reason.NO_TOKEN, "the token is not visible ASCII of at most 16 KiB")
    return token


def is_token(text: Any) -> bool:
    """Whether it can be one: visible ASCII (RFC 6749 appendices A.12 and A.17) of bounded length."""
    return isinstance(text, str) and len(text) <= MAX_TOKEN_BYTES and _VISIBLE.fullmatch(text) is not None


def alive(seconds: float, source: str) -> float:
    """A lifetime, if it is one. Raises `TokenRequestError`."""
    if seconds < schedule.MIN_LIFETIME:
        raise TokenRequestError(Reason.ALREADY_EXPIRED, f"{source} leaves the token less than a second")
    return min(seconds, schedule.MAX_LIFETIME)


def parse_json(body: bytes) -> Any:
    """The document; None where it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def describe(document: Any) -> str:
    """What an answer is, without repeating any of it."""
    if document is None:
        return "not JSON"
    return "a JSON object" if isinstance(document, Mapping) else "JSON that is no object"


def _issued(answer: Answer, document: Any, reading: Reading, has_password: bool, refreshing: bool) -> Issued:
    mark = reading.refusal
    if mark and (value := at(document, mark.path)) is not None and value not in mark.accepted:
        raise TokenRequestError(Reason.REFUSED, f"the field {'.'.join(mark.path)} of the answer says no")
    token, where = _found(answer, document, reading)
    if not token and _error_code(document) is not None:
        raise _oauth_error(answer.status, document, has_password, refreshing)
    fields = document if isinstance(document, Mapping) else {}
    kind = fields.get("token_type")
    if isinstance(kind, str) and kind.lower() in _OTHER_TYPES and not reading.takes_any_type:
        detail = (
            f"a token of the type {kind.lower()} needs a proof beside it; write inject.format to send it all the same"
        )
        raise TokenRequestError(Reason.REFUSED, detail)
    if not isinstance(token, str) or not token:
        detail = f"status {answer.status}, {describe(document)}: no token in {where}"
        raise TokenRequestError(Reason.NO_TOKEN, detail)
    checked(token, document, where)
    skew = _clock_skew(answer)
    seconds, source = lifetime(document, token, reading, answer.sent_at + (skew or 0.0))
    refresh_in, refresh_lifetime = number(fields.get("refresh_in")), number(fields.get("refresh_expires_in"))
    return Issued(
        token=token,
        asked_at=answer.asked_at,
        lifetime=alive(seconds, source),
        lifetime_from=source,
        refresh_in=refresh_in if refresh_in and refresh_in > 0 else None,
        refresh_token=_refresh_token(document),
        # Keycloak's; 0 there means an offline session, which does not end.
        refresh_lifetime=refresh_lifetime if refresh_lifetime and refresh_lifetime > 0 else None,
        clock_skew=skew,
    )


def _found(answer: Answer, document: Any, reading: Reading) -> tuple[Any, str]:
    """What stands where the token should be, and where that is."""
    place = reading.token
    if not isinstance(place, HeaderField):
        value = at(document, place)
        if not place and not isinstance(value, str):  # a JSON string is the token without its quotes
            value = answer.body.decode("utf-8", "replace").strip()
        return value, ".".join(place) or "the body"
    if not place.is_cookie:
        value = answer.headers.get(place.name, "")
        return re.sub(r"^Bearer +", "", value, flags=re.IGNORECASE), f"the header {place.name}"
    lines = answer.headers.getall("Set-Cookie", []) if hasattr(answer.headers, "getall") else []
    pairs = [line.partition(";")[0].partition("=") for line in lines]
    values = [value.strip().strip('"') for name, _, value in pairs if name.strip() == place.name]
    return (values[-1] if values else None), f"the cookie {place.name}"


def _error_status(answer: Answer, document: Any, has_password: bool, refreshing: bool) -> TokenRequestError:
    status, wait = answer.status, retry_after(answer.headers, answer.answered_at)
    if status == 429:
        return TokenRequestError(Reason.THROTTLED, "status 429", wait)
    if 300 <= status < 400:
        return TokenRequestError(Reason.NO_TOKEN, f"status {status}: redirects are not followed")
    if has_password and not refreshing and _is_session_limit(status, document):
        return TokenRequestError(Reason.SESSION_LIMIT, f"status {status}", wait)
    if status >= 500 or status in {408, 425}:
        # 502 and 504 are a gateway's: whether the identity provider itself heard the request, it does not know.
        return TokenRequestError(Reason.SERVER_ERROR, f"status {status}", wait, answered=status not in {502, 504})
    error = _oauth_error(status, document, has_password, refreshing)
    error.retry_after = wait
    return error


def _is_session_limit(status: int, document: Any) -> bool:
    """Keycloak's two ways of saying that the user has too many sessions."""
    code = _error_code(document)
    return (status == 403 and code not in KNOWN_CODES) or (status == 500 and code == "unknown_error")


def _oauth_error(status: int, document: Any, has_password: bool, refreshing: bool) -> TokenRequestError:
    named = code if (code := _error_code(document)) in KNOWN_CODES else None
    if status == 404 and named is None:
        return TokenRequestError(Reason.REFUSED, "status 404: the token_url leads to nothing")
    detail = f"status {status}, {named or describe(document)}"
    if named in _TRANSIENT_CODES and (status, named) != (401, "server_error"):  # ServiceNow's to a wrong secret
        return TokenRequestError(Reason.SERVER_ERROR, detail, code=named)
    if refreshing and named in _REFRESH_REFUSALS:
        return TokenRequestError(Reason.REFRESH_TOKEN_REFUSED, detail, code=named)
    if has_password and not refreshing and named in {"invalid_grant", None}:
        # A refusal that says nothing may be the password's, too: accounts get locked, so the careful way.
        return TokenRequestError(Reason.PASSWORD_REFUSED, detail, code=named)
    return TokenRequestError(Reason.REFUSED, detail, code=named)


def _disguised(answer: Answer, mark: ThrottleMark | None) -> TokenRequestError | None:
    """Throttling, where the operator says that an answer like this means it."""
    if mark is None or (mark.status is not None and mark.status != answer.status):
        return None
    if mark.contains is not None and mark.contains.lower() not in answer.body.decode("utf-8", "replace").lower():
        return None
    detail = f"status {answer.status}, as response.throttled says"
    return TokenRequestError(Reason.THROTTLED, detail, mark.retry_after)


def _wait_in_words(body: bytes) -> float | None:
    """`Try again in 420 seconds`, where only the text says so."""
    found = _WAIT_IN_WORDS.findall(body[: 64 << 10].decode("utf-8", "replace"))
    spans = [float(count) * _WORD_SECONDS[unit[0].lower()] for count, unit in found]  # a quota's span may be among them
    return min(max(spans), schedule.RETRY_AFTER_MAX) if spans else None


def _clock_skew(answer: Answer) -> float | None:
    """The identity provider's clock minus ours: its `Date` against the middle of the exchange.

    A date has whole seconds, cut off: half a second is added, the error is then at most half a second. One that is
    days away is some gateway's, and tells nothing.
    """
    date = http_date(answer.headers.get("Date"))
    skew = math.inf if date is None else date + 0.5 - (answer.sent_at + answer.answered_at) / 2
    return skew if abs(skew) < MAX_SKEW else None


def parse(answer: Answer, reading: Reading) -> Any:
    """The body as JSON, or form-encoded as some vendors do."""
    document = parse_json(answer.body)
    if document is None and len(answer.body) <= 64 << 10:
        text = answer.body.decode("utf-8", "replace")
        if _FORM_ENCODED.fullmatch(text):
            fields = dict(parse_qsl(text.strip()))
            wanted = reading.token[:1] if isinstance(reading.token, tuple) else ()
            document = fields if fields.keys() & {*wanted, "error"} else None
    return document


def _error_code(document: Any) -> str | None:
    code = document.get("error") if isinstance(document, Mapping) else None
    return code if isinstance(code, str) else None


def _refresh_token(document: Any) -> str | None:
    found = document.get("refresh_token") if isinstance(document, Mapping) else None
    return found if is_token(found) else None
