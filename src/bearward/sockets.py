"""Listening sockets: TCP, or a unix socket that only its owner can reach."""

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Final

from .address import Address
from .errors import os_reason

BACKLOG: Final = 4096


class BindError(Exception):
    """A listening address cannot be had. Its text says which one and why."""


def bind(address: Address, ends: contextlib.AsyncExitStack) -> socket.socket:
    """A listening socket, undone by `ends`. Raises `BindError`."""
    try:
        if address.path is not None:
            return _bind_unix(Path(address.path), ends)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listening = socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise BindError(f"cannot listen on {address}: {os_reason(error)}") from None
    ends.callback(listening.close)
    return listening


def bound(address: Address, listening: socket.socket) -> Address:
    """The address with the port that the system chose, where it was left open."""
    return address if address.path is not None else Address(address.host, listening.getsockname()[1])


def _bind_unix(path: Path, ends: contextlib.AsyncExitStack) -> socket.socket:
    """A unix socket of mode 0600; one that a dead process left behind is replaced."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
            path.unlink()
    listening = socket.socket(socket.AF_UNIX)
    ends.callback(listening.close)
    umask = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(umask)
    ends.callback(_unlink, path, _identity(path))
    return listening


def _unlink(path: Path, own: tuple[int, int] | None) -> None:
    """Removes the socket, unless a successor has put its own there."""
    if _identity(path) == own:
        path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
