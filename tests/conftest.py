"""What holds for a whole run of the tests: one folder of evidence, enough file descriptors, the leak test last."""

import resource
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from evidence import EVIDENCE
from rawproxy import RawProxy, raw_proxy

_DESCRIPTORS = 8192


@pytest.fixture(scope="session", autouse=True)
def evidence_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where every process of the run leaves what it writes."""
    EVIDENCE.folder = tmp_path_factory.mktemp("evidence")


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
