"""One server and one product with nearly all cases, under load from the beginning on."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import Answer, Bearward

from .cases import Cast
from .server import Asked, OidcServer

LOADED = ("load-basic", "load-key", "load-user", "load-chain", "load-bearer")
LOAD_SECONDS = 15.0
_CLIENTS, _PAUSE = 8, 0.02

Outcomes = Counter[tuple[str, int, str | None]]
"""How many calls with which credential had which summary."""


@dataclass
class Stage:
    """A route of its name leads to the API with each case's credential, but for `busy`."""

    cast: Cast
    server: OidcServer
    bearward: Bearward
    load: asyncio.Task[Outcomes]

    async def call(self, name: str) -> Answer:
        """A call with one case's credential."""
        return await self.bearward.get(f"/{name}")

    async def asked(self, name: str) -> list[Asked]:
        """The token requests of one case so far."""
        return (await self.server.record()).asked(name)


@asynccontextmanager
async def stage_in(folder: Path) -> AsyncIterator[Stage]:
    """Server and product, started."""
    cast = Cast(folder)
    names = [name for name in cast.cases if name != "busy"]
    async with OidcServer(cast.setup(), folder) as server:
        async with Bearward(cast.config(server, *names), folder, name="oidc") as bearward:
            load = asyncio.create_task(_load(bearward))
            yield Stage(cast, server, bearward, load)
            load.cancel()
            await asyncio.wait([load])
        (await server.record()).register_secrets()


async def _load(bearward: Bearward) -> Outcomes:
    """Several clients call at the same time, for many lives of a token."""
    outcomes: Outcomes = Counter()
    end = time.monotonic() + LOAD_SECONDS

    async def client(number: int) -> None:
        for name in itertools.islice(itertools.cycle(LOADED), number, None):
            if time.monotonic() > end:
                return
            outcomes[name, *(await bearward.get(f"/{name}")).summary] += 1
            await asyncio.sleep(_PAUSE)

    await asyncio.gather(*map(client, range(_CLIENTS)))
    return outcomes
