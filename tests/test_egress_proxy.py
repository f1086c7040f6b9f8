"""`egress_proxy`: upstreams and token endpoints beyond loopback are reached by CONNECT (RFC 9110 §9.3.6)."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote

import pytest
import pytest_asyncio

import wire
from evidence import new_secret
from problems import assert_problem
from rawproxy import RawProxy
from tls import Authority, TlsUpstream
from upstreams import SOON, Keep, Routes, Say, hang_up, proxy_before
from wire import Message, RawUpstream, Reader, Script, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECT_TIMEOUT = 1.0


class ConnectProxy(RawUpstream):
    """A proxy that leads to `target`, whatever host is asked for; `refuse` answers in its place."""

    def __init__(self, target: TlsUpstream) -> None:
        super().__init__()
        self.target = target
        self.user, self.password = "user", new_secret("proxy password", "p@s:s/")
        self.refuse: Script | None = None
        self.script = self._connect

    @property
    def authorization(self) -> bytes:
        """What it wants as Proxy-Authorization."""
        return b"Basic " + base64.b64encode(f"{self.user}:{self.password}".encode())

    def targets(self) -> set[bytes]:
        """Whom CONNECT asked for so far."""
        return {request.target for request in self.requests}

    async def _connect(self, request: Message, reader: Reader, writer: Writer) -> None:
        if self.refuse is not None:
            await self.refuse(request, reader, writer)
            return
        there, here = await asyncio.open_connection("127.0.0.1", self.target.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\nProxy-Agent: test\r\n\r\n")
        await asyncio.gather(_pump(reader, here), _pump(there, writer))


class Hindered(ConnectProxy):
    """Lets the first tunnel to each host through; what it makes of the second says `hindrances`; and then again."""

    def __init__(self, target: TlsUpstream, hindrances: Mapping[bytes, bytes]) -> None:
        super().__init__(target)
        self._hindrances = hindrances
        self.script = self._hinder

    async def _hinder(self, request: Message, reader: Reader, writer: Writer) -> None:
        if [asked.target for asked in self.requests].count(request.target) == 2:
            writer.write(self._hindrances[request.target])
            await writer.drain()
        else:
            await self._connect(request, reader, writer)


async def _pump(reader: Reader, writer: Writer) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(wire.LIMIT):
            writer.write(piece)
            await writer.drain()
    writer.close()


class TokenEndpoint:
    """A script: every token request gets a token of its own; all else is answered 200."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def __call__(self, request: Message, reader: Reader, writer: Writer) -> None:
        if request.target == b"/token":
            await reader.readexactly(int(request.values("Content-Length")[0]))
            self.tokens.append(new_secret("token", "t-"))
            document = {"access_token": self.tokens[-1], "token_type": "Bearer", "expires_in": 3600}
            writer.write(
                wire.ok(json.dumps(document).encode(), b"Content-Type: application/json", b"Connection: close")
            )
        else:
            writer.write(wire.ok(b"ok", b"Connection: close"))
        await writer.drain()


class Sessions:
    """A script: every token request gets a token that is soon to be refreshed, and its session's next refresh token."""

    def __init__(self) -> None:
        self.asked: dict[str, list[tuple[str, str]]] = {}
        """Path and refresh token, or grant, of every request, by its Host."""
        self.came = asyncio.Event()

    async def __call__(self, request: Message, reader: Reader, writer: Writer) -> None:
        body = await reader.readexactly(int(request.values("Content-Length")[0]))
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        asked = self.asked.setdefault(request.values("Host")[0].decode(), [])
        asked.append((request.target.decode(), form.get("refresh_token") or form["grant_type"]))
        document = {"access_token": new_secret("token", "t-"), "expires_in": 2, "refresh_token": f"r{len(asked)}"}
        writer.write(wire.ok(json.dumps(document).encode(), b"Connection: close"))
        await writer.drain()
        self.came.set()


@dataclass
class Stage:
    """`/api` and `/stranger` lead beyond loopback, `/local` does not; `vendor` is behind all of them."""

    proxy: RawProxy
    egress: ConnectProxy
    vendor: TlsUpstream
    tokens: TokenEndpoint

    def reset(self) -> None:
        self.egress.requests.clear()
        self.egress.refuse = None
        self.vendor.reset()
        self.vendor.names.clear()
        self.vendor.script = self.tokens


