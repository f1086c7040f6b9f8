"""One connection to an upstream, and the exchange on it: one request out, one answer in, then perhaps the next.

What comes is handed on in the step of the loop in which it came: there is no task and no queue between an upstream
and its client. Who cannot take more says so, and the transport's reading pauses.
"""

import asyncio
import ssl
from typing import Any, Final, Protocol, cast

from ...errors import ProblemError, os_reason
from ..chunked import CHEAP_BYTES, MOST_PIECES, MalformedError, Piece, chunk
from ..deadline import Deadline
from ..messages import AnswerHead
from ..tunnel import Tunnel
from .answer import AnswerReader

IDLE: Final = 30.0
"""Seconds for which an unused connection is kept: less than servers usually do, so that they seldom close first."""


class Asker(Protocol):
    """Who sent a request, and hears of its answer. Times are in seconds."""

    is_to_head: bool
    """Whether the answer has no body, whatever its head says."""
    sends_chunks: bool
    is_the_last: bool
    """Whether the connection is not to be used again."""
    response_timeout: float
    idle_timeout: float

    def on_informational(self, head: AnswerHead) -> None: ...

    def on_answer(self, head: AnswerHead, pieces: list[Piece], *, is_whole: bool) -> None:
        """The final head, and what came of the body with it."""

    def on_data(self, pieces: list[Piece], *, is_whole: bool) -> None:
        """More of the body."""

    def on_failure(self, problem: ProblemError) -> None:
        """There is no answer, or no more of it."""

    def on_writable(self, *, is_writable: bool) -> None:
        """Whether the request's body can go on."""


class Owner(Protocol):
    """The pool that a connection belongs to."""

    host: str
    header_bytes: int

    def freed(self, connection: "UpstreamConnection") -> None:
        """Its exchange came to a good end."""

    def lost(self, connection: "UpstreamConnection") -> None:
        """It is closed."""


