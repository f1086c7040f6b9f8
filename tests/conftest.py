"""What holds for a whole run of the tests: one folder of evidence, enough file descriptors, the leak test last."""

import resource
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from xdist.scheduler import LoadFileScheduling

import workers
from evidence import EVIDENCE
from rawproxy import RawProxy, raw_proxy

_DESCRIPTORS = 8192
# Files whose names begin so share a server, which is started once in a run.
_SHARING = ("test_keycloak",)


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """`-n auto`: one worker more than there are cores, as much of what they do is to wait."""
    return (yield) + 1


class _Scheduling(LoadFileScheduling):
    """A file is run by one worker, and so are those that share a server."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return next((start for start in _SHARING if Path(file).name.startswith(start)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling | None:
    """In place of `--dist loadfile`."""
    return _Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def evidence_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where every process that this worker starts leaves what it writes."""
    EVIDENCE.folder = tmp_path_factory.mktemp("evidence")


def _shared(config: pytest.Config) -> Path:
    """The folder of a run with workers; each of them has one of its own in there."""
    return Path(config.getoption("basetemp")).parent


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """By now the last fixture has ended what it started."""
    if workers.COUNT > 1:
        EVIDENCE.hand_over(_shared(session.config))


@pytest.fixture
def whole_run(pytestconfig: pytest.Config) -> None:
    """For the test that judges: all others have ended, in this worker and in the other ones."""
    if workers.COUNT > 1:
        EVIDENCE.take_over(_shared(pytestconfig))


@pytest.fixture(scope="session", autouse=True)
def file_descriptors() -> None:
    """A thousand clients and their vendor live in the one process of the tests."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _DESCRIPTORS:
        wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The leak test reads what all the others made the product write."""
    items.sort(
        key=lambda item: (
            item.path.name == "test_zz_leaks.py",
            item.get_closest_marker("late") is not None,
            item.get_closest_marker("first") is None,
        )
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RawProxy]:
    """One product between raw sockets for a whole module."""
    async with raw_proxy(tmp_path_factory.mktemp("raw")) as proxy:
        yield proxy


@pytest.fixture
def proxy(module_proxy: RawProxy) -> RawProxy:
    """The module's product, before an upstream that has seen nothing and answers 200."""
    module_proxy.upstream.reset()
    return module_proxy
