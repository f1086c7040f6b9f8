"""Many tokens at once: ten requests at a time for each identity provider, and those first that somebody waits for."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from configs import Config
from endpoints import SOON, Asked, Endpoints, Stage, granted, refused
from evidence import new_secret
from harness import Answer, Bearward
from problems import assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")

WIDTH = 10
CROWD = 200
STAMPEDE = 1000
AT_ONCE = 10.0
"""Seconds, for a thousand answers on a busy machine; nobody waits for the 15 s that a request may."""
BACKGROUND = [f"background-{number}" for number in range(30)]
PLAIN: Config = {"client_auth": "none", "grant_type": "none"}
USERS: Config = PLAIN | {"principal": {"header": "X-User-Id"}, "params": {"user": "{principal}"}}
PASSWORD: Config = {"client_auth": "none", "grant_type": "password", "username": "me"}
PASSWORD |= {"password": new_secret("password")}


class Slow:
    """Answers after a moment, or when told to, and counts how many wait for it."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self.waiting: list[asyncio.Future[bytes]] = []
        self.most = 0

    async def __call__(self, _asked: Asked) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.waiting.append(answer)
        self.most = max(self.most, len(self.waiting))
        if self._seconds is not None:
            await asyncio.sleep(self._seconds)
            self.let_go(answer)
        return await answer

    def let_go(self, answer: asyncio.Future[bytes] | None = None, with_: bytes | None = None) -> None:
        """Answer the oldest, or this one."""
        answer = answer or self.waiting[0]
        self.waiting.remove(answer)
        answer.set_result(granted() if with_ is None else with_)


class Crowd:
    """A product with three identity providers: one that is told when to answer, a slow one and a quick one."""

    def __init__(self, held: Endpoints, slow: Endpoints, quick: Endpoints, bearward: Bearward) -> None:
        self.held, self.slow = Stage(held, bearward), Stage(slow, bearward)
        self.quick = Stage(quick, bearward)
        self.bearward = bearward
        self.gate, self.pace = Slow(), Slow(0.05)

    async def waiters(self, name: str, count: int) -> None:
        """Return once so many requests wait for a token, which only the metrics tell."""
        async with asyncio.timeout(SOON):
            while (await self.bearward.metrics()).total("token_waiters", credential=name) != count:
                await asyncio.sleep(0.02)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crowd(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Crowd]:
    async with Endpoints() as held, Endpoints() as slow, Endpoints() as quick:
        config = held.config(dict.fromkeys(BACKGROUND, PLAIN) | {"urgent": USERS})
        short = {"max_token_requests": "3/1h"}
        for other in (
            slow.config({"one": USERS, "two": USERS}),
            quick.config(
                {
                    "stampede": USERS,
                    "refused-stampede": USERS,
                    "quick": USERS,
                    "refresh_in": PLAIN,
                    "refresh_expires_in": PASSWORD | short,
                }
            ),
        ):
            config = {section: config[section] | other[section] for section in config}
        bearward = Bearward(config, tmp_path_factory.mktemp("crowd"), name="crowd", until=None)
        crowd = Crowd(held, slow, quick, bearward)
        held.answers = dict.fromkeys([*BACKGROUND, "urgent"], crowd.gate)
        slow.answers = dict.fromkeys(["one", "two"], crowd.pace)
        quick.answers |= {
            "refresh_in": granted(expires_in=60, refresh_in=3),
            "refresh_expires_in": _session_of_a_moment,
        }
        async with bearward:
            yield crowd


def _session_of_a_moment(_asked: Asked) -> bytes:
    return granted(expires_in=2, refresh_token=new_secret("refresh token"), refresh_expires_in=0.5)


