"""Informational answers (1xx): rules 10, 15 and 21 of a crossing."""

import asyncio
import contextlib

import pytest

import wire
from problems import assert_problem
from rawproxy import RawProxy
from upstreams import SOON
from wire import Message, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Early: 1\r\n\r\n"
FINAL = wire.ok(b"final", b"X-Final: 1", b"Connection: close")
EXPECT = b"Expect: 100-continue"
MOST = 100
"""So many informational answers pass before one final answer."""


async def interim(reader: Reader) -> Message:
    """The next informational answer."""
    message = Message(await wire.read_head(reader), b"", b"")
    assert 100 <= message.status < 200, message.start
    return message


class Continue:
    """A script that says 100 when it may, then takes the body and answers with it."""

    def __init__(self) -> None:
        self.arrived, self.may_continue = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: Message, reader: Reader, writer: Writer) -> None:
        self.arrived.set()
        await self.may_continue.wait()
        writer.write(CONTINUE)
        if request.values("Content-Length"):
            body = await reader.readexactly(int(request.values("Content-Length")[0]))
        else:
            body = b""
            while content := (await wire.read_chunk(reader))[0]:
                body += content
        writer.write(wire.ok(body))
        await writer.drain()


FRAMINGS = pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 4", b"body"),
        (b"Content-Length: 200000", bytes(200_000)),
        (b"Transfer-Encoding: chunked", wire.chunk(b"body") + b"0\r\n\r\n"),
    ],
    ids=["length", "more than is kept", "chunked"],
)


@FRAMINGS
async def test_100_comes_when_the_upstream_says_so(proxy: RawProxy, framing: bytes, body: bytes) -> None:
    """Rule 21: the request's head, its expectation included, is at the upstream before the client may go on."""
    proxy.upstream.script = script = Continue()
    async with proxy.bearward.connect() as connection:
        for n in range(2):
            await connection.send(proxy.request(b"/raw/x", EXPECT, framing, method=b"POST"))
            await script.arrived.wait()
            assert proxy.upstream.requests[-1].values("Expect") == [b"100-continue"]
            with pytest.raises(TimeoutError):  # not a word before that
                async with asyncio.timeout(0.1):
                    await connection.reader.readexactly(1)
            script.may_continue.set()
            assert (await interim(connection.reader)).status == 100
            await connection.send(body)
            answer = await wire.read_answer(connection.reader)
            assert answer.status == 200
            assert len(answer.body) in {4, 200_000}
            assert len(proxy.upstream.requests) == n + 1
            script.arrived.clear()
            script.may_continue.clear()


