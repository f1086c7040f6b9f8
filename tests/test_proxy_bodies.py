"""How bodies are framed. Rule 10: a length stays a length, chunked stays chunked, and no body stays none."""

import pytest

import wire
from rawproxy import RawProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("body", [b"", b"x", b"\x00\xff" * 40_000], ids=len)
async def test_a_length_stays_a_length(proxy: RawProxy, body: bytes) -> None:
    """Rule 10: both ways, 0 included."""
    length = b"Content-Length: %d" % len(body)
    proxy.upstream.answer = wire.ok(body)
    answer = await proxy.bearward.raw(proxy.request(b"/raw/x", length, method=b"POST", body=body))
    for message in (proxy.upstream.only_request, answer):
        assert message.values("Content-Length") == [b"%d" % len(body)]
        assert message.values("Transfer-Encoding") == []
        assert message.rest == body


async def test_chunked_stays_chunked(proxy: RawProxy) -> None:
    """Rule 10: both ways."""
    chunks = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    coding = b"Transfer-Encoding: chunked"
    proxy.upstream.answer = b"HTTP/1.1 200 OK\r\n" + coding + b"\r\n\r\n" + chunks
    answer = await proxy.bearward.raw(proxy.request(b"/raw/x", coding, method=b"POST", body=chunks))
    for message in (proxy.upstream.only_request, answer):
        assert message.values("Transfer-Encoding") == [b"chunked"]
        assert message.values("Content-Length") == []
        assert message.body == b"abcdefg"


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE"])
async def test_no_body_stays_none(proxy: RawProxy, method: bytes) -> None:
    """Rule 10: no framing is put where there was none."""
    await proxy.bearward.raw(proxy.request(b"/raw/x", method=method))
    seen = proxy.upstream.only_request
    assert seen.values("Content-Length") == []
    assert seen.values("Transfer-Encoding") == []


async def test_an_empty_chunked_body_stays_chunked(proxy: RawProxy) -> None:
    """Rule 10: both ways."""
    coding = b"Transfer-Encoding: chunked"
    proxy.upstream.answer = b"HTTP/1.1 200 OK\r\n" + coding + b"\r\n\r\n0\r\n\r\n"
    answer = await proxy.bearward.raw(proxy.request(b"/raw/x", coding, method=b"POST", body=b"0\r\n\r\n"))
    for message in (proxy.upstream.only_request, answer):
        assert message.values("Transfer-Encoding") == [b"chunked"]
        assert message.values("Content-Length") == []
        assert message.rest == b"0\r\n\r\n"


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"OPTIONS", b"PROPFIND"])
async def test_a_body_crosses_with_any_method(proxy: RawProxy, method: bytes) -> None:
    """Rule 10: a method does not say whether there is a body (RFC 9112 §6)."""
    await proxy.bearward.raw(proxy.request(b"/raw/x", b"Content-Length: 5", method=method, body=b"hello"))
    assert proxy.upstream.only_request.body == b"hello"


BODILESS = {
    "HEAD with a length": (b"HEAD", b"200 OK", [b"Content-Length: 12345"]),
    "HEAD with chunks": (b"HEAD", b"200 OK", [b"Transfer-Encoding: chunked"]),
    "HEAD with nothing": (b"HEAD", b"200 OK", []),
    "HEAD of an error": (b"HEAD", b"404 Not Found", [b"Content-Length: 12345"]),
    "204": (b"GET", b"204 No Content", []),
    "204 to a POST": (b"POST", b"204 No Content", []),
    "304": (b"GET", b"304 Not Modified", [b"ETag: x"]),
    "304 with a length": (b"GET", b"304 Not Modified", [b"Content-Length: 12345"]),
    "304 with chunks": (b"GET", b"304 Not Modified", [b"Transfer-Encoding: chunked"]),
}


@pytest.mark.parametrize("name", BODILESS)
async def test_an_answer_without_a_body_keeps_its_framing(proxy: RawProxy, name: str) -> None:
    """Rule 10: what its head says is of the body that is not there, and both connections go on."""
    method, status, lines = BODILESS[name]
    proxy.upstream.answer = b"\r\n".join([b"HTTP/1.1 " + status, b"X-Mine: 1", *lines, b"", b""])
    async with proxy.bearward.connect() as connection:
        for _ in range(2):
            answer = await connection.exchange(proxy.request(b"/raw/x", method=method), to_head=True)
            assert answer.start == b"HTTP/1.1 " + status
            assert {b"X-Mine: 1", *(line for line in lines if not line.startswith(b"Transfer"))} <= set(answer.lines)
            lengths = [line for line in lines if line.startswith(b"Content-Length")]
            assert [b"Content-Length: " + value for value in answer.values("Content-Length")] == lengths
        proxy.upstream.answer = wire.ok(b"the next")
        assert (await connection.exchange(proxy.request(b"/raw/y"))).body == b"the next"


@pytest.mark.parametrize("target", [b"/nowhere", b"/raw/../x"])
async def test_an_error_to_a_head_request_has_no_body(proxy: RawProxy, target: bytes) -> None:
    """Rule 10: bearward's own answers too."""
    async with proxy.bearward.connect() as connection:
        answer = await connection.exchange(proxy.request(target, method=b"HEAD"), to_head=True)
        assert answer.status in {400, 404}
        assert answer.values("Bearward-Error")
        if answer.values("Connection") != [b"close"]:
            assert (await connection.exchange(proxy.request(b"/raw/x"))).status == 200
        else:
            assert await connection.closed() == b""
