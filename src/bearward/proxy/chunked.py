"""The chunked transfer coding, taken apart (RFC 9112 §7.1): strict, bounded, and told exactly where it ends. Pure."""

import re
from typing import Final

LINE_BYTES: Final = 1024
"""The most that the line of a chunk's size may have, its extensions included."""
FREE_EXCESS: Final = 16
"""What a chunk may cost beside twice its data before it counts as excess: tiny chunks are no attack by themselves."""
MOST_EXCESS: Final = 16 << 10

# Fifteen digits: more would not fit into what others count with. An extension has a name (RFC 9112 §7.1.1).
MOST_PIECES: Final = 256
"""How many pieces one connection may bring in one step of the loop before others have their turn."""
CHEAP_BYTES: Final = 16 << 10
"""Up to this, putting pieces together costs less than writing them one by one."""
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t ]*[!#$%&'*+.^_`|~0-9A-Za-z-][\t !-~\x80-\xff]*)?")
_PLAIN_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_SIZE_BEGUN: Final = re.compile(rb"(?:[0-9A-Fa-f]{1,15}(?:;[\t !-~\x80-\xff]*)?)?\r?")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t !-~\x80-\xff]*")
_LINE_END: Final = b"\r\n"


Piece = bytes | memoryview
"""A part of a body, copied only where it must be."""


class MalformedError(Exception):
    """What came is not what HTTP/1.1 says; its text says what is wrong, without a byte of it."""


def chunk(pieces: list[Piece], *, is_last: bool) -> list[Piece]:
    """The pieces as one chunk; the last chunk follows where `is_last`."""
    framed: list[Piece] = [b"%x\r\n" % sum(map(len, pieces)), *pieces, b"\r\n"] if pieces else []
    if is_last:
        framed.append(b"0\r\n\r\n")
    return framed


class ChunkedDecoder:
    """Takes one body apart. Extensions and trailers are checked, bounded and forgotten."""

    def __init__(self, trailer_bytes: int) -> None:
        self.is_done = False
        self.rest = b""
        """What came behind the body, once it is done."""
        self._line = self._size_line
        self._left = 0
        self._held = b""
        self._excess = 0
        self._trailer_bytes = trailer_bytes

    def feed(self, data: bytes) -> list[Piece]:
        """The body's bytes in `data`, in pieces as they stood. Raises `MalformedError`."""
        if self._held:
            data, self._held = self._held + data, b""
        view = memoryview(data)
        found: list[Piece] = []
        at = 0
        while not self.is_done:
            if self._left:
                piece = view[at : at + self._left]
                if not piece:
                    return found
                found.append(piece)
                at += len(piece)
                self._left -= len(piece)
                continue
            if self._line == self._size_line and not self._excess:
                # The usual chunk, all of it here: in one step what else takes three.
                plain = _PLAIN_SIZE.match(data, at)
                if plain is not None and (size := int(plain[1], 16)):
                    start, stop = plain.end(), plain.end() + size
                    if data[stop : stop + 2] == _LINE_END:
                        found.append(view[start:stop])
                        at = stop + 2
                        continue
            end = data.find(_LINE_END, at)
            if end < 0:
                self._hold(data[at:])
                return found
            self._line(data[at:end])
            at = end + 2
        self.rest = data[at:]
        return found

    def _hold(self, part: bytes) -> None:
        """Keeps a line that has no end yet."""
        if len(part) > LINE_BYTES:
            raise MalformedError("a chunk's line is too long")
        if b"\n" in part or b"\r" in part[:-1] or (self._line == self._data_end and part not in {b"", b"\r"}):
            raise MalformedError("a line does not end with CR LF")
        if self._line == self._size_line and _SIZE_BEGUN.fullmatch(part) is None:
            raise MalformedError("a chunk's size is malformed")
        self._held = part

    def _size_line(self, line: bytes) -> None:
        size = _SIZE.fullmatch(line)
        if size is None or len(line) > LINE_BYTES:
            raise MalformedError("a chunk's size is malformed")
        self._left = int(size[1], 16)
        self._excess = max(0, self._excess + len(line) + 2 - FREE_EXCESS - 2 * self._left)
        if self._excess > MOST_EXCESS:
            raise MalformedError("there is more around the chunks than in them")
        self._line = self._data_end if self._left else self._trailer_line

    def _data_end(self, line: bytes) -> None:
        if line:
            raise MalformedError("a chunk is longer than its size")
        self._line = self._size_line

    def _trailer_line(self, line: bytes) -> None:
        self._trailer_bytes -= len(line) + 2
        if not line:
            self.is_done = True
        elif self._trailer_bytes < 0:
            raise MalformedError("the trailers are too long")
        elif _TRAILER.fullmatch(line) is None:
            raise MalformedError("a trailer is malformed")
