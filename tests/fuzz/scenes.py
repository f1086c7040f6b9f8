"""What both sides of one crossing send: whole conversations, and the same with their bytes disturbed."""

from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st

HOST = b"fuzz.example:80"
"""One of the `allowed_hosts`: the same in every run, unlike the data port."""

Ending = Literal["wait", "half-close", "close", "reset"]
Turn = Literal["head", "body"]


@dataclass(frozen=True)
class Client:
    """One connection to bearward: what is written, piece by piece, and how it ends.

    `wait` ends it when everything is answered, or when nothing happens any more.
    """

    writes: tuple[bytes, ...]
    end: Ending = "wait"


@dataclass(frozen=True)
class Reply:
    """How the upstream answers one request: after its head or its whole body, piece by piece. `wait` keeps the
    connection. `to_head` is how many of the bytes a HEAD is sent, which then also keeps the connection."""

    writes: tuple[bytes, ...]
    end: Ending = "wait"
    after: Turn = "body"
    to_head: int | None = None


@dataclass(frozen=True)
class Scene:
    """One example. In a tame one both sides do as they should, so that every request must be answered whole."""

    clients: tuple[Client, ...]
    replies: tuple[Reply, ...]
    tame: bool = False


_METHODS = st.sampled_from([b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"])
_TAILS = st.sampled_from([b"", b"?q=1", b"/a%20b", b"/%7Euser?x=%zz&;", b"/x//y"])
_WILD_TAILS = st.sampled_from(
    [b"/caf\xc3\xa9", b"/..", b"/%2e%2e/x", b"/%2f", b"/a b", b"/#f", b"\t", b"/%", b"/%00", b"\\", b"/x" * 40]
)
_LINES = st.sampled_from(
    [
        b"X-One: 1",
        b"X-One: 2",
        b"x-empty:",
        b"X-Wide:\t a \t b\t ",
        b"X-Bytes: caf\xe9",
        b"Cookie: a=b",
        b"Accept-Encoding: gzip",
        b"User-Agent: fuzz",
        b"Authorization: Bearer stolen",
        b"Proxy-Authorization: Basic c3RvbGVu",
        b"Connection: X-One, Authorization",
        b"Connection: keep-alive",
        b"Connection: close",
        b"Keep-Alive: timeout=5",
        b"TE: trailers",
        b"Forwarded: for=1.2.3.4",
        b"X-Forwarded-For: 1.2.3.4",
        b"Range: bytes=0-",
    ]
)
_WILD_LINES = st.sampled_from(
    [
        b"Content-Length: 3",
        b"Content-Length: 3",
        b"Content-Length: 0",
        b"Content-Length: 4, 4",
        b"Content-Length: -1",
        b"Content-Length: +3",
        b"Content-Length : 3",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding:\x0bchunked",
        b"Transfer-Encoding : chunked",
        b"Host: evil.example",
        b"Host: " + HOST,
        b"Expect: 100-continue",
        b"Expect: more",
        b"Origin: null",
        b"Connection: Authorization, Host, Content-Length, Transfer-Encoding, close",
        b"Upgrade: h2c",
        b"Trailer: X-One",
        b" folded: line",
        b"no colon",
        b": no name",
        b"X\x00Y: nul",
        b"X-Bare: a\rb",
        b"X-Bare: a\nAuthorization: Bearer smuggled",
        b"Bearward-Error: no_route",
    ]
)
_REPLY_LINES = st.sampled_from(
    [
        b"X-One: 1",
        b"X-One: 2",
        b"Set-Cookie: a=b",
        b"Set-Cookie: c=d",
        b"x-empty:",
        b"X-Bytes: caf\xe9",
        b"Content-Encoding: gzip",
        b"Content-Type: text/event-stream",
        b"Connection: X-One",
        b"Keep-Alive: timeout=5",
        b"Bearward-Error: no_route",
        b"Location: /elsewhere",
    ]
)
_SIZES = st.sampled_from([0, 1, 2, 5, 17, 200, 3000])
_EXTENSIONS = st.sampled_from([b"", b"", b"", b";a", b';a="b c"'])
_TRAILERS = st.sampled_from([b"", b"", b"", b"X-Trailer: t\r\n", b"Authorization: Bearer trailer\r\n"])
_WILD_LAST_CHUNKS = st.sampled_from([b"0", b"0", b"0", b"000", b"", b"-0", b"0x0"])
_WILD_VERSIONS = st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/1.0", b"HTTP/2.0", b"http/1.1"])
_WILD_PREFIXES = st.sampled_from([b"/fuzz/"] * 7 + [b"/fuzzy/", b"http://" + HOST + b"/fuzz/", b"/", b"//"])
_STATUSES = st.sampled_from([b"200 OK"] * 4 + [b"201 Created", b"204 No Content", b"304 ", b"404 X", b"503 Y"])
_WILD_STATUSES = st.sampled_from([b""] * 6 + [b"101 Switching Protocols", b"999 X", b"099 X", b"000 X", b"200"])
_INTERIM = st.sampled_from(
    [b"", b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"]
)
_WILD_REPLY_LINES = st.one_of(_WILD_LINES, st.sampled_from([b"Connection: close", b"Upgrade: x"]))
_SURPLUS = st.sampled_from([b""] * 5 + [b"x", b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"])
_BREAKS: st.SearchStrategy[Ending] = st.sampled_from(["close", "reset", "half-close"])
_REPLY_ENDINGS: st.SearchStrategy[Ending] = st.sampled_from(["wait", "close", "reset", "half-close"])
_CLIENT_ENDINGS: st.SearchStrategy[Ending] = st.sampled_from(["wait", "wait", "wait", "half-close", "close", "reset"])
_TURNS: st.SearchStrategy[Turn] = st.sampled_from(["body", "body", "head"])
_CRUMBS = st.sampled_from(
    [
        *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b"\0", b"0", b"f", b";", b",", b"\xff", b"X" * 300),
        *(b"0\r\n\r\n", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n"),
        b"GET /fuzz/smuggled HTTP/1.1\r\nHost: " + HOST,
    ]
)
_DISTURBANCES = st.sampled_from(["flip", "insert", "cut", "truncate", "swap", "repeat"])
_FLIPS, _LENGTHS, _FEW, _TENTHS = st.integers(1, 255), st.integers(1, 40), st.integers(0, 3), st.integers(0, 9)
_PLACES = st.integers(0, 127)
_COUNTS = st.integers(1, 3)
_COINS = st.booleans()


def _place(draw: st.DrawFn, size: int) -> int:
    """One of the places in so many bytes, spread evenly (a wide range of integers would favour the small ones)."""
    place = draw(_PLACES) * (size + 1) // 128
    return min(size, place + draw(_FEW)) if size > 128 else place


def _framed(draw: st.DrawFn, mark: bytes, *, wild: bool) -> tuple[list[bytes], bytes]:
    """The framing lines of a body that says whose it is, over and over; and the body, framed."""
    size = draw(_SIZES)
    body = (mark * (size // len(mark) + 1))[:size]
    if draw(_COINS):
        return [b"Content-Length: %d" % size], body
    at = _place(draw, size)
    extension = draw(_EXTENSIONS)
    chunks = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in (body[:at], body[at:]) if piece]
    last = draw(_WILD_LAST_CHUNKS) if wild else b"0"
    return [b"Transfer-Encoding: chunked"], b"".join([*chunks, last, b"\r\n", draw(_TRAILERS), b"\r\n"])


def _request(draw: st.DrawFn, mark: bytes, *, wild: bool) -> bytes:
    """One request; a wild one has something about it that must not cross, or not as it is."""
    method, tail, version, prefix = draw(_METHODS), draw(_TAILS), b"HTTP/1.1", b"/fuzz/"
    lines = [b"Host: " + HOST, *dict.fromkeys(draw(_LINES) for _ in range(draw(_FEW)))]
    body = b""
    if draw(_COINS) if wild else method not in {b"GET", b"HEAD", b"OPTIONS"}:
        framing, body = _framed(draw, b"[%b]" % mark, wild=wild)
        lines += framing
    if wild:
        tail = draw(_WILD_TAILS) if not draw(_FEW) else tail
        version, prefix = draw(_WILD_VERSIONS), draw(_WILD_PREFIXES)
        for _ in range(draw(_FEW) - 1):
            lines.insert(draw(_FEW), draw(_WILD_LINES))
    return b"\r\n".join([method + b" " + prefix + mark + tail + b" " + version, *lines, b"", body])


def _reply(draw: st.DrawFn, mark: bytes, *, wild: bool) -> Reply:
    """One answer. A wild one may do what an upstream must not, or come before the request is whole."""
    status, lines = draw(_STATUSES), [draw(_REPLY_LINES) for _ in range(draw(_FEW))]
    interim = draw(_INTERIM)
    body, end = b"", "wait"
    after: Turn = "body"
    if status[:3] not in {b"204", b"304"}:
        framing, body = _framed(draw, b"(%b)" % mark, wild=wild)
        if draw(_FEW):
            lines += framing
        else:
            end = "close"  # the body as it is, until then
    if wild:
        if not draw(_FEW):
            lines.append(draw(_WILD_REPLY_LINES))
        body += draw(_SURPLUS)
        status = draw(_WILD_STATUSES) or status
        after = draw(_TURNS)
        end = draw(_REPLY_ENDINGS) if draw(_COINS) else end
    head = interim + b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"", b""])
    return Reply((head + body,), end, after, None if wild and draw(_COINS) else len(head))


def _disturbed(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` with a byte flipped, something put in, cut out or off, or two parts in each other's place."""
    at = _place(draw, len(whole))
    rest = whole[at:]
    match draw(_DISTURBANCES):
        case "flip":
            return whole[:at] + bytes([byte ^ draw(_FLIPS) for byte in rest[:1]]) + rest[1:]
        case "insert":
            return whole[:at] + draw(_CRUMBS) + rest
        case "cut":
            return whole[:at] + rest[draw(_LENGTHS) :]
        case "truncate":
            return whole[:at]
        case "repeat":
            return whole[:at] + rest[: draw(_LENGTHS)] + rest
    size = draw(_LENGTHS)
    return whole[:at] + rest[size : 2 * size] + rest[:size] + rest[2 * size :]


def _pieces(draw: st.DrawFn, whole: bytes) -> tuple[bytes, ...]:
    """`whole` in one to four writes."""
    cuts = sorted(_place(draw, len(whole)) for _ in range(draw(_FEW)))
    parts = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    return tuple(part for part in parts if part)


def _client(draw: st.DrawFn, number: int, *, bad: bool) -> Client:
    """One connection; a bad client's bytes are odd, disturbed, or come to no good end."""
    marks = [b"c%dr%d" % (number, n) for n in range(draw(_COUNTS))]
    wild = bad and draw(_COINS)
    whole = b"".join(_request(draw, mark, wild=wild) for mark in marks)
    if bad and draw(_COINS):
        whole = _disturbed(draw, whole)
    return Client(_pieces(draw, whole), draw(_CLIENT_ENDINGS) if bad else "wait")


def _bad_reply(draw: st.DrawFn, mark: bytes) -> Reply:
    """An answer that is odd, disturbed, breaks off, or is none."""
    if draw(_TENTHS) > 8:
        return Reply((), draw(_BREAKS), draw(_TURNS))
    reply = _reply(draw, mark, wild=draw(_COINS))
    whole = b"".join(reply.writes)
    if draw(_TENTHS) > 6:
        return Reply(_pieces(draw, whole[: _place(draw, len(whole))]), draw(_BREAKS), reply.after)
    if draw(_COINS):
        whole = _disturbed(draw, whole)
    return Reply(_pieces(draw, whole), reply.end, reply.after, reply.to_head)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """One or two connections of up to three requests each, one after the other, and as many replies."""
    bad_client, bad_upstream = draw(_COINS), draw(_COINS)
    clients = [_client(draw, number, bad=bad_client) for number in range(1 + draw(_COINS))]
    replies = []
    for number in range(draw(_COUNTS)):
        mark = b"a%d" % number
        if bad_upstream and draw(_FEW):
            replies.append(_bad_reply(draw, mark))
        else:
            good = _reply(draw, mark, wild=False)
            replies.append(Reply(_pieces(draw, good.writes[0]), good.end, good.after, good.to_head))
    return Scene(tuple(clients), tuple(replies), tame=not (bad_client or bad_upstream))
