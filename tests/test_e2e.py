"""Each vendor by its preset, through a started `bearward run`, under load over more than three token lifetimes."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import aiohttp

from configs import acceleration_credential, acronis_credential, atlas_credential, ocp_credential
from evidence import new_secret
from harness import Bearward, Metrics
from together import Together
from vendors.acceleration_cloud import USER_HEADER, AccelerationCloud
from vendors.acronis import AcronisClient, AcronisDataCenter
from vendors.atlas import Atlas
from vendors.base import TokenRequest, Vendor
from vendors.ocp import Ocp

LIFETIME = 6.0
DURATION = 3.3 * LIFETIME
WORKERS = 4
PAUSE = 0.02
FEWEST_CALLS = 300
# Between the moments at which two requests were sent, and those at which they arrived.
ARRIVAL = 0.4

Call = tuple[str, dict[str, str]]

together = Together()


async def under_load(bearward: Bearward, calls: Sequence[Call], seconds: float = DURATION) -> Counter[Any]:
    """Make the calls in turn from several workers; how often each outcome came."""
    outcomes: Counter[Any] = Counter()
    end = time.monotonic() + seconds
    turn = cycle(calls)
    # What a client asks for is nobody's business either.
    query, header = new_secret("query value"), new_secret("header value")

    async def work() -> None:
        while time.monotonic() < end:
            path, headers = next(turn)
            try:
                answer = await bearward.get(f"{path}?probe={query}", headers=headers | {"X-Probe": header})
                outcomes[answer.summary] += 1
            except aiohttp.ClientError as error:
                outcomes[repr(error)] += 1
            await asyncio.sleep(PAUSE)

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    return outcomes


def assert_no_call_failed(outcomes: Counter[Any], *vendors: Vendor) -> None:
    """Every call was answered 200, and the vendors saw exactly these calls, each with one live token."""
    assert outcomes.keys() == {(200, None)}, f"not every call was answered: {outcomes}"
    assert outcomes.total() > FEWEST_CALLS, "that was no load"
    verdicts = Counter(call.verdict for vendor in vendors for call in vendor.calls)
    assert verdicts == {"live": outcomes.total()}


def earliest_refresh(lifetime: float) -> float:
    """How long after its request a token may be refreshed at the earliest."""
    lead = min(max(0.2 * lifetime, min(10, lifetime / 2)), 900)
    return lifetime - 1.25 * lead


def assert_as_rarely_as_the_policy_says(asked: Sequence[TokenRequest], lifetime: float = LIFETIME) -> None:
    """The token requests of one key: all granted, none too early, none too many, and as many as lives went by."""
    assert [each.status for each in asked] == [200] * len(asked)
    soonest = earliest_refresh(lifetime)
    gaps = [later.at - earlier.at for earlier, later in pairwise(asked)]
    assert min(gaps) >= soonest - ARRIVAL, f"refreshed after {min(gaps):.2f} s; the policy says {soonest:.2f} s"
    assert 3 <= len(gaps) <= DURATION / (soonest - ARRIVAL) + 1, f"{len(gaps)} refreshes in {DURATION} s"


def assert_counted(metrics: Metrics, credential: str, asked: Sequence[TokenRequest]) -> None:
    """The metrics tell of the same token requests as the vendor."""
    assert metrics.total("token_refreshes_total", credential=credential) == len(asked)
    assert sum(metrics.matching("token_refresh_failures_total", credential=credential).values()) == 0


@together
async def test_acronis_connector(folder: Path) -> None:
    """Two data centers, one client, a token for each."""
    client = AcronisClient()
    async with AcronisDataCenter(client, LIFETIME) as eu8, AcronisDataCenter(client, LIFETIME) as us5:
        config = {
            "data_centers": {"eu8": eu8.url, "us5": us5.url},
            "credentials": {"acronis": acronis_credential(client, client_secret={"file": "secret"})},
            "routes": {"/{data_center}": {"upstream": "{data_center}", "credential": "acronis"}},
        }
        calls: list[Call] = [(f"/{center}/api/2/clients/{client.id}", {}) for center in ("eu8", "us5")]
        files = {"secret": client.secret + "\n"}
        async with Bearward(config, folder, name="acronis-connector", files=files) as bearward:
            outcomes = await under_load(bearward, calls)
            metrics = await bearward.metrics()
            asked = [list(center.token_requests) for center in (eu8, us5)]
    assert_no_call_failed(outcomes, eu8, us5)
    for center, requests in zip((eu8, us5), asked, strict=True):
        # Its answers tell whole seconds, of two clocks that are read a moment apart.
        shortest = min(token.expires_at - token.issued_at for token in center.book.issued) - 0.5
        assert_as_rarely_as_the_policy_says(requests, shortest)
        assert_counted(metrics, f"acronis@127.0.0.1:{center.site.port}", requests)


@together
async def test_acronis_account(folder: Path) -> None:
    """Two APIs of one data center share its token."""
    client = AcronisClient()
    async with AcronisDataCenter(client, LIFETIME, account=True) as center:
        config = {
            "data_centers": {"eu8": center.url},
            "credentials": {"acronis": acronis_credential(client, "acronis-account")},
            "routes": {
                "/{data_center}": {"upstream": "{data_center}/api/2", "credential": "acronis"},
                "/{data_center}/tasks": {
                    "upstream": "{data_center}/api/task_manager/v2",
                    "credential": "acronis",
                },
            },
        }
        calls: list[Call] = [(f"/eu8/clients/{client.id}", {}), ("/eu8/tasks/tasks", {})]
        async with Bearward(config, folder, name="acronis-account") as bearward:
            outcomes = await under_load(bearward, calls)
            metrics = await bearward.metrics()
            asked = list(center.token_requests)
    assert_no_call_failed(outcomes, center)
    roots = Counter(call.target.split("?")[0] for call in center.calls)
    assert set(roots) == {f"/api/2/clients/{client.id}", "/api/task_manager/v2/tasks"}
    shortest = min(token.expires_at - token.issued_at for token in center.book.issued) - 0.5
    assert_as_rarely_as_the_policy_says(asked, shortest)
    assert_counted(metrics, f"acronis@127.0.0.1:{center.site.port}", asked)


@together
async def test_acceleration_cloud(folder: Path) -> None:
    """Several users, each with a token of its own, which only that user's calls carry."""
    async with AccelerationCloud(LIFETIME) as vendor:
        config = {
            "credentials": {"cloud": acceleration_credential(vendor, client_secret={"env": "CLOUD_SECRET"})},
            "routes": {"/cloud": {"upstream": f"{vendor.url}/api/v1", "credential": "cloud"}},
        }
        calls = [(f"/cloud/orders/{n}", {USER_HEADER: user}) for n, user in enumerate(vendor.users)]
        env = {"CLOUD_SECRET": vendor.client_secret}
        async with Bearward(config, folder, name="acceleration-cloud", env=env) as bearward:
            outcomes = await under_load(bearward, calls)
            asked = list(vendor.token_requests)
    assert_no_call_failed(outcomes, vendor)
    for n, user in enumerate(vendor.users):
        assert_as_rarely_as_the_policy_says([each for each in asked if dict(each.query)["user_id"] == user])
        owners = {call.token.key for call in vendor.calls if call.token and f"/orders/{n}?" in call.target}
        assert owners == {user}


