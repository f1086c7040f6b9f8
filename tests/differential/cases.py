"""Raw requests written by hand: what ../shared/http-rules.md implies, and plain ones that every proxy must forward."""

from collections.abc import Iterator

from .lanes import OWN_HOST

HOST = b"Host: " + OWN_HOST
TARGET = b"/eu8/x"


def request(
    *lines: bytes,
    method: bytes = b"GET",
    target: bytes = TARGET,
    version: bytes = b"HTTP/1.1",
    host: bytes | None = HOST,
    body: bytes = b"",
) -> bytes:
    """A request of exactly these lines, and a Host before them."""
    start = method + b" " + target + b" " + version
    return b"\r\n".join([start, *([] if host is None else [host]), *lines, b"", body])


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return request(*lines, method=b"POST", body=body)


def _table(items: bytes) -> list[bytes]:
    """What stands between the bars; OWN is the proxy's address."""
    return items.replace(b"OWN", OWN_HOST).split(b" | ")


LENGTH = b"Content-Length: 5"
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
SECOND = request(target=b"/eu8/second")

PLAIN = [
    request(),
    request(target=b"/eu8/"),
    request(target=b"/eu8/x?q=1&r=%2F..%00;[]"),
    request(target=b"/eu8/%C3%A9/%7Etilde;v=1/@:!$&'()*+,=-._~"),
    request(b"Accept: */*", b"User-Agent: none", b"Cookie: a=1; b=2"),
    request(b"X-Empty:", b"X-Spaced: \t value \t ", b"x-CASE: 1", b"X-Twice: 1", b"X-Twice: 2"),
    request(b"X-Obs-Text: D\xc3\xbcsseldorf \xff"),
    request(b"Connection: close"),
    request(b"Connection: keep-alive, X-Mine", b"X-Mine: 1"),
    request(b"Connection: Authorization", b"Authorization: Bearer mine"),
    request(b"Authorization: Basic bWluZTptaW5l"),
    request(version=b"HTTP/1.0"),
    request(b"Connection: keep-alive", version=b"HTTP/1.0"),
    request(host=b"hOsT:" + OWN_HOST),
    request(method=b"HEAD"),
    request(method=b"OPTIONS"),
    request(method=b"DELETE"),
    request(method=b"PUT", body=b"") + SECOND,
    request() + SECOND,
    post(LENGTH, body=b"hello"),
    post(LENGTH, body=b"hello") + SECOND,
    post(b"Content-Length: 0"),
    post(b"Content-Length: 0005", body=b"hello"),
    post(b"content-length:5", body=b"hello"),
    post(b"Content-Length: 5", b"Expect: 100-continue", body=b"hello"),
    post(CHUNKED, body=CHUNKS),
    post(CHUNKED, body=CHUNKS) + SECOND,
    post(CHUNKED, body=b"0\r\n\r\n"),
    post(b"TRANSFER-encoding: Chunked", body=b"00a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n"),
    post(CHUNKED, body=b"5;name=value\r\nhello\r\n0\r\n\r\n"),
    request(method=b"PATCH", body=b"{}", target=b"/eu8/p").replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n", 1),
    b"\r\n" + request(),
]
"""Every proxy must forward these."""

