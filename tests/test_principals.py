"""A token for each user: who is named by a header, kept apart, and let go."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from configs import Config, acceleration_credential, ocp_config
from evidence import new_secret
from harness import Bearward
from problems import assert_problem
from vendors import faults
from vendors.acceleration_cloud import USER_HEADER, AccelerationCloud
from vendors.ocp import Ocp

in_module_loop = pytest.mark.asyncio(loop_scope="module")

# The first back-off is at most one second.
BACK_OFF = 1.0
TWO_AT_MOST = {"header": USER_HEADER, "max": 2}


def cloud_config(vendor: AccelerationCloud, **credential: Any) -> Config:
    """The route `/cloud` and its credential."""
    return {
        "credentials": {"cloud": acceleration_credential(vendor, **credential)},
        "routes": {"/cloud": {"upstream": f"{vendor.url}/api/v1", "credential": "cloud"}},
    }


@dataclass
class Cloud:
    """Acceleration Cloud behind the route `/cloud`."""

    bearward: Bearward
    vendor: AccelerationCloud

    def requests_of(self, user: str) -> int:
        return sum(1 for asked in self.vendor.token_requests if dict(asked.query)["user_id"] == user)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cloud]:
    async with AccelerationCloud(users=20) as vendor:
        folder = tmp_path_factory.mktemp("cloud")
        async with Bearward(cloud_config(vendor), folder, name="principals") as bearward:
            yield Cloud(bearward, vendor)


@in_module_loop
async def test_nothing_is_asked_before_a_user_comes(cloud: Cloud) -> None:
    assert await cloud.bearward.is_ready()
    assert cloud.vendor.token_requests == []


@in_module_loop
@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (b"", "principal_required"),
        (b"X-User-Id:\r\n", "principal_required"),
        (b"X-User-Id: \t \r\n", "principal_required"),
        (b"X-User-Id: one\r\nX-User-Id: one\r\n", "bad_request"),
        (b"X-User-Id: one\r\nx-uSER-iD: two\r\n", "bad_request"),
    ],
    ids=["missing", "empty", "blank", "twice", "two"],
)
async def test_exactly_one_user_is_named(cloud: Cloud, lines: bytes, code: str) -> None:
    before = len(cloud.vendor.calls), len(cloud.vendor.token_requests)
    host = b"Host: 127.0.0.1:%d\r\n" % cloud.bearward.port
    answer = await cloud.bearward.raw(b"GET /cloud/orders HTTP/1.1\r\n" + host + lines + b"\r\n")
    assert_problem(answer, 400, code)
    assert (len(cloud.vendor.calls), len(cloud.vendor.token_requests)) == before


@in_module_loop
async def test_every_user_has_one_token_however_many_ask(cloud: Cloud) -> None:
    users = cloud.vendor.users[:10]
    answers = await asyncio.gather(
        *(
            cloud.bearward.get(f"/cloud/of/{n}", headers={USER_HEADER: user})
            for n, user in enumerate(users)
            for _ in range(20)
        )
    )
    assert {answer.summary for answer in answers} == {(200, None)}
    assert [cloud.requests_of(user) for user in users] == [1] * len(users)
    for call in cloud.vendor.calls:
        number = int(call.target.rpartition("/")[2])
        assert call.token is not None
        assert call.token.key == users[number]
        assert USER_HEADER not in call.headers


@in_module_loop
async def test_an_unknown_user_costs_the_others_nothing(cloud: Cloud) -> None:
    unknown = new_secret("principal")
    for _ in range(3):
        answer = await cloud.bearward.get("/cloud/orders", headers={USER_HEADER: unknown})
        assert_problem(answer, 503, "credential_rejected")
    assert cloud.requests_of(unknown) == 1
    known = await cloud.bearward.get("/cloud/orders", headers={USER_HEADER: cloud.vendor.users[11]})
    assert known.status == 200
    assert await cloud.bearward.is_ready()


@in_module_loop
async def test_one_user_who_waits_holds_up_no_other(cloud: Cloud) -> None:
    hold = faults.Hold()
    cloud.vendor.token_faults.fail_next(1, hold)
    waiting = asyncio.create_task(cloud.bearward.get("/cloud/orders", headers={USER_HEADER: cloud.vendor.users[12]}))
    await hold.arrived.wait()
    other = await cloud.bearward.get("/cloud/orders", headers={USER_HEADER: cloud.vendor.users[13]})
    assert other.status == 200
    assert not waiting.done()
    hold.release()
    assert (await waiting).status == 200


async def test_who_was_not_seen_for_longest_is_logged_out(tmp_path: Path) -> None:
    async with Ocp() as ocp:
        config = ocp_config(ocp, principal=TWO_AT_MOST, headers={"X-On-Behalf-Of": "{principal}"})
        users = [new_secret("principal") for _ in range(3)]
        async with Bearward(config, tmp_path) as bearward:

            async def ask(user: str) -> None:
                assert (await bearward.get("/ocp/things", headers={USER_HEADER: user})).status == 200

            await ask(users[0])
            await ask(users[1])
            await ask(users[0])
            assert ocp.logouts == []
            await ask(users[2])
            await ocp.wait_for(lambda vendor: vendor.logouts)
            assert [session.ended for session in ocp.sessions] == [False, True, False]
            await ask(users[0])
            assert len(ocp.grants("password")) == 3
            metrics = await bearward.metrics()
            assert metrics.total("tokens_held") == 2
        assert ocp.live_sessions == []
    assert [logout.status for logout in ocp.logouts] == [204] * 3


async def test_who_waits_is_served_even_where_more_ask_than_are_held(tmp_path: Path) -> None:
    async with AccelerationCloud(users=6) as vendor:
        hold = faults.Hold()
        vendor.token_faults.mode = hold
        async with Bearward(cloud_config(vendor, principal=TWO_AT_MOST), tmp_path) as bearward:
            asking = [
                asyncio.create_task(bearward.get("/cloud/orders", headers={USER_HEADER: user})) for user in vendor.users
            ]
            await vendor.wait_for(lambda v: len({dict(asked.query)["user_id"] for asked in v.token_requests}) == 6)
            hold.release()
            assert [answer.summary for answer in await asyncio.gather(*asking)] == [(200, None)] * 6


async def test_a_look_at_the_tokens_is_no_use_of_them(tmp_path: Path) -> None:
    """Who was not seen for longest leaves, however often the operator looks."""
    async with (
        AccelerationCloud() as vendor,
        Bearward(cloud_config(vendor, principal=TWO_AT_MOST), tmp_path) as bearward,
    ):
        busy, idle, new = vendor.users
        for user in (busy, idle, busy):
            assert (await bearward.get("/cloud/orders", headers={USER_HEADER: user})).status == 200
        for path in ("/metrics", "/api/status", "/readyz?verbose"):
            assert (await bearward.admin(path)).status == 200
        for user in (new, busy):
            assert (await bearward.get("/cloud/orders", headers={USER_HEADER: user})).status == 200
    assert [dict(asked.query)["user_id"] for asked in vendor.token_requests] == [busy, idle, new]


async def test_no_user_leads_to_another_path(tmp_path: Path) -> None:
    async with AccelerationCloud() as vendor:
        config = cloud_config(vendor, token_url=f"{vendor.url}/api/{{principal}}/token")
        async with Bearward(config, tmp_path) as bearward:
            for user in (".", ".."):
                answer = await bearward.get("/cloud/orders", headers={USER_HEADER: user})
                assert_problem(answer, 503, "credential_rejected")
    assert (vendor.token_requests, vendor.calls) == ([], []), "not even asked for"


async def test_nobody_is_asked_for_who_does_not_wait(tmp_path: Path) -> None:
    """The token of a user who has left is not tried for any longer, until that user comes again."""
    async with AccelerationCloud() as vendor, Bearward(cloud_config(vendor), tmp_path) as bearward:
        user = {USER_HEADER: vendor.users[0]}
        hold = faults.Hold(then=faults.server_error)
        vendor.token_faults.fail_next(1, hold)
        impatient = asyncio.create_task(bearward.get("/cloud/orders", headers=user))
        await hold.arrived.wait()
        impatient.cancel()
        async with asyncio.timeout(10):
            while (await bearward.metrics()).total("token_waiters"):
                await asyncio.sleep(0.02)
        hold.release()
        await vendor.wait_for(lambda v: v.token_requests[0].status == 500)
        await asyncio.sleep(1.5 * BACK_OFF)
        assert len(vendor.token_requests) == 1
        assert (await bearward.get("/cloud/orders", headers=user)).status == 200
        assert len(vendor.token_requests) == 2
