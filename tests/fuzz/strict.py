"""A reader of HTTP/1.1 that takes what RFC 9112 calls well formed, and nothing else. Pure, on bytes as they stand."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%b) ([!-~\x80-\xff]+) HTTP/(1\.[01])" % _TOKEN)
_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9]\d\d)(?: ([\t -~\x80-\xff]*))?")
_FIELD = re.compile(rb"(%b):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*" % _TOKEN)
# An extension is dropped on the way, so that only its bytes matter, not its grammar (RFC 9112 §7.1.1).
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t -~\x80-\xff]*)?")

Framing = Literal["none", "length", "chunked", "close"]
Ending = Literal["open", "closed", "reset"]
"""What became of the bytes' connection after them."""


class MalformedError(Exception):
    """These bytes are no HTTP, whatever may follow."""


class IncompleteError(Exception):
    """These bytes may still become a head."""


@dataclass
class Message:
    """A request or an answer: `start` is the first line's parts, `body` as much of the content as there is."""

    start: tuple[bytes, bytes, bytes]
    fields: list[tuple[bytes, bytes]]
    framing: Framing = "none"
    body: bytes = b""
    is_whole: bool = True
    is_faulty: bool = False
    """Whether the body's framing breaks off in what is none."""
    end: int = 0
    """Where the next message begins."""

    def values(self, name: bytes) -> list[bytes]:
        """The values of every line of one name, in lower case here and in any case there."""
        return [value for field, value in self.fields if field.lower() == name]

    def options(self, name: bytes) -> list[bytes]:
        """The members of a field that is a list of words, in lower case; empty ones are none (RFC 9110 §5.6.1.2)."""
        words = (word.strip(b" \t").lower() for value in self.values(name) for word in value.split(b","))
        return [word for word in words if word]

    @property
    def status(self) -> int:
        return int(self.start[1])

    @property
    def is_last(self) -> bool:
        """Whether nothing after this request belongs to its connection (RFC 9112 §9.3)."""
        options = self.options(b"connection")
        return b"close" in options or (self.start[2] == b"1.0" and b"keep-alive" not in options)


def read_requests(data: bytes) -> tuple[list[Message], bool]:
    """The requests that `data` begins with, the last one perhaps not whole; and whether a fault ends them."""
    requests: list[Message] = []
    at = 0
    try:
        while True:
            while data[at : at + 1] in {b"\r", b"\n"}:  # §2.2: empty lines before a request are nothing
                at += 1
            lines, at = _lines(data, at)
            request = _request(lines)
            request.end = at
            requests.append(request)
            _read_body(request, data, "open")
            if not request.is_whole:
                return requests, False
            at = request.end
    except IncompleteError:
        return requests, False
    except MalformedError:
        return requests, True


def to_the_last(requests: list[Message]) -> list[Message]:
    """Without those behind one that is the last of its connection."""
    for number, request in enumerate(requests, 1):
        if request.is_last:
            return requests[:number]
    return requests


def read_answers(
    data: bytes, methods: Sequence[bytes | None], ending: Ending
) -> tuple[list[tuple[list[Message], Message]], bytes]:
    """The final answers to requests of these methods, each behind its interim ones; and the bytes after them.

    A method of None is that of a request which could not be read. Raises `MalformedError`.
    """
    answers = []
    at = 0
    for method in methods:
        try:
            interim, answer = read_answer(data, at, method, ending, to_us=True)
        except IncompleteError:
            return answers, data[at:]
        answers.append((interim, answer))
        at = answer.end
        if not answer.is_whole:
            break
    return answers, data[at:]


def read_answer(
    data: bytes, at: int, method: bytes | None, ending: Ending, *, to_us: bool = False
) -> tuple[list[Message], Message]:
    """One final answer and the interim ones before it. Raises `MalformedError` and `IncompleteError`.

    `to_us`: it is bearward's, which may have read another request than was sent, and closes.
    """
    interim: list[Message] = []
    while True:
        lines, at = _lines(data, at)
        answer = _answer(lines, method)
        answer.end = at
        if answer.status >= 200:
            break
        interim.append(answer)
    if to_us and answer.values(b"bearward-error") and b"close" in answer.options(b"connection"):
        answer.framing = "length" if data[at : at + 1] == b"{" else "none"
    try:
        _read_body(answer, data, ending)
    except MalformedError:
        answer.is_faulty = True
        answer.end = len(data)
    return interim, answer


