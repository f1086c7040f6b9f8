"""The token store's file: who may use it, what it looks like, and how it is replaced.

It is only ever replaced as a whole, by a file that is on disk already: a process killed at any moment leaves the old
content or the new. It has mode 0600 from its birth. What is found in its place and is no damaged store of ours is left
alone. No text of an error holds content.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Collection, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

from .. import clock

MAX_BYTES: Final = 64 << 20
"""Of the file; more is neither read nor written."""
_LOCK_POLL: Final = 0.05
_END_OF_TIME: Final = 253402300799.0
"""The last second of the year 9999: infinity is no number of JSON (RFC 8259 §6)."""
_MAGIC: Final = b'{"format": "bearward-token-store"'
_HEAD: Final = _MAGIC + b', "version": 1, "entries": {\n'
_SEPARATOR: Final = b",\n"
_TAIL: Final = b"\n}}\n"

Entry = Mapping[str, Any]
"""JSON values; the texts among them are secret."""


class UnusableError(Exception):
    """The file is not ours to use. The text continues a sentence that begins with its path, and says what to do."""


class Kept(NamedTuple):
    """An entry as text: small, quickly copied, and safe from changes while a thread writes it."""

    keep_until: float
    """Unix seconds."""
    line: bytes
    """As it stands in the file, without the comma."""

    @classmethod
    def of(cls, key: str, entry: Entry, keep_until: float) -> "Kept":
        keep_until = min(float(keep_until), _END_OF_TIME)
        text = json.dumps({key: {"keep_until": keep_until, "entry": entry}})
        return cls(keep_until, text[1:-1].encode("ascii"))

    def entry(self) -> Entry:
        (value,) = json.loads(b"{%b}" % self.line).values()
        entry: Entry = value["entry"]
        return entry


class StoreFile:
    """The file, locked from `open` to `close` by flock(2) on `PATH.lock`.

    The lock's file is never removed, so that all who come lock the same one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_path = Path(f"{path}.lock")
        self._lock: int | None = None
        """A descriptor."""

    def open(self, wait: float) -> tuple[dict[str, Kept], str | None]:
        """The entries, and what of them is damaged. Waits `wait` seconds for the lock.

        Raises `UnusableError`, and `OSError` where the system says no.
        """
        if not self._path.parent.is_dir():
            raise UnusableError("has no folder to be in; create it")
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise UnusableError("is in a folder that bearward cannot write to, as each change of it needs; allow that")
        self._check_kind()
        self._hold(wait)
        self._remove_leftovers()
        try:
            return self._read()
        except FileNotFoundError:
            return {}, None

    def write(self, kept: Collection[Kept]) -> int:
        """Puts a new file in the place of the old one; how many of the entries it has no room for.

        It is on disk when this returns. Meant for a thread. Raises as `open` does.
        """
        self._hold()
        self._check_kind()
        fitting = _fitting(kept)
        new = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}.tmp")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", 1 << 20) as file:  # noqa: PTH123 - a descriptor
                os.fchmod(descriptor, 0o600)  # the umask may have taken too much
                file.write(_HEAD)
                file.writelines(_SEPARATOR + each.line if at else each.line for at, each in enumerate(fitting))
                file.write(_TAIL)
                file.flush()
                os.fsync(descriptor)
            new.rename(self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        _sync_folder(self._path.parent)
        return len(kept) - len(fitting)

    def close(self) -> None:
        """Lets go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _hold(self, wait: float = 0.0) -> None:
        """Takes the lock, also again where its file is gone. Raises as `open` does."""
        with contextlib.suppress(FileNotFoundError):
            if self._lock is not None and os.path.samestat(os.fstat(self._lock), self._lock_path.lstat()):
                return
        self.close()
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._lock = os.open(self._lock_path, flags, 0o600)
            os.fchmod(self._lock, 0o600)
            _lock(self._lock, clock.now() + wait)
        except OSError as error:
            self.close()
            if error.errno == errno.ELOOP:
                raise UnusableError(f"cannot be locked: {self._lock_path} is a symbolic link; remove it") from None
            if isinstance(error, BlockingIOError):
                raise UnusableError("is used by another process; give each a file of its own") from None
            raise

    def _check_kind(self) -> None:
        """A symbolic link, a device or the like is neither read nor replaced."""
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISLNK(mode := self._path.lstat().st_mode):
                raise UnusableError("is a symbolic link, and those are not followed; name the file that it leads to")
            if not stat.S_ISREG(mode):
                raise UnusableError("is not a regular file; name another path")

    def _read(self) -> tuple[dict[str, Kept], str | None]:
        """What `open` returns, if nobody else can have written it: tokens of others would be used as ours."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid():
                raise UnusableError(f"belongs to user {status.st_uid}, not to user {os.geteuid()}; give it to that one")
            if status.st_mode & 0o022:
                raise UnusableError(f"can be written by others (mode {stat.S_IMODE(status.st_mode):04o}); chmod 600 it")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise UnusableError(f"is larger than {MAX_BYTES >> 20} MiB, as no token store is; name another path")
            read = _parsed(content)
            os.fchmod(descriptor, 0o600)
            return read
        finally:
            os.close(descriptor)

    def _remove_leftovers(self) -> None:
        """The new files of processes that were killed as they wrote; the lock says that none is being written."""
        pattern = re.compile(rf"\.{re.escape(self._path.name)}\.[0-9a-f]{{16}}\.tmp")
        with contextlib.suppress(OSError):
            for each in self._path.parent.iterdir():
                if pattern.fullmatch(each.name):
                    status = each.lstat()
                    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                        each.unlink()


def _lock(descriptor: int, until: float) -> None:
    """Raises `BlockingIOError` where another has the lock at `until` (seconds of `clock.now()`)."""
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock.now() >= until:
                raise
        time.sleep(_LOCK_POLL)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems of networks and containers cannot
            raise
    finally:
        os.close(descriptor)


def _fitting(kept: Collection[Kept]) -> list[Kept]:
    """What a file has room for: where not for all, then without those that expire first."""
    by_expiry = sorted(kept, key=lambda each: each.keep_until, reverse=True)
    sizes = accumulate(len(each.line) + len(_SEPARATOR) for each in by_expiry)
    room = MAX_BYTES - len(_HEAD) - len(_TAIL)
    return [each for each, size in zip(by_expiry, sizes, strict=True) if size <= room]


def _parsed(content: bytes) -> tuple[dict[str, Kept], str | None]:
    """The entries, and what of them is damaged. Raises `UnusableError` for what is no token store."""
    if not content:
        return {}, "is empty: no tokens are taken from it"
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        if content[: len(_MAGIC)] == _MAGIC[: len(content)]:
            return {}, "is damaged: no tokens are taken from it, and it will be replaced"
        document = None
    match document:
        case {"format": "bearward-token-store", "version": 1, "entries": dict() as entries}:
            found = {key: kept for key, value in entries.items() if (kept := _entry(key, value)) is not None}
            damaged = len(entries) - len(found)
            return found, f"is damaged: {damaged} of its {len(entries)} entries are left out" if damaged else None
        case {"format": "bearward-token-store", "version": 1}:
            return {}, "is damaged: no tokens are taken from it, and it will be replaced"
        case {"format": "bearward-token-store"}:
            raise UnusableError("is a token store of another version, and left alone; name another path or remove it")
        case _:
            raise UnusableError("is no token store, and left alone; name another path")


def _entry(key: str, value: object) -> Kept | None:
    match value:
        case {"keep_until": float() | int() as keep_until, "entry": dict() as entry}:
            with contextlib.suppress(OverflowError, RecursionError):
                return Kept.of(key, entry, keep_until) if math.isfinite(keep_until) else None
    return None