_FRAMINGS = _table(
    b"Content-Length: 5\r\nContent-Length: 5 | Content-Length: 5\r\nContent-Length: 6"
    b" | Content-Length: 6\r\nContent-Length: 5 | Content-Length: 5, 5 | Content-Length: 5,6 | Content-Length: +5"
    b" | Content-Length: -5 | Content-Length: 0x5 | Content-Length: 5_0 | Content-Length: 5 0 | Content-Length: 5;"
    b' | Content-Length: 5. | Content-Length: | Content-Length: "5" | Content-Length: 5\x0b'
    b" | Content-Length: \xef\xbc\x95 | Content-Length: 18446744073709551621 | Content-Length: 9223372036854775813"
    b" | Content-Length: 1e1 | Content-Length : 5 | Content-Length\t: 5 |  Content-Length: 5 | \tContent-Length: 5"
    b" | Content_Length: 5 | Content-Length\x00: 5 | Content-Length\xa0: 5 | Content-Length: 5\r"
    b" | X: 1\nContent-Length: 5 | X: 1\rContent-Length: 5 | X: 1\r\n Content-Length: 5 | Content-Length:\r\n 5"
    b" | Content-Length: 5\r\n 0 | Content-Length: 5\x00 | Content-Length: 05, 5"
    b" | Content-Length: 5\r\nTransfer-Encoding: chunked | Transfer-Encoding: chunked\r\nContent-Length: 5"
    b" | Content-Length: 0\r\nTransfer-Encoding: chunked | Content-Length: 5\r\nTransfer-Encoding: identity"
    b" | Content-Length: 5\r\nTransfer-Encoding: | Content-Length: 5\r\nTransfer-Encoding: xchunked"
    b" | Content-Length: 5\r\nTransfer-Encoding: gzip | Content-Length: 5\r\nTransfer-Encoding : chunked"
    b" | Content-Length: 5\r\n Transfer-Encoding: chunked | Content-Length: 5\r\nConnection: Content-Length"
    b" | Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding | Content-Length: 5\r\nTE: trailers"
    b" | Content-Length: 5\r\nTransfer-Encoding: chunked\x00 | Content-Length: 5\r\nTransfer_Encoding: chunked"
    b" | Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked | Transfer-Encoding: chunked, chunked"
    b" | Transfer-Encoding: gzip, chunked | Transfer-Encoding: chunked, gzip | Transfer-Encoding: chunked, identity"
    b" | Transfer-Encoding: | Transfer-Encoding: identity, chunked | Transfer-Encoding: identity"
    b" | Transfer-Encoding: cow | Transfer-Encoding: gzip | Transfer-Encoding: xchunked"
    b" | Transfer-Encoding: chunkedx | Transfer-Encoding: ,chunked | Transfer-Encoding: chunked,"
    b" | Transfer-Encoding: chunked;q=1 | Transfer-Encoding: \"chunked\" | Transfer-Encoding: 'chunked'"
    b" | Transfer-Encoding: chunk | Transfer-Encoding: chunked x | Transfer-Encoding: x chunked"
    b" | Transfer-Encoding: chunked\x0b | Transfer-Encoding: \x0bchunked | Transfer-Encoding: chunked\x85"
    b" | Transfer-Encoding: \xa0chunked | Transfer-Encoding : chunked | Transfer-Encoding\t: chunked"
    b" | Transfer-Encoding\x0b: chunked |  Transfer-Encoding: chunked | Transfer-Encoding:\r\n chunked"
    b" | Transfer-Encoding: chunked\r\n x | Transfer-Encoding: chunked\r | X: 1\nTransfer-Encoding: chunked"
    b" | X: 1\rTransfer-Encoding: chunked | Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"
    b" | Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip | Transfer-Encoding: chunked\r\nTransfer-Encoding:"
    b" | Transfer_Encoding: chunked | Transfer-\xc4\xb0ncoding: chunked | Transfer-Encoding\x00: chunked"
    b" | Transfer-Encoding: Chunked | Transfer-Encoding:chunked | Transfer-Encoding:\tchunked"
    b" | Transfer-Encoding:  chunked   | TRANSFER-ENCODING: CHUNKED | Transfer-Encoding: ch\xc5\xabnked"
)

