"""`token_store: {path}`: a restart goes on with the tokens and sessions of the process before, however that ended."""

import asyncio
import re
import signal
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from configs import Config, ocp_config, ocp_credential
from endpoints import SOON, Asked, Endpoints, Stage, granted, refused, reply
from evidence import new_secret
from harness import Bearward
from vendors import faults
from vendors.ocp import Ocp

pytestmark = pytest.mark.asyncio(loop_scope="module")

KILLS = 5
STORE: Config = {"token_store": {"path": "tokens"}}
PLAIN: Config = {"client_auth": "none", "grant_type": "none"}
USERS: Config = PLAIN | {"principal": {"header": "X-User-Id"}, "params": {"user": "{principal}"}}
PASSWORD: Config = {"client_auth": "none", "grant_type": "password", "username": "me"}
PASSWORD |= {"password": new_secret("password")}
SEED = new_secret("refresh token", "seed.")
BY_SECRET: Config = {"client_auth": "client_secret_post", "client_id": "me", "client_secret": {"file": "secret"}}


class Rotating:
    """Workday's way: the first refresh token is from the config, and each is good for one use."""

    def __init__(self) -> None:
        self.valid = SEED

    def __call__(self, asked: Asked) -> bytes:
        if asked.form["refresh_token"] != self.valid:
            return refused("invalid_grant")
        self.valid = new_secret("refresh token")
        return granted(expires_in=4, refresh_token=self.valid)


class SignIns:
    """Each password grant opens a session."""

    def __init__(self) -> None:
        self.sessions: list[str] = []
        self.logouts: list[str] = []

    def __call__(self, asked: Asked) -> bytes:
        if asked.line.endswith("/logout"):
            self.logouts.append(asked.form["refresh_token"])
            return reply("", status="204 No Content")
        assert asked.form["grant_type"] == "password"
        self.sessions.append(new_secret("refresh token"))
        return granted(refresh_token=self.sessions[-1])


