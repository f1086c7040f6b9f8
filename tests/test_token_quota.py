"""`max_token_requests` and `max_sessions`: what a vendor allows is never exceeded, whatever goes wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from configs import Config, ocp_config
from endpoints import SOON, Answering, Asked, Endpoints, Stage, granted, refused, reply, stage_of
from evidence import new_secret
from harness import Bearward
from problems import assert_problem
from vendors.ocp import Ocp

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAIN: Config = {"client_auth": "none", "grant_type": "none"}
USERS: Config = PLAIN | {"principal": {"header": "X-User-Id"}, "params": {"user": "{principal}"}}
PASSWORD: Config = {
    "client_auth": "none",
    "grant_type": "password",
    "username": "me",
    "password": new_secret("password"),
}
SUSPECT_AGE = 10.0
"""Seconds: from this age on, a token that an upstream refuses is refreshed."""
SPAN = 2.0
AN_HOUR = "/1h"
PRINTS = 'echo >> runs; echo "{\\"access_token\\": \\"printed-$(wc -l < runs)\\"}"'


class Sessions:
    """A sign-in opens a session whose refresh token nobody answers; logouts are answered 503, until they `work`."""

    def __init__(self) -> None:
        self.works = False
        self.opened: list[str] = []
        self.ended: list[str] = []

    def __call__(self, asked: Asked) -> bytes:
        if asked.line.endswith("/logout"):
            if not self.works:
                return refused("server_error", "503 Service Unavailable")
            self.ended.append(asked.form["refresh_token"])
            return reply("", status="204 No Content")
        if asked.form["grant_type"] == "refresh_token":
            return b""
        self.opened.append(new_secret("refresh token"))
        return granted(expires_in=2, refresh_token=self.opened[-1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sessions() -> Sessions:
    return Sessions()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory, sessions: Sessions) -> AsyncIterator[Stage]:
    answers: dict[str, Answering] = {
        "failing": refused("server_error", "500 Internal Server Error"),
        "refused-refresh": lambda asked: (
            granted(expires_in=2, refresh_token=new_secret("refresh token"))
            if asked.form["grant_type"] == "password"
            else refused("invalid_grant")
        ),
        "in-a-span": granted(expires_in=2),
        "sessions": sessions,
    }
    credentials: dict[str, Config] = {
        "storm": PLAIN | {"max_token_requests": "1" + AN_HOUR},
        "storm-of-users": USERS | {"max_token_requests": "2" + AN_HOUR},
        "users": USERS | {"max_token_requests": "4" + AN_HOUR},
        "failing": PLAIN | {"max_token_requests": "2" + AN_HOUR},
        "refused-refresh": PASSWORD | {"max_token_requests": "3" + AN_HOUR},
        "in-a-span": PLAIN | {"max_token_requests": f"2/{SPAN}s"},
        "sessions": PASSWORD | {"max_sessions": 2},
        "printed": {"source": "exec", "command": ["sh", "-c", PRINTS]},
    }

    def with_logout(endpoints: Endpoints) -> dict[str, Config]:
        logout = {"logout_url": f"{endpoints.url}/sessions/logout"}
        return credentials | {"sessions": credentials["sessions"] | logout}

    async with stage_of(with_logout, tmp_path_factory.mktemp("quota"), answers=answers, name="quota") as stage:
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def raging(stage: Stage) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(storm(stage))
    yield task
    await asyncio.gather(task, return_exceptions=True)


async def quota_failure(stage: Stage, name: str) -> dict[str, Any]:
    """The first line of the log that tells of a request that was not made."""
    async with asyncio.timeout(SOON):
        while True:
            for line in await stage.bearward.logs("token refresh failed"):
                if (line["credential"], line["reason"]) == (name, "quota"):
                    return line
            await asyncio.sleep(0.05)


# ── restarts ─────────────────────────────────────────────────────────────────────────────────────────────────────

End = Callable[[Bearward], Awaitable[object]]


async def killed(bearward: Bearward) -> None:
    bearward.process.kill()
    await bearward.process.wait()


async def terminated(bearward: Bearward) -> None:
    await bearward.terminate()


@pytest.mark.parametrize("end", [killed, terminated])
async def test_a_restart_goes_on_counting(tmp_path: Path, end: End) -> None:
    """Also what was under way at its end, which the vendor may have counted."""
    async with Endpoints() as endpoints:
        held = asyncio.Event()

        async def answer(asked: Asked) -> bytes:
            if asked.form["user"] == "held":
                await held.wait()
            return granted()

        endpoints.answers["users"] = answer
        own = {"users": USERS | {"max_token_requests": "3" + AN_HOUR, "timeout": "1s"}}
        config = endpoints.config(own, token_store={"path": "tokens"})
        async with Bearward(config, tmp_path) as bearward:
            stage = Stage(endpoints, bearward)
            for user in ("ann", "bob"):
                await stage.serves("users", X_User_Id=user)
            waiting = asyncio.create_task(stage.call("users", X_User_Id="held"))
            await endpoints.until(lambda: len(endpoints.asked["users"]) == 3)
            await end(bearward)
            await asyncio.gather(waiting, return_exceptions=True)
        async with Bearward(config, tmp_path) as bearward:
            stage = Stage(endpoints, bearward)
            for user in ("carol", "held"):
                answer_now = await stage.call("users", X_User_Id=user)
                assert_problem(answer_now, 503, "token_unavailable")
            await stage.serves("users", X_User_Id="ann")
        held.set()
    assert [asked.form["user"] for asked in endpoints.asked["users"]] == ["ann", "bob", "held"]


async def test_a_reload_goes_on_counting(tmp_path: Path) -> None:
    """Another scope or another secret is the same client at the vendor's."""
    async with Endpoints() as endpoints:

        def config(scope: str) -> Config:
            return endpoints.config({"a": PLAIN | {"max_token_requests": "2" + AN_HOUR, "scope": scope}})

        async with Bearward(config("one"), tmp_path) as bearward:
            stage = Stage(endpoints, bearward)
            for scope in ("two", "three", "four"):
                await bearward.reload(config(scope))
            assert_problem(await stage.call("a"), 503, "token_unavailable")
        assert [asked.form["scope"] for asked in endpoints.asked["a"]] == ["one", "two"]