_CHUNK_BODIES = _table(
    b"5\nhello\r\n0\r\n\r\n | 5\rhello\r\n0\r\n\r\n | 5\r\nhello\n0\r\n\r\n | 5\r\nhello\r0\r\n\r\n"
    b" | 5\r\nhello0\r\n\r\n | 5\r\nhello\r\n0\n\n | 5\r\nhello\r\n0\r\n\n | 5\r\nhello\r\n0\r\nX: 1\n\r\n"
    b" | 5\r\nhello\r\n0\r\n\r\r\n | 5 \r\nhello\r\n0\r\n\r\n | 5\t\r\nhello\r\n0\r\n\r\n"
    b" |  5\r\nhello\r\n0\r\n\r\n | +5\r\nhello\r\n0\r\n\r\n | -5\r\nhello\r\n0\r\n\r\n | 0x5\r\nhello\r\n0\r\n\r\n"
    b" | 5h\r\nhello\r\n0\r\n\r\n | 5.0\r\nhello\r\n0\r\n\r\n | 5,\r\nhello\r\n0\r\n\r\n | \r\nhello\r\n0\r\n\r\n"
    b" | g\r\nhello\r\n0\r\n\r\n | 4\r\nhello\r\n0\r\n\r\n | 6\r\nhello\r\n0\r\n\r\n"
    b" | 00000000000000005\r\nhello\r\n0\r\n\r\n | 10000000000000005\r\nhello\r\n0\r\n\r\n"
    b" | fffffffffffffffff\r\nhello\r\n0\r\n\r\n | ffffffffffffffff\r\nhello\r\n0\r\n\r\n"
    b" | 8000000000000005\r\nhello\r\n0\r\n\r\n | 5;\r\nhello\r\n0\r\n\r\n | 5;a\r\nhello\r\n0\r\n\r\n"
    b' | 5 ;a=1\r\nhello\r\n0\r\n\r\n | 5; a = 1\r\nhello\r\n0\r\n\r\n | 5;a="b\\"c"\r\nhello\r\n0\r\n\r\n'
    b' | 5;a="b\r\nhello\r\n0\r\n\r\n | 5;a=b\nc\r\nhello\r\n0\r\n\r\n | 5;a=b\rc\r\nhello\r\n0\r\n\r\n'
    b" | 5;a\x00b\r\nhello\r\n0\r\n\r\n | 5;a\x01b\r\nhello\r\n0\r\n\r\n | 5;a\xffb\r\nhello\r\n0\r\n\r\n"
    b" | 5\x00\r\nhello\r\n0\r\n\r\n | 5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"
    b" | 5\r\nhello\r\n0\r\nHost: evil.example\r\nAuthorization: mine\r\nContent-Length: 9\r\n\r\n"
    b" | 5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n | 5\r\nhello\r\n0\r\nX Trailer: 1\r\n\r\n"
    b" | 5\r\nhello\r\n0\r\nX-Trailer : 1\r\n\r\n | 5\r\nhello\r\n0\r\n: 1\r\n\r\n"
    b" | 5\r\nhello\r\n0\r\nnonsense\r\n\r\n | 5\r\nhello\r\n0\r\nX: a\x00b\r\n\r\n"
    b" | 5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n | 5\r\nhello\r\n00\r\n\r\n | 5\r\nhello\r\n0;a=1\r\n\r\n"
    b" | 5\r\nhello\r\n-0\r\n\r\n | 5\r\nhello\r\n0 \r\n\r\n | 5\r\nhello\r\n0\r\n | 5\r\nhello\r\n | 5\r\nhel | "
)
_CHUNK_BODIES += [
    b"5;" + b"a" * 20_000 + b"\r\nhello\r\n0\r\n\r\n",
    b"1;a=1\r\nh\r\n" * 3000 + b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"5\r\nhello\r\n0\r\n" + b"X: 1\r\n" * 5000 + b"\r\n",
]

