"""Clients that leave. Rule 20: the upstream's request ends within a second, whatever was going on."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from contextlib import suppress

import pytest

import wire
from rawproxy import RawProxy
from wire import Connection, Message, Reader, Sink, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON = 2.0
"""Seconds: a request ends within one; the other is for a busy machine."""
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
PIECE = bytes(16 << 10)
DELIVERED = 15.0
"""Seconds until the kernel has handed over what it held for a reader that stood still."""
STALLED = 0.3
"""What lies unread for this long, in seconds, is not about to be read."""

Leave = Callable[[Connection], None]


def close(connection: Connection) -> None:
    """FIN, and a reset to whoever still writes."""
    connection.writer.close()


def half_close(connection: Connection) -> None:
    """FIN; the client still reads, which TCP does not tell."""
    connection.writer.write_eof()


def reset(connection: Connection) -> None:
    """RST."""
    connection.reset()


ways_to_leave = pytest.mark.parametrize("leave", [close, half_close, reset], ids=lambda leave: leave.__name__)


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="what lies unread is told by Linux's sock_diag(7)")


async def leaves(proxy: RawProxy, connection: Connection, leave: Leave, ended: asyncio.Event) -> None:
    """The client leaves, the upstream sees it, and nothing of the request remains."""
    leave(connection)
    async with asyncio.timeout(SOON):
        await ended.wait()
    if leave is half_close:
        await connection.closed()
    await is_idle(proxy)


async def is_idle(proxy: RawProxy) -> None:
    """Wait for the last request to be over, as the product itself sees it; only a scrape tells."""
    async with asyncio.timeout(SOON):
        while (await proxy.bearward.metrics()).total("requests_in_flight", route="/raw"):
            await asyncio.sleep(0.02)


BEGUN_REQUESTS = {
    "no body": ([], b""),
    "a whole body": ([b"Content-Length: 5"], b"hello"),
    "a whole chunked body": ([b"Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
    "a part of a length": ([b"Content-Length: 1000000"], b"hello"),
    "some chunks": ([b"Transfer-Encoding: chunked"], b"5\r\nhello\r\n"),
    "a part of a chunk": ([b"Transfer-Encoding: chunked"], b"1000\r\nhello"),
    "none of a body": ([b"Content-Length: 1000000"], b""),
}


@ways_to_leave
@pytest.mark.parametrize("begun", BEGUN_REQUESTS)
async def test_while_it_waits_for_the_head(proxy: RawProxy, leave: Leave, begun: str) -> None:
    """Rule 20, and Rule 9: what was begun never looks whole."""
    lines, body = BEGUN_REQUESTS[begun]
    proxy.upstream.script = sink = Sink()
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x", *lines, method=b"POST", body=body))
        await sink.began.wait()
        await leaves(proxy, connection, leave, sink.ended)
    if "whole" not in begun:
        sink.assert_not_whole()


class Endless:
    """A script that answers without an end; `ended` when nobody is left to answer."""

    def __init__(self, head: bytes, *, flooding: bool = False) -> None:
        self.stalled, self.ended = asyncio.Event(), asyncio.Event()
        self._head = head
        self._flooding = flooding

    async def __call__(self, _request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(self._head + b"5\r\nhello\r\n")
        with suppress(ConnectionError):
            while self._flooding:
                writer.write(wire.chunk(PIECE))
                stall = asyncio.get_running_loop().call_later(STALLED, self.stalled.set)
                await writer.drain()
                stall.cancel()
            while await reader.read(wire.LIMIT):
                pass
        self.ended.set()


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@ways_to_leave
@pytest.mark.parametrize(
    "head", [CHUNKED_HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"], ids=repr
)
async def test_amid_an_answer_that_is_silent(proxy: RawProxy, leave: Leave, head: bytes) -> None:
    """Rule 20: nothing is being written whose failure would tell."""
    proxy.upstream.script = answer = Endless(head)
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        await connection.reader.readuntil(b"hello")
        await leaves(proxy, connection, leave, answer.ended)


@ways_to_leave
async def test_amid_an_answer_that_it_reads(proxy: RawProxy, leave: Leave) -> None:
    """Rule 20: one that comes faster than it can be taken."""
    proxy.upstream.script = answer = Endless(CHUNKED_HEAD, flooding=True)
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        await connection.reader.readuntil(b"hello")
        await connection.reader.readexactly(len(PIECE) * 100)
        await leaves(proxy, connection, leave, answer.ended)


@ways_to_leave
async def test_amid_an_answer_that_it_does_not_read(proxy: RawProxy, leave: Leave) -> None:
    """Rule 20: the proxy has stopped reading the upstream, and can write nothing either."""
    proxy.upstream.script = answer = Endless(CHUNKED_HEAD, flooding=True)
    async with proxy.bearward.connect() as connection:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await connection.send(proxy.request(b"/raw/x"))
        await answer.stalled.wait()
        if leave is half_close:
            connection.writer.write_eof()
            async with asyncio.timeout(SOON):
                await answer.ended.wait()
            await is_idle(proxy)
            connection.reset()
        else:
            await leaves(proxy, connection, leave, answer.ended)


def unsent(connection: Connection) -> int:
    """How many bytes of a client have not reached the proxy's kernel."""
    own = connection.writer.get_extra_info("socket")
    return int.from_bytes(fcntl.ioctl(own.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def unread(port: int, peer: int) -> int:
    """How many bytes lie unread at the loopback socket of `port` whose other end is `peer`: sock_diag(7) knows."""
    one = socket.inet_aton("127.0.0.1").ljust(16, b"\0")
    ends = struct.pack("!HH", port, peer) + one + one + struct.pack("=I8s", 0, b"\xff" * 8)
    asked = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + ends
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(asked), SOCK_DIAG_BY_FAMILY, 1, 0, 0) + asked)
        told = kernel.recv(1 << 16)
    kind = struct.unpack_from("=H", told, 4)[0]
    return int(struct.unpack_from("=I", told, 72)[0]) if kind == SOCK_DIAG_BY_FAMILY else 0


