"""WebSocket and other upgrades: rule 22 of a crossing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

import wire
from ports import free_port
from problems import assert_problem
from rawproxy import RawProxy
from upstreams import SOON, Say, everything, proxy_before, reset
from wire import Connection, Message, RawUpstream, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
IN_SOCKETS = 64 * MIB
MEMORY = 16 * MIB
IDLE_TIMEOUT = 1.0

ASKED = (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket")
HANDSHAKE = (*ASKED, b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def _websocket_echo(request: web.BaseRequest) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await (
            socket.send_str(message.data) if message.type is aiohttp.WSMsgType.TEXT else socket.send_bytes(message.data)
        )
    return socket


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RawProxy]:
    """The routes `/raw`; `/hasty`, whose tunnels may be silent for a second; `/echo`, to a real WebSocket server."""
    runner = web.ServerRunner(web.Server(_websocket_echo))
    await runner.setup()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        echo = {"upstream": f"http://127.0.0.1:{port}"}
        routes = {"/raw": {}, "/hasty": {"idle_timeout": IDLE_TIMEOUT}, "/echo": echo}
        upstream = await stack.enter_async_context(RawUpstream())
        yield await stack.enter_async_context(proxy_before(upstream, routes, tmp_path_factory.mktemp("upgrades")))


class Switch:
    """A script that switches protocols and leaves both directions to the test."""

    def __init__(self, behind: bytes = b"") -> None:
        self.behind = behind
        self.is_open, self.may_end = asyncio.Event(), asyncio.Event()
        self.reader: Reader
        self.writer: Writer

    async def __call__(self, _request: Message, reader: Reader, writer: Writer) -> None:
        self.reader, self.writer = reader, writer
        writer.write(SWITCHED + self.behind)
        await writer.drain()
        self.is_open.set()
        await self.may_end.wait()


@contextlib.asynccontextmanager
async def tunnel(proxy: RawProxy, target: bytes = b"/raw/x") -> AsyncIterator[tuple[Connection, Switch]]:
    """An open tunnel: the client's end, and the upstream's."""
    proxy.upstream.script = switch = Switch()
    try:
        async with proxy.bearward.connect() as client:
            await client.send(proxy.request(target, *HANDSHAKE))
            assert Message(await wire.read_head(client.reader), b"", b"").status == 101
            await switch.is_open.wait()
            async with asyncio.timeout(30):
                yield client, switch
    finally:
        switch.may_end.set()


async def ends(reader: Reader) -> None:
    """Wait for the end of what comes, whether in order or not."""
    async with asyncio.timeout(SOON):
        assert (await everything(reader))[0] == b""


async def test_a_handshake_crosses_with_the_token(proxy: RawProxy) -> None:
    """Rules 11 and 22: what belongs to one connection is made anew, for the upgrade alone."""
    proxy.upstream.script = switch = Switch()
    lines = [*HANDSHAKE, b"Authorization: Bearer theirs", b"Connection: X-Hop", b"X-Hop: 1", b"Keep-Alive: timeout=5"]
    async with proxy.bearward.connect() as client:
        await client.send(proxy.request(b"/raw/chat?room=1", *lines, b"Sec-WebSocket-Protocol: chat"))
        answer = Message(await wire.read_head(client.reader), b"", b"")
        switch.may_end.set()
    seen = proxy.upstream.only_request
    assert seen.target == b"/chat?room=1"
    assert [value.lower() for value in seen.values("Connection")] == [b"upgrade"]
    assert seen.values("Upgrade") == [b"websocket"]
    assert seen.values("Sec-WebSocket-Key") == [b"dGhlIHNhbXBsZSBub25jZQ=="]
    assert seen.values("Sec-WebSocket-Protocol") == [b"chat"]
    assert (seen.values("X-Hop"), seen.values("Keep-Alive")) == ([], [])
    (authorization,) = seen.values("Authorization")
    assert authorization.removeprefix(b"Bearer ") in proxy.tokens
    assert answer.status == 101
    assert [value.lower() for value in answer.values("Connection")] == [b"upgrade"]
    assert answer.values("Upgrade") == [b"websocket"]
    assert answer.values("Sec-WebSocket-Accept") == [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
    assert answer.values("Transfer-Encoding") + answer.values("Content-Length") == []


async def test_bytes_cross_both_ways(proxy: RawProxy) -> None:
    async with tunnel(proxy) as (client, switch):
        for n in range(3):
            await client.send(b"\x81\x05ask %d" % n)
            assert await switch.reader.readexactly(7) == b"\x81\x05ask %d" % n
            switch.writer.write(b"\x00\xfftell %d\r\n\r\n" % n)
            assert await client.reader.readexactly(12) == b"\x00\xfftell %d\r\n\r\n" % n
        await client.send(b"HTTP/1.1 200 OK\r\n\r\n")
        assert await switch.reader.readexactly(19) == b"HTTP/1.1 200 OK\r\n\r\n"
        switch.writer.write(bytes(1_000_000))
        assert await client.reader.readexactly(1_000_000) == bytes(1_000_000)


async def test_what_is_sent_right_behind_the_handshake_crosses(proxy: RawProxy) -> None:
    proxy.upstream.script = switch = Switch(behind=b"at once")
    async with proxy.bearward.connect() as client:
        await client.send(proxy.request(b"/raw/x", *HANDSHAKE) + b"early")
        assert (await wire.read_head(client.reader)).startswith(b"HTTP/1.1 101 ")
        async with asyncio.timeout(SOON):
            assert await client.reader.readexactly(7) == b"at once"
            assert await switch.reader.readexactly(5) == b"early"
        switch.may_end.set()


async def test_a_tunnel_opens_only_after_the_101(proxy: RawProxy) -> None:
    """Rule 22: what came early reaches no upstream that declines."""
    proxy.upstream.script = say = Say(wire.answer(b"403 Forbidden", b"no", b"Connection: close"))
    early = proxy.request(b"/raw/smuggled")
    async with proxy.bearward.connect() as client:
        await client.send(proxy.request(b"/raw/x", *HANDSHAKE) + b"\x81\x05early\r\n\r\n" + early)
        answer = await wire.read_answer(client.reader)
        assert (answer.status, answer.body) == (403, b"no")
        await say.is_left()
    assert say.heard == b""
    assert len(proxy.upstream.requests) == 1


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request", b"401 Unauthorized", b"426 Upgrade Required"])
@pytest.mark.parametrize("lines", [(), (b"Connection: Upgrade", b"Upgrade: websocket")], ids=["plain", "offers"])
async def test_any_other_answer_is_an_ordinary_answer(proxy: RawProxy, status: bytes, lines: tuple[bytes, ...]) -> None:
    """Rule 22: and both connections serve further requests."""
    proxy.upstream.answer = wire.answer(status, b"theirs", *lines)
    async with proxy.bearward.connect() as client:
        for _ in range(2):
            answer = await client.exchange(proxy.request(b"/raw/x", *HANDSHAKE))
            assert (answer.status, answer.body) == (int(status[:3]), b"theirs")
            assert answer.values("Bearward-Error") == []
        proxy.upstream.reset()
        assert (await client.exchange(proxy.request(b"/raw/y"))).body == b"ok"


@pytest.mark.parametrize(
    "lines",
    [
        [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"],
        [b"Connection: upgrade", b"Upgrade: H2C"],
        [b"Upgrade: websocket"],
        [b"Connection: Upgrade"],
        [b"Connection: keep-alive", b"Upgrade: websocket"],
    ],
    ids=["h2c", "H2C", "not in Connection", "nothing named", "other in Connection"],
)
async def test_what_is_no_upgrade_is_an_ordinary_request(proxy: RawProxy, lines: list[bytes]) -> None:
    """Rule 22: h2c above all, which would hide further requests from every rule."""
    seen = await proxy.crosses(b"/raw/x", *lines)
    assert seen.values("Upgrade") == seen.values("HTTP2-Settings") == []
    assert b"upgrade" not in b",".join(seen.values("Connection")).lower()


async def test_h2c_is_stripped_from_among_others(proxy: RawProxy) -> None:
    seen = await proxy.crosses(b"/raw/x", b"Connection: Upgrade", b"Upgrade: h2c, websocket")
    assert b"h2c" not in b",".join(seen.values("Upgrade")).lower()


async def test_an_http_1_0_client_cannot_upgrade(proxy: RawProxy) -> None:
    """RFC 9110 §7.8."""
    request = proxy.request(b"/raw/x", *HANDSHAKE).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert (await proxy.bearward.raw(request)).status == 200
    assert proxy.upstream.only_request.values("Upgrade") == []


@pytest.mark.parametrize(
    "switched",
    [
        SWITCHED.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        SWITCHED.replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
        SWITCHED.replace(b"Upgrade: websocket\r\n", b""),
        SWITCHED.replace(b"Upgrade: websocket", b"Upgrade: websocket2"),
    ],
    ids=["h2c", "two", "none", "another"],
)
async def test_a_switch_to_what_was_not_asked_for(proxy: RawProxy, switched: bytes) -> None:
    """Rules 15 and 22."""
    proxy.upstream.script = say = Say(switched + b"theirs")
    assert_problem(await proxy.get(b"/raw/x", *HANDSHAKE), 502, "upstream_protocol")
    await say.is_left()


async def test_a_switch_to_h2c_though_it_was_stripped(proxy: RawProxy) -> None:
    proxy.upstream.script = say = Say(SWITCHED.replace(b"Upgrade: websocket", b"Upgrade: h2c"))
    assert_problem(await proxy.get(b"/raw/x", b"Connection: Upgrade", b"Upgrade: h2c"), 502, "upstream_protocol")
    await say.is_left()


@pytest.mark.parametrize("protocol", [b"tcp", b"SPDY/3.1", b"WebSocket"])
async def test_other_protocols_upgrade_too(proxy: RawProxy, protocol: bytes) -> None:
    """The name is compared as RFC 9110 §7.8 says: in any case."""
    proxy.upstream.script = say = Say(SWITCHED.replace(b"websocket", protocol.lower()) + b"hello")
    async with proxy.bearward.connect() as client:
        await client.send(proxy.request(b"/raw/x", b"Connection: Upgrade", b"Upgrade: " + protocol))
        assert (await wire.read_head(client.reader)).startswith(b"HTTP/1.1 101 ")
        assert await client.reader.readexactly(5) == b"hello"
    await say.is_left()


async def test_the_client_may_close_its_half(proxy: RawProxy) -> None:
    """Rule 22: the upstream hears the end, and goes on telling."""
    async with tunnel(proxy) as (client, switch):
        await client.send(b"last")
        client.writer.write_eof()
        assert await switch.reader.read() == b"last"
        for n in range(3):
            switch.writer.write(b"%d" % n)
            assert await client.reader.readexactly(1) == b"%d" % n
        switch.writer.write_eof()
        await ends(client.reader)


async def test_the_upstream_may_close_its_half(proxy: RawProxy) -> None:
    """Rule 22: the client hears the end, and goes on telling."""
    async with tunnel(proxy) as (client, switch):
        switch.writer.write(b"last")
        switch.writer.write_eof()
        assert await client.reader.read() == b"last"
        for n in range(3):
            await client.send(b"%d" % n)
            assert await switch.reader.readexactly(1) == b"%d" % n
        client.writer.write_eof()
        await ends(switch.reader)


async def test_a_client_that_resets_ends_its_upstream(proxy: RawProxy) -> None:
    async with tunnel(proxy) as (client, switch):
        reset(client.writer)
        await ends(switch.reader)


async def test_an_upstream_that_resets_ends_its_client(proxy: RawProxy) -> None:
    async with tunnel(proxy) as (client, switch):
        reset(switch.writer)
        await ends(client.reader)


async def test_a_client_that_leaves_while_its_upstream_tells_ends_it(proxy: RawProxy) -> None:
    """A side that will read no more is known by the reset of what is sent to it."""
    async with tunnel(proxy) as (client, switch):
        client.writer.close()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(SOON):
                while True:
                    switch.writer.write(b"anybody there?")
                    await switch.writer.drain()
                    await asyncio.sleep(0.01)


async def test_a_silent_tunnel_ends(proxy: RawProxy) -> None:
    """Rule 22: `idle_timeout` counts from the last byte of either direction, after a half was closed as well."""
    async with tunnel(proxy, b"/hasty/x") as (client, switch), tunnel(proxy, b"/hasty/y") as (half, other):
        half.writer.write_eof()
        assert await other.reader.read() == b""
        for n in range(8):
            await asyncio.sleep(IDLE_TIMEOUT / 4)
            switch.writer.write(b"%d" % n)
            other.writer.write(b"%d" % n)
            assert await client.reader.readexactly(1) == await half.reader.readexactly(1) == b"%d" % n
        for reader in (client.reader, switch.reader, half.reader):
            async with asyncio.timeout(IDLE_TIMEOUT + SOON):
                assert (await everything(reader))[0] == b""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_a_side_that_does_not_read_holds_back_the_other(proxy: RawProxy, who: str) -> None:
    """Rule 19 holds in a tunnel: memory does not grow, and nothing is lost."""
    grown = proxy.bearward.memory_growth()
    piece = bytes(range(256)) * 1024
    async with tunnel(proxy) as (client, switch):
        ways = [(client.reader, switch.writer), (switch.reader, client.writer)]
        reader, writer = ways[0] if who == "client" else ways[1]
        stalled = client.writer.transport if who == "client" else switch.writer.transport
        stalled.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 2 * IN_SOCKETS:
                writer.write(piece)
                sent += len(piece)
                async with asyncio.timeout(0.5):
                    await writer.drain()
        assert sent < IN_SOCKETS
        assert grown() < MEMORY
        stalled.resume_reading()  # type: ignore[attr-defined]
        for _ in range(sent // len(piece)):
            assert await reader.readexactly(len(piece)) == piece
    assert grown() < MEMORY


async def test_a_real_websocket(proxy: RawProxy) -> None:
    """A client and a server of another make: texts, bytes, and the closing handshake."""
    async with aiohttp.ClientSession() as session, session.ws_connect(proxy.bearward.url + "/echo/x") as socket:
        for text in ("hello", "caf\xe9", "x" * 300_000):
            await socket.send_str(text)
            assert await socket.receive_str(timeout=SOON) == text
        await socket.send_bytes(bytes(1000))
        assert await socket.receive_bytes(timeout=SOON) == bytes(1000)
        await socket.ping()
        await socket.close()
        assert socket.close_code == aiohttp.WSCloseCode.OK
