"""Keycloak's process, one for all workers of a run: the first that wants it starts it, and it ends after the last."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from ports import free_port

_INSTALLED = Path(os.environ.get("BEARWARD_SERVERS") or "~/.cache/bearward-servers").expanduser() / "keycloak"
_CLASSES = _INSTALLED / "classes.jsa"
_DATABASE = "keycloakdb.mv.db"
# Small, and quick to start rather than quick in the long run.
_JAVA_OPTS = f"-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:SharedArchiveFile={_CLASSES}"
# It ends when nobody has the named pipe open for writing any more, however those who had it ended.
_WHILE_HELD = '{ "$@" & read -r _ <"$PIPE"; kill $!; } &'
_START_TIMEOUT = 120.0
_POLL = 0.05


def why_missing() -> str | None:
    """What stands in the way of a start, for whoever skips a test over it."""
    if shutil.which("java") is None:
        return "needs Java"
    return None if _CLASSES.exists() else f"Keycloak is not in {_INSTALLED}: install it with `make servers`"


class Process:
    """Lives between the first worker's `hold` and the last one's `release`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        """The same one for every worker."""
        self._pipe: int | None = None

    def hold(self) -> int:
        """The port at which it answers."""
        with (self._folder / "keycloak.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            running = self._folder / "keycloak.json"
            try:
                port, pipe = json.loads(running.read_text())
                self._pipe = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # there is none yet, or it was released by all
                port, pipe = self._start(Path(tempfile.mkdtemp(prefix="keycloak-", dir=self._folder)))
                running.write_text(json.dumps((port, pipe)))
            return port

    def release(self) -> None:
        """It is not wanted here any more."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def _start(self, folder: Path) -> tuple[int, str]:
        shutil.copy(_INSTALLED / "data" / "h2" / _DATABASE, folder)
        port, database, pipe = free_port(), folder / _DATABASE.removesuffix(".mv.db"), folder / "pipe"
        os.mkfifo(pipe)
        with (folder / "log").open("wb") as log:
            subprocess.run(
                [
                    *("sh", "-c", _WHILE_HELD, "sh", _INSTALLED / "bin" / "kc.sh", "start", "--optimized"),
                    *(f"--http-port={port}", f"--db-url=jdbc:h2:file:{database};NON_KEYWORDS=VALUE"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"JAVA_OPTS": _JAVA_OPTS, "PIPE": str(pipe)},
                check=True,
            )
        self._pipe = os.open(pipe, os.O_WRONLY)
        until = time.monotonic() + _START_TIMEOUT
        while not _answers(port):
            if time.monotonic() > until:
                self.release()
                raise AssertionError(f"Keycloak did not start:\n{(folder / 'log').read_text()[-4000:]}")
            time.sleep(_POLL)
        return port, str(pipe)


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/auth/realms/master"):
            return True
    except URLError:
        return False
