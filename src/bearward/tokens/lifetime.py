"""How long a token lives, in the many ways in which answers say so. Pure; times are Unix seconds.

`here` is the identity provider's time at which the token was asked for: lifetimes count from there.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from .credential import ExpiryField, FieldPath, Reading

DEFAULT_TTL: Final = 300.0

_DURATION = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) {0,3}(ms|s|m|h|d)?")
_UNIT_SECONDS = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_EPOCH_MS_FROM = 1e11
"""Epoch numbers above this are milliseconds: as seconds they would lie in the year 5138."""


def lifetime(
    document: Any, token: str, reading: Reading, here: float, default: tuple[float, str] = (DEFAULT_TTL, "default")
) -> tuple[float, str]:
    """The seconds for which the token lives, and what said so."""
    field = reading.expires
    if field and (value := _expiry(at(document, field.path), field, here)) is not None:
        return value, ".".join(field.path)
    if isinstance(document, Mapping):
        if (seconds := number(document.get("expires_in"))) is not None:
            return seconds, "expires_in"
        for name in ("expires_on", "expires_at"):
            if (moment := epoch(document.get(name))) is not None:
                return moment - here, name
    known = claims(token)
    if known and (exp := number(known.get("exp"))) is not None:
        return exp - here, "exp"
    return default if reading.ttl is None else (reading.ttl, "ttl")


def claims(token: str) -> dict[str, Any] | None:
    """The claims of a JWT, unverified (it is not ours to judge); None where the token is none."""
    if token.count(".") != 2:
        return None
    import jwt  # costs memory, and many vendors' tokens are no JWTs

    try:
        return jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None


def at(document: Any, path: FieldPath) -> Any:
    """What stands at a path; None where nothing does."""
    for name in path:
        if isinstance(document, list) and name.isdigit() and int(name) < len(document):
            document = document[int(name)]
        elif isinstance(document, Mapping):
            document = document.get(name)
        else:
            return None
    return document


def number(value: Any) -> float | None:
    """A finite number, also as text; anything else, true and false included, counts as absent."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return read if math.isfinite(read) else None


def epoch(value: Any) -> float | None:
    """A moment, as a number of seconds or milliseconds, or as ISO 8601."""
    if (read := number(value)) is not None:
        return read / 1000 if read > _EPOCH_MS_FROM else read
    return iso8601(value)


def iso8601(value: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def http_date(value: Any) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None


def _expiry(value: Any, field: ExpiryField, here: float) -> float | None:
    match field.unit:
        case "seconds":
            return number(value)
        case "milliseconds":
            return None if (read := number(value)) is None else read / 1000
        case "epoch":
            return None if (read := number(value)) is None else read - here
        case "epoch_ms":
            return None if (read := number(value)) is None else read / 1000 - here
        case "iso8601":
            return None if (moment := iso8601(value)) is None else moment - here
        case "http_date":
            return None if (moment := http_date(value)) is None else moment - here
        case "duration":
            found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
            return float(found[1]) * _UNIT_SECONDS[found[2]] if found else number(value)
