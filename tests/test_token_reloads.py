"""Lives that take the place of others, by a reload, an eviction or a restart: none uses what the other one ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from configs import Config
from endpoints import SOON, Asked, Endpoints, Stage, granted, refused, reply
from evidence import new_secret
from harness import Answer, Bearward

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENT: Config = {"client_id": "me", "client_secret": new_secret("client secret")}
USERS: Config = CLIENT | {"principal": {"header": "X-User-Id", "max": 1}, "params": {"user": "{principal}"}}
SUSPECT_AGE = 10.0
"""Seconds: from this age on, a token that an upstream refuses is refreshed."""
AT_ONCE = 5.0
"""Seconds, on a busy machine; who waits for a token waits three times as long."""
SHORT = 4
"""Seconds for which a token lives that is to be refreshed."""
OLD, NEW, NEWEST = "old", "new", "newest"
"""Scopes: of the first process, after its reload, and after the restart."""


class Sessions:
    """Each sign-in opens a session, which lives on its newest refresh token; sessions are numbered from 0."""

    def __init__(self, lifetime: int = 3600) -> None:
        self._lifetime = lifetime
        self._of: dict[str, int] = {}
        self.opened = 0
        self.live: dict[int, str] = {}
        """The refresh token of each session that was not logged out."""
        self.refreshes: list[tuple[int, bool]] = []
        """Of which session, and whether it could be done."""
        self.logouts: list[int] = []

    def __call__(self, asked: Asked) -> bytes:
        sent = asked.form.get("refresh_token")
        if asked.line.endswith("/logout"):
            assert sent is not None
            self.logouts.append(self._of[sent])
            self.live.pop(self._of[sent], None)
            return reply("", status="204 No Content")
        if sent is None:
            number = self.opened
            self.opened += 1
        else:
            number = self._of[sent]
            self.refreshes.append((number, self.live.get(number) == sent))
            if self.live.get(number) != sent:
                return refused("invalid_grant")
        self.live[number] = new_secret("refresh token")
        self._of[self.live[number]] = number
        return granted(expires_in=self._lifetime, refresh_token=self.live[number], refresh_expires_in=1800)


class Lives(Stage):
    """A product with a store; a call of `/NAME/held` is not answered before `released[NAME]`."""

    def __init__(self, endpoints: Endpoints, folder: Path) -> None:
        self.folder = folder
        self.session, self.evicted = Sessions(SHORT), Sessions()
        self.moved, self.spent = Sessions(), Sessions(SHORT)
        self.killed = asyncio.Event()
        self.released = {name: asyncio.Event() for name in ("short-outer", "suspect", "evicted")}
        super().__init__(endpoints, Bearward(self.config(endpoints, OLD), folder, name="reloads"))
        short = granted(expires_in=SHORT)
        endpoints.answers |= {"session": self.session, "evicted": self._slow_logout, "moved": self.moved}
        endpoints.answers |= {"short-inner": short, "short-outer": short, "spent": self._unanswered}
        endpoints.apis |= {"short-outer": self._held, "suspect": self._held}

    async def _unanswered(self, asked: Asked) -> bytes:
        """A refresh has no answer before the process is killed."""
        if asked.form.get("grant_type") == "refresh_token" and not self.killed.is_set():
            await self.killed.wait()
            return b""
        return self.spent(asked)

    async def _slow_logout(self, asked: Asked) -> bytes:
        if asked.line.endswith("/logout"):
            await self.released["evicted"].wait()
        return self.evicted(asked)

    async def _held(self, call: Asked) -> bytes:
        if not call.line.endswith("/held"):
            return reply({})
        name = call.line.split("/")[2]
        await self.released[name].wait()
        return reply({}, status="401 Unauthorized" if name == "suspect" else "200 OK")

    @staticmethod
    def config(endpoints: Endpoints, scope: str) -> Config:
        """With `scope` changes what else is changed."""

        def with_logout(name: str, **more: str) -> Config:
            return CLIENT | {"logout_url": f"{endpoints.url}/{name}/logout"} | more

        place = "elsewhere" if scope == NEWEST else "moved"
        return endpoints.config(
            {
                "session": with_logout("session", timeout="10s" if scope == OLD else "11s"),
                "evicted": USERS | with_logout("evicted"),
                "suspect": USERS,
                "inner": CLIENT | {"scope": scope},
                "outer": CLIENT | {"params": {"inner": "{token:inner}"}},
                "short-inner": CLIENT | {"scope": scope},
                "short-outer": CLIENT | {"params": {"inner": "{token:short-inner}"}},
                "moved": with_logout(place, token_url=f"{endpoints.url}/{place}/token"),
                "spent": with_logout("spent", timeout="60s"),
            },
            token_store={"path": "tokens"},
        )

    def scopes(self) -> list[str]:
        """What the short-lived inner credential was asked for with."""
        return [asked.form["scope"] for asked in self.endpoints.asked["short-inner"]]

    def held(self, name: str, **headers: str) -> asyncio.Task[Answer]:
        return asyncio.create_task(self.bearward.get(f"/{name}/held", headers=headers))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lives(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lives]:
    """As it is before the reload."""
    async with AsyncExitStack() as stack:
        lives = Lives(await stack.enter_async_context(Endpoints()), tmp_path_factory.mktemp("reloads"))
        await stack.enter_async_context(lives.bearward)
        await asyncio.gather(*(lives.serves(name) for name in ("session", "outer", "short-outer", "moved")))
        yield lives
        lives.killed.set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suspected(lives: Lives) -> AsyncIterator[asyncio.Task[Answer]]:
    """A call whose token is evicted before its upstream refuses it; takes long, and begins with the first test."""

    async def call() -> Answer:
        await lives.serves("suspect", X_User_Id="alice")
        await asyncio.sleep(SUSPECT_AGE + 0.5)
        answer = lives.held("suspect", **{"X-User-Id": "alice"})
        await lives.endpoints.until(lambda: len(lives.endpoints.calls["suspect"]) == 2)
        await lives.serves("suspect", X_User_Id="bob")
        lives.released["suspect"].set()
        async with asyncio.timeout(AT_ONCE):
            return await answer

    task = asyncio.create_task(call())
    yield task
    await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def in_flight(lives: Lives) -> asyncio.Task[Answer]:
    """A call that began before the reload."""
    call = lives.held("short-outer")
    await lives.endpoints.until(lambda: len(lives.endpoints.calls["short-outer"]) == 2)
    return call


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reloaded(lives: Lives, suspected: asyncio.Task[Answer], in_flight: asyncio.Task[Answer]) -> Lives:
    assert not suspected.done()
    assert not in_flight.done()
    await lives.bearward.reload(lives.config(lives.endpoints, NEW))
    return lives


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def restarted(reloaded: Lives) -> AsyncIterator[Lives]:
    """After a kill in the midst of a refresh, with yet another config. The tests of the reload come before."""
    lives, outers = reloaded, reloaded.endpoints.tokens["outer"]
    await lives.endpoints.until(lambda: lives.endpoints.asked["spent"][1:])
    async with asyncio.timeout(SOON):
        while not (lives.folder / "tokens").exists() or outers[-1] not in (lives.folder / "tokens").read_text():
            await asyncio.sleep(0.01)  # nothing tells when a file was written
    lives.bearward.process.kill()
    await lives.bearward.exit_code()
    lives.killed.set()
    config = lives.config(lives.endpoints, NEWEST)
    async with Bearward(config, lives.folder, name="reloads-restarted") as lives.bearward:
        yield lives


# ── a reload ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_reload_does_not_share_a_session_with_the_life_before(reloaded: Lives) -> None:
    """It changes a field that no token depends on; the old session is logged out, and the new one lives on."""
    session = reloaded.session
    await reloaded.endpoints.until(lambda: session.refreshes.count((1, True)) == 2)
    assert session.opened == 2
    assert set(session.logouts) == {0}
    assert session.live.keys() == {1}
    assert all(was_alive for _, was_alive in session.refreshes)
    await reloaded.serves("session")


async def test_a_reload_obtains_anew_what_was_made_with_another_token(reloaded: Lives) -> None:
    outers, inners = reloaded.endpoints.tokens["outer"], reloaded.endpoints.tokens["inner"]
    assert await reloaded.serves("outer") == f"Bearer {outers[1]}"
    asked = [asked.form["inner"] for asked in reloaded.endpoints.asked["outer"]]
    assert asked == inners
    assert [asked.form["scope"] for asked in reloaded.endpoints.asked["inner"]] == [OLD, NEW]


async def test_a_removed_credential_is_not_asked_for_a_chain_that_ended(
    reloaded: Lives, in_flight: asyncio.Task[Answer]
) -> None:
    """While the last call of the old config is on its way, its tokens live; and no longer."""
    await reloaded.endpoints.until(lambda: NEW in reloaded.scopes())
    reloaded.released["short-outer"].set()
    assert (await in_flight).summary == (200, None)
    before = reloaded.scopes()
    await reloaded.endpoints.until(lambda: reloaded.scopes().count(NEW) > before.count(NEW))
    closed = reloaded.scopes()
    await reloaded.endpoints.until(lambda: reloaded.scopes().count(NEW) >= closed.count(NEW) + 2)
    assert reloaded.scopes().count(OLD) == closed.count(OLD)


# ── an eviction ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_evicted_user_who_comes_back_has_a_session_of_their_own(reloaded: Lives) -> None:
    """They come back while the old one is being logged out."""
    evicted = reloaded.evicted
    for user in ("alice", "bob"):
        await reloaded.serves("evicted", X_User_Id=user)
    again = asyncio.create_task(reloaded.serves("evicted", X_User_Id="alice"))
    async with asyncio.timeout(SOON):
        while not again.done() and not (await reloaded.bearward.metrics()).total("token_waiters", credential="evicted"):
            await asyncio.sleep(0.01)
    reloaded.released["evicted"].set()
    await reloaded.endpoints.until(lambda: set(evicted.logouts) == {0, 1})
    assert await again == await reloaded.serves("evicted", X_User_Id="alice")
    assert (evicted.opened, set(evicted.live)) == (3, {2})


async def test_a_401_to_an_evicted_token_is_passed_on_at_once(reloaded: Lives, suspected: asyncio.Task[Answer]) -> None:
    """There is nobody who could bring another token."""
    assert (await suspected).summary == (401, None)
    metrics = await reloaded.bearward.metrics()
    assert metrics.total("token_waiters", credential="suspect") == 0


# ── a restart ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_restart_obtains_anew_what_was_made_with_another_token(restarted: Lives) -> None:
    outers, inners = restarted.endpoints.tokens["outer"], restarted.endpoints.tokens["inner"]
    assert await restarted.serves("outer") == f"Bearer {outers[2]}"
    assert restarted.endpoints.asked["outer"][2].form["inner"] == inners[2]
    assert restarted.endpoints.asked["inner"][2].form["scope"] == NEWEST


async def test_another_token_endpoint_never_gets_the_old_refresh_token(restarted: Lives) -> None:
    """Nor does its logout."""
    await restarted.serves("moved")
    (first,) = restarted.endpoints.asked["elsewhere"]
    assert first.form == {"grant_type": "client_credentials"}


async def test_a_refresh_token_under_way_at_a_kill_is_logged_out(restarted: Lives) -> None:
    """Who knows whether it is spent."""
    spent = restarted.spent
    await restarted.endpoints.until(lambda: (1, True) in spent.refreshes)
    assert [number for number, _ in spent.refreshes if number == 0] == [], "it was not sent again"
    assert (spent.logouts, set(spent.live)) == ([0], {1})
