"""What is a request and what is none. Rule 8: heads; Rule 9 and Rule 10: clients that speak HTTP/1.0.

Chunked bodies have a file of their own.
"""

import asyncio

import pytest

import wire
from problems import assert_problem
from rawproxy import AT_ONCE, MARK, RawProxy
from wire import Message, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

TARGET = b"/raw/x?" + MARK
MARKED = b"X-Mark: " + MARK
START = b"POST /raw/x?MARK HTTP/1.1"


def filled(template: bytes, proxy: RawProxy) -> bytes:
    """A request whose HOST and MARK are written in: those of a run are its own, and no part of a test's name."""
    return template.replace(b"HOST", proxy.host).replace(b"MARK", MARK)


BARE_LF = [
    START + b"\nHOST\n\n",
    START + b"\nHOST\r\n\r\n",
    START + b"\r\nHOST\n\r\n",
    START + b"\r\nHOST\r\n\n",
    START + b"\r\nHOST\n\n",
    START + b"\r\nHOST\r\nX-A: 1\nX-B: 2\r\n\r\n",
    START + b"\r\nHOST\r\nX-A: 1\n 2\r\n\r\n",
    START + b"\r\nHOST\r\nX-A: \n\r\n\r\n",
    START + b"\r\nHOST\r\nX-\nA: 1\r\n\r\n",
    START + b"\r\nHOST\r\nContent-Length: 0\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST\n/raw/x HTTP/1.1\r\nHOST\r\n\r\n",
    b"POST /raw/\nx HTTP/1.1\r\nHOST\r\n\r\n",
    # No end of the head ever comes.
    START + b"\n",
    START + b"\nHOST\n",
    START + b"\r\nHOST\n",
    START + b"\r\nHOST\r\nX-A: 1\nX-B: 2",
]

BARE_CR = [
    START + b"\rHOST\r\r",
    START + b"\r\rHOST\r\n\r\n",
    START + b"\r\nHOST\rX-A: 1\r\n\r\n",
    START + b"\r\nHOST\r\nX-A: 1\rX-B: 2\r\n\r\n",
    START + b"\r\nHOST\r\nX-A: 1\r\r\n\r\n",
    START + b"\r\nHOST\r\nX-A: \r1\r\n\r\n",
    START + b"\r\nHOST\r\nX-\rA: 1\r\n\r\n",
    START + b"\r\nHOST\r\n\rX-A: 1\r\n\r\n",
    START + b"\r\nHOST\r\n\r\r\n",
    START + b"\r\nHOST\r\nContent-Length: 0\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST\r/raw/x HTTP/1.1\r\nHOST\r\n\r\n",
    b"POST /raw/\rx HTTP/1.1\r\nHOST\r\n\r\n",
    START + b"\rX",
    START + b"\r\nHOST\r\nX-A: 1\rX",
]


@pytest.mark.parametrize("sent", BARE_LF, ids=repr)
async def test_a_bare_lf_is_refused_at_once(proxy: RawProxy, sent: bytes) -> None:
    """Rule 8: a line ends with CRLF; that the head has no end yet does not delay the answer."""
    await proxy.refuses(filled(sent, proxy))


@pytest.mark.parametrize("sent", BARE_CR, ids=repr)
async def test_a_bare_cr_is_refused_at_once(proxy: RawProxy, sent: bytes) -> None:
    """Rule 8: as soon as the byte after it is there."""
    await proxy.refuses(filled(sent, proxy))


