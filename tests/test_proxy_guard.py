"""Who may ask, and with which method: Rule 1, Rule 2, Rule 3 and Rule 7."""

import socket
import stat
from pathlib import Path

import pytest

from configs import atlas_config
from harness import Bearward
from problems import assert_problem
from rawproxy import ORIGIN, RawProxy, raw_proxy
from vendors.atlas import Atlas
from wire import Connection

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWN_NAMES = ["127.0.0.1", "localhost", "LocalHost", "[::1]", "127.0.0.2", "proxy.internal", "PROXY.internal"]

FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:PORT",
    "127.0.0.1",
    "localhost",
    "127.0.0.1:1",
    "localhost:1",
    "127.1:PORT",
    "2130706433:PORT",
    "0x7f000001:PORT",
    "0x7f.0.0.1:PORT",
    "0177.0.0.1:PORT",
    "127.0.0.01:PORT",
    "localhost.:PORT",
    "127.0.0.1.:PORT",
    "0.0.0.0:PORT",
    "[::]:PORT",
    "[::ffff:127.0.0.1]:PORT",
    "[0:0:0:0:0:0:0:2]:PORT",
    "localhost.evil.example:PORT",
    "proxy.internal",
    "proxy.internal:1",
    "proxy.example",
    "proxy.example:PORT",
]

NO_HOSTS = [
    "",
    " ",
    "two words:PORT",
    "127.0.0.1:PORT:PORT",
    "127.0.0.1:port",
    "127.0.0.1:-1",
    "127.0.0.1:99999",
    "[::1",
    "::1",
    "user@127.0.0.1:PORT",
    "127.0.0.1:PORT/path",
    "127.0.0.1:PORT,127.0.0.1:PORT",
    "http://127.0.0.1:PORT",
    ":PORT",
]


def with_port(text: str, proxy: RawProxy) -> bytes:
    return text.replace("PORT", str(proxy.bearward.port)).encode()


@pytest.mark.parametrize("name", OWN_NAMES)
async def test_a_host_of_ours(proxy: RawProxy, name: str) -> None:
    host = with_port(f"Host: {name}:PORT", proxy)
    assert (await proxy.bearward.raw(proxy.request(b"/raw/x", host=host))).status == 200
    assert proxy.upstream.only_request.values("Host") == [proxy.upstream.host]


async def test_an_allowed_host_with_a_port_of_its_own(proxy: RawProxy) -> None:
    assert (await proxy.bearward.raw(proxy.request(b"/raw/x", host=b"Host: proxy.example:8443"))).status == 200


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_a_foreign_host(proxy: RawProxy, host: str) -> None:
    answer = await proxy.bearward.raw(proxy.request(b"/raw/x", host=with_port(f"Host: {host}", proxy)))
    assert_problem(answer, 421, "host_not_allowed")
    assert proxy.upstream.requests == []


@pytest.mark.parametrize("host", NO_HOSTS)
async def test_a_host_that_is_none(proxy: RawProxy, host: str) -> None:
    answer = await proxy.bearward.raw(proxy.request(b"/raw/x", host=with_port(f"Host: {host}", proxy)))
    assert_problem(answer, 400, "bad_request")
    assert proxy.upstream.requests == []


async def test_no_host(proxy: RawProxy) -> None:
    assert_problem(await proxy.bearward.raw(b"GET /raw/x HTTP/1.1\r\n\r\n"), 400, "bad_request")
    assert proxy.upstream.requests == []


async def test_no_host_in_http_1_0(proxy: RawProxy) -> None:
    """Rule 1: HTTP/1.0 allows it, but a page's old browser is not to be trusted either."""
    await proxy.refuses(b"GET /raw/x HTTP/1.0\r\n\r\n")


async def test_two_hosts(proxy: RawProxy) -> None:
    for second in (proxy.host, b"hOST: evil.example"):
        assert_problem(await proxy.get(b"/raw/x", second), 400, "bad_request")
    assert proxy.upstream.requests == []


async def test_an_absolute_target_is_routed_by_its_path(proxy: RawProxy) -> None:
    target = with_port("http://localhost:PORT/raw/x?y=%7e", proxy)
    assert (await proxy.get(target)).status == 200
    seen = proxy.upstream.only_request
    assert seen.target == b"/base/x?y=%7e"
    assert seen.values("Host") == [proxy.upstream.host]


