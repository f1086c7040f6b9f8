"""A `bearward run` with a crowd of users, the identity provider behind it, and who asks."""

# ruff: noqa: ASYNC220, S603

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import quote

from endpoint import Counts, Wishes
from peers import HERE, BenchError, Server, free_port, wait_for_port

WARM = 300
"""Users who come first, so that what the first requests bring about once is not measured."""
AT_A_TIME = 50
PROBE_EVERY = 0.005


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> "Client":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def get(self, path: str, user: str = "") -> bytes:
        """The body of a 200."""
        host = f"Host: 127.0.0.1:{self._port}\r\n"
        self._writer.write(f"GET {path} HTTP/1.1\r\n{host}{f'X-User: {user}' if user else 'A: b'}\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        body = await self._reader.readexactly(int(length))
        if not head.startswith(b"HTTP/1.1 200"):
            raise BenchError(f"{path} answered {head.splitlines()[0].decode()}: {body[:300].decode()}")
        return body


class Crowd:
    """bearward and its users."""

    def __init__(self, server: Server, process: subprocess.Popen[bytes], admin: int, endpoint: int, log: Path) -> None:
        self.server = server
        self._process = process
        self._admin = admin
        self._endpoint = endpoint
        self._log = log

    async def wish(self, wishes: Wishes | None = None) -> Counts:
        """Has token requests answered so from now on; what there was until now."""
        async with Client(self._endpoint) as client:
            query = quote(json.dumps(vars(wishes or Wishes())))
            return Counts(**json.loads(await client.get(f"/wish?{query}")))

    async def ask(self, users: Sequence[str]) -> None:
        """A request of each."""

        async def some(share: Iterable[str]) -> None:
            async with Client(self.server.port) as client:
                for user in share:
                    await client.get("/users", user)

        await asyncio.gather(*(some(users[at::AT_A_TIME]) for at in range(AT_A_TIME)))

    async def burst(self, clients: Sequence[Client], user: str) -> float:
        """Seconds until all have their answers, who ask at once."""
        began = time.perf_counter()
        await asyncio.gather(*(client.get("/users", user) for client in clients))
        return time.perf_counter() - began

    async def scrape(self, path: str) -> float:
        """Seconds for an answer of the admin port."""
        async with Client(self._admin) as client:
            began = time.perf_counter()
            await client.get(path)
            return time.perf_counter() - began

    @asynccontextmanager
    async def probed(self) -> AsyncIterator[list[float]]:
        """The seconds that small requests with another token take meanwhile, one after the other."""
        taken: list[float] = []

        async def probe() -> None:
            async with Client(self.server.port) as client:
                while True:
                    began = time.perf_counter()
                    await client.get("/one")
                    taken.append(time.perf_counter() - began)
                    await asyncio.sleep(PROBE_EVERY)

        task = asyncio.create_task(probe())
        try:
            yield taken
        finally:
            await asyncio.sleep(2 * PROBE_EVERY)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def reload(self) -> float:
        """Seconds from SIGHUP until the config is in force."""
        with self._log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            began, said = time.perf_counter(), b""
            self._process.send_signal(signal.SIGHUP)
            while b'"config read again"' not in said:
                await asyncio.sleep(0.005)
                said += log.read()
        return time.perf_counter() - began

    async def share(self, seconds: float) -> float:
        """The share of a core that bearward takes in the seconds to come."""
        began, used = time.perf_counter(), self.server.processor_seconds()
        await asyncio.sleep(seconds)
        return (self.server.processor_seconds() - used) / (time.perf_counter() - began)

    def written(self) -> int:
        """Bytes that it has had written to disk."""
        io = Path(f"/proc/{self._process.pid}/io").read_text()
        return next(int(line.split()[1]) for line in io.splitlines() if line.startswith("write_bytes:"))


def config(folder: Path, words: dict[str, object]) -> Path:
    """The config's file, filled in."""
    text = (HERE / "configs" / "tokens.yaml").read_text()
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", str(value))
    file = folder / "tokens.yaml"
    file.write_text(text)
    return file


@contextmanager
def endpoint(folder: Path) -> Iterator[int]:
    """The port of an identity provider and API."""
    port, log = free_port(), folder / "endpoint.log"
    with log.open("wb") as output:
        command = [sys.executable, str(HERE / "endpoint.py"), str(port)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
    try:
        wait_for_port(Server("endpoint", process, port, log))
        yield port
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def crowd(folder: Path, words: dict[str, object]) -> AsyncIterator[Crowd]:
    """bearward, warm: a few users have come already. `words` fill the config; its ports are added to them."""
    words |= {"port": free_port(), "admin": free_port()}
    file, log = config(folder, words), folder / "bearward.log"
    command = [sys.executable, "-P", "-m", "bearward", "run", "-c", str(file)]
    with log.open("wb") as output:
        environment = os.environ | {"PYTHONPATH": str(HERE.parent / "src")}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    server = Server("bearward", process, int(str(words["port"])), log)
    try:
        wait_for_port(server)
        running = Crowd(server, process, int(str(words["admin"])), int(str(words["backend"])), log)
        await running.wish()
        await running.ask([f"warm-{number}" for number in range(WARM)])
        yield running
    finally:
        server.stop()
