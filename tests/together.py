"""Slow scenarios of one module, run at the same time so that their waiting overlaps."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

Scenario = Callable[[Path], Awaitable[None]]


class Together:
    """A decorator: each scenario becomes a test of its own, and the first of them to run lets all of them run.

    A scenario is given a folder of its own and takes no fixtures. All have ended when the first test does: between two
    tests the loop stands still, however long a failure's report takes, and what goes on outside of it does not.
    """

    def __init__(self) -> None:
        self._scenarios: list[Scenario] = []
        self._tasks: dict[Scenario, asyncio.Task[None]] = {}

    def __call__(self, scenario: Scenario) -> Callable[..., Awaitable[None]]:
        async def test(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
            if not self._tasks:
                self._start(request, tmp_path_factory)
                await asyncio.wait(self._tasks.values())
            await self._tasks[scenario]

        test.__name__ = scenario.__name__
        test.__qualname__ = scenario.__qualname__
        test.__module__ = scenario.__module__
        test.__doc__ = scenario.__doc__
        self._scenarios.append(scenario)
        return pytest.mark.asyncio(loop_scope="module")(test)

    def _start(self, request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> None:
        """Start the scenarios of this module that are among the tests of this run."""
        selected = {item.name for item in request.session.items if item.path == request.path}
        for scenario in self._scenarios:
            if scenario.__name__ in selected:
                self._tasks[scenario] = asyncio.ensure_future(scenario(folders.mktemp(scenario.__name__)))
