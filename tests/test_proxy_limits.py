"""How much is taken on. Rule 23: targets, heads, time for a head, bodies; Rule 8: what a refusal leaves unread.

How many connections there may be has a file of its own.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

import wire
from problems import assert_problem
from rawproxy import AT_ONCE, MARK, RawProxy, raw_proxy
from wire import Sink, chunk

pytestmark = pytest.mark.asyncio(loop_scope="module")

KIB = 1 << 10
TARGET_BYTES = 16 * KIB
HEADER_BYTES = 64 * KIB
HEADER_LINES = 1000
STRICT_HEADER_BYTES = 20 * KIB
STRICT_HEADER_TIMEOUT = 1.0
MAX_BODY = 100_000
SLACK = 0.5
"""Seconds by which a timer may be late on a busy machine."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_strict(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RawProxy]:
    """Limits of its own."""
    limits = {"header_timeout": STRICT_HEADER_TIMEOUT, "header_bytes": STRICT_HEADER_BYTES}
    routes = {"/small": {"max_body": MAX_BODY}}
    async with raw_proxy(tmp_path_factory.mktemp("strict"), limits=limits, routes=routes) as strict:
        yield strict


@pytest.fixture
def strict(module_strict: RawProxy) -> RawProxy:
    module_strict.upstream.reset()
    return module_strict


def of_target(proxy: RawProxy, size: int) -> bytes:
    return proxy.request(b"/raw/".ljust(size, b"x"))