class UpstreamConnection(asyncio.Protocol):
    """A connection. It belongs to its pool while it is idle, and to one asker during an exchange."""

    __slots__ = (
        *("_asker", "_deadline", "_is_full", "_is_head_told", "_is_paused", "_is_sent", "_loop", "_owner"),
        *("_reader", "_transport", "_tunnel", "is_closed", "is_reused", "opened_at"),
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._deadline = Deadline(loop, self._out_of_time)
        self.opened_at = loop.time()
        self._transport: asyncio.Transport
        self._asker: Asker | None = None
        self._reader: AnswerReader | None = None
        self._tunnel: Tunnel | None = None
        self._is_sent = True
        self._is_full = False
        self._is_head_told = False
        self._is_paused = False
        self.is_reused = False
        self.is_closed = False

    # ── what its asker does ──────────────────────────────────────────────────────────────────────────────────

    def ask(self, asker: Asker, head: bytes, body: bytes, *, is_last: bool) -> None:
        """Sends a request: its head, and what is here of its body; unless that is the last, `send_body` follows."""
        if self.is_closed:
            asker.on_failure(ProblemError("upstream_closed", f"{self._owner.host} closed the connection."))
            return
        self._asker = asker
        self._reader = AnswerReader(is_to_head=asker.is_to_head, header_bytes=self._owner.header_bytes)
        self._is_head_told = False
        self._is_sent = False
        if asker.sends_chunks:
            self._transport.writelines([head, *chunk([body] if body else [], is_last=is_last)])
        elif len(body) <= CHEAP_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines([head, body])
        if is_last:
            self._is_sent = True
            self._deadline.set(asker.response_timeout)
        else:
            self._deadline.clear()

    def send_body(self, data: bytes, *, is_last: bool) -> None:
        """Sends more of the request's body."""
        asker = self._asker
        if self.is_closed or asker is None:
            return
        if asker.sends_chunks:
            self._transport.writelines(chunk([data] if data else [], is_last=is_last))
        elif data:
            self._transport.write(data)
        if self._is_head_told and not self._is_paused and not self._is_full:
            self._deadline.set(asker.idle_timeout)
        if is_last:
            self._is_sent = True
            if not self._is_head_told:
                self._deadline.set(asker.response_timeout)

    def hold(self) -> None:
        """Reads no more for now."""
        if not self._is_paused and not self.is_closed:
            self._is_paused = True
            self._transport.pause_reading()
            if self._is_head_told:
                self._deadline.clear()  # whose turn it is now has a time limit of its own

    def go_on(self) -> None:
        """Reads again."""
        if self._is_paused and not self.is_closed:
            self._is_paused = False
            self._transport.resume_reading()
            if self._is_head_told and self._asker is not None:
                self._deadline.set(self._asker.idle_timeout)

    def _let_others_go_first(self) -> None:
        if not self._is_paused:
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._is_paused and not self.is_closed:
            self._transport.resume_reading()

    def join(self, tunnel: Tunnel) -> tuple[asyncio.Transport, bytes]:
        """After a 101: what comes goes into `tunnel`."""
        self._deadline.clear()
        self._tunnel = tunnel
        self._asker = None
        return self._transport, b""

    def abort(self) -> None:
        """Ends the exchange and the connection at once; its asker hears nothing more."""
        self._asker = None
        self._close()

    def _close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._deadline.end()
            self._transport.abort()  # what is still to be written would wait for an upstream that does not read
            self._owner.lost(self)

    # ── what the transport tells ─────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.from_upstream(data)
            return
        reader, asker = self._reader, self._asker
        if reader is None or asker is None:
            self._close()  # bytes that nobody asked for must not answer the next request
            return
        try:
            pieces = reader.feed(data)
        except MalformedError:
            self._tell_informational(reader, asker)
            self._fail("upstream_protocol", f"The answer of {self._owner.host} is malformed.")
            return
        if len(pieces) > MOST_PIECES:
            self._let_others_go_first()
        if reader.informational:
            self._tell_informational(reader, asker)
        if reader.head is None or self._asker is not asker:
            return
        self._hand_on(reader, asker, pieces)

    def _hand_on(self, reader: AnswerReader, asker: Asker, pieces: list[Piece]) -> None:
        head = cast(AnswerHead, reader.head)
        if reader.is_whole:
            self._end_exchange(reader)
        elif not self._is_paused:
            self._deadline.set(asker.idle_timeout)
        if self._is_head_told:
            if pieces or reader.is_whole:
                asker.on_data(pieces, is_whole=reader.is_whole)
        else:
            self._is_head_told = True
            asker.on_answer(head, pieces, is_whole=reader.is_whole)

    def eof_received(self) -> bool | None:
        if self._tunnel is not None:
            return self._tunnel.upstream_ended()
        reader, asker = self._reader, self._asker
        if reader is not None and asker is not None and reader.is_until_close and self._is_clean_end():
            reader.is_whole = True
            self.abort()
            asker.on_data([], is_whole=True)
        else:
            self._broke_off()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._tunnel is not None:
            self._tunnel.close()
        elif isinstance(exc, ssl.SSLError):  # in TLS 1.3 a refusal comes only after the handshake
            self._fail("upstream_tls", f"{self._owner.host}: {os_reason(exc)}.")
        elif not self.is_closed:
            self._broke_off()
        self._close()

    def pause_writing(self) -> None:
        self._is_full = True
        if self._tunnel is not None:
            self._tunnel.upstream_is_full(is_full=True)
        elif self._asker is not None:
            self._deadline.set(self._asker.idle_timeout)
            self._asker.on_writable(is_writable=False)

    def resume_writing(self) -> None:
        self._is_full = False
        if self._tunnel is not None:
            self._tunnel.upstream_is_full(is_full=False)
        elif self._asker is not None:
            if self._is_sent and not self._is_head_told:
                self._deadline.set(self._asker.response_timeout)
            elif not self._is_head_told:
                self._deadline.clear()
            elif not self._is_paused:
                self._deadline.set(self._asker.idle_timeout)
            self._asker.on_writable(is_writable=True)

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _end_exchange(self, reader: AnswerReader) -> None:
        """The answer is whole. The connection is free again, if nothing speaks against it."""
        head, asker = reader.head, self._asker
        self._asker = self._reader = None
        is_good = head is not None and head.keep_alive and not reader.has_surplus
        if is_good and self._is_sent and not self._is_paused and asker is not None and not asker.is_the_last:
            self.is_reused = True
            self._deadline.set(IDLE)
            self._owner.freed(self)
        else:
            self._close()

    def _tell_informational(self, reader: AnswerReader, asker: Asker) -> None:
        heads, reader.informational = reader.informational, []
        for head in heads:
            asker.on_informational(head)

    def _broke_off(self) -> None:
        self._fail("upstream_closed", f"{self._owner.host} closed the connection without a whole answer.")

    def _out_of_time(self) -> None:
        if self._asker is None:
            self._close()
        elif self._is_full:
            self._fail("upstream_timeout", f"{self._owner.host} stopped reading the request's body.")
        else:
            self._fail("upstream_timeout", f"{self._owner.host} did not answer in time, or not on.")

    def _fail(self, code: str, detail: str) -> None:
        asker = self._asker
        self.abort()
        if asker is not None:
            asker.on_failure(ProblemError(code, detail))

    @property
    def was_stale(self) -> bool:
        """Of one that has ended: whether it was kept from a request before, and no byte of another answer came."""
        return self.is_reused and (self._reader is None or not self._reader.has_begun)

    def _is_clean_end(self) -> bool:
        """Over TLS, whether the other side said that this is the end (close_notify, RFC 8446 §6.1)."""
        tls: Any = self._transport.get_extra_info("ssl_object")
        if tls is None:
            return True
        try:
            return not tls.read(1)
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLError:
            return False