@pytest.mark.parametrize(
    ("authority", "host", "status", "code"),
    [
        ("evil.example", "127.0.0.1:PORT", 421, "host_not_allowed"),
        ("127.0.0.1:PORT", "evil.example", 421, "host_not_allowed"),
        ("127.0.0.1:1", "127.0.0.1:PORT", 421, "host_not_allowed"),
        ("127.0.0.1", "127.0.0.1:PORT", 421, "host_not_allowed"),
        ("127.1:PORT", "127.0.0.1:PORT", 421, "host_not_allowed"),
        ("2130706433:PORT", "127.0.0.1:PORT", 421, "host_not_allowed"),
        ("localhost.:PORT", "127.0.0.1:PORT", 421, "host_not_allowed"),
        ("0.0.0.0:PORT", "127.0.0.1:PORT", 421, "host_not_allowed"),
        ("127.0.0.1:PORT", "", 400, "bad_request"),
        (":PORT", "127.0.0.1:PORT", 400, "bad_request"),
        ("user@127.0.0.1:PORT", "127.0.0.1:PORT", 400, "bad_request"),
        ("", "127.0.0.1:PORT", 400, "bad_request"),
    ],
)
async def test_an_absolute_target_is_judged_by_both_names(
    proxy: RawProxy, authority: str, host: str, status: int, code: str
) -> None:
    target = with_port(f"http://{authority}/raw/x", proxy)
    answer = await proxy.bearward.raw(proxy.request(target, host=with_port(f"Host: {host}", proxy)))
    assert_problem(answer, status, code)
    assert proxy.upstream.requests == []


@pytest.mark.parametrize("target", [b"https://127.0.0.1/raw/x", b"ftp://127.0.0.1/raw/x", b"raw/x", b"*"])
async def test_a_target_of_another_form(proxy: RawProxy, target: bytes) -> None:
    assert (await proxy.get(target)).status in {400, 421}
    assert proxy.upstream.requests == []


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Origin: http://127.0.0.1:PORT"],
        [f"Origin: {ORIGIN}"],
        [f"Origin: {ORIGIN}", "Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: same-origin"],
        ["Sec-Fetch-Site: none"],
    ],
    ids=lambda lines: " and ".join(lines) or "none",
)
async def test_a_page_that_may_ask(proxy: RawProxy, lines: list[str]) -> None:
    seen = await proxy.crosses(b"/raw/x", *(with_port(line, proxy) for line in lines))
    for line in lines:
        assert with_port(line, proxy) in seen.lines


@pytest.mark.parametrize(
    "lines",
    [
        ["Origin: https://evil.example"],
        ["Origin: null"],
        ["Origin:"],
        ["Origin: http://127.0.0.1:1"],
        ["Origin: https://127.0.0.1:PORT"],
        ["Origin: https://app.example.evil.example"],
        ["Origin: https://app.example:8443"],
        [f"Origin: {ORIGIN}", "Origin: https://evil.example"],
        ["Origin: http://127.0.0.1:PORT", "oRIGIN: null"],
        ["Sec-Fetch-Site: cross-site"],
    ],
    ids=" and ".join,
)
async def test_a_page_that_may_not_ask_is_refused_before_its_body_is_read(proxy: RawProxy, lines: list[str]) -> None:
    unsent = [b"Content-Length: 100000", b"Content-Type: text/plain"]
    head = proxy.request(b"/raw/x", *unsent, *(with_port(line, proxy) for line in lines), method=b"POST")
    answer = await proxy.bearward.raw(head)
    assert_problem(answer, 403, "origin_not_allowed")
    assert not [name for name, _ in answer.fields if name.lower().startswith(b"access-control-")]
    assert proxy.upstream.requests == []


async def test_no_cors_header_is_added(proxy: RawProxy) -> None:
    answer = await proxy.get(b"/raw/x", b"Origin: " + ORIGIN.encode())
    assert not [name for name, _ in answer.fields if name.lower().startswith(b"access-control-")]


async def test_a_preflight_is_the_upstreams_business(proxy: RawProxy) -> None:
    lines = [b"Origin: " + ORIGIN.encode(), b"Access-Control-Request-Method: POST"]
    answer = await proxy.bearward.raw(proxy.request(b"/raw/x", *lines, method=b"OPTIONS"))
    assert answer.status == 200
    assert lines[1] in proxy.upstream.only_request.lines


async def test_connect_is_refused_and_the_connection_closed(proxy: RawProxy) -> None:
    async with proxy.bearward.connect() as connection:
        host = b"127.0.0.1:%d" % proxy.bearward.port
        answer = await connection.exchange(b"CONNECT " + host + b" HTTP/1.1\r\n" + proxy.host + b"\r\n\r\n")
        assert_problem(answer, 405, "method_not_allowed")
        assert await connection.closed() == b""
    assert proxy.upstream.requests == []


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE"])
async def test_a_method_that_is_not_forwarded_is_so_on_every_route(proxy: RawProxy, method: bytes) -> None:
    """Rule 7: whatever form the target has, and whether or not a route has it."""
    for target in (b"/raw/x", b"/nowhere", with_port("http://127.0.0.1:PORT/raw/x", proxy), b"*"):
        answer = await proxy.bearward.raw(proxy.request(target, method=method))
        assert answer.status in {400, 405}, "TRACE * is no request at all"
    assert proxy.upstream.requests == []


async def test_trace_is_refused(proxy: RawProxy) -> None:
    answer = await proxy.bearward.raw(proxy.request(b"/raw/x", b"X-Mine: 1", method=b"TRACE"))
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.values("Allow"), "a 405 says what is allowed (RFC 9110 §15.5.6)"
    assert b"X-Mine" not in answer.raw
    assert proxy.upstream.requests == []


