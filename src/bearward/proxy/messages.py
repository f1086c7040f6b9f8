"""The heads of requests and answers (RFC 9112), each judged as a whole before anything is done with it. Pure.

llhttp parses; what it lets through and a proxy must not is refused here. A head is taken only when all of it has
come, so its bounds are exact, and a body begins where nobody can have another opinion.
"""

import re
from typing import Any, Final

import httptools

from ..errors import ProblemError
from .chunked import MalformedError

TARGET_BYTES: Final = 16 << 10
MOST_LINES: Final = 1000
HEAD_END: Final = b"\r\n\r\n"

Headers = list[tuple[bytes, bytes, bytes]]
"""Each line's name in lower case, its name and its value, in their order."""

_REQUEST_VERSIONS: Final = frozenset({b" HTTP/1.0", b" HTTP/1.1"})
_ANSWER_VERSIONS: Final = frozenset({b"HTTP/1.0 ", b"HTTP/1.1 "})
_OTHER_VERSION: Final = re.compile(rb"[!-~]+ [!-~]+ HTTP/\d+(?:\.\d+)?")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_JUDGED: Final = frozenset(
    {
        *(b"connection", b"content-length", b"expect", b"host", b"http2-settings", b"origin", b"sec-fetch-site"),
        *(b"transfer-encoding", b"upgrade", b"www-authenticate"),
    }
)
_NONE: Final[tuple[bytes, ...]] = ()


class _Head:
    """What both have: header lines and framing. llhttp's callbacks fill it."""

    __slots__ = ("_judged", "headers", "is_chunked", "keep_alive", "length")

    def __init__(self) -> None:
        self.headers: Headers = []
        self._judged: dict[bytes, list[bytes]] = {}
        self.is_chunked = False
        self.length: int | None = None
        """What Content-Length says."""
        self.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        low = name.lower()
        self.headers.append((low, name, value))
        if low in _JUDGED:
            self._judged.setdefault(low, []).append(value)

    def values(self, name: bytes) -> list[bytes] | tuple[bytes, ...]:
        """The values of the lines of a name that messages are judged by; `name` in lower case."""
        return self._judged.get(name, _NONE)

    def options(self, name: bytes) -> list[bytes]:
        """The members of a list that is written in one or several lines (RFC 9110 §5.6.1), in lower case."""
        return [part for value in self.values(name) for part in (p.strip().lower() for p in value.split(b",")) if part]

    def is_persistent(self, *, is_http10: bool) -> bool:
        """Whether the connection may be used again (RFC 9112 §9.3)."""
        if not self.values(b"connection"):
            return not is_http10
        options = self.options(b"connection")
        return b"close" not in options and (not is_http10 or b"keep-alive" in options)

    def strip(self) -> None:
        """White space behind a value is no part of it; llhttp leaves it there."""
        self.headers = [(low, name, value.rstrip(b" \t")) for low, name, value in self.headers]
        for values in self._judged.values():
            values[:] = [value.rstrip(b" \t") for value in values]

    def frame(self) -> None:
        """Raises `MalformedError` unless there is one length, or chunked, or neither (RFC 9112 §6)."""
        codings, lengths = self.values(b"transfer-encoding"), self.values(b"content-length")
        if codings:
            if len(codings) > 1 or codings[0].lower() != b"chunked" or lengths:
                raise MalformedError("the only transfer coding known is chunked, once and without a length")
            self.is_chunked = True
        elif lengths:
            if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
                raise MalformedError("a length is one number")
            self.length = int(lengths[0])


class RequestHead(_Head):
    """A request's head."""

    __slots__ = ("is_http10", "method", "target")

    def __init__(self) -> None:
        super().__init__()
        self.method = b""
        self.target = b""
        self.is_http10 = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def header(self, name: bytes) -> list[bytes]:
        """The values of the lines of any name; `name` in lower case."""
        return [value for low, _, value in self.headers if low == name]

    @property
    def upgrades(self) -> list[bytes]:
        """The protocols that the client asks for (RFC 9110 §7.8), without HTTP/2, which is not tunnelled."""
        if not self.values(b"upgrade") or self.is_http10 or b"upgrade" not in self.options(b"connection"):
            return []
        return [protocol for protocol in self.options(b"upgrade") if protocol.partition(b"/")[0] not in {b"h2c", b"h2"}]