_LINES = _table(
    b"X-A : 1 | X-A\t: 1 | X-A\x0b: 1 |  X-A: 1 | \tX-A: 1 | : 1 |  : 1 |  | X-A | X A: 1 | X-A:1"
    b" | X-A: 1\r\n folded | X-A: 1\r\n\tfolded | X-A:\r\n folded | X-A: 1\r\n \r\n x | X-A: 1\r\n\r | X-A: 1\r"
    b" | X-A: 1\nX-B: 2 | X-A: 1\rX-B: 2 | X-A: 1\n | X-A: 1\n\nGET /eu8/second HTTP/1.1 | X-A: 1\r\rX-B: 2"
    b" | X-A: 1\n\r\nX-B: 2 | X-A: 1\r\r\nX-B: 2 | X-A: \nX-B: 2 | X-A:\rX-B: 2 | X-\nA: 1 | X-\rA: 1 | X-A: a\x00b"
    b" | X-A: \x00 | X-\x00A: 1 | \x00X-A: 1 | X-A\x00: 1 | X-A: a\x01b | X-A: a\x7fb | X-A: \x0b | X-A: a\x08b"
    b" | X-A: a\x1bb | X-A: a\tb | X-A: \x80\xff | X-\xc3\xa9: 1 | X-\xff: 1 | X-\x01: 1 | X-\x7f: 1 | X(A): 1"
    b' | X[A]: 1 | X{A}: 1 | X@A: 1 | X/A: 1 | X;A: 1 | X,A: 1 | X=A: 1 | X"A: 1 | X<A>: 1 | X?A: 1 | X\\A: 1'
    b" | X|A: 1 | X~A: 1 | X_A: 1 | X.A: 1 | X!#$%&'*+^`: 1 | X-A: : | X-A:: 1 | :: | -: 1"
    b" | Connection: Authorization, Host | Connection: close, keep-alive | Connection: | Connection: ,,"
    b" | Connection: X-A\r\nX-A: 1 | Connection: \x00 | Connection: a b | Connection: Content-Length"
    b" | Connection: Cookie\r\nCookie: a=1 | Connection: @ | Proxy-Connection: keep-alive | Keep-Alive: timeout=5"
    b" | TE: trailers | TE: gzip, trailers\r\nConnection: TE | Trailer: X-A | Connection: X-Forwarded-For"
    b" | X-Forwarded-For: 10.0.0.1 | Forwarded: for=10.0.0.1 | X-Forwarded-Host: evil.example"
    b" | Connection: Upgrade\r\nUpgrade: h2c"
    b" | Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"
    b" | Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"
    b"\r\nSec-WebSocket-Key: MTIzNDU2Nzg5MGFiY2RlZg=="
    b" | Connection: Upgrade\r\nUpgrade: h2c, websocket | Upgrade: websocket"
    b" | Upgrade: TLS/1.0\r\nConnection: upgrade | Authorization: Bearer mine"
    b" | Authorization: a\r\nAuthorization: b | authorization : Bearer mine | Authorization:"
    b" | Proxy-Authorization: Basic bWluZTptaW5l | Authorization\x00: mine | AUTHORIZATION: mine"
    b" | Authorization_: mine | Expect: 100-continue | Expect: 200-ok | Expect: 100-Continue | Expect:"
    b" | Expect: 100-continue, x | Expect: x=y | Expect: 100-continue\r\nExpect: 100-continue"
    b" | Expect : 100-continue | Expect: 100-continue\x00 | Range: bytes=0-,0-"
    b" | Content-Type: a/b\r\nContent-Type: c/d | Max-Forwards: 0 | Cookie: a\r\nCookie: b | Origin: null"
    b" | Origin: https://evil.example | Sec-Fetch-Site: cross-site | X-HTTP-Method-Override: DELETE"
)
_LINES += [b"X-A: " + b"a" * 60_000, b"X-A: " + b"a" * 70_000, b"X" * 70_000 + b": 1"]
_LINES += [b"X-A: 1\r\n" * count + b"X-B: 1" for count in (900, 1100)]

_HOSTS = _table(
    b"Host: | Host:  | Host: OWN\r\nHost: OWN | Host: OWN\r\nHost: evil.example | Host: evil.example\r\nHost: OWN"
    b" | Host : OWN | Host\t: OWN |  Host: OWN | X: 1\r\n Host: OWN | Host:\r\n OWN | Host: OWN\r\n evil.example"
    b" | Host: OWN, evil.example | Host: OWN\x00 | Host: OWN\x00evil | Host: \x00OWN | Host: OWN/ | Host: OWN/eu8"
    b" | Host: OWN? | Host: OWN# | Host: a@OWN | Host: OWN@evil.example | Host: OWN:80 | Host: http://OWN"
    b" | Host: [::1 | Host: ::1 | Host: [::1]:54321x | Host: 127.0.0.1:port | Host: 127.0.0.1:-1"
    b" | Host: 127.0.0.1:65536 | Host: 127.0.0.1:999999 | Host: 127.0.0.1: | Host: two words | Host: a\tb"
    b" | Host: <a> | Host: a\xffb | Host: \xd0\xb0.example | Host: %31 | Host: a_b | Host: . | Host: a..b | Host: -"
    b" | Host: a,b | Host: \\ | Host: OWN\nX: 1 | Host: OWN\rX: 1 | Host: OWN\r | Host: OWN\x7f | Host: OWN\x01"
    b" | Host: OWN  | Host:\tOWN | HOST: OWN | Host: localhost:54321 | Host: 0.0.0.0 | Host: 127.1"
    b" | Host: 2130706433 | H\x00ost: OWN | \x00Host: OWN"
)

