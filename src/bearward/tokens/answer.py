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
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from . import schedule
from .credential import Credential, ExpiryField, FieldPath
from .failure import Reason, TokenRequestError

MAX_TOKEN_BYTES: Final = 16 << 10
DEFAULT_TTL: Final = 300.0

_VISIBLE = re.compile(r"[\x21-\x7e]+")
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*")
_UNIT_SECONDS = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_EPOCH_MS_FROM = 1e11
"""Epoch numbers above this are milliseconds: as seconds they would lie in the year 5138."""

_TRANSIENT_CODES = frozenset({"temporarily_unavailable", "server_error", "slow_down", "internal_failure"})
_KNOWN_CODES = _TRANSIENT_CODES | {
    *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"),
    *("invalid_scope", "invalid_target", "access_denied", "unknown_error", "invalid_token", "not_found"),
}
"""RFC 6749 §5.2, RFC 8628 §3.5, RFC 8707 §2, and what Keycloak and Google add. Others are not repeated."""
_REFRESH_REFUSALS = frozenset({"invalid_grant", "invalid_token", "unauthorized_client", "unsupported_grant_type"})


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """A token endpoint's answer, and the wall clock's times (Unix seconds) of its request and of itself."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_at: float
    answered_at: float


@dataclass(frozen=True, slots=True, repr=False)
class Issued:
    """A new token. Lifetimes are seconds from the moment that its request was sent."""

    token: str
    lifetime: float
    lifetime_from: str
    refresh_token: str | None
    refresh_lifetime: float | None
    clock_skew: float | None
    """The identity provider's clock minus ours, in seconds; None where it does not tell."""


def read_answer(answer: Answer, credential: Credential, *, refreshing: bool) -> Issued:
    """The token of an answer, to a refresh token's or the credential's own grant. Raises `TokenRequestError`."""
    document = _parse(answer.body)
    if not 200 <= answer.status < 300:
        raise _error_status(answer, document, credential, refreshing)
    try:
        return _issued(answer, document, credential, refreshing)
    except TokenRequestError as failure:
        failure.refresh_token = _refresh_token(document)
        raise


def _issued(answer: Answer, document: Any, credential: Credential, refreshing: bool) -> Issued:
    mark = credential.refusal
    if mark and (value := _at(document, mark.path)) is not None and value not in mark.accepted:
        raise TokenRequestError(Reason.REFUSED, f"the field {'.'.join(mark.path)} of the answer says no")
    token = _at(document, credential.token_path) if credential.token_path else _whole(answer.body)
    if not isinstance(token, str) or not token:
        if _error_code(document) is not None:
            raise _oauth_error(answer.status, document, credential, refreshing)
        where = ".".join(credential.token_path) or "the body"
        raise TokenRequestError(Reason.NO_TOKEN, f"status {answer.status}, {_describe(document)}: no token in {where}")
    if len(token) > MAX_TOKEN_BYTES or not _VISIBLE.fullmatch(token):
        raise TokenRequestError(Reason.NO_TOKEN, "the token is not visible ASCII of at most 16 KiB")

    skew = _clock_skew(answer)
    lifetime, source = _lifetime(answer, document, token, credential, skew or 0.0)
    if lifetime < schedule.MIN_LIFETIME:
        raise TokenRequestError(Reason.ALREADY_EXPIRED, f"{source} leaves the token less than a second")
    fields = document if isinstance(document, dict) else {}
    refresh_lifetime = _number(fields.get("refresh_expires_in"))
    return Issued(
        token=token,
        lifetime=min(lifetime, schedule.MAX_LIFETIME),
        lifetime_from=source,
        refresh_token=_refresh_token(document),
        # Keycloak's; 0 there means an offline session, which does not end.
        refresh_lifetime=refresh_lifetime if refresh_lifetime and refresh_lifetime > 0 else None,
        clock_skew=skew,
    )


def claims(token: str) -> dict[str, Any] | None:
    """The claims of a JWT, unverified (it is not ours to judge); None where the token is none."""
    if token.count(".") != 2:
        return None
    import jwt  # costs memory, and many vendors' tokens are no JWTs

    try:
        return jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds of a Retry-After (RFC 9110 §10.2.3), number or date, at most ten minutes; None where there is none."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        seconds: float | None = float(text[:9])
    else:
        date = _http_date(text)
        seconds = None if date is None else date - now
    return None if seconds is None else min(max(seconds, 0.0), schedule.RETRY_AFTER_MAX)


