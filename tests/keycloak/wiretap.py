"""A TCP relay that reads what passes it: refresh tokens, and that a token is used."""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from evidence import SECRETS

_REFRESH_TOKEN = re.compile(rb'"refresh_token":"([^"]+)"')
_CALL = b" /auth/admin/"
_PIECE = 1 << 16


class Wiretap:
    """Between a client and a server on this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.refresh_tokens: list[str] = []
        self.lets_pass = asyncio.Event()
        """While it is clear, answers with refresh tokens are held."""
        self.lets_pass.set()
        self.when_used: Callable[[], None] = lambda: None
        """Is called before a call of the admin API goes on."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1")
        self.origin = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink in ((reader, to_there), (there, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await source.read(_PIECE):
                if _CALL in piece:
                    self.when_used()
                if tokens := _REFRESH_TOKEN.findall(piece):
                    self.refresh_tokens += [SECRETS.add(token.decode(), "refresh token") for token in tokens]
                    await self.lets_pass.wait()
                sink.write(piece)
                await sink.drain()
        sink.close()
