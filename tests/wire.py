"""HTTP/1.1 as bytes: a client and an upstream that send exactly what they are told and keep exactly what comes."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_TIMEOUT = 30.0
LIMIT = 1 << 20
"""How much a reader takes in before it holds back the other side."""

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@dataclass(frozen=True)
class Message:
    """One request or response. `raw` is all of it; `lines` are its header lines as they stood."""

    head: bytes
    rest: bytes
    """What followed the head, with its framing."""
    body: bytes

    @property
    def raw(self) -> bytes:
        return self.head + self.rest

    @property
    def start(self) -> bytes:
        """The request line or status line."""
        return self.head.split(b"\r\n", 1)[0]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    @property
    def lines(self) -> list[bytes]:
        return self.head.split(b"\r\n")[1:-2]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """Names and values in their order; the space around a value is not part of it."""
        parted = (line.partition(b":") for line in self.lines)
        return [(name, value.strip(b" \t")) for name, _, value in parted]

    def values(self, name: str) -> list[bytes]:
        """The values of every line of one name, in any case."""
        return [value for field, value in self.fields if field.lower() == name.lower().encode()]


async def read_head(reader: Reader, timeout: float | None = _TIMEOUT) -> bytes:
    """The next head with the empty line that ends it; empty where the other side closed before one."""
    try:
        async with asyncio.timeout(timeout):
            return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        assert not error.partial, f"the connection ended within a head: {error.partial!r}"
        return b""


async def read_answer(reader: Reader, *, to_head: bool = False) -> Message:
    """The next final answer (`to_head`: to a HEAD request, so that no body follows)."""
    head = await read_head(reader)
    assert head, "the connection was closed without an answer"
    status = Message(head, b"", b"").status
    if to_head or status in {204, 304}:
        return Message(head, b"", b"")
    return await _read_body(reader, head, until_close=True)


async def _read_body(reader: Reader, head: bytes, *, until_close: bool) -> Message:
    message = Message(head, b"", b"")
    async with asyncio.timeout(_TIMEOUT):
        if any(value.lower() == b"chunked" for value in message.values("Transfer-Encoding")):
            rest, body = await _read_chunks(reader)
        elif lengths := message.values("Content-Length"):
            rest = body = await reader.readexactly(int(lengths[0]))
        else:
            rest = body = await reader.read() if until_close else b""
    return Message(head, rest, body)


async def _read_chunks(reader: Reader) -> tuple[bytes, bytes]:
    rest, body = b"", b""
    while True:
        chunk, raw = await read_chunk(reader)
        rest += raw
        if not chunk:
            return rest, body
        body += chunk


async def read_chunk(reader: Reader) -> tuple[bytes, bytes]:
    """The next chunk of a chunked body, and the same with its framing; empty at the end."""
    async with asyncio.timeout(_TIMEOUT):
        size = await reader.readuntil(b"\r\n")
        content = await reader.readexactly(int(size.split(b";")[0], 16))
        return content, size + content + await reader.readexactly(2)


def chunk(content: bytes) -> bytes:
    """`content` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(content), content)


class Connection:
    """A client's end of one connection; it is open inside `async with`."""

    def __init__(self, *, port: int | None = None, path: str | None = None) -> None:
        self._port = port
        self._path = path
        self.reader: Reader
        self.writer: Writer

    async def __aenter__(self) -> Self:
        if self._path is not None:
            opened = await asyncio.open_unix_connection(self._path, limit=LIMIT)
        else:
            opened = await asyncio.open_connection("127.0.0.1", self._port, limit=LIMIT)
        self.reader, self.writer = opened
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.writer.transport.abort()  # what is unsent might never leave
        await close(self.writer)

    async def send(self, data: bytes) -> None:
        """Hand `data` to the kernel."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Leave at once and by RST, whatever is still unsent."""
        own = self.writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def exchange(self, request: bytes, *, to_head: bool = False) -> Message:
        """Send one request and read its answer."""
        await self.send(request)
        return await read_answer(self.reader, to_head=to_head)

    async def closed(self) -> bytes:
        """What still comes before the other side closes; fails where it does not close."""
        async with asyncio.timeout(_TIMEOUT):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


async def close(writer: Writer) -> None:
    """Close, whatever the other side thinks of it."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def ok(body: bytes = b"ok", *lines: bytes) -> bytes:
    """A 200 answer with a length and the given header lines."""
    return answer(b"200 OK", body, *lines)


def answer(status: bytes, body: bytes, *lines: bytes) -> bytes:
    """An answer with a length and the given header lines."""
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"HTTP/1.1 " + status, length, *lines, b"", body])


Script = Callable[[Message, Reader, Writer], Awaitable[None]]
"""Answers one request, whose head is given and whose body is still to be read; the connection closes after it."""


class Sink:
    """A script that never answers and keeps what comes: `began` at a head, `ended` when no more can come."""

    def __init__(self) -> None:
        self.began, self.ended = asyncio.Event(), asyncio.Event()
        self.received = b""

    async def __call__(self, _request: Message, reader: Reader, _writer: Writer) -> None:
        self.began.set()
        with suppress(ConnectionError):
            while piece := await reader.read(LIMIT):
                self.received += piece
        self.ended.set()

    def assert_not_whole(self) -> None:
        """Nothing came that could be taken for the end of a chunked body."""
        assert not self.received.endswith(b"0\r\n\r\n"), "a last chunk would make it look whole"


class RawUpstream:
    """A data center that records the bytes of every request; it is up inside `async with`.

    It answers each with `answer`, or leaves that to `script`.
    """

    def __init__(self) -> None:
        self.requests: list[Message] = []
        self.answer = ok()
        self.script: Script | None = None
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[Writer] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=LIMIT, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._connections):
            writer.transport.abort()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> bytes:
        """What a Host header for this upstream says."""
        return b"127.0.0.1:%d" % self.port

    def reset(self) -> None:
        """Forget what came, and answer 200 again."""
        self.requests.clear()
        self.answer = ok()
        self.script = None

    @property
    def only_request(self) -> Message:
        """The one request that came."""
        assert len(self.requests) == 1, f"{len(self.requests)} requests reached the upstream, not one"
        return self.requests[0]

    async def _serve(self, reader: Reader, writer: Writer) -> None:
        self._connections.add(writer)
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the proxy may hang up at any time
        finally:
            self._connections.discard(writer)
            await close(writer)

    async def _answer(self, reader: Reader, writer: Writer) -> bool:
        head = await read_head(reader, timeout=None)
        if not head:
            return False
        if self.script is not None:
            self.requests.append(Message(head, b"", b""))
            await self.script(self.requests[-1], reader, writer)
            return False
        self.requests.append(await _read_body(reader, head, until_close=False))
        writer.write(self.answer)
        await writer.drain()
        return True
