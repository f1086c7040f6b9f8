"""Every bad answer of a token endpoint: an error of bearward's own where there is no token, the old one else."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from answer_rows import NO_CLIENT, PASSWORD, Refused, Taken, refusals, taken
from configs import Config, atlas_config
from endpoints import SOON, TOKEN, Answering, Asked, Endpoints, Stage, granted, refused, reply
from evidence import SECRETS, new_secret
from harness import Answer, Bearward
from problems import assert_problem
from vendors import faults
from vendors.atlas import Atlas

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Long enough for the refresh to fail, and a call to be made with the old token, on a busy machine.
LIFETIME = 16.0
PATIENCE = 15.0

FaultOf = Callable[[Atlas], faults.Fault]


def always(fault: faults.Fault) -> FaultOf:
    """The same fault at every vendor."""
    return lambda _: fault


def token(text: str) -> FaultOf:
    """An answer with this for a token."""
    return always(faults.change(access_token=SECRETS.add(text, "unusable token")))


BAD_ANSWERS: dict[str, FaultOf] = {
    "html": always(faults.html),
    "empty": always(faults.empty),
    "huge": always(faults.huge),
    "redirect": lambda atlas: faults.redirect(f"{atlas.api}/elsewhere"),
    "see-other": lambda atlas: faults.answer(303, Location=f"{atlas.api}/elsewhere"),
    "expired": always(faults.change(expires_in=None, expires_on=1_000_000_000)),
    "expires-in-0": always(faults.change(expires_in=0)),
    "expires-in-minus-1": always(faults.change(expires_in=-1)),
    "server-error": always(faults.server_error),
    "no-token": always(faults.omit("access_token")),
    "null-token": always(faults.change(access_token=None)),
    "empty-token": always(faults.change(access_token="")),
    "number-token": always(faults.change(access_token=17)),
    "token-with-line-break": token(new_secret("unusable token") + "\r\nX-Injected: 1"),
    "token-with-space": token("two words " + new_secret("unusable token")),
    "token-not-ascii": token("tökén-" + new_secret("unusable token")),
    "token-of-17-kib": token(new_secret("unusable token") + "x" * 17 * 1024),
    "list": always(faults.answer(200, "[]", Content_Type="application/json")),
    "null": always(faults.answer(200, "null", Content_Type="application/json")),
    "broken-json": always(faults.answer(200, '{"access_token": "', Content_Type="application/json")),
    "not-utf-8": always(faults.answer(200, b'{"access_token": "\xff\xfe"}', Content_Type="application/json")),
    "disconnect": always(faults.disconnect),
    "close-early": always(faults.close_early),
}

# The first answer already has such an expiry; the token is good all the same, for so many seconds (None: whatever).
# A text is read as its number; what is no finite number counts as absent, and the token's own `exp` is next.
ODD_EXPIRIES: dict[str, tuple[faults.Fault, float | None]] = {
    "text": (faults.change(expires_in="3600"), 3600),
    "1e99": (faults.change(expires_in=1e99), None),
    "null": (faults.change(expires_in=None), 1800),
    "true": (faults.change(expires_in=True), 1800),
    "text-that-is-no-number": (faults.change(expires_in="soon"), 1800),
    "absent": (faults.omit("expires_in"), 1800),
    "infinite": (faults.change(expires_in=float("inf")), 1800),
}


def _dead_refresh_token(asked: Asked) -> bytes:
    """A sign-in for a moment, whose refresh token is of no use."""
    if asked.form["grant_type"] == "refresh_token":
        return refused("invalid_grant")
    return granted(expires_in=2, refresh_token=new_secret("refresh token"))


STORIES: dict[str, tuple[Answering, Config]] = {
    "dead-refresh-token": (_dead_refresh_token, PASSWORD),
    "gce-same-token": (reply({"access_token": new_secret("access token"), "expires_in": 2}), {}),
    "hangs": (lambda _: asyncio.Event().wait(), {"timeout": "500ms"}),
}


class Outcomes:
    """What became of each case; all cases run at once, beside each other in one process."""

    def __init__(self, stage: Stage, rows: Mapping[str, Taken | Refused]) -> None:
        self.stage = stage
        self.rows = rows
        self.bearward = stage.bearward
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    def start(self, name: str, case: Awaitable[Any]) -> None:
        self._tasks[name] = asyncio.ensure_future(case)

    async def of(self, name: str) -> Any:
        return await self._tasks[name]

    async def all(self) -> None:
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outcomes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Outcomes]:
    async with AsyncExitStack() as stack:
        cold = {f"cold-{name}": await stack.enter_async_context(Atlas()) for name in BAD_ANSWERS}
        warm = {f"warm-{name}": await stack.enter_async_context(Atlas(LIFETIME)) for name in BAD_ANSWERS}
        odd = {f"odd-{name}": await stack.enter_async_context(Atlas(1800)) for name in ODD_EXPIRIES}
        for name, fault_of in BAD_ANSWERS.items():
            cold[f"cold-{name}"].token_faults.mode = fault_of(cold[f"cold-{name}"])
            warm[f"warm-{name}"].token_faults.fail_next(1, faults.none)
            warm[f"warm-{name}"].token_faults.mode = fault_of(warm[f"warm-{name}"])
        for name, (fault, _) in ODD_EXPIRIES.items():
            odd[f"odd-{name}"].token_faults.fail_next(1, fault)
        folder = tmp_path_factory.mktemp("answers")
        endpoints = await stack.enter_async_context(Endpoints())
        rows: dict[str, Taken | Refused] = {**taken(), **refusals()}
        config = _with_rows(atlas_config(cold | warm | odd), rows, endpoints)
        bearward = await stack.enter_async_context(Bearward(config, folder, name="answers", until="/livez"))
        running = Outcomes(Stage(endpoints, bearward), rows)
        for name, row in rows.items():
            if isinstance(row, Refused):
                running.start(name, _in_vain(running.stage, name, row))
        for name, atlas in cold.items():
            running.start(name, _without_a_token(bearward, name, atlas))
        for name, atlas in warm.items():
            running.start(name, _with_an_old_token(bearward, name, atlas))
        for name, atlas in odd.items():
            running.start(name, _with_an_odd_expiry(bearward, name, atlas))
        yield running
        await running.all()


def _with_rows(config: Config, rows: Mapping[str, Taken | Refused], endpoints: Endpoints) -> Config:
    """The config with the rows' credentials, which the endpoints then answer so."""
    credentials: dict[str, Config] = {}
    for name, row in rows.items():
        endpoints.answers[name] = row.answer
        response = {"response": row.response} if isinstance(row, Taken) else {}
        credentials[name] = NO_CLIENT | row.more | response
    for name, (answer, more) in STORIES.items():
        endpoints.answers[name] = answer
        credentials[name] = NO_CLIENT | more
    own = endpoints.config(credentials)
    return {section: config[section] | own[section] for section in ("credentials", "routes")}


