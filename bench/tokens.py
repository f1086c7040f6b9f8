"""What ten thousand tokens cost, and how they are refreshed: `python bench/tokens.py --help`."""

# ruff: noqa: T201

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import inside
from crowd import Client, Crowd, config, crowd, endpoint
from endpoint import TOKEN_LENGTH, Wishes
from peers import BenchError

LATENCY: Final = 0.2
"""Of the identity provider, in seconds, where requests wait for it."""
TIMES: Final = 5
"""So often is a stampede repeated within a round."""
SHORT: Final = 300.0
STORE = "token_store: {{path: {}}}"


class Table:
    """Figures by row, one of each round, and their bounds."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)
        self._bounds: dict[str, float] = {}

    def note(self, row: str, value: float, at_most: float | None = None) -> None:
        self._values[row].append(value)
        if at_most is not None:
            self._bounds[row] = at_most

    def lines(self) -> list[str]:
        lines = [["", "median", "least to most", "bound", "held"]]
        for row, values in self._values.items():
            median, bound = statistics.median(values), self._bounds.get(row)
            held = "" if bound is None else "yes" if median <= bound else "NO"
            spread = f"{_figure(min(values))} to {_figure(max(values))}"
            lines.append([row, _figure(median), spread, "" if bound is None else f"{bound:g}", held])
        widths = [max(len(line[column]) for line in lines) for column in range(5)]
        cells = ([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines)
        rows = [f"| {' | '.join(line)} |" for line in cells]
        rule = "|" + "|".join("-" * (width + 1) + (":" if n else "-") for n, width in enumerate(widths)) + "|"
        return [rows[0], rule, *rows[1:]]


class Round:
    """One round of all scenarios; each of them has a bearward of its own."""

    def __init__(self, arguments: argparse.Namespace, backend: int, folder: Path, table: Table) -> None:
        self._users = [f"user-{number}" for number in range(arguments.tokens)]
        self._seconds: float = arguments.seconds
        self._folder = folder
        self._note = table.note
        self._words: dict[str, object] = {"backend": backend, "max": 2 * arguments.tokens, "scope": "a", "store": ""}

    async def run(self) -> None:
        for scenario in (self.source, self.at_rest, self.busy, self.stored, self.all_at_once, self.stampede):
            print(f"  {scenario.__name__}", file=sys.stderr)
            await scenario()

    async def source(self) -> None:
        """Measured at the token source."""
        count = len(self._users)
        hot, spread = await _apart(inside.reading, count)
        self._note("give me the token: µs, the same one again", hot * 1e6, 2)
        self._note("give me the token: µs, of all in any order", spread * 1e6, 2)
        share = await _apart(inside.schedule, count, SHORT, self._seconds)
        self._note("lifetime 5 min: % of a core for the schedule alone", share * 100, 2)

    async def at_rest(self) -> None:
        """Tokens that live for an hour: their size, scrapes, reloads, the end."""
        async with crowd(self._folder, self._words) as running:
            await self._filled(running, Wishes(refresh_in=(2500.0, 3000.0)), "")
            self._note("lifetime 1 h, at rest: % of a core", await running.share(self._seconds) * 100, 2)
            for path in ("/metrics", "/readyz?verbose", "/api/status"):
                self._note(f"{path}: ms", statistics.median([await running.scrape(path) for _ in range(5)]) * 1e3)
            await self._probed(running, "reload, nothing changed", running.reload)
            self._words["scope"] = "b"
            config(self._folder, self._words)
            await self._probed(running, "reload, all tokens go", running.reload)
            self._words["scope"] = "a"
            await running.ask(self._users)
            began = time.perf_counter()
            running.server.stop()
            self._note("stop: ms", (time.perf_counter() - began) * 1e3)

    async def busy(self) -> None:
        """Tokens that live for five minutes, each of another age, some of which fall due while we look."""
        async with crowd(self._folder, self._words) as running:
            await running.wish(Wishes(lifetime=SHORT, refresh_in=(1.0, 0.775 * SHORT)))
            await running.ask(self._users)
            await running.ask(self._users)
            await running.wish(Wishes(lifetime=SHORT))
            share = await running.share(self._seconds)
            counts = await running.wish()
            self._note("lifetime 5 min: % of a core, token requests included", share * 100)
            self._note("lifetime 5 min: token requests a second", counts.answered / self._seconds)
            self._note("lifetime 5 min: ms of processor time for each", share * self._seconds / counts.answered * 1e3)

    async def stored(self) -> None:
        """The same with a token store."""
        file = self._folder / "tokens.store"
        words = self._words | {"store": STORE.format(file)}
        async with crowd(self._folder, words) as running:
            await self._filled(running, Wishes(lifetime=SHORT, refresh_in=(1.0, 0.775 * SHORT)), " with a token store")
            await running.wish(Wishes(lifetime=SHORT))
            written = running.written()
            async with running.probed() as probes:
                share = await running.share(self._seconds)
            self._note("token store, lifetime 5 min: % of a core", share * 100)
            self._note("token store: MiB of the file", file.stat().st_size / 2**20)
            self._note("token store: MiB a second to disk", (running.written() - written) / 2**20 / self._seconds)
            self._note("token store: ms of the slowest request meanwhile", max(probes) * 1e3)
            await running.wish()
        began = time.perf_counter()
        async with crowd(self._folder, words) as running:
            self._note("token store: ms from start to the first answers", (time.perf_counter() - began) * 1e3)
        file.unlink()

    async def all_at_once(self) -> None:
        """All fall due in the same second; then the identity provider fails for all of them."""
        async with crowd(self._folder, self._words) as running:
            due = time.monotonic() + 5 + len(self._users) * 0.004
            await running.wish(Wishes(refresh_at=due))
            before = running.server.memory("Rss")
            await running.ask(self._users)
            await running.ask(self._users)
            if time.monotonic() > due - 1:
                raise BenchError("the machine is too slow: tokens were due before all had been asked for")
            await running.wish(Wishes(refresh_in=(1.0, 1.0), latency=0.02))
            async with running.probed() as probes:
                await asyncio.sleep(due - time.monotonic())
                answered = await self._until(running, len(self._users), Wishes(refresh_in=(1.0, 1.0), latency=0.02))
            self._note("all due in the same second: token requests at a time", answered.most_at_once, 10)
            self._note("all due in the same second: s until all are new", answered.last_at - due)
            self._note("all due in the same second: ms of the slowest request meanwhile", max(probes) * 1e3)
            self._note("all due in the same second: ms of the median request", statistics.median(probes) * 1e3)
            after = running.server.memory("Rss")
            self._note("a token, after all were refreshed in one go: KiB", (after - before) / len(self._users), 4)
            await self._outage(running)

    async def _outage(self, running: Crowd) -> None:
        failing = Wishes(status=503)
        await running.wish(failing)
        before = running.server.memory("Rss")
        await running.ask(self._users)  # each token is due, and its attempt fails
        await self._until(running, len(self._users), failing)
        async with running.probed() as probes:
            share = await running.share(self._seconds)
        self._note("outage: more KiB for a key that fails", (running.server.memory("Rss") - before) / len(self._users))
        self._note("outage, in its first minute: % of a core", share * 100)
        self._note("outage: ms of the slowest request", max(probes) * 1e3)

    async def stampede(self) -> None:
        """Many requests for one key that has no token."""
        count, backend = len(self._users), int(str(self._words["backend"]))
        async with crowd(self._folder, self._words) as running, AsyncExitStack() as ends:
            await running.wish(Wishes(latency=LATENCY))
            took, used = await _apart(inside.stampede, backend, count, LATENCY, TIMES)
            counts = await running.wish(Wishes(latency=LATENCY))
            self._note(f"stampede of {count}: token requests", counts.answered / TIMES, 1)
            self._note(f"stampede of {count}: ms beyond the latency", took * 1e3, 50)
            self._note(f"stampede of {count}: ms of processor time in all", used * 1e3)
            clients = [await ends.enter_async_context(Client(running.server.port)) for _ in range(1000)]
            for _ in range(3):
                await running.burst(clients, "warm-0")
            await running.wish(Wishes(latency=LATENCY))
            added = []
            for number in range(TIMES):
                warm = await running.burst(clients, "warm-0")
                added.append(await running.burst(clients, f"new-{number}") - warm - LATENCY)
            counts = await running.wish()
            self._note("stampede of 1000 connections: token requests", counts.answered / TIMES, 1)
            beyond = statistics.median(added) * 1e3
            self._note("stampede of 1000 connections: ms beyond the latency and their usual time", beyond, 50)

    async def _filled(self, running: Crowd, wishes: Wishes, how: str) -> None:
        await running.wish(wishes)
        before, used = running.server.memory("Rss"), running.server.processor_seconds()
        await running.ask(self._users)
        each = (running.server.memory("Rss") - before) / len(self._users)
        used = running.server.processor_seconds() - used
        self._note(f"a token{how}: KiB", each, None if how else 4)
        self._note(f"a first request, token request included{how}: ms of processor time", used / len(self._users) * 1e3)

    async def _probed(self, running: Crowd, what: str, act: Callable[[], Awaitable[float]]) -> None:
        async with running.probed() as probes:
            took = await act()
            await asyncio.sleep(1)
        self._note(f"{what}: ms until it is in force", took * 1e3)
        self._note(f"{what}: ms of the slowest request meanwhile", max(probes) * 1e3)

    async def _until(self, running: Crowd, count: int, wishes: Wishes) -> Any:
        """Waits for so many token requests."""
        total = await running.wish(wishes)
        while total.answered < count:
            await asyncio.sleep(0.25)
            more = await running.wish(wishes)
            total.answered += more.answered
            total.most_at_once = max(total.most_at_once, more.most_at_once)
            total.last_at = max(total.last_at, more.last_at)
        return total


async def _apart(measure: Callable[..., Any], *arguments: object) -> Any:
    """What a function says that runs in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        return await asyncio.get_running_loop().run_in_executor(fresh, measure, *arguments)


