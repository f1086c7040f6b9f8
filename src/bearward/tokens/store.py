"""What a restart goes on with: tokens and refresh tokens by opaque keys, and when they are written to their file.

No caller waits for the disk unless it asks to, and none meets an error of it. What goes wrong is observed once, and
what could not be written is written when it can be.
"""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Final, Protocol

from .. import clock, events
from ..errors import os_reason
from .store_file import Entry, Kept, StoreFile, UnusableError

LOCK_WAIT: Final = 1.0
"""For how long the start waits for another process to let go of the file, in seconds.

Enough for one that was just killed or is at its very end, and nothing listens yet. One that still drains is not waited
for: its tokens go on changing until its end, and nothing is read without the lock.
"""
REST: Final = 19.0
"""How many times the duration of a write passes until the next: writing takes a twentieth of the time at most."""
LEAST_RETRY: Final = 0.25
"""What passes after a write that failed, in seconds, whatever changes or is waited for."""
RETRY: Final = 15.0
"""After how many seconds a write that failed is tried again where nothing changes."""


class Store(Protocol):
    """Entries by key. Nothing here raises for what is wrong with the place where they are kept."""

    def open(self) -> None:
        """Reads what is there; what is wrong with it is observed (`StoreIgnored`)."""

    def get(self, key: str) -> Entry | None:
        """A copy of the entry, unless its time is over."""

    def put(self, key: str, entry: Entry, keep_until: float) -> None:
        """Keeps `entry` until `keep_until` (Unix seconds, may be infinite), in place of the one of this key."""

    def remove(self, key: str) -> None:
        """Forgets the entry, if there is one."""

    async def flush(self) -> bool:
        """Waits until all changes so far are on disk, or the next attempt to write them failed; whether they are."""

    async def close(self) -> None:
        """Writes what is not written yet, and lets go of the place."""


class FileStore(Store):
    """The store in a file of one process, for use in one event loop.

    There can be one for a path at a time, within a process too. Before it is opened, after it is closed, and where its
    file cannot be used, entries are in memory only and `flush` says False.
    """

    def __init__(self, path: Path, observe: events.Observer) -> None:
        self._path = path
        self._file = StoreFile(path)
        self._observe = observe
        self._entries: dict[str, Kept] = {}
        self._is_on_disk = False
        self._changes = 0
        self._tried = 0
        """How many of the changes were part of the last attempt to write."""
        self._saved = 0
        """How many of them are on disk."""
        self._is_failing = False
        self._is_told_full = False
        self._writer: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        """The end of the next attempt; each has one of its own."""
        self._stirred = asyncio.Event()
        """Something changed, or is waited for."""
        self._closing = asyncio.Event()

    def open(self) -> None:
        """Locks and reads the file; may block for `LOCK_WAIT`."""
        try:
            self._entries, fault = self._file.open(LOCK_WAIT)
        except UnusableError as error:
            self._give_up(str(error))
            return
        except OSError as error:
            self._give_up(f"cannot be used ({os_reason(error)}); it and {self._path}.lock must be bearward's own")
            return
        self._is_on_disk = True
        self._drop_expired()
        if fault is not None:
            self._observe(events.StoreIgnored(f"{self._path} {fault}"))

    def get(self, key: str) -> Entry | None:
        kept = self._entries.get(key)
        return kept.entry() if kept is not None and kept.keep_until > time.time() else None

    def put(self, key: str, entry: Entry, keep_until: float) -> None:
        self._entries[key] = Kept.of(key, entry, keep_until)
        self._change()

    def remove(self, key: str) -> None:
        if self._entries.pop(key, None) is not None:
            self._change()

    async def flush(self) -> bool:
        """Entries that the file has no room for (`StoreFull`) count as written."""
        wanted = self._changes
        if self._is_on_disk and self._saved < wanted:
            self._stir()
            is_answered = False
            while not is_answered:
                await self._ended.wait()
                is_answered = self._tried >= wanted or not self._is_on_disk
        return self._is_on_disk and self._saved >= wanted

    async def close(self) -> None:
        """Writes without waiting for its turn, and with one attempt."""
        self._closing.set()
        self._stirred.set()
        while self._writer is not None:
            await asyncio.wait([self._writer])  # who cancels this does not cancel the writer
        self._is_on_disk = False
        self._file.close()

    def _change(self) -> None:
        self._changes += 1
        if self._is_on_disk:
            self._stir()
        else:
            self._drop_expired()

    def _stir(self) -> None:
        self._stirred.set()
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="token store")

    async def _write(self) -> None:
        """Writes while something is unwritten; what changes meanwhile goes into the next file."""
        try:
            while self._is_on_disk and self._saved < self._changes:
                self._stirred.clear()
                began = clock.now()
                await self._attempt()
                if self._closing.is_set() and self._tried == self._changes:
                    break
                rest = min(max(REST * (clock.now() - began), LEAST_RETRY if self._is_failing else 0.0), RETRY)
                await _wait(self._closing, rest)
                if self._is_failing:
                    await _wait(self._stirred, RETRY - rest)
        finally:
            self._writer = None

    async def _attempt(self) -> None:
        self._drop_expired()
        changes, kept = self._changes, list(self._entries.values())
        try:
            left_out = await asyncio.to_thread(self._file.write, kept)
        except UnusableError as error:
            self._give_up(str(error))
        except Exception as error:
            self._failed(os_reason(error) if isinstance(error, OSError) else events.place_of(error))
        else:
            self._saved = changes
            self._succeeded(left_out)
        self._tried = changes
        self._ended.set()
        self._ended = asyncio.Event()

    def _failed(self, reason: str) -> None:
        if not self._is_failing:
            self._observe(events.StoreFailed(f"{self._path} cannot be written: {reason}"))
        self._is_failing = True

    def _succeeded(self, left_out: int) -> None:
        if self._is_failing:
            self._observe(events.StoreRecovered(str(self._path)))
        self._is_failing = False
        if left_out and not self._is_told_full:
            self._observe(events.StoreFull(str(self._path), left_out))
            self._is_told_full = True

    def _give_up(self, reason: str) -> None:
        self._is_on_disk = False
        self._file.close()
        self._observe(events.StoreIgnored(f"{self._path} {reason}. Until the next start nothing is kept on disk"))

    def _drop_expired(self) -> None:
        now = time.time()
        for key in [key for key, kept in self._entries.items() if kept.keep_until <= now]:
            del self._entries[key]


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event, `seconds` at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