def of_head(proxy: RawProxy, size: int, *, lines: int = 1) -> bytes:
    """A request whose head has `size` bytes, most of them in so many header lines."""
    spare = size - len(proxy.request(b"/raw/x", *[b"X-Long: "] * lines))
    filling = [b"X-Long: " + b"x" * (spare // lines) for _ in range(lines - 1)]
    return proxy.request(b"/raw/x", *filling, b"X-Long: " + b"x" * (spare - spare // lines * (lines - 1)))


async def test_a_target_at_the_limit(proxy: RawProxy) -> None:
    """Rule 23: 16 KiB."""
    assert (await proxy.bearward.raw(of_target(proxy, TARGET_BYTES))).status == 200


@pytest.mark.parametrize(
    "target",
    [b"/raw/".ljust(TARGET_BYTES + 1, b"x"), b"/raw/x?".ljust(TARGET_BYTES + 1, b"x"), b"/raw/".ljust(60 * KIB, b"x")],
    ids=["one more", "in the query", "much more"],
)
async def test_a_target_beyond_the_limit(proxy: RawProxy, target: bytes) -> None:
    """Rule 23: 414."""
    await proxy.refuses(proxy.request(target), 414, "target_too_long")


@pytest.mark.parametrize("size", [TARGET_BYTES + KIB, 10 * HEADER_BYTES], ids=["beyond a target", "beyond a head"])
async def test_a_target_without_an_end(proxy: RawProxy, size: int) -> None:
    """Rule 23: refused when the limit is passed, wherever its end may be."""
    await proxy.refuses(b"GET /raw/".ljust(size, b"x"), 414, "target_too_long")


@pytest.mark.parametrize("lines", [1, 20], ids=["one line", "many lines"])
async def test_a_head_at_the_limit(proxy: RawProxy, strict: RawProxy, lines: int) -> None:
    """Rule 23: 64 KiB, or what the config says."""
    assert (await proxy.bearward.raw(of_head(proxy, HEADER_BYTES, lines=lines))).status == 200
    assert (await strict.bearward.raw(of_head(strict, STRICT_HEADER_BYTES, lines=lines))).status == 200


@pytest.mark.parametrize("lines", [1, 20], ids=["one line", "many lines"])
async def test_a_head_beyond_the_limit(proxy: RawProxy, strict: RawProxy, lines: int) -> None:
    """Rule 23: 431."""
    await proxy.refuses(of_head(proxy, HEADER_BYTES + 1, lines=lines), 431, "headers_too_large")
    await strict.refuses(of_head(strict, STRICT_HEADER_BYTES + 1, lines=lines), 431, "headers_too_large")


@pytest.mark.parametrize(
    "line", [b"X-Long: " + b"x" * 10 * HEADER_BYTES, b"X-Long: 1\r\n" * HEADER_BYTES, b"x" * 10 * HEADER_BYTES], ids=len
)
async def test_a_head_without_an_end(proxy: RawProxy, line: bytes) -> None:
    """Rule 23: refused when the limit is passed, wherever its end may be."""
    await proxy.refuses(proxy.request(b"/raw/x?" + MARK, line)[:-4], 431, "headers_too_large")


async def test_empty_lines_before_a_request_hold_up_nobody(strict: RawProxy) -> None:
    """Rule 23: they are a head that does not come, and cost neither memory nor the time of others."""
    async with strict.bearward.connect() as connection:
        connection.writer.write(b"\r\n" * (2 << 20))
        async with asyncio.timeout(AT_ONCE):
            assert (await strict.get(b"/raw/other")).status == 200
            await connection.closed()


async def test_the_number_of_header_lines_is_bounded(proxy: RawProxy) -> None:
    """Rule 23: 1000, however short."""
    lines = [b"x:%d" % n for n in range(HEADER_LINES - 1)]  # Host is one of them
    assert (await proxy.get(b"/raw/x", *lines)).status == 200
    proxy.upstream.reset()
    await proxy.refuses(proxy.request(b"/raw/x", *lines, b"x: one more"), 431, "headers_too_large")


async def test_a_connection_that_never_says_anything(strict: RawProxy) -> None:
    """Rule 23: closed after `header_timeout`, without a word."""
    async with strict.bearward.connect() as connection:
        began = time.monotonic()
        assert await connection.reader.read() == b""
        assert STRICT_HEADER_TIMEOUT - SLACK < time.monotonic() - began < STRICT_HEADER_TIMEOUT + SLACK


async def _is_timed_out(connection: wire.Connection, began: float) -> None:
    answer = await wire.read_answer(connection.reader)
    took = time.monotonic() - began
    assert_problem(answer, 408, "request_timeout")
    assert answer.values("Connection") == [b"close"]
    assert await connection.reader.read() == b""
    assert MARK not in answer.raw
    assert STRICT_HEADER_TIMEOUT - SLACK < took < STRICT_HEADER_TIMEOUT + SLACK


@pytest.mark.parametrize("sent", [b"G", b"GET /raw/x?" + MARK, b"GET /raw/x HTTP/1.1\r\nX-Mark: " + MARK], ids=len)
async def test_half_a_head(strict: RawProxy, sent: bytes) -> None:
    """Rule 23: 408 after `header_timeout`."""
    async with strict.bearward.connect() as connection:
        began = time.monotonic()
        await connection.send(sent)
        await _is_timed_out(connection, began)
    assert strict.upstream.requests == []


async def test_a_head_that_drips(strict: RawProxy) -> None:
    """Rule 23: the whole head has `header_timeout`, not each byte of it."""
    async with strict.bearward.connect() as connection:

        async def drip() -> None:
            with suppress(ConnectionError):
                for byte in strict.request(b"/raw/x", b"X-Long: ".ljust(KIB, b"x")):
                    await connection.send(bytes([byte]))
                    await asyncio.sleep(0.1)

        began = time.monotonic()
        dripping = asyncio.ensure_future(drip())
        try:
            await _is_timed_out(connection, began)
        finally:
            dripping.cancel()
    assert strict.upstream.requests == []


async def test_the_next_head_has_its_own_time(strict: RawProxy) -> None:
    """Rule 23: a kept connection may be idle for longer (75 s); its time begins with the first byte of a head."""
    async with strict.bearward.connect() as connection:
        assert (await connection.exchange(strict.request(b"/raw/x"))).status == 200
        await asyncio.sleep(STRICT_HEADER_TIMEOUT + SLACK)
        assert (await connection.exchange(strict.request(b"/raw/y"))).status == 200
        began = time.monotonic()
        await connection.send(strict.request(b"/raw/z")[:-2])
        await _is_timed_out(connection, began)


async def test_a_body_and_its_answer_may_take_longer_than_a_head(strict: RawProxy) -> None:
    """Rule 23: `header_timeout` ends with the head."""
    async with strict.bearward.connect() as connection:
        await connection.send(strict.request(b"/raw/x", b"Content-Length: 2", method=b"POST", body=b"a"))
        await asyncio.sleep(STRICT_HEADER_TIMEOUT + SLACK)
        assert (await connection.exchange(b"b")).status == 200
    assert strict.upstream.only_request.body == b"ab"


async def test_a_body_at_its_limit(strict: RawProxy) -> None:
    """`max_body`: up to it, both framings cross."""
    body = b"x" * MAX_BODY
    length = strict.request(b"/small/x", b"Content-Length: %d" % MAX_BODY, method=b"POST", body=body)
    chunked = chunk(body[:1000]) + chunk(body[1000:]) + b"0\r\n\r\n"
    chunked = strict.request(b"/small/x", b"Transfer-Encoding: chunked", method=b"POST", body=chunked)
    for sent in (length, chunked):
        strict.upstream.reset()
        assert (await strict.bearward.raw(sent)).status == 200
        assert strict.upstream.only_request.body == body


async def test_a_length_beyond_the_limit_of_bodies(strict: RawProxy) -> None:
    """`max_body`: the length alone is enough to refuse, before a byte of the body."""
    head = strict.request(b"/small/x?" + MARK, b"Content-Length: %d" % (MAX_BODY + 1), method=b"POST")
    await strict.refuses(head, 413, "body_too_large")


async def test_chunks_beyond_the_limit_of_bodies(strict: RawProxy) -> None:
    """`max_body`: refused as soon as it is passed; the upstream never sees a whole request (Rule 9)."""
    strict.upstream.script = sink = Sink()
    async with strict.bearward.connect() as connection:
        await connection.send(strict.request(b"/small/x", b"Transfer-Encoding: chunked", method=b"POST"))
        await connection.send(chunk(b"x" * MAX_BODY))
        await sink.began.wait()
        await connection.send(chunk(b"y"))
        async with asyncio.timeout(AT_ONCE):
            answer = await wire.read_answer(connection.reader)
            assert await connection.reader.read() == b""
            await sink.ended.wait()
    assert_problem(answer, 413, "body_too_large")
    assert answer.values("Connection") == [b"close"]
    sink.assert_not_whole()
    assert b"y" not in sink.received


REFUSALS = {
    "a bad framing": (b"/raw/x", [b"X-A : 1"], 400),
    "a bad path": (b"/raw/../x", [], 400),
    "a foreign page": (b"/raw/x", [b"Origin: https://evil.example"], 403),
    "no route": (b"/nowhere", [], 404),
    "a large body": (b"/small/x", [], 413),
    "a long target": (b"/raw/".ljust(TARGET_BYTES + 1, b"x"), [], 414),
    "another expectation": (b"/raw/x", [b"Expect: x"], 417),
    "a foreign host": (b"http://evil.example/raw/x", [], 421),
    "a large head": (b"/raw/x", [b"X-Long: ".ljust(STRICT_HEADER_BYTES, b"x")], 431),
}
ENDLESS = b"Content-Length: 1000000000000"
PIECE = bytes(64 * KIB)


@pytest.mark.parametrize("why", REFUSALS)
async def test_a_refused_upload_hears_why_while_it_goes_on(strict: RawProxy, why: str) -> None:
    """Rule 8: no reset overtakes the answer, and its end comes soon (RFC 9112 §9.6)."""
    target, lines, status = REFUSALS[why]
    loop = asyncio.get_running_loop()
    with _plain_socket(strict) as client:

        async def send() -> None:
            await loop.sock_sendall(client, strict.request(target, ENDLESS, *lines, method=b"POST"))
            while True:
                await loop.sock_sendall(client, PIECE)

        sending = asyncio.ensure_future(send())
        try:
            answer = await _until_its_end(client)
            assert not sending.done(), "the client could go on until it had read the end"
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await sending
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"\r\nConnection: close\r\n" in answer
    assert strict.upstream.requests == []


@pytest.mark.parametrize("why", REFUSALS)
async def test_a_refused_upload_hears_why_when_it_is_done(strict: RawProxy, why: str) -> None:
    """Rule 8: nor does a reset meet a client that reads only after it has written all."""
    target, lines, status = REFUSALS[why]
    body = bytes(MAX_BODY + 1)
    lines = [b"Content-Length: %d" % len(body), *lines]
    with _plain_socket(strict) as client:
        await asyncio.get_running_loop().sock_sendall(client, strict.request(target, *lines, method=b"POST", body=body))
        answer = await _until_its_end(client)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert strict.upstream.requests == []


def _plain_socket(proxy: RawProxy) -> socket.socket:
    """What the kernel says, without a stream that forgets what it has read when a write fails."""
    client = socket.create_connection(("127.0.0.1", proxy.bearward.port))
    client.setblocking(False)
    return client


async def _until_its_end(client: socket.socket) -> bytes:
    """All that comes; raises `ConnectionResetError` where it ends by a reset."""
    answer = b""
    async with asyncio.timeout(AT_ONCE):
        while piece := await asyncio.get_running_loop().sock_recv(client, len(PIECE)):
            answer += piece
    return answer
