"""SIGHUP: the config is read again and takes the place of the last one; what a request began with, it ends with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from ssl import CERT_REQUIRED
from typing import Any

import pytest
import pytest_asyncio

import wire
from configs import Config, atlas_config, atlas_credential, ocp_credential
from harness import Bearward
from ports import free_port
from problems import assert_problem
from rawproxy import RawProxy
from tls import Authority, TlsUpstream, peer_names
from together import Together
from upstreams import SOON, Keep
from vendors import faults
from vendors.atlas import Atlas
from vendors.ocp import Ocp
from wire import Message, RawUpstream, Reader, Sink, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEMORY = 2 << 20
"""Bytes that reloads may add: a replaced config may wait for the collector while the next one is built."""

together = Together()


@dataclass
class Stage:
    """One product whose config is replaced by each test; the route `/raw` and the credential `ocp` are always there."""

    proxy: RawProxy
    other: RawUpstream
    ocp: Ocp
    credentials: Config

    @property
    def bearward(self) -> Bearward:
        return self.proxy.bearward

    def config(self, routes: Config, credentials: Config | None = None, **top: Any) -> Config:
        """What the tests have in common, and this; a route leads to the first upstream unless it says otherwise."""
        usual = {"upstream": self.proxy.upstream.url, "credential": "atlas"}
        return {
            "credentials": self.credentials | (credentials or {}),
            "routes": {"/ocp": {"upstream": f"{self.ocp.url}/api", "credential": "ocp"}, "/raw": usual}
            | {prefix: usual | route for prefix, route in routes.items()},
            **top,
        }

    async def applies(self, routes: Config | None = None, credentials: Config | None = None, **top: Any) -> None:
        """From now on this is in force."""
        await self.bearward.reload(self.config(routes or {}, credentials, **top))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(RawUpstream()) for _ in range(2)]
        atlas, ocp = await stack.enter_async_context(Atlas()), await stack.enter_async_context(Ocp())
        credentials = {"atlas": atlas_credential(atlas), "ocp": ocp_credential(ocp)}
        folder = tmp_path_factory.mktemp("reload")
        routes = {"/ocp": {"upstream": f"{ocp.url}/api", "credential": "ocp"}}
        config = {"credentials": credentials, "routes": routes}
        bearward = await stack.enter_async_context(Bearward(config, folder, name="reload"))
        yield Stage(RawProxy(bearward, one, atlas), other, ocp, credentials)
    assert ocp.live_sessions == [], "whatever was replaced, no session is left"


@pytest.fixture
def stage(module_stage: Stage) -> Stage:
    """The module's product, before upstreams that have seen nothing and answer 200."""
    for upstream in (module_stage.proxy.upstream, module_stage.other):
        upstream.reset()
    return module_stage


@together
async def test_the_log_tells_of_the_end_as_the_last_config_has_it(folder: Path) -> None:
    async with Atlas() as atlas:
        config = atlas_config({"atlas": atlas})
        async with Bearward(config, folder) as bearward:
            await bearward.reload(config | {"log": {"level": "error", "format": "json"}})
            assert await bearward.terminate() == 0
            assert [await bearward.logs(event, 0) for event in ("stopping", "stopped")] == [[], []]


async def test_routes(stage: Stage) -> None:
    """New, moved, changed and removed ones; also for a connection that is older than the config."""
    proxy, other = stage.proxy, stage.other
    await stage.applies({"/moved": {}, "/edited": {}, "/gone": {}, "/old-name": {}})
    async with proxy.bearward.connect() as connection:
        for prefix in (b"/moved", b"/edited", b"/gone", b"/old-name"):
            assert (await connection.exchange(proxy.request(prefix + b"/x"))).status == 200
        edited = {"request_headers": {"set": {"X-Tenant": "acme"}}, "max_body": 3}
        await stage.applies(
            {"/moved": {"upstream": f"{other.url}/v2"}, "/edited": edited, "/added": {}, "/new-name": {}}
        )
        assert other.requests == []
        proxy.upstream.reset()
        for prefix in (b"/moved", b"/edited", b"/added", b"/new-name"):
            assert (await connection.exchange(proxy.request(prefix + b"/x"))).status == 200
        for prefix in (b"/gone", b"/old-name"):
            assert_problem(await connection.exchange(proxy.request(prefix + b"/x")), 404, "no_route")
        assert other.only_request.target == b"/v2/x"
        assert [request.values("X-Tenant") for request in proxy.upstream.requests] == [[b"acme"], [], []]
        too_long = proxy.request(b"/edited/x", b"Content-Length: 4", method=b"POST", body=b"four")
        assert_problem(await connection.exchange(too_long), 413, "body_too_large")