def _credential(origin: str, ca_file: str) -> dict[str, object]:
    return {
        "token_url": f"{origin}/token",
        "client_id": "acme",
        "client_secret": new_secret("client secret"),
        "tls": {"ca_file": ca_file},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One product that is told of the proxy."""
    folder = tmp_path_factory.mktemp("egress")
    authority = Authority(folder)
    async with AsyncExitStack() as stack:
        vendor = await stack.enter_async_context(TlsUpstream(authority.server("*.vendor.test", "127.0.0.1")))
        vendor.script = tokens = TokenEndpoint()
        egress = await stack.enter_async_context(ConnectProxy(vendor))
        usual = {"credential": "vendor", "tls": {"ca_file": authority.file}, "connect_timeout": CONNECT_TIMEOUT}
        routes: Routes = {
            "/api": usual | {"upstream": "https://api.vendor.test/v1"},
            "/port": usual | {"upstream": "https://api.vendor.test:8443"},
            "/stranger": usual | {"upstream": "https://api.stranger.test"},
            "/local": usual | {"upstream": vendor.url},
            "/local-http": {},
        }
        user = f"{quote(egress.user)}:{quote(egress.password, safe='')}"
        proxy = await stack.enter_async_context(
            proxy_before(
                await stack.enter_async_context(RawUpstream()),
                routes,
                folder,
                egress_proxy=f"http://{user}@127.0.0.1:{egress.port}",
                credentials={"vendor": _credential("https://id.vendor.test", authority.file)},
            )
        )
        yield Stage(proxy, egress, vendor, tokens)


@pytest.fixture
def stage(module_stage: Stage) -> Stage:
    """The module's stage, with a proxy and a vendor that have seen nothing."""
    module_stage.reset()
    return module_stage


async def test_a_token_endpoint_is_reached_through_it(module_stage: Stage) -> None:
    """The token of the start came that way. The first test of this module."""
    assert module_stage.egress.targets() == {b"id.vendor.test:443"}
    assert module_stage.vendor.names == ["id.vendor.test"]
    assert len(module_stage.tokens.tokens) == 1


async def test_an_upstream_is_reached_through_it(stage: Stage) -> None:
    """It learns where to, and who asks for it; the token and all else are the upstream's, whose certificate counts."""
    assert (await stage.proxy.get(b"/api/x?q=1")).body == b"ok"
    asked = stage.egress.only_request
    assert asked.start == b"CONNECT api.vendor.test:443 HTTP/1.1"
    assert asked.values("Host") == [b"api.vendor.test:443"]
    assert asked.values("Proxy-Authorization") == [stage.egress.authorization]
    assert asked.values("Authorization") == []
    assert stage.vendor.names == ["api.vendor.test"]
    seen = stage.vendor.only_request
    assert (seen.target, seen.values("Host")) == (b"/v1/x?q=1", [b"api.vendor.test"])
    assert seen.values("Authorization") == [b"Bearer " + stage.tokens.tokens[-1].encode()]
    assert seen.values("Proxy-Authorization") == []


async def test_a_port_is_named(stage: Stage) -> None:
    assert (await stage.proxy.get(b"/port/x")).status == 200
    assert stage.egress.targets() == {b"api.vendor.test:8443"}
    assert stage.vendor.only_request.values("Host") == [b"api.vendor.test:8443"]


async def test_the_certificate_is_that_of_the_upstream(stage: Stage) -> None:
    """Whoever the proxy leads to, another's certificate is not accepted."""
    assert_problem(await stage.proxy.get(b"/stranger/x"), 502, "upstream_tls")
    assert stage.vendor.requests == []


@pytest.mark.parametrize("prefix", [b"/local", b"/local-http"])
async def test_loopback_is_reached_directly(stage: Stage, prefix: bytes) -> None:
    assert (await stage.proxy.get(prefix + b"/x")).status == 200
    assert stage.egress.requests == []


async def test_a_connection_through_it_is_used_again(stage: Stage) -> None:
    """Rule 17: by the same upstream; another one is asked for anew."""
    stage.vendor.script = keep = Keep()
    for prefix in (b"/api", b"/port", b"/api", b"/port"):
        assert (await stage.proxy.get(prefix + b"/x")).status == 200
    assert sorted(map(len, keep.connections)) == [2, 2]
    assert len(stage.egress.requests) == 2
    hang_up(stage.vendor)


REFUSALS = {
    "407": b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
    "403 with a body": wire.answer(b"403 Forbidden", b"not there", b"Set-Cookie: evil=1"),
    "502": wire.answer(b"502 Bad Gateway", b""),
    "a redirect": wire.answer(b"302 Found", b"", b"Location: https://evil.example/"),
    "garbage": b"220 smtp.example ESMTP\r\n\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 Connec",
    "a head without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20),
}


@pytest.mark.parametrize("said", REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_proxy_that_refuses(stage: Stage, said: bytes) -> None:
    """Its answer is never taken for the upstream's."""

    async def refuse(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(said)
        await writer.drain()

    stage.egress.refuse = refuse
    assert_problem(await stage.proxy.get(b"/api/x"), 502, "upstream_unreachable")
    assert stage.vendor.requests == []
    stage.egress.refuse = None
    assert (await stage.proxy.get(b"/api/x")).status == 200


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 Connec", b"HTTP/1.1 200 OK\r\n\r\n"], ids=repr)
async def test_a_proxy_that_stalls(stage: Stage, said: bytes) -> None:
    """`connect_timeout` covers all of it: the proxy, its answer, and TLS behind it."""
    stage.egress.refuse = say = Say(said)
    started = time.monotonic()
    assert_problem(await stage.proxy.get(b"/api/x"), 504, "upstream_timeout")
    assert CONNECT_TIMEOUT <= time.monotonic() - started < CONNECT_TIMEOUT + SOON
    await say.is_left()


async def test_a_token_request_that_it_did_not_let_out_was_not_sent(stage: Stage, tmp_path: Path) -> None:
    """Its refresh token is not spent: it is sent with the next attempt, and no session ends or begins."""
    said = REFUSALS | {"no TLS behind it": b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 Bad Request\r\n\r\n"}
    hosts = {f"id{number}.vendor.test": hindrance for number, hindrance in enumerate(said.values())}
    authority = Authority(tmp_path)
    async with AsyncExitStack() as stack:
        vendor = await stack.enter_async_context(TlsUpstream(authority.server("*.vendor.test")))
        vendor.script = sessions = Sessions()
        hindrances = {f"{host}:443".encode(): hindrance for host, hindrance in hosts.items()}
        egress = await stack.enter_async_context(Hindered(vendor, hindrances))
        credentials = {
            host: _credential(f"https://{host}", authority.file)
            | {"grant_type": "password", "username": "u", "password": "p", "logout_url": "/logout"}
            for host in hosts
        }
        routes: Routes = {f"/{host}": {"credential": host} for host in hosts}
        top = {"egress_proxy": f"http://127.0.0.1:{egress.port}", "credentials": credentials}
        await stack.enter_async_context(proxy_before(stage.proxy.upstream, routes, tmp_path, **top))
        async with asyncio.timeout(10 * SOON):
            while any(len(sessions.asked.get(host, [])) < 2 for host in hosts):
                sessions.came.clear()
                await sessions.came.wait()
        seen = {host: asked[:2] for host, asked in sessions.asked.items()}
        failed = {target for target in egress.targets() if len([1 for r in egress.requests if r.target == target]) >= 3}
    assert seen == {host: [("/token", "password"), ("/token", "r1")] for host in hosts}
    assert failed == set(hindrances), "each had an attempt that failed"


async def test_a_proxy_of_the_environment_is_not_looked_at(stage: Stage, tmp_path: Path) -> None:
    """Only the config says where tokens go."""
    authority = Authority(tmp_path)
    url = f"http://127.0.0.1:{stage.egress.port}"
    names = ("http_proxy", "https_proxy", "all_proxy")
    env = {spelled: url for name in names for spelled in (name, name.upper())} | {"no_proxy": "", "NO_PROXY": ""}
    async with TlsUpstream(authority.server("127.0.0.1")) as vendor:
        vendor.script = TokenEndpoint()
        usual = {"credential": "vendor", "tls": {"ca_file": authority.file}}
        routes: Routes = {
            "/https": usual | {"upstream": vendor.url},
            "/http": {},
            "/beyond": usual | {"upstream": "https://api.vendor.test", "connect_timeout": CONNECT_TIMEOUT},
        }
        credentials = {"vendor": _credential(vendor.url, authority.file)}
        async with proxy_before(stage.proxy.upstream, routes, tmp_path, env=env, credentials=credentials) as proxy:
            assert (await proxy.get(b"/https/x")).status == 200
            assert (await proxy.get(b"/http/x")).status == 200
            assert (await proxy.get(b"/beyond/x")).status in {502, 504}, "no such name"
    assert stage.egress.requests == []


async def test_a_refusal_with_a_body_is_one_at_once(stage: Stage) -> None:
    """Also from a proxy that keeps the connection open behind it."""
    stage.egress.refuse = say = Say(wire.answer(b"407 Proxy Authentication Required", b"forbidden"))
    started = time.monotonic()
    assert_problem(await stage.proxy.get(b"/api/x"), 502, "upstream_unreachable")
    assert time.monotonic() - started < CONNECT_TIMEOUT
    await say.is_left()
