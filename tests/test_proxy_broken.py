"""What breaks off on one side must not look whole on the other, and must not linger there."""

import asyncio
import contextlib

import pytest

import wire
from problems import assert_problem
from rawproxy import RawProxy
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


async def test_a_kept_connection_that_its_upstream_closed_costs_no_call(proxy: RawProxy) -> None:
    """A bodiless GET whose reused connection died before a byte came back goes out once more."""
    answers = asyncio.Semaphore(0)

    async def answer_once(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(wire.ok(b"first"))
        await writer.drain()
        # The next request on this connection is read, and the connection closed without a word.
        if await wire.read_head(reader):
            answers.release()

    proxy.upstream.script = answer_once
    assert (await proxy.get(b"/raw/x")).body == b"first"
    assert (await proxy.get(b"/raw/x")).body == b"first"
    async with asyncio.timeout(SOON):
        await answers.acquire()


async def test_a_body_goes_out_once(proxy: RawProxy) -> None:
    async def answer_once(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(wire.ok(b"first"))
        await writer.drain()
        await wire.read_head(reader)

    proxy.upstream.script = answer_once
    assert (await proxy.get(b"/raw/x")).body == b"first"
    answer = await proxy.bearward.raw(proxy.request(b"/raw/y", b"Content-Length: 4", method=b"POST", body=b"once"))
    assert_problem(answer, 502, "upstream_closed")
    assert [request.target for request in proxy.upstream.requests] == [b"/base/x"], "no second connection"


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
