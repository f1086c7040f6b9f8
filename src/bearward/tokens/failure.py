"""Why a token request brought no token: a closed set of reasons, and what each means for the next try."""

from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """The values of the metrics' label `reason`."""

    NETWORK = "network"
    TLS = "tls"
    TIMEOUT = "timeout"
    THROTTLED = "throttled"
    SERVER_ERROR = "server_error"
    SESSION_LIMIT = "session_limit"
    NO_TOKEN = "no_token"  # noqa: S105 - a name, not a password
    ALREADY_EXPIRED = "already_expired"
    SECRET_UNREADABLE = "secret_unreadable"  # noqa: S105
    COMMAND_FAILED = "command_failed"
    CHAINED_TOKEN = "chained_token"  # noqa: S105
    QUOTA = "quota"
    REFRESH_TOKEN_REFUSED = "refresh_token_refused"  # noqa: S105
    PASSWORD_REFUSED = "password_refused"  # noqa: S105
    REFUSED = "refused"


FOR_GOOD = frozenset({Reason.PASSWORD_REFUSED, Reason.REFUSED})
"""Reasons that time does not heal: the identity provider said no."""


@dataclass(eq=False)
class TokenRequestError(Exception):
    """A token request brought no token. `detail` is fit for logs: fixed words, a status, a known error code."""

    reason: Reason
    detail: str
    retry_after: float | None = None
    """Seconds that the identity provider asked us to wait."""
    sent: bool = True
    """Whether the request may have reached the identity provider."""
    answered: bool = True
    """Whether an answer came back; sent and never answered, a refresh token may be spent."""
    refresh_token: str | None = field(default=None, repr=False)
    """What an answer without a usable token brought all the same: its session is open."""
    status: int | None = None
    """Of the answer, where there was one."""
    code: str | None = None
    """The OAuth error code of the answer, where it is a known one."""
    clock_skew: float | None = None
    """As `Issued.clock_skew`."""
    is_chains_end: bool = False
    """Whether the credential that this one needs is itself refused for good."""

    @property
    def for_good(self) -> bool:
        return self.reason in FOR_GOOD or self.is_chains_end

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