_TARGETS = _table(
    b"* | x | eu8/x | ? | # | / | // | //eu8/x | /eu8 | /eu8?q | /eu8x | /EU8/x | /%65u8/x | \\eu8\\x | /eu8\\x"
    b" | http://OWN/eu8/x | HTTP://OWN/eu8/x | https://OWN/eu8/x | http:/eu8/x | http:///eu8/x"
    b" | http://evil.example/eu8/x | http://OWN | http://OWN?/eu8/x | http://a@OWN/eu8/x"
    b" | http://OWN@evil.example/eu8/x | http://[::1]:54321/eu8/x | http://\x00/eu8/x | ftp://a/eu8/x"
    b" | http://OWN\\/eu8/x | http:\\\\OWN/eu8/x | http://OWN#/eu8/x | ://a/eu8/x | OWN | @evil.example/eu8/x"
    b" | :80/eu8/x | //evil.example/eu8/x | javascript:/eu8/x | http://a b/eu8/x | http://evil.example,x/eu8/x"
    b" | http://evil.example:99999/eu8/x | http://a:b:c/eu8/x | http://%/eu8/x | /eu8/../x | /eu8/.. | /eu8/."
    b" | /eu8/./x | /eu8/x/.. | /eu8/x/../../.. | /../eu8/x | /eu8/... | /eu8/.x | /eu8/x. | /eu8/%2e%2e/x"
    b" | /eu8/%2E%2E/x | /eu8/.%2e/x | /eu8/%2e./x | /eu8/%2e/x | /eu8/%252e%252e/x | /eu8/%25252e%25252e/x"
    b" | /eu8/..;/x | /eu8/..;a=1/x | /eu8/.;/x | /eu8/%2e%2e;/x | /eu8/..%3b/x | /eu8/..%2fx | /eu8/..%5cx"
    b" | /eu8/..\\x | /eu8/x\\..\\y | /eu8\\..\\x | /eu8/..%252fx | /eu8/..%255cx | /eu8/..%c0%afx"
    b" | /eu8/%c0%ae%c0%ae/x | /eu8/%e0%80%ae/x | /eu8/..%00/x | /eu8/..%09/x | /eu8/..%20/x | /eu8/..?x"
    b" | /eu8/..#x | /eu8/x?/../y | /eu8//../x | /eu8/%2e%2e%2fx | /eu8.. | /eu8..;/x | /eu8%2f..%2fx"
    b" | /eu8/%uff0e%uff0e/x | /eu8/\xc0\xae\xc0\xae/x | /eu8/%ef%bc%8e/x | /eu8;/../x | /eu8/%2f | /eu8/%2F"
    b" | /eu8/a%2fb | /eu8/%5c | /eu8/%00 | /eu8/a%00b | /eu8/% | /eu8/%2 | /eu8/%zz | /eu8/%% | /eu8/%u002e"
    b" | /eu8/%0d%0aX:1 | /eu8/%0a | /eu8/%20 | /eu8/%7f | /eu8/%80 | /eu8/%ff | /eu8/%252f | /eu8/%2500 | /eu8%2fx"
    b" | /eu8%00/x | /eu8/a\x00b | /eu8/\x00 | /eu8/a\x01b | /eu8/a\x7fb | /eu8/a\tb | /eu8/a\x0bb | /eu8/a\x0cb"
    b" | /eu8/a\rb | /eu8/a\nb | /eu8/a b | /eu8/ x | /eu8/x  |  /eu8/x | \t/eu8/x | /eu8/x?a b | /eu8/x\t"
    b' | /eu8/x?a\tb | /eu8/x?a\x00b | /eu8/x?a\x01b | /eu8/\xc3\xa9 | /eu8/\xff | /eu8/x?\xff | /eu8/"x"'
    b" | /eu8/<x> | /eu8/{x} | /eu8/x|y | /eu8/x^y | /eu8/x`y | /eu8/[x] | /eu8/x#f | /eu8/x?q#f | /eu8/#"
    b" | /eu8/x?q%23f | /eu8//x | /eu8/// | /eu8/x//y | /eu8/;x | /eu8/x;y=1 | /eu8/:x | /eu8/@x | /eu8/x?%"
    b" | /eu8/x?%00 | /eu8/x?%zz | /eu8/x?? | /eu8/x?a=b;c | /eu8/x?\\"
)
_TARGETS += [b"/eu8/" + b"a" * 7000, b"/eu8/" + b"a" * 17_000, b"/eu8/x?" + b"a" * 66_000]

