"""Which upstream a target belongs to, and what reaches it: Rule 4, Rule 5 and Rule 6."""

import pytest

from problems import assert_problem
from rawproxy import RawProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

CROSSING = [
    # The prefix, and what stands behind it.
    (b"/raw", b"/base"),
    (b"/raw/", b"/base/"),
    (b"/raw?x=1", b"/base?x=1"),
    (b"/raw/x", b"/base/x"),
    (b"/raw/deep", b"/other/"),
    (b"/raw/deep/", b"/other/"),
    (b"/raw/deep/x", b"/other/x"),
    (b"/raw/deepest", b"/base/deepest"),
    (b"/raw/Deep/x", b"/base/Deep/x"),
    (b"/raw/d%65ep/x", b"/base/d%65ep/x"),
    (b"/slash", b"/"),
    (b"/slash/", b"/"),
    (b"/slash?x", b"/?x"),
    # Byte for byte.
    (b"/raw/a%41b", b"/base/a%41b"),
    (b"/raw/%7euser/%7Euser/~user", b"/base/%7euser/%7Euser/~user"),
    (b"/raw/a+b%20c%2B", b"/base/a+b%20c%2B"),
    (b"/raw//double//", b"/base//double//"),
    (b"/raw//evil.example/x", b"/base//evil.example/x"),
    (b"/raw/@evil.example/x", b"/base/@evil.example/x"),
    (b"/raw/:8080/x", b"/base/:8080/x"),
    (b"/raw/http://evil.example/x", b"/base/http://evil.example/x"),
    (b"/raw/x;a=b;c/y", b"/base/x;a=b;c/y"),
    (b"/raw/%e4%f6%C3%A4", b"/base/%e4%f6%C3%A4"),
    (b"/raw/!$&'()*+,;=:@-._~", b"/base/!$&'()*+,;=:@-._~"),
    (b'/raw/"<>[]^`{|}', b'/base/"<>[]^`{|}'),
    (b"/raw/.../x", b"/base/.../x"),
    (b"/raw/.hidden/a..b/..c/d..", b"/base/.hidden/a..b/..c/d.."),
    (b"/raw/%2ehidden", b"/base/%2ehidden"),
    (b"/raw/a%25b", b"/base/a%25b"),
    # A query is never judged.
    (b"/raw/x?", b"/base/x?"),
    (b"/raw/x??a?b", b"/base/x??a?b"),
    (b"/raw/x?a=1&a=2;b&&=&c", b"/base/x?a=1&a=2;b&&=&c"),
    (b"/raw/x?%zz&%&%0&%00&%2f&%5c", b"/base/x?%zz&%&%0&%00&%2f&%5c"),
    (b"/raw/x?../../y&%2e%2e/&..\\", b"/base/x?../../y&%2e%2e/&..\\"),
    (b"/raw/x?u=http://evil.example/@a:b", b"/base/x?u=http://evil.example/@a:b"),
    (b"/raw/x?" + b"&".join(b"p%d=%d" % (n, n) for n in range(1500)), None),
    # Where the route allows an encoded slash.
    (b"/slash/a%2Fb%2fc", b"/a%2Fb%2fc"),
]


@pytest.mark.parametrize(("target", "expected"), CROSSING, ids=lambda value: str(value)[:60])
async def test_target_crosses_byte_for_byte(proxy: RawProxy, target: bytes, expected: bytes | None) -> None:
    seen = await proxy.crosses(target)
    assert seen.target == (expected or target.replace(b"/raw", b"/base", 1))
    assert seen.values("Host") == [proxy.upstream.host], "no target changes where it goes"


@pytest.mark.parametrize(
    "target", [b"/", b"/x", b"/rawx", b"/ra", b"/RAW/x", b"/r%61w/x", b"//raw/x", b"/x/raw", b"/livez", b"/metrics"]
)
async def test_target_of_no_route(proxy: RawProxy, target: bytes) -> None:
    assert_problem(await proxy.get(target), 404, "no_route")
    assert proxy.upstream.requests == []


DOT_SEGMENTS = [
    b"/raw/../x",
    b"/raw/./x",
    b"/raw/..",
    b"/raw/.",
    b"/raw/x/../../y",
    b"/../raw/x",
    b"/./raw/x",
    b"/raw/%2e%2e/x",
    b"/raw/%2E%2E/x",
    b"/raw/%2e./x",
    b"/raw/.%2E/x",
    b"/raw/%2e/x",
    b"/raw/x/%2e%2e",
    b"/raw/%252e%252e/x",
    b"/raw/%252E./x",
    b"/raw/.%252e",
    b"/raw/%25252e%25252e/x",
    b"/raw/%25%32%65%25%32%65/x",
    b"/raw/..\\x",
    b"/raw/\\..\\x",
    b"/raw/x\\..\\..\\y",
    b"/raw/..%5cx",
    b"/raw/%5c..%5cx",
    b"/raw/%5C%2e%2e%5Cx",
    b"/raw/..%255cx",
    b"/raw/..;/x",
    b"/raw/..;a=b/x",
    b"/raw/.;/x",
    b"/raw/%2e%2e;/x",
    b"/raw/%2e%2e%3b/x",
    b"/raw/..%3Ba=b/x",
    b"/raw/..%253b/x",
    b"/raw/..%2fx",
    b"/raw/%2e%2e%2fx",
    b"/raw/%2e%2e%252fx",
    # An encoded slash that is allowed ends a segment like another.
    b"/slash/..%2fx",
    b"/slash/a%2F..%2Fx",
    b"/slash/%2e%2e%2Fx",
    b"/slash/a%2f%2e%2e",
    b"/slash/..%252fx",
]