def main() -> None:
    arguments = _arguments()
    table = Table()
    with tempfile.TemporaryDirectory(prefix="bearward-bench-") as name, endpoint(Path(name)) as backend:
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            asyncio.run(Round(arguments, backend, Path(name), table).run())
    print("\n".join(table.lines()))
    print(f"\n{_conditions(arguments)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=10_000, metavar="N", help="how many (default: 10000)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="medians are taken of (default: 3)")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of each look (default: 20)")
    arguments = parser.parse_args()
    if not (100 <= arguments.tokens <= 50_000 and 1 <= arguments.rounds <= 50 and 1 <= arguments.seconds <= 200):
        parser.error("from 100 to 50000 tokens, 1 to 50 rounds, 1 to 200 seconds")
    return arguments


def _conditions(arguments: argparse.Namespace) -> str:
    try:
        loop = f"uvloop {metadata.version('uvloop')}"
    except metadata.PackageNotFoundError:
        loop = "asyncio (uvloop is not here)"
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    size = sys.getsizeof("Bearer " + "x" * TOKEN_LENGTH) / 1024
    return (
        f"{arguments.tokens} tokens of {TOKEN_LENGTH} characters, {size:.2f} KiB of memory each, which count. "
        f"Medians of {arguments.rounds} rounds. The {os.cpu_count()} processors are shared by bearward, the identity "
        f"provider, the clients and whatever else runs: load average {loads}. "
        f"Python {platform.python_version()}, aiohttp {metadata.version('aiohttp')}, {loop}."
    )


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench: {error}")
