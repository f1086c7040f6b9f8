"""Chunked requests. Rule 8: a bad chunk ends the upstream's request, extensions and trailers are bounded."""

import asyncio

import pytest

import wire
from problems import assert_problem
from rawproxy import AT_ONCE, MARK, RawProxy
from wire import Message, Reader, Sink, Writer, chunk

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODING = b"Transfer-Encoding: chunked"
BEGUN = chunk(b"begun")
LAST = b"0\r\n\r\n"
KIB = 1 << 10
HEADER_BYTES = 64 * KIB


def upload(proxy: RawProxy, body: bytes = b"") -> bytes:
    return proxy.request(b"/raw/x?" + MARK, CODING, b"X-Mark: " + MARK, method=b"POST", body=body)


BAD_CHUNKS = [
    # The size.
    *(b"\r\nhello\r\n" + LAST, b"x\r\nhello\r\n" + LAST, b"-5\r\nhello\r\n" + LAST, b"+5\r\nhello\r\n" + LAST),
    *(b"0x5\r\nhello\r\n" + LAST, b" 5\r\nhello\r\n" + LAST, b"5 \r\nhello\r\n" + LAST, b"5 5\r\nhello\r\n" + LAST),
    *(b"5h\r\nhello\r\n" + LAST, b"5,\r\nhello\r\n" + LAST, b"5\x00\r\nhello\r\n" + LAST, b"\xb5\r\nhello\r\n" + LAST),
    *(b"10000000000000000\r\nhello\r\n" + LAST, b"10000000000000005\r\nhello\r\n" + LAST, b"f" * 32 + b"\r\n" + LAST),
    # Ends of lines.
    *(b"5\nhello\r\n" + LAST, b"5\rhello\r\n" + LAST, b"5\r\rhello\r\n" + LAST, b"5\r\nhello\n" + LAST),
    *(b"5\r\nhello\r0\r\n\r\n", b"5\r\nhello" + LAST, b"5\r\nhello!\r\n" + LAST, b"5\r\nhello\r\n\r\n" + LAST),
    *(b"0\n\n", b"0\n\r\n", b"0\r\n\n", b"0\r\r\n\r\n", b"0\r\n\r\r"),
    # Extensions in which a line seems to end.
    *(b"5;a\nhello\r\n" + LAST, b"5;a\rb\r\nhello\r\n" + LAST, b"5;a\n\r\nhello\r\n" + LAST, b"0;a\n\r\n"),
    b'5;a="\r\n"\r\nhello\r\n' + LAST,
    # Trailers.
    *(b"0\r\nX-A: 1\n\r\n", b"0\r\nX-A: 1\r\n\n", b"0\r\nX-A: 1\rX-B: 2\r\n\r\n", b"0\r\nX-A: 1\r\n 2\r\n\r\n"),
    *(
        b"0\r\nX-A : 1\r\n\r\n",
        b"0\r\n: 1\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nX-A: \x00\r\n\r\n",
        b"0\r\n X: 1\r\n\r\n",
    ),
]


@pytest.mark.parametrize("fault", BAD_CHUNKS, ids=repr)
async def test_a_bad_chunk_in_a_streamed_body(proxy: RawProxy, fault: bytes) -> None:
    """Rule 8 and Rule 9: the upstream's request never looks whole, and the client is told."""
    await _fails_midway(proxy, fault)


async def _fails_midway(proxy: RawProxy, fault: bytes) -> None:
    """`fault` comes when the upstream has the head and the first chunk."""
    proxy.upstream.script = sink = Sink()
    async with proxy.bearward.connect() as connection:
        await connection.send(upload(proxy, BEGUN))
        await sink.began.wait()
        await connection.send(fault)
        async with asyncio.timeout(AT_ONCE):
            answer = await wire.read_answer(connection.reader)
            assert await connection.reader.read() == b"", "one answer, and an end that is no reset"
            await sink.ended.wait()
    assert_problem(answer, 400, "bad_request")
    assert answer.values("Connection") == [b"close"]
    assert MARK not in answer.raw
    sink.assert_not_whole()
    assert len(proxy.upstream.requests) == 1


@pytest.mark.parametrize("fault", [b"x\r\n", b"5\r\nhello\n" + LAST, b"0\r\n: 1\r\n\r\n"], ids=repr)
async def test_a_bad_chunk_right_after_its_head(proxy: RawProxy, fault: bytes) -> None:
    """Rule 8: whether or not the upstream has seen anything of it, it has not seen a whole request."""
    proxy.upstream.script = sink = Sink()
    answer = await proxy.bearward.raw(upload(proxy, fault))
    assert_problem(answer, 400, "bad_request")
    if sink.began.is_set():
        async with asyncio.timeout(AT_ONCE):
            await sink.ended.wait()
    sink.assert_not_whole()


