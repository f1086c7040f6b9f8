"""The data port: all its connections, how many there may be, and how they end."""

import asyncio
import contextlib
from typing import Final

from .. import events
from .client import ClientConnection
from .crossing import Crossing
from .handler import Handler
from .limits import Limits
from .messages import RequestHead

REFUSALS: Final = 32
"""How many connections beyond the limit may be about to read why they are refused."""


class DataPort:
    """The connections of clients."""

    def __init__(self, handler: Handler, limits: Limits, observe: events.Observer) -> None:
        self.handler = handler
        """What decides about requests; a new one takes effect with the next request."""
        self.limits = limits
        self.observe = observe
        self.is_draining = False
        self._loop = asyncio.get_running_loop()
        self._all: set[ClientConnection] = set()
        self.waiting: dict[ClientConnection, None] = {}
        """Those without a request in progress, the longest without one first."""
        self._empty = asyncio.Event()

    def protocol(self) -> asyncio.Protocol:
        """A new connection's protocol: what `create_server` asks for."""
        return ClientConnection(self, self._loop)

    def admit(self, head: RequestHead, connection: ClientConnection) -> Crossing | bytes:
        """The request on its way, or the whole answer to it. Raises `ProblemError`."""
        return self.handler.admit(head, connection, is_draining=self.is_draining)

    def entered(self, connection: ClientConnection) -> bool:
        """A new connection; whether there is room for it. The one that has waited longest makes room."""
        room = self.limits.connections - len(self._all)
        longest = next((each for each in self.waiting if not each.is_being_read), None) if room <= 0 else None
        if longest is not None:
            longest.abort()
            self.left(longest)
            room += 1
        self._all.add(connection)
        if room <= -REFUSALS:
            connection.abort()
        return room > 0

    def left(self, connection: ClientConnection) -> None:
        self._all.discard(connection)
        self.waiting.pop(connection, None)
        if not self._all:
            self._empty.set()

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - of a whole phase
        """Lets what is in flight end within `timeout` seconds, then closes everything."""
        self.is_draining = True
        for connection in list(self.waiting):
            connection.close_if_idle()
        if self._all:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._empty.wait()
        for connection in list(self._all):
            connection.abort()
