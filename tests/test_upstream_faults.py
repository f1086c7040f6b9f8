"""Upstreams that break the rules of HTTP, break off, stall, or answer early: rules 15 and 19 of a crossing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

import wire
from problems import assert_problem
from rawproxy import RawProxy
from upstreams import SOON, Say, everything, forget_connections, proxy_before, reset
from wire import Message, RawUpstream, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEADER_BYTES = 64 << 10


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RawProxy]:
    """The routes `/raw`; `/hasty`, which waits half a second within a body; `/impatient`, which does so for a head."""
    routes = {"/raw": {}, "/hasty": {"idle_timeout": "0.5s"}, "/impatient": {"response_timeout": "0.5s"}}
    async with RawUpstream() as upstream, proxy_before(upstream, routes, tmp_path_factory.mktemp("faults")) as proxy:
        yield proxy


def head(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *lines, b"", b""])


MALFORMED = {
    "another protocol": b"220 smtp.example ESMTP\r\n\r\n",
    "http/2": head(status=b"HTTP/2.0 200 OK"),
    "no version": head(status=b"HTTP 200 OK"),
    "status of two digits": head(status=b"HTTP/1.1 20 OK"),
    "status of four digits": head(status=b"HTTP/1.1 2000 OK"),
    "status in letters": head(status=b"HTTP/1.1 2OO OK"),
    "negative status": head(status=b"HTTP/1.1 -200 OK"),
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare LF after a header": b"HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 0\r\n\r\n",
    "bare CR after the status": b"HTTP/1.1 200 OK\rContent-Length: 0\r\n\r\n",
    "bare CR in a value": head(b"X: 1\rSet-Cookie: evil=1", b"Content-Length: 0"),
    "folded line": head(b"X: 1", b" folded", b"Content-Length: 0"),
    "folded with a tab": head(b"X: 1", b"\tfolded", b"Content-Length: 0"),
    "space before the first header": head(b" X: 1", b"Content-Length: 0"),
    "space before the colon": head(b"X : 1", b"Content-Length: 0"),
    "space in a name": head(b"X Y: 1", b"Content-Length: 0"),
    "no colon": head(b"nonsense", b"Content-Length: 0"),
    "empty name": head(b": 1", b"Content-Length: 0"),
    "NUL in a value": head(b"X: a\0b", b"Content-Length: 0"),
    "control byte in a name": head(b"X\x01: 1", b"Content-Length: 0"),
    "two lengths": head(b"Content-Length: 4", b"Content-Length: 5") + b"fourx",
    "a list of lengths": head(b"Content-Length: 4, 5") + b"fourx",
    "length with a sign": head(b"Content-Length: +4") + b"four",
    "negative length": head(b"Content-Length: -4") + b"four",
    "length in hex": head(b"Content-Length: 0x4") + b"four",
    "length and more": head(b"Content-Length: 4x") + b"four",
    "empty length": head(b"Content-Length:"),
    "length beyond 64 bits": head(b"Content-Length: 18446744073709551620") + b"four",
    "length and chunked": head(b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunked and length": head(b"Transfer-Encoding: chunked", b"Content-Length: 4") + b"0\r\n\r\n",
    "coding gzip": head(b"Transfer-Encoding: gzip") + b"body",
    "coding identity": head(b"Transfer-Encoding: identity") + b"body",
    "coding unheard of": head(b"Transfer-Encoding: xchunked") + wire.chunk(b"four") + b"0\r\n\r\n",
    "coding quoted": head(b'Transfer-Encoding: "chunked"') + wire.chunk(b"four") + b"0\r\n\r\n",
    "coding with a parameter": head(b"Transfer-Encoding: chunked;q=1") + wire.chunk(b"four") + b"0\r\n\r\n",
    "two codings": head(b"Transfer-Encoding: gzip, chunked") + wire.chunk(b"four") + b"0\r\n\r\n",
    "two codings in two lines": head(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunked not last": head(b"Transfer-Encoding: chunked, gzip") + b"body",
    "chunked twice": head(b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
    "chunked in two lines": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "empty coding": head(b"Transfer-Encoding:") + b"body",
    "chunked in HTTP/1.0": head(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK") + b"0\r\n\r\n",
    "an unasked 101": head(b"Connection: Upgrade", b"Upgrade: websocket", status=b"HTTP/1.1 101 Switching Protocols"),
    "status 000": head(b"Content-Length: 0", status=b"HTTP/1.1 000 Zero"),
    "status 099": head(b"Content-Length: 0", status=b"HTTP/1.1 099 Low"),
    "status 600": head(b"Content-Length: 0", status=b"HTTP/1.1 600 High"),
    "status 999": head(b"Content-Length: 0", status=b"HTTP/1.1 999 Highest"),
    "a header too long": head(b"X: " + bytes(HEADER_BYTES).replace(b"\0", b"x"), b"Content-Length: 0"),
    "too many headers": head(*[b"X-%d: %d" % (n, n) for n in range(HEADER_BYTES // 8)], b"Content-Length: 0"),
    "a reason too long": head(b"Content-Length: 0", status=b"HTTP/1.1 200 " + b"x" * HEADER_BYTES),
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_head_is_a_502_and_its_connection_is_not_used_again(proxy: RawProxy, sent: bytes) -> None:
    """Rule 15: the upstream keeps the connection open, so that only the proxy can end it."""
    proxy.upstream.script = say = Say(sent)
    assert_problem(await proxy.get(b"/raw/x"), 502, "upstream_protocol")
    await say.is_left()
    assert len(proxy.upstream.requests) == 1, "a request that was answered goes out once"
    proxy.upstream.script = None
    assert (await proxy.get(b"/raw/x")).body == b"ok"


@pytest.mark.parametrize("endless", [b"X: 1\r\n", b"x"], ids=["lines", "one line"])
async def test_a_head_without_end_is_cut(proxy: RawProxy, endless: bytes) -> None:
    """Rule 15: what is bounded is what has come, not what would have come at the end."""
    is_cut = asyncio.Event()

    async def flood(_request: Message, _reader: Reader, writer: Writer) -> None:
        with suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                writer.write(endless * 1000)
                await writer.drain()
        is_cut.set()

    proxy.upstream.script = flood
    assert_problem(await proxy.get(b"/raw/x"), 502, "upstream_protocol")
    async with asyncio.timeout(SOON):
        await is_cut.wait()


async def test_a_large_head_passes(proxy: RawProxy) -> None:
    value = b"x" * (HEADER_BYTES - 1000)
    proxy.upstream.answer = wire.ok(b"ok", b"X-Large: " + value)
    answer = await proxy.get(b"/raw/x")
    assert (answer.values("X-Large"), answer.body) == ([value], b"ok")


async def test_the_one_coding_that_is_known_may_be_spelled_in_any_case(proxy: RawProxy) -> None:
    proxy.upstream.answer = head(b"transfer-encoding:  CHUNKED ") + wire.chunk(b"body") + b"0\r\n\r\n"
    answer = await proxy.get(b"/raw/x")
    assert (answer.status, answer.body) == (200, b"body")


AFTER_THE_END = {
    "length": (b"GET", wire.ok(b"mine")),
    "chunked": (b"GET", head(b"Transfer-Encoding: chunked") + wire.chunk(b"mine") + b"0\r\n\r\n"),
    "204": (b"GET", head(status=b"HTTP/1.1 204 Empty")),
    "304 with a length": (b"GET", head(b"Content-Length: 4", status=b"HTTP/1.1 304 Same")),
    "HEAD": (b"HEAD", head(b"Content-Length: 4")),
}
UNASKED = wire.ok(b"evil", b"Set-Cookie: evil=1")


@pytest.mark.parametrize("behind", [UNASKED, UNASKED[:20], b"evil", b"\r\n"], ids=["answer", "part", "body", "line"])
@pytest.mark.parametrize(("method", "sent"), AFTER_THE_END.values(), ids=AFTER_THE_END.keys())
async def test_bytes_after_the_end_answer_nobody(proxy: RawProxy, method: bytes, sent: bytes, behind: bytes) -> None:
    """Rule 15: the answer before them passes; that connection is never used again."""
    proxy.upstream.script = say = Say(sent + behind)
    async with proxy.bearward.connect() as connection:
        request = proxy.request(b"/raw/first", method=method)
        answer = await connection.exchange(request, to_head=method == b"HEAD")
        assert (answer.status, answer.body) == (Message(sent, b"", b"").status, b"mine" if b"mine" in sent else b"")
        await say.is_left()
        assert say.heard == b"", "another request came on this connection"
        proxy.upstream.script = None
        answer = await connection.exchange(proxy.request(b"/raw/second"))
    assert (answer.status, answer.body, answer.values("Set-Cookie")) == (200, b"ok", [])


BAD_CHUNKS = {
    "no number": b"zz\r\nbad\r\n",
    "longer than it says": b"3\r\nlonger\r\n",
    "no CRLF behind it": b"3\r\nbadX\n0\r\n\r\n",
    "negative": b"-3\r\nbad\r\n",
    "two sizes": b"3 3\r\nbad\r\n",
    "bare LF": b"3\nbad\n",
    "beyond 64 bits": b"1" + b"0" * 16 + b"\r\nbad\r\n",
    "extensions without end": b"3;" + b"x" * (1 << 20),
    "size without end": b"0" * (1 << 20),
    "trailers without end": b"0\r\nX: " + b"x" * (1 << 20),
    "trailer without colon": b"0\r\nnonsense\r\n\r\n",
    "space before a trailer's colon": b"0\r\nX : 1\r\n\r\n",
}


@pytest.mark.parametrize("sent", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
async def test_a_bad_chunk_breaks_the_answer_off(proxy: RawProxy, sent: bytes) -> None:
    """Rules 9 and 15: nothing may look whole, and extensions and trailers are bounded."""
    proxy.upstream.script = say = Say(head(b"Transfer-Encoding: chunked") + wire.chunk(b"begun") + sent)
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x", b"Connection: close"))
        came, _ = await everything(connection.reader)
    assert not came.endswith(b"0\r\n\r\n")
    assert b"begun" in came or came.startswith(b"HTTP/1.1 502 ")
    await say.is_left()


async def test_trailers_never_become_headers(proxy: RawProxy) -> None:
    trailers = b"Set-Cookie: late=1\r\nContent-Length: 3\r\nBearward-Error: draining\r\n\r\n"
    proxy.upstream.answer = head(b"Transfer-Encoding: chunked", b"Trailer: Set-Cookie") + wire.chunk(b"body")
    proxy.upstream.answer += b"0\r\n" + trailers
    async with proxy.bearward.connect() as connection:
        for _ in range(2):
            answer = await connection.exchange(proxy.request(b"/raw/x"))
            assert answer.body == b"body"
            assert {b"set-cookie", b"content-length", b"bearward-error"}.isdisjoint(
                name.lower() for name, _ in answer.fields
            )


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"], ids=["nothing", "half a head"])
@pytest.mark.parametrize("is_reset", [False, True], ids=["closes", "resets"])
async def test_an_upstream_that_ends_before_a_whole_head(proxy: RawProxy, said: bytes, is_reset: bool) -> None:
    async def leave(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(said)
        await writer.drain()
        if is_reset:
            reset(writer)

    await forget_connections(proxy, proxy.upstream, b"/raw/x")
    proxy.upstream.script = leave
    assert_problem(await proxy.get(b"/raw/x"), 502, "upstream_closed")
    assert len(proxy.upstream.requests) == 1, "rule 16: on a fresh connection it goes out once"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"], ids=["nothing", "half a head"])
async def test_an_upstream_that_stalls_before_a_whole_head(proxy: RawProxy, said: bytes) -> None:
    proxy.upstream.script = say = Say(said)
    assert_problem(await proxy.get(b"/impatient/x"), 504, "upstream_timeout")
    await say.is_left()


async def test_the_time_for_a_head_begins_with_the_requests_last_byte(proxy: RawProxy) -> None:
    proxy.upstream.answer = wire.ok(b"patient")
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/impatient/x", b"Content-Length: 7", method=b"POST"))
        for n in range(7):
            await asyncio.sleep(0.1)
            await connection.send(b"%d" % n)
        assert (await wire.read_answer(connection.reader)).body == b"patient"
    assert proxy.upstream.only_request.body == b"0123456"


@pytest.mark.parametrize("prefix", [b"/hasty", b"/impatient"])
async def test_there_is_no_total_timeout(proxy: RawProxy, prefix: bytes) -> None:
    """Rule 19: an answer that keeps coming may take longer than any timeout of its route."""

    async def trickle(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(head(b"Content-Length: 8", b"Connection: close"))
        for n in range(8):
            writer.write(b"%d" % n)
            await asyncio.sleep(0.1)

    proxy.upstream.script = trickle
    assert (await proxy.get(prefix + b"/x")).body == b"01234567"


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked", b"X: until the end"])
async def test_an_upstream_that_stalls_within_a_body(proxy: RawProxy, framing: bytes) -> None:
    """Rules 9 and 19: after `idle_timeout` both sides are ended, the client's so that it is not taken for whole."""
    begun = wire.chunk(b"begun") if b"chunked" in framing else b"begun"
    proxy.upstream.script = say = Say(head(framing) + begun)
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/hasty/x"))
        head_came = await wire.read_head(connection.reader)
        came, in_order = await everything(connection.reader)
    assert b"begun" in came
    assert not came.endswith(b"0\r\n\r\n")
    assert b"Content-Length" in head_came or b"chunked" in head_came or not in_order
    await say.is_left()


