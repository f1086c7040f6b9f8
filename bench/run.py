"""bearward and the proxies that one would take instead, measured side by side: `python bench/run.py --help`."""

# ruff: noqa: S603, T201

import argparse
import math
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from peers import BACKEND, BEARWARD, HERE, PEERS, BenchError, Peer, Server, ask, running

MIB = 1 << 20
CONNECTIONS = 1000
SETTLE = 1.0
Samples = dict[str, dict[str, list[float]]]
"""Of each row of the table, by peer: one value for each round."""

SMALL = "small request: µs of processor time"
DOWN = "answer of 1 MiB: ms of processor time for each MiB"
CHUNKED = "chunked answer of 1 MiB: ms of processor time for each MiB"
UP = "upload of 1 MiB: ms of processor time for each MiB"
LATENCY = "added median latency, one connection: µs"
READY = "start to the first answered request: ms"
RSS = "at rest: MiB of RSS"
PSS = "at rest: MiB of PSS"
IDLE = f"{CONNECTIONS} idle connections: KiB for each"


def main() -> int:
    arguments = _arguments()
    peers = _present(arguments.peers)
    if not peers:
        raise BenchError("none of these peers is here")
    if shutil.which("wrk") is None or BACKEND.find() is None:
        raise BenchError("the load comes from wrk, the answers from nginx: both are Debian packages of these names")
    samples: Samples = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory(prefix="bearward-bench-") as name:
        folder = Path(name)
        _make_files(folder / "files", arguments.stream)
        with running(BACKEND, folder) as backend:
            for number in range(arguments.rounds):
                _say(f"round {number + 1} of {arguments.rounds}: at rest")
                for peer in peers:
                    _at_rest(peer, folder, backend.port, samples)
            _under_load(peers, folder, backend, arguments, samples)
            if arguments.stream:
                _say(f"streaming {arguments.stream:g} GiB")
                for peer in peers:
                    _streamed(peer, folder, backend.port, arguments.stream, samples)
    _say("")
    print("\n".join(_table(samples, [peer.name for peer in peers])))
    print(f"\n{_conditions(arguments, peers)}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=2.0, metavar="S", help="of one load (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="medians are taken of (default: 5)")
    parser.add_argument("--peers", metavar="A,B", help=f"only these of {', '.join(peer.name for peer in PEERS)}")
    parser.add_argument("--stream", type=float, default=1.0, metavar="GIB", help="passed through at once (default: 1)")
    arguments = parser.parse_args()
    if not (1 <= arguments.duration <= 60 and 1 <= arguments.rounds <= 50 and 0 <= arguments.stream <= 100):
        parser.error("from 1 to 60 seconds, 1 to 50 rounds, 0 to 100 GiB")
    return arguments


def _present(names: str | None) -> list[Peer]:
    wanted = names.lower().split(",") if names else [peer.name.lower() for peer in PEERS]
    if unknown := set(wanted) - {peer.name.lower() for peer in PEERS}:
        raise BenchError(f"no such peer: {', '.join(sorted(unknown))}")
    found = []
    for peer in PEERS:
        if peer.name.lower() in wanted:
            if peer.find() is None:
                print(f"{peer.name} is not here: {peer.package} brings it", file=sys.stderr)
            else:
                found.append(peer)
    return found


def _make_files(folder: Path, stream: float) -> None:
    folder.parent.chmod(0o755)
    folder.mkdir()
    (folder / "mib").write_bytes(os.urandom(MIB))
    with (folder / "stream").open("wb") as file:
        file.truncate(int(stream * 1024) * MIB)  # a hole: takes no room


# ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────


def _at_rest(peer: Peer, folder: Path, backend: int, samples: Samples) -> None:
    started = time.perf_counter()
    with running(peer, folder, backend) as server, ExitStack() as clients:
        samples[READY][peer.name].append((time.perf_counter() - started) * 1e3)
        time.sleep(SETTLE)
        samples[RSS][peer.name].append(server.memory("Rss") / 1024)
        samples[PSS][peer.name].append(server.memory("Pss") / 1024)
        first = clients.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
        for _ in range(CONNECTIONS):
            ask(first, server.port, "small")
        before = server.memory("Rss")
        for _ in range(CONNECTIONS):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            if b'{"ok":true' not in ask(client, server.port, "small"):
                raise server.fault("left a connection without an answer")
        time.sleep(SETTLE)
        samples[IDLE][peer.name].append((server.memory("Rss") - before) / CONNECTIONS)


def _under_load(
    peers: Sequence[Peer], folder: Path, backend: Server, arguments: argparse.Namespace, samples: Samples
) -> None:
    seconds = arguments.duration
    rows: dict[str, Callable[[Server], float]] = {
        SMALL: lambda server: _processor_time(server, "small", 32, seconds) * 1e6,
        DOWN: lambda server: _processor_time(server, "files/mib", 4, seconds) * 1e3,
        CHUNKED: lambda server: _processor_time(server, "chunked", 4, seconds) * 1e3,
        UP: lambda server: _processor_time(server, "upload", 4, seconds, MIB) * 1e3,
    }
    with ExitStack() as running_peers:
        servers = [running_peers.enter_context(running(peer, folder, backend.port)) for peer in peers]
        for server in servers:
            _wrk(server, "/eu8/small", 32, 0.5)
        for number in range(arguments.rounds):
            _say(f"round {number + 1} of {arguments.rounds}: under load")
            for row, measure in rows.items():
                for server in servers:
                    samples[row][server.name].append(measure(server))
            directly = _wrk(backend, "/small", 1, seconds / 2).latency
            for server in servers:
                latency = _wrk(server, "/eu8/small", 1, seconds / 2).latency
                samples[LATENCY][server.name].append(latency - directly)


def _streamed(peer: Peer, folder: Path, backend: int, gib: float, samples: Samples) -> None:
    with running(peer, folder, backend) as server:
        for _ in range(3):
            _receive(server, "files/mib")
        time.sleep(SETTLE)
        before = server.memory("Rss")
        server.forget_peak()
        expected = int(gib * 1024) * MIB
        if (received := _receive(server, "files/stream")) < expected:
            raise server.fault(f"passed on {received} bytes of {expected}")
        samples[f"{gib:g} GiB streamed: MiB of growth, at its peak"][peer.name].append((server.peak() - before) / 1024)
        time.sleep(SETTLE)
        samples[f"{gib:g} GiB streamed: MiB of RSS afterwards"][peer.name].append(server.memory("Rss") / 1024)


# ── load ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Load(NamedTuple):
    """What wrk saw; `latency` is the median in µs."""

    requests: int
    failed: int
    latency: int


def _wrk(server: Server, path: str, connections: int, seconds: float, upload: int = 0) -> _Load:
    url = f"http://127.0.0.1:{server.port}{path}"
    duration = f"{max(round(seconds), 1)}s"
    command = ["wrk", "-t1", f"-c{connections}", "-d", duration, "-s", str(HERE / "wrk.lua"), url, "--", str(upload)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False).stdout
    results = [line.split()[1:] for line in said.splitlines() if line.startswith("RESULT ")]
    if not results:
        raise BenchError(f"wrk failed at {server.name}: {said.strip()[-300:]}")
    load = _Load(*map(int, results[0]))
    if load.failed * 1000 > load.requests:
        raise server.fault(f"{load.failed} of {load.requests} requests for {path} failed")
    return load


def _processor_time(server: Server, path: str, connections: int, seconds: float, upload: int = 0) -> float:
    """Seconds of the proxy's processor time for each request."""
    before = server.processor_seconds()
    load = _wrk(server, f"/eu8/{path}", connections, seconds, upload)
    return (server.processor_seconds() - before) / load.requests


def _receive(server: Server, path: str) -> int:
    """How many bytes of an answer come, head included."""
    buffer = bytearray(MIB)
    total = 0
    with socket.create_connection(("127.0.0.1", server.port), 30) as client:
        host = f"127.0.0.1:{server.port}"
        client.sendall(f"GET /eu8/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        while count := client.recv_into(buffer):
            total += count
    return total


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────


def _table(samples: Samples, names: Sequence[str]) -> list[str]:
    versus = BEARWARD.name in names and "Envoy" in names
    lines = [["", *names, *(["bearward / Envoy"] if versus else [])]]
    order = (SMALL, DOWN, CHUNKED, UP, LATENCY, READY, RSS, PSS, IDLE)
    for row in (*order, *(row for row in samples if row not in order)):
        by_peer = samples[row]
        cells = [_figure(statistics.median(by_peer[name])) for name in names]
        if versus:
            cells.append(_ratio(by_peer[BEARWARD.name], by_peer["Envoy"]))
        lines.append([row, *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = ["| " + " | ".join(map(_aligned, line, widths, range(len(line)))) + " |" for line in lines]
    return [
        rows[0],
        "|" + "|".join("-" * (width + 1) + (":" if n else "-") for n, width in enumerate(widths)) + "|",
        *rows[1:],
    ]


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of the rounds' ratios, and the least and the most of them."""
    ratios = sorted(our / their if their > 0 else math.nan for our, their in zip(ours, theirs, strict=True))
    if any(map(math.isnan, ratios)):
        return "-"
    spread = f" ({ratios[0]:.2f} to {ratios[-1]:.2f})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.2f}{spread}"


def _conditions(arguments: argparse.Namespace, peers: Sequence[Peer]) -> str:
    try:
        loop = f"uvloop {metadata.version('uvloop')}"
    except metadata.PackageNotFoundError:
        loop = "asyncio (uvloop is not here)"
    return (
        f"Medians of {arguments.rounds} rounds of {arguments.duration:g} s, {os.cpu_count()} processors. "
        f"bearward on Python {platform.python_version()}, httptools {metadata.version('httptools')}, {loop}. "
        f"Peers: {', '.join(peer.name + ' ' + peer.version() for peer in peers if peer is not BEARWARD)}."
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
