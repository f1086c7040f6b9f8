"""What crosses in each direction, and where the token goes in. Pure, on raw bytes.

Nothing is decoded, reordered or added but what stands here: an upstream sees what the client sent, without what
belongs to one connection only (`fields` leaves that out), with a Host, a framing and a token of our making.
"""

from collections.abc import Collection, Iterable
from typing import Final

from .fields import read_as
from .messages import AnswerHead, RequestHead

_NOTHING: Final[frozenset[bytes]] = frozenset()
_ALWAYS_DROPPED: Final = frozenset({b"authorization"})


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
        names = {read_as(name.lower().encode()) for name in (token_header, *drop, *(name for name, _ in added))}
        self._drops = frozenset(names - _ALWAYS_DROPPED)
        self._host = b" HTTP/1.1\r\nHost: " + authority.encode()
        self._last = b"".join(b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in added)
        self._last += token_header.encode() + b": "

    def head(self, head: RequestHead, target: bytes, framing: bytes, token: bytes) -> bytes:
        """The head that goes upstream. The token comes last, so that nothing a client names can remove it."""
        return b"%b %b%b\r\n%b%b%b%b\r\n\r\n" % (
            *(head.method, target, self._host, head.fields.crossing(self._drops), framing, self._last, token),
        )


def answer_head(head: AnswerHead, framing: bytes) -> bytes:
    """The head that goes to the client. `framing` has the length or coding, and the connection's fate."""
    return b"HTTP/1.1 %b\r\n%b%b\r\n" % (head.start, head.fields.crossing(_NOTHING), framing)
