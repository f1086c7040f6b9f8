"""Header sections (RFC 9110 §5, §6.3): which lines cross, and what the others say of the message. Pure.

A section is read from its bytes as they stand, and lines that cross are kept so. Whoever sends many messages sends
the same section again and again: what was read of the last ones is kept.
"""

import re
from typing import Final

from .chunked import MalformedError

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
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_MOST_NAMES: Final = 2048
_MOST_NAME_BYTES: Final = 64
_MOST_SECTIONS: Final = 128
_KEPT_BYTES: Final = 2048
"""The longest section that is kept."""
_NOTHING: Final[frozenset[bytes]] = frozenset()
_NONE: Final[tuple[bytes, ...]] = ()


class Fields:
    """One section. It is shared by all messages that have the same one, and never changed."""

    __slots__ = ("_crossing", "_judged", "_named", "_section", "has_only_host", "is_chunked", "length", "options")

    def __init__(self, section: bytes, specials: "_Specials") -> None:
        """Raises `MalformedError`."""
        crossing: list[bytes] = []
        judged: dict[bytes, list[bytes]] = {}
        for line in section.split(b"\r\n")[:-1]:
            special = specials[line.partition(b":")[0]]
            if special is None:
                crossing.append(line)
                continue
            low, crosses, is_judged = special
            if crosses:
                crossing.append(line)
            if is_judged:
                judged.setdefault(low, []).append(line[len(low) + 1 :].strip(b" \t"))
        self._section = section
        self._judged = judged
        self._crossing = {_NOTHING: _joined(crossing)}
        self.has_only_host = judged.keys() == {b"host"}
        """Whether a request has nothing else that it is judged by."""
        self.options = frozenset(self.members(b"connection"))
        """What the Connection lines name, in lower case."""
        self._named = frozenset(map(read_as, self.options)) - HOP_BY_HOP
        codings, lengths = judged.get(b"transfer-encoding", _NONE), judged.get(b"content-length", _NONE)
        if len(codings) + len(lengths) > 1:
            raise MalformedError("there is one length, or chunked, or neither (RFC 9112 §6)")
        if codings and codings[0].lower() != b"chunked":
            raise MalformedError("the only transfer coding known is chunked")
        if lengths and _LENGTH.fullmatch(lengths[0]) is None:
            raise MalformedError("a length is one number")
        self.is_chunked = bool(codings)
        self.length = int(lengths[0]) if lengths else None
        """What Content-Length says."""

    def values(self, name: bytes) -> list[bytes] | tuple[bytes, ...]:
        """The values of the lines of a name that messages are judged by; `name` in lower case."""
        return self._judged.get(name, _NONE)

    def members(self, name: bytes) -> list[bytes]:
        """The members of a list that is written in one or several lines (RFC 9110 §5.6.1), in lower case."""
        parts = b",".join(self.values(name)).lower().split(b",")
        return [member for part in parts if (member := part.strip(b" \t"))]

    def search(self, name: bytes) -> list[bytes]:
        """The values of the lines of any name; `name` in lower case."""
        lines = (line.partition(b":") for line in self._section.split(b"\r\n"))
        return [value.strip(b" \t") for own, _, value in lines if own.lower() == name]

    def crossing(self, drops: frozenset[bytes]) -> bytes:
        """The lines that cross, without those of `drops` and those that Connection names (RFC 9110 §7.6.1)."""
        if self._named:
            drops |= self._named
        lines = self._crossing.get(drops)
        if lines is None:
            kept = self._crossing[_NOTHING].split(b"\r\n")[:-1]
            lines = _joined([line for line in kept if read_as(line.partition(b":")[0].lower()) not in drops])
            if len(self._section) <= _KEPT_BYTES:
                self._crossing[drops] = lines
        return lines


class _Specials(dict[bytes, tuple[bytes, bool, bool] | None]):
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
        meant = read_as(low)
        if re.sub(rb"-+", b"-", meant) in _FRAMING - {low}:
            raise MalformedError("a header looks like one that frames the body")
        crosses = not (meant in self._drops or meant.startswith(self._drop_prefixes))
        special = None if crosses and low not in _JUDGED else (low, crosses, low in _JUDGED)
        if len(self) < _MOST_NAMES and len(name) <= _MOST_NAME_BYTES:
            self[name] = special
        return special


class _Reader:
    """Reads the sections of requests, or those of answers."""

    def __init__(self, drops: frozenset[bytes], *drop_prefixes: bytes) -> None:
        self._specials = _Specials(drops, *drop_prefixes)
        self._known: dict[bytes, Fields] = {}

    def __call__(self, section: bytes) -> Fields:
        """What `section` says: lines, each with its CR LF. Raises `MalformedError`."""
        fields = self._known.get(section)
        if fields is None:
            fields = Fields(section, self._specials)
            if len(section) <= _KEPT_BYTES:
                if len(self._known) >= _MOST_SECTIONS:
                    self._known.clear()
                self._known[section] = fields
        return fields


def read_as(name: bytes) -> bytes:
    """A name as gateways to CGI and its heirs read it: they take an underscore for a hyphen."""
    return name.replace(b"_", b"-")


def _joined(lines: list[bytes]) -> bytes:
    return b"\r\n".join(lines) + b"\r\n" if lines else b""


request_fields: Final = _Reader(_REQUEST_DROPS, b"x-forwarded-")
answer_fields: Final = _Reader(_ANSWER_DROPS)
