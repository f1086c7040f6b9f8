"""One answer, taken apart: heads by llhttp, bodies by their framing (RFC 9112 §6.3). Pure: bytes in, bytes out."""

from typing import Final

from ..chunked import ChunkedDecoder, MalformedError, Piece
from ..messages import HEAD_END, AnswerHead, read_answer_head

BODILESS_STATUSES: Final = frozenset({204, 304})
MOST_INFORMATIONAL: Final = 100


class AnswerReader:
    """Reads the answer to one request, informational ones before it included."""

    __slots__ = (
        *("_count", "_decoder", "_held", "_is_to_head", "_left", "_most", "has_surplus", "head", "informational"),
        *("is_until_close", "is_whole"),
    )

    def __init__(self, *, is_to_head: bool, header_bytes: int) -> None:
        self._is_to_head = is_to_head
        self._most = header_bytes
        self._held = b""
        self._left = 0
        self._decoder: ChunkedDecoder | None = None
        self._count = 0
        self.is_until_close = False
        """Whether the body ends with the connection; that of a 101 is what the tunnel carries."""
        self.head: AnswerHead | None = None
        """The final answer's."""
        self.informational: list[AnswerHead] = []
        """Heads of status 1xx that were not taken yet."""
        self.is_whole = False
        self.has_surplus = False
        """Whether more came than the answer has: the connection is of no further use."""

    @property
    def has_begun(self) -> bool:
        """Whether any byte of an answer came."""
        return self.head is not None or self._count > 0 or bool(self._held)

    def feed(self, data: bytes) -> list[Piece]:
        """What `data` holds of the body, in pieces none of which is empty. Raises `MalformedError`."""
        if self.head is None:
            data = self._read_heads(data)
            if self.head is None:
                return []
        if self._decoder is not None:
            pieces = self._decoder.feed(data)
            if self._decoder.is_done:
                self.is_whole, self.has_surplus = True, bool(self._decoder.rest)
            return pieces
        if not self.is_until_close:
            size = len(data)
            self.is_whole, self.has_surplus = size >= self._left, size > self._left
            if self.has_surplus:
                data = data[: self._left]
            self._left -= len(data)
        return [data] if data else []

    def _read_heads(self, data: bytes) -> bytes:
        """What follows the final head, once it is there."""
        if self._held:
            data, self._held = self._held + data, b""
        while (end := data.find(HEAD_END)) >= 0:
            if end > self._most:
                raise MalformedError("the head is too large")
            head = read_answer_head(data[: end + 4])
            data = data[end + 4 :]
            if head.status >= 200 or head.status == 101:
                self._begin_body(head)
                return data
            self._count += 1
            if self._count > MOST_INFORMATIONAL:
                raise MalformedError("there is no end of informational answers")
            self.informational.append(head)
        if len(data) > self._most or data.count(b"\n") != data.count(b"\r\n"):
            raise MalformedError("the head is too large, or its lines do not end with CR LF")
        self._held = data
        return b""

    def _begin_body(self, head: AnswerHead) -> None:
        self.head = head
        if head.status == 101:
            self.is_until_close = True
        elif self._is_to_head or head.status in BODILESS_STATUSES:
            return
        elif head.fields.is_chunked:
            self._decoder = ChunkedDecoder(self._most)
        elif head.fields.length is not None:
            self._left = head.fields.length
        else:
            self.is_until_close = True
