"""`bearward demo --once`: calls over two token lifetimes, and the judgement of what became of them."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from .. import clock
from .vendor import TOKEN_HEADER, DataCenter

INTERVAL: Final = 0.25
"""Seconds from call to call: some calls fall close before and after every refresh and every expiry."""
LEAST_REFRESHES: Final = 2
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, slots=True)
class Call:
    """What a caller saw of one call: None where there was no whole answer."""

    status: int | None
    token: str | None
    """The fingerprint, as the data center tells it."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of all calls to one data center."""

    data_center: str
    calls: int
    failed: int
    """Calls that were answered anything but 200."""
    refused: int
    """Calls for which the data center found no valid token. A replay may hide them from the caller, not from here."""
    refreshes: int
    tokens: int
    """Different tokens that calls were answered with."""
    slowest: float

    @property
    def fault(self) -> str | None:
        """Why this is not what bearward promises; None where it is."""
        if self.failed:
            return f"{self.failed} of {self.calls} calls failed"
        if self.refused:
            return f"requests answered 401 by the data center: {self.refused}"
        # Tokens, not refreshes: a new token counts once it has been used.
        if self.tokens <= LEAST_REFRESHES:
            return f"calls went out with {self.tokens} different tokens, fewer than {LEAST_REFRESHES + 1}"
        return None


async def make_calls(urls: Mapping[DataCenter, str], seconds: float, stopping: asyncio.Event) -> list[Outcome]:
    """Calls the URL of each data center, all at the same time, again and again for `seconds` or until `stopping`."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        series = [_call_again_and_again(session, url, seconds, stopping) for url in urls.values()]
        return [_outcome(*each) for each in zip(urls, await asyncio.gather(*series), strict=True)]


async def _call_again_and_again(
    session: aiohttp.ClientSession, url: str, seconds: float, stopping: asyncio.Event
) -> list[Call]:
    calls: list[Call] = []
    end = clock.now() + seconds
    while clock.now() < end and not stopping.is_set():
        calls.append(await _call(session, url))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL):
                await stopping.wait()
    return calls


async def _call(session: aiohttp.ClientSession, url: str) -> Call:
    status = token = None
    started = clock.now()
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with session.get(url) as answer:
            await answer.read()
            status, token = answer.status, answer.headers.get(TOKEN_HEADER)
    return Call(status, token, clock.now() - started)


def _outcome(data_center: DataCenter, calls: Sequence[Call]) -> Outcome:
    return Outcome(
        data_center=data_center.name,
        calls=len(calls),
        failed=sum(call.status != 200 for call in calls),
        refused=data_center.refused,
        refreshes=max(data_center.issued - 1, 0),
        tokens=len({call.token for call in calls} - {None}),
        slowest=max((call.seconds for call in calls), default=0.0),
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes, for people: a row for each data center, then the judgement."""
    rows: list[tuple[str, ...]] = [("DATA CENTER", "CALLS", "FAILED", "REFUSED", "REFRESHES", "TOKENS", "SLOWEST")]
    for one in outcomes:
        numbers = (one.calls, one.failed, one.refused, one.refreshes, one.tokens)
        rows.append((one.data_center, *map(str, numbers), f"{one.slowest * 1000:.0f} ms"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([*lines, "", *(_judgement(outcomes))])


def _judgement(outcomes: Sequence[Outcome]) -> list[str]:
    faults = [f"{one.data_center}: {one.fault}" for one in outcomes if one.fault]
    return faults or ["Every call was answered, each with a token that was valid at its data center."]
