"""Our end of a connection, the client's or the upstream's."""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from . import strict


class End(asyncio.Protocol):
    """Our end of one connection: all that came, and whether the other side has ended it."""

    def __init__(self, notice: Callable[[], None], opened: "Callable[[End], None] | None" = None) -> None:
        self._notice = notice
        self._opened = opened
        self.received = b""
        self.ending: strict.Ending = "open"
        self.is_finished = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._opened is not None:
            self._opened(self)
        self._notice()

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._notice()

    def eof_received(self) -> bool:
        self.ending = "closed"
        self._notice()
        return True  # what is still to be sent is our own affair

    def connection_lost(self, error: Exception | None) -> None:
        if self.ending == "open":
            self.ending = "reset"
        self._notice()

    @property
    def is_open(self) -> bool:
        return self.ending == "open"

    def write(self, data: bytes) -> None:
        """Send `data`, where anyone still listens."""
        if not self.is_finished and not self.transport.is_closing():
            self.transport.write(data)

    def finish(self, how: str) -> None:
        """`half-close`, `close` or `reset`."""
        if self.transport.is_closing() or (self.is_finished and how == "half-close"):
            return
        self.is_finished = True
        match how:
            case "half-close":
                with suppress(OSError):  # the other side may have reset it just now
                    self.transport.write_eof()
            case "close":
                self.transport.close()
            case "reset":
                linger = struct.pack("ii", 1, 0)
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.transport.abort()