@on_linux
@ways_to_leave
@pytest.mark.parametrize("framing", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"], ids=repr)
async def test_amid_an_upload_that_its_upstream_does_not_read(proxy: RawProxy, leave: Leave, framing: bytes) -> None:
    """Rule 20: the proxy has stopped reading the client, whose leaving stands behind unread bytes.

    The upstream does not see the end of its connection before it reads; that the proxy is done with it, a scrape tells.
    """
    may_read, ended = asyncio.Event(), asyncio.Event()
    sink = Sink()

    async def read_nothing(request: Message, reader: Reader, writer: Writer) -> None:
        # Little goes in, so that the proxy's side is soon full.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, len(PIECE))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await may_read.wait()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wire.LIMIT)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        await sink(request, reader, writer)
        ended.set()

    proxy.upstream.script = read_nothing
    try:
        async with proxy.bearward.connect() as connection:
            await connection.send(proxy.request(b"/raw/x", framing, method=b"PUT"))
            await fill(proxy, connection, wire.chunk(PIECE) if b"chunked" in framing else PIECE)
            leave(connection)
            await is_idle(proxy)
    finally:
        may_read.set()
    async with asyncio.timeout(DELIVERED):
        await ended.wait()
    sink.assert_not_whole()


async def fill(proxy: RawProxy, connection: Connection, piece: bytes) -> None:
    """Send one piece after the other until the proxy leaves some of them unread; none waits on the client's side."""
    client = connection.writer.get_extra_info("sockname")[1]
    while True:
        await connection.send(piece)
        deadline = asyncio.get_running_loop().time() + STALLED
        while unsent(connection) or unread(proxy.bearward.port, client):
            if asyncio.get_running_loop().time() > deadline:
                assert unsent(connection) == 0, "the sign of leaving would not arrive"
                return
            await asyncio.sleep(0.001)


@on_linux
@ways_to_leave
@pytest.mark.parametrize("are_many", [False, True], ids=["one", "more than are read"])
async def test_with_requests_behind_the_one_that_waits(proxy: RawProxy, leave: Leave, are_many: bool) -> None:
    """Rule 20: bytes of the next requests lie before the sign that the client left."""
    proxy.upstream.script = sink = Sink()
    following = proxy.request(b"/raw/next")
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        await sink.began.wait()
        await (fill(proxy, connection, following * 100) if are_many else connection.send(following))
        await leaves(proxy, connection, leave, sink.ended)
    assert [seen.target for seen in proxy.upstream.requests] == [b"/base/x"]


@pytest.mark.parametrize("leave", [close, reset], ids=lambda leave: leave.__name__)
async def test_before_its_head_is_whole(proxy: RawProxy, leave: Leave) -> None:
    """Rule 20: nothing went upstream, nothing is said, and the next client is served."""
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x")[:-2])
        leave(connection)
    await proxy.crosses(b"/raw/y")


async def test_a_half_closed_client_gets_no_late_answer(proxy: RawProxy) -> None:
    """Rule 20: a request and its FIN in one go are a request whose client has left, as with nginx, Envoy and Go."""
    proxy.upstream.script = sink = Sink()
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x"))
        connection.writer.write_eof()
        async with asyncio.timeout(SOON):
            assert await connection.reader.read() == b""
            if sink.began.is_set():
                await sink.ended.wait()
    await is_idle(proxy)
