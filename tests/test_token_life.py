"""One refresh for all: how tokens are first obtained, shared, refused by an upstream and replaced."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from configs import atlas_config, atlas_credential
from harness import Answer, Bearward
from vendors import faults
from vendors.atlas import Atlas

REPLAYABLE = 64 << 10
# From this age on, a token that an upstream refuses is refreshed.
SUSPECT_AGE = 10.0


async def test_cold_start_with_a_thousand_requests_makes_one_token_request(tmp_path: Path) -> None:
    async with Atlas() as atlas:
        hold = faults.Hold()
        atlas.token_faults.mode = hold
        async with Bearward(atlas_config({"atlas": atlas}), tmp_path, until="/livez") as bearward:
            answers = await _all_sent_before(hold.release, bearward, "/atlas/accountreports", 1000)
            metrics = await bearward.metrics()
    assert Counter(answer.summary for answer in answers) == {(200, None): 1000}
    assert len(atlas.token_requests) == 1
    assert {call.verdict for call in atlas.calls} == {"live"}
    assert metrics.total("token_waiters", credential="atlas") == 0


async def _all_sent_before(release: Callable[[], None], bearward: Bearward, path: str, count: int) -> list[Answer]:
    """Make `count` requests at once, and call `release` when the last of them has been sent."""
    sent = asyncio.Barrier(count + 1)

    async def on_sent(*_: object) -> None:
        await sent.wait()

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(on_sent)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as session:

        async def ask() -> Answer:
            async with session.get(bearward.url + path) as response:
                return Answer(response.status, response.headers, await response.read())

        asking = asyncio.gather(*(ask() for _ in range(count)))
        await sent.wait()
        release()
        return await asking


async def test_a_client_that_hangs_up_does_not_cancel_the_shared_refresh(tmp_path: Path) -> None:
    async with Atlas() as atlas:
        hold = faults.Hold()
        atlas.token_faults.mode = hold
        async with Bearward(atlas_config({"atlas": atlas}), tmp_path, until="/livez") as bearward:
            await hold.arrived.wait()
            impatient = [asyncio.create_task(bearward.get("/atlas/accountreports")) for _ in range(5)]
            await _waiters(bearward, 5)
            patient = asyncio.create_task(bearward.get("/atlas/accountreports"))
            await _waiters(bearward, 6)
            for task in impatient:
                task.cancel()
            await asyncio.gather(*impatient, return_exceptions=True)
            await _waiters(bearward, 1)
            hold.release()
            assert (await patient).status == 200
    assert len(atlas.token_requests) == 1
    assert len(atlas.calls) == 1, "nobody is there any more for the other calls"


async def _waiters(bearward: Bearward, count: int) -> None:
    """Return once so many requests wait for a token, which only the metrics tell."""
    async with asyncio.timeout(10):
        while (await bearward.metrics()).total("token_waiters") != count:
            await asyncio.sleep(0.02)


async def test_a_refresh_in_the_background_holds_up_no_call(tmp_path: Path) -> None:
    async with Atlas(lifetime=8) as atlas, Bearward(atlas_config({"atlas": atlas}), tmp_path) as bearward:
        hold = faults.Hold()
        atlas.token_faults.mode = hold
        await atlas.wait_for(lambda vendor: len(vendor.token_requests) == 2)
        during = await bearward.get("/atlas/accountreports")
        assert during.status == 200
        assert atlas.calls[-1].token is atlas.book.issued[0], "the old token is served while it lives"
        hold.release()
        await atlas.wait_for(lambda vendor: vendor.token_requests[1].status == 200)
        await _eventually_carries(bearward, atlas, "/atlas/accountreports", 1)
    assert {call.verdict for call in atlas.calls} == {"live"}


async def _eventually_carries(bearward: Bearward, atlas: Atlas, path: str, number: int) -> None:
    """Call until a call carries the token of that number: its answer is on the way."""
    async with asyncio.timeout(10):
        while atlas.calls[-1].token is not atlas.book.issued[number]:
            assert (await bearward.get(path)).status == 200


async def test_a_young_token_that_is_refused_is_not_refreshed(tmp_path: Path) -> None:
    async with Atlas() as atlas, Bearward(atlas_config({"atlas": atlas}), tmp_path) as bearward:
        atlas.api_faults.fail_next(3, faults.unauthorized('Bearer realm="acme", error="invalid_token"'))
        for _ in range(3):
            refused = await bearward.get("/atlas/accountreports")
            assert refused.summary == (401, None)
            assert refused.headers["WWW-Authenticate"] == 'Bearer realm="acme", error="invalid_token"'
            assert refused.json() == {"error": "unauthorized"}
        assert (await bearward.get("/atlas/accountreports")).status == 200
        metrics = await bearward.metrics()
    assert len(atlas.token_requests) == 1
    assert len(atlas.calls) == 4
    assert metrics.total("upstream_unauthorized_total", route="/atlas") == 3
    assert metrics.total("replays_total", route="/atlas") == 0


# Each of these meets a 401 with a token that is old enough; all of them wait for that age together.
AGED = (
    "storm",
    "late",
    "limit",
    "chunked",
    "large",
    "endless",
    "pass",
    "scope",
    "disabled",
    "failing",
    "bare",
)


@dataclass
class Aged:
    """A product whose tokens, one for each name, are old enough to be suspected."""

    bearward: Bearward
    vendors: dict[str, Atlas]

    async def metric(self, name: str, route: str) -> float:
        return (await self.bearward.metrics()).total(name, route=f"/{route}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aged(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Aged]:
    async with AsyncExitStack() as stack:
        vendors = {name: await stack.enter_async_context(Atlas()) for name in AGED}
        config = atlas_config(vendors)
        config["routes"]["/pass"]["on_401"] = "pass"
        config["credentials"]["failing"] = atlas_credential(vendors["failing"], timeout="2s")
        folder = tmp_path_factory.mktemp("aged")
        bearward = await stack.enter_async_context(Bearward(config, folder, name="aged"))
        youngest = max(atlas.token_requests[-1].at for atlas in vendors.values())
        await asyncio.sleep(youngest + SUSPECT_AGE + 0.5 - time.monotonic())
        yield Aged(bearward, vendors)


in_module_loop = pytest.mark.asyncio(loop_scope="module")


@in_module_loop
async def test_two_hundred_401s_at_once_make_one_refresh(aged: Aged) -> None:
    atlas = aged.vendors["storm"]
    atlas.api_faults.fail_next(200, faults.Gather(200, faults.unauthorized()))
    answers = await asyncio.gather(*(aged.bearward.get("/storm/accountreports") for _ in range(200)))
    assert Counter(answer.summary for answer in answers) == {(200, None): 200}
    assert len(atlas.token_requests) == 2
    assert Counter(call.token for call in atlas.calls if call.status == 200).keys() == {atlas.book.issued[1]}
    assert await aged.metric("upstream_unauthorized_total", "storm") == 200
    assert await aged.metric("replays_total", "storm") == 200


@in_module_loop
async def test_a_401_for_a_token_already_replaced_is_replayed_without_a_refresh(aged: Aged) -> None:
    atlas = aged.vendors["late"]
    gather = faults.Gather(2, faults.unauthorized())
    atlas.api_faults.fail_next(1, gather)
    slow = asyncio.create_task(aged.bearward.get("/late/slow"))
    await atlas.wait_for(lambda vendor: vendor.calls)
    atlas.api_faults.fail_next(1, faults.unauthorized())
    assert (await aged.bearward.get("/late/quick")).status == 200
    assert len(atlas.token_requests) == 2
    atlas.api_faults.fail_next(1, gather)
    # The call that lets the slow one go is refused with the new, young token: passed on, not refreshed.
    assert (await aged.bearward.get("/late/other")).status == 401
    assert (await slow).status == 200
    assert len(atlas.token_requests) == 2


@in_module_loop
@pytest.mark.parametrize("name", ["limit", "chunked"])
async def test_a_small_body_is_replayed_byte_for_byte(aged: Aged, name: str) -> None:
    atlas = aged.vendors[name]
    body = random.Random(1).randbytes(REPLAYABLE)
    atlas.api_faults.fail_next(1, faults.unauthorized())

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    sent = in_pieces() if name == "chunked" else body
    headers = {"Content-Type": "application/x-thing", "X-Once": "1"}
    answer = await aged.bearward.request("POST", f"/{name}/things?a=%41", data=sent, headers=headers)
    assert answer.status == 200
    first, second = atlas.calls
    assert (first.body, first.status) == (body, 401)
    assert (second.body, second.status) == (body, 200)
    assert (second.method, second.target) == (first.method, first.target) == ("POST", "/api/v1/things?a=%41")
    assert second.token is atlas.book.issued[1]
    unlike = [pair for pair in zip(first.headers.items(), second.headers.items(), strict=True) if len(set(pair)) > 1]
    assert [before[0] for before, _ in unlike] == ["Authorization"], "only the token may differ"


@in_module_loop
@pytest.mark.parametrize("name", ["large", "endless"])
async def test_a_large_body_is_not_replayed(aged: Aged, name: str) -> None:
    atlas = aged.vendors[name]
    atlas.api_faults.fail_next(1, faults.unauthorized())

    async def in_pieces() -> AsyncIterator[bytes]:
        yield bytes(REPLAYABLE)
        yield b"."

    sent = in_pieces() if name == "endless" else bytes(REPLAYABLE + 1)
    answer = await aged.bearward.request("POST", f"/{name}/things", data=sent)
    assert answer.summary == (401, None)
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert [len(call.body) for call in atlas.calls] == [REPLAYABLE + 1]
    assert (await aged.bearward.get(f"/{name}/things")).status == 200
    assert atlas.calls[-1].token is atlas.book.issued[1], "the refused token is given to nobody else"
    assert len(atlas.token_requests) == 2


@in_module_loop
async def test_on_401_pass_passes_it_on_and_marks_the_token(aged: Aged) -> None:
    atlas = aged.vendors["pass"]
    atlas.api_faults.fail_next(1, faults.unauthorized())
    assert (await aged.bearward.get("/pass/accountreports")).summary == (401, None)
    assert len(atlas.calls) == 1
    assert (await aged.bearward.get("/pass/accountreports")).status == 200
    assert atlas.calls[-1].token is atlas.book.issued[1]
    assert await aged.metric("replays_total", "pass") == 0


@in_module_loop
@pytest.mark.parametrize(
    "challenge",
    ['Bearer realm="acme", error="insufficient_scope", scope="admin"', "bearer error=insufficient_scope"],
)
async def test_insufficient_scope_is_no_matter_of_the_token(aged: Aged, challenge: str) -> None:
    atlas = aged.vendors["scope"]
    atlas.api_faults.fail_next(1, faults.unauthorized(challenge))
    answer = await aged.bearward.get("/scope/accountreports")
    assert answer.summary == (401, None)
    assert answer.headers["WWW-Authenticate"] == challenge
    assert (await aged.bearward.get("/scope/accountreports")).status == 200
    assert len(atlas.token_requests) == 1


@in_module_loop
async def test_a_401_without_a_challenge_counts_too(aged: Aged) -> None:
    atlas = aged.vendors["bare"]
    atlas.api_faults.fail_next(1, faults.answer(401))
    assert (await aged.bearward.get("/bare/accountreports")).status == 200
    assert len(atlas.token_requests) == 2


@in_module_loop
async def test_a_client_that_is_always_refused_costs_one_refresh_and_one_replay(aged: Aged) -> None:
    atlas = aged.vendors["disabled"]
    atlas.api_faults.mode = faults.unauthorized()
    assert (await aged.bearward.get("/disabled/accountreports")).summary == (401, None)
    assert [call.token for call in atlas.calls] == atlas.book.issued[:2]
    for _ in range(3):
        assert (await aged.bearward.get("/disabled/accountreports")).summary == (401, None)
    assert len(atlas.calls) == 5
    assert len(atlas.token_requests) == 2


@in_module_loop
async def test_where_the_refresh_fails_the_401_is_passed_on(aged: Aged) -> None:
    atlas = aged.vendors["failing"]
    atlas.token_faults.mode = faults.server_error
    atlas.api_faults.fail_next(1, faults.unauthorized())
    answer = await aged.bearward.get("/failing/accountreports")
    assert answer.summary == (401, None)
    assert answer.json() == {"error": "unauthorized"}
    assert len(atlas.calls) == 1
    atlas.token_faults.mode = None
    await atlas.wait_for(lambda vendor: vendor.token_requests[-1].status == 200)
    await _eventually_carries(aged.bearward, atlas, "/failing/accountreports", 1)
