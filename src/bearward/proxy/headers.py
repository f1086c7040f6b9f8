"""What crosses in each direction, and where the token goes in. Pure, on raw bytes.

Nothing is decoded, reordered or added but what stands here: an upstream sees what the client sent, without what
belongs to one connection only (RFC 9110 §7.6.1), with a Host, a framing and a token of our making.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

RawHeaders = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    {
        *(b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization"),
    }
)
_REQUEST_DROPS: Final = HOP_BY_HOP | {b"host", b"content-length", b"authorization", b"forwarded"}
_RESPONSE_DROPS: Final = HOP_BY_HOP | {b"content-length", b"bearward-error"}
BODILESS_STATUSES: Final = frozenset({204, 304})


class RequestRules:
    """What a route lets through of a request's headers, and what it adds. Names are compared without case."""

    def __init__(
        self,
        *,
        authority: str,
        token_header: str,
        drop: Collection[str] = (),
        add: Iterable[tuple[str, str]] = (),
    ) -> None:
        added = [(name, value) for name, value in add]
        names = {name.lower().encode() for name in (token_header, *drop, *(name for name, _ in added))}
        self._drops = _REQUEST_DROPS | names
        self._host = b"Host: " + authority.encode() + b"\r\n"
        self._token_header = token_header.encode()
        self._added = b"".join(b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in added)

    def head(self, method: bytes, target: bytes, headers: RawHeaders, framing: bytes, token: str) -> bytes:
        """The head that goes upstream. The token comes last, so that nothing a client names can remove it."""
        return b"".join(
            (
                b"%b %b HTTP/1.1\r\n" % (method, target),
                self._host,
                *_crossing(headers, self._drops, b"x-forwarded-"),
                framing,
                self._added,
                b"%b: %b\r\n\r\n" % (self._token_header, token.encode()),
            )
        )


def response_head(status: int, reason: bytes, headers: RawHeaders, framing: bytes) -> bytes:
    """The head that goes to the client. `framing` has the length or coding, and the connection's fate."""
    lines = _crossing(headers, _RESPONSE_DROPS, None)
    return b"".join((b"HTTP/1.1 %d %b\r\n" % (status, reason), *lines, framing, b"\r\n"))


def _crossing(headers: RawHeaders, drops: frozenset[bytes], drop_prefix: bytes | None) -> list[bytes]:
    lines = []
    named: set[bytes] = set()
    for name, value in headers:
        low = name.lower()
        if low in drops:
            if low == b"connection":
                named.update(option.strip().lower() for option in value.split(b","))
            continue
        if drop_prefix is not None and low.startswith(drop_prefix):
            continue
        lines.append((low, b"%b: %b\r\n" % (name, value)))
    if named:
        return [line for low, line in lines if low not in named]
    return [line for _, line in lines]
