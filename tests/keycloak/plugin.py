"""The fixture of all modules that say `pytest_plugins = ["keycloak.plugin"]`."""

import os
from collections.abc import Iterator

import pytest

from .process import Process, why_missing
from .server import KEYCLOAK


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`KEYCLOAK` is there from the first test that wants it to the end of the run."""
    if reason := why_missing():
        pytest.skip(reason)
    mine = tmp_path_factory.getbasetemp()
    process = Process(mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine)
    KEYCLOAK.port = process.hold()
    yield
    process.release()
