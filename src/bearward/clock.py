"""The two clocks: one that never jumps and keeps counting while a laptop sleeps, and the wall's."""

import time
from typing import Final

_STEADY: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux's CLOCK_MONOTONIC stops while the machine is suspended, CLOCK_BOOTTIME does not; macOS has only the former."""


def now() -> float:
    """Seconds on a clock that never goes back; only differences mean anything."""
    return time.clock_gettime(_STEADY)


def wall(at: float) -> float:
    """The Unix time of the moment `at` of `now()`."""
    return time.time() + (at - now())