BAD_LINES = [
    # Folded, or made to look so.
    b"X-A: 1\r\n 2",
    b"X-A: 1\r\n\t2",
    b"X-A:\r\n 2",
    b"X-A: 1\r\n ",
    b"X-A: 1\r\n \r\nX-B: 2",
    b" X-A: 1",
    b"\tX-A: 1",
    b"X-A: 1\r\n Content-Length: 5",
    b"X-A: 1\r\n Transfer-Encoding: chunked",
    # Space before the colon.
    b"X-A : 1",
    b"X-A\t: 1",
    b"Content-Length : 0",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    # No name, or none that is a token (RFC 9110 §5.6.2).
    b": 1",
    b":",
    b":: 1",
    b"X A: 1",
    b"X(A): 1",
    b'X"A: 1',
    b"X\x00A: 1",
    b"\x01X-A: 1",
    b"X-A\x7f: 1",
    b"X-\xe4: 1",
    b"Transfer-Encoding\xa0: chunked",
    b"Transfer-\x0bEncoding: chunked",
    b"no colon",
    # NUL is the one byte of a value that is as dangerous as CR and LF (RFC 9110 §5.5).
    b"X-A: 1\x002",
    b"X-A: \x00",
]

BAD_LENGTHS = [
    [b"Content-Length: 0", b"Content-Length: 0"],
    [b"Content-Length: 0", b"Content-Length: 5"],
    [b"Content-Length: 5", b"cONTENT-lENGTH: 0"],
    *(
        [b"Content-Length: " + value]
        for value in (
            *(b"", b"0, 0", b"0,5", b"+0", b"-0", b"-1", b"0x0", b"0 0", b"0;", b"0.0", b"1e0", b"a", b'"0"'),
            *(b"\x0b0", b"0\x0b", b"\xa00", b"\xb2", b"18446744073709551616", b"9" * 40),
        )
    ),
    # With chunked, in whatever order and of whatever value.
    [b"Content-Length: 0", b"Transfer-Encoding: chunked"],
    [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    [b"Transfer-Encoding: chunked", b"Content-Length: 5", b"Connection: Content-Length"],
]

BAD_CODINGS = [
    *(
        [b"Transfer-Encoding: " + value]
        for value in (
            *(b"", b",", b"gzip", b"identity", b"xchunked", b"chunkedx", b"gzip, chunked", b"chunked, gzip"),
            *(b"chunked, chunked", b"chunked,", b",chunked", b"identity, chunked", b"chunked;q=1", b"chunked foo"),
            *(b'"chunked"', b"\x0bchunked", b"chunked\x0b", b"\xa0chunked", b"chunked\x00", b"chun ked"),
        )
    ),
    [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"],
    [b"Transfer-Encoding: chunked", b"tRANSFER-eNCODING: identity"],
    [b"Transfer-Encoding:", b"Transfer-Encoding: chunked"],
]


@pytest.mark.parametrize("lines", [[line] for line in BAD_LINES] + BAD_LENGTHS + BAD_CODINGS, ids=repr)
async def test_a_malformed_header_section(proxy: RawProxy, lines: list[bytes]) -> None:
    """Rule 8: folded lines, space before the colon, bad names; lengths and codings that leave a body's end open."""
    body = b"0\r\n\r\n" if b"chunked" in b"".join(lines) else b""
    await proxy.refuses(proxy.request(TARGET, MARKED, *lines, b"X-After: 1", method=b"POST", body=body))


async def test_a_coding_in_capitals_is_chunked_or_refused(proxy: RawProxy) -> None:
    """Rule 8: names of codings have no case (RFC 9112 §7); whoever reads it differently smuggles."""
    sent = proxy.request(b"/raw/x", b"Transfer-Encoding: Chunked", method=b"POST", body=b"5\r\nhello\r\n0\r\n\r\n")
    answer = await proxy.bearward.raw(sent)
    if answer.status != 200:
        assert_problem(answer, 400, "bad_request")
        assert proxy.upstream.requests == []
    else:
        assert proxy.upstream.only_request.body == b"hello"


@pytest.mark.parametrize("lines", [[b"Transfer-Encoding: chunked"], [b"Transfer-Encoding: x"]], ids=repr)
async def test_no_transfer_coding_in_http_1_0(proxy: RawProxy, lines: list[bytes]) -> None:
    """Rule 8: RFC 9112 §6.1."""
    head = b"\r\n".join([b"POST " + TARGET + b" HTTP/1.0", proxy.host, MARKED, *lines, b"", b""])
    await proxy.refuses(head + b"0\r\n\r\n")


OTHER_VERSIONS = [b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/9.9"]


@pytest.mark.parametrize("version", OTHER_VERSIONS, ids=repr)
async def test_another_version(proxy: RawProxy, version: bytes) -> None:
    """Rule 8: only HTTP/1.0 and 1.1."""
    head = b"GET " + TARGET + b" " + version + b"\r\n" + proxy.host + b"\r\n\r\n"
    await proxy.refuses(head, 505, "version_not_supported")


async def test_the_preface_of_http_2(proxy: RawProxy) -> None:
    """Rule 8: who begins with HTTP/2 is told so in HTTP/1.1."""
    await proxy.refuses(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version_not_supported")


BAD_STARTS = [
    *(b"GET /raw/x", b"GET /raw/x ", b"GET", b"/raw/x HTTP/1.1", b"GET HTTP/1.1", b"GET  HTTP/1.1"),
    *(b"GET /raw/x http/1.1", b"GET /raw/x Http/1.1", b"GET /raw/x HTTP/1", b"GET /raw/x HTTP/1.", b"GET /raw/x HTTP"),
    *(b"GET /raw/x HTTP/11", b"GET /raw/x HTTP/1.10", b"GET /raw/x HTTP/01.1", b"GET /raw/x HTTP/1,1"),
    *(b"GET /raw/x HTTP/+1.1", b"GET /raw/x HTTP/a.b", b"GET /raw/x ICE/1.1", b"GET /raw/x RTSP/1.0"),
    *(b"GET /raw/x HTTP/1.1 x", b"GET /raw/x y HTTP/1.1", b"GET /raw/x HTTP/1.1 ", b"GET /raw/x HTTP /1.1"),
    *(b"GET\t/raw/x HTTP/1.1", b"GET /raw/x\tHTTP/1.1"),
    *(b" GET /raw/x HTTP/1.1", b"\tGET /raw/x HTTP/1.1", b"\x00GET /raw/x HTTP/1.1", b"GET\x0b/raw/x HTTP/1.1"),
    *(b"get /raw/x HTTP/1.1", b"UNHEARD-OF /raw/x HTTP/1.1", b"GE(T /raw/x HTTP/1.1", b"G\xe4T /raw/x HTTP/1.1"),
    *(b"HTTP/1.1 200 OK", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x80\x2e\x01\x00\x02", b"nonsense"),
]


@pytest.mark.parametrize("start", BAD_STARTS, ids=repr)
async def test_a_malformed_request_line(proxy: RawProxy, start: bytes) -> None:
    """Rule 8 and Rule 7: RFC 9112 §3; methods that llhttp does not know."""
    async with proxy.bearward.connect() as connection:
        await connection.send(start + b"\r\n" + proxy.host + b"\r\n" + MARKED + b"\r\n\r\n")
        async with asyncio.timeout(AT_ONCE):
            answer = await wire.read_answer(connection.reader)
            assert await connection.reader.read() == b""
    assert_problem(answer, *((400, "bad_request") if answer.status == 400 else (505, "version_not_supported")))
    assert answer.values("Connection") == [b"close"]
    assert MARK not in answer.raw
    assert proxy.upstream.requests == []


async def test_an_empty_line_before_a_request_is_skipped(proxy: RawProxy) -> None:
    """Rule 8: RFC 9112 §2.2; some clients end a body with one CRLF too many."""
    async with proxy.bearward.connect() as connection:
        for _ in range(2):
            assert (await connection.exchange(b"\r\n" + proxy.request(b"/raw/x"))).status == 200


@pytest.mark.parametrize("expectation", [b"x", b"200-ok", b"100-continue=x", b"100-continue, x"], ids=repr)
async def test_another_expectation(proxy: RawProxy, expectation: bytes) -> None:
    """Rule 8: an Expect other than 100-continue."""
    lines = [b"Expect: " + expectation, b"Content-Length: 5"]
    await proxy.refuses(proxy.request(TARGET, MARKED, *lines, method=b"POST"), 417, "expectation_failed")


IN_PIECES = [
    (START + b"\r\nHOST\r\nX-A : 1\r\n\r\n", 400),
    (START + b"\r\nHOST\r\nX-A: 1\r\n 2\r\n\r\n", 400),
    (START + b"\r\nHOST\r\nX-A: 1\r\r\n\r\n", 400),
    (START + b"\r\nHOST\r\nX-A: 1\n\r\n\r\n", 400),
    (START + b"\r\nHOST\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"GET /raw/x HTTP/1.2\r\nHOST\r\n\r\n", 505),
]


@pytest.mark.parametrize(("sent", "status"), IN_PIECES, ids=repr)
async def test_a_malformed_head_byte_by_byte(proxy: RawProxy, sent: bytes, status: int) -> None:
    """Rule 8: a fault is one wherever its bytes are parted."""
    async with proxy.bearward.connect() as connection:
        for byte in filled(sent, proxy):
            connection.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await wire.read_answer(connection.reader)).status == status
        await connection.closed()
    assert proxy.upstream.requests == []


BODIES = [(b"Content-Length: 5", b"hello"), (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")]


@pytest.mark.parametrize(("framing", "body"), BODIES, ids=["length", "chunked"])
async def test_a_request_may_come_in_any_two_pieces(proxy: RawProxy, framing: bytes, body: bytes) -> None:
    """Rule 8 and Rule 10: where a request is parted changes nothing."""
    sent = proxy.request(b"/raw/x", framing, method=b"POST", body=body)
    async with proxy.bearward.connect() as connection:
        for cut in range(1, len(sent)):
            proxy.upstream.reset()
            await connection.send(sent[:cut])
            await asyncio.sleep(0.001)  # the first piece should be read alone, and nobody tells that it was
            assert (await connection.exchange(sent[cut:])).status == 200
            assert proxy.upstream.only_request.body == b"hello"


def chunked_then(end: bytes) -> wire.Script:
    async def script(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + end)
        await writer.drain()

    return script


async def test_an_http_1_0_client_is_not_sent_chunks(proxy: RawProxy) -> None:
    """Rule 10: an answer of unknown length ends with the connection (RFC 9112 §6.3)."""
    proxy.upstream.script = chunked_then(b"0\r\n\r\n")
    async with proxy.bearward.connect() as connection:
        answer = await connection.exchange(b"GET /raw/x HTTP/1.0\r\n" + proxy.host + b"\r\n\r\n")
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.values("Transfer-Encoding") == []


async def test_a_truncated_answer_to_an_http_1_0_client_is_a_reset(proxy: RawProxy) -> None:
    """Rule 9: an end would be the sign that it is whole."""
    proxy.upstream.script = chunked_then(b"")
    async with proxy.bearward.connect() as connection:
        await connection.send(b"GET /raw/x HTTP/1.0\r\n" + proxy.host + b"\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await connection.reader.read()


async def test_an_http_1_0_connection_ends_unless_it_asks_otherwise(proxy: RawProxy) -> None:
    """Rule 10: the framing of connections, too, is that of the client's version (RFC 9112 §9.3)."""
    start = b"GET /raw/x HTTP/1.0\r\n" + proxy.host + b"\r\n"
    async with proxy.bearward.connect() as connection:
        kept = await connection.exchange(start + b"Connection: keep-alive\r\n\r\n")
        if kept.values("Connection") == [b"keep-alive"]:
            await connection.exchange(start + b"\r\n")
        assert await connection.closed() == b""
