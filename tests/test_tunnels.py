"""Sides that do not read: in a tunnel, or of an answer. Rules 19 and 22."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

import wire
from rawproxy import RawProxy
from test_backpressure import PATIENCE, has_read_on
from test_upgrades import HANDSHAKE, IN_SOCKETS, Switch, tunnel
from together import Together
from upstreams import SOON, everything, proxy_before
from wire import Message, RawUpstream, Reader, Writer

together = Together()

IDLE_TIMEOUT = 2.0
PLACES = 3
"""How many connections an upstream may have; and how many clients there may be, where that is of interest."""
PIECE = bytes(range(256)) * 256
STUCK_AFTER = 0.3
"""Seconds without progress, by which a sender is taken to be held back."""
LOOKED = 0.8
"""Seconds after which a product that looks out for clients that leave is to have looked."""
ESTABLISHED, CLOSE_WAIT = 1, 8
"""States of a socket: both sides may still send; the other side has ended."""
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1
PROXIES: dict[str, RawProxy] = {}
"""The module's product, by route; each has an upstream of its own."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def module_routes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[None]:
    """One product for all of them, whose tunnels and bodies may be silent for two seconds."""
    async with AsyncExitStack() as stack:
        names = ("stuck", "half", "again", "order", "junk", "upload")
        upstreams = {name: await stack.enter_async_context(RawUpstream()) for name in names}
        usual = {"idle_timeout": IDLE_TIMEOUT, "connect_timeout": IDLE_TIMEOUT}
        routes = {f"/{name}": usual | {"upstream": upstream.url} for name, upstream in upstreams.items()}
        routes["/half"]["idle_timeout"] = 10.0
        limits = {"upstream_connections": PLACES}
        before = proxy_before(upstreams["stuck"], routes, tmp_path_factory.mktemp("tunnels"), limits=limits)
        proxy = await stack.enter_async_context(before)
        for name, upstream in upstreams.items():
            PROXIES[name] = RawProxy(proxy.bearward, upstream, proxy.atlas)
        yield
        PROXIES.clear()


def pause(writer: Writer) -> None:
    """From now on, this side of a connection does not read."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]


def resume(writer: Writer) -> None:
    writer.transport.resume_reading()  # type: ignore[attr-defined]


async def fill(writer: Writer) -> int:
    """Send until nobody takes more; how many bytes."""
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < IN_SOCKETS:
            writer.write(PIECE)
            sent += len(PIECE)
            async with asyncio.timeout(STUCK_AFTER):
                await writer.drain()
    assert sent < IN_SOCKETS, "nothing holds the sender back"
    return sent


async def is_served(proxy: RawProxy, target: bytes) -> None:
    """A new request finds a place, after those who held all of them have had their time."""
    proxy.upstream.reset()
    async with asyncio.timeout(IDLE_TIMEOUT + SOON):
        while True:
            with contextlib.suppress(ConnectionError, AssertionError):
                if (await proxy.get(target)).status == 200:
                    return
            await asyncio.sleep(0.05)


@together
async def test_upstreams_that_do_not_read_give_their_places_back(_folder: Path) -> None:
    proxy = PROXIES["stuck"]
    async with AsyncExitStack() as stack:
        tunnels = [await stack.enter_async_context(tunnel(proxy, b"/stuck/x")) for _ in range(PLACES)]
        for _, switch in tunnels:
            pause(switch.writer)
        await asyncio.gather(*(fill(client.writer) for client, _ in tunnels))
        await is_served(proxy, b"/stuck/new")


@together
async def test_clients_that_do_not_read_give_their_places_back(folder: Path) -> None:
    limits = {"connections": PLACES}
    async with RawUpstream() as upstream, AsyncExitStack() as stack:
        routes = {"/raw": {"idle_timeout": IDLE_TIMEOUT}}
        proxy = await stack.enter_async_context(proxy_before(upstream, routes, folder, limits=limits))
        tunnels = [await stack.enter_async_context(tunnel(proxy)) for _ in range(PLACES)]
        for client, _ in tunnels:
            pause(client.writer)
        await asyncio.gather(*(fill(switch.writer) for _, switch in tunnels))
        await is_served(proxy, b"/raw/new")
        async with asyncio.timeout(SOON):
            while (await proxy.bearward.metrics()).total("requests_in_flight"):
                await asyncio.sleep(0.05)


def socket_of(proxy: RawProxy, client: Writer) -> tuple[int, int]:
    """State and unread bytes of the product's end of a client's connection, as the kernel tells them (sock_diag(7)).

    An end that is unread counts as one more. `/proc/net/tcp` tells the same, but of all of a machine's sockets at once:
    with some thousands of them that takes too long for a loop in which others measure time.
    """
    ends = proxy.bearward.port, client.get_extra_info("sockname")[1]
    address = socket.inet_aton("127.0.0.1")
    asked = struct.pack("=BBxxI", socket.AF_INET, socket.IPPROTO_TCP, 0xFFFFFFFF)
    asked += struct.pack("!HH4s12x4s12x4xq", *ends, address, address, -1)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(asked), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + asked)
        answer = kernel.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    assert kind == SOCK_DIAG_BY_FAMILY, "the product has no such connection"
    (unread,) = struct.unpack_from("=I", answer, 16 + 4 + 48 + 4)
    return answer[16 + 1], unread


async def is_read(proxy: RawProxy, client: Writer) -> bool:
    """Whether the product, which has its turns meanwhile, takes all that the client has sent."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STUCK_AFTER):
            while socket_of(proxy, client)[1]:
                await asyncio.sleep(0.001)
            return True
    await has_read_on(proxy)
    return not socket_of(proxy, client)[1]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what is unread")
