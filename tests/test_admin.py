"""The admin port: probes, status, and the metrics of the contract by name and label."""

import asyncio
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from bearward.events import UpstreamFailed
from bearward.ops import metrics as ops
from bearward.ops.state import State
from bearward.proxy.tally import Tally
from configs import acronis_credential, atlas_config, ocp_credential
from evidence import new_secret
from harness import Bearward, Metrics
from ports import free_port
from problems import assert_problem
from vendors import faults
from vendors.acronis import AcronisClient, AcronisDataCenter
from vendors.atlas import Atlas
from vendors.ocp import Ocp

in_module_loop = pytest.mark.asyncio(loop_scope="module")

# Type and labels of every metric; a counter's samples end in _total.
CONTRACT = {
    "build": ("info", {"version"}),
    "requests": ("counter", {"route", "method", "code", "origin"}),
    "request_duration_seconds": ("histogram", {"route"}),
    "requests_in_flight": ("gauge", {"route"}),
    "request_body_bytes": ("counter", {"route"}),
    "response_body_bytes": ("counter", {"route"}),
    "rejected_requests": ("counter", {"reason"}),
    "upstream_failures": ("counter", {"route", "reason"}),
    "upstream_unauthorized": ("counter", {"route"}),
    "replays": ("counter", {"route"}),
    "token_refreshes": ("counter", {"credential"}),
    "token_refresh_failures": ("counter", {"credential", "reason"}),
    "token_refresh_duration_seconds": ("histogram", {"credential"}),
    "token_expiry_timestamp_seconds": ("gauge", {"credential"}),
    "token_refresh_due_timestamp_seconds": ("gauge", {"credential"}),
    "token_last_refresh_success_timestamp_seconds": ("gauge", {"credential"}),
    "token_waiters": ("gauge", {"credential"}),
    "tokens_held": ("gauge", {"credential"}),
    "idp_clock_skew_seconds": ("gauge", {"credential"}),
    "config_last_reload_successful": ("gauge", set()),
    "config_last_reload_success_timestamp_seconds": ("gauge", set()),
}
LIFETIME = 3600