class AnswerEarly:
    """A script that answers at a request's head and reads no more of it until it may."""

    def __init__(self, *lines: bytes) -> None:
        self.answer = wire.answer(b"413 Too Much", b"no more", *lines)
        self.may_read = asyncio.Event()
        self.rest = b""
        self.left = asyncio.Event()

    async def __call__(self, _request: Message, reader: Reader, writer: Writer) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(self.answer)
        await writer.drain()
        await self.may_read.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with suppress(ConnectionError):
            while piece := await reader.read(wire.LIMIT):
                self.rest += piece
        self.left.set()


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("lines", [[], [b"Connection: close"]], ids=["kept", "closed"])
async def test_an_early_answer_passes_while_the_body_still_comes(
    proxy: RawProxy, framing: bytes, lines: list[bytes]
) -> None:
    """Then both connections are ended: half a request is left on the one, and nobody wants the rest of the other."""
    proxy.upstream.script = early = AnswerEarly(*lines)
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x", framing, method=b"POST", body=wire.chunk(bytes(200_000))))
        answer = await wire.read_answer(connection.reader)
        assert (answer.status, answer.body) == (413, b"no more")
        early.may_read.set()
        async with asyncio.timeout(SOON):
            await early.left.wait()
        assert not early.rest.endswith(b"0\r\n\r\n"), "what the client broke off must not look whole"
        with suppress(ConnectionError):
            for _ in range(1000):  # a client that goes on sending is stopped some time
                await connection.send(bytes(100_000))
        await connection.closed()


async def test_an_early_answer_that_ends_after_its_request(proxy: RawProxy) -> None:
    """The head comes at the request's first byte, the body when all of the request is there: both pass whole."""
    may_end = asyncio.Event()

    async def answer(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(head(b"Content-Length: 7", b"Connection: close"))
        body = await reader.readexactly(200_000)
        await may_end.wait()
        writer.write(b"%7d" % len(body))
        await writer.drain()

    proxy.upstream.script = answer
    async with proxy.bearward.connect() as connection:
        body = bytes(200_000)
        await connection.send(proxy.request(b"/raw/x", b"Content-Length: 200000", method=b"POST", body=body[:100_000]))
        assert (await wire.read_head(connection.reader)).startswith(b"HTTP/1.1 200 ")
        await connection.send(body[100_000:])
        may_end.set()
        assert await connection.reader.readexactly(7) == b" 200000"