async def test_who_is_waited_for_goes_first(crowd: Crowd) -> None:
    """A new user, and a token that stands in the queue already."""
    endpoints, gate = crowd.held.endpoints, crowd.gate
    await endpoints.until(lambda: len(gate.waiting) == WIDTH)
    came = [name for name in BACKGROUND if endpoints.asked[name]]
    last = [name for name in BACKGROUND if name not in came][-1]
    new = asyncio.create_task(crowd.held.serves("urgent", X_User_Id="ann"))
    await crowd.waiters("urgent", 1)
    queued = asyncio.create_task(crowd.held.serves(last))
    await crowd.waiters(last, 1)
    assert (len(gate.waiting), endpoints.asked["urgent"], endpoints.asked[last]) == (WIDTH, [], [])
    gate.let_go()
    await endpoints.until(lambda: endpoints.asked["urgent"])
    gate.let_go()
    await endpoints.until(lambda: endpoints.asked[last])
    assert sum(len(endpoints.asked[name]) for name in BACKGROUND) == WIDTH + 1
    await _empty(crowd)
    await asyncio.gather(new, queued)
    assert gate.most == WIDTH
    assert [len(endpoints.asked[name]) for name in BACKGROUND] == [1] * len(BACKGROUND)


async def _empty(crowd: Crowd) -> None:
    """Answer all that come until each has a token."""
    endpoints, gate = crowd.held.endpoints, crowd.gate
    while True:
        while gate.waiting:
            gate.let_go()
        if all(endpoints.asked[name] for name in BACKGROUND):
            return
        await endpoints.until(lambda: gate.waiting)


async def test_ten_at_a_time_for_each_identity_provider(crowd: Crowd) -> None:
    """However many users and credentials there are; another identity provider's do not wait."""
    users = [f"user {number}" for number in range(CROWD // 2)]
    asking = asyncio.gather(*(crowd.slow.serves(name, X_User_Id=user) for name in ("one", "two") for user in users))
    await crowd.slow.endpoints.until(lambda: len(crowd.pace.waiting) == WIDTH)
    await crowd.quick.serves("quick", X_User_Id="ann")
    assert not asking.done()
    await asking
    served = [*crowd.slow.endpoints.bearer("one"), *crowd.slow.endpoints.bearer("two")]
    assert len(set(served)) == len(served) == CROWD
    assert crowd.pace.most == WIDTH
    assert sum(len(crowd.slow.endpoints.asked[name]) for name in ("one", "two")) == CROWD


async def test_a_stampede_on_one_key_makes_one_request(crowd: Crowd) -> None:
    answers = await _stampede(crowd, "stampede", granted())
    assert Counter(answer.summary for answer in answers) == {(200, None): STAMPEDE}


async def test_a_stampede_that_is_refused_makes_one_request_too(crowd: Crowd) -> None:
    """And all are told so at once, those as well that come in this very moment."""
    answers = await _stampede(crowd, "refused-stampede", refused("invalid_client", "401 Unauthorized"))
    for answer in answers:
        assert_problem(answer, 503, "credential_rejected")


async def _stampede(crowd: Crowd, name: str, answer: bytes) -> list[Answer]:
    """Calls for one user that all come before the answer or with it; the last of them is answered soon after."""
    gate, stage = Slow(), crowd.quick
    stage.endpoints.answers[name] = gate
    before = [asyncio.create_task(stage.call(name, X_User_Id="ann")) for _ in range(STAMPEDE // 2)]
    await crowd.waiters(name, STAMPEDE // 2)
    after = [asyncio.create_task(stage.call(name, X_User_Id="ann")) for _ in range(STAMPEDE // 2)]
    await stage.endpoints.until(lambda: gate.waiting)
    gate.let_go(with_=answer)
    async with asyncio.timeout(AT_ONCE):
        answers = await asyncio.gather(*before, *after)
    assert len(stage.endpoints.asked[name]) == 1
    return answers


async def test_a_wish_to_be_refreshed_earlier_is_followed(crowd: Crowd) -> None:
    """`refresh_in`, as MSAL knows it; else it would be after 45 seconds."""
    asked = crowd.quick.endpoints.asked["refresh_in"]
    await crowd.quick.endpoints.until(lambda: len(asked) >= 2)
    assert 1 < asked[1].at - asked[0].at < SOON


async def test_a_session_that_is_over_is_not_refreshed(crowd: Crowd) -> None:
    """`refresh_expires_in`, as Keycloak tells it."""
    asked = crowd.quick.endpoints.asked["refresh_expires_in"]
    await crowd.quick.endpoints.until(lambda: len(asked) >= 3)
    assert [each.form["grant_type"] for each in asked[:3]] == ["password"] * 3
