"""One request's way through its route.

    token ─► connection ─► answer ─► relay
      ▲                      │ 401
      └──────── once ────────┘

The way is a chain of steps, each called by what it waited for; where nothing has to be waited for, as for most
requests, there is no task. `_wait` is the only place that makes one.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from .. import events
from ..errors import ProblemError
from .answers import connection_line, problem_answer, with_connection
from .body import RequestBody
from .chunked import Piece, chunk
from .client import ClientConnection
from .headers import answer_head
from .messages import AnswerHead, RequestHead
from .path import RoutePath, Token
from .tunnel import Tunnel
from .upstream.answer import BODILESS_STATUSES
from .upstream.connection import UpstreamConnection

RETRIABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})


class Crossing:
    """One request on its way through one route."""

    __slots__ = (
        *("_asked", "_client", "_code", "_connection", "_framing", "_head", "_held_back", "_is_chunked", "_is_done"),
        *("_is_head_sent", "_is_resent", "_keep_alive", "_keeper", "_origin", "_path", "_principal", "_received"),
        *("_replayed", "_sent", "_started", "_target", "_task", "_token", "_token_seconds", "body", "idle_timeout"),
        *("is_the_last", "is_to_head", "response_timeout", "sends_chunks"),
    )

    def __init__(self, client: ClientConnection, head: RequestHead, path: RoutePath, target: bytes, most: int) -> None:
        """Raises `ProblemError` where the head says that the request cannot cross."""
        route, fields = path.route, head.fields
        self.response_timeout, self.idle_timeout = route.response_timeout, route.idle_timeout
        self.is_to_head = head.method == b"HEAD"
        self.sends_chunks = fields.is_chunked
        self.body: RequestBody | None = None
        if fields.is_chunked:
            self._framing = b"Transfer-Encoding: chunked\r\n"
            self.body = RequestBody(head, max_body=route.max_body, trailer_bytes=most)
        elif fields.length is not None:
            self._framing = b"Content-Length: %d\r\n" % fields.length
            if fields.length:
                self.body = RequestBody(head, max_body=route.max_body, trailer_bytes=most)
        else:
            self._framing = b""
            if fields.options and (upgrades := head.upgrades):
                self._framing = b"Connection: upgrade\r\nUpgrade: %b\r\n" % b", ".join(upgrades)
        self._client = client
        self._head = head
        self._path = path
        self._target = target
        self._principal = path.principal(head)
        self._token: Token | None = None
        self._connection: UpstreamConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._held_back: tuple[AnswerHead, list[Piece], bool] | None = None
        """A 401 that is passed on only if there is no newer token."""
        self._is_resent = self._replayed = False
        self._is_head_sent = self._is_done = False
        self._is_chunked = False
        # A body where others expect none: what follows might be read as a request of its own (RFC 9110 §9.3.1).
        self.is_the_last = self.body is not None and head.method in {b"GET", b"HEAD"}
        self._keep_alive = head.keep_alive and not self.is_the_last
        self._code, self._origin = 499, "proxy"
        self._sent = self._received = 0
        self._started = time.perf_counter()
        self._asked = self._token_seconds = 0.0
        path.entered()

    # ── token and connection ─────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begins; all of the body that came with the head is there."""
        keeper = self._keeper = self._path.tokens.keeper(self._principal)
        token = keeper.current()
        connection = None if token is None else self._path.pool.idle()
        if token is None or connection is None:
            self._wait(self._get_ready, token)
        else:
            self._ask(token, connection)

    async def _get_ready(self, token: Token | None, afresh: bool = False) -> None:
        path = self._path
        if token is None:
            began = time.perf_counter()
            # Asked for again: as long as nobody waits with it, a keeper may make room for that of another principal.
            keeper = self._keeper = path.tokens.keeper(self._principal)
            try:
                token = await keeper.wait()
            finally:
                self._token_seconds += time.perf_counter() - began
        connection = None if afresh else path.pool.idle()
        if connection is None:
            connection = await path.pool.connect(path.route.connect_timeout)
        self._ask(token, connection)

    def _ask(self, token: Token, connection: UpstreamConnection) -> None:
        """Sends the request."""
        body = self.body
        self._token, self._connection = token, connection
        self._asked = time.perf_counter()
        if body is not None and not body.is_whole:
            self._client.go_on()
        head = self._path.rules.head(self._head, self._target, self._framing, token.header_value.encode())
        connection.ask(
            self,
            head,
            b"" if body is None else body.send_to(connection),
            is_last=body is None or body.is_whole,
        )
        if self._client.is_full and self._connection is connection:
            connection.hold()

    # ── what the upstream does ───────────────────────────────────────────────────────────────────────────────

    def on_informational(self, head: AnswerHead) -> None:
        if not self._head.is_http10:
            self._client.write(answer_head(head, b""))

    def on_answer(self, head: AnswerHead, pieces: list[Piece], *, is_whole: bool) -> None:
        if is_whole:
            self._connection = None
        if head.status == 101:
            self._switch(head, pieces)
        elif head.status == 401 and _is_about_the_token(head):
            self._on_unauthorized(head, pieces, is_whole)
        else:
            self._relay(head, pieces, is_whole)

    def on_data(self, pieces: list[Piece], *, is_whole: bool) -> None:
        if is_whole:
            self._connection = None
        if self._held_back is not None:
            head, before, _ = self._held_back
            self._held_back = head, before + pieces, is_whole
            return
        self._received += sum(map(len, pieces))
        if self._is_chunked:
            pieces = chunk(pieces, is_last=is_whole)
        if pieces:
            self._client.write(*pieces)
        if is_whole:
            self._end()

    def on_failure(self, problem: ProblemError) -> None:
        connection, self._connection = self._connection, None
        if self._held_back is not None:
            return  # what is here of the 401 shows
        was_stale = problem.code == "upstream_closed" and connection is not None and connection.was_stale
        may_go_again = self.body is None and self._head.method in RETRIABLE and not self._is_head_sent
        if was_stale and may_go_again and not self._is_resent:
            # Its server closed it just now: RFC 9112 §9.3.1 lets these go out once more.
            self._is_resent = True
            self._wait(self._get_ready, self._token, True)
            return
        self._fail(problem)

    def on_writable(self, *, is_writable: bool) -> None:
        if is_writable:
            self._client.go_on()
        else:
            self._client.hold()

    # ── what the client does ─────────────────────────────────────────────────────────────────────────────────

    def on_client_writable(self, *, is_writable: bool) -> None:
        if self._connection is not None and self._held_back is None:
            if is_writable:
                self._connection.go_on()
            else:
                self._connection.hold()

    def on_body_problem(self, problem: ProblemError) -> None:
        """What came of the body must not look whole to the upstream."""
        self._fail(problem)

    def on_client_left(self) -> None:
        if self._is_head_sent and self._head.is_http10:
            self._client.break_off(is_http10=True)  # it may still read, and must not take this for the end
        self._close()

    # ── a 401 ────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_unauthorized(self, head: AnswerHead, pieces: list[Piece], is_whole: bool) -> None:
        self._path.tally.unauthorized += 1
        body = self.body
        may_replay = self._path.route.on_401 == "replay" and not self._replayed
        if may_replay and (body is None or body.is_repeatable):
            self._held_back = head, pieces, is_whole
            if self._connection is not None:
                self._connection.hold()
            self._wait(self._replace_token)
            return
        if self._token is not None:
            self._keeper.reject(self._token)
        self._relay(head, pieces, is_whole)

    async def _replace_token(self) -> None:
        """Sends the request once more where a newer token comes; else passes the 401 on."""
        began = time.perf_counter()
        newer = await self._keeper.replace(self._token)
        self._token_seconds += time.perf_counter() - began
        # While the refresh ran, the body may have outgrown what is kept of it.
        if newer is not None and (self.body is None or self.body.is_repeatable):
            self._held_back = None
            if self.body is not None:
                self.body.rewind()
            self._leave_connection()
            self._replayed = True
            self._path.tally.replays += 1
            await self._get_ready(newer)
        elif self._held_back is not None:
            (head, pieces, is_whole), self._held_back = self._held_back, None
            connection = self._connection
            self._relay(head, pieces, is_whole)
            if connection is None and not is_whole:
                self._fail(ProblemError("upstream_closed", f"{self._path.pool.host} broke its answer off."))
            if connection is not None and not self._client.is_full:
                connection.go_on()

    # ── relay ────────────────────────────────────────────────────────────────────────────────────────────────

    def _relay(self, head: AnswerHead, pieces: list[Piece], is_whole: bool) -> None:
        """Passes the answer's head on, and what is here of its body; `on_data` does the rest."""
        request = self._head
        self._code, self._origin = head.status, "upstream"
        self._received += sum(map(len, pieces))
        if self.body is not None and not self.body.is_whole:
            self._keep_alive = False  # an answer before the request's end: the rest is of no use to anybody
        framing = b""
        if head.fields.length is not None:
            framing = b"Content-Length: %d\r\n" % head.fields.length
        elif not (self.is_to_head or head.status in BODILESS_STATUSES):
            if request.is_http10:
                self._keep_alive = False
            else:
                self._is_chunked = True
                framing = b"Transfer-Encoding: chunked\r\n"
                pieces = chunk(pieces, is_last=is_whole)
        self._is_head_sent = True
        self._client.write(answer_head(head, framing + connection_line(request, keep_alive=self._keep_alive)), *pieces)
        if is_whole:
            self._end()

    def _switch(self, head: AnswerHead, pieces: list[Piece]) -> None:
        """Opens the tunnel, where the protocol is one that was asked for (RFC 9110 §7.8)."""
        connection, asked = self._connection, self._head.upgrades if self.body is None else []
        protocols = head.fields.members(b"upgrade")
        if connection is None or not asked or not protocols or not set(protocols) <= set(asked):
            self._leave_connection()
            self._fail(ProblemError("upstream_protocol", "The upstream switched to a protocol that was not asked for."))
            return
        self._code, self._origin = 101, "upstream"
        self._is_head_sent = True
        upgrade = b", ".join(head.fields.values(b"upgrade"))
        self._client.write(answer_head(head, b"Connection: upgrade\r\nUpgrade: %b\r\n" % upgrade))
        self._connection = None
        loop = asyncio.get_running_loop()
        tunnel = Tunnel(loop, self._client, connection, self.idle_timeout, lambda: self._on_tunnel_end(tunnel))
        for data in pieces:
            tunnel.from_upstream(data)

    def _on_tunnel_end(self, tunnel: Tunnel) -> None:
        self._received = tunnel.from_upstream_bytes
        self._sent = tunnel.from_client_bytes
        self._close()

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _wait(self, step: Callable[..., Coroutine[Any, Any, None]], *what: Any) -> None:
        """Takes the next step in a task, for it has to wait."""
        self._task = asyncio.create_task(self._guarded(step, *what), name=f"request of {self._path.route.prefix}")

    async def _guarded(self, step: Callable[..., Coroutine[Any, Any, None]], *what: Any) -> None:
        try:
            await step(*what)
        except ProblemError as problem:
            self._fail(problem)
        except Exception as error:
            self._path.observe(events.Crashed("request", events.place_of(error)))
            self._fail(ProblemError("internal_error", "See the log.", close=True))

    def _end(self) -> None:
        """The answer is whole."""
        self._close()
        self._client.done(keep_alive=self._keep_alive)

    def _fail(self, problem: ProblemError) -> None:
        """There is no answer, or no more of it."""
        if self._is_done:
            return
        route = self._path.route.prefix
        if self._is_head_sent:
            self._path.observe(events.UpstreamFailed(route, "truncated", problem.detail))
            self._close()
            self._client.break_off(is_http10=self._head.is_http10)
            return
        if problem.code.startswith("upstream"):
            self._path.observe(events.UpstreamFailed(route, problem.code, problem.detail))
        self._code, self._origin = problem.status, "proxy"
        is_unread = self.body is not None and not self.body.is_whole
        keep_alive = self._keep_alive and not problem.close and not is_unread
        self._close()
        self._client.write(with_connection(problem_answer(problem, self._head), self._head, keep_alive=keep_alive))
        self._client.done(keep_alive=keep_alive)

    def _leave_connection(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _close(self) -> None:
        """Lets go of everything, and counts."""
        if self._is_done:
            return
        self._is_done = True
        self._leave_connection()
        if self.body is not None:
            self.body.stop_sending()
        if self._task is not None:
            self._task.cancel()
        path, head, now = self._path, self._head, time.perf_counter()
        sent = self._sent if self.body is None else self.body.size
        path.left(head.method, self._code, self._origin, sent, self._received, now - self._started)
        if path.access is not None:
            path.access(
                events.RequestDone(
                    route=path.route.prefix,
                    method=head.method.decode(),
                    path=_shown(head.target),
                    code=self._code,
                    origin=self._origin,
                    request_bytes=sent,
                    response_bytes=self._received,
                    seconds=now - self._started,
                    upstream_seconds=now - self._asked if self._asked else 0.0,
                    token_seconds=self._token_seconds,
                    replayed=self._replayed,
                    token=None if self._token is None else self._token.fingerprint,
                )
            )


def _is_about_the_token(head: AnswerHead) -> bool:
    """Whether a 401 may be healed by another token (RFC 6750 §3.1 says when it may not)."""
    return not any(b"insufficient_scope" in challenge for challenge in head.fields.values(b"www-authenticate"))


def _shown(target: bytes) -> str:
    """A target without its query, in visible ASCII."""
    path = target.partition(b"?")[0]
    return "".join(chr(byte) if 0x20 < byte < 0x7F else f"%{byte:02X}" for byte in path)