async def _without_a_token(bearward: Bearward, name: str, atlas: Atlas) -> tuple[Answer, float]:
    start = time.monotonic()
    answer = await bearward.get(f"/{name}/accountreports")
    assert atlas.calls == [], "nothing may reach the data center without a token"
    return answer, time.monotonic() - start


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_without_a_token_it_is_an_error_of_bearwards_own(outcomes: Outcomes, name: str) -> None:
    answer, seconds = await outcomes.of(f"cold-{name}")
    assert_problem(answer, 503, "token_unavailable")
    assert seconds < PATIENCE + 5, "requests wait 15 s for a token and no longer"


async def _with_an_old_token(bearward: Bearward, name: str, atlas: Atlas) -> None:
    await atlas.wait_for(lambda vendor: len(vendor.token_requests) >= 2)
    await atlas.wait_for(lambda vendor: vendor.token_requests[1].status is not None)
    answer = await bearward.get(f"/{name}/accountreports")
    assert answer.summary == (200, None)
    assert [call.token for call in atlas.calls] == [atlas.book.issued[0]], "the old token stays in use"
    atlas.token_faults.mode = None
    await atlas.wait_for(lambda vendor: vendor.token_requests[-1].status == 200 and vendor.token_requests[-1].token)


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_an_old_token_stays_in_use(outcomes: Outcomes, name: str) -> None:
    await outcomes.of(f"warm-{name}")


async def test_each_failure_is_counted(outcomes: Outcomes) -> None:
    await asyncio.gather(*(outcomes.of(f"warm-{name}") for name in BAD_ANSWERS))
    metrics = await outcomes.bearward.metrics()
    for name in BAD_ANSWERS:
        assert metrics.total("token_refresh_failures_total", credential=f"warm-{name}") >= 1


async def _with_an_odd_expiry(bearward: Bearward, name: str, atlas: Atlas) -> float:
    """The seconds that are left by the metrics."""
    answer = await bearward.get(f"/{name}/accountreports")
    assert answer.summary == (200, None)
    assert len(atlas.token_requests) == 1
    metrics = await bearward.metrics()
    return metrics.total("token_expiry_timestamp_seconds", credential=name) - time.time()


