"""The token store's file: what survives a restart, a kill and a full disk, and what is never touched."""

import asyncio
import contextlib
import fcntl
import json
import math
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from bearward import events
from bearward.tokens import store, store_file
from bearward.tokens.store import FileStore
from together import Together

together = Together()
SECRET = "never-to-be-told"
HOUR = 3600.0
LEFTOVER = ".tokens.0123456789abcdef.tmp"


class Observed:
    """What an opened store said; `async with` it closes the store."""

    def __init__(self, path: Path) -> None:
        self.heard: list[events.Event] = []
        self.store = FileStore(path, self.heard.append)

    async def __aenter__(self) -> "Observed":
        self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    def put(self, key: str, value: object, lifetime: float = HOUR) -> None:
        self.store.put(key, {"value": value}, time.time() + lifetime)

    def get(self, key: str) -> Any:
        entry = self.store.get(key)
        return entry and entry["value"]

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.heard]

    @property
    def ignored(self) -> list[str]:
        """The reasons for which something was ignored."""
        return [event.reason for event in self.heard if isinstance(event, events.StoreIgnored)]


async def restarted(path: Path, *keys: str) -> list[Any]:
    """The values that a new process would find, and that it has nothing to complain of."""
    async with Observed(path) as found:
        assert found.heard == []
        return [found.get(key) for key in keys]


async def output_of(*command: str | Path) -> bytes:
    """What a process wrote that ended well."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0
    return output


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


@pytest.fixture
def written(path: Path) -> bytes:
    """The content of a file with the entry `a`, which is there."""
    return write_store(path)


def write_store(path: Path) -> bytes:
    path.write_text(json.dumps(document(a={"keep_until": time.time() + HOUR, "entry": {"value": SECRET}})))
    path.chmod(0o600)
    return path.read_bytes()


def document(**entries: object) -> dict[str, object]:
    return {"format": "bearward-token-store", "version": 1, "entries": entries}


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_restart_finds_what_was_put(path: Path) -> None:
    value = {"token": SECRET, "list": [1, 2.5, None, True], "odd": 'ü"\\\n\ud800'}
    async with Observed(path) as first:
        assert first.get("a") is None
        first.store.put("a", value, math.inf)
        first.put("b", "replaced")
        first.put("b", "newer")
        first.put("c", "removed")
        first.store.remove("c")
        first.store.remove("never there")
        assert first.store.get("a") == value
        assert await first.store.flush()
        assert first.heard == []
    async with Observed(path) as second:
        assert second.store.get("a") == value
        assert [second.get(key) for key in "bc"] == ["newer", None]
        assert second.heard == []
    json.loads(path.read_bytes(), parse_constant=pytest.fail)  # no Infinity: it is JSON as others read it


async def test_what_changes_after_a_put_or_a_get_changes_no_entry(path: Path) -> None:
    async with Observed(path) as kept:
        value = {"list": [1]}
        kept.store.put("a", value, math.inf)
        value["list"].append(2)
        (kept.store.get("a") or {})["list"].append(3)
        assert kept.store.get("a") == {"list": [1]}


async def test_what_is_expired_is_neither_given_nor_written(path: Path) -> None:
    async with Observed(path) as kept:
        kept.put("short", SECRET, lifetime=0.3)
        kept.put("long", "x")
        assert await kept.store.flush()
        file = path.read_bytes()
        await asyncio.sleep(0.3)
        assert kept.get("short") is None
        kept.put("another", "y")
        assert await kept.store.flush()
        assert SECRET.encode() not in path.read_bytes()
    path.write_bytes(file)
    async with Observed(path) as kept:
        assert [kept.get(key) for key in ("short", "long")] == [None, "x"]
        kept.put("another", "y")
        assert await kept.store.flush()
        assert SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize("umask", [0o000, 0o777])
async def test_the_mode_is_0600_whatever_the_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with Observed(path) as kept:
            kept.put("a", SECRET)
            assert await kept.store.flush()
    finally:
        os.umask(before)
    assert {each.name: mode(each) for each in path.parent.iterdir()} == {"tokens": 0o600, "tokens.lock": 0o600}


async def test_a_file_that_others_could_read_is_theirs_no_more(path: Path, written: bytes) -> None:
    path.chmod(0o644)
    assert await restarted(path, "a") == [SECRET]
    assert (path.read_bytes(), mode(path)) == (written, 0o600)


async def test_ten_thousand_entries(path: Path) -> None:
    keys = [f"{number:064x}" for number in range(10_000)]
    async with Observed(path) as kept:
        for key in keys:
            kept.put(key, key * 48)
        assert await kept.store.flush()
    assert path.stat().st_size > 30_000_000
    assert await restarted(path, *keys) == [key * 48 for key in keys]


async def test_entries_without_room_are_those_that_expire_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_file, "MAX_BYTES", 2000)
    async with Observed(path) as kept:
        for number in (3, 1, 5, 2, 4):
            kept.put(str(number), "x" * 500, lifetime=HOUR * number)
            assert await kept.store.flush()
        assert [kept.get(key) for key in "12345"] == ["x" * 500] * 5, "in memory there is room"
        assert kept.heard == [events.StoreFull(str(path), 1)]
    assert path.stat().st_size <= 2000
    assert await restarted(path, *"12345") == [None, None, *["x" * 500] * 3]


# ── when it is written ───────────────────────────────────────────────────────────────────────────────────────


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


class Disk:
    """Counts the writings, makes them slow or fail, and lets none overlap."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        self.error: Exception | None = None
        self.begun = self.ended = 0
        write = store_file.StoreFile.write

        def slow(file: store_file.StoreFile, kept: Collection[store_file.Kept]) -> int:
            assert self.begun == self.ended
            self.begun += 1
            time.sleep(self.seconds)
            try:
                if self.error is not None:
                    raise self.error
                return write(file, kept)
            finally:
                self.ended += 1

        monkeypatch.setattr(store_file.StoreFile, "write", slow)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def test_a_single_entry_is_written_without_being_waited_for(path: Path) -> None:
    async with Observed(path) as kept:
        kept.put("a", SECRET)
        await until(path.exists)
        assert SECRET in path.read_text()