async def test_options_of_the_server_itself_has_the_same_guard(proxy: RawProxy) -> None:
    """Rule 1 and Rule 2: it is answered to those only who may ask."""
    answer = await proxy.bearward.raw(proxy.request(b"*", method=b"OPTIONS", host=b"Host: evil.example"))
    assert_problem(answer, 421, "host_not_allowed")
    answer = await proxy.bearward.raw(proxy.request(b"*", b"Origin: null", method=b"OPTIONS"))
    assert_problem(answer, 403, "origin_not_allowed")


async def test_options_of_the_server_itself_is_answered_here(proxy: RawProxy) -> None:
    answer = await proxy.bearward.raw(proxy.request(b"*", method=b"OPTIONS"))
    assert answer.status in {200, 204}
    assert answer.values("Bearward-Error") == []
    assert proxy.upstream.requests == []


OTHER_METHODS = """GET POST PUT PATCH DELETE OPTIONS PROPFIND PROPPATCH PURGE REPORT M-SEARCH COPY LOCK UNLOCK MKCOL
MOVE SEARCH BIND REBIND UNBIND ACL MKACTIVITY CHECKOUT MERGE NOTIFY SUBSCRIBE UNSUBSCRIBE MKCALENDAR LINK UNLINK SOURCE
"""


@pytest.mark.parametrize("method", OTHER_METHODS.split())
async def test_other_methods_cross_as_they_came(proxy: RawProxy, method: str) -> None:
    answer = await proxy.bearward.raw(proxy.request(b"/raw/x", method=method.encode()))
    assert answer.status == 200
    assert proxy.upstream.only_request.start == method.encode() + b" /base/x HTTP/1.1"


async def test_head_crosses(proxy: RawProxy) -> None:
    proxy.upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nX-Mine: 1\r\n\r\n"
    answer = await proxy.bearward.raw(proxy.request(b"/raw/x", method=b"HEAD"), to_head=True)
    assert answer.values("Content-Length") == [b"12345"]
    assert answer.values("X-Mine") == [b"1"]


async def test_a_unix_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "bearward.sock"
    async with Atlas() as atlas:
        config = atlas_config({"atlas": atlas}) | {"listen": f"unix:{path}"}
        async with Bearward(config, tmp_path):
            assert stat.S_ISSOCK(path.stat().st_mode)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            for host, status in ((b"localhost", 200), (b"127.0.0.1", 200), (b"evil.example", 421)):
                async with Connection(path=str(path)) as connection:
                    request = b"GET /atlas/x HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
                    assert (await connection.exchange(request)).status == status
        assert not path.exists()


async def test_a_required_header(tmp_path: Path) -> None:
    """`require_header`: no page can send one of its own without a preflight, and none that is not told its name."""
    async with raw_proxy(tmp_path, require_header="X-Local-Client") as proxy:
        for line in (b"X-Local-Client: 1", b"x-lOCAL-cLIENT: anything"):
            assert (await proxy.get(b"/raw/x", line)).status == 200
        proxy.upstream.reset()
        unsent = b"Content-Length: 100000"
        for lines in (
            [],
            [unsent],
            [b"X-Local-Clients: 1"],
            [b"X-Mark: X-Local-Client"],
            [b"Connection: X-Local-Client"],
        ):
            method = b"POST" if unsent in lines else b"GET"
            answer = await proxy.bearward.raw(proxy.request(b"/raw/x", *lines, method=method))
            assert_problem(answer, 403, "header_required")
            assert b"X-Local-Client" not in answer.raw, "its name is for those who know it"
        unsent = proxy.request(b"/raw/x", b"Content-Length: 100000", method=b"POST")
        await proxy.refuses(unsent, 403, "header_required")
        assert_problem(await proxy.get(b"/nowhere"), 403, "header_required")


async def test_listening_beyond_loopback_is_a_config_fault(tmp_path: Path) -> None:
    async with Atlas() as atlas:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            config = atlas_config({"atlas": atlas}) | {"listen": f"0.0.0.0:{unused.getsockname()[1]}"}
        async with Bearward(config, tmp_path, until=None) as bearward:
            assert await bearward.exit_code() == 78
            assert b"allow_remote" in bearward.output()


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_the_body_of_options_of_the_server_itself_is_no_request(proxy: RawProxy, is_chunked: bool) -> None:
    """Nobody reads it; so the connection ends with the answer, and nothing that stands in the body is carried out."""
    inner = proxy.request(b"/raw/smuggled")
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(inner)
    async with proxy.bearward.connect() as connection:
        answer = await connection.exchange(proxy.request(b"*", framing, method=b"OPTIONS", body=inner))
        assert answer.status in {200, 204}
        assert answer.values("Connection") == [b"close"]
        assert await connection.closed() == b""
    assert proxy.upstream.requests == []


async def test_two_hosts_are_told_before_a_fragment(proxy: RawProxy) -> None:
    """Rule 1: what is malformed ends its connection, whatever else is wrong with it."""
    request = b"GET /raw/x#part HTTP/1.1\r\nHost: evil.example\r\n" + proxy.request(b"/raw/x").partition(b"\r\n")[2]
    await proxy.refuses(request, 400, "bad_request")