class AnswerHead(_Head):
    """An answer's head."""

    __slots__ = ("reason", "status")

    def __init__(self) -> None:
        super().__init__()
        self.status = 0
        self.reason = b""

    def on_status(self, reason: bytes) -> None:
        self.reason = reason


def read_request_head(data: bytes) -> RequestHead:
    """The head that `data` is, its empty line included. Raises `ProblemError` (400, 414, 431, 505)."""
    end = data.find(b"\r\n")
    version = data[end - 9 : end]
    if version not in _REQUEST_VERSIONS:
        raise _other_version(data[:end])
    if end > TARGET_BYTES:
        _check_target(data[:end])
    lines = data.count(b"\r\n")
    if lines > MOST_LINES + 2:
        raise ProblemError("headers_too_large", f"A request has at most {MOST_LINES} header lines.", close=True)
    head = RequestHead()
    parser = httptools.HttpRequestParser(head)
    try:
        _parse(data, lines, head, parser)
    except MalformedError:
        raise bad_request() from None
    head.is_http10 = version == b" HTTP/1.0"
    if head.is_http10 and head.is_chunked:
        raise bad_request()
    head.method = parser.get_method()
    head.keep_alive = head.is_persistent(is_http10=head.is_http10)
    return head


def read_answer_head(data: bytes) -> AnswerHead:
    """The head that `data` is, its empty line included. Raises `MalformedError`."""
    lines = data.count(b"\r\n")
    if data[:9] not in _ANSWER_VERSIONS or lines > MOST_LINES + 2:
        raise MalformedError("this is no answer of HTTP/1.x")
    head = AnswerHead()
    parser = httptools.HttpResponseParser(head)
    _parse(data, lines, head, parser)
    head.status = parser.get_status_code()
    head.keep_alive = head.is_persistent(is_http10=data.startswith(b"HTTP/1.0"))
    return head


def _parse(data: bytes, lines: int, head: _Head, parser: Any) -> None:
    """Fills `head`. Raises `MalformedError`."""
    if data.count(b"\n") != lines or data.count(b"\r") != lines:
        raise MalformedError("a line does not end with CR LF")
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # the head is whole all the same; what follows it is read here
    except httptools.HttpParserError:
        raise MalformedError("the head is malformed") from None
    if b" \r\n" in data or b"\t\r\n" in data:
        head.strip()
    head.frame()


def check_partial_head(data: bytes, header_bytes: int) -> None:
    """Refuses the beginning of a request's head as soon as no end can make it right. Raises `ProblemError`."""
    lines = data.count(b"\r\n")
    if data.count(b"\n") != lines or data.count(b"\r") - data.endswith(b"\r") != lines:
        raise bad_request()
    _check_target(data.partition(b"\r\n")[0])
    if len(data) > header_bytes or lines > MOST_LINES + 2:
        raise headers_too_large(header_bytes)


def bad_request() -> ProblemError:
    return ProblemError("bad_request", "The request is not well-formed HTTP/1.1.", close=True)


def headers_too_large(header_bytes: int) -> ProblemError:
    return ProblemError("headers_too_large", f"A request head has at most {header_bytes} bytes.", close=True)


def _check_target(line: bytes) -> None:
    _, _, rest = line.partition(b" ")
    if len(rest.partition(b" ")[0] or line) > TARGET_BYTES:
        raise ProblemError("target_too_long", f"A request target has at most {TARGET_BYTES} bytes.", close=True)


def _other_version(line: bytes) -> ProblemError:
    if len(line) > TARGET_BYTES:
        _check_target(line)
    if _OTHER_VERSION.fullmatch(line):
        return ProblemError("version_not_supported", "HTTP/1.0 and HTTP/1.1 are spoken here.", close=True)
    return bad_request()
