"""bearward between raw sockets: a client and an upstream that see every byte."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import atlas_credential
from evidence import new_secret
from harness import Bearward
from problems import assert_problem
from vendors.atlas import Atlas
from wire import Message, RawUpstream, read_answer

ORIGIN = "https://app.example"
MARK = new_secret("part of a request").encode()
"""Stands in requests that are refused, and nowhere in their answers; nor in a log, as the leak test sees."""
AT_ONCE = 2.0
"""Seconds: a refusal waits for nothing. The rest is for a busy machine."""


@dataclass
class RawProxy:
    """The route `/raw` leads to `/base` of the upstream, `/raw/deep` to its `/other`, `/slash` and more to its root."""

    bearward: Bearward
    upstream: RawUpstream
    atlas: Atlas

    @property
    def host(self) -> bytes:
        """The Host header line that a client sends."""
        return b"Host: 127.0.0.1:%d" % self.bearward.port

    @property
    def tokens(self) -> set[bytes]:
        """The live tokens: `Authorization` of most routes has the one, `X-Token` of `/other-header` the other."""
        return {issued.text.encode() for issued in self.atlas.book.issued}

    def request(
        self, target: bytes, *lines: bytes, method: bytes = b"GET", host: bytes | None = None, body: bytes = b""
    ) -> bytes:
        """A request of exactly these lines, with a good Host as the first where no other is given."""
        start = method + b" " + target + b" HTTP/1.1"
        return b"\r\n".join([start, self.host if host is None else host, *lines, b"", body])

    async def get(self, target: bytes, *lines: bytes) -> Message:
        """The answer to a GET of these lines."""
        return await self.bearward.raw(self.request(target, *lines))

    async def crosses(self, target: bytes, *lines: bytes) -> Message:
        """What reaches the upstream of a GET, which must be answered 200."""
        self.upstream.reset()
        answer = await self.get(target, *lines)
        assert answer.status == 200, f"{answer.start!r} {answer.body[:400]!r}"
        return self.upstream.only_request

    async def refuses(self, sent: bytes, status: int = 400, code: str = "bad_request") -> None:
        """All that is sent is answered by this problem at once, the connection closed, and nothing forwarded."""
        async with self.bearward.connect() as connection:
            await connection.send(sent)
            async with asyncio.timeout(AT_ONCE):
                answer = await read_answer(connection.reader)
                assert await connection.reader.read() == b"", "one answer, and an end that is no reset"
        assert_problem(answer, status, code)
        assert answer.values("Connection") == [b"close"]
        assert MARK not in answer.raw
        assert self.upstream.requests == []


@asynccontextmanager
async def raw_proxy(
    folder: Path, *, shell: str | None = None, routes: Mapping[str, dict[str, Any]] | None = None, **more: Any
) -> AsyncIterator[RawProxy]:
    """One started product, upstream and identity provider; `routes` and `more` add to its config."""
    async with Atlas() as atlas, RawUpstream() as upstream:
        config: dict[str, Any] = {
            "credentials": {
                "atlas": atlas_credential(atlas),
                "other-header": atlas_credential(atlas, inject={"header": "X-Token", "format": "{token}"}),
                "principal": atlas_credential(
                    atlas, principal={"header": "X-User-Id"}, headers={"X-On-Behalf-Of": "{principal}"}
                ),
            },
            "routes": {
                # Not in the order of their length: the longest must win all the same.
                "/raw": {"upstream": f"{upstream.url}/base", "credential": "atlas"},
                "/raw/deep": {"upstream": f"{upstream.url}/other/", "credential": "atlas"},
                "/slash": {"upstream": upstream.url, "credential": "atlas", "allow_encoded_slash": True},
                "/other-header": {"upstream": upstream.url, "credential": "other-header"},
                "/principal": {"upstream": upstream.url, "credential": "principal"},
                "/hasty": {"upstream": upstream.url, "credential": "atlas", "idle_timeout": "2s"},
                "/edited": {
                    "upstream": upstream.url,
                    "credential": "atlas",
                    "request_headers": {"set": {"X-Tenant": "acme"}, "remove": ["X-Internal"]},
                },
            },
            "allowed_hosts": ["proxy.internal", "proxy.example:8443"],
            "allowed_origins": [ORIGIN],
        }
        for prefix, route in (routes or {}).items():
            config["routes"][prefix] = {"upstream": upstream.url, "credential": "atlas"} | route
        options = {} if shell is None else {"shell": shell}
        async with Bearward(config | more, folder, name="raw", **options) as bearward:
            yield RawProxy(bearward, upstream, atlas)
