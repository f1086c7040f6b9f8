"""What breaks off on one side must not look whole on the other, and must not linger there."""

import asyncio
import contextlib

import pytest

import wire
from problems import assert_problem
from rawproxy import RawProxy
from upstreams import everything, reset
from wire import Message, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

# A request whose client left ends within a second; the rest is for a busy machine.
SOON = 3.0


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\nshort",
    ],
    ids=["length", "between chunks", "within a chunk"],
)
async def test_an_answer_that_breaks_off_is_no_success(proxy: RawProxy, sent: bytes) -> None:
    async def break_off(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(sent)
        await writer.drain()

    proxy.upstream.script = break_off
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        head = await wire.read_head(connection.reader)
        assert head.startswith(b"HTTP/1.1 200 ")
        rest = await connection.closed()
    assert b"short" in rest
    assert b"0\r\n\r\n" not in rest, "a last chunk would make it look whole"
    assert len(rest) < 1000


async def test_an_answer_without_length_ends_with_its_connection(proxy: RawProxy) -> None:
    async def until_close(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nwhole")
        await writer.drain()

    proxy.upstream.script = until_close
    answer = await proxy.get(b"/raw/x")
    assert answer.body == b"whole"


class Upload:
    """A script that takes all of a request's body: `began` at its head, `ended` when no more comes."""

    def __init__(self) -> None:
        self.began, self.ended = asyncio.Event(), asyncio.Event()
        self.received = b""

    async def __call__(self, _request: Message, reader: Reader, _writer: Writer) -> None:
        self.began.set()
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(wire.LIMIT):
                self.received += piece
        self.ended.set()

    def assert_not_whole(self) -> None:
        """Nothing came that could be taken for the body's end."""
        assert not self.received.endswith(b"0\r\n\r\n"), "a last chunk would make it look whole"


# More than is kept for a replay, so that the request is on its way before it breaks off.
BEGUN = bytes(100_000)


@pytest.mark.parametrize(
    ("framing", "begin", "rest"),
    [
        (b"Content-Length: 1000000", BEGUN, b"short"),
        (b"Transfer-Encoding: chunked", wire.chunk(BEGUN), b"5\r\nshort\r\n"),
        (b"Transfer-Encoding: chunked", wire.chunk(BEGUN), b"3e8\r\nshort"),
    ],
    ids=["length", "between chunks", "within a chunk"],
)
async def test_a_request_whose_client_leaves_never_looks_whole(
    proxy: RawProxy, framing: bytes, begin: bytes, rest: bytes
) -> None:
    proxy.upstream.script = upload = Upload()
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x", framing, method=b"POST", body=begin))
        await upload.began.wait()
        await connection.send(rest)
    async with asyncio.timeout(SOON):
        await upload.ended.wait()
    upload.assert_not_whole()
    assert len(upload.received) < 1_000_000


@pytest.mark.parametrize(
    "fault", [b"nonsense\r\n", b"-5\r\nminus\r\n", b"5\r\ntoo long\r\n", b"5 5\r\nspace\r\n"], ids=repr
)
async def test_a_request_with_a_bad_chunk_never_looks_whole(proxy: RawProxy, fault: bytes) -> None:
    proxy.upstream.script = upload = Upload()
    async with proxy.bearward.connect() as connection:
        coding = b"Transfer-Encoding: chunked"
        await connection.send(proxy.request(b"/raw/x", coding, method=b"POST", body=wire.chunk(BEGUN)))
        await upload.began.wait()
        await connection.send(fault + b"0\r\n\r\n")
        async with asyncio.timeout(SOON):
            await upload.ended.wait()
            upload.assert_not_whole()
            assert_problem(await wire.read_answer(connection.reader), 400, "bad_request")
            await connection.closed()


async def test_an_upstream_learns_that_the_client_left(proxy: RawProxy) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def wait_for_the_end(_request: Message, reader: Reader, _writer: Writer) -> None:
        arrived.set()
        assert await reader.read() == b""
        left.set()

    proxy.upstream.script = wait_for_the_end
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        await arrived.wait()
    async with asyncio.timeout(SOON):
        await left.wait()


async def test_an_upstream_learns_that_the_client_left_amid_the_answer(proxy: RawProxy) -> None:
    left = asyncio.Event()

    async def wait_for_the_end(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(wire.chunk(b"data: 1\n\n"))
        assert await reader.read() == b""
        left.set()

    proxy.upstream.script = wait_for_the_end
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        await wire.read_head(connection.reader)
        await wire.read_chunk(connection.reader)
    async with asyncio.timeout(SOON):
        await left.wait()


UNASKED = wire.ok(b"unasked")


@pytest.mark.parametrize(
    "size", [len(UNASKED), len(UNASKED) - 1, len(UNASKED) - 10, 1], ids=["whole", "body begun", "head begun", "a byte"]
)
async def test_bytes_that_nobody_asked_for_answer_no_request(proxy: RawProxy, size: int) -> None:
    """They come while the connection is idle; what may be lacking comes when it is used again."""
    is_answered, is_sent = asyncio.Event(), asyncio.Event()

    async def say_more(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(wire.ok(b"first"))
        await is_answered.wait()
        writer.write(UNASKED[:size])
        await writer.drain()
        is_sent.set()
        await wire.read_head(reader)
        writer.write(UNASKED[size:])
        await writer.drain()

    proxy.upstream.script = say_more
    assert (await proxy.get(b"/raw/x")).body == b"first"
    is_answered.set()
    await is_sent.wait()
    proxy.upstream.script = None
    answer = await proxy.get(b"/raw/x")
    if answer.status == 502:  # an answer that had only begun is noticed when the rest comes
        assert_problem(answer, 502, "upstream_protocol")
    else:
        assert answer.body == b"ok"


BROKEN_OFF = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    "no last line": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n",
}


@pytest.mark.parametrize("sent", BROKEN_OFF.values(), ids=BROKEN_OFF.keys())
async def test_an_http_1_0_client_sees_a_reset(proxy: RawProxy, sent: bytes) -> None:
    """Rule 9: it knows neither chunks nor, maybe, lengths, and takes an orderly end for the end of the body."""

    async def break_off(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(sent)
        await writer.drain()
        await client_has_begun.wait()

    client_has_begun = asyncio.Event()
    proxy.upstream.script = break_off
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x").replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await wire.read_head(connection.reader)).split(b" ")[1] == b"200"
        client_has_begun.set()
        came, in_order = await everything(connection.reader)
    assert came == b"short"
    assert not in_order


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_an_answer_without_length_whose_connection_is_reset(proxy: RawProxy, version: bytes) -> None:
    """Rule 9: only an orderly end is the end of such a body."""
    client_has_begun = asyncio.Event()

    async def break_off(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nshort")
        await client_has_begun.wait()
        reset(writer)

    proxy.upstream.script = break_off
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x").replace(b"HTTP/1.1", version))
        head = await wire.read_head(connection.reader)
        client_has_begun.set()
        came, in_order = await everything(connection.reader)
    assert b"short" in came
    assert not came.endswith(b"0\r\n\r\n")
    assert b"chunked" in head or not in_order


async def test_a_client_of_http_1_0_gets_a_whole_answer(proxy: RawProxy) -> None:
    """Rule 9, its other side: an end in order is the end."""
    proxy.upstream.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x").replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert b"chunked" not in await wire.read_head(connection.reader)
        assert await everything(connection.reader) == (b"whole", True)


CHUNKED = b"Transfer-Encoding: chunked"
# Method, status, header line and rest of an answer that has no body, or an empty one.
WITHOUT_BODY = {
    "HEAD, length": (b"HEAD", b"200 OK", b"Content-Length: 1000", b""),
    "HEAD, chunked": (b"HEAD", b"200 OK", CHUNKED, b""),
    "HEAD, neither": (b"HEAD", b"200 OK", b"X: 1", b""),
    "HEAD, 404": (b"HEAD", b"404 Not Found", b"Content-Length: 5", b""),
    "204": (b"GET", b"204 No Content", b"X: 1", b""),
    "304": (b"GET", b"304 Not Modified", b"X: 1", b""),
    "304, length": (b"GET", b"304 Not Modified", b"Content-Length: 1000", b""),
    "length 0": (b"GET", b"200 OK", b"Content-Length: 0", b""),
    "chunked": (b"GET", b"200 OK", CHUNKED, b"0\r\n\r\n"),
}


@pytest.mark.parametrize(("method", "status", "line", "rest"), WITHOUT_BODY.values(), ids=WITHOUT_BODY.keys())
async def test_an_answer_without_body_keeps_its_framing(
    proxy: RawProxy, method: bytes, status: bytes, line: bytes, rest: bytes
) -> None:
    """Rule 10: and the connections go on behind it, as nothing is waited for."""
    proxy.upstream.answer = b"HTTP/1.1 " + status + b"\r\n" + line + b"\r\n\r\n" + rest
    async with proxy.bearward.connect() as connection:
        for _ in range(2):
            request = proxy.request(b"/raw/x", method=method)
            answer = await connection.exchange(request, to_head=method == b"HEAD")
            assert (answer.status, answer.rest) == (int(status[:3]), rest)
            name, value = line.split(b": ")
            if method != b"HEAD" or line != CHUNKED:  # of a coding, HEAD may be silent (RFC 9110 §9.3.2)
                assert answer.values(name.decode()) == [value]
            if name != b"Content-Length":
                assert answer.values("Content-Length") == []


async def test_an_empty_chunked_request_stays_one(proxy: RawProxy) -> None:
    """Rule 10."""
    request = proxy.request(b"/raw/x", CHUNKED, method=b"POST", body=b"0\r\n\r\n")
    assert (await proxy.bearward.raw(request)).status == 200
    seen = proxy.upstream.only_request
    assert (seen.values("Transfer-Encoding"), seen.values("Content-Length")) == ([b"chunked"], [])
    assert seen.rest == b"0\r\n\r\n"
