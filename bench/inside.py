"""What is measured at the token source itself, each function in a fresh process: `bearward` is imported here."""

import asyncio
import random
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from endpoint import TOKEN_LENGTH, Wishes

from bearward import clock
from bearward.app import event_loop
from bearward.secret import Secret
from bearward.tokens.answer import Answer, Issued
from bearward.tokens.credential import Client, Credential, Principal, TokenEndpoint
from bearward.tokens.desk import Means
from bearward.tokens.fetcher import Fetcher
from bearward.tokens.keeper import Keeper
from bearward.tokens.source import TokenSource
from bearward.tokens.timetable import Timetable
from bearward.tokens.token import Token

READS = 100_000
TOKEN = "x" * TOKEN_LENGTH


def reading(count: int) -> tuple[float, float]:
    """Seconds for `keeper(principal).current()` where the token is fresh: always that of one principal, and those of
    `count` in any order."""

    async def measure() -> tuple[float, float]:
        source = await _filled(count, Wishes())
        names = [f"user-{n}" for n in random.choices(range(count), k=READS)]  # noqa: S311
        return _read(source, names[:1] * READS), _read(source, names)

    return _run(measure())


def _read(source: TokenSource, names: list[str]) -> float:
    rounds = []
    for _ in range(7):
        began = time.perf_counter()
        for name in names:
            source.keeper(name).current()
        rounds.append((time.perf_counter() - began) / len(names))
    return median(rounds)


def schedule(count: int, lifetime: float, seconds: float) -> float:
    """The share of a core that timetable and keepers take for `count` tokens, all of them in use.

    Tokens come from nowhere: their ages differ, as if each had been asked for at another moment.
    """

    class Nowhere:
        digest = None

        def __init__(self, age: float = 0.0) -> None:
            self._age = age

        def resume(self) -> Issued | None:
            return Issued(TOKEN, clock.now() - self._age, lifetime, "nowhere")

        async def obtain(self, _turn: object) -> Issued:
            return Issued(TOKEN, clock.now(), lifetime, "nowhere")

        async def end(self, *, keep: bool) -> None:
            pass

    async def measure() -> float:
        desk = _source(Fetcher(None), 0, "http://127.0.0.1/token")._desk
        # A fifth of a lifetime and a quarter more is the longest lead.
        keepers = [Keeper(desk, Nowhere(random.uniform(0, 0.75 * lifetime))) for _ in range(count)]  # noqa: S311
        for keeper in keepers:
            keeper.start()
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        share = (time.process_time() - used) / (time.perf_counter() - began)
        await desk.means.fetcher.close()
        return share

    return _run(measure())


def stampede(port: int, count: int, latency: float, times: int) -> tuple[float, float]:
    """`count` requests for one key, which has no token, so many times: seconds beyond `latency` until all have it, and
    the processor time of it all, which other programs do not lengthen."""

    async def measure() -> tuple[float, float]:
        fetcher = Fetcher(None)
        taken, used = [], []
        for _ in range(times):
            source = _source(fetcher, 0, f"http://127.0.0.1:{port}/token")
            source.start()
            began, used_before = time.perf_counter(), time.process_time()
            tokens = await asyncio.gather(*(_token(source) for _ in range(count)))
            taken.append(time.perf_counter() - began - latency)
            used.append(time.process_time() - used_before)
            if len(set(map(id, tokens))) != 1:
                raise AssertionError("not the same token for all")
            await source.close()
        await fetcher.close()
        return median(taken), median(used)

    return _run(measure())


async def _token(source: TokenSource) -> Token:
    keeper = source.keeper("")
    return keeper.current() or await keeper.wait()


async def _filled(count: int, wishes: Wishes) -> TokenSource:
    """A source with `count` tokens; its identity provider answers from memory, and at once."""

    async def send(*_: object) -> Answer:
        return Answer(200, {}, wishes.answer(), clock.now(), time.time(), time.time())

    fetcher = Fetcher(None)
    fetcher.send = send  # type: ignore[method-assign]
    await fetcher.close()
    source = _source(fetcher, count, "http://127.0.0.1/token")
    for name in range(count):
        await source.keeper(f"user-{name}").wait()
    return source


def _source(fetcher: Fetcher, principals: int, token_url: str) -> TokenSource:
    endpoint = TokenEndpoint(
        token_url=token_url,
        client=Client(id=Secret("bench"), secret=Secret("not-a-secret")),
        params={"user": Secret("{principal}")} if principals else {},
    )
    principal = Principal("X-User", principals) if principals else None
    credential = Credential(name="bench", source=endpoint, principal=principal)
    return TokenSource(credential, "", "bench", Means(fetcher, Timetable(), lambda _: None))


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        return runner.run(work)
