"""The heads of requests and answers (RFC 9112), each judged as a whole before anything is done with it. Pure.

llhttp, strict as it comes, says whether a head is well formed; what it lets through and a proxy must not is refused
here. A head is taken only when all of it has come, so its bounds are exact, and a body begins where nobody can have
another opinion.
"""

import re
from typing import Any, Final

import httptools

from ..errors import ProblemError
from .chunked import MalformedError
from .fields import Fields, answer_fields, request_fields

TARGET_BYTES: Final = 16 << 10
MOST_LINES: Final = 1000
HEAD_END: Final = b"\r\n\r\n"

_OTHER_VERSION: Final = re.compile(rb"[!-~]+ [!-~]+ HTTP/\d+(?:\.\d+)?")
_STATUS: Final = re.compile(rb"[1-5][0-9][0-9](?: [\t -~\x80-\xff]*)?")


class _Head:
    """What both have."""

    __slots__ = ("fields", "is_http10", "keep_alive")

    def __init__(self, data: bytes, parser: Any, fields: Fields, *, is_http10: bool) -> None:
        """Raises `MalformedError`."""
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the head is whole all the same; what follows it is read elsewhere
        except httptools.HttpParserError:
            raise MalformedError("the head is malformed") from None
        if is_http10 and fields.is_chunked:
            raise MalformedError("HTTP/1.0 knows no chunks")
        self.fields = fields
        self.is_http10 = is_http10
        self.keep_alive = not is_http10
        """Whether the connection may be used again (RFC 9112 §9.3)."""
        if fields.options:
            self.keep_alive = b"close" not in fields.options and (not is_http10 or b"keep-alive" in fields.options)


class RequestHead(_Head):
    """A request's head."""

    __slots__ = ("method", "target")

    def __init__(self, data: bytes, end: int) -> None:
        """`end` is that of the first line. Raises `MalformedError`."""
        is_http10 = data[end - 1 : end] == b"0"
        super().__init__(
            data, httptools.HttpRequestParser(None), request_fields(data[end + 2 : -2]), is_http10=is_http10
        )
        parts = data[: end - 9].split(b" ")
        if len(parts) != 2 or data[0] in b"\r\n":
            raise MalformedError("a request line has three parts, and nothing before it")
        self.method, self.target = parts

    @property
    def upgrades(self) -> list[bytes]:
        """The protocols that the client asks for (RFC 9110 §7.8), without HTTP/2, which is not tunnelled."""
        if self.is_http10 or b"upgrade" not in self.fields.options:
            return []
        protocols = self.fields.members(b"upgrade")
        return [protocol for protocol in protocols if protocol.partition(b"/")[0] not in {b"h2c", b"h2"}]


class AnswerHead(_Head):
    """An answer's head."""

    __slots__ = ("start", "status")

    def __init__(self, data: bytes, end: int) -> None:
        """`end` is that of the first line. Raises `MalformedError`."""
        super().__init__(
            data, httptools.HttpResponseParser(None), answer_fields(data[end + 2 : -2]), is_http10=data[7:8] == b"0"
        )
        self.start = data[9:end]
        """Status and reason, as they came."""
        if _STATUS.fullmatch(self.start) is None:
            raise MalformedError("there is no such status")
        self.status = int(data[9:12])


def read_request_head(data: bytes) -> RequestHead:
    """The head that `data` is, its empty line included. Raises `ProblemError` (400, 414, 431, 505)."""
    end = data.find(b"\r\n")
    if data[end - 9 : end] not in {b" HTTP/1.1", b" HTTP/1.0"}:
        raise _other_version(data[:end])
    if end > TARGET_BYTES:
        _check_target(data[:end])
    if len(data) > MOST_LINES and data.count(b"\n") > MOST_LINES + 2:
        raise too_many_lines()
    try:
        return RequestHead(data, end)
    except MalformedError:
        raise bad_request() from None


def read_answer_head(data: bytes) -> AnswerHead:
    """The head that `data` is, its empty line included. Raises `MalformedError`."""
    if data[:9] not in {b"HTTP/1.1 ", b"HTTP/1.0 "} or (len(data) > MOST_LINES and data.count(b"\n") > MOST_LINES + 2):
        raise MalformedError("this is no answer of HTTP/1.x")
    return AnswerHead(data, data.find(b"\r\n"))


def check_partial_head(data: bytes, header_bytes: int) -> None:
    """Refuses the beginning of a request's head as soon as no end can make it right. Raises `ProblemError`."""
    count = data.count(b"\r\n")
    if data.count(b"\n") != count or data.count(b"\r") - data.endswith(b"\r") != count:
        raise bad_request()
    _check_target(data.partition(b"\r\n")[0])
    if len(data) > header_bytes:
        raise ProblemError("headers_too_large", f"A request head has at most {header_bytes} bytes.", close=True)
    if count > MOST_LINES + 2:
        raise too_many_lines()


def bad_request() -> ProblemError:
    return ProblemError("bad_request", "The request is not well-formed HTTP/1.1.", close=True)


def too_many_lines() -> ProblemError:
    return ProblemError("headers_too_large", f"A request has at most {MOST_LINES} header lines.", close=True)


def _check_target(start: bytes) -> None:
    _, _, rest = start.partition(b" ")
    if len(rest.partition(b" ")[0] or start) > TARGET_BYTES:
        raise ProblemError("target_too_long", f"A request target has at most {TARGET_BYTES} bytes.", close=True)


def _other_version(start: bytes) -> ProblemError:
    if len(start) > TARGET_BYTES:
        _check_target(start)
    if _OTHER_VERSION.fullmatch(start):
        return ProblemError("version_not_supported", "HTTP/1.0 and HTTP/1.1 are spoken here.", close=True)
    return bad_request()
