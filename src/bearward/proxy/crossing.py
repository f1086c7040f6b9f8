"""One request's way through its route.

token ─► upstream ─► relay
  ▲          │ 401
  └── once ──┘
"""

import asyncio
import socket
import struct
import time
from typing import Any, Final, Protocol, TypeVar

from aiohttp import web
from aiohttp.http import HttpVersion11

from .. import events
from ..errors import ProblemError
from .answers import CLOSE, KEEP, connection_line, send_problem, transport_of
from .body import RequestBody
from .headers import BODILESS_STATUSES, RequestRules, response_head
from .routes import Route
from .upstream import Dialer, Exchange, UpstreamBrokenError

RETRIABLE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Token(Protocol):
    """What the proxy knows of a token."""

    @property
    def header_value(self) -> str: ...


T = TypeVar("T", bound=Token)


class Keeper(Protocol[T]):
    """Who gives the token; the only thing that the proxy knows of how tokens live."""

    def current(self) -> T | None:
        """The token, where it can be used at once."""

    async def wait(self) -> T:
        """The token, as soon as there is one; raises `ProblemError`."""

    def reject(self, token: T) -> None:
        """Hears that the upstream answered 401 to `token`."""

    async def replace(self, token: T) -> T | None:
        """After such a 401: a newer token, or None."""


class Tokens(Protocol):
    """Where a route's tokens come from."""

    def keeper(self, principal: str) -> Keeper[Any]: ...


class Tally:
    """What a route has carried so far; read by the metrics."""

    __slots__ = ("in_flight", "replays", "request_bytes", "response_bytes", "unauthorized")

    def __init__(self) -> None:
        self.in_flight = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.unauthorized = 0
        self.replays = 0


class RoutePath:
    """A route with all that its requests need, put together once."""

    def __init__(
        self, route: Route, tokens: Tokens, dialer: Dialer, *, token_header: str, principal_header: str | None
    ) -> None:
        self.route = route
        self.tokens = tokens
        self.dialer = dialer
        self.principal_header = principal_header
        self.tally = Tally()
        self.base = route.upstream.path.encode()
        self.rules = RequestRules(
            authority=route.upstream.authority,
            token_header=token_header,
            drop=(*route.remove_headers, *([principal_header] if principal_header else [])),
            add=[(name, value.reveal()) for name, value in route.set_headers],
        )


