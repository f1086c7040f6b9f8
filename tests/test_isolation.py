"""One slow or dead upstream, or identity provider, costs the others nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from configs import atlas_config, atlas_credential
from harness import Answer, Bearward
from ports import free_port
from problems import assert_problem
from vendors import faults
from vendors.atlas import Atlas
from wire import RawUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What a hundred calls may take in all beside a neighbour in trouble; waiting for it would take far longer.
BRISK = 5.0


@dataclass
class Neighbours:
    """Routes of one process: `/healthy`, and some in trouble."""

    bearward: Bearward
    healthy: Atlas
    hung_idp: Atlas
    hung_upstream: Atlas
    raw: RawUpstream

    async def a_hundred_calls(self) -> float:
        """Calls of the healthy route, one after the other; the seconds they took."""
        start = time.monotonic()
        for _ in range(100):
            assert (await self.bearward.get("/healthy/accountreports")).summary == (200, None)
        return time.monotonic() - start


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def neighbours(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Neighbours]:
    async with AsyncExitStack() as stack:
        healthy, hung_idp, hung_upstream, dead_idp = [await stack.enter_async_context(Atlas()) for _ in range(4)]
        raw = await stack.enter_async_context(RawUpstream())
        hung_idp.token_faults.mode = faults.hang
        await dead_idp.identity_site.close()
        config = atlas_config(
            {"healthy": healthy, "hung-idp": hung_idp, "hung-upstream": hung_upstream, "dead-idp": dead_idp}
        )
        config["credentials"]["hung-idp"] = atlas_credential(hung_idp, timeout="20s")
        config["routes"]["/nobody"] = {"upstream": f"http://127.0.0.1:{free_port()}", "credential": "healthy"}
        config["routes"]["/raw"] = {"upstream": raw.url, "credential": "healthy", "response_timeout": "0.5s"}
        folder = tmp_path_factory.mktemp("neighbours")
        bearward = await stack.enter_async_context(Bearward(config, folder, name="isolation", until="/readyz"))
        yield Neighbours(bearward, healthy, hung_idp, hung_upstream, raw)


async def _cancelled(tasks: list[asyncio.Task[Answer]]) -> None:
    assert not any(task.done() for task in tasks), "these calls were to hang"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_hanging_identity_provider(neighbours: Neighbours) -> None:
    await neighbours.hung_idp.wait_for(lambda vendor: vendor.token_requests)
    hanging = [asyncio.create_task(neighbours.bearward.get("/hung-idp/x")) for _ in range(100)]
    assert await neighbours.a_hundred_calls() < BRISK
    assert await neighbours.bearward.is_ready(), "a route can be served"
    assert (await neighbours.bearward.admin("/livez")).status == 200
    await _cancelled(hanging)
    assert neighbours.hung_idp.calls == []


async def test_a_hanging_upstream(neighbours: Neighbours) -> None:
    neighbours.hung_upstream.api_faults.mode = faults.hang
    hanging = [asyncio.create_task(neighbours.bearward.get("/hung-upstream/x")) for _ in range(200)]
    await neighbours.hung_upstream.wait_for(lambda vendor: len(vendor.calls) == 200)
    assert await neighbours.a_hundred_calls() < BRISK
    await _cancelled(hanging)


async def test_a_dead_identity_provider_fails_its_own_route_alone(neighbours: Neighbours) -> None:
    waiting = [asyncio.create_task(neighbours.bearward.get("/dead-idp/x")) for _ in range(100)]
    assert await neighbours.a_hundred_calls() < BRISK
    assert await neighbours.bearward.is_ready(), "a route can be served"
    await _cancelled(waiting)


async def test_an_upstream_that_refuses_connections(neighbours: Neighbours) -> None:
    assert_problem(await neighbours.bearward.get("/nobody/x"), 502, "upstream_unreachable")
    assert await neighbours.a_hundred_calls() < BRISK


async def test_an_upstream_that_hangs_up_without_an_answer(neighbours: Neighbours) -> None:
    async def hang_up(*_: object) -> None:
        return

    neighbours.raw.script = hang_up
    assert_problem(await neighbours.bearward.post("/raw/x", b"once"), 502, "upstream_closed")
    assert len(neighbours.raw.requests) == 1, "a request goes out once"
    neighbours.raw.reset()


async def test_an_upstream_that_does_not_answer_in_time(neighbours: Neighbours) -> None:
    async def say_nothing(*_: object) -> None:
        await asyncio.Event().wait()

    neighbours.raw.script = say_nothing
    assert_problem(await neighbours.bearward.get("/raw/x"), 504, "upstream_timeout")
    neighbours.raw.reset()


async def test_an_upstream_that_does_not_speak_http(neighbours: Neighbours) -> None:
    neighbours.raw.answer = b"220 smtp.example ESMTP\r\n\r\n"
    assert_problem(await neighbours.bearward.post("/raw/x", b"once"), 502, "upstream_protocol")
    neighbours.raw.reset()
