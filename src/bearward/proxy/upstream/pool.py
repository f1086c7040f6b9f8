"""Which connections there are to each upstream, bounded, and never shared between upstreams that differ.

Decided without waiting where a connection is free; whoever has to wait does so for a bounded time, first come first
served.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final

from ...egress import EgressProxy
from ...errors import ProblemError
from ...tls import Tls
from ..limits import Limits
from ..routes import Upstream
from .connection import UpstreamConnection
from .dial import Dialer, Names, ResumingContext

MOST_AGE: Final = 300.0
"""Seconds after which a connection is not used again, so that a name's new addresses are followed."""


class Pool:
    """The connections to one upstream: scheme, host, port and TLS settings."""

    def __init__(self, upstream: Upstream, dialer: Dialer, limits: Limits, make_room: Callable[[], None]) -> None:
        self.host = upstream.host_and_port
        self.header_bytes = limits.header_bytes
        self._dialer = dialer
        self._most = limits.upstream_connections
        self._make_room_elsewhere = make_room
        self._loop = asyncio.get_running_loop()
        self._open: set[UpstreamConnection] = set()
        self._idle: list[UpstreamConnection] = []
        self._opening = 0
        self._waiters: deque[asyncio.Future[UpstreamConnection | None]] = deque()
        self._is_closed = False

    def idle(self) -> UpstreamConnection | None:
        """A connection that is free at this moment: the one used last, so that the others may end."""
        return self._idle.pop() if self._idle else None

    async def connect(self, seconds: float) -> UpstreamConnection:
        """A connection, a new one unless one becomes free while there is no room for more.

        Waits `seconds` at most for room, and as long for the connection. Raises `ProblemError` (502, 503, 504).
        """
        while self.size >= self._most:
            freed = await self._wait_for_room(seconds)
            if freed is None:
                break
            if not freed.is_closed:
                return freed
        else:
            self._opening += 1
        self._make_room_elsewhere()
        try:
            connection = await self._dialer.connect(lambda: UpstreamConnection(self, self._loop), seconds)
        except BaseException:
            self._opening -= 1
            self._make_room()
            raise
        self._opening -= 1
        if connection.is_closed:  # by its server, in the step in which it was opened
            self._make_room()
            raise ProblemError("upstream_closed", f"{self.host} closed the connection at once.")
        self._open.add(connection)
        return connection

    async def _wait_for_room(self, seconds: float) -> UpstreamConnection | None:
        """A connection that became free, or None and the right to open one."""
        waiter: asyncio.Future[UpstreamConnection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self._give_back(waiter.result())  # it came in the same moment
            if isinstance(error, TimeoutError):
                raise ProblemError("overloaded", f"All connections to {self.host} are in use.") from None
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)

    def _give_back(self, connection: UpstreamConnection | None) -> None:
        if connection is not None:
            self.freed(connection)
        else:
            self._opening -= 1
            self._make_room()

    def freed(self, connection: UpstreamConnection) -> None:
        """Hears that a connection's exchange came to a good end."""
        if connection.is_closed:
            return
        if self._is_closed or self._loop.time() - connection.opened_at > MOST_AGE:
            connection.abort()
        elif not self._hand_on(connection):
            self._idle.append(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """Hears that a connection is closed."""
        if connection in self._idle:
            self._idle.remove(connection)
        if connection in self._open:
            self._open.discard(connection)
            self._make_room()

    @property
    def size(self) -> int:
        """How many connections there are, those included that are being opened."""
        return len(self._open) + self._opening

    def drop_idle(self) -> bool:
        """Closes the connection that has been idle longest; whether there was one."""
        if self._idle:
            self._idle[0].abort()
            return True
        return False

    def close(self) -> None:
        """Closes what is idle now, and the rest as it becomes so."""
        self._is_closed = True
        for connection in list(self._idle):
            connection.abort()

    def _make_room(self) -> None:
        if self.size < self._most and self._hand_on(None):
            self._opening += 1

    def _hand_on(self, connection: UpstreamConnection | None) -> bool:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False


class Pools:
    """A pool for each upstream, shared by the routes that lead there."""

    def __init__(self, limits: Limits, egress: EgressProxy | None) -> None:
        self._limits = limits
        self._egress = egress
        self._names = Names()
        self._contexts: dict[Tls, ResumingContext] = {}
        self._pools: dict[tuple[str, str, int, Tls], Pool] = {}

    def pool(self, upstream: Upstream, tls: Tls) -> Pool:
        """The pool of an upstream; one that is kept from before, where there is one."""
        key = (upstream.scheme, upstream.host, upstream.port, tls)
        pool = self._pools.get(key)
        if pool is None:
            context = self._context(tls) if upstream.scheme == "https" else None
            dialer = Dialer(upstream, context, tls.server_name, self._egress, self._names)
            pool = self._pools[key] = Pool(upstream, dialer, self._limits, self._make_room)
        return pool

    def _make_room(self) -> None:
        """Each client's request needs one connection; idle ones beyond that give way."""
        excess = sum(pool.size for pool in self._pools.values()) - self._limits.connections
        if excess > 0:
            any(pool.drop_idle() for pool in self._pools.values())

    def _context(self, tls: Tls) -> ResumingContext:
        """One for all that trust and show the same: to read the system's roots takes time and memory."""
        context = self._contexts.get(tls)
        if context is None:
            context = self._contexts[tls] = ResumingContext.of(tls)
        return context

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