def _lines(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The lines of the head that begins at `at`, and where it ends."""
    end = data.find(b"\r\n\r\n", at)
    head = data[at : len(data) if end < 0 else end]
    for line in head.split(b"\r\n"):
        if b"\n" in line or b"\r" in line.removesuffix(b"\r") or b"\0" in line:
            raise MalformedError("a bare CR, LF or NUL")
    if end < 0:
        raise IncompleteError
    return head.split(b"\r\n"), end + 4


def _fields(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    found = [_FIELD.fullmatch(line) for line in lines]
    if None in found:
        raise MalformedError("no field line")
    return [(match[1], match[2]) for match in found if match]


def _request(lines: list[bytes]) -> Message:
    first = _REQUEST_LINE.fullmatch(lines[0])
    if first is None:
        raise MalformedError("no request line")
    request = Message((first[1], first[2], first[3]), _fields(lines[1:]))
    if len(request.values(b"host")) != 1:
        raise MalformedError("a request has one Host")
    request.framing = _framing(request)
    if request.framing == "chunked" and first[3] == b"1.0":
        raise MalformedError("HTTP/1.0 knows no codings")
    return request


def _answer(lines: list[bytes], method: bytes | None) -> Message:
    first = _STATUS_LINE.fullmatch(lines[0])
    if first is None:
        raise MalformedError("no status line")
    answer = Message((first[1], first[2], first[3] or b""), _fields(lines[1:]))
    if answer.status == 101 or answer.status > 599:
        raise MalformedError("a status that was not asked for")
    if answer.status < 200 or answer.status in {204, 304} or method == b"HEAD":
        return answer
    framing = _framing(answer)
    answer.framing = "close" if framing == "none" else framing
    return answer


def _framing(message: Message) -> Framing:
    lengths, codings = message.values(b"content-length"), message.options(b"transfer-encoding")
    if message.values(b"transfer-encoding"):
        if codings != [b"chunked"] or lengths:
            raise MalformedError("a length with a coding, or another coding than chunked")
        return "chunked"
    if not lengths:
        return "none"
    if len(set(lengths)) > 1 or not re.fullmatch(rb"\d{1,18}", lengths[0]):
        raise MalformedError("no length, or two")
    return "length"


def _read_body(message: Message, data: bytes, ending: Ending) -> None:
    """Fills in what there is of the body that begins at `message.end`. Raises `MalformedError`."""
    at = message.end
    message.is_whole = message.framing == "none"
    if message.framing == "length":
        message.end = at + int(message.values(b"content-length")[0])
        message.body = data[at : message.end]
        message.is_whole = message.end <= len(data)
    elif message.framing == "close":
        message.body, message.end = data[at:], len(data)
        message.is_whole = ending == "closed"
    elif message.framing == "chunked":
        _read_chunks(message, data, at)


def _read_chunks(message: Message, data: bytes, at: int) -> None:
    while True:
        end = data.find(b"\r\n", at)
        line = data[at : len(data) if end < 0 else end]
        found = _CHUNK_LINE.fullmatch(line)
        if end < 0:
            # An unfinished line: whether it will be a chunk's is not asked.
            return
        if found is None:
            raise MalformedError("no chunk size")
        size = int(found[1], 16)
        at = end + 2
        if not size:
            break
        message.body += data[at : at + size]
        if len(data) < at + size + 2:
            if len(data) > at + size and data[at + size : at + size + 1] != b"\r":
                raise MalformedError("a chunk that does not end")
            return
        at += size
        if data[at : at + 2] != b"\r\n":
            raise MalformedError("a chunk that does not end")
        at += 2
    if data[at : at + 2] != b"\r\n":
        try:
            lines, at = _lines(data, at)
        except IncompleteError:
            return
        _fields(lines)
        message.end = at
    else:
        message.end = at + 2
    message.is_whole = True