def _error_status(answer: Answer, document: Any, credential: Credential, refreshing: bool) -> TokenRequestError:
    status, wait = answer.status, retry_after(answer.headers, answer.answered_at)
    if status == 429:
        return TokenRequestError(Reason.THROTTLED, "status 429", wait)
    if 300 <= status < 400:
        return TokenRequestError(Reason.NO_TOKEN, f"status {status}: redirects are not followed")
    if credential.grant_type == "password" and not refreshing and _is_session_limit(status, document):
        return TokenRequestError(Reason.SESSION_LIMIT, f"status {status}", wait)
    if status >= 500 or status in {408, 425}:
        # 502 and 504 are a gateway's: whether the identity provider itself heard the request, it does not know.
        return TokenRequestError(Reason.SERVER_ERROR, f"status {status}", wait, answered=status not in {502, 504})
    error = _oauth_error(status, document, credential, refreshing)
    error.retry_after = wait
    return error


def _is_session_limit(status: int, document: Any) -> bool:
    """Keycloak's two ways of saying that the user has too many sessions."""
    code = _error_code(document)
    return (status == 403 and code not in _KNOWN_CODES) or (status == 500 and code == "unknown_error")


def _oauth_error(status: int, document: Any, credential: Credential, refreshing: bool) -> TokenRequestError:
    named = code if (code := _error_code(document)) in _KNOWN_CODES else None
    if status == 404 and named is None:
        return TokenRequestError(Reason.REFUSED, "status 404: the token_url leads to nothing")
    detail = f"status {status}, {named or _describe(document)}"
    if named in _TRANSIENT_CODES:
        return TokenRequestError(Reason.SERVER_ERROR, detail)
    if refreshing and named in _REFRESH_REFUSALS:
        is_over = named in {"invalid_grant", "invalid_token"}
        return TokenRequestError(Reason.REFRESH_TOKEN_REFUSED, detail, is_session_over=is_over)
    if credential.grant_type == "password" and not refreshing and named in {"invalid_grant", None}:
        # A refusal that says nothing may be the password's, too: accounts get locked, so the careful way.
        return TokenRequestError(Reason.PASSWORD_REFUSED, detail)
    return TokenRequestError(Reason.REFUSED, detail)


def _lifetime(answer: Answer, document: Any, token: str, credential: Credential, skew: float) -> tuple[float, str]:
    """How long the token lives from the moment of its request, and what said so."""
    here = answer.sent_at + skew  # the identity provider's time when the request was sent
    if (field := credential.expires) and (value := _expiry(_at(document, field.path), field, here)) is not None:
        return value, ".".join(field.path)
    if isinstance(document, dict):
        if (seconds := _number(document.get("expires_in"))) is not None:
            return seconds, "expires_in"
        for name in ("expires_on", "expires_at"):
            if (epoch := _epoch(document.get(name))) is not None:
                return epoch - here, name
    known = claims(token)
    if known and (exp := _number(known.get("exp"))) is not None:
        return exp - here, "exp"
    if credential.ttl is not None:
        return credential.ttl, "ttl"
    return DEFAULT_TTL, "default"


def _expiry(value: Any, field: ExpiryField, here: float) -> float | None:
    match field.unit:
        case "seconds":
            return _number(value)
        case "milliseconds":
            return None if (number := _number(value)) is None else number / 1000
        case "epoch":
            return None if (number := _number(value)) is None else number - here
        case "epoch_ms":
            return None if (number := _number(value)) is None else number / 1000 - here
        case "iso8601":
            return None if (epoch := _iso8601(value)) is None else epoch - here
        case "http_date":
            return None if (epoch := _http_date(value)) is None else epoch - here
        case "duration":
            found = _DURATION.fullmatch(value) if isinstance(value, str) else None
            return float(found[1]) * _UNIT_SECONDS[found[2]] if found else _number(value)


def _number(value: Any) -> float | None:
    """A finite number, also as text; anything else, true and false included, counts as absent."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _epoch(value: Any) -> float | None:
    if (number := _number(value)) is not None:
        return number / 1000 if number > _EPOCH_MS_FROM else number
    return _iso8601(value)


def _iso8601(value: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _http_date(value: Any) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None


def _clock_skew(answer: Answer) -> float | None:
    """The identity provider's clock minus ours: its `Date` against the middle of the exchange.

    A date has whole seconds, cut off: half a second is added, the error is then at most half a second.
    """
    date = _http_date(answer.headers.get("Date"))
    return None if date is None else date + 0.5 - (answer.sent_at + answer.answered_at) / 2


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _whole(body: bytes) -> str:
    return body.decode("utf-8", "replace").strip()


def _error_code(document: Any) -> str | None:
    code = document.get("error") if isinstance(document, dict) else None
    return code if isinstance(code, str) else None


def _refresh_token(document: Any) -> str | None:
    found = document.get("refresh_token") if isinstance(document, dict) else None
    return found if isinstance(found, str) and found else None


def _at(document: Any, path: FieldPath) -> Any:
    for name in path:
        if isinstance(document, list) and name.isdigit() and int(name) < len(document):
            document = document[int(name)]
        elif isinstance(document, dict):
            document = document.get(name)
        else:
            return None
    return document


def _describe(document: Any) -> str:
    if document is None:
        return "not JSON"
    return "a JSON object" if isinstance(document, dict) else "JSON that is no object"
