"""When to ask for a token again, and how long one is handed out. Pure; all times in seconds.

`uniform` is a source of random numbers between two bounds, so that many processes do not ask at once.
"""

from collections.abc import Callable
from typing import Final

from .failure import Reason

Uniform = Callable[[float, float], float]

MIN_LIFETIME: Final = 1.0
MAX_LIFETIME: Final = 10 * 365 * 86400.0
"""Longer claims are cut: no clock arithmetic should meet 1e99."""
WAIT_FOR_TOKEN: Final = 15.0
"""How long a request waits for a token at most."""
YOUNG: Final = 10.0
"""A token of less than this age that draws a 401 is not replaced: the fault is not its age."""
RETRY_AFTER_MAX: Final = 600.0
IMPATIENT: Final = 5.0
"""The longest back-off while requests wait and no token is usable."""


def lead(lifetime: float, configured: float | None, uniform: Uniform, refresh_in: float | None = None) -> float:
    """How long before expiry the refresh starts.

    A configured lead is kept, within bounds: long enough to end before the token is no longer handed out, and at most
    half a lifetime. Else the identity provider's wish, to refresh after `refresh_in` seconds, is followed.
    """
    least = min(2 * margin(lifetime), lifetime / 2)
    if configured is not None:
        return min(max(configured, least), lifetime / 2)
    if refresh_in is not None:
        return min(max(lifetime - refresh_in, least), lifetime - MIN_LIFETIME / 2)
    return min(max(0.2 * lifetime, min(10.0, lifetime / 2)), 900.0) * uniform(1.0, 1.25)


def margin(lifetime: float) -> float:
    """The last part of a lifetime, in which a token is not handed out: it must survive its journey."""
    return min(max(2.0, min(10.0, 0.1 * lifetime)), lifetime / 2)


def retry_delay(reason: Reason, failures: int, uniform: Uniform) -> float:
    """How long to wait after the `failures`-th failure in a row (from 1).

    Transient ones: exponential back-off from 1 s to 60 s with full jitter. A refusal for good: 30 s doubling to
    10 min. A refused password: 15 min doubling to 6 h, because accounts get locked.
    """
    doubling = 2.0 ** min(failures - 1, 30)
    if reason is Reason.PASSWORD_REFUSED:
        return min(900.0 * doubling, 6 * 3600.0)
    if reason is Reason.REFUSED:
        return min(30.0 * doubling, 600.0)
    return uniform(0.0, min(doubling, 60.0))
