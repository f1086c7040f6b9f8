"""A reader of requests that forgives nothing: whatever two readers of RFC 9112 might take differently is a fault."""

import re
from dataclasses import dataclass

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%b) ([!-~\x80-\xff]+) HTTP/1\.([01])" % _TOKEN)
_SPACED_REQUEST_LINE = re.compile(_REQUEST_LINE.pattern.replace(b" ", b" +"))
_FIELD = re.compile(rb"(%b):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*" % _TOKEN)
_CHUNK_SIZE = re.compile(rb"(0*[0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_LENGTH = re.compile(rb"0*[0-9]{1,18}")  # what a signed number of 64 bits holds


@dataclass(frozen=True)
class Request:
    """One whole request. `raw` is all of it."""

    raw: bytes
    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    """Names in lower case, and values."""
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """The values of every line of one name, which is given in lower case."""
        return [value for field, value in self.fields if field == name]


@dataclass(frozen=True)
class Reading:
    """What some bytes are: whole requests, then perhaps one that is not whole, or a fault."""

    whole: tuple[Request, ...]
    rest: bytes
    fault: str | None
    head_is_whole: bool
    """Of the request that `rest` begins."""

    @property
    def begun(self) -> int:
        """Requests whose head is whole."""
        return len(self.whole) + self.head_is_whole

    @property
    def is_finished(self) -> bool:
        """Whether these are whole requests and nothing else."""
        return self.fault is None and not self.rest


def read(data: bytes, *, as_server: bool = False) -> Reading:
    """Read to the end or the first fault.

    A server may let blank lines stand before a request, and more than one space within its first (RFC 9112 §2.2, §3).
    """
    whole: list[Request] = []
    while True:
        while as_server and data.startswith(b"\r\n"):
            data = data[2:]
        if not data:
            return Reading(tuple(whole), data, None, head_is_whole=False)
        cursor = _Cursor(data, _SPACED_REQUEST_LINE if as_server else _REQUEST_LINE)
        try:
            request = cursor.request()
        except _MoreNeededError:
            return Reading(tuple(whole), data, None, cursor.head_is_whole)
        except _MalformedError as fault:
            return Reading(tuple(whole), data, str(fault), cursor.head_is_whole)
        whole.append(request)
        data = data[len(request.raw) :]


class _MoreNeededError(Exception):
    pass


class _MalformedError(Exception):
    pass


class _Cursor:
    """A place in the bytes of one request."""

    def __init__(self, data: bytes, request_line: re.Pattern[bytes]) -> None:
        self._data = data
        self._request_line = request_line
        self._place = 0
        self.head_is_whole = False

    def request(self) -> Request:
        line = self._line()
        parts = self._request_line.fullmatch(line)
        if parts is None:
            raise _MalformedError(f"request line {line!r}")
        method, target, minor = parts.groups()
        fields = self._fields()
        length = _body_length(fields, http_1_0=minor == b"0")
        self.head_is_whole = True
        body = self._chunks() if length is None else self._bytes(length)
        return Request(self._data[: self._place], method, target, fields, body)

    def _line(self) -> bytes:
        end = self._data.find(b"\r\n", self._place)
        line = self._data[self._place :] if end < 0 else self._data[self._place : end]
        if re.search(rb"[\n\0]|\r(?!\Z)" if end < 0 else rb"[\r\n\0]", line):
            raise _MalformedError(f"a bare CR, LF or NUL in {line!r}")
        if end < 0:
            raise _MoreNeededError
        self._place = end + 2
        return line

    def _fields(self) -> tuple[tuple[bytes, bytes], ...]:
        fields = []
        while line := self._line():
            parts = _FIELD.fullmatch(line)
            if parts is None:
                raise _MalformedError(f"field line {line!r}")
            fields.append((parts[1].lower(), parts[2]))
        return tuple(fields)

    def _bytes(self, count: int) -> bytes:
        self._place += count
        if self._place > len(self._data):
            raise _MoreNeededError
        return self._data[self._place - count : self._place]

    def _chunks(self) -> bytes:
        body = b""
        while True:
            line = self._line()
            size = _CHUNK_SIZE.fullmatch(line)
            if size is None:
                raise _MalformedError(f"chunk size {line!r}")
            if int(size[1], 16) == 0:
                self._fields()
                return body
            body += self._bytes(int(size[1], 16))
            if self._bytes(2) != b"\r\n":
                raise _MalformedError("a chunk that does not end where its size says")


def _body_length(fields: tuple[tuple[bytes, bytes], ...], *, http_1_0: bool) -> int | None:
    """None: chunked."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    hosts = [value for name, value in fields if name == b"host"]
    if len(lengths) + len(codings) > 1:
        raise _MalformedError(f"framed more than once: {lengths + codings}")
    if len(hosts) > 1 or (not hosts and not http_1_0):
        raise _MalformedError(f"{len(hosts)} Host lines")
    if codings:
        if codings != [b"chunked"] or http_1_0:
            raise _MalformedError(f"coding {codings}")
        return None
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise _MalformedError(f"length {lengths}")
    return int(lengths[0]) if lengths else 0
