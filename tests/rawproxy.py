"""bearward between raw sockets: a client and an upstream that see every byte."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import atlas_credential
from harness import Bearward
from vendors.atlas import Atlas
from wire import Message, RawUpstream

ORIGIN = "https://app.example"


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


@asynccontextmanager
async def raw_proxy(folder: Path) -> AsyncIterator[RawProxy]:
    """One started product, upstream and identity provider."""
    async with Atlas() as atlas, RawUpstream() as upstream:
        config: dict[str, Any] = {
            "credentials": {
                "atlas": atlas_credential(atlas),
                "other-header": atlas_credential(atlas, inject={"header": "X-Token", "format": "{token}"}),
            },
            "routes": {
                # Not in the order of their length: the longest must win all the same.
                "/raw": {"upstream": f"{upstream.url}/base", "credential": "atlas"},
                "/raw/deep": {"upstream": f"{upstream.url}/other/", "credential": "atlas"},
                "/slash": {"upstream": upstream.url, "credential": "atlas", "allow_encoded_slash": True},
                "/other-header": {"upstream": upstream.url, "credential": "other-header"},
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
        async with Bearward(config, folder, name="raw") as bearward:
            yield RawProxy(bearward, upstream, atlas)
