"""For tests of the upstream side: a product with routes of the test's own, and upstreams that misbehave."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import wire
from configs import atlas_credential
from harness import Bearward
from rawproxy import RawProxy
from vendors.atlas import Atlas
from wire import Message, RawUpstream, Reader, Writer

SOON = 3.0
"""Seconds within which an end on one side reaches the other: one is promised, the rest is for a busy machine."""

Routes = Mapping[str, Mapping[str, Any]]


@asynccontextmanager
async def proxy_before(
    upstream: RawUpstream, routes: Routes, folder: Path, *, env: Mapping[str, str] | None = None, **top: Any
) -> AsyncIterator[RawProxy]:
    """A started product; a route leads to `upstream` with a credential that works, unless it says otherwise.

    `top` are further fields of the config's top level.
    """
    async with Atlas() as atlas:
        usual = {"upstream": upstream.url, "credential": "atlas"}
        config: dict[str, Any] = {
            "credentials": {"atlas": atlas_credential(atlas)} | top.pop("credentials", {}),
            "routes": {prefix: usual | dict(route) for prefix, route in routes.items()},
            **top,
        }
        async with Bearward(config, folder, name="upstreams", env=env) as bearward:
            yield RawProxy(bearward, upstream, atlas)


async def forget_connections(proxy: RawProxy, upstream: RawUpstream, target: bytes) -> None:
    """Let no connection to `upstream`, where `target` leads, be left from before."""
    hang_up(upstream)
    upstream.script, upstream.answer = None, wire.ok(b"", b"Connection: close")
    # Whoever is answered now is answered by a proxy that has seen the ends of those connections.
    assert (await proxy.get(target)).status == 200
    upstream.reset()


def hang_up(upstream: RawUpstream) -> None:
    """End every connection, those that are kept included."""
    for writer in list(upstream._connections):
        writer.transport.abort()


class Say:
    """A script that sends what it is given and then only listens; `left` is set when the proxy has hung up."""

    def __init__(self, sent: bytes) -> None:
        self.sent = sent
        self.heard = b""
        self.left = asyncio.Event()

    async def __call__(self, _request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(self.sent)
        with suppress(ConnectionError):
            await writer.drain()
            while piece := await reader.read(wire.LIMIT):
                self.heard += piece
        self.left.set()

    async def is_left(self) -> None:
        """Wait until the proxy has hung up."""
        async with asyncio.timeout(SOON):
            await self.left.wait()


class Keep:
    """A script that answers every request of each connection, and notes which targets came on which."""

    def __init__(self, answer: bytes | None = None) -> None:
        self.answer = wire.ok() if answer is None else answer
        self.connections: list[list[bytes]] = []

    async def __call__(self, request: Message, reader: Reader, writer: Writer) -> None:
        targets: list[bytes] = []
        self.connections.append(targets)
        head = request.head
        while head:
            targets.append(Message(head, b"", b"").target)
            writer.write(self.answer)
            await writer.drain()
            head = await wire.read_head(reader, timeout=None)


def reset(writer: Writer) -> None:
    """End the connection with RST; what was not sent yet is lost."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def everything(reader: Reader) -> tuple[bytes, bool]:
    """All that still comes, and whether the connection ended in order (FIN) and not with a reset."""
    data = b""
    async with asyncio.timeout(30):
        try:
            while piece := await reader.read(wire.LIMIT):
                data += piece
        except ConnectionResetError:
            return data, False
    return data, True
