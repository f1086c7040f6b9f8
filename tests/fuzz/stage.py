"""Where a scene is played: one bearward between a client and an upstream that send the scene's bytes and keep all."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from configs import atlas_credential
from evidence import EVIDENCE
from harness import Bearward
from vendors.atlas import Atlas

from . import strict
from .end import End
from .scenes import HOST, Client, Reply, Scene

BOUND = 10.0
"""Seconds for what takes milliseconds; the timeouts of `/fuzz` are longer, so that none of them helps out."""
TIMEOUT, SHORT = 30, 1
"""Seconds for which the routes `/fuzz` and `/halting` wait for an upstream; a request's head has twice the latter."""
_CALM = 3
_PULSE = b"OPTIONS * HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"
_PROBE = b"GET /fuzz/probe HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"
_OTHERWISE = Reply((b"HTTP/1.1 200 OK\r\n", b"Content-Length: 3\r\n\r\n", b"all"), to_head=38)
"""How requests are answered that the scene has no reply for."""
PROBED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nprobed"
_PROBE_REPLY = Reply((PROBED,))


@dataclass
class Exchange:
    """One request as the upstream saw it, and what it said to it."""

    end: End
    number: int
    """How many requests came before it on its connection."""
    request: strict.Message
    sent: bytes = b""
    ending: strict.Ending = "open"


@dataclass
class Played:
    """What both sides have seen of a scene."""

    clients: list[End] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    """What each client has meant to send; the tail of it may not have found a listener."""
    exchanges: list[Exchange] = field(default_factory=list)
    upstream: list[End] = field(default_factory=list)
    probe: bytes = b""


