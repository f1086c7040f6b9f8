"""What happens, as frozen facts; whoever wants to know is an `Observer`. No fact holds a secret or a token."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenRequested:
    """A token request came to its end. `credential` is the label; `failure` the reason that it brought no token."""

    credential: str
    grant_type: str
    seconds: float
    failure: str | None


@dataclass(frozen=True, slots=True)
class TokenRefreshed:
    """A new token is in use. Lifetime and the time to its refresh are in seconds from its request."""

    credential: str
    generation: int
    fingerprint: str
    lifetime: float
    lifetime_from: str
    refresh_in: float
    clock_skew: float | None


@dataclass(frozen=True, slots=True)
class RefreshFailed:
    """An attempt brought no token."""

    credential: str
    reason: str
    detail: str
    for_good: bool
    retry_in: float | None
    """Seconds until the next one; None: when somebody asks."""
    token_left: float
    """Seconds for which the token at hand can still be used; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class LogoutTried:
    """The identity provider was told to end a session; `outcome` is its status, or the reason that none came."""

    credential: str
    outcome: str


@dataclass(frozen=True, slots=True)
class TokenEvicted:
    """The least recently used token of a principal made room for another."""

    credential: str


@dataclass(frozen=True, slots=True)
class TokenMarkedBad:
    """The upstream answered 401 to this generation."""

    credential: str
    generation: int


@dataclass(frozen=True, slots=True)
class SecretChanged:
    """A secret's file has new content: refusals and back-offs of the old one are forgotten."""

    credential: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDone:
    """A request of a route came to its end; told to the access log alone. Times are in seconds."""

    route: str
    method: str
    path: str
    """The target without its query; bytes that are no visible ASCII as `%XX`."""
    code: int
    """499 where the client left before there was an answer, as nginx counts it."""
    origin: str
    """Who made the status: `upstream` or `proxy`."""
    request_bytes: int
    response_bytes: int
    seconds: float
    upstream_seconds: float
    """From the last sending of the request's head to the end of its answer."""
    token_seconds: float
    """What was spent on waiting for a token."""
    replayed: bool
    token: str | None
    """The fingerprint of the token that went upstream last."""


@dataclass(frozen=True, slots=True)
class UpstreamFailed:
    """An upstream gave no whole answer. `reason` is an error code, or `truncated` after its head."""

    route: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RequestRejected:
    """A request was refused before any route was asked; `reason` is the error code."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConfigApplied:
    """The config was read again and is in force."""

    routes: int


@dataclass(frozen=True, slots=True)
class ConfigRefused:
    """The config was read again and is at fault; the last one stays in force."""

    faults: int
    first: str
    """The first fault with its place; `bearward check` shows all."""


@dataclass(frozen=True, slots=True)
class StoreIgnored:
    """What was found where tokens are kept is not used, or not all of it; `reason` has the place and what to do."""

    reason: str


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """What has changed could not be written to the token store, and is tried again; told once until it works."""

    reason: str


@dataclass(frozen=True, slots=True)
class StoreRecovered:
    """The token store is written again, with all that could not be written before."""

    path: str


@dataclass(frozen=True, slots=True)
class StoreFull:
    """The token store has no room for so many entries; those that expire first are left out. Told once."""

    path: str
    left_out: int


@dataclass(frozen=True, slots=True)
class Crashed:
    """An error that should not happen; `where` is type and place, without the error's text."""

    task: str
    where: str


Event = (
    TokenRequested
    | TokenRefreshed
    | RefreshFailed
    | LogoutTried
    | TokenEvicted
    | TokenMarkedBad
    | SecretChanged
    | UpstreamFailed
    | RequestRejected
    | ConfigApplied
    | ConfigRefused
    | StoreIgnored
    | StoreFailed
    | StoreRecovered
    | StoreFull
    | Crashed
)
Observer = Callable[[Event], None]


def place_of(error: BaseException) -> str:
    """The type of an error and the places that it passed, without its text, which may hold what was sent."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join([type(error).__name__, *reversed(places[-6:])])
