"""What joins a client and an upstream after a 101 (RFC 9110 §7.8): bytes both ways, each half closed by its side."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from .chunked import Piece
from .deadline import Deadline

LAST_BYTES: Final = 10.0
"""For how long an end may take to read what was sent to it last, in seconds."""


class End(Protocol):
    """One side's protocol."""

    def hold(self) -> None:
        """Reads no more for now."""

    def go_on(self) -> None:
        """Reads again."""

    def join(self, tunnel: "Tunnel") -> tuple[asyncio.Transport, bytes]:
        """Hands over: what comes goes into the tunnel from now on; and what came already."""


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
        self._deadline = Deadline(loop, self._abort)
        self._has_ended = {"client": False, "upstream": False}
        self._is_closed = False
        self.from_client_bytes = self.from_upstream_bytes = 0
        self._to_client, early = client.join(self)
        self._to_upstream, _ = upstream.join(self)
        self._deadline.set(idle_timeout)
        if early:
            self.from_client(early)

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
        """Ends both sides; what was written to them still goes out, for a while."""
        if self._is_closed:
            return
        self._is_closed = True
        self._to_client.close()
        self._to_upstream.close()
        self._deadline.set(LAST_BYTES)
        self._ended()

    def _abort(self) -> None:
        """Ends both sides at once: nothing moves any more."""
        self._deadline.end()
        self._to_client.abort()
        self._to_upstream.abort()
        if not self._is_closed:
            self._is_closed = True
            self._ended()

    def _end_half(self, side: str, other: asyncio.Transport) -> bool:
        self._has_ended[side] = True
        if all(self._has_ended.values()) or not other.can_write_eof():  # TLS has no halves here
            self.close()
            return False
        try:
            other.write_eof()
        except OSError:  # it is gone
            self.close()
            return False
        return True

    def _flow(self, end: End, is_full: bool) -> None:
        self._deadline.set(self._idle_timeout)
        if is_full:
            end.hold()
        else:
            end.go_on()
