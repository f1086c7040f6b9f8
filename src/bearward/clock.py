"""The two clocks: one that never jumps and keeps counting while a laptop sleeps, and the wall's."""

import time

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)

if _BOOTTIME is None:  # not Linux: the best there is

    def now() -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""
        return time.monotonic()

else:

    def now(_gettime=time.clock_gettime, _clock: int = _BOOTTIME) -> float:  # type: ignore[no-untyped-def]
        """Seconds on a clock that never goes back and counts suspended time; only differences mean anything."""
        return _gettime(_clock)  # type: ignore[no-any-return]


def wall(at: float | None = None) -> float:
    """The Unix time now, or at the moment `at` of `now()`."""
    return time.time() if at is None else time.time() + (at - now())