@pytest.mark.parametrize("name", ODD_EXPIRIES)
async def test_an_odd_expiry_makes_no_token_unusable(outcomes: Outcomes, name: str) -> None:
    left = await outcomes.of(f"odd-{name}")
    lifetime = ODD_EXPIRIES[name][1]
    if lifetime is None:
        assert left > 0
    else:
        assert lifetime - 20 < left <= lifetime + 2


@pytest.mark.parametrize("name", taken())
async def test_a_token_is_taken_as_vendors_give_it(outcomes: Outcomes, name: str) -> None:
    row, stage = outcomes.rows[name], outcomes.stage
    assert isinstance(row, Taken)
    answer = await stage.call(name)
    assert answer.summary == (200, None)
    (call,) = stage.endpoints.calls[name]
    token = (stage.endpoints.tokens[name] or [""])[0]
    for header, value in row.injected.items():
        assert call.headers[header] == value.replace(TOKEN, token)
    assert ("authorization" in call.headers) == ("authorization" in row.injected)
    assert len(stage.endpoints.asked[name]) == 1
    line = await stage.refreshed(name)
    if row.lifetime is not None:
        seconds, source = row.lifetime
        assert line["lifetime_from"] == source.replace("\\", "")
        # An absolute moment was written some seconds before it was read; a clock is read in the midst of an exchange.
        assert seconds - 60 < line["lifetime"] <= seconds + (1 if row.skew is None else SOON / 2)
    assert row.refresh_in is None or line["refresh_in"] == row.refresh_in
    assert row.skew is None or abs(line["clock_skew"] - row.skew) < 60


async def test_a_lifetime_that_nobody_told_is_warned_of(outcomes: Outcomes) -> None:
    lines = await outcomes.bearward.logs("answer tells no lifetime; 5 minutes are assumed, set ttl")
    warned = [line["credential"] for line in lines]
    assert "absent" in warned
    assert len(warned) == len(set(warned))
    assert not {"expires_in", "absent-jwt", "absent-ttl-salesforce"} & set(warned)


async def _in_vain(stage: Stage, name: str, row: Refused) -> tuple[dict[str, Any], Answer | None]:
    """What the log says, and the answer to a call that does not wait for the next attempt."""
    line = await stage.failed(name)
    return line, await stage.call(name) if row.retry_in[0] > PATIENCE else None


@pytest.mark.parametrize("name", refusals())
async def test_an_answer_without_a_token_is_told_from_others(outcomes: Outcomes, name: str) -> None:
    row, endpoints = outcomes.rows[name], outcomes.stage.endpoints
    assert isinstance(row, Refused)
    line, answer = await outcomes.of(name)
    assert (line["reason"], line["for_good"]) == (row.reason, row.for_good), line["detail"]
    least, most = row.retry_in
    assert least <= line["retry_in"] <= most
    if answer is not None:
        assert_problem(answer, 503, "credential_rejected" if row.for_good else "token_unavailable")
        assert PATIENCE < int(answer.headers["Retry-After"]) <= most
    first, *others = endpoints.asked[name]
    assert all(asked.at - first.at > least for asked in others)
    assert endpoints.calls[name] == []


async def test_a_dead_refresh_token_brings_the_first_grant_at_once(outcomes: Outcomes) -> None:
    """Within the same attempt, which has no failure to wait after."""
    endpoints, name = outcomes.stage.endpoints, "dead-refresh-token"
    await endpoints.until(lambda: len(endpoints.asked[name]) >= 3)
    grants = [asked.form["grant_type"] for asked in endpoints.asked[name][:3]]
    assert grants == ["password", "refresh_token", "password"]
    assert name not in {line["credential"] for line in await outcomes.bearward.logs("token refresh failed")}


async def test_the_same_token_again_is_no_fault(outcomes: Outcomes) -> None:
    """GCE's metadata server gives the one that it has until shortly before its end."""
    stage = outcomes.stage
    await stage.endpoints.until(lambda: len(stage.endpoints.asked["gce-same-token"]) >= 3)
    assert (await stage.call("gce-same-token")).summary == (200, None)
    failures = await outcomes.bearward.logs("token refresh failed")
    assert "gce-same-token" not in {line["credential"] for line in failures}


async def test_an_answer_that_does_not_come_is_not_awaited(outcomes: Outcomes) -> None:
    line = await outcomes.stage.failed("hangs")
    assert (line["reason"], line["for_good"], line["detail"]) == ("timeout", False, "no answer within 0.5 s")
