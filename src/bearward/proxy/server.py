"""The data port: aiohttp's server, with error answers and a log that repeat nothing of a request."""

import asyncio
import contextlib
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy
from aiohttp.web_protocol import _ErrInfo

from .. import events
from ..errors import ProblemError
from .answers import send_problem
from .handler import Handler

TARGET_BYTES: Final = 16 << 10
HEAD_BYTES: Final = 64 << 10
MAX_FIELDS: Final = 1000
IDLE_CONNECTION: Final = 75.0
READ_BUFFER: Final = 64 << 10
CLOSE_TIMEOUT: Final = 0.1
"""How long a request that is ended by force may take over it, in seconds."""


class UnsafeParserError(Exception):
    """aiohttp was installed without its C extension; its text says what to do."""


class DataPort:
    """The connections of clients. Raises `UnsafeParserError`."""

    def __init__(self, handler: Handler, observe: events.Observer) -> None:
        if HttpRequestParser is HttpRequestParserPy:
            raise UnsafeParserError(
                "aiohttp runs without its C parser, and the one in Python has let smuggled requests through: "
                "install a wheel of aiohttp for this platform, and unset AIOHTTP_NO_EXTENSIONS"
            )
        self._handler = handler
        self._observe = observe
        # A client that leaves ends its request, and with it the upstream's (`handler_cancellation`).
        self._server = web.Server(handler, handler_cancellation=True)

    def protocol(self) -> asyncio.Protocol:
        """A new connection's protocol: what `create_server` asks for."""
        return ClientConnection(
            self._server,
            self._observe,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE_CONNECTION,
            access_log=None,
            auto_decompress=False,
            max_line_size=TARGET_BYTES,
            max_field_size=HEAD_BYTES,
            max_headers=MAX_FIELDS,
            read_bufsize=READ_BUFFER,
        )

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - of a whole phase
        """Lets what is in flight end within `timeout` seconds, then closes everything."""
        self._handler.is_draining = True
        self._server.pre_shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._server.shutdown(timeout)
        await self._server.shutdown(CLOSE_TIMEOUT)


class ClientConnection(web.RequestHandler):
    """aiohttp's connection, but what goes wrong below the handler is told in our words, and never in a client's."""

    __slots__ = ("_observe",)

    def __init__(self, manager: web.Server, observe: events.Observer, **options: Any) -> None:
        super().__init__(manager, **options)
        self._observe = observe

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # aiohttp queues a framing error as if it were a request of its own; the body that it broke would never end.
        request = self._current_request
        if request is not None and self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            content = request.content
            if not content.is_eof() and content.exception() is None:
                content.set_exception(web.RequestPayloadError("malformed"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):
            raise exc  # the client left: nobody to answer
        problem = _problem(status, exc)
        self._observe(events.RequestRejected(problem.code))
        return send_problem(request, problem)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        error = kw.get("exc_info")
        if isinstance(error, BaseException):
            self._observe(events.Crashed("connection", events.place_of(error)))


def _problem(status: int, error: BaseException | None) -> ProblemError:
    if status >= 500:
        return ProblemError("internal_error", "See the log.", close=True)
    if isinstance(error, LineTooLong):
        # aiohttp's parser does not say which line it was; the limits tell.
        if str(TARGET_BYTES) in str(error):
            return ProblemError("target_too_long", "A request target has at most 16 KiB.", close=True)
        return ProblemError("headers_too_large", "A request head has at most 64 KiB.", close=True)
    return ProblemError("bad_request", "The request is not well-formed HTTP/1.1.", close=True)
