"""The only code that opens connections to data centers.

aiohttp's connector (pool, TLS, happy eyeballs) and its response parser do the work; its `ClientSession` is left out:
it follows redirects, adds headers, re-encodes targets, sends requests a second time, and takes two thirds of the
time. What the rest of the proxy knows is `Dialer.open` and `Exchange`, so that all of this can be replaced.
"""

import asyncio
import weakref
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage, StreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from ..errors import ProblemError, os_reason, tls_reason
from .body import RequestBody
from .routes import Upstream

IDLE_CONNECTION: Final = 30.0
"""Seconds for which an unused connection is kept: less than servers usually do, so that they seldom close first."""
MAX_LINE: Final = 64 << 10
MAX_FIELDS: Final = 1000
READ_BUFFER: Final = 64 << 10


class UpstreamBrokenError(Exception):
    """The answer's body broke off after its head had been passed on."""


class ConnectionPool:
    """The connections to all upstreams, never shared between those that differ in scheme, host, port or TLS."""

    def __init__(self) -> None:
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION, use_dns_cache=True)
        self._used: weakref.WeakSet[ResponseHandler] = weakref.WeakSet()

    async def close(self) -> None:
        await self._connector.close()

    def dialer(self, upstream: Upstream, connect_timeout: float, response_timeout: float, idle: float) -> "Dialer":
        """What opens exchanges with `upstream`; times in seconds."""
        return Dialer(self._connector, self._used, upstream, connect_timeout, response_timeout, idle)


class Dialer:
    """Opens exchanges with one upstream."""

    def __init__(
        self,
        connector: aiohttp.TCPConnector,
        used: "weakref.WeakSet[ResponseHandler]",
        upstream: Upstream,
        connect_timeout: float,
        response_timeout: float,
        idle_timeout: float,
    ) -> None:
        self._connector = connector
        self._used = used
        self._host = upstream.host_and_port
        self._to = aiohttp.ClientRequest("GET", URL(upstream.origin), loop=asyncio.get_running_loop())
        self._timeout = aiohttp.ClientTimeout(connect=connect_timeout, ceil_threshold=3600)
        self._response_timeout = response_timeout
        self._idle_timeout = idle_timeout

    async def open(self, method: str) -> "Exchange":
        """A connection for one request. Raises `ProblemError` (502, 504) where none can be had."""
        try:
            connection = await self._connector.connect(self._to, [], self._timeout)
            while connection.protocol is not None and connection.protocol.should_close:
                connection.close()  # bytes came that nobody had asked for: they must not answer this request
                connection = await self._connector.connect(self._to, [], self._timeout)
        except TimeoutError:
            raise ProblemError("upstream_timeout", f"No connection to {self._host} in time.") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise ProblemError("upstream_tls", f"{self._host}: {tls_reason(error.certificate_error)}.") from None
        except aiohttp.ClientConnectorError as error:
            code = "upstream_tls" if isinstance(error, aiohttp.ClientSSLError) else "upstream_unreachable"
            raise ProblemError(code, f"{self._host}: {os_reason(error.os_error)}.") from None
        except (aiohttp.ClientError, OSError):
            raise ProblemError("upstream_unreachable", f"{self._host} cannot be reached.") from None
        protocol = connection.protocol
        if protocol is None:  # closed between two steps of the loop
            raise ProblemError("upstream_unreachable", f"{self._host} closed the connection at once.")
        is_reused = protocol in self._used
        if not is_reused:
            self._used.add(protocol)
        protocol.set_response_params(
            skip_payload=method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=self._response_timeout,
            read_bufsize=READ_BUFFER,
            timeout_ceil_threshold=3600,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_FIELDS,
        )
        return Exchange(connection, protocol, self._host, self._idle_timeout, is_reused)


