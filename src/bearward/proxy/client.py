"""A client's connection: bytes in, one request at a time out; answers back.

    head ──► admitted ──► body ──► answered ──┐
     ▲                                        │ kept alive
     └────────────────────────────────────────┘

A head is judged when all of it is here; what is pipelined behind a request stays unread until that is answered.
"""

import asyncio
import contextlib
import re
import socket
import struct
from typing import Final, cast

from .. import events
from ..errors import ProblemError
from .answers import problem_answer, with_connection
from .body import RequestBody
from .chunked import CHEAP_BYTES, Piece
from .deadline import Deadline
from .lookout import Lookout
from .messages import HEAD_END, RequestHead, check_partial_head, read_request_head
from .roles import Port, Request
from .tunnel import Tunnel

IDLE: Final = 75.0
"""For how long a connection is kept after its last answer, in seconds."""
MOST_STEPS: Final = 32
"""How many requests of one connection are answered in one step of the loop."""
HOLD_BYTES: Final = 64 << 10
"""How much may wait behind a request before the client is no longer read."""
LINGER: Final = 2.0
"""For how long what a refused client still sends is thrown away, so that it can read the answer (RFC 9112 §9.6)."""
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")


class ClientConnection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        *("_body", "_deadline", "_held", "_is_advancing", "_is_closing", "_is_idle", "_is_paused"),
        *("_lookout", "_loop", "_port", "_request", "_transport", "_tunnel", "_unsent", "_waiting", "is_full"),
    )

    def __init__(self, port: "Port[ClientConnection]", loop: asyncio.AbstractEventLoop) -> None:
        self._port = port
        self._waiting = port.waiting
        self._loop = loop
        self._transport: asyncio.Transport
        self._deadline = Deadline(loop, self._out_of_time)
        self._held = b""
        """What came and has not been looked at."""
        self._request: Request | None = None
        self._body: RequestBody | None = None
        """The body that is still to come."""
        self._tunnel: Tunnel | None = None
        self._lookout = Lookout(loop, self._leave)
        self._is_idle = False
        """Whether nothing has come since the last answer."""
        self._is_paused = False
        self.is_full = False
        self._is_closing = False
        self._is_advancing = False
        self._unsent = 0

    # ── what the transport tells ─────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._port.entered(self):
            if not self._is_closing:
                problem = ProblemError("overloaded", "There are too many connections at the moment.", close=True)
                self._refuse(problem, None)
            return
        self._waiting[self] = None
        self._deadline.set(self._port.limits.header_timeout)
        if self._port.is_draining:  # accepted in the moment in which the port closed
            self.close_if_idle()

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.from_client(data)
        elif not self._is_closing:
            self._held = self._held + data if self._held else data
            if not self._is_advancing:
                self._advance()

    def eof_received(self) -> bool | None:
        if self._tunnel is not None:
            return self._tunnel.client_ended()
        self._leave()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._tunnel is not None:
            self._tunnel.close()
        self._leave()
        self._deadline.end()
        self._lookout.end()
        self._port.left(self)

    def pause_writing(self) -> None:
        self.is_full = True
        if self._tunnel is not None:
            self._tunnel.client_is_full(is_full=True)
        elif self._request is not None:
            self._deadline.set(self._request.idle_timeout)
            self._request.on_client_writable(is_writable=False)

    def resume_writing(self) -> None:
        self.is_full = False
        if self._tunnel is not None:
            self._tunnel.client_is_full(is_full=False)
        elif self._request is not None:
            self._watch_body()
            self._request.on_client_writable(is_writable=True)
        else:
            self.go_on()
            if self._held:
                self._advance()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────

    def _advance(self) -> None:
        """Takes what was held as far as it goes, or as far as is fair to other connections."""
        self._is_advancing = True
        steps = 0
        try:
            while self._held and not self._is_closing:
                steps += 1
                if self._body is not None:
                    self._read_body(self._body)
                elif self._request is not None or self.is_full:
                    if len(self._held) > HOLD_BYTES:
                        self.hold()
                    break
                elif steps > MOST_STEPS:
                    self._let_others_go_first()
                    break
                elif not self._read_head():
                    break
        finally:
            self._is_advancing = False

    def _read_on(self) -> None:
        if not (self._is_paused or self._transport.is_closing()):
            self._transport.resume_reading()

    def _let_others_go_first(self) -> None:
        self.hold()
        self._loop.call_soon(self._take_up)

    def _take_up(self) -> None:
        self.go_on()
        if not self._is_advancing:
            self._advance()

    def _read_head(self) -> bool:
        """Reads one head and begins with its request; whether there was one."""
        held = self._held
        if held.startswith(b"\r\n"):  # RFC 9112 §2.2: left over from an old client's last body
            held = _EMPTY_LINES.sub(b"", held, count=1)
        most = self._port.limits.header_bytes
        end = held.find(HEAD_END) + 4
        try:
            if end > most or end < 4:
                self._held = held
                check_partial_head(held if end < 4 else held[:end], most)
                if self._is_idle:
                    self._is_idle = False
                    self._deadline.set(self._port.limits.header_timeout)
                return False
            self._held = held[end:]
            self._begin(read_request_head(held if end == len(held) else held[:end]))
        except ProblemError as problem:
            self._refuse(problem, None)
        return True

    def _begin(self, head: RequestHead) -> None:
        self._is_idle = False
        self._deadline.clear()
        try:
            request = self._port.admit(head, self)
        except ProblemError as problem:
            self._refuse(problem, head)
            return
        if isinstance(request, bytes):
            self._answer(request, head, keep_alive=True)
            return
        del self._waiting[self]
        self._request = request
        body = request.body
        if body is not None and not body.is_whole:
            self._body = body
            self._watch_body()
            if self._held:
                self._read_body(body)
                if self._request is None:
                    return
        request.start()

    def _read_body(self, body: RequestBody) -> None:
        held, self._held = self._held, b""
        try:
            self._held = body.feed(held)
        except ProblemError as problem:
            self._fail_body(problem)
            return
        if body.is_in_crumbs:
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)
        if body.is_whole:
            self._body = None
            self._deadline.clear()
        elif body.is_waiting:
            self.hold()
        else:
            self._watch_body()

    def _watch_body(self) -> None:
        """While a body is to come, and is wanted, its next bytes have their time."""
        if self._request is None or self.is_full:
            return  # what runs is the time to ask, or to read the answer
        if self._body is not None and not self._is_paused:
            self._deadline.set(self._request.idle_timeout)
        else:
            self._deadline.clear()

    def _fail_body(self, problem: ProblemError) -> None:
        request = self._request
        if request is not None:
            request.on_body_problem(problem)

    # ── what a request does ──────────────────────────────────────────────────────────────────────────────────

    def write(self, *data: Piece) -> None:
        """Writes all of it at once."""
        if len(data) == 1:
            self._transport.write(data[0])
        elif len(data) == 2 and len(data[1]) <= CHEAP_BYTES:
            self._transport.write(b"".join(data))
        else:
            self._transport.writelines(data)

    def hold(self) -> None:
        """Reads no more for now, but still sees whether the client leaves."""
        if not self._is_paused and not self._is_closing:
            self._is_paused = True
            self._transport.pause_reading()
            self._watch_body()
            if self._tunnel is None:
                self._lookout.start(self._transport)

    def go_on(self) -> None:
        """Reads again."""
        if self._is_paused:
            self._is_paused = False
            self._lookout.stop()
            if not self._transport.is_closing():
                self._transport.resume_reading()
            self._watch_body()

    def done(self, *, keep_alive: bool) -> None:
        """The request was answered."""
        is_unread = self._body is not None
        self._request = self._body = None
        if self._is_closing:
            return
        if is_unread or not keep_alive or self._port.is_draining:
            self._close(linger=is_unread or bool(self._held))
            return
        self._is_idle = True
        self._deadline.set(IDLE)
        self._waiting.pop(self, None)
        self._waiting[self] = None
        self.go_on()
        if self._held and not self._is_advancing:
            self._advance()

    def break_off(self, *, is_http10: bool) -> None:
        """Ends an answer that is not whole so that this shows: no last chunk, too few bytes, else a reset."""
        self._request = self._body = None
        if is_http10:  # closing is the end of such an answer; only a reset says that it broke off
            self._reset()
        else:
            self._close(linger=False)

    def join(self, tunnel: Tunnel) -> tuple[asyncio.Transport, bytes]:
        """Hands over after a 101: what comes goes into `tunnel`."""
        self._tunnel = tunnel
        self._request = None
        self._deadline.clear()
        self.go_on()
        held, self._held = self._held, b""
        return self._transport, held

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_being_read(self) -> bool:
        """Whether an answer is still on its way to a client that takes its time."""
        return self._transport.get_write_buffer_size() > 0

    def close_if_idle(self) -> None:
        """Closes a connection that waits for its next request; one that is about to ask is left alone."""
        if self._request is None and self._tunnel is None and not self._held and not self._is_closing:
            self._close(linger=False)

    def abort(self) -> None:
        """Ends whatever is in progress."""
        if self._tunnel is not None:
            self._tunnel.close()
        self._leave()
        self._transport.abort()

    def _refuse(self, problem: ProblemError, head: RequestHead | None) -> None:
        """Answers before there is a request."""
        self._port.observe(events.RequestRejected(problem.code))
        self._answer(problem_answer(problem, head), head, keep_alive=not problem.close)

    def _answer(self, answer: bytes, head: RequestHead | None, *, keep_alive: bool) -> None:
        """Writes a whole answer; whatever body the request has is not read."""
        is_unread = head is None or head.fields.is_chunked or bool(head.fields.length)
        keep_alive = keep_alive and not is_unread and not self._port.is_draining
        self.write(with_connection(answer, head, keep_alive=keep_alive))
        if head is not None and keep_alive:
            self.done(keep_alive=head.keep_alive)
        else:
            self._close(linger=True)

    def _close(self, *, linger: bool) -> None:
        """Closes after all is written; what a lingering client still sends is thrown away for a while."""
        self._is_closing = True
        self._held = b""
        self._unsent = self._transport.get_write_buffer_size()
        self._deadline.set(LINGER if linger and not self._unsent else IDLE)
        self._lookout.stop()
        if not linger:
            self._transport.close()
            return
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError):  # it is gone
                self._transport.write_eof()

    def _leave(self) -> None:
        """The client left."""
        request, self._request, self._body = self._request, None, None
        self._lookout.stop()
        if request is not None:
            request.on_client_left()
            self._transport.abort()
        elif not self._is_closing:
            self._close(linger=False)

    def _reset(self) -> None:
        """Closes at once, and so that nobody takes it for an answer's end."""
        self._is_closing = True
        if not self._transport.is_closing():
            connection: socket.socket = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _out_of_time(self) -> None:
        if self._is_closing:
            unsent = self._transport.get_write_buffer_size()
            if 0 < unsent < self._unsent:  # slow, but it reads
                self._unsent = unsent
                self._deadline.set(IDLE)
            else:
                self._transport.abort()
        elif self._request is not None and self.is_full:
            self._leave()
        elif self._request is not None:
            self._fail_body(ProblemError("request_timeout", "The request's body did not arrive in time.", close=True))
        elif self.is_full:
            self._transport.abort()
        elif self._held:
            problem = ProblemError("request_timeout", "The request's head did not arrive in time.", close=True)
            self._refuse(problem, None)
        else:
            self._close(linger=False)