_VERSIONS = _table(
    b" | HTTP/0.9 | HTTP/1.0 | HTTP/1.2 | HTTP/1.9 | HTTP/2.0 | HTTP/2 | HTTP/3.0 | HTTP/0.0 | HTTP/9.9 | HTTP/1.10"
    b" | HTTP/01.1 | HTTP/1.01 | HTTP/1 | HTTP/1. | HTTP/.1 | HTTP/11 | HTTP/1,1 | HTTP/1.1.1 | HTTP/1 .1"
    b" | HTTP/ 1.1 | HTTP /1.1 | http/1.1 | Http/1.1 | HTTPS/1.1 | HTP/1.1 | XHTTP/1.1 | ICE/1.0 | RTSP/1.0"
    b" | HTTP/1.1  |  HTTP/1.1 | \tHTTP/1.1 | HTTP/1.1\t | HTTP/1.1 x | x HTTP/1.1 | HTTP/1.1 HTTP/1.1"
    b" | HTTP/1.1\x00 | HTTP/1.1\r | HTTP/-1.1 | HTTP/+1.1 | HTTP/1.1; | HTTP\\1.1 | HTTP/\xb9.1"
)

_METHODS = _table(
    b"get | Get | GET\t | GET  |  GET | \tGET | G ET | G\x00T | GE\x01T | GET\x00 |  | G\xc9T | GET: | G(T"
    b' | "GET" | GET, | PROPFIND | MKCOL | REPORT | M-SEARCH | PURGE | QUERY | PRI | BREW | FOO'
    b" | TRACE | TRACK | CONNECT | DEBUG | HTTP/1.1 | OPTIONS | PATCH | LINK | X-METHOD | X_METHOD | GET/ | <GET>"
    b" | GET\x7f | \xffGET | \nGET | \rGET | \r\n\r\nGET | \n\nGET | \x16\x03\x01"
)
_METHODS += [b"A" * 300]

