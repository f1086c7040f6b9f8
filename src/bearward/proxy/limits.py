"""How much the data port takes on. Pure."""

from dataclasses import dataclass, replace
from typing import Final

RESERVED: Final = 64
"""Descriptors that are kept for all else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the data port; times in seconds, sizes in bytes."""

    connections: int = 1024
    """Clients' connections at a time."""
    upstream_connections: int = 256
    """Connections at a time to one upstream."""
    header_timeout: float = 10.0
    """Within this a request's head must be complete."""
    header_bytes: int = 64 << 10
    """The most that a head may have, a request's as well as an upstream's answer's."""
    drain_timeout: float = 30.0
    """For how long a stop waits for what is in flight."""

    def fitting(self, descriptors: int) -> "Limits":
        """These limits, with no more connections than a process that may open so many files can serve.

        Each request needs one to its client and one to its upstream; some are kept for token requests and probes.
        """
        return replace(self, connections=max(1, min(self.connections, (descriptors - RESERVED) // 2)))
