"""Requests that do not wait for the answer before. Rule 8 and Rule 19: in order, one at a time, and held back."""

import asyncio
import contextlib

import pytest

import wire
from problems import assert_problem
from rawproxy import AT_ONCE, MARK, RawProxy
from wire import Message, Reader, Sink, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 100
MEMORY = 16 << 20
STALLED = 1.0
"""A writer that gets no further for this many seconds is held back."""


async def test_answers_come_in_order(proxy: RawProxy) -> None:
    """RFC 9112 §9.3.2: also where some are bearward's own and at hand at once."""
    targets = [b"/nowhere" if n % 3 == 1 else b"/raw/../x" if n % 3 == 2 else b"/raw/%d" % n for n in range(MANY)]
    statuses = [404 if n % 3 == 1 else 400 if n % 3 == 2 else 200 for n in range(MANY)]
    async with proxy.bearward.connect() as connection:
        await connection.send(b"".join(proxy.request(target) for target in targets))
        assert [(await wire.read_answer(connection.reader)).status for _ in targets] == statuses
    assert [seen.target for seen in proxy.upstream.requests] == [b"/base/%d" % n for n in range(0, MANY, 3)]


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: 5", b"hello"), (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")],
    ids=["length", "chunked"],
)
async def test_bodies_are_told_apart(proxy: RawProxy, framing: bytes, body: bytes) -> None:
    """Rule 8: what stands behind a body is the next request, and nothing of it belongs to the body."""
    sent = b"".join(proxy.request(b"/raw/%d" % n, framing, method=b"POST", body=body) for n in range(MANY))
    async with proxy.bearward.connect() as connection:
        await connection.send(sent)
        for _ in range(MANY):
            assert (await wire.read_answer(connection.reader)).status == 200
    assert [(seen.target, seen.body) for seen in proxy.upstream.requests] == [
        (b"/base/%d" % n, b"hello") for n in range(MANY)
    ]


async def test_one_at_a_time(proxy: RawProxy) -> None:
    """A client's second request goes upstream only after the first is answered."""
    arrived, may_answer = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def hold(request: Message, _reader: Reader, writer: Writer) -> None:
        if request.target != b"/base/other":
            arrived.release()
            await may_answer.acquire()
        writer.write(wire.ok(request.target, b"Connection: close"))
        await writer.drain()

    proxy.upstream.script = hold
    async with proxy.bearward.connect() as connection:
        await connection.send(b"".join(proxy.request(b"/raw/%d" % n) for n in range(3)))
        for n in range(3):
            await arrived.acquire()
            # While others are served, it is not this client's turn.
            assert (await proxy.get(b"/raw/other")).status == 200
            seen = [request.target for request in proxy.upstream.requests if request.target != b"/base/other"]
            assert seen == [b"/base/%d" % turn for turn in range(n + 1)]
            may_answer.release()
            assert (await wire.read_answer(connection.reader)).body == b"/base/%d" % n


async def test_what_is_malformed_is_refused_in_its_turn(proxy: RawProxy) -> None:
    """Rule 8: the request before it is answered, those after it are none."""
    bad = proxy.request(b"/raw/bad?" + MARK, b"X-A : 1")
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/good") + bad + proxy.request(b"/raw/smuggled"))
        async with asyncio.timeout(AT_ONCE):
            assert (await wire.read_answer(connection.reader)).status == 200
            answer = await wire.read_answer(connection.reader)
            assert await connection.reader.read() == b""
    assert_problem(answer, 400, "bad_request")
    assert MARK not in answer.raw
    assert [seen.target for seen in proxy.upstream.requests] == [b"/base/good"]


async def test_what_is_malformed_does_not_disturb_the_answer_before(proxy: RawProxy) -> None:
    """Rule 8: it arrives while the answer before it is on its way."""
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def answer_slowly(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        has_begun.set()
        await may_end.wait()
        writer.write(b"again")
        await writer.drain()

    proxy.upstream.script = answer_slowly
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/good"))
        await wire.read_head(connection.reader)
        await connection.reader.readexactly(5)
        await connection.send(b"nonsense\n\n")
        assert (await proxy.get(b"/nowhere")).status == 404  # time enough to have been read
        may_end.set()
        async with asyncio.timeout(AT_ONCE):
            assert await connection.reader.readexactly(5) == b"again"
            assert_problem(await wire.read_answer(connection.reader), 400, "bad_request")
            assert await connection.reader.read() == b""


@pytest.mark.parametrize("target", [b"/raw/last", b"/nowhere"])
async def test_nothing_follows_a_close(proxy: RawProxy, target: bytes) -> None:
    """RFC 9112 §9.6: what stands behind `Connection: close` is no request."""
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(target, b"Connection: close") + proxy.request(b"/raw/next"))
        async with asyncio.timeout(AT_ONCE):
            answer = await wire.read_answer(connection.reader)
            assert await connection.reader.read() == b""
    assert answer.values("Connection") == [b"close"]
    assert b"/base/next" not in [seen.target for seen in proxy.upstream.requests]


async def test_nothing_follows_a_connect(proxy: RawProxy) -> None:
    """Rule 7: whoever asks for a tunnel does not speak HTTP behind it."""
    host = b"127.0.0.1:%d" % proxy.bearward.port
    sent = b"CONNECT " + host + b" HTTP/1.1\r\n" + proxy.host + b"\r\n\r\n" + proxy.request(b"/raw/next")
    await proxy.refuses(sent, 405, "method_not_allowed")


@pytest.mark.parametrize("are_answered_here", [True, False], ids=["answered here", "behind one in progress"])
async def test_who_asks_and_does_not_read_is_held_back(proxy: RawProxy, are_answered_here: bool) -> None:
    """Rule 19: neither unread answers nor unanswered requests gather in memory."""
    proxy.upstream.script = sink = Sink()
    piece = proxy.request(b"/nowhere") * 1000
    total, sent = 64 << 20, 0
    grown = proxy.bearward.memory_growth()
    async with proxy.bearward.connect() as connection:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        if not are_answered_here:
            await connection.send(proxy.request(b"/raw/x"))
            await sink.began.wait()
        with contextlib.suppress(TimeoutError):
            while sent < total:
                connection.writer.write(piece)
                async with asyncio.timeout(STALLED):
                    await connection.writer.drain()
                sent += len(piece)
        assert sent < total
        assert grown() < MEMORY
        assert (await proxy.get(b"/nowhere")).status == 404
        connection.reset()
