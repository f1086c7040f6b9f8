"""Which of the processes that share a run this is; without pytest-xdist, the only one."""

import os

COUNT = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
INDEX = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