# ── what one process does ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_users_share_the_quota_of_their_client(stage: Stage) -> None:
    """Whoever comes first; the others are told when to come again."""
    users = [f"user {number}" for number in range(10)]
    answers = await asyncio.gather(*(stage.call("users", X_User_Id=user) for user in users))
    assert sorted(answer.status for answer in answers) == [200] * 4 + [503] * 6
    for answer in answers:
        if answer.status == 503:
            assert_problem(answer, 503, "token_unavailable")
            assert 600 <= int(answer.headers["Retry-After"]) <= 3600
    assert len(stage.endpoints.asked["users"]) == 4
    served = [user for user, answer in zip(users, answers, strict=True) if answer.status == 200]
    assert sorted(asked.form["user"] for asked in stage.endpoints.asked["users"]) == served
    for user in served:
        await stage.serves("users", X_User_Id=user)


async def test_failures_count(stage: Stage) -> None:
    waiting = [asyncio.create_task(stage.call("failing")) for _ in range(5)]
    line = await quota_failure(stage, "failing")
    assert line["for_good"] is False
    assert 3500 < line["retry_in"] <= 3600
    for answer in await asyncio.gather(*waiting):
        assert_problem(answer, 503, "token_unavailable")
    assert len(stage.endpoints.asked["failing"]) == 2


async def test_a_refused_refresh_token_and_what_follows_are_two(stage: Stage) -> None:
    await quota_failure(stage, "refused-refresh")
    asked = stage.endpoints.asked["refused-refresh"]
    assert [each.form["grant_type"] for each in asked] == ["password", "refresh_token", "password"]


