"""What crosses in each direction: Rule 11, Rule 12 and Rule 14."""

import gzip
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

import wire
from configs import atlas_credential
from evidence import new_secret
from rawproxy import RawProxy
from upstreams import proxy_before
from vendors.atlas import Atlas
from wire import Message, RawUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Order, repetition, spelling and odd bytes, none of which may change.
END_TO_END = [
    b"Accept: text/plain",
    b"X-Twice: one",
    b"x-lOWER-uPPER: Two  Spaces\tand a tab",
    b"X-Twice: two",
    b"X-Latin-1: caf\xe9 \xff\x80",
    b"X-Utf-8: caf\xc3\xa9",
    b"X-Empty:",
    b"Cookie: a=1; b=2",
    b"Cookie: c=3",
    b'If-None-Match: W/"x", "y"',
    b"User-Agent: mine",
    b"Accept-Encoding: gzip;q=0.5, br",
    b"X-Odd_Name.!#$%&'*+^`|~: 1",
]

HOP_BY_HOP = [
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: keep-alive",
    b"TE: trailers, deflate",
    b"Trailer: X-Checksum",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAAQAAP__",
    b"Proxy-Authorization: Basic bWU6bWU=",
    b"Proxy-Authenticate: Basic",
]

FORWARDING = [
    b"Forwarded: for=192.0.2.1;host=evil.example",
    b"X-Forwarded-For: 192.0.2.1",
    b"x-forwarded-host: evil.example",
    b"X-FORWARDED-PROTO: https",
    b"X-Forwarded-Anything: 1",
]


def assert_one_token(proxy: RawProxy, seen: Message) -> None:
    """The request carries a live token, once."""
    (value,) = seen.values("Authorization")
    scheme, _, token = value.partition(b" ")
    assert scheme == b"Bearer"
    assert token in proxy.tokens


async def test_nothing_is_added_but_the_token(proxy: RawProxy) -> None:
    seen = await proxy.crosses(b"/raw/x")
    assert_one_token(proxy, seen)
    assert [name for name, _ in seen.fields] in ([b"Host", b"Authorization"], [b"Authorization", b"Host"])
    assert seen.values("Host") == [proxy.upstream.host]
    assert seen.rest == b""


async def test_end_to_end_headers_cross_as_they_came(proxy: RawProxy) -> None:
    seen = await proxy.crosses(b"/raw/x", *END_TO_END)
    own = (b"Host:", b"Authorization:")
    crossed = [line for line in seen.lines if not line.startswith(own)]
    assert [line.rstrip() for line in crossed] == END_TO_END
    assert_one_token(proxy, seen)


@pytest.mark.parametrize("line", HOP_BY_HOP + FORWARDING, ids=repr)
async def test_what_belongs_to_one_connection_does_not_cross(proxy: RawProxy, line: bytes) -> None:
    lines = [b"X-Before: 1", line, b"X-After: 1"]
    if line.startswith((b"HTTP2-Settings", b"Upgrade")):
        lines.append(b"Connection: Upgrade, HTTP2-Settings")
    seen = await proxy.crosses(b"/raw/x", *lines)
    name = line.partition(b":")[0].lower()
    assert name not in [field.lower() for field, _ in seen.fields]
    assert {b"X-Before: 1", b"X-After: 1"} <= set(seen.lines)


@pytest.mark.parametrize(
    "lines",
    [
        [b"Connection: X-Hop", b"X-Hop: 1"],
        [b"X-Hop: 1", b"Connection: keep-alive,x-HOP"],
        [b"Connection: X-Other", b"X-Hop: 1", b"cONNECTION: , X-Hop ,"],
        [b"Connection:", b"Connection: X-Hop", b"X-Hop: 1", b"X-Hop: 2"],
        [b"Connection: close, X-Hop", b"X-Hop: 1"],
    ],
    ids=["one", "list", "two lines", "empty line", "with close"],
)
async def test_what_connection_names_does_not_cross(proxy: RawProxy, lines: list[bytes]) -> None:
    seen = await proxy.crosses(b"/raw/x", *lines, b"X-Stays: 1")
    names = [name.lower() for name, _ in seen.fields]
    assert b"x-hop" not in names
    assert b"connection" not in names or seen.values("Connection") == [b"keep-alive"]
    assert b"x-stays" in names


