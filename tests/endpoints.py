"""Every token endpoint of a module behind one port, and a product with a credential and a route for each of them."""

import asyncio
import inspect
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import jwt

from configs import Config
from evidence import new_secret
from harness import Answer, Bearward
from wire import Message, RawUpstream, Reader, Writer

SOON = 15.0
"""Seconds for what happens at once, on a busy machine."""
TOKEN = "TOKEN"
"""Stands in an answer for a new token."""
_OF_ANY_CLIENT = {"host", "user-agent", "content-length", "connection"}
_LOOK = 0.1
_TIMES = ("iat", "exp", "jti")

Pairs = list[tuple[str, Any]]


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    at: float
    message: Message
    body: bytes

    @property
    def line(self) -> str:
        """Method and path."""
        method, target, _ = self.message.start.decode().split(" ")
        return f"{method} {target.partition('?')[0]}"

    @property
    def query(self) -> Pairs:
        return parse_qsl(self.message.target.decode().partition("?")[2], keep_blank_values=True)

    @property
    def pairs(self) -> Pairs:
        """The parameters of a form."""
        return parse_qsl(self.body.decode(), keep_blank_values=True)

    @property
    def form(self) -> dict[str, str]:
        """The same, where none comes twice."""
        assert len(dict(self.pairs)) == len(self.pairs)
        return dict(self.pairs)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def headers(self) -> dict[str, str]:
        """All that say something, by their names in lower case; none comes twice."""
        named = [(name.decode().lower(), value.decode()) for name, value in self.message.fields]
        assert len(dict(named)) == len(named)
        return {name: value for name, value in named if name not in _OF_ANY_CLIENT}


@dataclass(frozen=True)
class Jwt:
    """Equals a JWT, after `prefix`, that `key` verifies, of exactly these headers and claims, issued about now."""

    key: Any
    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    lifetime: float = 60
    prefix: str = ""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str) or not other.startswith(self.prefix):
            return NotImplemented
        text = other.removeprefix(self.prefix)
        header = jwt.get_unverified_header(text)
        claims = jwt.decode(text, self.key, [header["alg"]], options={"verify_aud": False})
        issued, expires, jwt_id = (claims.pop(name) for name in _TIMES)
        is_timed = 0 < time.time() - issued < 60 and expires - issued == self.lifetime
        return bool(jwt_id) and is_timed and header == {"typ": "JWT", **self.header} and claims == self.claims

    __hash__ = None  # type: ignore[assignment]


Answering = bytes | Callable[[Asked], bytes | Awaitable[Any]]


def reply(document: Any, *lines: str, status: str = "200 OK") -> bytes:
    """An answer: text and bytes are the body as it is, all else is JSON."""
    match document:
        case bytes():
            body, kind = document, "text/plain"
        case str():
            body, kind = document.encode(), "text/plain"
        case _:
            body, kind = json.dumps(document).encode(), "application/json"
    if not any(line.lower().startswith("content-type:") for line in lines):
        lines = (*lines, f"Content-Type: {kind}")
    head = "\r\n".join(["HTTP/1.1 " + status, *lines, "Connection: close", "", ""])
    return head.encode() + body  # ended by the close, as its length changes with the token


def granted(**more: Any) -> bytes:
    """The usual answer, with a new token for an hour."""
    return reply({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600} | more)


def refused(error: str, status: str = "400 Bad Request", **more: Any) -> bytes:
    """A refusal as RFC 6749 §5.2 writes it."""
    return reply({"error": error} | more, status=status)