async def test_who_may_ask(stage: Stage) -> None:
    proxy = stage.proxy
    await stage.applies(allowed_hosts=["proxy.internal"], allowed_origins=["https://app.example"])
    by_name = proxy.request(b"/raw/x", host=b"Host: proxy.internal:%d" % proxy.bearward.port)
    from_page = proxy.request(b"/raw/x", b"Origin: https://app.example")
    async with proxy.bearward.connect() as connection:
        for request in (by_name, from_page):
            assert (await connection.exchange(request)).status == 200
        await stage.applies(require_header="X-Local")
        assert_problem(await connection.exchange(proxy.request(b"/raw/x")), 403, "header_required")
        assert (await connection.exchange(proxy.request(b"/raw/x", b"X-Local: 1"))).status == 200
    assert_problem(await proxy.bearward.raw(by_name), 421, "host_not_allowed")
    assert_problem(await proxy.bearward.raw(from_page), 403, "origin_not_allowed")


async def test_limits(stage: Stage) -> None:
    """They hold for connections that are open already, too."""
    proxy = stage.proxy
    await stage.applies()
    async with proxy.bearward.connect() as kept, proxy.bearward.connect() as begun:
        for connection in (kept, begun):
            assert (await connection.exchange(proxy.request(b"/raw/x"))).status == 200
        await stage.applies(limits={"connections": 2, "header_timeout": "300ms", "header_bytes": "1KiB"})
        assert_problem(
            await kept.exchange(proxy.request(b"/raw/x", b"X-Long: " + b"a" * 2000)), 431, "headers_too_large"
        )
        await begun.send(b"GET /raw/x HTTP/1.1\r\n")
        async with asyncio.timeout(SOON):
            assert_problem(await wire.read_answer(begun.reader), 408, "request_timeout")
    await stage.applies(limits={"connections": 2})
    proxy.upstream.script = sink = Sink()
    async with proxy.bearward.connect() as one, proxy.bearward.connect() as two:
        for connection in (one, two):
            sink.began.clear()
            await connection.send(proxy.request(b"/raw/x"))
            async with asyncio.timeout(SOON):
                await sink.began.wait()
        assert_problem(await proxy.bearward.raw(proxy.request(b"/raw/x")), 503, "overloaded")


async def test_the_log(stage: Stage) -> None:
    """Its level and its lines for requests."""
    proxy, bearward = stage.proxy, stage.bearward
    await stage.applies(log={"level": "error", "format": "json", "access": "all"})
    requests, rejected = [len(await bearward.logs(event, 0)) for event in ("request done", "request rejected")]
    for target in (b"/raw/told", b"/nowhere"):
        await proxy.get(target)
    assert (await bearward.logs("request done", requests + 1))[-1]["path"] == "/raw/told"
    await stage.applies(log={"level": "info", "format": "json", "access": "off"})
    for target in (b"/raw/untold", b"/nowhere"):
        await proxy.get(target)
    await bearward.logs("request rejected", rejected + 1)
    assert [line["path"] for line in await bearward.logs("request done", 0)][requests:] == ["/raw/told"]
    assert len(await bearward.logs("request rejected", 0)) == rejected + 1


