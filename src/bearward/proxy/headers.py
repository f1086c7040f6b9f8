"""What crosses in each direction, and where the token goes in. Pure, on raw bytes.

Nothing is decoded, reordered or added but what stands here: an upstream sees what the client sent, without what
belongs to one connection only (RFC 9110 §7.6.1), with a Host, a framing and a token of our making.
"""

from collections.abc import Collection, Iterable
from typing import Final

from .messages import AnswerHead, RequestHead

HOP_BY_HOP: Final = frozenset(
    {
        *(b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization"),
    }
)
_REQUEST_DROPS: Final = HOP_BY_HOP | {b"host", b"content-length", b"authorization", b"forwarded", b"http2-settings"}
_ANSWER_DROPS: Final = HOP_BY_HOP | {b"content-length", b"bearward-error"}
_FORWARDED: Final = b"x-forwarded-"


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

    def head(self, head: RequestHead, target: bytes, framing: bytes, token: str) -> bytes:
        """The head that goes upstream. The token comes last, so that nothing a client names can remove it."""
        drops = _with_named(self._drops, head)
        lines = [
            b"%b: %b\r\n" % (name, value)
            for low, name, value in head.headers
            if low not in drops and not low.startswith(_FORWARDED)
        ]
        return b"%b %b HTTP/1.1\r\n%b%b%b%b%b: %b\r\n\r\n" % (
            *(head.method, target, self._host, b"".join(lines), framing, self._added),
            *(self._token_header, token.encode()),
        )


def answer_head(head: AnswerHead, framing: bytes) -> bytes:
    """The head that goes to the client. `framing` has the length or coding, and the connection's fate."""
    drops = _with_named(_ANSWER_DROPS, head)
    lines = [b"%b: %b\r\n" % (name, value) for low, name, value in head.headers if low not in drops]
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (head.status, head.reason, b"".join(lines), framing)


def _with_named(drops: frozenset[bytes], head: RequestHead | AnswerHead) -> frozenset[bytes]:
    """What is dropped, and what this message's Connection lines name as well (RFC 9110 §7.6.1)."""
    named = head.options(b"connection") if head.values(b"connection") else ()
    return drops.union(named) if named else drops
