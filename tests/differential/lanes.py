"""Lanes: each leads through one proxy to an upstream port of its own and carries one case at a time, so that whatever
arrives at that port belongs to that case, however little of it is left to recognise it by."""

import asyncio
import itertools
import random
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from . import strict

NAMES = [f"/{letter * 2}8" for letter in "abcdefghijklmnopqrstuvwx"]
"""Route prefixes, one for each lane; no two are one changed byte apart."""
PREFIX = b"/eu8"
"""What a case has for its lane's prefix: as long as those."""
OWN_HOST = b"127.0.0.1:54321"
"""What a case has for the proxy's address. All ports have five digits."""

# How long a silence is taken for the end: after all the answers that a whole message asks for, and otherwise.
_AFTER_ALL, _QUIET = 0.03, 0.3
_PATIENT = 4  # times as long, when a result is confirmed
_END_OF_A_REST = 2.0
_LAST_CUT = 400  # bytes
_BETWEEN_PIECES = 0.005
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class Outcome:
    """What became of one case at one proxy."""

    statuses: tuple[int, ...]
    """Of its final answers. The upstream answers every request with 200."""
    closed: bool
    received: bytes
    whole: tuple[strict.Request, ...]
    """The requests that reached the upstream."""
    begun: int
    """The same, counting those of which only the head arrived."""
    faults: tuple[str, ...]
    """What a strict reader minds about the bytes that the upstream got."""
    upstream_closed: bool
    """Whether no connection to the upstream was left open."""

    @property
    def refused(self) -> bool:
        """Whether the proxy ended the case by itself."""
        return self.closed or any(status >= 400 for status in self.statuses)

    @property
    def crossed(self) -> int:
        """The requests that the proxy let through, or would have: one begun counts where the proxy did not mind it."""
        return (len(self.whole) if self.refused else self.begun) + len(self.faults)

    @property
    def answered_before_a_refusal(self) -> int:
        """The requests answered before the first that was refused; all of them, and one that waits, where none was."""
        refusals = [place for place, status in enumerate(self.statuses) if status >= 400]
        return refusals[0] if refusals else len(self.statuses) + 1

    def __str__(self) -> str:
        end = "closed" if self.closed else "open"
        seen = [request.raw for request in self.whole]
        return f"{list(self.statuses)} {end}, {self.begun} begun, {len(seen)} whole {seen} {list(self.faults)}"


class Lane:
    """One proxy's way from its port to an upstream of this lane alone."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.port = 0
        """Of the upstream."""
        self.activity = asyncio.Event()
        self.connections: set[_Upstream] = set()
        self.whole: list[strict.Request] = []
        self.faults: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """The upstream listens inside."""
        server = await asyncio.get_running_loop().create_server(lambda: _Upstream(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for connection in list(self.connections):
                connection.abort()
            await server.wait_closed()

    async def carry(self, message: bytes, proxy_port: int, *, patient: bool = False, pieces: int = 1) -> Outcome:
        """Send one case, in some pieces, and watch until nothing happens any more."""
        cuts = random.Random(message).choices(range(min(len(message), _LAST_CUT)), k=pieces - 1)
        self.whole.clear()
        self.faults.clear()
        self.activity.clear()
        message = message.replace(PREFIX, self.name).replace(OWN_HOST, b"127.0.0.1:%d" % proxy_port)
        reading = strict.read(message, as_server=True)
        client = _Client(self.activity)
        await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", proxy_port)
        for start, end in itertools.pairwise([0, *sorted(cuts), len(message)]):
            if start:
                await asyncio.sleep(_BETWEEN_PIECES)
            if not client.closed:
                client.transport.write(message[start:end])
        while not client.closed:
            answered = reading.is_finished and len(client.statuses) >= len(reading.whole)
            try:
                async with asyncio.timeout((_AFTER_ALL if answered else _QUIET) * (_PATIENT if patient else 1)):
                    await self.activity.wait()
            except TimeoutError:
                break
            self.activity.clear()
        outcome = Outcome(
            tuple(client.statuses),
            client.closed,
            client.received,
            tuple(self.whole),
            len(self.whole) + sum(connection.has_begun for connection in self.connections),
            tuple(self.faults),
            not self.connections,
        )
        client.transport.abort()
        await self._rests_end()
        return outcome

    async def _rests_end(self) -> None:
        """Wait until what never became whole is gone, so that it cannot be taken for part of the next case."""
        try:
            async with asyncio.timeout(_END_OF_A_REST):
                while any(connection.rest for connection in self.connections):
                    self.activity.clear()
                    await self.activity.wait()
        except TimeoutError:
            for connection in [connection for connection in self.connections if connection.rest]:
                connection.abort()


class _Upstream(asyncio.Protocol):
    """One connection at the upstream: every byte is read strictly, every request answered with 200."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.rest = b""
        self.has_begun = False
        self._told_to_go_on = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._lane.connections.add(self)

    def data_received(self, data: bytes) -> None:
        reading = strict.read(self.rest + data)
        self.rest, self.has_begun = reading.rest, reading.head_is_whole
        for request in reading.whole:
            self._lane.whole.append(request)
            self._transport.write(_ANSWER)
            self._told_to_go_on = False
        if reading.fault is not None:
            # Not hung up on: the proxy's client would see a 502, as if the proxy had refused the request.
            self._lane.faults.append(f"{reading.fault} in {reading.rest!r}")
            self.rest, self.has_begun = b"", False
            self._transport.write(_ANSWER)
            self._transport.close()
        elif self.has_begun and not self._told_to_go_on and b"100-continue" in self.rest.lower():
            self._transport.write(_CONTINUE)
            self._told_to_go_on = True
        self._lane.activity.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self._lane.connections.discard(self)
        self._lane.activity.set()

    def abort(self) -> None:
        self._transport.abort()


class _Client(asyncio.Protocol):
    def __init__(self, activity: asyncio.Event) -> None:
        self._activity = activity
        self.received = b""
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    @property
    def statuses(self) -> list[int]:
        return [status for found in _STATUS.finditer(self.received) if (status := int(found[1])) >= 200]

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._activity.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed = True
        self._activity.set()


@asynccontextmanager
async def open_lanes() -> AsyncIterator[list[Lane]]:
    """The lanes of one proxy."""
    async with AsyncExitStack() as stack:
        lanes = [Lane(name) for name in NAMES]
        for lane in lanes:
            await stack.enter_async_context(lane.open())
        yield lanes


async def carry_all(
    messages: list[bytes],
    ways: Mapping[str, tuple[list[Lane], int]],
    *,
    patient: bool = False,
    pieces: int = 1,
) -> dict[str, dict[bytes, Outcome]]:
    """Every message through every proxy, of which the lanes and the port are given: name → message → outcome."""
    outcomes: dict[str, dict[bytes, Outcome]] = {name: {} for name in ways}

    async def work(name: str, lane: Lane, port: int, waiting: Iterator[bytes]) -> None:
        for message in waiting:
            outcomes[name][message] = await lane.carry(message, port, patient=patient, pieces=pieces)

    async with asyncio.TaskGroup() as group:
        for name, (lanes, port) in ways.items():
            waiting = iter(messages)
            for lane in lanes:
                group.create_task(work(name, lane, port, waiting))
    return outcomes