@together
async def test_ocp(folder: Path) -> None:
    """One sign-in, then refreshes with rotating refresh tokens, and one logout at the end."""
    async with Ocp(LIFETIME, rotation=True) as ocp:
        config = {
            "credentials": {"ocp": ocp_credential(ocp, password={"file": "password"})},
            "routes": {"/ocp": {"upstream": f"{ocp.url}/api", "credential": "ocp"}},
        }
        files = {"password": ocp.password}
        async with Bearward(config, folder, name="ocp", files=files) as bearward:
            outcomes = await under_load(bearward, [("/ocp/things", {})])
            metrics = await bearward.metrics()
            asked = list(ocp.token_requests)
            assert await bearward.terminate() == 0
    assert_no_call_failed(outcomes, ocp)
    assert_as_rarely_as_the_policy_says(asked)
    assert_counted(metrics, f"ocp@127.0.0.1:{ocp.site.port}", asked)
    grants = [each.form["grant_type"] for each in asked]
    assert grants == ["password"] + ["refresh_token"] * (len(asked) - 1)
    assert [logout.status for logout in ocp.logouts] == [204]
    assert ocp.logouts[0].refresh_token == ocp.sessions[0].refresh_tokens[-1]
    assert ocp.live_sessions == []


@together
async def test_atlas(folder: Path) -> None:
    """The identity provider at another origin than the API."""
    async with Atlas(LIFETIME) as atlas:
        config = {
            "credentials": {"atlas": atlas_credential(atlas)},
            "routes": {"/atlas": {"upstream": atlas.api, "credential": "atlas"}},
        }
        async with Bearward(config, folder, name="atlas") as bearward:
            outcomes = await under_load(bearward, [("/atlas/accountreports", {})])
            metrics = await bearward.metrics()
            asked = list(atlas.token_requests)
    assert_no_call_failed(outcomes, atlas)
    assert_as_rarely_as_the_policy_says(asked)
    assert_counted(metrics, "atlas", asked)
    answered = metrics.total("requests_total", route="/atlas", method="GET", code="200", origin="upstream")
    assert answered == outcomes.total()
