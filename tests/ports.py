"""Ports for listeners whose number must be known before they listen."""

import itertools
import os
import socket
from collections.abc import Iterator

import workers

# Below the range from which the kernel takes the local ports of outgoing connections: a port found free here
# is not taken by a connection before its listener opens.
_FIRST, _COUNT = 20_000, 12_000
# Nor by another worker of this run: each has a share of its own, which also keeps free what shall stay without a
# listener. Within it every process begins elsewhere, for the sake of another run at the same time.
_SHARE = _COUNT // workers.COUNT


def _candidates() -> Iterator[int]:
    for offset in itertools.count(os.getpid() * 97):
        yield _FIRST + workers.INDEX * _SHARE + offset % _SHARE


_untried = _candidates()


def free_port() -> int:
    """A loopback port on which nothing listens, and which this process has not given out lately."""
    for port in _untried:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("unreachable: the candidates never end")