OTHER_BAD_PATHS = [
    b"/raw/a%2Fb",
    b"/raw/a%2fb",
    b"/raw%2fx",
    b"/raw/a%5Cb",
    b"/raw/a%5cb",
    b"/slash/a%5cb",
    b"/raw/a%00b",
    b"/slash/a%00b",
    b"/raw/a%",
    b"/raw/a%0",
    b"/raw/a%zz/b",
    b"/raw/a%u002e",
    b"/raw/%%32%65",
    b"/raw/%c0%af",
    b"/raw/%C0%AF",
    b"/raw/%c0%ae%c0%ae/x",
    b"/raw/%c1%9c",
    b"/raw/%e0%80%af",
    b"/raw/%e0%80%ae%e0%80%ae/x",
    b"/raw/%f0%80%80%af",
    b"/raw/%25c0%25af",
    b"/raw/x#fragment",
    b"/raw/x?query#fragment",
    b"/raw#",
]


@pytest.mark.parametrize("target", DOT_SEGMENTS + OTHER_BAD_PATHS, ids=repr)
async def test_bad_path(proxy: RawProxy, target: bytes) -> None:
    assert_problem(await proxy.get(target), 400, "bad_path")
    assert proxy.upstream.requests == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/raw/../x", 400, "bad_path"),
        ("/raw/%2e%2e/x", 400, "bad_path"),
        ("/raw/x#f", 400, "bad_path"),
        ("/../raw/x", 400, "bad_path"),
        ("", 404, "no_route"),
        ("?/raw/x", 404, "no_route"),
        ("/rawx", 404, "no_route"),
    ],
)
async def test_the_path_of_an_absolute_target_is_judged_as_any(
    proxy: RawProxy, path: str, status: int, code: str
) -> None:
    """Rule 5: the form of the target is no way around."""
    target = f"http://127.0.0.1:{proxy.bearward.port}{path}".encode()
    assert_problem(await proxy.get(target), status, code)
    assert proxy.upstream.requests == []


@pytest.mark.parametrize("path", ["/raw/a%41b//c?x=%zz;y", "/raw?x", "/raw/http://evil.example/"])
async def test_an_absolute_target_crosses_byte_for_byte(proxy: RawProxy, path: str) -> None:
    """Rule 4: in origin-form (RFC 9112 §3.2.1)."""
    seen = await proxy.crosses(f"http://127.0.0.1:{proxy.bearward.port}{path}".encode())
    assert seen.target == path.replace("/raw", "/base", 1).encode()


async def test_no_target_names_an_upstream(proxy: RawProxy) -> None:
    """Rule 6: not even the route's own one."""
    target = b"http://" + proxy.upstream.host + b"/raw/x"
    assert_problem(await proxy.get(target), 421, "host_not_allowed")
    assert_problem(await proxy.get(b"//" + proxy.upstream.host + b"/raw/x"), 404, "no_route")
    assert proxy.upstream.requests == []


async def test_raw_bytes_beyond_ascii(proxy: RawProxy) -> None:
    """Rule 4: they are no valid target (RFC 3986 §2); where they cross at all, then byte for byte."""
    target = "/raw/ü?ü".encode()
    answer = await proxy.get(target)
    if answer.status == 200:
        assert proxy.upstream.only_request.target == target.replace(b"/raw", b"/base")
    else:
        assert answer.status == 400
        assert proxy.upstream.requests == []


RAW_BYTES = [
    *(b"/raw/a" + byte + b"b" for byte in (b"\x00", b"\x01", b"\t", b"\x0b", b"\x1f", b"\x7f")),
    *(b"/raw/\xc0\xaf", b"/raw/\xc0\xae\xc0\xae/x", b"/raw/\xe0\x80\xaf", b"/raw/%c0\xaf", b"/raw/\xc0%af"),
]


@pytest.mark.parametrize("target", RAW_BYTES, ids=repr)
async def test_a_raw_byte_that_belongs_into_no_path(proxy: RawProxy, target: bytes) -> None:
    """Rule 5: control bytes, and overlong UTF-8 of which a part or all is not encoded."""
    answer = await proxy.get(target)
    assert (answer.status, answer.values("Bearward-Error")) in [(400, [b"bad_path"]), (400, [b"bad_request"])]
    assert proxy.upstream.requests == []


@pytest.mark.parametrize(
    "target", [b"/raw/../SECRET-PATH?SECRET-QUERY", b"/SECRET-PATH?SECRET-QUERY", b"/raw/SECRET%2fPATH?SECRET-QUERY"]
)
async def test_an_error_repeats_nothing_of_the_request(proxy: RawProxy, target: bytes) -> None:
    answer = await proxy.get(target, b"X-Header: SECRET-HEADER")
    assert answer.status in {400, 404}
    assert b"SECRET" not in answer.raw