_WHOLE_MESSAGES = [
    b"GET /eu8/x\r\n",
    b"GET /eu8/x\r\n\r\n",
    b"GET /eu8/x\n",
    b"GET\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"\x00" * 8,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"GET  /eu8/x  HTTP/1.1\r\n" + HOST + b"\r\n\r\n",
    b"GET\t/eu8/x\tHTTP/1.1\r\n" + HOST + b"\r\n\r\n",
    b"GET\x0b/eu8/x\x0cHTTP/1.1\r\n" + HOST + b"\r\n\r\n",
    b"GET /eu8/x HTTP/1.1\n" + HOST + b"\n\n",
    b"GET /eu8/x HTTP/1.1\r" + HOST + b"\r\r",
    b"GET /eu8/x HTTP/1.1\r\n" + HOST + b"\n\r\n",
    b"GET /eu8/x HTTP/1.1\r\n" + HOST + b"\r\n\n",
    b"GET /eu8/x HTTP/1.1\n" + HOST + b"\r\n\r\n",
    b"GET /eu8/x HTTP/1.1\r\n " + HOST + b"\r\n\r\n",
    b"GET /eu8/x HTTP/1.1\r\n \r\n" + HOST + b"\r\n\r\n",
    b"GET /eu8/x HTTP/1.1\r\n\r\n" + HOST + b"\r\n\r\n",
    request() + b"\n" + SECOND,
    request() + b"\r\n" + SECOND,
    request() + b"\r\n\r\n\r\n" + SECOND,
    request() + b"\r" + SECOND,
    request() + b" " + SECOND,
    request() + b"\x00" + SECOND,
    request() + b"garbage\r\n\r\n" + SECOND,
    request(b"Connection: close") + SECOND,
    request(b"CONNECTION: Foo,CLOSE") + SECOND,
    request(version=b"HTTP/1.0") + SECOND,
    request(LENGTH, body=b"hello") + SECOND,
    request(LENGTH) + SECOND,
    request(CHUNKED, body=CHUNKS) + SECOND,
    request(LENGTH, method=b"HEAD", body=b"hello") + SECOND,
    request(method=b"OPTIONS", target=b"*") + SECOND,
    request(method=b"TRACE") + SECOND,
    request(method=b"CONNECT", target=OWN_HOST) + SECOND,
    request(method=b"CONNECT", target=b"evil.example:443") + SECOND,
    request(b"Content-Length: 0", method=b"CONNECT", target=TARGET) + SECOND,
    request(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13") + SECOND,
    request(b"Connection: Upgrade", b"Upgrade: h2c", LENGTH, method=b"POST", body=b"hello") + SECOND,
    request(b"Connection: Upgrade", b"Upgrade: websocket", CHUNKED, method=b"POST", body=CHUNKS) + SECOND,
    request(target=b"/nowhere") + SECOND,
    request(LENGTH, method=b"POST", target=b"/nowhere", body=b"hello") + SECOND,
    request(LENGTH, method=b"POST", target=b"/nowhere", body=SECOND) + SECOND,
    request(CHUNKED, method=b"POST", target=b"/nowhere", body=CHUNKS) + SECOND,
    request(CHUNKED, method=b"POST", target=b"/eu8/../x", body=CHUNKS) + SECOND,
    request(b"Expect: nonsense", LENGTH, method=b"POST", body=b"hello") + SECOND,
    request(b"Expect: 100-continue", LENGTH, method=b"POST", body=b"hello") + SECOND,
    post(b"Content-Length: %d" % len(SECOND), body=SECOND) + SECOND,
    post(b"Content-Length: 100000", body=b"a" * 100_000) + SECOND,
    post(b"Content-Length: 100000", body=b"a" * 99_999),
    post(CHUNKED, body=b"%x\r\n%b\r\nnonsense\r\n" % (100_000, b"a" * 100_000)),
    post(CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (100_000, b"a" * 100_000)) + SECOND,
    post(LENGTH, CHUNKED, body=CHUNKS) + SECOND,
    request(CHUNKED, method=b"POST", version=b"HTTP/1.0", body=CHUNKS) + SECOND,
    request(b"Connection: keep-alive", CHUNKED, method=b"POST", version=b"HTTP/1.0", body=CHUNKS) + SECOND,
    request(LENGTH, b"Connection: keep-alive", method=b"POST", version=b"HTTP/1.0", body=b"hello") + SECOND,
    *(request()[:cut] for cut in (1, 3, 10, 23, 24, 25, 40, -3, -2, -1)),
]


def by_hand() -> Iterator[bytes]:
    """All but the plain ones. What may leave a second request behind is followed by one."""
    for lines in _FRAMINGS:
        for body in (b"hello", CHUNKS, b""):
            yield post(lines, body=body) + SECOND
        yield request(lines, body=CHUNKS)
    for body in _CHUNK_BODIES:
        yield post(CHUNKED, body=body)
        yield post(CHUNKED, body=body) + SECOND
    for line in _LINES:
        yield request(line)
        yield post(line, LENGTH, body=b"hello")
    yield from (request(host=host) for host in (None, *_HOSTS))
    yield from (request(target=target) for target in _TARGETS)
    yield from (request(host=host, target=b"http://" + OWN_HOST + TARGET) for host in (None, *_HOSTS))
    yield from (request(version=version) for version in _VERSIONS)
    yield from (request(method=method) for method in _METHODS)
    yield from _WHOLE_MESSAGES
