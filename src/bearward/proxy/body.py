"""A request's body on its way: streamed once, and kept while it is small, so that it can be sent a second time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import StreamReader

KEEP_BYTES: Final = 64 << 10


class RequestBody:
    """The bytes of one request's body."""

    def __init__(self, content: StreamReader, *, is_chunked: bool) -> None:
        self._content = content
        self.is_chunked = is_chunked
        self._kept = bytearray()
        self.size = 0
        """How many bytes came from the client."""

    @property
    def is_repeatable(self) -> bool:
        """Whether everything that was sent so far is still at hand."""
        return self.size == len(self._kept)

    def at_once(self) -> bytes | None:
        """The body from its first byte, where all of it is here and its length was told; else None."""
        if self.is_chunked or not self._content.is_eof() or not self.is_repeatable:
            return None
        kept, arrived = bytes(self._kept), self._content.read_nowait()
        self._note(arrived)
        return kept + arrived

    async def chunks(self, idle_timeout: float) -> AsyncIterator[bytes]:
        """The body from its first byte, as far as it is repeatable; then the rest as it comes.

        Raises `TimeoutError` where nothing comes for `idle_timeout` seconds.
        """
        if not self.is_repeatable:
            raise ValueError("the start of this body is no longer at hand")
        if self._kept:
            yield bytes(self._kept)
        while True:
            async with asyncio.timeout(idle_timeout):
                chunk = await self._content.readany()
            if not chunk:
                return
            self._note(chunk)
            yield chunk

    def _note(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size <= KEEP_BYTES:
            self._kept += chunk
        else:
            self._kept.clear()
