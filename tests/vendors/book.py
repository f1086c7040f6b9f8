"""The tokens that a fake vendor has issued, and what it thinks of one that it is shown."""

import secrets
import time
from dataclasses import dataclass
from typing import Literal

import jwt

from evidence import SECRETS, new_secret

Verdict = Literal["live", "expired", "revoked", "unknown", "malformed", "missing", "several"]

_SIGNING_KEY = secrets.token_bytes(32)


@dataclass(eq=False)
class IssuedToken:
    """An access token; times are of the monotonic clock."""

    text: str
    key: str
    """Whose it is: a client, a user, a session."""
    issued_at: float
    expires_at: float
    revoked: bool = False


def new_jwt(subject: str, lifetime: float) -> str:
    """A signed token in the form that Keycloak and Okta give theirs."""
    now = time.time()
    claims = {"sub": subject, "iat": int(now), "exp": int(now + lifetime), "jti": secrets.token_hex(8)}
    return SECRETS.add(jwt.encode(claims, _SIGNING_KEY), "access token")


def new_opaque() -> str:
    """A token that only its vendor can read."""
    return new_secret("access token")


class TokenBook:
    """Issued tokens, each live until its own end or until it is revoked."""

    def __init__(self) -> None:
        self.issued: list[IssuedToken] = []
        self._by_text: dict[str, IssuedToken] = {}

    def issue(self, text: str, key: str, lifetime: float) -> IssuedToken:
        """Note a new token, live from now on."""
        now = time.monotonic()
        token = IssuedToken(text, key, now, now + lifetime)
        self.issued.append(token)
        self._by_text[text] = token
        return token

    def revoke_all(self) -> None:
        """From now on none of the tokens issued so far is live."""
        for token in self.issued:
            token.revoked = True

    def read(self, authorization: list[str]) -> tuple[Verdict, IssuedToken | None]:
        """What the `Authorization` lines of a request are worth."""
        if len(authorization) != 1:
            return "several" if authorization else "missing", None
        scheme, _, text = authorization[0].partition(" ")
        if scheme != "Bearer":
            return "malformed", None
        token = self._by_text.get(text)
        if token is None:
            return "unknown", None
        if token.revoked:
            return "revoked", token
        return ("live" if time.monotonic() < token.expires_at else "expired"), token
