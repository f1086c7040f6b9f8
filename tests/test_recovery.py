"""What fails and heals: identity providers, passwords, refresh tokens, sessions; each case in a process of its own."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any, Literal

from configs import atlas_config, ocp_config
from evidence import new_secret
from harness import Answer, Bearward
from problems import assert_problem
from together import Together
from vendors import faults
from vendors.atlas import Atlas
from vendors.ocp import Ocp

# How long a request waits for a token, and the longest back-off while it does.
PATIENCE = 15.0
BACK_OFF = 5.0
# A token of a few seconds is not handed out in its last two.
MARGIN = 2.0
# How soon a changed secret is noticed.
NOTICED = 5.0
# What a busy machine may add to any of these.
SLACK = 2.0

together = Together()


async def timed(asking: Any) -> tuple[Answer, float]:
    """An answer, and the seconds it took."""
    start = time.monotonic()
    return await asking, time.monotonic() - start


@together
async def test_identity_provider_down(folder: Path) -> None:
    """Served while the token lives, then 503 with Retry-After, then back within one back-off step."""
    async with Atlas(lifetime=8) as atlas, Bearward(atlas_config({"atlas": atlas}), folder) as bearward:
        await atlas.identity_site.close()
        life = atlas.book.issued[0]
        # It may have been issued as soon as it was asked for, as far as bearward can know.
        asked, *_ = await bearward.logs("token request ended")
        while time.monotonic() < life.expires_at - asked["seconds"] - MARGIN - 0.5:
            assert (await bearward.get("/atlas/accountreports")).summary == (200, None)
            await asyncio.sleep(0.05)
        # It lives still, but would perhaps not survive the journey: from here on it is handed out no more.
        await asyncio.sleep(life.expires_at - MARGIN + 0.3 - time.monotonic())
        answers = await asyncio.gather(*(timed(bearward.get("/atlas/accountreports")) for _ in range(20)))
        for answer, seconds in answers:
            assert_problem(answer, 503, "token_unavailable")
            assert seconds < PATIENCE + SLACK
        assert (await bearward.admin("/livez")).status == 200
        assert not await bearward.is_ready()
        await atlas.identity_site.open()
        back, seconds = await timed(bearward.get("/atlas/accountreports"))
        assert back.summary == (200, None)
        assert seconds < BACK_OFF + SLACK
        assert await bearward.is_ready()
        metrics = await bearward.metrics()
    assert {call.verdict for call in atlas.calls} == {"live"}
    assert metrics.total("token_refresh_failures_total", credential="atlas") >= 3


@together
async def test_a_wrong_password_is_tried_once(folder: Path) -> None:
    """Accounts get locked: however many ask, one try."""
    async with Ocp() as ocp:
        wrong = new_secret("password")
        async with Bearward(ocp_config(ocp, password=wrong), folder) as bearward:
            answers = await asyncio.gather(*(timed(bearward.get("/ocp/things")) for _ in range(20)))
            assert (await bearward.admin("/livez")).status == 200
            assert not await bearward.is_ready()
            await asyncio.sleep(2 * BACK_OFF)
            answers.append(await timed(bearward.get("/ocp/things")))
    for answer, seconds in answers:
        assert_problem(answer, 503, "credential_rejected")
        assert seconds < SLACK
    assert int(answers[-1][0].headers["Retry-After"]) > 800, "the next try is 15 min after the first"
    assert len(ocp.token_requests) == 1


@together
async def test_a_changed_secret_file_heals_a_refusal(folder: Path) -> None:
    """The file is looked at, not the clock of the back-off."""
    async with Ocp() as ocp:
        config = ocp_config(ocp, password={"file": "password"})
        files = {"password": new_secret("password")}
        async with Bearward(config, folder, files=files) as bearward:
            assert_problem(await bearward.get("/ocp/things"), 503, "credential_rejected")
            (folder / "password").write_text(ocp.password + "\n")
            changed = time.monotonic()
            await ocp.wait_for(lambda vendor: vendor.sessions)
            assert time.monotonic() - changed < NOTICED + SLACK
            await ocp.wait_for(lambda vendor: vendor.token_requests[-1].status == 200)
            assert (await bearward.get("/ocp/things")).summary == (200, None)
    assert [asked.status for asked in ocp.token_requests] == [401, 200]


async def check_session_limit(folder: Path, variant: Literal["403", "500"]) -> None:
    """A full house is no wrong password: it is tried again, and served once a session ends."""
    async with Ocp(limit_answer=variant) as ocp:
        others = ocp.occupy(5)
        async with Bearward(ocp_config(ocp), folder, until="/livez") as bearward:
            await ocp.wait_for(lambda vendor: len(vendor.token_requests) >= 2)
            others[0].ended = True
            answer, seconds = await timed(bearward.get("/ocp/things"))
            assert answer.summary == (200, None)
            assert seconds < BACK_OFF + SLACK
            assert len(ocp.live_sessions) == 5
        assert len(ocp.live_sessions) == 4, "the product logged its session out"


@together
async def test_session_limit_told_by_403(folder: Path) -> None:
    await check_session_limit(folder, "403")


@together
async def test_session_limit_told_by_500(folder: Path) -> None:
    await check_session_limit(folder, "500")


@together
async def test_a_refresh_token_is_kept_where_the_answer_brings_none(folder: Path) -> None:
    async with Ocp(lifetime=6, renews=False) as ocp:
        async with Bearward(ocp_config(ocp), folder):
            await ocp.wait_for(lambda vendor: len(vendor.book.issued) >= 3)
        (only,) = ocp.sessions[0].refresh_tokens
    assert len(ocp.grants("password")) == 1
    assert {asked.form["refresh_token"] for asked in ocp.grants("refresh_token")} == {only}
    assert [logout.refresh_token for logout in ocp.logouts] == [only]


@together
async def test_a_refresh_token_is_replaced_where_the_answer_brings_one(folder: Path) -> None:
    async with Ocp(lifetime=6, rotation=True) as ocp:
        async with Bearward(ocp_config(ocp), folder):
            await ocp.wait_for(lambda vendor: len(vendor.book.issued) >= 3)
        brought = ocp.sessions[0].refresh_tokens
    assert len(ocp.grants("password")) == 1
    assert [asked.form["refresh_token"] for asked in ocp.grants("refresh_token")] == brought[:-1]
    assert [logout.refresh_token for logout in ocp.logouts] == brought[-1:]


async def check_ambiguous_refresh(folder: Path, fault: faults.Fault) -> None:
    """Sent and never answered: the old refresh token is logged out, never refreshed with, and signed in anew."""
    async with Ocp(lifetime=6, rotation=True) as ocp, Bearward(ocp_config(ocp, timeout="1s"), folder) as bearward:
        ocp.token_faults.fail_next(1, fault)
        await ocp.wait_for(lambda vendor: len(vendor.grants("password")) == 2)
        old = ocp.sessions[0].refresh_tokens[0]
        used = [asked for asked in ocp.grants("refresh_token") if asked.form["refresh_token"] == old]
        assert len(used) == 1, "whether the refresh token is spent is unknown: it must not be sent again"
        assert [(logout.refresh_token, logout.status) for logout in ocp.logouts] == [(old, 204)]
        assert ocp.logouts[0].at < ocp.grants("password")[1].at, "the session's place is free before the next"
        await ocp.wait_for(lambda vendor: vendor.token_requests[-1].status == 200)
        assert (await bearward.get("/ocp/things")).summary == (200, None)
        assert len(ocp.live_sessions) == 1
    assert ocp.live_sessions == []


@together
async def test_an_ambiguous_refresh_that_hangs(folder: Path) -> None:
    await check_ambiguous_refresh(folder, faults.take_and_hang)


@together
async def test_an_ambiguous_refresh_that_is_reset(folder: Path) -> None:
    await check_ambiguous_refresh(folder, faults.disconnect)


@together
async def test_a_refresh_that_was_never_sent_keeps_its_refresh_token(folder: Path) -> None:
    """A refused connection leaves no doubt: the session lives on."""
    async with Ocp(lifetime=8, rotation=True) as ocp:
        async with Bearward(ocp_config(ocp), folder) as bearward:
            await ocp.site.close()
            async with asyncio.timeout(10):
                while not await _failures(bearward, "ocp"):
                    await asyncio.sleep(0.1)
            await ocp.site.open()
            await ocp.wait_for(lambda vendor: len(vendor.book.issued) >= 2)
        assert [asked.form["grant_type"] for asked in ocp.token_requests][:2] == ["password", "refresh_token"]
    assert len(ocp.grants("password")) == 1


async def _failures(bearward: Bearward, credential: str) -> float:
    """Refresh failures so far, of a credential with a relative token URL."""
    found = (await bearward.metrics()).matching("token_refresh_failures_total")
    return sum(value for labels, value in found.items() if dict(labels)["credential"].startswith(f"{credential}@"))


@together
async def test_a_refused_refresh_token_is_dropped_for_the_first_grant(folder: Path) -> None:
    """An administrator ended the session: signed in anew at once, and no call fails."""
    async with Ocp(lifetime=6) as ocp, Bearward(ocp_config(ocp), folder) as bearward:
        ocp.sessions[0].ended = True
        await ocp.wait_for(lambda vendor: len(vendor.grants("password")) == 2)
        refused, again = ocp.token_requests[1:3]
        assert (refused.form["grant_type"], refused.status) == ("refresh_token", 400)
        assert again.at - refused.at < 1, "nothing to wait for"
        await ocp.wait_for(lambda vendor: vendor.token_requests[-1].status == 200)
        assert (await bearward.get("/ocp/things")).summary == (200, None)
    assert len(ocp.grants("refresh_token")) == 1


@together
async def test_an_expired_refresh_token_is_no_failure(folder: Path) -> None:
    """The session is over before the token is: signed in anew in time."""
    async with Ocp(lifetime=6, refresh_lifetime=1) as ocp, Bearward(ocp_config(ocp), folder) as bearward:
        while len(ocp.book.issued) < 3:
            assert (await bearward.get("/ocp/things")).summary == (200, None)
            await asyncio.sleep(0.05)
    assert len(ocp.grants("password")) >= 3
    assert {call.verdict for call in ocp.calls} == {"live"}


async def check_stop_amid_a_refresh(folder: Path, fault: faults.Fault) -> None:
    """Whether the refresh is answered in time or not, the session is ended."""
    async with Ocp(lifetime=6, rotation=True) as ocp, Bearward(ocp_config(ocp), folder) as bearward:
        ocp.token_faults.mode = fault
        await ocp.wait_for(lambda vendor: vendor.grants("refresh_token"))
        bearward.process.send_signal(signal.SIGTERM)
        await bearward.refuses_connections()
        if isinstance(fault, faults.Hold):
            fault.release()
        assert await bearward.exit_code() == 0
    assert len(ocp.sessions) == 1
    assert ocp.live_sessions == []


@together
async def test_a_stop_amid_a_refresh_that_is_answered(folder: Path) -> None:
    await check_stop_amid_a_refresh(folder, faults.Hold())


@together
async def test_a_stop_amid_a_refresh_that_is_never_answered(folder: Path) -> None:
    await check_stop_amid_a_refresh(folder, faults.take_and_hang)