async def test_sessions_that_cannot_be_logged_out_count(stage: Stage, sessions: Sessions) -> None:
    """The vendor's limit is not tried out."""
    async with asyncio.timeout(SOON):
        while not any(line["reason"] == "session_limit" for line in await stage.bearward.logs("token refresh failed")):
            await asyncio.sleep(0.05)
    assert (len(sessions.opened), sessions.ended) == (2, [])
    assert_problem(await stage.call("sessions"), 503, "token_unavailable")
    assert len(sessions.opened) == 2


# ── what takes long, and goes on since the first test ────────────────────────────────────────────────────────────────


async def storm(stage: Stage) -> None:
    """Tokens grow old enough to be to blame, and then the upstream refuses all of them."""
    users = [{"X_User_Id": user} for user in ("ann", "bob")]
    await asyncio.gather(stage.serves("storm"), *(stage.serves("storm-of-users", **user) for user in users))
    await asyncio.sleep(SUSPECT_AGE + 0.5)
    unauthorized = reply({}, 'WWW-Authenticate: Bearer error="invalid_token"', status="401 Unauthorized")
    stage.endpoints.apis |= dict.fromkeys(["storm", "storm-of-users"], unauthorized)
    for _ in range(3):
        calls = [stage.call("storm") for _ in range(20)] + [stage.call("storm-of-users", **user) for user in users * 10]
        assert {answer.summary for answer in await asyncio.gather(*calls)} == {(401, None)}


async def test_any_span_has_at_most_so_many(stage: Stage) -> None:
    """The token would be refreshed each second."""
    endpoints = stage.endpoints
    await endpoints.until(lambda: len(endpoints.asked["in-a-span"]) >= 5)
    times = [asked.at for asked in endpoints.asked["in-a-span"]]
    assert all(later - earlier >= SPAN for earlier, later in zip(times, times[2:], strict=False))


async def test_a_storm_of_401_does_not_exceed_it(stage: Stage, raging: asyncio.Task[None]) -> None:
    """The upstream's answer is passed on, and the token stays in use."""
    await raging
    for name in ("storm", "storm-of-users"):
        await quota_failure(stage, name)
    assert [len(stage.endpoints.asked[name]) for name in ("storm", "storm-of-users")] == [1, 2]


async def test_a_401_runs_a_command_again(stage: Stage, raging: asyncio.Task[None]) -> None:
    """Once, for all whose token was refused; they go out with the new one."""
    await raging
    unauthorized = reply({}, status="401 Unauthorized")
    stage.endpoints.apis["printed"] = lambda call: (
        unauthorized if call.headers["authorization"][-1] == "1" else reply({})
    )
    answers = await asyncio.gather(*(stage.call("printed") for _ in range(10)))
    assert {answer.summary for answer in answers} == {(200, None)}
    assert set(stage.endpoints.bearer("printed")) == {"Bearer printed-1", "Bearer printed-2"}


async def test_what_could_not_be_sent_does_not_count(refusing: asyncio.Task[Ocp]) -> None:
    """A short outage does not become one of the quota's span."""
    ocp = await refusing
    assert [asked.status for asked in ocp.token_requests] == [200]


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def refusing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[asyncio.Task[Ocp]]:
    """Connections are refused more often than requests are allowed, and then no more."""

    async def outage(folder: Path) -> Ocp:
        ocp = Ocp()
        config = ocp_config(ocp, max_token_requests="2" + AN_HOUR)
        async with Bearward(config, folder, name="refusing", until="/livez") as bearward:
            calls = [asyncio.create_task(bearward.get("/ocp/things")) for _ in range(2)]  # it is tried again soon
            lines = await bearward.logs("token refresh failed", 4)
            assert {line["reason"] for line in lines} == {"network"}
            await ocp.site.open()
            try:
                assert (await bearward.get("/ocp/things")).summary == (200, None)
                await asyncio.gather(*calls)
            finally:
                await ocp.site.close()
        return ocp

    task = asyncio.create_task(outage(tmp_path_factory.mktemp("refusing")))
    yield task
    await asyncio.gather(task, return_exceptions=True)