class Exchange:
    """One request and its answer on one connection."""

    def __init__(
        self,
        connection: aiohttp.connector.Connection,
        protocol: ResponseHandler,
        host: str,
        idle_timeout: float,
        is_reused: bool,
    ) -> None:
        self._connection = connection
        self._protocol = protocol
        self._host = host
        self._idle_timeout = idle_timeout
        self.is_reused = is_reused
        self._pump: asyncio.Task[None] | None = None
        self.message: RawResponseMessage
        self.content: aiohttp.StreamReader

    def send(self, head: bytes, body: RequestBody | None) -> None:
        """Sends the request; a body that is not wholly here yet is streamed in a task of its own."""
        whole = b"" if body is None else body.at_once()
        transport = self._protocol.transport
        if transport is None:
            return  # closed just now: reading the answer's head tells
        transport.write(head + whole if whole else head)
        if body is None or whole is not None:
            self._protocol.start_timeout()
        else:
            self._pump = asyncio.create_task(self._stream(body), name="request body")
            self._pump.add_done_callback(_note_outcome)

    async def _stream(self, body: RequestBody) -> None:
        writer = StreamWriter(self._protocol, asyncio.get_running_loop())
        if body.is_chunked:
            writer.enable_chunking()
        try:
            async for chunk in body.chunks(self._idle_timeout):
                await self._write(writer, chunk)
            await writer.write_eof()
        except aiohttp.ClientConnectionError:
            return  # the upstream would hear no more; what it answered is read by `read_head`
        except BaseException:
            self._hang_up()  # a body that broke off must not look whole
            raise
        self._protocol.start_timeout()

    async def _write(self, writer: StreamWriter, chunk: bytes) -> None:
        try:
            async with asyncio.timeout(self._idle_timeout):
                await writer.write(chunk)
        except TimeoutError:
            raise ProblemError("upstream_timeout", f"{self._host} stopped reading the request's body.") from None

    async def read_head(self) -> RawResponseMessage:
        """The next head, informational ones included. Raises `ProblemError` (400, 502, 504)."""
        try:
            message, content = await self._protocol.read()
        except (aiohttp.SocketTimeoutError, TimeoutError):
            raise ProblemError("upstream_timeout", f"{self._host} did not answer in time.") from None
        except HttpProcessingError:
            raise ProblemError("upstream_protocol", f"The answer of {self._host} is malformed.") from None
        except (aiohttp.ClientError, OSError):
            if broken := self._broken_request():
                raise broken from None
            raise ProblemError("upstream_closed", f"{self._host} closed the connection without an answer.") from None
        if message.code == 101 or not 100 <= message.code < 600:
            raise ProblemError("upstream_protocol", f"The answer of {self._host} has a status that was not asked for.")
        if message.code >= 200:
            self._protocol.read_timeout = self._idle_timeout
            self.message, self.content = message, content
        return message

    def _broken_request(self) -> ProblemError | None:
        """What went wrong with the request's body, where that is why its upstream was left."""
        pump = self._pump
        if pump is None or not pump.done() or pump.cancelled() or (error := pump.exception()) is None:
            return None
        if isinstance(error, ProblemError):
            return error
        if isinstance(error, TimeoutError):
            return ProblemError("request_timeout", "The request's body did not arrive in time.", close=True)
        return ProblemError("bad_request", "The request's body is malformed.", close=True)

    def buffered(self) -> tuple[bytes, bool]:
        """What is here of the answer's body already, and whether that is all of it."""
        content = self.content
        try:
            data = content.read_nowait()
        except (aiohttp.ClientError, OSError):
            return b"", False  # reading on tells
        return data, content.is_eof() and content.at_eof()

    async def read(self) -> bytes:
        """The next bytes of the answer's body; none at its end. Raises `UpstreamBrokenError`."""
        try:
            return await self.content.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            raise UpstreamBrokenError(type(error).__name__) from None

    async def finish(self) -> None:
        """Ends an exchange whose answer was read; its connection is used again if its request is whole as well."""
        pump = self._pump
        if pump is None or (pump.done() and not pump.cancelled() and pump.exception() is None):
            self._connection.release()
        else:
            await self.abort()

    async def abort(self) -> None:
        """Ends an exchange as it is: the connection is closed, and the body's bytes are free for another one."""
        self.close()
        if self._pump is not None:
            await asyncio.wait([self._pump])

    def close(self) -> None:
        """The same at once, where nobody sends the body again."""
        self._hang_up()
        if self._pump is not None:
            self._pump.cancel()

    def _hang_up(self) -> None:
        """Closes the connection now; what is still to be written would wait for an upstream that does not read."""
        if self._connection.protocol is not None:
            self._protocol.abort()
        self._connection.close()


def _note_outcome(pump: asyncio.Task[None]) -> None:
    """Who reads the answer learns of it by the closed connection; the error itself is of no further use."""
    if not pump.cancelled():
        pump.exception()
