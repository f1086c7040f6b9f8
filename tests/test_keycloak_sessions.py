"""A user's sessions at a real Keycloak: lived on, few, ended by others, and none left behind."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness import Bearward
from keycloak.realms import ocp_realm
from keycloak.server import KEYCLOAK, User
from keycloak.wiretap import Wiretap
from problems import assert_problem
from together import Together

pytest_plugins = ["keycloak.plugin"]
pytestmark = [pytest.mark.first, pytest.mark.usefixtures("realms")]

LIMIT = 5
# A younger token is not replaced for a 401.
YOUNG = 10.0
# How often is asked what can only be asked, and for how long.
POLL, PATIENCE = 0.1, 45.0

together = Together()


async def _five_more_sign_ins(user: User) -> None:
    for _ in range(LIMIT):
        await KEYCLOAK.sign_in(user)


async def _is_signed_out_everywhere(user: User) -> None:
    await KEYCLOAK.admin("POST", f"/realms/{user.realm}/users/{user.id}/logout")


async def _older_tokens_are_void(user: User) -> None:
    await KEYCLOAK.admin("PUT", f"/realms/{user.realm}", {"notBefore": int(time.time())})


# What may happen to a session, and how many the user has then. The last is so for all users of the realm.
ENDS = ((_five_more_sign_ins, LIMIT), (_is_signed_out_everywhere, 1), (_older_tokens_are_void, 1))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def realms(keycloak: None) -> None:
    """A sixth session is denied in `short`, with tokens of 4 s; in `long` it ends the oldest."""
    await KEYCLOAK.admin("POST", "/realms", ocp_realm("short", 4, "Deny new session"))
    await KEYCLOAK.admin("POST", "/realms", ocp_realm("long", 300, "Terminate oldest session"))


def config(*users: User, origin: str | None = None, **top: Any) -> dict[str, Any]:
    """For each user a credential with the preset of OCP, and a route to the admin API of the realm, both by name."""
    credentials, routes = {}, {}
    for user in users:
        who = {"username": user.name, "password": user.password}
        credentials[user.name] = {"preset": {"name": "ocp", "realm": user.realm}} | who
        upstream = f"{origin or KEYCLOAK.origin}/auth/admin/realms/{user.realm}"
        routes[f"/{user.name}"] = {"upstream": upstream, "credential": user.name}
    return {"credentials": credentials, "routes": routes} | top


async def assert_works(bearward: Bearward, user: User) -> None:
    """Keycloak, which judges the token and its session, answers a call."""
    answer = await bearward.get(f"/{user.name}/users/count")
    assert (answer.status, int(answer.body) > 0) == (200, True)


async def deeds(user: User) -> list[tuple[str, str | None]]:
    """What the user did, oldest first, and how it failed if it did."""
    return [(each["type"], each.get("error")) for each in await KEYCLOAK.events(user.realm, user=user.id)]


async def until_done(user: User, deed: str, count: int) -> None:
    """Wait until the user has done this so often."""
    async with asyncio.timeout(PATIENCE):
        while (await deeds(user)).count((deed, None)) < count:
            await asyncio.sleep(POLL)


async def until_others(user: User, count: int, before: set[str]) -> None:
    """Wait until the user has so many sessions, none of them one of those."""
    async with asyncio.timeout(PATIENCE):
        while len(now := await KEYCLOAK.sessions(user)) != count or now & before:
            await asyncio.sleep(POLL)


@together
async def test_a_session_lives_on_its_refresh_tokens_and_ends_with_bearward(folder: Path) -> None:
    """Each is used once, as Keycloak's own record says."""
    user = await KEYCLOAK.new_user("short")
    async with Bearward(config(user), folder) as bearward:
        await until_done(user, "REFRESH_TOKEN", 4)
        await assert_works(bearward, user)
        assert len(await KEYCLOAK.sessions(user)) == 1
    first, *refreshes, last = await deeds(user)
    assert (first, set(refreshes), last) == (("LOGIN", None), {("REFRESH_TOKEN", None)}, ("LOGOUT", None))
    assert await KEYCLOAK.sessions(user) == set()


@together
async def test_a_sixth_session_waits_for_a_place(folder: Path) -> None:
    user = await KEYCLOAK.new_user("short")
    others = [(await KEYCLOAK.sign_in(user))["session_state"] for _ in range(LIMIT)]
    async with Bearward(config(user), folder, until="/livez") as bearward:
        waiting = asyncio.create_task(assert_works(bearward, user))
        await bearward.logs("token refresh failed", 2)
        assert not waiting.done()
        metrics = await bearward.metrics()
        assert metrics.total("token_refresh_failures_total", reason="session_limit") >= 2
        await KEYCLOAK.admin("DELETE", f"/realms/short/sessions/{others.pop()}")
        await waiting
        assert len(await KEYCLOAK.sessions(user)) == LIMIT
    assert await KEYCLOAK.sessions(user) == set(others)