@dataclass
class Town:
    """A product with several credentials and routes."""

    bearward: Bearward
    at_start: Metrics
    atlas: Atlas
    ocp: Ocp
    centers: dict[str, AcronisDataCenter]

    @property
    def credentials(self) -> set[str]:
        relative = {f"acronis@127.0.0.1:{center.site.port}" for center in self.centers.values()}
        return {"atlas", f"ocp@127.0.0.1:{self.ocp.site.port}", *relative}

    routes = frozenset({"/atlas", "/eu8", "/us5", "/ocp", "/nobody"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        client = AcronisClient()
        centers = {
            name: await stack.enter_async_context(AcronisDataCenter(client, LIFETIME)) for name in ("eu8", "us5")
        }
        atlas = await stack.enter_async_context(Atlas(LIFETIME))
        ocp = await stack.enter_async_context(Ocp(LIFETIME))
        config = atlas_config({"atlas": atlas})
        config["data_centers"] = {name: center.url for name, center in centers.items()}
        config["credentials"] |= {"acronis": acronis_credential(client), "ocp": ocp_credential(ocp)}
        config["routes"] |= {
            "/{data_center}": {"upstream": "{data_center}", "credential": "acronis"},
            "/ocp": {"upstream": f"{ocp.url}/api", "credential": "ocp"},
            "/nobody": {"upstream": f"http://127.0.0.1:{free_port()}", "credential": "atlas"},
        }
        folder = tmp_path_factory.mktemp("town")
        bearward = await stack.enter_async_context(Bearward(config, folder, name="admin"))
        yield Town(bearward, await bearward.metrics(), atlas, ocp, centers)


def families(metrics: Metrics) -> dict[str, str]:
    """Name and type of every metric of bearward's own."""
    types = re.findall(r"^# TYPE bearward_(\S+) (\S+)$", metrics.text, re.MULTILINE)
    return {name.removesuffix("_total").removesuffix("_info"): kind for name, kind in types}


@in_module_loop
async def test_every_metric_has_its_name_and_type(town: Town) -> None:
    # The text format knows no info type: it is a gauge there.
    expected = {name: "gauge" if kind == "info" else kind for name, (kind, _) in CONTRACT.items()}
    assert families(town.at_start) == expected
    assert "_created" not in town.at_start.text


@in_module_loop
@pytest.mark.parametrize("name", CONTRACT)
async def test_every_metric_has_its_labels_and_samples_from_the_start(town: Town, name: str) -> None:
    kind, labels = CONTRACT[name]
    suffix = {"counter": "_total", "info": "_info", "histogram": "_count"}.get(kind, "")
    samples = [dict(own) for own in town.at_start.matching(name + suffix)]
    assert samples, "no sample before something happens: an increase from nothing is not seen"
    assert {frozenset(own) for own in samples} == {frozenset(labels)}
    if "route" in labels:
        assert {own["route"] for own in samples} == town.routes
    if "credential" in labels:
        assert {own["credential"] for own in samples} == town.credentials


@in_module_loop
async def test_metrics_are_clean(town: Town) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here: it is in the Debian package prometheus")
    process = await asyncio.create_subprocess_exec(
        *(promtool, "check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate((await town.bearward.metrics()).text.encode())
    assert (process.returncode, output.decode()) == (0, "")


@in_module_loop
async def test_no_series_appears_later_but_codes_and_methods(town: Town) -> None:
    bearward = town.bearward
    await bearward.get("/atlas/accountreports")
    await bearward.get("/nobody/x")
    await bearward.get("/nowhere")
    await bearward.get("/atlas/a%2Fb")
    await bearward.request("TRACE", "/atlas/x")
    await bearward.get("/atlas/x", headers={"Origin": "null"})
    await bearward.get("/atlas/x", headers={"Host": "evil.example"})
    await bearward.raw(b"nonsense\r\n\r\n")
    town.atlas.api_faults.fail_next(1, faults.unauthorized())
    await bearward.get("/atlas/accountreports")
    town.atlas.api_faults.fail_next(1, faults.close_early)
    async with bearward.connect() as connection:
        await connection.send(b"GET /atlas/x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % bearward.port)
        await connection.closed()
    later = await bearward.metrics()
    new = {(name, own) for name, own in later.samples.keys() - town.at_start.samples.keys()}
    assert {name for name, _ in new} <= {"bearward_requests_total"}, "series that were not there at the start"


@in_module_loop
async def test_requests_are_counted(town: Town) -> None:
    bearward = town.bearward
    before = await bearward.metrics()
    body = b"x" * 1000
    answer = await bearward.post("/eu8/api/2/clients", body)
    await bearward.get("/eu8/elsewhere")
    await bearward.get("/nobody/x")
    after = await bearward.metrics()

    def grown(name: str, **labels: str) -> float:
        return after.total(name, **labels) - sum(before.matching(name, **labels).values())

    assert grown("requests_total", route="/eu8", method="POST", code="200", origin="upstream") == 1
    assert grown("requests_total", route="/eu8", method="GET", code="404", origin="upstream") == 1
    assert grown("requests_total", route="/nobody", method="GET", code="502", origin="proxy") == 1
    assert grown("upstream_failures_total", route="/nobody", reason="upstream_unreachable") == 1
    assert grown("request_duration_seconds_count", route="/eu8") == 2
    assert grown("request_body_bytes_total", route="/eu8") == len(body)
    assert grown("response_body_bytes_total", route="/eu8") >= len(answer.body)
    assert after.total("requests_in_flight") == 0


def counts(metrics: Metrics, name: str, label: str, **labels: str) -> dict[str, float]:
    """The samples with these labels, by one more label."""
    return {dict(own)[label]: value for own, value in metrics.matching(name, **labels).items()}


@in_module_loop
async def test_every_status_of_bearwards_own_is_there_before_it_is_answered(town: Town) -> None:
    own = {"400", "408", "413", "417", "499", "500", "502", "503", "504"}
    at_start = counts(town.at_start, "requests_total", "code", route="/us5", origin="proxy")
    assert at_start == dict.fromkeys(own, 0)
    assert {dict(labels)["method"] for labels in town.at_start.matching("requests_total")} == {"GET"}
    await town.bearward.request("PATCH", "/us5/api/2/clients", data=b"x")
    later = await town.bearward.metrics()
    assert counts(later, "requests_total", "code", route="/us5", origin="proxy", method="PATCH") == at_start
    assert {dict(labels)["method"] for labels in later.matching("requests_total", route="/ocp")} == {"GET"}


@in_module_loop
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("request_duration_seconds", {"route": "/eu8"}),
        ("token_refresh_duration_seconds", {"credential": "atlas"}),
    ],
)
async def test_a_histogram_is_cumulative_and_adds_up(town: Town, name: str, labels: dict[str, str]) -> None:
    for _ in range(5):
        await town.bearward.get("/eu8/api/2/clients")
    metrics = await town.bearward.metrics()
    buckets = counts(metrics, f"{name}_bucket", "le", **labels)
    bounds = sorted(buckets, key=float)
    assert len(bounds) == 14
    assert [buckets[bound] for bound in bounds] == sorted(buckets.values())
    assert 0 < buckets["+Inf"] == metrics.total(f"{name}_count", **labels)
    assert 0 < metrics.total(f"{name}_sum", **labels) < 60 * buckets["+Inf"]
    if "route" in labels:
        assert buckets["+Inf"] == metrics.total("requests_total", **labels)
        assert buckets["10.0"] == buckets["+Inf"], "local calls"


def test_what_a_route_has_counted_outlives_a_change_of_the_routes() -> None:
    """A route and its numbers as the proxy keeps them; another one comes, goes and comes again."""
    stays, goes = Tally(), Tally()

    def routes(**tallies: Tally) -> Any:
        source = SimpleNamespace(label="own", statuses=list, chained={})
        return {f"/{name}": (SimpleNamespace(tally=tally), source) for name, tally in tallies.items()}

    def failures(route: str) -> float:
        return Metrics(metrics.exposition().decode()).total("upstream_failures_total", route=route)

    state = State(routes(stays=stays))
    metrics = ops.Metrics(state)
    for route in ("/stays", "/goes"):
        metrics(UpstreamFailed(route, "truncated", ""))
    stays.done(b"GET", 200, "upstream", 0.1)
    before = Metrics(metrics.exposition().decode())
    assert "/goes" not in before.text
    state.routes = routes(stays=stays, goes=goes)
    metrics.config_read(ok=False)
    after = Metrics(metrics.exposition().decode())
    changed = {name for name, value in before.samples.items() if after.samples.get(name) != value}
    assert changed == {("bearward_config_last_reload_successful", frozenset())}
    assert after.total("config_last_reload_successful") == 0
    assert failures("/goes") == failures("/stays") == 1
    state.routes = routes(stays=stays)
    metrics.config_read(ok=True)
    assert "/goes" not in metrics.exposition().decode()
    good = Metrics(metrics.exposition().decode())
    assert good.total("config_last_reload_successful") == 1
    name = "config_last_reload_success_timestamp_seconds"
    assert good.total(name) > after.total(name) == before.total(name)


@in_module_loop
async def test_rejections_are_counted_by_reason(town: Town) -> None:
    before = await town.bearward.metrics()
    await town.bearward.get("/nowhere")
    await town.bearward.get("/atlas/x%2Fy")
    await town.bearward.get("/atlas/x", headers={"Origin": "https://evil.example"})
    after = await town.bearward.metrics()
    for reason in ("no_route", "bad_path", "origin_not_allowed"):
        counted = [metrics.total("rejected_requests_total", reason=reason) for metrics in (before, after)]
        assert counted[1] - counted[0] == 1, reason


@in_module_loop
async def test_a_tokens_life_is_told(town: Town) -> None:
    metrics = await town.bearward.metrics()
    now = time.time()
    for credential in town.credentials:
        assert metrics.total("token_refreshes_total", credential=credential) == 1
        assert metrics.total("token_refresh_duration_seconds_count", credential=credential) == 1
        assert metrics.total("tokens_held", credential=credential) == 1
        assert metrics.total("token_waiters", credential=credential) == 0
        expiry = metrics.total("token_expiry_timestamp_seconds", credential=credential)
        due = metrics.total("token_refresh_due_timestamp_seconds", credential=credential)
        last = metrics.total("token_last_refresh_success_timestamp_seconds", credential=credential)
        assert now - 60 < last <= now
        assert abs(expiry - last - LIFETIME) < 3
        # Between 1 and 1.25 times the lead of a fifth of the lifetime.
        assert 0.75 * LIFETIME - 3 < due - last < 0.8 * LIFETIME + 3
        assert abs(metrics.total("idp_clock_skew_seconds", credential=credential)) < 3


@in_module_loop
@pytest.mark.parametrize("path", ["/livez", "/startupz", "/readyz"])
async def test_a_probe_says_yes(town: Town, path: str) -> None:
    assert (await town.bearward.admin(path)).status == 200


@in_module_loop
async def test_readyz_verbose_lists_each_token(town: Town) -> None:
    text = (await town.bearward.admin("/readyz?verbose")).body.decode()
    for credential in town.credentials:
        assert credential in text
    assert "atlas" not in (await town.bearward.admin("/readyz")).body.decode()


@in_module_loop
async def test_status_tells_the_same_as_json(town: Town) -> None:
    status = repr(await town.bearward.status())
    for word in (*town.credentials, *town.routes):
        assert word in status


@in_module_loop
@pytest.mark.parametrize("path", ["/livez", "/startupz", "/readyz", "/metrics", "/api/status"])
async def test_the_data_port_has_none_of_it(town: Town, path: str) -> None:
    assert_problem(await town.bearward.get(path), 404, "no_route")


async def test_probes_before_the_first_token(tmp_path: Path) -> None:
    async with Atlas() as atlas:
        hold = faults.Hold()
        atlas.token_faults.mode = hold
        async with Bearward(atlas_config({"atlas": atlas}), tmp_path, until="/livez") as bearward:
            await hold.arrived.wait()
            assert (await bearward.admin("/startupz")).status == 503
            assert not await bearward.is_ready()
            assert (await bearward.metrics()).total("tokens_held") == 0
            hold.release()
            assert (await bearward.get("/atlas/accountreports")).status == 200
            assert (await bearward.admin("/startupz")).status == 200
            assert await bearward.is_ready()


async def test_a_definite_refusal_is_a_start_too(tmp_path: Path) -> None:
    async with Atlas() as good, Atlas() as refused:
        config = atlas_config({"good": good, "refused": refused})
        config["credentials"]["refused"]["client_secret"] = new_secret("client secret")
        async with Bearward(config, tmp_path) as bearward:
            assert await bearward.is_ready(), "one route can be served"
            assert_problem(await bearward.get("/refused/x"), 503, "credential_rejected")
            metrics = await bearward.metrics()
            assert metrics.total("token_refresh_failures_total", credential="refused") == 1
            assert metrics.total("tokens_held", credential="refused") == 0
    assert len(refused.token_requests) == 1
