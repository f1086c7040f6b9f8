"""What every fake vendor shares: sockets, records of who asked for what, and an API behind a bearer token."""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

from aiohttp import web
from multidict import CIMultiDictProxy

from ports import free_port

from .book import IssuedToken, TokenBook, Verdict
from .faults import Faults

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Site:
    """One origin: a loopback port that can be closed and opened again."""

    def __init__(self, handler: Handler) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._handler = handler
        self._runner: web.ServerRunner | None = None

    async def open(self) -> None:
        """Listen."""
        self._runner = web.ServerRunner(web.Server(self._handler, access_log=None), shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=2048).start()

    async def close(self) -> None:
        """Refuse connections, and end the ones that are open."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


@dataclass
class TokenRequest:
    """One request to a token endpoint, as it came."""

    at: float
    method: str
    query: list[tuple[str, str]]
    headers: CIMultiDictProxy[str]
    body: bytes
    status: int | None = None
    """What was answered; None while it is not."""
    token: IssuedToken | None = None
    _form: list[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self._form = parse_qsl(self.body.decode("latin-1"), keep_blank_values=True)

    @classmethod
    async def read(cls, request: web.BaseRequest) -> Self:
        """The whole request, which came now."""
        at = time.monotonic()
        query = parse_qsl(request.query_string, keep_blank_values=True)
        return cls(at, request.method, query, request.headers, await request.read())

    @property
    def form(self) -> dict[str, str]:
        """The body's parameters."""
        return dict(self._form)

    def is_form(self, *allowed: set[str]) -> bool:
        """Whether it is a form POST without a query, with exactly one of the `allowed` sets of parameters."""
        names = [name for name, _ in self._form]
        return (
            self.method == "POST"
            and not self.query
            and self.headers.getall("Content-Type", []) == ["application/x-www-form-urlencoded"]
            and len(names) == len(set(names))
            and set(names) in allowed
        )

    def basic(self) -> tuple[str, str] | None:
        """What stands left and right of the colon in the one Basic header, not decoded further."""
        lines = self.headers.getall("Authorization", [])
        if len(lines) != 1 or not lines[0].startswith("Basic "):
            return None
        try:
            name, colon, secret = base64.b64decode(lines[0][6:], validate=True).decode().partition(":")
        except ValueError:
            return None
        return (name, secret) if colon else None


@dataclass
class ApiCall:
    """One call of the API, as it came."""

    at: float
    method: str
    target: str
    headers: CIMultiDictProxy[str]
    verdict: Verdict
    token: IssuedToken | None
    body: bytes = b""
    status: int | None = None


class Vendor:
    """A vendor with one origin; it is up inside `async with`.

    Subclasses say where the token endpoint is (`token_path`), who gets a token (`grant`), under which paths the
    API lies (`api_roots`), and how it refuses (`unauthorized`).
    """

    token_path: str
    api_roots: tuple[str, ...] = ("/api/",)

    def __init__(self, lifetime: float = 3600.0) -> None:
        self.lifetime = lifetime
        self.book = TokenBook()
        self.token_faults = Faults()
        self.api_faults = Faults()
        self.token_requests: list[TokenRequest] = []
        self.calls: list[ApiCall] = []
        self.site = Site(self.handle)
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """The origin."""
        return self.site.url

    async def __aenter__(self) -> Self:
        await self.site.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.site.close()

    def grant(self, asked: TokenRequest) -> web.Response:
        """The regular answer to a token request."""
        raise NotImplementedError

    def unauthorized(self, call: ApiCall) -> web.Response:
        """How the API refuses a call without a live token."""
        return web.json_response({"error": {"code": 401, "message": f"token is {call.verdict}"}}, status=401)

    def refuse_call(self, call: ApiCall) -> web.Response | None:
        """What the API answers to a call that has something in it besides the token which must not be there."""
        return None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request to the origin."""
        if request.path == self.token_path:
            return await self.handle_token_request(request)
        return await self.handle_call(request)

    async def handle_token_request(self, request: web.BaseRequest) -> web.StreamResponse:
        """Record the request, then answer regularly or with a fault."""
        asked = await TokenRequest.read(request)
        self.token_requests.append(asked)
        self.notify()
        fault = self.token_faults.next()
        response = self.grant(asked) if fault is None else await fault(request, lambda: self.grant(asked))
        asked.status = response.status
        self.notify()
        return response

    async def handle_call(self, request: web.BaseRequest) -> web.StreamResponse:
        """Judge the token as it arrives, record the call, then answer regularly or with a fault."""
        verdict, token = self.book.read(request.headers.getall("Authorization", []))
        call = ApiCall(time.monotonic(), request.method, request.raw_path, request.headers, verdict, token)
        call.body = await request.read()
        self.calls.append(call)
        self.notify()
        fault = self.api_faults.next()
        response = self._answer(call) if fault is None else await fault(request, lambda: self._answer(call))
        call.status = response.status
        self.notify()
        return response

    def _answer(self, call: ApiCall) -> web.Response:
        if call.verdict != "live":
            return self.unauthorized(call)
        if not call.target.startswith(self.api_roots):
            return web.json_response({"error": "no such resource"}, status=404)
        return self.refuse_call(call) or web.json_response({"answered": call.target})

    @property
    def expires_in(self) -> int:
        """The lifetime as an answer tells it."""
        return int(self.lifetime)

    def issue(self, asked: TokenRequest, text: str, key: str, lifetime: float | None = None) -> IssuedToken:
        """Note a new token as the outcome of `asked`."""
        asked.token = self.book.issue(text, key, self.lifetime if lifetime is None else lifetime)
        return asked.token

    def notify(self) -> None:
        """Wake those who wait for something to happen here."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for(self, condition: Callable[[Self], Any], timeout: float = 30.0) -> None:
        """Return once `condition` of this vendor is true; it is looked at whenever something happens here."""
        try:
            async with asyncio.timeout(timeout):
                while not condition(self):
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"did not happen within {timeout} s; so far {len(self.token_requests)} token requests "
                f"(answered {[asked.status for asked in self.token_requests]}) and {len(self.calls)} calls"
            ) from None

    def calls_with(self, *verdicts: Verdict) -> list[ApiCall]:
        """The calls whose token was one of these."""
        return [call for call in self.calls if call.verdict in verdicts]


def oauth_error(status: int, error: str, description: str) -> web.Response:
    """A refusal as RFC 6749 §5.2 writes it."""
    return web.json_response({"error": error, "error_description": description}, status=status)
