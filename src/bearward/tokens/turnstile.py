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

    __slots__ = ("_future", "_stile", "entered_at", "is_urgent")

    def __init__(self, *, is_urgent: bool) -> None:
        self.is_urgent = is_urgent
        self.entered_at: float | None = None
        """When it was let through, in seconds of `clock.now()`."""
        self._future: asyncio.Future[None] | None = None
        self._stile: Turnstile | None = None

    def hurry(self) -> None:
        """A request has begun to wait for what this attempt brings."""
        if not self.is_urgent:
            self.is_urgent = True
            if self._stile is not None and self._future is not None:
                self._stile.put_first(self._future)


class Turnstile:
    """The queue before one identity provider: `async with turnstile.passing(turn)`."""

    def __init__(self) -> None:
        self._free = WIDTH
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    @property
    def is_idle(self) -> bool:
        return self._free == WIDTH

    async def enter(self, turn: Turn) -> None:
        """Waits for a free place; `leave` gives it back."""
        if self._free:
            self._free -= 1
        else:
            future = asyncio.get_running_loop().create_future()
            turn._future, turn._stile = future, self
            (self._urgent if turn.is_urgent else self._others).append(future)
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self.leave()  # the place was given in the very moment in which nobody wanted it any more
                raise
            finally:
                turn._future = turn._stile = None
        turn.entered_at = clock.now()

    def leave(self) -> None:
        for queue in (self._urgent, self._others):
            while queue:
                future = queue.popleft()
                if not future.done():
                    future.set_result(None)
                    return
        self._free += 1

    def put_first(self, future: asyncio.Future[None]) -> None:
        """Lets it pass before all that are not urgent. Its old place is skipped."""
        self._urgent.append(future)
