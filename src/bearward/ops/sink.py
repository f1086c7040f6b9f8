"""Where log lines leave the process: a bounded store that one thread empties into a file descriptor.

The event loop never writes: a pipe whose reader stalls would stop it, and making the descriptor non-blocking would
change it for every other process that has it too. What does not fit any more is dropped and counted.
"""

import atexit
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

MOST_BYTES: Final = 1 << 20
"""How many bytes of lines may wait. As many more may be on their way out."""
GATHER: Final = 0.02
"""For how long the thread lets lines gather, in seconds: woken for each, it would be in the event loop's way."""
MOST_WRITINGS: Final = 16
"""In how many pieces, at most but for long lines, the lines of one turn are written."""
LAST_WAIT: Final = 1.0
"""For how long the end of the process waits for the reader, in seconds."""


class Sink:
    """Takes lines from any thread, and writes them in their order."""

    def __init__(self, descriptor: int) -> None:
        self.notice: Callable[[int], str] = "{} log lines dropped".format
        """The line that tells how many are missing at its place."""
        self._descriptor = descriptor
        # Reentrant, both of them: the garbage collector may make a library log in the midst of a write.
        self._lock = threading.RLock()
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._lines: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._is_torn = False
        self._thread = threading.Thread(target=self._drain, name="log", daemon=True)

    def start(self) -> None:
        """From now on lines leave."""
        self._thread.start()

    def write(self, line: str) -> None:
        """Takes a line, or drops it; never waits."""
        data = _encoded(line)
        with self._lock:
            if self._size + len(data) > MOST_BYTES:
                self._dropped += 1
                return
            self._lines.append(data)
            self._size += len(data)
            if len(self._lines) == 1:
                self._wake.put(True)

    def close(self) -> None:
        """Writes what is there, as far as its reader takes it within `LAST_WAIT`."""
        self._wake.put(False)
        self._thread.join(LAST_WAIT)

    def _drain(self) -> None:
        goes_on = True
        while goes_on:
            goes_on = self._wake.get()
            if goes_on:
                time.sleep(GATHER)
            with self._lock:
                lines, self._lines, self._size = self._lines, [], 0
                dropped, self._dropped = self._dropped, 0
            # What was dropped came at the end of `lines`, and before all that is there by now.
            lost = sum(map(self._lost, _pieces(lines)))
            if dropped + lost and self._lost(_encoded(self.notice(dropped + lost))):
                with self._lock:
                    self._dropped += dropped + lost  # to be told when writing works again

    def _lost(self, piece: bytes) -> int:
        """Writes whole lines; how many of them were lost, because the disk is full or nobody can ever read them."""
        rest = b"\n" + piece if self._is_torn else piece
        while rest:
            try:
                written = os.write(self._descriptor, rest)
            except BlockingIOError:  # whoever shares the descriptor may have made it so
                select.select([], [self._descriptor], [])
            except OSError:
                return min(rest.count(b"\n"), piece.count(b"\n"))
            else:
                self._is_torn = not rest.endswith(b"\n", 0, written)
                rest = rest[written:]
        return 0


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace") + b"\n"


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """Lines joined to what one writing takes.

    That is as much as no other process' writing to the same pipe can part; of many lines more, because after each
    writing the thread may have to wait for the interpreter.
    """
    most = max(select.PIPE_BUF, sum(map(len, lines)) // MOST_WRITINGS)
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > most:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield b"".join(piece)


@cache
def standard_error() -> Sink:
    """The one that all of the process' lines go through; the end of the process waits for it."""
    sink = Sink(sys.stderr.fileno())
    sink.start()
    atexit.register(sink.close)
    return sink
