"""What joins a client and an upstream after a 101 (RFC 9110 §7.8): bytes both ways, each half closed by its side."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from .chunked import Piece
from .deadline import Deadline


class End(Protocol):
    """One side's protocol."""

    def hold(self) -> None:
        """Reads no more for now."""

    def go_on(self) -> None:
        """Reads again."""

    def join(self, tunnel: "Tunnel") -> asyncio.Transport:
        """Hands over: what comes goes into the tunnel from now on."""


class Tunnel:
    """Carries bytes until both sides have ended, one breaks off, or nothing moves for `idle_timeout` seconds."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: End,
        upstream: End,
        idle_timeout: float,
        ended: Callable[[], None],
    ) -> None:
        self._client, self._upstream = client, upstream
        self._idle_timeout = idle_timeout
        self._ended = ended
        self._deadline = Deadline(loop, self.close)
        self._has_ended = {"client": False, "upstream": False}
        self._is_closed = False
        self.from_client_bytes = self.from_upstream_bytes = 0
        self._to_client = client.join(self)
        self._to_upstream = upstream.join(self)
        self._deadline.set(idle_timeout)

    def from_client(self, data: bytes) -> None:
        self.from_client_bytes += len(data)
        self._deadline.set(self._idle_timeout)
        self._to_upstream.write(data)

    def from_upstream(self, data: Piece) -> None:
        self.from_upstream_bytes += len(data)
        self._deadline.set(self._idle_timeout)
        self._to_client.write(data)

    def client_ended(self) -> bool:
        """The client sends no more; whether its own half stays open."""
        return self._end_half("client", self._to_upstream)

    def upstream_ended(self) -> bool:
        """The upstream sends no more; whether its own half stays open."""
        return self._end_half("upstream", self._to_client)

    def client_is_full(self, *, is_full: bool) -> None:
        self._flow(self._upstream, is_full)

    def upstream_is_full(self, *, is_full: bool) -> None:
        self._flow(self._client, is_full)

    def close(self) -> None:
        """Ends both sides; what was written to them still goes out."""
        if self._is_closed:
            return
        self._is_closed = True
        self._deadline.end()
        self._to_client.close()
        self._to_upstream.close()
        self._ended()

    def _end_half(self, side: str, other: asyncio.Transport) -> bool:
        self._has_ended[side] = True
        if all(self._has_ended.values()) or not other.can_write_eof():  # TLS has no halves here
            self.close()
            return False
        other.write_eof()
        return True

    def _flow(self, end: End, is_full: bool) -> None:
        self._deadline.set(self._idle_timeout)
        if is_full:
            end.hold()
        else:
            end.go_on()
