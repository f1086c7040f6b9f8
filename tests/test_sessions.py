"""Sessions at the identity provider: each is lived on while it can be, and none is left behind."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from configs import ocp_config, ocp_credential
from evidence import new_secret
from harness import Bearward
from ports import free_port
from together import Together
from vendors import faults
from vendors.acceleration_cloud import USER_HEADER
from vendors.ocp import Ocp

# A token is refreshed in the second half of its life, and not handed out in its last two seconds.
LIFETIME = 4.0
MARGIN = 2.0
# Longer than any logout may take, and shorter than a token request may.
LONG = 3.5

together = Together()


@asynccontextmanager
async def users(
    folder: Path, answers: dict[str, list[faults.Fault]], **credential: str
) -> AsyncIterator[tuple[Bearward, dict[str, Ocp]]]:
    """A product that signs in as several users, whose first token requests are answered so; one call of each works."""
    async with AsyncExitStack() as stack:
        vendors = {}
        for name, first in answers.items():
            vendors[name] = ocp = await stack.enter_async_context(Ocp(LIFETIME, rotation=True))
            for fault in first:
                ocp.token_faults.fail_next(1, fault)
        config = {
            "credentials": {name: ocp_credential(ocp, **credential) for name, ocp in vendors.items()},
            "routes": {f"/{name}": {"upstream": f"{ocp.url}/api", "credential": name} for name, ocp in vendors.items()},
        }
        bearward = await stack.enter_async_context(Bearward(config, folder))
        yield bearward, vendors
        for name, ocp in vendors.items():
            assert (await bearward.get(f"/{name}/things")).summary == (200, None), name
            sent = [asked.form["refresh_token"] for asked in ocp.grants("refresh_token")]
            assert len(sent) == len(set(sent)), f"{name}: a refresh token was used twice"


def grant_types(ocp: Ocp, count: int) -> list[str]:
    """Of the first `count` token requests."""
    return [asked.form["grant_type"] for asked in ocp.token_requests[:count]]


def second_was(fault: faults.Fault) -> list[faults.Fault]:
    """A regular sign-in, and then this."""
    return [faults.none, fault]


@together
async def test_an_unusable_answer_leaves_its_refresh_token(folder: Path) -> None:
    """A token that cannot be used is no reason for another session."""
    answers = {
        "expired": second_was(faults.change(expires_in=0)),
        "no-token": second_was(faults.omit("access_token")),
        "spaced-token": second_was(faults.change(access_token="two words")),
    }
    async with users(folder, answers) as (_, vendors):
        for name, ocp in vendors.items():
            await ocp.wait_for(lambda vendor: len(vendor.token_requests) >= 3 and vendor.token_requests[2].status)
            assert grant_types(ocp, 3) == ["password", "refresh_token", "refresh_token"], name
            assert ocp.token_requests[2].form["refresh_token"] == ocp.sessions[0].refresh_tokens[1], name
            assert ocp.logouts == [], name
    assert [len(ocp.sessions) for ocp in vendors.values()] == [1] * len(answers)


@together
async def test_an_unreadable_answer_ends_the_session(folder: Path) -> None:
    """Whether the refresh token is spent is unknown: it is logged out before the next sign-in."""
    answers = {
        "huge": second_was(faults.huge),
        "cut-short": second_was(faults.taken(faults.close_early)),
        "bad-gateway": second_was(faults.taken(faults.answer(502))),
        "gateway-timeout": second_was(faults.taken(faults.answer(504))),
    }
    async with users(folder, answers) as (_, vendors):
        for name, ocp in vendors.items():
            await ocp.wait_for(lambda vendor: len(vendor.token_requests) >= 3 and vendor.token_requests[2].status)
            assert grant_types(ocp, 3) == ["password", "refresh_token", "password"], name
            (logout,) = ocp.logouts
            assert (logout.refresh_token, logout.status) == (ocp.sessions[0].refresh_tokens[0], 204), name
            assert logout.at < ocp.token_requests[2].at, name
            assert len(ocp.live_sessions) == 1, name


@together
async def test_a_sign_in_without_a_usable_token_is_lived_on(folder: Path) -> None:
    """The session is open: its refresh token brings what the sign-in did not."""
    async with users(folder, {"expired": [faults.change(expires_in=0)]}) as (_, vendors):
        (ocp,) = vendors.values()
        assert grant_types(ocp, 2) == ["password", "refresh_token"]
    assert len(ocp.sessions) == 1
    assert ocp.live_sessions == []


@together
async def test_a_negative_session_lifetime_counts_as_none(folder: Path) -> None:
    async with users(folder, {"negative": [faults.change(refresh_expires_in=-1)]}) as (_, vendors):
        (ocp,) = vendors.values()
        await ocp.wait_for(lambda vendor: len(vendor.token_requests) >= 2)
        assert grant_types(ocp, 2) == ["password", "refresh_token"]


@together
async def test_a_session_that_cannot_be_refreshed_is_logged_out(folder: Path) -> None:
    """Its refresh token is useless here and not dead: the session would count against the limit."""
    unsupported = faults.answer(400, '{"error":"unsupported_grant_type"}', Content_Type="application/json")
    async with users(folder, {"unsupported": second_was(unsupported)}) as (_, vendors):
        (ocp,) = vendors.values()
        await ocp.wait_for(lambda vendor: len(vendor.book.issued) == 2)
        assert [logout.status for logout in ocp.logouts] == [204]
        assert grant_types(ocp, 3) == ["password", "refresh_token", "password"]
        assert ocp.sessions[0].ended
        assert len(ocp.live_sessions) == 1


@together
async def test_a_logout_that_fails_is_made_up_for(folder: Path) -> None:
    """Neither a refusal nor silence keeps the next token waiting, and with a later one the logout is sent again."""
    lost = second_was(faults.disconnect)
    async with users(folder, {"refused": lost, "silent": lost}) as (_, vendors):
        vendors["refused"].logout_faults.fail_next(1, faults.answer(503, Retry_After="1"))
        vendors["silent"].logout_faults.fail_next(1, faults.hang)
        for (name, ocp), first in zip(vendors.items(), (503, None), strict=True):
            old = ocp.sessions[0].refresh_tokens[0]
            await ocp.wait_for(lambda vendor: len(vendor.logouts) >= 2 and vendor.logouts[1].status, timeout=20)
            assert [(each.refresh_token, each.status) for each in ocp.logouts] == [(old, first), (old, 204)], name
            assert len(ocp.live_sessions) == 1, name


@together
async def test_an_unreachable_logout_does_not_stand_in_the_way_of_a_token(folder: Path) -> None:
    answers = {"unreachable": second_was(faults.disconnect)}
    async with users(folder, answers, logout_url=f"http://127.0.0.1:{free_port()}/logout") as (_, vendors):
        (ocp,) = vendors.values()
        await ocp.wait_for(lambda vendor: len(vendor.book.issued) >= 2, timeout=20)
        assert grant_types(ocp, 3) == ["password", "refresh_token", "password"]


@together
async def test_a_sign_in_that_takes_long_is_awaited_at_the_stop(folder: Path) -> None:
    """It opens a session, which only its answer allows to end."""
    async with Ocp() as ocp:
        hold = faults.Hold()
        ocp.token_faults.mode = hold
        async with Bearward(ocp_config(ocp), folder, until="/livez") as bearward:
            await hold.arrived.wait()
            bearward.process.send_signal(signal.SIGTERM)
            ending = asyncio.create_task(bearward.exit_code())
            await asyncio.wait([ending], timeout=LONG)
            hold.release()
            assert await ending == 0
        await ocp.wait_for(lambda vendor: vendor.token_requests[0].status)
    assert len(ocp.sessions) == 1
    assert ocp.live_sessions == []


@together
async def test_a_short_lead_does_not_keep_calls_waiting(folder: Path) -> None:
    """The next token is asked for before the old one is no longer handed out."""
    async with Ocp(lifetime=8) as ocp, Bearward(ocp_config(ocp, refresh={"lead": "200ms"}), folder):
        await ocp.wait_for(lambda vendor: len(vendor.book.issued) >= 2)
        first, second = ocp.token_requests[:2]
        assert second.at - first.at < 8 - MARGIN


@together
async def test_who_waits_for_long_is_served_and_then_logged_out(folder: Path) -> None:
    """Another user takes the only place meanwhile."""
    async with Ocp() as ocp:
        hold = faults.Hold()
        ocp.token_faults.mode = hold
        principal = {"header": USER_HEADER, "max": 1}
        config = ocp_config(ocp, principal=principal, headers={"X-On-Behalf-Of": "{principal}"})
        async with Bearward(config, folder) as bearward:
            asking = []
            for number in (1, 2):
                user = {USER_HEADER: new_secret("principal")}
                asking.append(asyncio.create_task(bearward.get("/ocp/things", headers=user)))
                await ocp.wait_for(lambda vendor, number=number: len(vendor.token_requests) == number)
            answered, _ = await asyncio.wait(asking, timeout=LONG)
            assert not answered
            hold.release()
            assert [answer.summary for answer in await asyncio.gather(*asking)] == [(200, None)] * 2
            await ocp.wait_for(lambda vendor: vendor.logouts and vendor.logouts[0].status)
            assert [session.ended for session in ocp.sessions] == [True, False]


@together
async def test_a_sign_in_after_a_session_that_is_over_is_lived_on_too(folder: Path) -> None:
    """How long the session before was to last says nothing of this one."""
    answers = [faults.change(refresh_expires_in=1), faults.change(expires_in=0)]
    async with users(folder, {"again": answers}) as (_, vendors):
        (ocp,) = vendors.values()
        ocp.sessions[0].ended = True  # as its answer has said
        await ocp.wait_for(lambda vendor: len(vendor.token_requests) >= 3 and vendor.token_requests[2].status)
        assert grant_types(ocp, 3) == ["password", "password", "refresh_token"]
    assert ocp.live_sessions == []
