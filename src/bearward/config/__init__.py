"""What the operator wrote: YAML with positions, presets, a model, and every fault of a file in one report.

In: a path. Out: `Settings`, values of the two domains, all checked. Nothing here does network I/O.
"""

from pathlib import Path

from .diagnostics import ConfigError as ConfigError
from .settings import Settings as Settings


def load(path: Path) -> Settings:
    """Read and check a config. Raises `ConfigError` with all faults of the file."""
    from .loading import read_config  # its libraries take much memory: who goes on serving uses `apart`

    return read_config(path)