class Stage:
    """bearward, and how a scene is played on both sides of it; one scene at a time."""

    def __init__(self, bearward: Bearward, atlas: Atlas, output: list[BinaryIO]) -> None:
        self.bearward = bearward
        self.atlas = atlas
        self.authority = b""
        self._output = output
        self._activity = 0
        self._stirred = asyncio.Event()
        self._beat: End | None = None
        self._beats = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._played = Played()
        self._replies: list[Reply] = []

    def close(self) -> None:
        """What is left open between the scenes."""
        if self._beat is not None:
            self._beat.finish("reset")

    def log(self) -> bytes:
        """What bearward has written since the last look."""
        return b"".join(file.read() for file in self._output)

    async def play(self, scene: Scene) -> Played:
        """The scene from its first byte to the last connection's end, and a plain request while all of it is fresh."""
        self._played, self._replies = Played(), list(scene.replies)
        try:
            await self._perform(scene, self._played)
        finally:
            for end in (*self._played.clients, *self._played.upstream):
                end.finish("reset")
            await asyncio.gather(*self._tasks)
        return self._played

    async def _perform(self, scene: Scene, played: Played) -> None:
        for client in scene.clients:
            await self._play(client, tame=scene.tame)
        played.probe = await self._probe()
        for end in played.upstream:
            end.finish("half-close")
        for end in played.upstream:
            await self._until(lambda end=end: not end.is_open, "bearward to leave an upstream that has left")
            end.finish("close")

    async def _play(self, client: Client, *, tame: bool) -> None:
        end = await self._connect(self._notice)
        whole = b"".join(client.writes)
        self._played.clients.append(end)
        self._played.sent.append(whole)
        for number, piece in enumerate(client.writes):
            if number:
                await self._pulse()
            end.write(piece)
        if client.end != "wait":
            end.finish(client.end)
        elif tame:
            requests = strict.to_the_last(strict.read_requests(whole)[0])
            methods = [request.start[0] for request in requests]
            await self._until(lambda: _has_answers(end, methods), f"{len(methods)} answers")
        await self._calm()
        if client.end != "reset":
            end.finish("half-close")
            if client.end != "close":
                await self._until(lambda: not end.is_open, "bearward to close a connection that its client has ended")
            end.finish("close")

    async def _probe(self) -> bytes:
        probe = await self._connect(self._notice)
        try:
            probe.write(_PROBE)
            await self._until(lambda: probe.received.endswith(b"probed") or not probe.is_open, "the probe's answer")
        finally:
            probe.finish("close")
        return probe.received

    async def _connect(self, notice: Callable[[], None]) -> End:
        loop = asyncio.get_running_loop()
        _, end = await loop.create_connection(lambda: End(notice), "127.0.0.1", self.bearward.port)
        return end

    async def _pulse(self) -> None:
        """One request that bearward answers itself: it has then read what was sent before."""
        async with self._beats:
            if self._beat is None or not self._beat.is_open:
                self._beat = await self._connect(self._stirred.set)
            beat = self._beat
            beat.received = b""
            beat.write(_PULSE)
            await self._until(lambda: beat.received.endswith(b"\r\n\r\n") or not beat.is_open, "a sign of life")

    async def _calm(self) -> None:
        """Wait until nothing happens any more between two signs of life."""
        calm = 0
        while calm < _CALM:
            before = self._activity
            await self._pulse()
            calm = calm + 1 if self._activity == before else 0

    async def _until(self, done: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(BOUND):
                while not done():
                    await self._news()
        except TimeoutError:
            raise AssertionError(f"waited {BOUND} s in vain for {what}") from None

    async def _news(self) -> None:
        self._stirred.clear()
        await self._stirred.wait()

    def _notice(self) -> None:
        self._activity += 1
        self._stirred.set()

    def accept(self) -> End:
        """Our end of a new connection to the upstream."""
        return End(self._notice, self._serve)

    def _serve(self, end: End) -> None:
        self._played.upstream.append(end)
        task = asyncio.ensure_future(self._converse(end, self._played))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, end: End, played: Played) -> None:
        """Answer a connection's requests in turn; what comes after its end is noted, and stays without an answer."""
        number = 0
        while True:
            while len(requests := strict.read_requests(end.received)[0]) <= number:
                if not end.is_open:
                    return
                await self._news()
            exchange = Exchange(end, number, requests[number])
            number += 1
            is_probe = exchange.request.start[1].endswith(b"/probe")
            if not is_probe:
                played.exchanges.append(exchange)
            if end.is_finished:
                exchange.ending = "closed"
            elif is_probe:
                await self._reply(exchange, _PROBE_REPLY)
            else:
                await self._reply(exchange, self._replies.pop(0) if self._replies else _OTHERWISE)

    async def _reply(self, exchange: Exchange, reply: Reply) -> None:
        end = exchange.end

        def request() -> strict.Message:
            return strict.read_requests(end.received)[0][exchange.number]

        while reply.after == "body" and not request().is_whole and end.is_open:
            await self._news()
        is_head = request().start[0] == b"HEAD" and reply.to_head is not None
        left = reply.to_head or 0
        for piece in reply.writes:
            shown = piece[:left] if is_head else piece
            left -= len(shown)
            exchange.sent += shown
            end.write(shown)
            self._activity += 1
            await self._pulse()
        if reply.end != "wait" and not is_head:
            end.finish(reply.end)
            exchange.ending = "reset" if reply.end == "reset" else "closed"
        self._activity += 1


def _has_answers(end: End, methods: list[bytes]) -> bool:
    if not end.is_open:
        return True
    answers, _ = strict.read_answers(end.received, methods, end.ending)
    return len(answers) == len(methods) and answers[-1][1].is_whole


@asynccontextmanager
async def open_stage(folder: Path, halting: str) -> AsyncIterator[Stage]:
    """bearward, an identity provider, and the two raw ends; the route `/halting` leads to the upstream `halting`."""
    stage: Stage
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: stage.accept(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Atlas() as atlas:
        config = {
            "credentials": {"atlas": atlas_credential(atlas)},
            "routes": {
                "/fuzz": {
                    "upstream": f"http://127.0.0.1:{port}/base",
                    "credential": "atlas",
                    "on_401": "pass",
                    "response_timeout": TIMEOUT,
                    "idle_timeout": TIMEOUT,
                },
                "/halting": {
                    "upstream": halting,
                    "credential": "atlas",
                    "response_timeout": SHORT,
                    "idle_timeout": SHORT,
                },
            },
            "allowed_hosts": [HOST.decode()],
            "limits": {"header_timeout": 2 * SHORT},
        }
        async with Bearward(config, folder, name="fuzz") as bearward:
            place = max(EVIDENCE.folder.glob("*-fuzz"))
            output = [(place / name).open("rb") for name in ("stdout", "stderr")]
            stage = Stage(bearward, atlas, output)
            stage.authority = b"127.0.0.1:%d" % port
            try:
                yield stage
            finally:
                stage.close()
                for file in output:
                    file.close()
