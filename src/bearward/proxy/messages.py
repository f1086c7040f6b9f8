"""The heads of requests and answers (RFC 9112), each judged as a whole before anything is done with it. Pure.

llhttp, strict as it comes, says whether a head is well formed; what it lets through and a proxy must not is refused
here. A head is taken only when all of it has come, so its bounds are exact, and a body begins where nobody can have
another opinion. Lines that cross are kept as they came.
"""

import re
from typing import Any, Final

import httptools

from ..errors import ProblemError
from .chunked import MalformedError

TARGET_BYTES: Final = 16 << 10
MOST_LINES: Final = 1000
HEAD_END: Final = b"\r\n\r\n"

HOP_BY_HOP: Final = frozenset(
    {
        *(b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization"),
    }
)
"""What belongs to one connection only (RFC 9110 §7.6.1)."""
_REQUEST_DROPS: Final = HOP_BY_HOP | {b"host", b"content-length", b"authorization", b"forwarded", b"http2-settings"}
_ANSWER_DROPS: Final = HOP_BY_HOP | {b"content-length", b"bearward-error"}
_JUDGED: Final = frozenset(
    {
        *(b"connection", b"content-length", b"expect", b"host", b"origin", b"sec-fetch-site", b"transfer-encoding"),
        *(b"upgrade", b"www-authenticate"),
    }
)
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OTHER_VERSION: Final = re.compile(rb"[!-~]+ [!-~]+ HTTP/\d+(?:\.\d+)?")
_STATUS: Final = re.compile(rb"[1-5][0-9][0-9](?: [\t -~\x80-\xff]*)?")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_MOST_NAMES: Final = 2048
_NOTHING: Final[frozenset[bytes]] = frozenset()
_NONE: Final[tuple[bytes, ...]] = ()


def plain(name: bytes) -> bytes:
    """A name as gateways to CGI and its heirs read it: they take an underscore for a hyphen."""
    return name.replace(b"_", b"-")


class _Lines(dict[bytes, tuple[bytes, bool, bool] | None]):
    """What is special about a line, by its name as it is spelled: None for one that just crosses.

    Else the name in lower case, whether the line crosses, and whether messages are judged by it.
    """

    def __init__(self, drops: frozenset[bytes], *drop_prefixes: bytes) -> None:
        super().__init__()
        self._drops = drops
        self._drop_prefixes = drop_prefixes

    def __missing__(self, name: bytes) -> tuple[bytes, bool, bool] | None:
        if _NAME.fullmatch(name) is None:
            raise MalformedError("a header's name is malformed")
        low = name.lower()
        read_as = plain(low)
        if re.sub(rb"-+", b"-", read_as) in _FRAMING - {low}:
            raise MalformedError("a header looks like one that frames the body")
        crosses = not (read_as in self._drops or read_as.startswith(self._drop_prefixes))
        special = None if crosses and low not in _JUDGED else (low, crosses, low in _JUDGED)
        if len(self) < _MOST_NAMES:
            self[name] = special
        return special


_REQUEST_LINES: Final = _Lines(_REQUEST_DROPS, b"x-forwarded-")
_ANSWER_LINES: Final = _Lines(_ANSWER_DROPS)


class _Head:
    """What both have: lines, and framing."""

    __slots__ = ("_judged", "is_chunked", "is_http10", "keep_alive", "length", "lines", "options")

    def __init__(self, data: bytes, parser: Any, specials: _Lines, *, is_http10: bool) -> None:
        """Raises `MalformedError`."""
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the head is whole all the same; what follows it is read elsewhere
        except httptools.HttpParserError:
            raise MalformedError("the head is malformed") from None
        lines = data.split(b"\r\n")
        count = len(lines) - 1
        if count > MOST_LINES + 2 or data.count(b"\n") != count or data.count(b"\r") != count:
            raise MalformedError("there are too many lines, or one does not end with CR LF")
        self.lines: list[bytes] = []
        """The lines that cross if nobody has anything against it."""
        judged: dict[bytes, list[bytes]] = {}
        for line in lines[1:-2]:
            special = specials[line.partition(b":")[0]]
            if special is None:
                self.lines.append(line)
                continue
            low, crosses, is_judged = special
            if crosses:
                self.lines.append(line)
            if is_judged:
                judged.setdefault(low, []).append(line[len(low) + 1 :].strip(b" \t"))
        self._judged = judged
        self.is_http10 = is_http10
        self.options = _NOTHING
        """What the Connection lines name, in lower case."""
        self.keep_alive = not is_http10
        """Whether the connection may be used again (RFC 9112 §9.3)."""
        if b"connection" in judged:
            self.options = options = frozenset(self.members(b"connection"))
            self.keep_alive = b"close" not in options and (not is_http10 or b"keep-alive" in options)
        self.is_chunked = False
        self.length: int | None = None
        """What Content-Length says."""
        self._frame()

    def values(self, name: bytes) -> list[bytes] | tuple[bytes, ...]:
        """The values of the lines of a name that messages are judged by; `name` in lower case."""
        return self._judged.get(name, _NONE)

    def members(self, name: bytes) -> list[bytes]:
        """The members of a list that is written in one or several lines (RFC 9110 §5.6.1), in lower case."""
        if name not in self._judged:
            return []
        parts = b",".join(self.values(name)).lower().split(b",")
        return [member for part in parts if (member := part.strip(b" \t"))]

    def crossing(self, drops: frozenset[bytes]) -> list[bytes]:
        """The lines that cross, without those of `drops` and those that Connection names (RFC 9110 §7.6.1)."""
        if self.options:
            drops |= self.options - HOP_BY_HOP
        if not drops:
            return self.lines
        return [line for line in self.lines if plain(line.partition(b":")[0].lower()) not in drops]

    def _frame(self) -> None:
        """There is one length, or chunked, or neither (RFC 9112 §6)."""
        codings, lengths = self._judged.get(b"transfer-encoding"), self._judged.get(b"content-length")
        if codings is not None:
            if len(codings) > 1 or codings[0].lower() != b"chunked" or lengths is not None:
                raise MalformedError("the only transfer coding known is chunked, once and without a length")
            if self.is_http10:
                raise MalformedError("HTTP/1.0 knows no chunks")
            self.is_chunked = True
        elif lengths is not None:
            if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
                raise MalformedError("a length is one number")
            self.length = int(lengths[0])


class RequestHead(_Head):
    """A request's head."""

    __slots__ = ("_data", "method", "target")

    def __init__(self, data: bytes, start: bytes) -> None:
        super().__init__(data, httptools.HttpRequestParser(None), _REQUEST_LINES, is_http10=start.endswith(b"0"))
        if start.count(b" ") != 2:
            raise MalformedError("a request line has three parts")
        self.method, self.target, _ = start.split(b" ")
        self._data = data

    def header(self, name: bytes) -> list[bytes]:
        """The values of the lines of any name; `name` in lower case."""
        lines = (line.partition(b":") for line in self._data.split(b"\r\n")[1:-2])
        return [value.strip(b" \t") for own, _, value in lines if own.lower() == name]

    @property
    def upgrades(self) -> list[bytes]:
        """The protocols that the client asks for (RFC 9110 §7.8), without HTTP/2, which is not tunnelled."""
        if self.is_http10 or b"upgrade" not in self.options:
            return []
        return [protocol for protocol in self.members(b"upgrade") if protocol.partition(b"/")[0] not in {b"h2c", b"h2"}]


class AnswerHead(_Head):
    """An answer's head."""

    __slots__ = ("start", "status")

    def __init__(self, data: bytes) -> None:
        super().__init__(data, httptools.HttpResponseParser(None), _ANSWER_LINES, is_http10=data[7:8] == b"0")
        self.start = data[9 : data.find(b"\r\n")]
        """Status and reason, as they came."""
        if _STATUS.fullmatch(self.start) is None:
            raise MalformedError("there is no such status")
        self.status = int(data[9:12])


def read_request_head(data: bytes) -> RequestHead:
    """The head that `data` is, its empty line included. Raises `ProblemError` (400, 414, 431, 505)."""
    end = data.find(b"\r\n")
    start = data[:end]
    if not start.endswith((b" HTTP/1.1", b" HTTP/1.0")):
        raise _other_version(start)
    if end > TARGET_BYTES:
        _check_target(start)
    try:
        return RequestHead(data, start)
    except MalformedError:
        if data.count(b"\r\n") > MOST_LINES + 2:
            raise too_many_lines() from None
        raise bad_request() from None


def read_answer_head(data: bytes) -> AnswerHead:
    """The head that `data` is, its empty line included. Raises `MalformedError`."""
    if not data.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
        raise MalformedError("this is no answer of HTTP/1.x")
    return AnswerHead(data)


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
