"""A token endpoint and an API behind one port: `python bench/endpoint.py PORT`, until standard input ends.

`/token` gives a token, as the `Wishes` say; `/wish?JSON` sets other ones, and tells the `Counts` since the last; all
else has a small answer, as an API's.
"""

import asyncio
import json
import random
import secrets
import sys
import time
from dataclasses import asdict, dataclass
from urllib.parse import unquote

TOKEN_LENGTH = 1024


@dataclass
class Wishes:
    """How token requests are answered. Times are seconds."""

    latency: float = 0.0
    status: int = 200
    lifetime: float = 3600.0
    refresh_in: tuple[float, float] | None = None
    """At random between these, from the answer on."""
    refresh_at: float | None = None
    """The same moment for all, of `time.monotonic()`."""

    def answer(self) -> bytes:
        fields: dict[str, object] = {"error": "temporarily_unavailable"}
        if self.status == 200:
            token = secrets.token_urlsafe(TOKEN_LENGTH)[:TOKEN_LENGTH]
            fields = {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}
            if self.refresh_at is not None:
                fields["refresh_in"] = max(self.refresh_at - time.monotonic(), 0.0)
            elif self.refresh_in is not None:
                fields["refresh_in"] = random.uniform(*self.refresh_in)  # noqa: S311 - spreads a load
        return json.dumps(fields).encode()


@dataclass
class Counts:
    """Token requests since the last wishes."""

    answered: int = 0
    most_at_once: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    """When the last of them came, of `time.monotonic()`."""


class Endpoint:
    """What all connections share."""

    def __init__(self) -> None:
        self.wishes, self.counts = Wishes(), Counts()
        self.under_way = 0

    def wish(self, query: str) -> bytes:
        counts, self.counts = self.counts, Counts()
        self.wishes = Wishes(**json.loads(unquote(query)))
        return json.dumps(asdict(counts)).encode()

    def begin(self) -> None:
        self.under_way += 1
        self.counts.most_at_once = max(self.counts.most_at_once, self.under_way)
        self.counts.last_at = time.monotonic()
        self.counts.first_at = self.counts.first_at or self.counts.last_at

    def end(self) -> None:
        self.under_way -= 1
        self.counts.answered += 1


class Connection(asyncio.Protocol):
    """One client's, with one request at a time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        _, _, rest = head.lower().partition(b"\r\ncontent-length:")
        if not end or len(body) < int(rest.partition(b"\r\n")[0] or 0):
            return
        self._received = b""
        path, _, query = head.split(b" ", 2)[1].decode().partition("?")
        if path == "/token":
            self._endpoint.begin()
            asyncio.get_running_loop().call_later(self._endpoint.wishes.latency, self._issue)
        else:
            self._write(200, self._endpoint.wish(query) if path == "/wish" else b'{"ok":true}')

    def _issue(self) -> None:
        self._endpoint.end()
        self._write(self._endpoint.wishes.status, self._endpoint.wishes.answer())

    def _write(self, status: int, body: bytes) -> None:
        head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)


async def main(port: int) -> None:
    endpoint = Endpoint()
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Connection(endpoint), "127.0.0.1", port, backlog=4096):
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