@together
async def test_a_session_that_is_ended_elsewhere_is_replaced(folder: Path) -> None:
    """The client sees none of it: Keycloak's 401 makes bearward sign in anew, and ask again."""
    users = [await KEYCLOAK.new_user("long") for _ in ENDS]
    async with Bearward(config(*users), folder) as bearward:
        first = [await KEYCLOAK.sessions(user) for user in users]
        await asyncio.sleep(YOUNG)
        for user, before, (end, count) in zip(users, first, ENDS, strict=True):
            await end(user)
            await assert_works(bearward, user)
            await until_others(user, count, before)
        metrics = await bearward.metrics()
    for user in users:
        assert metrics.total("replays_total", route=f"/{user.name}") == 1
        refused = {"credential": f"{user.name}@127.0.0.1:{KEYCLOAK.port}", "reason": "refresh_token_refused"}
        assert metrics.total("token_refresh_failures_total", **refused) == 1
    assert [len(await KEYCLOAK.sessions(user)) for user in users] == [LIMIT - 1, 0, 0]


@together
async def test_a_refresh_token_used_by_another_costs_no_place(folder: Path) -> None:
    """To bearward the session is lost from then on, and Keycloak counts it until it is logged out."""
    user = await KEYCLOAK.new_user("short")
    async with Wiretap(KEYCLOAK.port) as tap, Bearward(config(user, origin=tap.origin), folder) as bearward:
        first = await KEYCLOAK.sessions(user)
        stolen = {"refresh_token": tap.refresh_tokens[-1], "client_id": "ocp"}
        await KEYCLOAK.ask_token("short", origin=tap.origin, grant_type="refresh_token", **stolen)
        await until_done(user, "LOGIN", 2)
        await until_others(user, 1, first)
        await assert_works(bearward, user)
    assert await KEYCLOAK.sessions(user) == set()


async def kill(bearward: Bearward) -> None:
    """As a machine's lack of memory does."""
    bearward.process.kill()
    await bearward.process.wait()


async def between_refreshes(bearward: Bearward) -> None:
    """Stands still where no refresh token is under way: who is killed in the midst of that signs in anew."""
    async with asyncio.timeout(PATIENCE):
        while True:
            bearward.process.send_signal(signal.SIGSTOP)
            if '"is_under_way": true' not in (bearward.folder / "tokens").read_text():
                return
            bearward.process.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.01)


@together
async def test_crashes_use_up_the_sessions(folder: Path) -> None:
    user = await KEYCLOAK.new_user("short")
    for _ in range(LIMIT):
        async with Bearward(config(user), folder, name="killed") as bearward:
            await kill(bearward)
    assert len(await KEYCLOAK.sessions(user)) == LIMIT
    async with Bearward(config(user), folder, until="/livez") as bearward:
        await bearward.logs("token refresh failed")
        metrics = await bearward.metrics()
    assert metrics.total("token_refresh_failures_total", reason="session_limit") >= 1


@together
async def test_a_store_carries_the_session_over_crashes(folder: Path) -> None:
    """Each start goes on with the refresh token of the one before."""
    user = await KEYCLOAK.new_user("short")
    kept = config(user, token_store={"path": "tokens"})
    for _ in range(LIMIT):
        async with Bearward(kept, folder, name="killed") as bearward:
            await assert_works(bearward, user)
            await bearward.logs("token request ended")
            await between_refreshes(bearward)
            await kill(bearward)
    async with Bearward(kept, folder) as bearward:
        await assert_works(bearward, user)
    first, *others = await deeds(user)
    assert (first, set(others)) == (("LOGIN", None), {("REFRESH_TOKEN", None)})
    assert len(others) >= LIMIT - 1
    assert len(await KEYCLOAK.sessions(user)) == 1


@together
async def test_a_session_is_stored_before_its_token_is_used(folder: Path) -> None:
    user = await KEYCLOAK.new_user("short")
    async with Wiretap(KEYCLOAK.port) as tap:
        tap.lets_pass.clear()
        kept = config(user, origin=tap.origin, token_store={"path": "tokens"})
        async with Bearward(kept, folder, name="killed", until="/livez") as bearward:
            tap.when_used = bearward.process.kill
            call = asyncio.create_task(bearward.get(f"/{user.name}/users/count"))
            async with asyncio.timeout(PATIENCE):
                while (await bearward.metrics()).total("token_waiters") == 0:
                    await asyncio.sleep(POLL)
                tap.lets_pass.set()
                await bearward.process.wait()
            await asyncio.gather(call, return_exceptions=True)
        tap.when_used = lambda: None
        async with Bearward(kept, folder) as bearward:
            await assert_works(bearward, user)
    assert len(await KEYCLOAK.sessions(user)) == 1


@together
async def test_a_wrong_password_is_no_full_house(folder: Path) -> None:
    user = await KEYCLOAK.new_user("short")
    wrong = User(user.realm, user.id, user.name, user.password[::-1])
    async with Bearward(config(wrong), folder) as bearward:
        assert_problem(await bearward.get(f"/{user.name}/users/count"), 503, "credential_rejected")
        metrics = await bearward.metrics()
    assert metrics.total("token_refresh_failures_total", reason="password_refused") == 1
    assert await deeds(user) == [("LOGIN_ERROR", "invalid_user_credentials")]
