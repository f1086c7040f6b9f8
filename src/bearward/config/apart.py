"""Reads a config in a process of its own, which takes with it the memory that reading needs and serving does not.

The model's library alone is a quarter of what a running bearward would hold.
"""

import pickle
import subprocess
import sys
from pathlib import Path

from ..secret import SecretPickler
from .diagnostics import ConfigError
from .settings import Settings


def load_apart(path: Path) -> Settings:
    """What `load` does, in another process. Raises `ConfigError` as it does, and `OSError` where there is none."""
    command = [sys.executable, "-m", __name__, str(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)  # noqa: S603 - ours
    if done.returncode != 0:
        raise OSError(f"the process that reads the config ended with status {done.returncode}")
    read = pickle.loads(done.stdout)  # noqa: S301 - our own process wrote it
    if isinstance(read, Settings):
        return read
    raise ConfigError(read)


def _main() -> None:
    from .loading import read_config

    try:
        read: object = read_config(Path(sys.argv[1]))
    except ConfigError as error:
        read = error.faults
    SecretPickler(sys.stdout.buffer).dump(read)


if __name__ == "__main__":
    _main()