async def test_changes_gather_while_the_disk_is_slow(path: Path, disk: Disk) -> None:
    disk.seconds = 0.02
    async with Observed(path) as kept:
        began = time.monotonic()
        for number in range(50):
            kept.put("a", number)
            await asyncio.sleep(0.01)
        assert await kept.store.flush()
        most = 2 + (time.monotonic() - began) / (disk.seconds * (1 + store.REST))
        assert 2 <= disk.begun <= most
        assert json.loads(path.read_bytes())["entries"]["a"]["entry"] == {"value": 49}


async def test_it_is_on_disk_before_it_takes_the_old_ones_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, Path | str]] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append(("folder" if target.is_dir() else f"{target.stat().st_size} bytes", target))

    def renamed(source: Path, target: Path) -> None:
        steps.append((f"{source.stat().st_size} bytes", source))
        steps.append(("rename", target))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    async with Observed(path) as kept:
        kept.put("a", SECRET)
        assert await kept.store.flush()
        assert len(steps) == 4
        assert steps[0] == steps[1], "nothing is added once it is synced"
        assert steps[2:] == [("rename", path), ("folder", path.parent)]


async def test_the_end_does_not_wait_for_its_turn(path: Path, disk: Disk) -> None:
    disk.seconds = 0.3
    async with Observed(path) as kept:
        kept.put("a", 1)
        await until(lambda: disk.begun == 1)
        kept.put("a", 2)
        began = time.monotonic()
        await kept.store.close()
        assert time.monotonic() - began < disk.seconds * store.REST
    assert await restarted(path, "a") == [2]