@pytest.mark.parametrize(
    "lines",
    [
        [b"Connection: Authorization"],
        [b"Connection: close, authorization"],
        [b"Connection: x", b"Connection: AUTHORIZATION"],
        [b"Authorization: Bearer mine"],
        [b"Authorization: Basic bWU6bWU=", b"aUTHORIZATION: Bearer mine"],
        [b"Connection: Authorization", b"Authorization: Bearer mine"],
        [b"Proxy-Authorization: Bearer mine"],
        [b"Connection: Host"],
    ],
    ids=repr,
)
async def test_no_client_removes_or_doubles_the_token(proxy: RawProxy, lines: list[bytes]) -> None:
    seen = await proxy.crosses(b"/raw/x", *lines)
    assert_one_token(proxy, seen)
    assert seen.values("Host") == [proxy.upstream.host]
    assert b"mine" not in seen.raw
    assert b"bWU6bWU=" not in seen.raw


async def test_a_token_in_another_header_stands_alone_too(proxy: RawProxy) -> None:
    lines = [b"Authorization: Bearer mine", b"X-Token: mine", b"x-tOKEN: mine", b"Connection: X-Token"]
    seen = await proxy.crosses(b"/other-header/x", *lines)
    assert seen.values("Authorization") == [], "a client's own credentials never cross"
    (token,) = seen.values("X-Token")
    assert token in proxy.tokens


@pytest.mark.parametrize("lines", [[b"Connection: Content-Length"], [b"Connection: Transfer-Encoding"]], ids=repr)
async def test_no_client_removes_the_framing(proxy: RawProxy, lines: list[bytes]) -> None:
    body = b"GET /smuggled HTTP/1.1\r\n\r\n"
    length = b"Content-Length: %d" % len(body)
    await proxy.bearward.raw(proxy.request(b"/raw/x", *lines, length, method=b"POST", body=body))
    assert proxy.upstream.only_request.body == body
    assert proxy.upstream.only_request.values("Content-Length") == [b"%d" % len(body)]


async def test_headers_of_a_route(proxy: RawProxy) -> None:
    lines = [b"X-Tenant: evil", b"x-tenant: evil", b"X-Internal: 1", b"x-iNTERNAL: 2", b"X-Stays: 1"]
    seen = await proxy.crosses(b"/edited/x", *lines)
    assert seen.values("X-Tenant") == [b"acme"]
    assert seen.values("X-Internal") == []
    assert seen.values("X-Stays") == [b"1"]


async def test_an_answer_crosses_as_it_came(proxy: RawProxy) -> None:
    lines = [
        b"Server: theirs/1.0",
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
        b"Set-Cookie: a=1; Path=/",
        b"X-Twice: one",
        b"Set-Cookie: b=2; HttpOnly",
        b"x-lOWER: Two  Spaces",
        b"X-Twice: two",
        b"X-Latin-1: caf\xe9 \xff",
        b"X-Empty:",
        b"Set-Cookie: a=3",
        b"Vary: *",
        b"Via: 1.1 theirs",
    ]
    proxy.upstream.answer = wire.ok(b"ok", *lines)
    answer = await proxy.get(b"/raw/x")
    crossed = [line.rstrip() for line in answer.lines if not line.startswith(b"Content-Length")]
    assert crossed == lines


async def test_nothing_is_added_to_an_answer(proxy: RawProxy) -> None:
    answer = await proxy.get(b"/raw/x")
    # A Date may be added where there is none (RFC 9110 §6.6.1).
    assert {name.lower() for name, _ in answer.fields} <= {b"content-length", b"date"}


@pytest.mark.parametrize(
    "lines",
    [
        [b"Connection: X-Hop", b"X-Hop: 1"],
        [b"Connection: keep-alive", b"X-Hop: 1", b"connection: close, x-hop"],
        [b"Keep-Alive: timeout=5", b"Proxy-Authenticate: Basic", b"Proxy-Connection: close", b"Upgrade: h2c"],
        [b"Trailer: X-Checksum", b"TE: trailers", b"Connection: TE"],
    ],
    ids=repr,
)
async def test_what_belongs_to_one_connection_does_not_come_back(proxy: RawProxy, lines: list[bytes]) -> None:
    proxy.upstream.answer = wire.ok(b"ok", *lines, b"X-Stays: 1")
    answer = await proxy.get(b"/raw/x")
    dropped = {b"x-hop", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"upgrade", b"trailer", b"te"}
    assert dropped.isdisjoint(name.lower() for name, _ in answer.fields)
    assert answer.values("X-Stays") == [b"1"]
    assert answer.body == b"ok"


