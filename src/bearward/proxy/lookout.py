"""Sees whether the other side of a connection has left while nothing is read from it."""

import asyncio
import select
from collections.abc import Callable
from typing import Final

EVERY: Final = 0.5
"""Seconds between two looks."""


class Lookout:
    """Calls `left` once the other side has closed its sending half, whatever it sent before; only Linux tells."""

    __slots__ = ("_handle", "_left", "_loop", "_transport")

    def __init__(self, loop: asyncio.AbstractEventLoop, left: Callable[[], None]) -> None:
        self._loop = loop
        self._left = left
        self._transport: asyncio.Transport | None = None
        self._handle: asyncio.TimerHandle | None = None

    def start(self, transport: asyncio.Transport) -> None:
        """Looks at `transport` from now on."""
        self._transport = transport
        self._handle = self._loop.call_later(EVERY, self._look)

    def end(self) -> None:
        """Lets go of the connection for good."""
        self.stop()
        self._transport, self._left = None, _nothing

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), getattr(select, "POLLRDHUP", 0))
        if poll.poll(0):
            self._left()
        else:
            self.start(self._transport)


def _nothing() -> None:
    """In place of what would keep its connection alive."""
