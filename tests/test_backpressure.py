"""Back-pressure where a buffer is full already when its reading begins or goes on: rule 19 of a crossing.

How much is under way shows only where the kernel takes little, so these connections have small segments and windows:
a sender's buffer then holds some 50 KB, and what is beyond that waits in the product.
"""

import asyncio
import contextlib
import random
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

import wire
from configs import atlas_credential
from harness import Bearward
from rawproxy import RawProxy
from upstreams import proxy_before
from vendors.atlas import Atlas
from wire import Message, RawUpstream, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
LARGE = 128 * MIB
MEMORY = 16 * MIB
PIECE = bytes(MIB)
STALLED = 1.0
"""Seconds: a writer that gets no further for so long is held back."""
BRIEF = 4.0
"""Seconds: a token's lifetime. The next one comes after half of it."""
PATIENCE = 20.0
ECHOED = 48 * MIB
CONNECTIONS = 4
NEARLY_FULL = 100_000
"""Bytes: more than the kernel takes for a narrow client, and less than holds back an upstream."""
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"a" * 50_000 + b"\r\n\r\n"
"""The kernel takes no two of these, the product pauses after no two and after three in any case."""

measures_memory = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="a process's peak of memory is read from Linux's /proc"
)


def narrow() -> socket.socket:
    """A socket to which others can send little that is not read."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 300)
    return made


@contextlib.asynccontextmanager
async def narrow_client(bearward: Bearward) -> AsyncIterator[tuple[Reader, Writer]]:
    """A client that reads nothing before it is told to, and leaves with a reset."""
    own = narrow()
    own.setblocking(False)
    await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", bearward.port))
    reader, writer = await asyncio.open_connection(sock=own, limit=wire.LIMIT)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def pour(writer: Writer, total: int = LARGE) -> int:
    """Write as much as goes in, up to `total`; how much that was when it stopped going in."""
    sent = 0
    while sent < total:
        writer.write(PIECE)
        try:
            async with asyncio.timeout(STALLED):
                await writer.drain()
        except TimeoutError:
            return sent
        sent += len(PIECE)
    return sent


@contextlib.contextmanager
def stopped(bearward: Bearward) -> Iterator[None]:
    """What comes meanwhile is there at once when the product goes on."""
    bearward.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        bearward.process.send_signal(signal.SIGCONT)


@dataclass
class Stage:
    """`/raw` has a token that stays; that of `/brief` is replaced every other second; `/narrow` takes little."""

    proxy: RawProxy
    brief: Atlas

    @property
    def bearward(self) -> Bearward:
        return self.proxy.bearward


class Hoarder:
    """An upstream that accepts connections and reads nothing."""

    def __init__(self) -> None:
        self.writers: list[Writer] = []

    async def __call__(self, _reader: Reader, writer: Writer) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        self.writers.append(writer)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    hoarder, listener = Hoarder(), narrow()
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(hoarder, sock=listener)
    async with Atlas(BRIEF) as atlas, RawUpstream() as upstream:
        port = listener.getsockname()[1]
        routes = {"/raw": {}, "/brief": {"credential": "brief"}, "/narrow": {"upstream": f"http://127.0.0.1:{port}"}}
        async with proxy_before(
            upstream,
            routes,
            tmp_path_factory.mktemp("backpressure"),
            credentials={"brief": atlas_credential(atlas)},
            limits={"connections": CONNECTIONS},
        ) as proxy:
            yield Stage(proxy, atlas)
    for writer in hoarder.writers:
        writer.transport.abort()
    server.close()


@measures_memory
async def test_an_upload_that_is_full_from_its_first_bytes(stage: Stage) -> None:
    """All that came before the connection was there is more than its upstream takes; so is all that follows."""
    grown = stage.bearward.memory_growth()
    async with stage.bearward.connect() as client:
        with stopped(stage.bearward):
            client.writer.write(stage.proxy.request(b"/narrow/x", b"Content-Length: %d" % LARGE, method=b"PUT"))
            client.writer.write(bytes(300_000))
        assert await pour(client.writer) < LARGE
        assert grown() < MEMORY
        client.reset()


async def has_read_on(proxy: RawProxy) -> None:
    """Return when the product has looked several times at all that had come to it."""
    async with proxy.bearward.connect() as client:
        for _ in range(10):
            assert (await client.exchange(proxy.request(b"*", method=b"OPTIONS"))).status < 300


class FillAndRefuse:
    """A script that nearly fills its client, and whose 401 comes right behind what fills it; both answers are large."""

    def __init__(self) -> None:
        self.has_begun, self.may_refuse, self.is_over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.tokens: list[bytes] = []
        self.went_in = asyncio.Queue[int]()

    async def __call__(self, request: Message, _reader: Reader, writer: Writer) -> None:
        self.tokens += request.values("Authorization")
        length = b"Content-Length: %d\r\n\r\n" % LARGE
        if len(self.tokens) == 1:
            writer.write(HINT * 2)
            self.has_begun.set()
            await self.may_refuse.wait()
            writer.write(HINT + b"HTTP/1.1 401 Unauthorized\r\n" + length)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\n" + length)
        self.went_in.put_nowait(await pour(writer))
        await self.is_over.wait()


@measures_memory
@pytest.mark.parametrize("target", [b"/raw/x", b"/brief/x"], ids=["relayed", "replayed"])
async def test_a_401_to_a_client_that_is_full(stage: Stage, target: bytes) -> None:
    """It is passed on or the request repeated; neither begins to read what the client cannot take."""
    stage.proxy.upstream.script = script = FillAndRefuse()
    grown = stage.bearward.memory_growth()
    async with narrow_client(stage.bearward) as (_, writer), asyncio.timeout(PATIENCE):
        writer.write(stage.proxy.request(target))
        await script.has_begun.wait()
        if target == b"/brief/x":
            # Each of these brought a token; that of the request is no later one.
            issued = len(stage.brief.token_requests) + len(stage.proxy.atlas.token_requests)
            await stage.bearward.logs("token refreshed", issued + 1)
        await has_read_on(stage.proxy)
        script.may_refuse.set()
        assert await script.went_in.get() < LARGE
        assert grown() < MEMORY
    script.is_over.set()


async def test_an_echo_to_a_client_that_reads_late(stage: Stage) -> None:
    """It sends until nothing more goes in, and then the rest while it reads."""

    async def echo(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(wire.ok(b"").replace(b"Length: 0", b"Length: %d" % ECHOED))
        left = ECHOED
        while left and (piece := await reader.read(wire.LIMIT)):
            left -= len(piece)
            writer.write(piece)
            await writer.drain()

    async def send(content: bytes) -> None:
        client.writer.write(content)
        await client.writer.drain()

    stage.proxy.upstream.script = echo
    content = random.Random(1).randbytes(MIB) * (ECHOED // MIB)
    async with stage.bearward.connect() as client, asyncio.timeout(PATIENCE):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(stage.proxy.request(b"/raw/x", b"Content-Length: %d" % ECHOED, method=b"PUT"))
        sending = asyncio.create_task(send(content))
        done, _ = await asyncio.wait([sending], timeout=STALLED)
        assert not done, "the client is held back"
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await wire.read_answer(client.reader)).body == content
        await sending


async def test_who_still_reads_an_answer_makes_no_room(stage: Stage) -> None:
    """`limits.connections`: who has asked for nothing makes it, though the other has been answered for longer."""
    stage.proxy.upstream.reset()
    stage.proxy.upstream.answer = wire.ok(body := bytes(NEARLY_FULL))
    before = (await stage.bearward.metrics()).total("requests_total", route="/raw")
    async with narrow_client(stage.bearward) as (reader, writer), contextlib.AsyncExitStack() as others:
        writer.write(stage.proxy.request(b"/raw/x"))
        async with asyncio.timeout(PATIENCE):
            while (await stage.bearward.metrics()).total("requests_total", route="/raw") == before:
                await asyncio.sleep(0.02)
        for _ in range(CONNECTIONS + 1):
            await others.enter_async_context(stage.bearward.connect())
        await has_read_on(stage.proxy)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await wire.read_answer(reader)).body == body
