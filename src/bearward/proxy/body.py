"""A request's body on its way: passed on as it comes, and kept while it is small, so that it can be sent again."""

from typing import Final, Protocol

from ..errors import ProblemError
from .chunked import MOST_PIECES, ChunkedDecoder, MalformedError
from .messages import RequestHead, bad_request

KEEP_BYTES: Final = 64 << 10


class Sink(Protocol):
    """Where a body goes."""

    def send_body(self, data: bytes, *, is_last: bool) -> None: ...


class RequestBody:
    """The bytes of one request's body, without their framing."""

    __slots__ = (
        *(
            "_decoder",
            "_is_begun",
            "_kept",
            "_left",
            "_most",
            "_sink",
            "is_in_crumbs",
            "is_repeatable",
            "is_whole",
            "size",
        ),
    )

    def __init__(self, head: RequestHead, *, max_body: int | None, trailer_bytes: int) -> None:
        """Raises `ProblemError` (413) where its length tells that it is too large."""
        fields = head.fields
        self._decoder = ChunkedDecoder(trailer_bytes) if fields.is_chunked else None
        self._left = fields.length or 0
        self._most = max_body
        self._kept = b""
        self._sink: Sink | None = None
        self._is_begun = False
        self.is_repeatable = True
        """Whether everything that came so far is still at hand."""
        self.is_whole = not (fields.is_chunked or fields.length)
        self.is_in_crumbs = False
        """Whether what came last was in chunks so small that they cost much more than their bytes."""
        self.size = 0
        """How many bytes came from the client."""
        self._check(self._left)

    def feed(self, data: bytes) -> bytes:
        """Takes the body's bytes in `data` and returns what follows it. Raises `ProblemError` (400, 413)."""
        rest = b""
        if self._decoder is not None:
            try:
                pieces = self._decoder.feed(data)
            except MalformedError:
                raise bad_request() from None
            self.is_in_crumbs = len(pieces) > MOST_PIECES
            data = b"".join(pieces)
            if self._decoder.is_done:
                self.is_whole, rest = True, self._decoder.rest
        elif len(data) >= self._left:
            self.is_whole = True
            data, rest = (data, b"") if len(data) == self._left else (data[: self._left], data[self._left :])
        else:
            self._left -= len(data)
        self.size += len(data)
        self._check(self.size)
        self._pass(data)
        return rest

    def send_to(self, sink: Sink) -> bytes:
        """Sends the body to `sink` from now on; returns what came before, which the caller sends."""
        self._sink = sink
        self._is_begun = True
        kept = self._kept
        self._forget_too_much()
        return kept

    def rewind(self) -> None:
        """Keeps everything again, from the first byte on, until it is sent anew; it must be repeatable."""
        self._sink = None
        self._is_begun = False

    def stop_sending(self) -> None:
        """Throws away what comes from now on, beyond what is kept."""
        self._sink = None

    @property
    def is_waiting(self) -> bool:
        """Whether more of it is here than is kept, and nobody took any of it yet."""
        return not self._is_begun and len(self._kept) > KEEP_BYTES

    def _pass(self, data: bytes) -> None:
        if self.is_repeatable:
            self._kept = self._kept + data if self._kept else data
            if self._is_begun:
                self._forget_too_much()
        if self._sink is not None and (data or self.is_whole):
            self._sink.send_body(data, is_last=self.is_whole)

    def _forget_too_much(self) -> None:
        if len(self._kept) > KEEP_BYTES:
            self._kept = b""
            self.is_repeatable = False

    def _check(self, size: int) -> None:
        if self._most is not None and size > self._most:
            raise ProblemError("body_too_large", f"This route takes bodies of at most {self._most} bytes.", close=True)
