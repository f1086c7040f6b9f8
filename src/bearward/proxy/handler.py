"""One request from top to bottom; the one place where an error becomes a response.

guard ─► route ─► token ─► upstream ─► relay
                    ▲          │ 401
                    └── once ──┘
"""

import asyncio
import json
import math
import socket
import struct
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol, TypeVar

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11

from .. import events
from ..errors import ProblemError
from .body import RequestBody
from .guard import ALLOWED_METHODS, Guard, check_method, check_path, parse_target
from .headers import BODILESS_STATUSES, RequestRules, response_head
from .routes import Route, Router, join
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


class Sent(web.StreamResponse):
    """Tells aiohttp that the answer is on the wire already, and whether the connection may be used again."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


KEEP: Final = Sent(keep_alive=True)
CLOSE: Final = Sent(keep_alive=False)


class Handler:
    """Takes every request of the data port."""

    def __init__(self, guard: Guard, paths: Mapping[str, RoutePath], observe: events.Observer) -> None:
        self._guard = guard
        self._router = Router(paths)
        self._observe = observe
        self.is_draining = False

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            path, target = self._admit(request)
        except ProblemError as problem:
            self._observe(events.RequestRejected(problem.code))
            return send_problem(request, problem)
        if path is None:  # OPTIONS *
            return _send(request, b"HTTP/1.1 204 No Content\r\nAllow: " + ALLOWED_METHODS.encode() + b"\r\n", b"")
        crossing = Crossing(request, path, target, self._observe)
        return await crossing.run()

    def _admit(self, request: web.BaseRequest) -> tuple[RoutePath | None, bytes]:
        headers = request.headers
        method = request.method
        if method == "CONNECT":
            check_method(method)
        if request.version not in {HttpVersion10, HttpVersion11}:
            raise ProblemError("version_not_supported", "HTTP/1.0 and HTTP/1.1 are spoken here.", close=True)
        raw = request.raw_path.encode("utf-8", "surrogateescape")
        asterisk = method == "OPTIONS" and raw == b"*"
        target = parse_target(b"/" if asterisk else raw)
        hosts = headers.getall("Host", [])
        self._guard.check_host(hosts, target.authority)
        self._guard.check_origin(headers.getall("Origin", []), headers.get("Sec-Fetch-Site"), hosts[0])
        check_method(method)
        if self.is_draining:
            raise ProblemError("draining", "bearward is stopping.", retry_after=5, close=True)
        if asterisk:
            return None, b""
        found = self._router.match(target.path)
        check_path(target.path, allow_encoded_slash=found is not None and found[0].route.allow_encoded_slash)
        if found is None:
            raise ProblemError("no_route", "No route's prefix fits this path.")
        path, rest = found
        return path, join(path.base, rest) + target.query


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
            self._status, self._origin = (self._status, self._origin) if self._head_sent else (500, "proxy")
            if self._head_sent:
                self._break_off()
                return CLOSE
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
                if newer is not None:
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
                        _transport(request).write(b"HTTP/1.1 100 Continue\r\n\r\n")
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
            message.code, reason, message.raw_headers, framing + _connection(request, keep_alive=keep_alive)
        )
        transport = _transport(request)
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


def send_problem(request: web.BaseRequest, problem: ProblemError) -> web.StreamResponse:
    """Answers with a problem document (RFC 9457) that holds fixed words only."""
    document = {
        "type": f"urn:bearward:error:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
    }
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}", f"Bearward-Error: {problem.code}"]
    lines.append("Content-Type: application/problem+json")
    if problem.allow is not None:
        lines.append(f"Allow: {problem.allow}")
    if problem.retry_after is not None or problem.status == 503:
        lines.append(f"Retry-After: {math.ceil(problem.retry_after or 1)}")
    head = "\r\n".join(lines).encode() + b"\r\n"
    return _send(request, head, json.dumps(document).encode() + b"\n", keep_alive=not problem.close)


def _send(request: web.BaseRequest, head: bytes, body: bytes, *, keep_alive: bool = True) -> web.StreamResponse:
    keep_alive = keep_alive and request.keep_alive
    framing = b"Content-Length: %d\r\n" % len(body) if body else b""
    transport = _transport(request)
    shown = b"" if request.method == "HEAD" else body
    transport.write(head + framing + _connection(request, keep_alive=keep_alive) + b"\r\n" + shown)
    return KEEP if keep_alive else CLOSE


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client left")
    return transport


def _connection(request: web.BaseRequest, *, keep_alive: bool) -> bytes:
    if not keep_alive:
        return b"Connection: close\r\n"
    return b"" if request.version == HttpVersion11 else b"Connection: keep-alive\r\n"


def _is_about_the_token(exchange: Exchange) -> bool:
    """Whether a 401 may be healed by another token (RFC 6750 §3.1 says when it may not)."""
    challenges = exchange.message.headers.getall("WWW-Authenticate", [])
    return not any("insufficient_scope" in challenge for challenge in challenges)