async def test_who_stops_waiting_stops_no_write(path: Path, disk: Disk) -> None:
    disk.seconds = 0.05
    async with Observed(path) as kept:
        kept.put("a", 1)
        waiting = [asyncio.create_task(kept.store.flush()) for _ in range(20)]
        await until(lambda: disk.begun == 1)
        for task in waiting[::2]:
            task.cancel()
        kept.put("a", 2)
        waiting.append(asyncio.create_task(kept.store.flush()))
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [*[True, False] * 10, False]
        assert results[1::2] + results[20:] == [True] * 11
        assert (disk.ended, json.loads(path.read_bytes())["entries"]["a"]["entry"]) == (2, {"value": 2})


async def test_a_cancelled_close_ends_nothing_and_can_be_repeated(path: Path, disk: Disk) -> None:
    disk.seconds = 0.1
    async with Observed(path) as kept:
        kept.put("a", 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await kept.store.close()
    assert await restarted(path, "a") == [1]


async def test_a_failure_is_told_once_and_retried_with_changes_and_without(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LEAST_RETRY", 0.05)
    monkeypatch.setattr(store, "RETRY", 0.2)
    disk.error = ValueError(SECRET)
    async with Observed(path) as kept:
        kept.put("a", SECRET)
        assert not await kept.store.flush()
        kept.put("b", SECRET)
        assert not await kept.store.flush()
        await until(lambda: disk.ended >= 4)
        assert kept.kinds == ["StoreFailed"]
        disk.error = None
        await until(path.exists)
        assert await kept.store.flush()
        assert kept.kinds == ["StoreFailed", "StoreRecovered"]
        assert SECRET not in repr(kept.heard)
    assert await restarted(path, "a", "b") == [SECRET] * 2


async def test_many_changes_are_no_reason_to_fail_many_times(path: Path, disk: Disk) -> None:
    disk.error = PermissionError(13, "")
    async with Observed(path) as kept:
        began = time.monotonic()
        while (took := time.monotonic() - began) < 0.4 or disk.begun < 2:
            kept.put("a", took)
            await asyncio.sleep(0.001)
        assert disk.begun <= 2 + took / store.LEAST_RETRY
        assert kept.heard == [events.StoreFailed(f"{path} cannot be written: Permission denied")]
    assert disk.begun <= 4 + took / store.LEAST_RETRY, "the end tries once more"


async def test_a_folder_that_goes_and_comes_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_WAIT", 0.1)
    path = path / "deeper" / "tokens"
    path.parent.mkdir(parents=True)
    async with Observed(path) as kept:
        kept.put("a", 1)
        assert await kept.store.flush()
        away = path.parent.rename(path.parent.with_name("away"))
        kept.put("a", 2)
        assert not await kept.store.flush()
        path.parent.mkdir()
        assert await kept.store.flush()
        assert kept.kinds == ["StoreFailed", "StoreRecovered"]
        async with Observed(path) as other:
            assert "another process" in other.ignored[0], "the lock has come back too"
    assert names(away) == ["tokens", "tokens.lock"]
    assert await restarted(path, "a") == [2]


# ── full disks and kills, in processes of their own ──────────────────────────────────────────────────────────

FULL_FOR_A_WHILE = """
import asyncio, contextlib, json, math, os, resource, sys
from pathlib import Path
from bearward.tokens.store import FileStore

path, how = Path(sys.argv[2]) / "tokens", sys.argv[1]
ballast = path.with_name("ballast")

def at_most(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def fill():
    if how == "limit":
        return at_most(5000)
    with contextlib.suppress(OSError), ballast.open("wb", 0) as file:
        while True:
            file.write(bytes(4096))

def free():
    return at_most(resource.RLIM_INFINITY) if how == "limit" else ballast.unlink()

async def main():
    heard = []
    store = FileStore(path, heard.append)
    store.open()
    store.put("small", {"value": "x"}, math.inf)
    flushed = [await store.flush()]
    before = path.read_bytes()
    fill()
    store.put("large", {"value": "y" * 200_000}, math.inf)
    flushed += [await store.flush(), await store.flush()]
    unchanged, names = path.read_bytes() == before, sorted(os.listdir(path.parent))
    free()
    flushed.append(await store.flush())
    await store.close()
    await (again := FileStore(path, heard.append)).close()
    again.open()
    print(json.dumps([flushed, unchanged, names, [*map(repr, heard)], len(again.get("large")["value"])]))

asyncio.run(main())
"""
IN_PRIVATE = ("unshare", "--map-root-user", "--mount", "sh", "-c")
SMALL_DISK = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'


def has_small_disks(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run([*IN_PRIVATE, SMALL_DISK, folder, "true"], stderr=subprocess.DEVNULL).returncode == 0
    return False


@together
async def test_a_full_disk_keeps_the_old_content_until_there_is_room(folder: Path) -> None:
    if not has_small_disks(folder):
        pytest.skip("no file system may be mounted here")
    command = [sys.executable, "-c", FULL_FOR_A_WHILE, "disk", folder]
    assert_recovers(await output_of(*IN_PRIVATE, SMALL_DISK, folder, *command), folder, "No space left on device")


@together
async def test_a_limit_of_file_size_is_as_a_full_disk(folder: Path) -> None:
    assert_recovers(await output_of(sys.executable, "-c", FULL_FOR_A_WHILE, "limit", folder), folder, "File too large")


def assert_recovers(output: bytes, folder: Path, reason: str) -> None:
    path = folder / "tokens"
    flushed, unchanged, names, heard, large = json.loads(output)
    assert flushed == [True, False, False, True]
    assert unchanged
    assert [name for name in names if name != "ballast"] == ["tokens", "tokens.lock"]
    assert heard == [
        repr(events.StoreFailed(f"{path} cannot be written: {reason}")),
        repr(events.StoreRecovered(str(path))),
    ]
    assert large == 200_000


KILLED = """
import asyncio, itertools, json, math, os, select, signal, sys, threading, time
from pathlib import Path
from bearward.tokens.store import FileStore

how, path = sys.argv[1], Path(sys.argv[2])
KEYS = [f"{number:064x}" for number in range(8)]

async def write(to, size, goes_on):
    store = FileStore(path, lambda event: os.write(2, repr(event).encode()))
    store.open()
    os.write(to, f"{len([*path.parent.glob('.*')])} ".encode())
    numbers = {(store.get(key) or {"number": 0})["number"] for key in KEYS}
    (number,) = numbers
    os.write(to, f"{number} ".encode())
    while goes_on() or len(numbers) == 1:
        numbers.add(number := number + 1)
        for key in KEYS:
            store.put(key, {"number": number, "padding": "x" * size}, math.inf)
        assert await store.flush()
        os.write(to, f"{number} ".encode())

def dies_at(call):
    "Kills the process before the given call of a C function in the thread that writes."
    left = call
    def look(frame, event, _):
        nonlocal left
        if event == "c_call" and any(each.f_code.co_filename.endswith("store_file.py") for each in outer(frame)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    threading.setprofile(look)

def outer(frame):
    while frame is not None:
        yield frame
        frame = frame.f_back

for moment in itertools.count(1):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        if how == "calls":
            dies_at(moment)
        asyncio.run(write(writing, 10, lambda: False) if how == "calls" else write(writing, 200_000, lambda: True))
        os._exit(0)
    os.close(writing)
    told = b""
    if how == "times":
        while told.count(b" ") < 3:
            told += os.read(reading, 100)
        time.sleep(moment / 1000)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    told += os.read(reading, 10_000)
    os.close(reading)
    leftovers, *acknowledged = map(int, told.split())
    found = json.loads(path.read_bytes())["entries"] if path.exists() else {}
    numbers = sorted({each["entry"]["number"] for each in found.values()}) if found else [0]
    modes = sorted({oct(each.stat().st_mode) for each in path.parent.iterdir()})
    print(json.dumps([os.WIFSIGNALED(status), leftovers, acknowledged, numbers, len(found), modes]))
    if how == "calls" and os.WIFEXITED(status) or how == "times" and moment == 20:
        break
"""


@together
async def test_a_kill_at_any_moment_leaves_the_old_content_or_the_new(folder: Path) -> None:
    deaths = await killed("times", folder)
    assert [was_killed for was_killed, _ in deaths] == [True] * 20


@together
async def test_a_kill_before_any_call_of_a_write_leaves_the_old_content_until_the_rename(folder: Path) -> None:
    deaths = await killed("calls", folder)
    assert [was_killed for was_killed, _ in deaths] == [True] * (len(deaths) - 1) + [False]
    writes = [written for _, written in deaths]
    assert writes == sorted(writes), "the new content ever after"
    assert 10 < writes.index(1) < len(deaths) - 5


async def killed(how: str, folder: Path) -> list[tuple[bool, int]]:
    """Of processes that died as they wrote: whether each was killed, and its writes that the file has."""
    deaths = []
    for line in (await output_of(sys.executable, "-c", KILLED, how, folder / "tokens")).splitlines():
        was_killed, leftovers, acknowledged, numbers, count, modes = json.loads(line)
        assert leftovers == 0, "what the one before left is gone once the next has opened"
        assert len(numbers) == 1, "no file has entries of two moments"
        assert acknowledged[-1] <= numbers[0] <= acknowledged[-1] + 1, "what was flushed is there"
        assert count == (8 if numbers[0] else 0)
        assert modes == ["0o100600"]
        deaths.append((was_killed, numbers[0] - acknowledged[0]))
    return deaths


# ── who else is there ────────────────────────────────────────────────────────────────────────────────────────

HOLDER = """
import sys, time
from pathlib import Path
from bearward.tokens.store import FileStore
store = FileStore(Path(sys.argv[1]), print)
store.open()
print("open", flush=True)
time.sleep(60)
"""


@together
async def test_a_second_process_goes_on_in_memory_and_the_first_ones_death_frees_the_file(folder: Path) -> None:
    path = folder / "tokens"
    content = write_store(path)
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"open\n"
        began = time.monotonic()
        async with Observed(path) as second:
            assert time.monotonic() - began < store.LOCK_WAIT + 1
            assert len(second.ignored) == 1
            assert f"{path} is used by another process" in second.ignored[0]
            assert second.get("a") is None
            second.put("b", 1)
            assert second.get("b") == 1
            assert not await second.store.flush()
    finally:
        holder.send_signal(signal.SIGKILL)
        await holder.wait()
    assert path.read_bytes() == content
    assert await restarted(path, "a", "b") == [SECRET, None]


async def test_a_process_at_its_end_is_waited_for(path: Path, written: bytes) -> None:
    lock = Path(f"{path}.lock").open("w")  # noqa: SIM115 - closed by the timer
    fcntl.flock(lock, fcntl.LOCK_EX)
    timer = threading.Timer(0.2, lock.close)
    timer.start()
    assert await restarted(path, "a") == [SECRET]
    timer.join()


async def test_without_its_lock_a_running_process_does_not_write_over_anothers_file(path: Path) -> None:
    async with Observed(path) as first:
        first.put("a", "first")
        assert await first.store.flush()
        Path(f"{path}.lock").unlink()
        async with Observed(path) as second:
            assert second.get("a") == "first"
            second.put("a", "second")
            assert await second.store.flush()
            first.put("a", "third")
            assert not await first.store.flush()
            assert len(first.ignored) == 1
            assert first.get("a") == "third"
    assert await restarted(path, "a") == ["second"]


async def test_only_our_own_leftovers_are_removed(path: Path, written: bytes) -> None:
    strangers = {".tokens.0123.tmp", "tokens.0123456789abcdef.tmp", ".other.0123456789abcdef.tmp", f"{LEFTOVER}.x"}
    for name in {LEFTOVER, *strangers}:
        path.with_name(name).write_text("")
    path.with_name(LEFTOVER.replace("0", "a")).mkdir()
    path.with_name(LEFTOVER.replace("0", "b")).symlink_to(path)
    if os.geteuid() == 0:
        path.with_name(others := LEFTOVER.replace("0", "c")).write_text("")
        os.chown(path.with_name(others), 12345, -1)
        strangers.add(others)
    assert await restarted(path, "a") == [SECRET]
    assert {each.name for each in path.parent.iterdir()} == strangers | {
        *("tokens", "tokens.lock", LEFTOVER.replace("0", "a"), LEFTOVER.replace("0", "b"))
    }


# ── what is found ────────────────────────────────────────────────────────────────────────────────────────────


def symlink(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to("target")


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)  # the name of a socket has to be short


def of_another(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(path, 12345, -1)


def holding(content: bytes) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def too_large(path: Path) -> None:
    os.truncate(path, store_file.MAX_BYTES + 1)


def locked_by_link(path: Path) -> None:
    Path(f"{path}.lock").symlink_to("elsewhere")


def lock_is_folder(path: Path) -> None:
    Path(f"{path}.lock").mkdir()


NEXT_VERSION = json.dumps(document() | {"version": 2, "entries": [SECRET]}).encode()
LEFT_ALONE: dict[str, tuple[Callable[[Path], object], str]] = {
    "symlink": (symlink, "is a symbolic link"),
    "dangling symlink": (dangling, "is a symbolic link"),
    "folder": (folder, "is not a regular file"),
    "fifo": (fifo, "is not a regular file"),
    "socket": (unix_socket, "is not a regular file"),
    "other owner": (of_another, "belongs to user 12345"),
    "group may write": (lambda path: path.chmod(0o660), "can be written by others (mode 0660); chmod 600 it"),
    "all may write": (lambda path: path.chmod(0o602), "can be written by others (mode 0602); chmod 600 it"),
    "too large": (too_large, "is larger than 64 MiB"),
    "no JSON": (holding(f"{SECRET}\n".encode()), "is no token store"),
    "no text": (holding(b"\xff\xfe\x00\x80" * 99), "is no token store"),
    "deeply nested": (holding(b"[" * 1_000_000), "is no token store"),
    "a long number": (holding(b"9" * 10_000), "is no token store"),
    "other JSON": (holding(json.dumps({"version": 1, "entries": {"a": SECRET}}).encode()), "is no token store"),
    "a list": (holding(json.dumps([SECRET]).encode()), "is no token store"),
    "another version": (holding(NEXT_VERSION), "is a token store of another version"),
    "the lock a symlink": (locked_by_link, "tokens.lock is a symbolic link"),
    "the lock a folder": (lock_is_folder, "cannot be used (Is a directory)"),
}


def seen(folder: Path) -> dict[str, tuple[int, int, bytes | str | None]]:
    """All that is in a folder but locks of ours: inode, mode and content."""
    return {
        each.name: (status.st_ino, status.st_mode, _content(each, status.st_mode))
        for each in folder.iterdir()
        for status in [each.lstat()]
        if not (each.name == "tokens.lock" and stat.S_ISREG(status.st_mode))
    }


def _content(path: Path, mode: int) -> bytes | str | None:
    if stat.S_ISLNK(mode):
        return str(path.readlink())
    return path.read_bytes() if stat.S_ISREG(mode) else None


@pytest.mark.parametrize(("make", "reason"), LEFT_ALONE.values(), ids=LEFT_ALONE)
async def test_what_is_not_ours_is_told_and_left_alone(
    path: Path, written: bytes, make: Callable[[Path], object], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)  # for the socket
    make(path)
    before = seen(path.parent)
    async with Observed(path) as kept:
        assert len(kept.ignored) == len(kept.heard) == 1
        told = kept.ignored[0]
        assert told.startswith(f"{path} ")
        assert reason in told
        assert told.endswith("Until the next start nothing is kept on disk")
        assert SECRET not in told
        assert kept.get("a") is None
        kept.put("b", 1)
        kept.put("gone", 1, lifetime=-1)
        assert not await kept.store.flush()
        assert [kept.get(key) for key in ("b", "gone")] == [1, None]
    assert seen(path.parent) == before


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "torn": lambda content: content[:-5],
    "torn at once": lambda content: content[:7],
    "no UTF-8": lambda content: content.replace(SECRET.encode(), b"\xff"),
    "deeply nested": lambda _: json.dumps(document()).encode()[:-2] + b'{"a": ' + b"[" * 1_000_000,
    "no entries": lambda _: json.dumps(document() | {"entries": [SECRET]}).encode(),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
async def test_a_damaged_store_is_told_and_replaced(
    path: Path, written: bytes, damage: Callable[[bytes], bytes]
) -> None:
    path.write_bytes(damage(written))
    async with Observed(path) as kept:
        assert len(kept.ignored) == len(kept.heard) == 1
        assert kept.ignored[0].startswith(f"{path} is ")
        assert SECRET not in kept.ignored[0]
        assert kept.get("a") is None
        kept.put("b", 1)
        assert await kept.store.flush()
    assert await restarted(path, "a", "b") == [None, 1]


async def test_damaged_entries_are_left_out_and_the_others_kept(path: Path) -> None:
    good = {"keep_until": time.time() + HOUR, "entry": {"value": 1}}
    nested = json.loads("[" * 400 + "]" * 400)
    bad: list[object] = [
        *(None, [], SECRET, {}, {"entry": {"value": SECRET}}, good | {"entry": [SECRET]}, good | {"entry": None}),
        *(good | {"keep_until": until} for until in (None, SECRET, [], math.nan, math.inf, 10**400)),
    ]
    entries = {f"bad{number}": each for number, each in enumerate(bad)}
    expired = good | {"keep_until": time.time() - 1}
    odd = good | {"unknown": 1, "entry": {"value": nested}}
    path.write_text(json.dumps(document(**entries, good=good, expired=expired, odd=odd)))
    async with Observed(path) as kept:
        assert kept.ignored == [f"{path} is damaged: {len(bad)} of its {len(bad) + 3} entries are left out"]
        assert [kept.get(key) for key in ("good", "odd", "expired", "bad1")] == [1, nested, None, None]


async def test_a_symlink_that_comes_later_is_not_replaced(path: Path) -> None:
    async with Observed(path) as kept:
        kept.put("a", 1)
        assert await kept.store.flush()
        symlink(path)
        before = seen(path.parent)
        kept.put("a", 2)
        assert not await kept.store.flush()
        assert "is a symbolic link" in kept.ignored[0]
        assert kept.get("a") == 2
    assert seen(path.parent) == before


async def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    async with Observed(tmp_path / "none" / "tokens") as kept:
        assert "has no folder to be in; create it" in kept.ignored[0]
    assert names(tmp_path) == []


UNWRITABLE = """
import os, sys
from pathlib import Path
from bearward.tokens.store import FileStore
if os.geteuid() == 0:
    os.setuid(65534)
FileStore(Path("tokens"), lambda event: print(event.reason)).open()
"""


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    command = [sys.executable, "-c", UNWRITABLE]
    told = subprocess.run(command, check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=60).stdout
    assert told.startswith("tokens is in a folder that bearward cannot write to")
    assert len(told.splitlines()) == 1