class Crossing:
    """One request on its way through one route."""

    def __init__(self, request: web.BaseRequest, path: RoutePath, target: bytes, observe: events.Observer) -> None:
        self._request = request
        self._path = path
        self._target = target
        self._observe = observe
        self._head_sent = False
        self._status = 0
        self._origin = "proxy"
        self._body: RequestBody | None = None
        self._framing = b""
        self._exchange: Exchange | None = None

    async def run(self) -> web.StreamResponse:
        """Takes the request across and answers it, whatever happens."""
        tally, route = self._path.tally, self._path.route.prefix
        started = time.perf_counter()
        tally.in_flight += 1
        try:
            return await self._cross()
        except ProblemError as problem:
            if problem.status >= 502 and problem.code.startswith("upstream"):
                self._observe(events.UpstreamFailed(route, problem.code, problem.detail))
            self._status, self._origin = problem.status, "proxy"
            return send_problem(self._request, problem)
        except UpstreamBrokenError as broken:
            self._observe(events.UpstreamFailed(route, "truncated", str(broken)))
            self._break_off()
            return CLOSE
        except (asyncio.CancelledError, ConnectionError):
            self._status = self._status or 499  # the client left; nobody reads an answer
            raise
        except Exception as error:
            self._observe(events.Crashed("request", events.place_of(error)))
            if self._head_sent:
                self._break_off()
                return CLOSE
            self._status = 500
            return send_problem(self._request, ProblemError("internal_error", "See the log.", close=True))
        finally:
            if self._exchange is not None:
                self._exchange.close()
            tally.in_flight -= 1
            if self._body is not None:
                tally.request_bytes += self._body.size
            self._observe(
                events.RequestDone(
                    route=route,
                    method=self._request.method,
                    code=self._status,
                    origin=self._origin,
                    seconds=time.perf_counter() - started,
                )
            )

    async def _cross(self) -> web.StreamResponse:
        path = self._path
        self._take_body()
        keeper = path.tokens.keeper(self._principal())
        token = keeper.current() or await keeper.wait()
        exchange = await self._ask(token)
        if exchange.message.code == 401 and _is_about_the_token(exchange):
            path.tally.unauthorized += 1
            if path.route.on_401 == "replay" and (self._body is None or self._body.is_repeatable):
                newer = await keeper.replace(token)
                # While the refresh ran, the body may have outgrown what is kept of it.
                if newer is not None and (self._body is None or self._body.is_repeatable):
                    path.tally.replays += 1
                    await exchange.abort()
                    exchange = await self._ask(newer)
                    if exchange.message.code == 401 and _is_about_the_token(exchange):
                        path.tally.unauthorized += 1
                        keeper.reject(newer)
            else:
                keeper.reject(token)
        response = await self._relay(exchange)
        await exchange.finish()
        self._exchange = None
        return response

    def _principal(self) -> str:
        name = self._path.principal_header
        if name is None:
            return ""
        values = self._request.headers.getall(name, [])
        if len(values) > 1:
            raise ProblemError("bad_request", f"The header {name} names one principal, not several.")
        if not values or not values[0].strip():
            raise ProblemError("principal_required", f"The header {name} must name the principal.")
        if not values[0].isprintable():
            raise ProblemError("bad_request", f"The header {name} is no printable UTF-8 text.")
        return values[0]

    def _take_body(self) -> None:
        request = self._request
        headers = request.headers
        coding = headers.get("Transfer-Encoding")
        if coding is not None:
            if coding.lower() != "chunked":
                raise ProblemError("bad_request", "The only transfer coding that is known is chunked.", close=True)
            self._framing = b"Transfer-Encoding: chunked\r\n"
            self._body = RequestBody(request.content, is_chunked=True)
        elif (length := headers.get("Content-Length")) is not None:
            self._framing = b"Content-Length: " + length.encode() + b"\r\n"
            if int(length):
                self._body = RequestBody(request.content, is_chunked=False)
        expect = headers.get("Expect")
        if expect is not None and expect.lower() != "100-continue":
            raise ProblemError("expectation_failed", "The only expectation that is known is 100-continue.", close=True)

    async def _ask(self, token: Token) -> Exchange:
        """Sends the request with `token` and waits for the answer's head."""
        path, request, body = self._path, self._request, self._body
        head = path.rules.head(
            request.method.encode(), self._target, request.raw_headers, self._framing, token.header_value
        )
        while True:
            exchange = self._exchange = await path.dialer.open(request.method)
            exchange.send(head, body)
            try:
                while (message := await exchange.read_head()).code < 200:
                    if message.code == 100 and request.version == HttpVersion11:
                        transport_of(request).write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return exchange
            except ProblemError as problem:
                await exchange.abort()
                # A kept connection that its server closed just now: RFC 9112 §9.3.1 lets these go out once more.
                stale = problem.code == "upstream_closed" and exchange.is_reused
                if not (stale and body is None and request.method in RETRIABLE):
                    raise

    async def _relay(self, exchange: Exchange) -> web.StreamResponse:
        request, message, tally = self._request, exchange.message, self._path.tally
        self._status, self._origin = message.code, "upstream"
        is_bodiless = request.method == "HEAD" or message.code in BODILESS_STATUSES
        length = message.headers.get("Content-Length")
        keep_alive = request.keep_alive
        chunked = False
        framing = b""
        if length is not None and not message.chunked:
            framing = b"Content-Length: " + length.encode() + b"\r\n"
        elif not is_bodiless:
            chunked = request.version == HttpVersion11
            framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
            keep_alive = keep_alive and chunked
        reason = message.reason.encode("utf-8", "surrogateescape")
        head = response_head(
            message.code, reason, message.raw_headers, framing + connection_line(request, keep_alive=keep_alive)
        )
        transport = transport_of(request)
        self._head_sent = True
        if is_bodiless:
            transport.write(head)
            return KEEP if keep_alive else CLOSE
        data, is_whole = exchange.buffered()
        tally.response_bytes += len(data)
        if chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if is_whole:
            transport.write(b"".join((head, data, b"0\r\n\r\n" if chunked else b"")))
            return KEEP if keep_alive else CLOSE
        transport.write(head + data)
        writer = request.writer
        if chunked:
            writer.enable_chunking()
        while chunk := await exchange.read():
            tally.response_bytes += len(chunk)
            await writer.write(chunk)
        await writer.write_eof()
        return KEEP if keep_alive else CLOSE

    def _break_off(self) -> None:
        """Lets the client see that the answer is not whole: no last chunk, too few bytes, else a reset."""
        transport = self._request.transport
        if transport is not None and self._request.version != HttpVersion11:
            # Closing is the end of an HTTP/1.0 answer; only a reset says that it broke off.
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()


def _is_about_the_token(exchange: Exchange) -> bool:
    """Whether a 401 may be healed by another token (RFC 6750 §3.1 says when it may not)."""
    challenges = exchange.message.headers.getall("WWW-Authenticate", [])
    return not any("insufficient_scope" in challenge for challenge in challenges)