@dataclass
class Lives:
    """What became of a config whose process was killed `KILLS` times, then told to stop, then started with changes."""

    folder: Path
    ocp: Ocp
    endpoints: Endpoints
    workday: Rotating = field(default_factory=Rotating)
    signed_in: SignIns = field(default_factory=SignIns)
    rescoped: SignIns = field(default_factory=SignIns)
    before: dict[str, int] = field(default_factory=dict)
    """How many token requests there were for each credential when it had been stopped."""
    modes: set[int] = field(default_factory=set)
    """Of the file, while and after each process."""

    @property
    def counts(self) -> dict[str, int]:
        return {name: len(asked) for name, asked in self.endpoints.asked.items()}

    def config(self, **scope: str) -> Config:
        """With a session that is asked for with another scope, where one is given."""

        def session(name: str) -> Config:
            return PASSWORD | {"logout_url": f"{self.endpoints.url}/{name}/logout"}

        whole = self.endpoints.config(
            {
                "plain": PLAIN,
                "users": USERS,
                "chained": PLAIN | {"params": {"a": "{token:plain}"}},
                "workday": {"client_auth": "none", "grant_type": "refresh_token", "refresh_token": SEED},
                "by-secret": BY_SECRET,
                "signed-in": session("signed-in"),
                "rescoped": session("rescoped") | scope,
            },
            **STORE,
        )
        whole["credentials"]["ocp"] = ocp_credential(self.ocp)
        whole["routes"]["/ocp"] = {"upstream": f"{self.ocp.url}/api", "credential": "ocp"}
        return whole

    async def live(self, config: Config, *, kill: bool) -> None:
        """One process, from its start to its end."""
        async with Bearward(config, self.folder, shell='umask 0; exec "$@"') as bearward:
            stage = Stage(self.endpoints, bearward)
            names = self.endpoints.asked.keys() - {"users"} | {"plain", "workday"}
            await asyncio.gather(*(stage.serves(name) for name in names), stage.serves("users", X_User_Id="ann"))
            assert (await bearward.get("/ocp/things")).summary == (200, None)
            async with asyncio.timeout(SOON):
                while not self._is_kept():
                    self._note_mode()
                    await asyncio.sleep(0.01)
            if kill:
                await self._stopped_between_refreshes(bearward)
                bearward.process.kill()
                await bearward.process.wait()
        self._note_mode()

    async def _stopped_between_refreshes(self, bearward: Bearward) -> None:
        """What is killed in the midst of one does not use that refresh token again: another test's matter."""
        async with asyncio.timeout(SOON):
            while True:
                bearward.process.send_signal(signal.SIGSTOP)
                if self._is_kept():
                    return
                bearward.process.send_signal(signal.SIGCONT)
                await asyncio.sleep(0.01)

    def _is_kept(self) -> bool:
        """Whether the file has the newest tokens of all, and no refresh token is under way."""
        content = (self.folder / "tokens").read_text()
        newest = [given[-1] for given in self.endpoints.tokens.values()]
        if re.search(r'"is_under_way": ?true', content):
            return False
        return all(token in content for token in [*newest, self.workday.valid, self.ocp.book.issued[-1].text])

    def _note_mode(self) -> None:
        self.modes.add(stat.S_IMODE((self.folder / "tokens").stat().st_mode))


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def lived(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[asyncio.Task[Lives]]:
    """Takes long, and begins with the first test."""
    task = asyncio.create_task(_lived(tmp_path_factory.mktemp("lives")))
    yield task
    await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lives(lived: asyncio.Task[Lives]) -> Lives:
    return await lived


async def _lived(folder: Path) -> Lives:
    async with Ocp(lifetime=4, rotation=True) as ocp, Endpoints() as endpoints:
        lives = Lives(folder, ocp, endpoints)
        endpoints.answers["workday"] = lives.workday
        endpoints.answers["signed-in"], endpoints.answers["rescoped"] = lives.signed_in, lives.rescoped
        (folder / "secret").write_text("an-old-secret")
        for _ in range(KILLS):
            await lives.live(lives.config(), kill=True)
        await lives.live(lives.config(), kill=False)
        lives.before = lives.counts
        (folder / "secret").write_text("another-secret")
        await lives.live(lives.config(scope="other"), kill=False)
        return lives


async def test_a_kill_in_the_midst_of_a_refresh_leaves_one_session(tmp_path: Path) -> None:
    """The refresh token is spent, and nobody knows: the server ends that session, and another is opened."""
    async with Ocp(lifetime=4, rotation=True) as ocp:
        config = ocp_config(ocp) | STORE
        async with Bearward(config, tmp_path) as bearward:
            ocp.token_faults.fail_next(1, faults.take_and_hang)
            await ocp.wait_for(lambda vendor: len(vendor.grants("refresh_token")) == 1)
            bearward.process.kill()
            await bearward.process.wait()
        async with Bearward(config, tmp_path) as bearward:
            assert (await bearward.get("/ocp/things")).summary == (200, None)
            assert len(ocp.live_sessions) == 1
        assert len(ocp.live_sessions) == 1
        assert [logout.refresh_token for logout in ocp.logouts] == [ocp.sessions[0].refresh_tokens[0]]


@pytest.mark.parametrize("kind", ["foreign", "symlink", "damaged"])
async def test_a_file_that_cannot_be_used_is_warned_of(tmp_path: Path, kind: str) -> None:
    """What is not ours is left alone; the tokens are kept in memory, and sessions end with the process."""
    content = "user: notes\n" if kind != "damaged" else '{"format": "bearward-token-store", "ver'
    other = tmp_path / ("elsewhere" if kind == "symlink" else "tokens")
    other.write_text(content)
    other.chmod(0o600)
    if kind == "symlink":
        (tmp_path / "tokens").symlink_to(other)
    async with Ocp() as ocp:
        async with Bearward(ocp_config(ocp) | STORE, tmp_path) as bearward:
            assert (await bearward.get("/ocp/things")).status == 200
            (line,) = await bearward.logs("token store ignored")
            assert line["level"] == "warning"
            assert str(tmp_path / "tokens") in line["reason"]
        is_kept = kind == "damaged"
        assert (other.read_text() == content) is not is_kept
        assert len(ocp.live_sessions) == int(is_kept)


@pytest.mark.parametrize("name", ["plain", "users", "chained", "by-secret", "signed-in", "rescoped"])
async def test_a_token_that_lives_is_used_on(lives: Lives, name: str) -> None:
    """It is asked for once, in six processes."""
    assert lives.before[name] == 1
    tokens = lives.endpoints.tokens[name]
    served = lives.endpoints.bearer(name)[: KILLS + 1]
    assert served == [f"Bearer {tokens[0]}"] * (KILLS + 1)


async def test_five_kills_leave_one_session(lives: Lives) -> None:
    """OCP allows five; and a refresh token is used once."""
    assert len(lives.ocp.sessions) == 1
    first, *others = (asked.form["grant_type"] for asked in lives.ocp.token_requests)
    assert first == "password"
    assert set(others) == {"refresh_token"}
    assert {asked.status for asked in lives.ocp.token_requests} <= {200, None}, "None: after a kill"
    assert lives.ocp.logouts == []
    assert len(lives.ocp.live_sessions) == 1


async def test_a_rotated_refresh_token_takes_the_place_of_the_configured_one(lives: Lives) -> None:
    first, *others = (asked.form["refresh_token"] for asked in lives.endpoints.asked["workday"])
    assert first == SEED
    assert others
    assert SEED not in others
    assert len(set(others)) == len(others)


async def test_a_changed_secret_does_not_use_the_old_token(lives: Lives) -> None:
    old, new = lives.endpoints.asked["by-secret"]
    assert [old.form["client_secret"], new.form["client_secret"]] == ["an-old-secret", "another-secret"]
    assert lives.endpoints.bearer("by-secret")[-1] == f"Bearer {lives.endpoints.tokens['by-secret'][1]}"


async def test_a_changed_scope_ends_the_old_session(lives: Lives) -> None:
    old, _new = lives.rescoped.sessions
    assert lives.rescoped.logouts == [old]
    assert lives.endpoints.bearer("rescoped")[-1] == f"Bearer {lives.endpoints.tokens['rescoped'][1]}"


async def test_a_stop_leaves_what_is_stored(lives: Lives) -> None:
    assert (len(lives.signed_in.sessions), lives.signed_in.logouts) == (1, [])
    assert {name: count for name, count in lives.counts.items() if count != lives.before[name]}.keys() <= {
        *("by-secret", "workday", "rescoped"),
    }


async def test_the_file_is_for_its_owner_alone(lives: Lives) -> None:
    assert lives.modes == {0o600}
    assert stat.S_IMODE((lives.folder / "tokens.lock").stat().st_mode) == 0o600
    leftovers = [each.name for each in lives.folder.iterdir() if each.name.endswith(".tmp")]
    assert len(leftovers) <= 1, "at most that of a write that was killed last"