async def test_a_bad_chunk_after_the_answer_has_begun(proxy: RawProxy) -> None:
    """Rule 8 and Rule 9: both the request and its answer break off."""
    upstream_left = asyncio.Event()

    async def answer_early(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"early"))
        sink = Sink()
        await sink(_request, reader, writer)
        sink.assert_not_whole()
        upstream_left.set()

    proxy.upstream.script = answer_early
    async with proxy.bearward.connect() as connection:
        await connection.send(upload(proxy, BEGUN))
        await wire.read_head(connection.reader)
        assert (await wire.read_chunk(connection.reader))[0] == b"early"
        await connection.send(b"nonsense\r\n")
        async with asyncio.timeout(AT_ONCE):
            assert await connection.closed() == b"", "neither a last chunk nor a second answer"
            await upstream_left.wait()


def extended(size: int, count: int, content: bytes = b"x") -> bytes:
    """Chunks whose size lines have `size` bytes of extension each."""
    return (b"%x;" % len(content) + b"e" * (size - 1) + b"\r\n" + content + b"\r\n") * count


WITHIN_BOUNDS = [
    (b"5;a\r\nhello\r\n", b"hello"),
    (b'5;a=b;c="d e"\r\nhello\r\n', b"hello"),
    (b"00005\r\nhello\r\n", b"hello"),
    (b"5\r\nhello\r\n" + b"A\r\nhellohello\r\n", b"hello" * 3),
    (extended(KIB - 8, 1), b"x"),
    (extended(500, 30), b"x" * 30),
    (extended(900, 100, b"x" * 1000), b"x" * 100_000),
    (chunk(b"x") * 20_000, b"x" * 20_000),
]


@pytest.mark.parametrize(("chunks", "body"), WITHIN_BOUNDS, ids=lambda value: repr(value[:24]))
async def test_extensions_do_not_cross(proxy: RawProxy, chunks: bytes, body: bytes) -> None:
    """Rule 8: as many as are allowed are read, and dropped (RFC 9112 §7.1.1)."""
    assert (await proxy.bearward.raw(upload(proxy, chunks + LAST))).status == 200
    seen = proxy.upstream.only_request
    assert seen.body == body
    assert b";" not in seen.rest


BEYOND_BOUNDS = [
    extended(KIB + 1, 1),
    b"0" * KIB + chunk(b"x"),
    b"5;" + b"e" * KIB,  # its line does not end
    extended(500, 40),
    (b"0" * 500 + chunk(b"x")) * 40,
    b"0;" + b"e" * KIB + b"\r\n\r\n",
]


@pytest.mark.parametrize("chunks", BEYOND_BOUNDS, ids=lambda value: repr(value[:24]))
async def test_extensions_are_bounded(proxy: RawProxy, chunks: bytes) -> None:
    """Rule 8: 1 KiB a line; in all, 16 KiB over 16 bytes a chunk and 2 for each byte of data, as in Go."""
    await _fails_midway(proxy, chunks)


HOSTILE_TRAILERS = [
    *(b"Authorization: Bearer evil", b"Host: evil.example", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    *(b"Connection: Authorization", b"X-Evil: evil", b"Cookie: evil=1", b"X-Forwarded-For: 192.0.2.1"),
]


async def test_trailers_never_become_headers(proxy: RawProxy) -> None:
    """Rule 8: what came behind the body is not among what came before it, nor goes on behind it."""
    trailers = b"".join(line + b"\r\n" for line in HOSTILE_TRAILERS)
    lines = [CODING, b"Trailer: Authorization, X-Evil"]
    sent = proxy.request(b"/raw/x", *lines, method=b"POST", body=BEGUN + b"0\r\n" + trailers + b"\r\n")
    async with proxy.bearward.connect() as connection:
        assert (await connection.exchange(sent)).status == 200
        # Nothing of them is taken for a part of the next request, on either side.
        assert (await connection.exchange(proxy.request(b"/raw/y"))).status == 200
    first, second = proxy.upstream.requests
    assert {name.lower() for name, _ in first.fields} == {b"host", b"authorization", b"transfer-encoding"}
    assert first.rest == BEGUN + LAST
    assert b"evil" not in first.raw + second.raw
    assert second.target == b"/base/y"


@pytest.mark.parametrize(
    "trailers",
    [
        b"X-Long: " + b"x" * (HEADER_BYTES + KIB) + b"\r\n\r\n",
        b"X-Many: %b\r\n" % (b"x" * KIB) * 70 + b"\r\n",
        b"X-Endless: " + b"x" * (HEADER_BYTES + KIB),
    ],
    ids=["one", "many", "without an end"],
)
async def test_trailers_are_bounded(proxy: RawProxy, trailers: bytes) -> None:
    """Rule 8: by `limits.header_bytes`, as a head is."""
    await _fails_midway(proxy, b"0\r\n" + trailers)


async def test_trailers_within_bounds_are_read(proxy: RawProxy) -> None:
    """Rule 8: and the connection goes on after them."""
    trailers = b"X-Many: %b\r\n" % (b"x" * KIB) * 50 + b"\r\n"
    async with proxy.bearward.connect() as connection:
        for _ in range(2):
            assert (await connection.exchange(upload(proxy, BEGUN + b"0\r\n" + trailers))).status == 200
