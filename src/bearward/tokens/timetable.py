"""Rings for whoever is due next: one timer for all tokens, however many there are.

Timers stop while a laptop sleeps, the clock does not: no sleep is longer than 15 seconds.
"""

import asyncio
import itertools
import math
from heapq import heapify, heappop, heappush
from typing import Final, Protocol

from .. import clock

TICK: Final = 15.0
GRAIN: Final = 0.005
"""The shortest sleep. An event loop counts in milliseconds and may ring a part of one too early."""
AT_ONCE: Final = 50
"""How many are rung for between two sleeps: each may begin an attempt, and requests cross meanwhile."""


class Sleeper(Protocol):
    """Who is rung for."""

    planned: float
    """When, in seconds of `clock.now()`; kept by the timetable."""

    def ring(self) -> None:
        """It is time. Raises nothing."""


class Timetable:
    """Who is to be rung for, and when. Whoever plans again gives up the former time."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Sleeper]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        self._planned = 0

    def plan(self, sleeper: Sleeper, at: float) -> None:
        """Rings for it at `at`; infinity: never."""
        if at == sleeper.planned:
            return
        self._planned += (at < math.inf) - (sleeper.planned < math.inf)
        sleeper.planned = at
        if at < math.inf:
            heappush(self._entries, (at, next(self._numbers), sleeper))
            if len(self._entries) > 2 * self._planned + 64:
                self._tidy()
            self._set(at)

    def _set(self, at: float) -> None:
        if at < self._rings_at:
            if self._timer is not None:
                self._timer.cancel()
            delay = min(max(at - clock.now(), GRAIN), TICK)
            self._rings_at = at
            self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, math.inf
        now, left = clock.now(), AT_ONCE
        try:
            while left and self._entries and self._entries[0][0] <= now:
                at, _, sleeper = heappop(self._entries)
                if sleeper.planned == at:  # else it has planned again since
                    sleeper.planned = math.inf
                    self._planned -= 1
                    left -= 1
                    sleeper.ring()
        finally:  # whatever one of them does, the others' time comes
            if self._entries:
                self._set(self._entries[0][0])

    def _tidy(self) -> None:
        self._entries = [entry for entry in self._entries if entry[2].planned == entry[0]]
        heapify(self._entries)