async def test_tls_files_that_were_replaced_in_place(stage: Stage, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    old, new = authority.client("old@vendor.test"), authority.client("new@vendor.test")
    route = {"tls": {"ca_file": authority.file, **old}}

    async def tell_name(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(wire.ok(" ".join(peer_names(writer)).encode(), b"Connection: close"))

    async with TlsUpstream(authority.server("127.0.0.1", asks_for_client=CERT_REQUIRED)) as upstream:
        upstream.script = tell_name
        routes = {"/tls": {"upstream": upstream.url, **route}}
        await stage.applies(routes)
        assert (await stage.proxy.get(b"/tls/x")).body == b"old@vendor.test"
        for name, path in new.items():
            copyfile(path, old[name])
        assert (await stage.proxy.get(b"/tls/x")).body == b"old@vendor.test", "files are read when the config is"
        await stage.applies(routes)
        assert (await stage.proxy.get(b"/tls/x")).body == b"new@vendor.test"


async def test_the_egress_proxy(stage: Stage) -> None:
    routes = {"/beyond": {"upstream": "https://vendor.test"}}
    for egress in (stage.other, stage.proxy.upstream):
        egress.reset()
        egress.answer = wire.answer(b"403 Forbidden", b"")
        await stage.applies(routes, egress_proxy=egress.url)
        assert_problem(await stage.proxy.get(b"/beyond/x"), 502, "upstream_unreachable")
        assert egress.only_request.start == b"CONNECT vendor.test:443 HTTP/1.1"


async def test_principals(stage: Stage) -> None:
    """They may come and go; the tokens that they have stay with a credential that stays."""
    proxy = stage.proxy
    by_user = atlas_credential(
        proxy.atlas, principal={"header": "X-User-Id"}, headers={"X-On-Behalf-Of": "{principal}"}
    )
    await stage.applies({"/users": {}})
    assert (await proxy.get(b"/users/x")).status == 200
    routes = {"/users": {"credential": "by-user"}}
    await stage.applies(routes, {"by-user": by_user})
    assert_problem(await proxy.get(b"/users/x"), 400, "principal_required")
    asked = len(proxy.atlas.token_requests)
    for _ in range(2):
        assert (await proxy.get(b"/users/x", b"X-User-Id: ann")).status == 200
        await stage.applies(routes | {"/more": {}}, {"by-user": by_user})
    assert len(proxy.atlas.token_requests) == asked + 1


async def test_tokens_sessions_and_counters_are_kept(stage: Stage) -> None:
    """Of credentials and routes that stay as they are, whatever else changes."""
    await stage.applies({"/leaving": {}})
    for target in (b"/raw/x", b"/leaving/x", b"/ocp/things"):
        assert (await stage.proxy.get(target)).status == 200
    before, was = await stage.bearward.metrics(), (await stage.bearward.status())["credentials"]
    asked = [len(vendor.token_requests) for vendor in (stage.proxy.atlas, stage.ocp)]
    for upstream in (stage.other, stage.proxy.upstream):
        await stage.applies({"/raw": {"upstream": upstream.url}}, egress_proxy=None, limits={"header_timeout": "9s"})
        for target in (b"/raw/x", b"/ocp/things"):
            assert (await stage.proxy.get(target)).status == 200
    assert [len(vendor.token_requests) for vendor in (stage.proxy.atlas, stage.ocp)] == asked
    assert (await stage.bearward.status())["credentials"] == was
    assert stage.ocp.logouts == []
    after = await stage.bearward.metrics()
    for route in ("/raw", "/ocp"):
        counted = [each.total("requests_total", route=route, code="200", origin="upstream") for each in (before, after)]
        assert counted[1] == counted[0] + 2, route
    assert not after.matching("requests_total", route="/leaving")


async def test_other_addresses_wait_for_a_restart(stage: Stage) -> None:
    """The sockets stay, and so do the names by which they may be called."""
    port, admin = free_port(), free_port()
    addresses = {"listen": f"127.0.0.1:{port}", "admin": f"127.0.0.1:{admin}"}
    await stage.applies(allowed_hosts=["proxy.internal"], **addresses)
    (line,) = await stage.bearward.logs("other addresses need a restart")
    assert (line["level"], line["listen"], line["admin"]) == ("warning", *addresses.values())
    by_name = stage.proxy.request(b"/raw/x", host=b"Host: proxy.internal:%d" % stage.bearward.port)
    assert (await stage.bearward.raw(by_name)).status == 200
    assert (await stage.bearward.admin("/livez")).status == 200
    for closed in (port, admin):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", closed)
    await stage.applies()
    assert len(await stage.bearward.logs("other addresses need a restart")) == 1


async def test_idle_connections_to_a_former_upstream_are_closed(stage: Stage) -> None:
    keep = stage.other.script = Keep()
    await stage.applies({"/former": {"upstream": stage.other.url}})
    for _ in range(2):
        assert (await stage.proxy.get(b"/former/x")).status == 200
    assert len(keep.connections) == 1
    await stage.applies()
    async with asyncio.timeout(SOON):
        while stage.other._connections:
            await asyncio.sleep(0.01)


async def test_a_request_that_waits_for_a_token_still_finds_its_upstream(stage: Stage) -> None:
    """It has no connection yet, and its upstream has a name, when its route is replaced, or removed with its token."""
    async with Atlas() as late, Atlas() as gone:
        routes = {
            f"/{name}": {"upstream": f"http://localhost:{stage.other.port}", "credential": name}
            for name in ("late", "gone")
        }
        holds = []
        for vendor in (late, gone):
            holds.append(faults.Hold())
            vendor.token_faults.mode = holds[-1]
        credentials = {"late": atlas_credential(late), "gone": atlas_credential(gone)}
        await stage.applies(routes, credentials)
        waiting = [asyncio.create_task(stage.proxy.get(target)) for target in (b"/late/x", b"/gone/x")]
        await asyncio.gather(*(hold.arrived.wait() for hold in holds))
        async with asyncio.timeout(SOON):
            while (await stage.bearward.metrics()).total("token_waiters") < len(waiting):
                await asyncio.sleep(0.01)
        await stage.applies({"/late": routes["/late"]}, {"late": credentials["late"]})
        assert_problem(await stage.proxy.get(b"/gone/x"), 404, "no_route")
        for hold in holds:
            hold.release()
        assert [answer.status for answer in await asyncio.gather(*waiting)] == [200, 200]
        assert [len(vendor.token_requests) for vendor in (late, gone)] == [1, 1]


async def test_what_was_begun_ends_with_what_it_began(stage: Stage) -> None:
    """A request amid two reloads, the second of which removes its route and credential; and its 401's replay."""
    async with Ocp(4.0) as user:
        hold = faults.Hold(faults.unauthorized())
        credentials = {"user": ocp_credential(user)}
        route = {"upstream": f"{user.url}/api", "credential": "user"}
        await stage.applies({"/user": route}, credentials)
        assert (await stage.proxy.get(b"/user/before")).status == 200
        user.api_faults.fail_next(1, hold)
        begun = asyncio.create_task(stage.proxy.get(b"/user/begun"))
        await hold.arrived.wait()
        stage.proxy.upstream.script = sink = Sink()
        async with stage.bearward.connect() as unrelated:
            await unrelated.send(stage.proxy.request(b"/raw/without-end"))
            await sink.began.wait()
            await stage.applies({"/user": route | {"request_headers": {"set": {"X-New": "1"}}}}, credentials)
            await stage.applies()
            assert_problem(await stage.proxy.get(b"/user/after"), 404, "no_route")
            asked = len(user.token_requests)
            await user.wait_for(
                lambda vendor: len(vendor.token_requests) > asked and vendor.token_requests[asked].status
            )
            assert user.logouts == [], "somebody still needs the session"
            hold.release()
            assert (await begun).status == 200
            await user.wait_for(lambda vendor: vendor.logouts and vendor.logouts[0].status, SOON)
        before, first, replayed = user.calls
        assert (before.status, first.status, replayed.status) == (200, 401, 200)
        assert "X-New" not in replayed.headers
        assert len(user.sessions) == 1
        assert user.live_sessions == []


@together
async def test_the_memory_stays_as_it_is(folder: Path) -> None:
    """Thirty reloads of a config with certificates, each of which replaces most routes and the credential."""
    async with Atlas() as atlas, RawUpstream() as upstream:

        def config(number: int) -> Config:
            routes = {f"/r{number % 2}-{each}": upstream.url for each in range(50)}
            routes |= {f"/tls-{each}": f"https://vendor-{each}.test" for each in range(3)}
            return {
                "credentials": {"atlas": atlas_credential(atlas, timeout=f"{9 + number % 2}s")},
                "routes": {prefix: {"upstream": url, "credential": "atlas"} for prefix, url in routes.items()},
            }

        async with Bearward(config(0), folder) as bearward:
            for number in range(1, 35):
                await bearward.reload(config(number))
                assert (await bearward.get(f"/r{number % 2}-7/x")).status == 200
                if number == 4:
                    growth = bearward.memory_growth()
            assert growth() < MEMORY
