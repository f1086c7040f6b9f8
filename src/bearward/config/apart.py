"""Reads a config in a process of its own, which takes with it the memory that reading needs and serving does not.

The model's library alone is a quarter of what a running bearward would hold.
"""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

from ..secret import SecretPickler
from .diagnostics import ConfigError
from .settings import Settings


class Reading:
    """A config that is being read; the time until it is needed can be used for something else."""

    def __init__(self, path: Path) -> None:
        # `-P`: the current folder is no place to import from; `PYTHONPATH`: the same bearward as this one.
        command = [sys.executable, "-P", "-m", __name__, str(path)]
        packages = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(  # noqa: S603 - ours
            command,
            env=os.environ | {"PYTHONPATH": packages},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent
        )

    def settings(self) -> Settings:
        """What `load` returns. Raises `ConfigError` as it does, and `OSError` where its process failed."""
        output, _ = self._process.communicate()
        if self._process.returncode != 0:
            raise OSError(f"the process that reads the config ended with status {self._process.returncode}")
        read = pickle.loads(output)  # noqa: S301 - our own process wrote it
        if isinstance(read, Settings):
            return read
        raise ConfigError(read)

    def end(self) -> None:
        """Ends the reading, if it has not ended: nobody waits for it any more."""
        if self._process.poll() is None:
            self._process.kill()


def _main() -> None:
    from .loading import read_config

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody waits for it any more: end without a word
    try:
        read: object = read_config(Path(sys.argv[1]))
    except ConfigError as error:
        read = error.faults
    SecretPickler(sys.stdout.buffer).dump(read)


if __name__ == "__main__":
    _main()
