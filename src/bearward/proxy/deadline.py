"""One timer for a connection's whole life: setting it costs an assignment, not a timer of the loop."""

import asyncio
from collections.abc import Callable
from math import inf


class Deadline:
    """Calls `passed` once its moment has come, unless it was set anew or cleared before."""

    __slots__ = ("_at", "_fires_at", "_handle", "_loop", "_passed")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._at = inf
        self._fires_at = inf
        self._handle: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """In `seconds` from now. A timer that fires earlier is left alone: it looks again."""
        self._at = at = self._loop.time() + seconds
        if at < self._fires_at:
            if self._handle is not None:
                self._handle.cancel()
            self._arm(at)

    def clear(self) -> None:
        self._at = inf

    def end(self) -> None:
        """Lets go of the loop for good."""
        self._at = inf
        self._passed = _nothing
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, at: float) -> None:
        self._fires_at = at
        self._handle = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        """A loop that was held up runs its timers before it reads: so what came meanwhile is read first."""
        self._handle, self._fires_at = None, inf
        if self._loop.time() < self._at < inf:
            self._arm(self._at)
        elif self._at < inf:
            self._fires_at = self._at
            self._handle = self._loop.call_later(0, self._judge)

    def _judge(self) -> None:
        self._handle, self._fires_at = None, inf
        if self._loop.time() < self._at < inf:
            self._arm(self._at)
        elif self._at < inf:
            self._at = inf
            self._passed()


def _nothing() -> None:
    """In place of what would keep its connection alive."""
