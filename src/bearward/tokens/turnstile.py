"""At most so many token requests at a time for each identity provider.

Ten thousand tokens that fall due in the same second are asked for one after the other, ten at a time; a request that
waits for its token goes before those that are merely refreshed early.
"""

import asyncio
from collections import deque
from typing import Final

from .. import clock

WIDTH: Final = 10


class Turn:
    """One attempt's place in the queue."""

    __slots__ = ("_stile", "entered_at", "is_urgent", "waits")

    def __init__(self, *, is_urgent: bool) -> None:
        self.is_urgent = is_urgent
        self.entered_at: float | None = None
        """When it was let through, in seconds of `clock.now()`."""
        self.waits: asyncio.Future[None] | None = None
        """Done when it may enter; None while it does not stand in the queue."""
        self._stile: Turnstile | None = None

    def change(self, *, is_urgent: bool) -> None:
        """A request has begun to wait for what this attempt brings, or the last one has left."""
        if self.is_urgent != is_urgent:
            self.is_urgent = is_urgent
            if self._stile is not None:
                self._stile.queue(self)

    async def pass_into(self, stile: "Turnstile") -> None:
        """Waits for a free place; `Turnstile.leave` gives it back."""
        if not stile.takes():
            self.waits, self._stile = asyncio.get_running_loop().create_future(), stile
            stile.queue(self)
            try:
                await self.waits
            except asyncio.CancelledError:
                if self.waits.done() and not self.waits.cancelled():
                    stile.leave()  # the place was given in the very moment in which nobody wanted it any more
                raise
            finally:
                self.waits = self._stile = None
        self.entered_at = clock.now()


class Turnstile:
    """The queue before one identity provider."""

    def __init__(self) -> None:
        self._free = WIDTH
        self._queues: dict[bool, deque[Turn]] = {True: deque(), False: deque()}
        """By urgency. Who has changed it, or has left, stands in its old place still, and is skipped there."""

    def takes(self) -> bool:
        """Whether there is a free place, which is then taken."""
        if not self._free:
            return False
        self._free -= 1
        return True

    def queue(self, turn: Turn) -> None:
        self._queues[turn.is_urgent].append(turn)

    def leave(self) -> None:
        for is_urgent in (True, False):
            queue = self._queues[is_urgent]
            while queue:
                turn = queue.popleft()
                if turn.is_urgent == is_urgent and turn.waits is not None and not turn.waits.done():
                    turn.waits.set_result(None)
                    return
        self._free += 1
