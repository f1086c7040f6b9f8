"""One live bearer token and its states. Times are seconds of `clock.now()`."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal


def fingerprint(value: str) -> str:
    """How logs and pages name a token: the first 8 hex digits of its SHA-256."""
    return sha256(value.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A token as it is handed out: fresh until `refresh_at`, stale until `usable_until`, then never again."""

    header_value: str
    """What goes into the injected header."""
    generation: int
    obtained_at: float
    """When its request was sent: lifetimes count from here."""
    refresh_at: float
    usable_until: float
    expires_at: float
    fingerprint: str

    def __repr__(self) -> str:
        return f"<token {self.fingerprint}, generation {self.generation}>"


@dataclass(slots=True)  # frozen ones take twice as long, and a scrape makes one of each token
class TokenStatus:
    """What an operator may know of a token. Times are Unix seconds; None: not yet."""

    state: Literal["none", "fresh", "stale", "expired", "rejected"]
    generation: int
    fingerprint: str | None
    expires_at: float | None
    refresh_due_at: float | None
    """When the next token request is due; None where none is planned."""
    last_refresh_at: float | None
    waiters: int
    failures: int
    """Failed attempts since the last good one."""
    last_failure: str | None
    """The reason of the last attempt's failure; None where it succeeded."""
    clock_skew: float | None
    is_started: bool
    """Whether there was ever a token or a definite refusal."""

    @property
    def is_usable(self) -> bool:
        return self.state in {"fresh", "stale"}