@FRAMINGS
async def test_a_final_answer_in_place_of_100_passes(proxy: RawProxy, framing: bytes, body: bytes) -> None:
    """Rule 21: and the body is never sent, nor waited for."""
    heard = asyncio.get_running_loop().create_future()

    async def refuse(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(wire.answer(b"403 Forbidden", b"no need"))
        await writer.drain()
        try:
            heard.set_result(await reader.read())
        except ConnectionError:
            heard.set_result(b"")

    proxy.upstream.script = refuse
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x", EXPECT, framing, method=b"PUT"))
        head = await wire.read_head(connection.reader)
        assert head.startswith(b"HTTP/1.1 403 "), "no 100 comes before it"
        assert await connection.reader.readexactly(7) == b"no need"
        async with asyncio.timeout(SOON):
            assert await heard == b"", "nothing of a body, and the connection ends: half a request is left on it"
    assert len(proxy.upstream.requests) == 1


async def test_a_client_may_go_on_without_waiting(proxy: RawProxy) -> None:
    """Rule 21: RFC 9110 §10.1.1 lets it, and it may then see no 100 at all."""
    proxy.upstream.answer = wire.ok(b"taken")
    request = proxy.request(b"/raw/x", EXPECT, b"Content-Length: 4", method=b"POST", body=b"body")
    answer = await proxy.bearward.raw(request)
    assert (answer.status, answer.body) == (200, b"taken")
    assert proxy.upstream.only_request.body == b"body"


async def test_an_upstream_that_waits_for_the_body_though_asked(proxy: RawProxy) -> None:
    """Rule 21: it never says 100; the client gives up waiting for it, and the body flows."""
    proxy.upstream.answer = wire.ok(b"taken")
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x", EXPECT, b"Content-Length: 4", method=b"POST"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connection.reader.readexactly(1)
        await connection.send(b"body")
        assert (await wire.read_answer(connection.reader)).body == b"taken"
    assert proxy.upstream.only_request.body == b"body"


async def test_an_upstream_may_continue_what_nobody_expects(proxy: RawProxy) -> None:
    async def answer(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(CONTINUE + FINAL)
        await writer.drain()

    proxy.upstream.script = answer
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        head = await wire.read_head(connection.reader)
        while head.startswith(b"HTTP/1.1 100 "):
            head = await wire.read_head(connection.reader)
        assert head.startswith(b"HTTP/1.1 200 ")


async def test_103_passes_at_once_with_its_own_headers(proxy: RawProxy) -> None:
    """Rule 15 and Go's ReverseProxy: what is said early is neither held back nor mixed into the final answer."""
    may_end = asyncio.Event()

    async def hint(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(HINTS + HINTS.replace(b"a.css", b"b.css"))
        await may_end.wait()
        writer.write(FINAL)
        await writer.drain()

    proxy.upstream.script = hint
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        for name in (b"a.css", b"b.css"):
            early = await interim(connection.reader)
            assert early.status == 103
            assert early.values("Link") == [b"</%b>; rel=preload" % name]
            assert early.values("X-Early") == [b"1"]
            assert early.values("X-Final") == []
        may_end.set()
        answer = await wire.read_answer(connection.reader)
        assert (answer.status, answer.body, answer.values("X-Final")) == (200, b"final", [b"1"])
        assert (answer.values("Link"), answer.values("X-Early")) == ([], [])
        proxy.upstream.script = None
        assert (await connection.exchange(proxy.request(b"/raw/x"))).body == b"ok", "nothing was left over"


async def test_what_belongs_to_one_connection_does_not_come_back_early(proxy: RawProxy) -> None:
    """Rules 10 and 11: nor a framing that a 1xx cannot have, nor our own name."""
    lines = b"Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nBearward-Error: draining\r\n"

    async def hint(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(HINTS.replace(b"X-Early: 1\r\n", lines) + FINAL)
        await writer.drain()

    proxy.upstream.script = hint
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        early = await interim(connection.reader)
        assert {name.lower() for name, _ in early.fields} <= {b"link", b"date"}
        assert (await wire.read_answer(connection.reader)).body == b"final"


@pytest.mark.parametrize("method", [b"HEAD", b"POST", b"OPTIONS"])
async def test_103_passes_whatever_was_asked(proxy: RawProxy, method: bytes) -> None:
    async def hint(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(HINTS + (FINAL.removesuffix(b"final") if method == b"HEAD" else FINAL))
        await writer.drain()

    proxy.upstream.script = hint
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x", method=method))
        assert (await interim(connection.reader)).status == 103
        answer = await wire.read_answer(connection.reader, to_head=method == b"HEAD")
        assert (answer.status, answer.values("Content-Length")) == (200, [b"5"])


@pytest.mark.parametrize("early", [HINTS, CONTINUE, HINTS + CONTINUE], ids=["103", "100", "both"])
async def test_an_http_1_0_client_sees_none(proxy: RawProxy, early: bytes) -> None:
    """RFC 9110 §15.2."""

    async def answer(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(early)
        assert await reader.readexactly(4) == b"body"
        writer.write(FINAL)
        await writer.drain()

    proxy.upstream.script = answer
    request = proxy.request(b"/raw/x", EXPECT, b"Content-Length: 4", method=b"POST", body=b"body")
    async with proxy.bearward.connect() as connection:
        await connection.send(request.replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer_head = await wire.read_head(connection.reader)
        assert answer_head.split(b" ")[1] == b"200"
        assert await connection.closed() == b"final"


async def test_many_pass(proxy: RawProxy) -> None:
    async def answer(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(HINTS * (MOST - 1) + FINAL)
        await writer.drain()

    proxy.upstream.script = answer
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        for _ in range(MOST - 1):
            assert (await interim(connection.reader)).status == 103
        assert (await wire.read_answer(connection.reader)).body == b"final"


async def test_a_flood_ends(proxy: RawProxy) -> None:
    """Rule 19: an upstream that never comes to its final answer is cut off."""
    is_cut = asyncio.Event()

    async def flood(_request: Message, _reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(HINTS * 10)
                await writer.drain()
        is_cut.set()

    proxy.upstream.script = flood
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        head, passed = await wire.read_head(connection.reader), 0
        while head.startswith(b"HTTP/1.1 103 "):
            head, passed = await wire.read_head(connection.reader), passed + 1
        length = int(Message(head, b"", b"").values("Content-Length")[0])
        body = await connection.reader.readexactly(length)
        assert_problem(Message(head, body, body), 502, "upstream_protocol")
        assert passed <= MOST
        async with asyncio.timeout(SOON):
            await is_cut.wait()