@together
async def test_a_half_closed_while_nobody_reads_arrives_whole(_folder: Path) -> None:
    """Rule 22: all that was sent before the end, and the end; and the other half stays open."""
    proxy, count = PROXIES["half"], 0
    async with tunnel(proxy, b"/half/x") as (client, switch):
        pause(switch.writer)
        while await is_read(proxy, client.writer):
            await client.send(PIECE)
            count += 1
        client.writer.write_eof()
        async with asyncio.timeout(SOON):
            while (seen := socket_of(proxy, client.writer))[0] == ESTABLISHED:
                await asyncio.sleep(0.01)
        assert seen[0] == CLOSE_WAIT
        assert seen[1] > 1, "the end waits behind bytes"
        await asyncio.sleep(LOOKED)
        await has_read_on(proxy)
        resume(switch.writer)
        received, in_order = await everything(switch.reader)
        assert (len(received), received == PIECE * count, in_order) == (count * len(PIECE), True, True)
        switch.writer.write(b"thanks")
        assert await client.reader.readexactly(6) == b"thanks"


@together
async def test_a_tunnel_lives_on_after_it_was_held_back(_folder: Path) -> None:
    """`idle_timeout` counts from the last byte, also where a side was not reading before."""
    async with tunnel(PROXIES["again"], b"/again/x") as (client, switch):
        pause(client.writer)
        sent = await fill(switch.writer)
        resume(client.writer)
        assert await client.reader.readexactly(sent) == PIECE * (sent // len(PIECE))
        for n in range(5):
            await asyncio.sleep(IDLE_TIMEOUT / 3)
            switch.writer.write(b"%d" % n)
            assert await client.reader.readexactly(1) == b"%d" % n


class Endless:
    """A script whose answer has no end; `is_held` once nobody takes it, `is_left` once the proxy has hung up."""

    def __init__(self) -> None:
        self.is_held, self.is_left = asyncio.Event(), asyncio.Event()

    async def __call__(self, _request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * IN_SOCKETS))
        await fill(writer)
        self.is_held.set()
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            await writer.wait_closed()
        self.is_left.set()


@together
async def test_junk_behind_a_request_buys_no_time(_folder: Path) -> None:
    """Rule 19: a client that does not read has `idle_timeout`, whatever it sends meanwhile."""
    proxy = PROXIES["junk"]
    proxy.upstream.script = endless = Endless()
    async with proxy.bearward.connect() as client:
        pause(client.writer)
        await client.send(proxy.request(b"/junk/x"))
        async with asyncio.timeout(PATIENCE):
            await endless.is_held.wait()
        assert not endless.is_left.is_set()
        client.writer.write(b"x" * 400_000)
        async with asyncio.timeout(IDLE_TIMEOUT + SOON):
            await endless.is_left.wait()
        client.reset()


@together
async def test_an_upload_goes_on_after_its_answer_began(_folder: Path) -> None:
    """`idle_timeout` counts from the last byte of either direction."""
    proxy, pieces = PROXIES["upload"], 5

    async def answer_early(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        got = await reader.readexactly(pieces)
        writer.write(wire.chunk(got) + wire.chunk(b""))
        await writer.drain()

    proxy.upstream.script = answer_early
    async with proxy.bearward.connect() as client:
        await client.send(proxy.request(b"/upload/x", b"Content-Length: %d" % pieces, method=b"POST"))
        assert Message(await wire.read_head(client.reader), b"", b"").status == 200
        for n in range(pieces):
            await asyncio.sleep(IDLE_TIMEOUT / 3)
            await client.send(b"%d" % n)
        assert (await wire.read_chunk(client.reader))[0] == b"01234"
        assert (await wire.read_chunk(client.reader))[0] == b""


class Late(Switch):
    """Switches protocols when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.may_switch = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: Message, reader: Reader, writer: Writer) -> None:
        self.is_asked.set()
        await self.may_switch.wait()
        await super().__call__(request, reader, writer)


@contextlib.asynccontextmanager
async def stopped(process: int) -> AsyncIterator[None]:
    """While it is stopped, what is sent to a process waits, and is found at once when it goes on."""
    os.kill(process, signal.SIGSTOP)
    try:
        async with asyncio.timeout(SOON):
            while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                await asyncio.sleep(0.001)
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux's /proc tells that a process has stopped")
@pytest.mark.asyncio(loop_scope="module")
async def test_what_came_before_the_tunnel_goes_first() -> None:
    """Also where the 101 and more from the client are found in one step of the product's loop."""
    proxy, early, late = PROXIES["order"], b"sent early ", b"sent late"
    for _ in range(3):
        proxy.upstream.script = switch = Late()
        async with proxy.bearward.connect() as client, asyncio.timeout(10):
            await client.send(proxy.request(b"/order/x", *HANDSHAKE) + early)
            await switch.is_asked.wait()
            async with stopped(proxy.bearward.process.pid):
                switch.may_switch.set()
                await switch.is_open.wait()
                await client.send(late)
            assert await switch.reader.readexactly(len(early + late)) == early + late
            switch.may_end.set()