@pytest.mark.parametrize("name", [b"Content-Length", b"Transfer-Encoding"])
async def test_no_upstream_removes_the_framing(proxy: RawProxy, name: bytes) -> None:
    """Rule 11: `Connection` cannot name what the message needs (RFC 9110 §7.6.1)."""
    framing = b"Content-Length: 5" if name == b"Content-Length" else b"Transfer-Encoding: chunked"
    body = b"hello" if name == b"Content-Length" else b"5\r\nhello\r\n0\r\n\r\n"
    proxy.upstream.answer = b"\r\n".join([b"HTTP/1.1 200 OK", framing, b"Connection: " + name, b"", body])
    async with proxy.bearward.connect() as connection:
        for _ in range(2):
            answer = await connection.exchange(proxy.request(b"/raw/x"))
            assert answer.body == b"hello"
            assert answer.values(name.decode()) == [framing.partition(b": ")[2]]


async def test_connections_end_each_for_itself(proxy: RawProxy) -> None:
    """Rule 11: an upstream that closes does not close the client's connection, nor the other way round."""
    proxy.upstream.answer = wire.ok(b"ok", b"Connection: close")
    async with proxy.bearward.connect() as connection:
        for _ in range(2):
            answer = await connection.exchange(proxy.request(b"/raw/x"))
            assert answer.values("Connection") == []
        proxy.upstream.answer = wire.ok()
        answer = await connection.exchange(proxy.request(b"/raw/x", b"Connection: close"))
        assert answer.values("Connection") == [b"close"]
        assert await connection.closed() == b""
    assert b"close" not in proxy.upstream.requests[-1].raw


async def test_no_upstream_speaks_in_our_name(proxy: RawProxy) -> None:
    lines = [b"Bearward-Error: token_unavailable", b"bearward-ERROR: draining", b"X-Stays: 1"]
    proxy.upstream.answer = wire.answer(b"503 Theirs", b"theirs", *lines)
    answer = await proxy.get(b"/raw/x")
    assert (answer.status, answer.body) == (503, b"theirs")
    assert answer.values("Bearward-Error") == []
    assert answer.values("X-Stays") == [b"1"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", [b"/base/elsewhere", b"https://evil.example/?q=%41", b"//evil.example"])
async def test_a_redirect_is_passed_on(proxy: RawProxy, status: int, location: bytes) -> None:
    proxy.upstream.answer = wire.answer(b"%d Elsewhere" % status, b"", b"Location: " + location)
    answer = await proxy.get(b"/raw/x")
    assert answer.status == status
    assert answer.values("Location") == [location]
    assert proxy.upstream.only_request.target == b"/base/x"


@pytest.mark.parametrize("status", [200, 201, 206, 304, 400, 403, 404, 418, 429, 500, 503, 599])
async def test_a_status_is_passed_on(proxy: RawProxy, status: int) -> None:
    body = b"" if status == 304 else b"theirs"
    proxy.upstream.answer = wire.answer(b"%d Theirs" % status, body)
    if status == 304:
        proxy.upstream.answer = b"HTTP/1.1 304 Theirs\r\nETag: x\r\n\r\n"
    answer = await proxy.get(b"/raw/x")
    assert (answer.status, answer.body) == (status, body)
    assert answer.values("Bearward-Error") == []


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"gzip, unheard-of"])
async def test_an_encoded_body_crosses_untouched(proxy: RawProxy, coding: bytes) -> None:
    body = gzip.compress(b"theirs" * 1000) if coding.startswith(b"gzip") else b"\x00not really br"
    header = b"Content-Encoding: " + coding
    proxy.upstream.answer = wire.ok(body, header)
    length = b"Content-Length: %d" % len(body)
    answer = await proxy.bearward.raw(proxy.request(b"/raw/x", header, length, method=b"PUT", body=body))
    assert (answer.body, answer.values("Content-Encoding")) == (body, [coding])
    seen = proxy.upstream.only_request
    assert (seen.body, seen.values("Content-Encoding")) == (body, [coding])
    assert seen.values("Accept-Encoding") == []


