"""`bearward demo --once` over two real token lifetimes: begun by the first test, judged after all others."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evidence import EVIDENCE

TIMEOUT = 90.0


@dataclass
class Play:
    """The running command, since when, and the folder that has what it writes."""

    process: subprocess.Popen[bytes]
    since: float
    output: Path


@pytest.fixture(scope="session")
def play(evidence_folder: None) -> Iterator[Play]:
    output = EVIDENCE.open_folder("demo-once")
    command = [sys.executable, "-m", "bearward", "demo", "--once"]
    with (output / "stdout").open("wb") as out, (output / "stderr").open("wb") as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    yield Play(process, time.monotonic(), output)
    process.kill()
    process.wait()


@pytest.mark.first
def test_it_begins(play: Play) -> None:
    assert play.process.poll() is None


@pytest.mark.late
def test_it_succeeds(play: Play) -> None:
    code = play.process.wait(TIMEOUT)
    stdout, stderr = (play.output / "stdout").read_text(), (play.output / "stderr").read_text()
    assert code == 0, stdout + stderr
    assert "Traceback" not in stdout + stderr
    assert time.monotonic() - play.since > 40
    rows = [line.split() for line in stdout.splitlines() if line.startswith(("eu8 ", "us5 "))]
    assert [row[0] for row in rows] == ["eu8", "us5"]
    for _, calls, failed, refused, refreshes, tokens, *_ in rows:
        assert int(calls) > 100
        assert (failed, refused) == ("0", "0")
        assert int(refreshes) >= 2
        assert int(tokens) >= 3
