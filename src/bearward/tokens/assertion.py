"""A JWT that is signed here: an assertion of who asks, or the token itself (RFC 7519, RFC 7523 §3)."""

import re
import ssl
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final
from uuid import uuid4

from .credential import Assertion
from .failure import Reason, TokenRequestError

BACKDATED: Final = 10
"""Seconds by which `iat` lies in the past: a server whose clock is a little slow must not see it in the future."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def signed(assertion: Assertion, fill: Callable[[Any], Any], *, time: float, token_url: str = "") -> str:
    """The JWT, with a `jti` of its own; `time` is the Unix time of who will read it, `fill` reveals its texts.

    Raises `TokenRequestError` where its key does not fit, and `SecretUnreadableError`.
    """
    import jwt  # with cryptography it costs 10 MB, and few need it

    issued_at = int(time) - BACKDATED
    claims: dict[str, Any] = {"jti": uuid4().hex, "iat": issued_at, "exp": issued_at + round(assertion.lifetime)}
    named = {"iss": assertion.issuer, "sub": assertion.subject, "aud": assertion.audience}
    claims |= {name: fill(text) for name, text in named.items() if text is not None}
    if assertion.audience is None and assertion.is_for_token_url:
        claims["aud"] = token_url.partition("?")[0]
    claims |= fill(assertion.claims)
    headers = {}
    if assertion.key_id is not None:
        headers["kid"] = assertion.key_id.reveal()
    if assertion.certificate is not None:
        headers["x5t#S256"] = thumbprint(assertion.certificate.reveal())
    key = assertion.key.reveal()
    try:
        loaded = _loaded(key, assertion.algorithm)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a short secret: the vendor chose it, and the check of the config warns
            return jwt.encode(claims, loaded, assertion.algorithm, headers)
    except (jwt.PyJWTError, ValueError, TypeError, NotImplementedError):
        raise _wrong(f"the key of the assertion cannot be used with {assertion.algorithm}") from None


@lru_cache(maxsize=64)
def _loaded(key: str, algorithm: str) -> Any:
    """The key, ready to sign: reading and checking an RSA key takes a hundred times as long as to sign with it."""
    import jwt

    return jwt.get_algorithm_by_name(algorithm).prepare_key(key)


def thumbprint(certificate: str) -> str:
    """`x5t#S256` of the first certificate in this PEM text. Raises `TokenRequestError` where there is none."""
    found = _CERTIFICATE.search(certificate)
    try:
        der = ssl.PEM_cert_to_DER_cert(found[0] if found else "")
    except ValueError:
        raise _wrong("there is no certificate in PEM form where the assertion's should be") from None
    return urlsafe_b64encode(sha256(der).digest()).decode().rstrip("=")


def _wrong(detail: str) -> TokenRequestError:
    return TokenRequestError(Reason.SECRET_UNREADABLE, detail, sent=False)