async def test_a_cookie_is_not_kept(proxy: RawProxy) -> None:
    proxy.upstream.answer = wire.ok(b"", b"Set-Cookie: session=" + new_secret("cookie").encode())
    await proxy.get(b"/raw/x")
    assert (await proxy.crosses(b"/raw/x")).values("Cookie") == []


async def test_two_requests_on_one_connection(proxy: RawProxy) -> None:
    async with proxy.bearward.connect() as connection:
        for n in range(3):
            proxy.upstream.answer = wire.ok(b"answer %d" % n)
            answer = await connection.exchange(proxy.request(b"/raw/%d" % n))
            assert answer.body == b"answer %d" % n
    assert [seen.target for seen in proxy.upstream.requests] == [b"/base/0", b"/base/1", b"/base/2"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_underscored(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RawProxy]:
    """The route `/raw`, in whose config each name has an underscore."""
    async with Atlas() as atlas, RawUpstream() as upstream:
        credential = atlas_credential(
            atlas,
            inject={"header": "api_key", "format": "{token}"},
            principal={"header": "user_id"},
            headers={"X-On-Behalf-Of": "{principal}"},
        )
        edits = {"set": {"x_tenant": "acme"}, "remove": ["x_internal"]}
        routes = {"/raw": {"credential": "underscored", "request_headers": edits}}
        folder = tmp_path_factory.mktemp("underscored")
        async with proxy_before(upstream, routes, folder, credentials={"underscored": credential}) as proxy:
            yield RawProxy(proxy.bearward, upstream, atlas)


def values_as_read(seen: Message, name: bytes) -> list[bytes]:
    """The values of a name as a gateway to CGI reads it, which makes no difference between `-` and `_`."""
    return [value for own, value in seen.fields if own.lower().replace(b"-", b"_") == name]


def hyphened(name: bytes) -> bytes:
    return name.replace(b"_", b"-")


@pytest.mark.parametrize("spell", [bytes.lower, bytes.title, hyphened], ids=["as it is", "capitals", "hyphens"])
async def test_names_with_an_underscore(module_underscored: RawProxy, spell: Callable[[bytes], bytes]) -> None:
    """Nothing a client sends doubles the token, precedes what is set, or survives a removal, however it is spelled."""
    lines = [spell(name) + b": theirs" for name in (b"x_tenant", b"x_internal", b"api_key")]
    seen = await module_underscored.crosses(b"/raw/x", b"user_id: bob", *lines, *lines, b"X_Stays: 1")
    (token,) = values_as_read(seen, b"api_key")
    assert token in module_underscored.tokens
    assert values_as_read(seen, b"x_tenant") == [b"acme"]
    assert values_as_read(seen, b"x_internal") == values_as_read(seen, b"user_id") == []
    assert seen.values("X_Stays") == [b"1"]


@pytest.mark.parametrize("named", [b"x_mine", b"X_Mine", b"close, x_MINE", b"x-mine"])
async def test_connection_names_what_has_an_underscore(proxy: RawProxy, named: bytes) -> None:
    """Rule 11, in both directions."""
    lines = [b"Connection: " + named, b"x_mine: 1", b"X_Mine: 2", b"X_Stays: 1"]
    proxy.upstream.answer = wire.ok(b"ok", *lines)
    answer = await proxy.get(b"/raw/x", *lines)
    for message in (proxy.upstream.only_request, answer):
        assert values_as_read(message, b"x_mine") == []
        assert message.values("X_Stays") == [b"1"]


@pytest.mark.parametrize("name", [b"X_Forwarded_For", b"x_forwarded-Host", b"X-Forwarded_Proto"])
async def test_no_spelling_of_forwarding_crosses(proxy: RawProxy, name: bytes) -> None:
    seen = await proxy.crosses(b"/raw/x", name + b": theirs")
    assert b"theirs" not in seen.raw
