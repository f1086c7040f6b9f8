"""Every bad answer of a token endpoint: an error of bearward's own where there is no token, the old one else."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from configs import acceleration_credential, acronis_credential, atlas_config
from evidence import SECRETS, new_secret
from harness import Answer, Bearward
from problems import assert_problem
from vendors import faults
from vendors.acceleration_cloud import USER_HEADER, AccelerationCloud
from vendors.acronis import AcronisClient, AcronisDataCenter
from vendors.atlas import Atlas

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Long enough for the refresh to fail, and a call to be made with the old token, on a busy machine.
LIFETIME = 8.0
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


class Outcomes:
    """What became of each case; all cases run at once, beside each other in one process."""

    def __init__(self, bearward: Bearward) -> None:
        self.bearward = bearward
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
        config = atlas_config(cold | warm | odd)
        bearward = await stack.enter_async_context(Bearward(config, folder, name="answers", until="/livez"))
        running = Outcomes(bearward)
        for name, atlas in cold.items():
            running.start(name, _without_a_token(bearward, name, atlas))
        for name, atlas in warm.items():
            running.start(name, _with_an_old_token(bearward, name, atlas))
        for name, atlas in odd.items():
            running.start(name, _with_an_odd_expiry(bearward, name, atlas))
        yield running
        await running.all()


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
    metrics = await outcomes.bearward.metrics()
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


def in_a_minute() -> str:
    """The moment a minute from now, as HTTP writes it."""
    return format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True)


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [(lambda: "60", 50, 61), (in_a_minute, 50, 61), (lambda: "7200", 590, 601)],
    ids=["seconds", "date", "more than ten minutes"],
)
async def test_a_throttled_client_waits_as_asked_and_says_so_at_once(
    tmp_path: Path, retry_after: Callable[[], str], least: int, most: int
) -> None:
    async with Atlas() as atlas:
        atlas.token_faults.mode = faults.answer(429, Retry_After=retry_after())
        async with Bearward(atlas_config({"atlas": atlas}), tmp_path, until="/livez") as bearward:
            await atlas.wait_for(lambda vendor: vendor.token_requests and vendor.token_requests[0].status)
            start = time.monotonic()
            await bearward.get("/atlas/accountreports")
            answer = await bearward.get("/atlas/accountreports")
            assert time.monotonic() - start < 5, "the next attempt is due long after the 15 s of a request"
            assert_problem(answer, 503, "token_unavailable")
            assert least <= int(answer.headers["Retry-After"]) <= most
    assert len(atlas.token_requests) == 1


@pytest.mark.parametrize("clock_ahead", [-7200, 7200])
async def test_an_absolute_expiry_is_read_by_the_clock_of_its_answer(tmp_path: Path, clock_ahead: int) -> None:
    client = AcronisClient()
    async with AcronisDataCenter(client, 3600, clock_ahead=clock_ahead) as center:
        config = {
            "credentials": {"acronis": acronis_credential(client)},
            "routes": {"/eu8": {"upstream": center.url, "credential": "acronis"}},
        }
        async with Bearward(config, tmp_path) as bearward:
            assert (await bearward.get("/eu8/api/2/clients/x")).status == 200
            metrics = await bearward.metrics()
            assert abs(metrics.total("token_expiry_timestamp_seconds") - time.time() - 3600) < 20
            assert abs(metrics.total("idp_clock_skew_seconds") - clock_ahead) < 5
    assert len(center.token_requests) == 1


@pytest.mark.parametrize("status", [200, 400])
async def test_acceleration_clouds_refusal_is_for_good_whatever_its_status(tmp_path: Path, status: int) -> None:
    async with AccelerationCloud(refusal_status=status) as vendor:
        wrong = new_secret("client secret")
        config = {
            "credentials": {"cloud": acceleration_credential(vendor, client_secret=wrong)},
            "routes": {"/cloud": {"upstream": f"{vendor.url}/api/v1", "credential": "cloud"}},
        }
        async with Bearward(config, tmp_path) as bearward:
            for _ in range(3):
                answer = await bearward.get("/cloud/orders", headers={USER_HEADER: vendor.users[0]})
                assert_problem(answer, 503, "credential_rejected")
    assert len(vendor.token_requests) == 1