class Endpoints(RawUpstream):
    """`/NAME/…` is a token endpoint, `/api/NAME/…` the API behind its tokens; each request is kept.

    All are answered by `answers` or `apis`, where the name stands there; `TOKEN` in an answer becomes a new token.
    """

    def __init__(self) -> None:
        super().__init__()
        self.script = self._answer_one
        self.answers: dict[str, Answering] = {}
        self.apis: dict[str, Answering] = {}
        self.asked: defaultdict[str, list[Asked]] = defaultdict(list)
        self.calls: defaultdict[str, list[Asked]] = defaultdict(list)
        self.tokens: defaultdict[str, list[str]] = defaultdict(list)
        """Those that were given away."""
        self._changed = asyncio.Event()

    async def _answer_one(self, request: Message, reader: Reader, writer: Writer) -> None:
        body = await reader.readexactly(int((request.values("Content-Length") or [b"0"])[0]))
        asked = Asked(time.monotonic(), request, body)
        first, second = (*request.target.decode().strip("/").partition("?")[0].split("/"), "")[:2]
        if first == "api":
            self.calls[second].append(asked)
            answering, usual = self.apis.get(second), reply({})
        else:
            self.asked[first].append(asked)
            answering, usual = self.answers.get(first), granted()
        self._changed.set()
        self._changed = asyncio.Event()
        made = answering(asked) if callable(answering) else answering
        answer = await made if inspect.isawaitable(made) else made
        writer.write(self._with_token(first, usual if answer is None else answer))
        await writer.drain()

    def _with_token(self, name: str, answer: bytes) -> bytes:
        if TOKEN.encode() not in answer:
            return answer
        self.tokens[name].append(new_secret("access token", "t-"))
        return answer.replace(TOKEN.encode(), self.tokens[name][-1].encode())

    def bearer(self, name: str) -> list[str]:
        """What `Authorization` of each call was."""
        return [call.headers.get("authorization", "") for call in self.calls[name]]

    async def until(self, condition: Callable[[], Any], timeout: float = SOON) -> None:
        """Return once this is true; it is looked at whenever a request comes."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self._changed.wait()

    def config(self, credentials: Mapping[str, Config], **top: Any) -> Config:
        """A route `/NAME` for each credential, whose token URL is its endpoint's where it says no other."""
        whole: Config = {"credentials": {}, "routes": {}, **top}
        for name, credential in credentials.items():
            is_asked = credential.get("source", "oauth2") == "oauth2"
            url = {"token_url": f"{self.url}/{name}/token"} if is_asked else {}
            whole["credentials"][name] = url | credential
            whole["routes"][f"/{name}"] = {"upstream": f"{self.url}/api/{name}", "credential": name}
        return whole


@dataclass
class Stage:
    """A product before its endpoints."""

    endpoints: Endpoints
    bearward: Bearward
    _firsts: dict[str, tuple[float, dict[str, dict[str, Any]]]] = field(default_factory=dict)

    async def call(self, name: str, **headers: str) -> Answer:
        """A call of the API; header names are written with `_` for `-`."""
        return await self.bearward.get(
            f"/{name}/x", headers={key.replace("_", "-"): value for key, value in headers.items()}
        )

    async def serves(self, name: str, **headers: str) -> str:
        """`Authorization` of a call, which must succeed."""
        answer = await self.call(name, **headers)
        assert answer.summary == (200, None), (name, answer.body[:300])
        return self.endpoints.bearer(name)[-1]

    async def refreshed(self, name: str) -> dict[str, Any]:
        """The log's line of the first token."""
        return await self._first("token refreshed", name)

    async def failed(self, name: str) -> dict[str, Any]:
        """The log's line of the first failure."""
        return await self._first("token refresh failed", name)

    async def _first(self, event: str, name: str) -> dict[str, Any]:
        async with asyncio.timeout(SOON):
            while name not in (lines := await self._lines(event)):
                await asyncio.sleep(_LOOK)
            return lines[name]

    async def _lines(self, event: str) -> dict[str, dict[str, Any]]:
        """The first line of each credential; the log is long, and many look at it."""
        read_at, lines = self._firsts.get(event, (0.0, {}))
        if time.monotonic() - read_at > _LOOK:
            lines = {line["credential"]: line for line in reversed(await self.bearward.logs(event))}
            self._firsts[event] = time.monotonic(), lines
        return lines


@asynccontextmanager
async def stage_of(
    credentials: Callable[[Endpoints], Mapping[str, Config]] | Mapping[str, Config],
    folder: Path,
    *,
    answers: Mapping[str, Answering] | None = None,
    files: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    name: str = "rows",
    **top: Any,
) -> AsyncIterator[Stage]:
    """A started product; `files` are written beside its config."""
    async with Endpoints() as endpoints:
        endpoints.answers.update(answers or {})
        given = credentials(endpoints) if callable(credentials) else credentials
        config = endpoints.config(given, **top)
        async with Bearward(config, folder, name=name, files=files, env=env, until="/livez") as bearward:
            yield Stage(endpoints, bearward)
