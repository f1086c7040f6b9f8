"""Bodies stream both ways at once, events arrive at once, and memory grows with neither: rule 19 of a crossing."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import wire
from problems import assert_problem
from rawproxy import RawProxy
from vendors import faults
from wire import Message, Reader, Sink, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
LARGE = 256 * MIB
PIECE = bytes(range(256)) * 4096
# What may gather in the sockets of two connections before a writer feels a stalled reader.
IN_SOCKETS = 64 * MIB
MEMORY = 16 * MIB
REPLAYABLE = 64 << 10
OUTGROWN = 2 * REPLAYABLE
# From this age on, a token that an upstream refuses is refreshed; the second is for the time it took to arrive.
SUSPECT_AGE = 10.0 + 1.0
# A writer that gets no further for this long is held back.
STALLED = 1.0

measures_memory = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="a process's peak of memory is read from Linux's /proc"
)

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"


async def pour(writer: Writer, total: int = LARGE, piece: bytes = PIECE) -> int:
    """Write as much as goes in, up to `total`; how much that was when it stopped going in."""
    sent = 0
    while sent < total:
        writer.write(piece)
        try:
            async with asyncio.timeout(STALLED):
                await writer.drain()
        except TimeoutError:
            return sent
        sent += len(piece)
    return sent


async def pieces(reader: Reader, total: int) -> AsyncIterator[bytes]:
    """`total` bytes as they come."""
    while total:
        async with asyncio.timeout(30):
            piece = await reader.read(min(total, MIB))
        assert piece, f"closed with {total} bytes to come"
        total -= len(piece)
        yield piece


async def digest_of(reader: Reader, total: int) -> str:
    digest = hashlib.sha256()
    async for piece in pieces(reader, total):
        digest.update(piece)
    return digest.hexdigest()


LARGE_DIGEST = hashlib.sha256(PIECE * (LARGE // len(PIECE))).hexdigest()


@pytest.mark.parametrize("kind", [b"Content-Type: text/event-stream", b"Content-Type: application/json"], ids=repr)
async def test_events_arrive_at_once(proxy: RawProxy, kind: bytes) -> None:
    """Each event is sent only after the client has the one before."""
    arrived = asyncio.Queue[None]()

    async def tell(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(CHUNKED_HEAD + kind + b"\r\n\r\n")
        for n in range(5):
            await arrived.get()
            writer.write(wire.chunk(b"data: %d\n\n" % n))
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    proxy.upstream.script = tell
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/events"))
        head = await wire.read_head(connection.reader)
        assert kind in head
        for n in range(5):
            arrived.put_nowait(None)
            assert (await wire.read_chunk(connection.reader))[0] == b"data: %d\n\n" % n
        assert (await wire.read_chunk(connection.reader))[0] == b""


async def test_a_head_arrives_before_its_body(proxy: RawProxy) -> None:
    may_go_on = asyncio.Event()

    async def answer(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n")
        await may_go_on.wait()
        writer.write(b"body")
        await writer.drain()

    proxy.upstream.script = answer
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        assert (await wire.read_head(connection.reader)).startswith(b"HTTP/1.1 200 OK\r\n")
        may_go_on.set()
        assert await connection.reader.readexactly(4) == b"body"


@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "beyond what is kept for a replay"])
async def test_an_upload_streams_while_its_answer_streams(proxy: RawProxy, size: int) -> None:
    """An echo: each piece is sent only after the one before has come back."""

    async def echo(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(CHUNKED_HEAD + b"\r\n")
        while content := (await wire.read_chunk(reader))[0]:
            writer.write(wire.chunk(content))
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    proxy.upstream.script = echo
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x", b"Transfer-Encoding: chunked", method=b"POST"))
        await wire.read_head(connection.reader)
        for n in range(5):
            content = b"%d" % n * size
            await connection.send(wire.chunk(content))
            back = b""
            while len(back) < len(content):
                back += (await wire.read_chunk(connection.reader))[0]
            assert back == content
        await connection.send(b"0\r\n\r\n")
        assert (await wire.read_chunk(connection.reader))[0] == b""


@measures_memory
async def test_memory_does_not_grow_with_an_answer(proxy: RawProxy) -> None:
    async def answer(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % LARGE)
        for _ in range(LARGE // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()

    proxy.upstream.script = answer
    grown = proxy.bearward.memory_growth()
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        await wire.read_head(connection.reader)
        assert await digest_of(connection.reader, LARGE) == LARGE_DIGEST
    assert grown() < MEMORY


class Taker:
    """A script that reads nothing before it may, then takes a large body and says so."""

    def __init__(self) -> None:
        self.may_read = asyncio.Event()
        self.digest = ""

    async def __call__(self, _request: Message, reader: Reader, writer: Writer) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await self.may_read.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        self.digest = await digest_of(reader, LARGE)
        writer.write(wire.ok(b"taken", b"Connection: close"))
        await writer.drain()


@measures_memory
async def test_memory_does_not_grow_with_a_request(proxy: RawProxy) -> None:
    proxy.upstream.script = taker = Taker()
    taker.may_read.set()
    grown = proxy.bearward.memory_growth()
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x", b"Content-Length: %d" % LARGE, method=b"PUT"))
        for _ in range(LARGE // len(PIECE)):
            await connection.send(PIECE)
        assert (await wire.read_answer(connection.reader)).body == b"taken"
    assert taker.digest == LARGE_DIGEST
    assert grown() < MEMORY


@measures_memory
async def test_a_stalled_upstream_holds_back_the_client(proxy: RawProxy) -> None:
    proxy.upstream.script = taker = Taker()
    grown = proxy.bearward.memory_growth()
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x", b"Content-Length: %d" % LARGE, method=b"PUT"))
        went_in = await pour(connection.writer)
        assert went_in < IN_SOCKETS
        assert grown() < MEMORY
        taker.may_read.set()
        # The piece at which `pour` gave up is on its way still.
        for _ in range((LARGE - went_in) // len(PIECE) - 1):
            await connection.send(PIECE)
        assert (await wire.read_answer(connection.reader)).body == b"taken"
    assert taker.digest == LARGE_DIGEST
    assert grown() < MEMORY


@measures_memory
@pytest.mark.parametrize(
    ("framing", "piece"),
    [
        (b"Content-Length: %d" % LARGE, PIECE),
        (b"Transfer-Encoding: chunked", wire.chunk(PIECE)),
        (b"Transfer-Encoding: chunked", wire.chunk(b"data: 1\n\n") * 10_000),
        (b"X: until the end", PIECE),
    ],
    ids=["length", "chunked", "small chunks", "until the end"],
)
async def test_a_stalled_client_holds_back_the_upstream(proxy: RawProxy, framing: bytes, piece: bytes) -> None:
    went_in = asyncio.get_running_loop().create_future()
    client_left = asyncio.Event()

    async def answer(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\nConnection: close\r\n\r\n")
        went_in.set_result(await pour(writer, piece=piece))
        await client_left.wait()

    proxy.upstream.script = answer
    grown = proxy.bearward.memory_growth()
    async with proxy.bearward.connect() as connection:
        # The test's own reader must not take what the client leaves lying.
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await connection.send(proxy.request(b"/raw/x"))
        assert await went_in < IN_SOCKETS
        assert grown() < MEMORY
        connection.writer.transport.abort()
    client_left.set()


@measures_memory
async def test_a_client_that_only_asks_is_held_back(proxy: RawProxy) -> None:
    """It sends one request after the other and reads no answer, each of which is small."""
    count, small = 1024, bytes(32 << 10)
    asked = asyncio.Queue[None]()

    async def answer(_request: Message, _reader: Reader, writer: Writer) -> None:
        asked.put_nowait(None)
        writer.write(wire.ok(small, b"Connection: close"))
        await writer.drain()

    proxy.upstream.script = answer
    grown = proxy.bearward.memory_growth()
    async with proxy.bearward.connect() as connection:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await connection.send(proxy.request(b"/raw/x") * count)
        crossed = 0
        with contextlib.suppress(TimeoutError):
            while crossed < count:
                async with asyncio.timeout(STALLED):
                    await asked.get()
                crossed += 1
        assert crossed < count
        assert grown() < MEMORY
        connection.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            assert (await wire.read_answer(connection.reader)).body == small
    assert grown() < MEMORY


async def test_an_upload_that_its_upstream_stops_reading_ends(proxy: RawProxy) -> None:
    is_over = asyncio.Event()

    async def read_nothing(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await is_over.wait()

    proxy.upstream.script = read_nothing
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/hasty/x", b"Content-Length: %d" % LARGE, method=b"PUT"))
        assert await pour(connection.writer) < IN_SOCKETS
        async with asyncio.timeout(5):
            assert_problem(await wire.read_answer(connection.reader), 504, "upstream_timeout")
    is_over.set()


# Of the tests of this module the last, so that little is left to wait until the tokens of its start are old enough.
@pytest.mark.parametrize(
    ("target", "framing", "begin", "rest"),
    [
        (
            *(b"/raw/x", b"Transfer-Encoding: chunked", wire.chunk(b"start")),
            wire.chunk(bytes(OUTGROWN - 5)) + b"0\r\n\r\n",
        ),
        (b"/other-header/x", b"Content-Length: %d" % OUTGROWN, b"start", bytes(OUTGROWN - 5)),
    ],
    ids=["chunked", "length"],
)
async def test_a_body_that_outgrows_a_replay_is_never_sent_in_part(
    proxy: RawProxy, target: bytes, framing: bytes, begin: bytes, rest: bytes
) -> None:
    """A 401 comes while little of the body is there, and the rest while the new token is waited for."""
    went_on = asyncio.Event()
    again = Sink()

    async def refuse(_request: Message, reader: Reader, writer: Writer) -> None:
        if len(proxy.upstream.requests) > 1:
            await again(_request, reader, writer)
            return
        writer.write(wire.answer(b"401 Unauthorized", b""))
        received = 0
        with contextlib.suppress(ConnectionError):
            while received <= REPLAYABLE and (piece := await reader.read(wire.LIMIT)):
                received += len(piece)
        went_on.set()  # the rest has come, or never will on this connection
        await reader.read()

    await asyncio.sleep(proxy.atlas.token_requests[1].at + SUSPECT_AGE - time.monotonic())
    proxy.upstream.script = refuse
    proxy.atlas.token_faults.fail_next(1, hold := faults.Hold())
    async with proxy.bearward.connect() as connection, asyncio.timeout(30):
        await connection.send(proxy.request(target, framing, method=b"POST", body=begin))
        await hold.arrived.wait()
        await connection.send(rest)
        await went_on.wait()
        await asyncio.sleep(0.1)  # nobody can see when the proxy has taken the last of it
        hold.release()
        answer = await wire.read_answer(connection.reader)
    assert (answer.status, answer.values("Bearward-Error")) == (401, [])
    assert len(proxy.upstream.requests) == 1
