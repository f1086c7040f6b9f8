"""The product as its users have it: a `bearward run` process on real ports, and everything it says kept."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml
from multidict import CIMultiDictProxy
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from evidence import EVIDENCE
from ports import free_port
from wire import Connection, Message

_OPTIONS = os.environ.get("BEARWARD_PYTHON_OPTIONS", "").split()
"""Of the interpreter that runs the product: with `-O` all must hold as well."""
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 45.0
_POLL = 0.02
_SIGNS_OF_A_FAULT = (
    b"Traceback (most recent call last)",
    b"was never retrieved",
    b"was never awaited",
    b"Unclosed ",
    b"Task was destroyed",
)


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def code(self) -> str | None:
        """Which error of bearward's own it is, if it is one."""
        return self.headers.get("Bearward-Error")

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def summary(self) -> tuple[int, str | None]:
        """What most tests compare."""
        return self.status, self.code


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> float:
        """The sum over the samples of `bearward_` + name that have these labels; at least one must have them."""
        found = self.matching(name, **labels)
        assert found, f"no sample bearward_{name} with {labels}"
        return sum(found.values())

    def matching(self, name: str, **labels: str) -> dict[frozenset[tuple[str, str]], float]:
        """The samples of `bearward_` + name that have these labels."""
        return {
            own: value
            for (full_name, own), value in self.samples.items()
            if full_name == f"bearward_{name}" and labels.items() <= dict(own).items()
        }


class Bearward:
    """A `bearward run` process, started and ended by `async with`.

    `config` is the file's text or content; listeners on free ports and a debug log as JSON are added where it has
    none of its own. `files` are written beside it. `until` is the probe whose first 200 ends the start. `shell` is a
    script that starts the command, which it has as "$@", in surroundings of its own; `cwd` is the folder for that.
    """

    def __init__(
        self,
        config: str | Mapping[str, Any],
        folder: Path,
        *,
        name: str = "run",
        files: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        until: str | None = "/startupz",
        shell: str = 'exec "$@"',
        cwd: Path | None = None,
    ) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self.url, self.admin_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin_port}"
        self.folder = folder
        self._env = os.environ | dict(env or {})
        self._until = until
        self._shell = shell
        self._cwd = cwd
        self._socket: str | None = None
        self._output = EVIDENCE.open_folder(name)
        self._counter = 0
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None
        for file, content in (files or {}).items():
            (folder / file).write_text(content)
        self.config_file = folder / "bearward.yaml"
        self.config_file.write_text(self._complete(config))

    def _complete(self, config: str | Mapping[str, Any]) -> str:
        own = {
            "listen": f"127.0.0.1:{self.port}",
            "admin": f"127.0.0.1:{self.admin_port}",
            "log": {"level": "debug", "format": "json"},
        }
        given = yaml.safe_load(config) if isinstance(config, str) else config
        if str(given.get("listen")).startswith("unix:"):
            self._socket = given["listen"].removeprefix("unix:")
        added = {key: value for key, value in own.items() if key not in given}
        text = config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False)
        return (yaml.safe_dump(added, sort_keys=False) if added else "") + text

    async def __aenter__(self) -> Self:
        await self.launch()
        try:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=60),
                auto_decompress=False,
            )
            if self._until is not None:
                await self._started(self._until)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        was_running = self.is_running
        code = await self._end()
        if error is not None:
            error.add_note(f"the last lines of bearward:\n{self.output()[-4000:].decode(errors='replace')}")
            return
        if was_running:
            assert code == 0, f"SIGTERM ended bearward with {code}\n{self.output()[-4000:].decode()}"
        self.assert_no_fault()

    async def launch(self) -> None:
        """Start the process, and wait for nothing.

        `-P` makes it what the installed command is: a program that imports nothing from the current folder.
        """
        with (self._output / "stdout").open("wb") as out, (self._output / "stderr").open("wb") as err:
            self._process = await asyncio.create_subprocess_exec(
                *("sh", "-c", self._shell, "sh"),
                *(sys.executable, "-P", *_OPTIONS, "-m", "bearward", "run", "-c", str(self.config_file)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self._env,
                cwd=self._cwd,
            )

    async def _started(self, probe: str) -> None:
        async with asyncio.timeout(_START_TIMEOUT):
            while self.is_running:
                try:
                    if (await self.admin(probe)).status == 200:
                        return
                except aiohttp.ClientConnectionError:
                    pass  # it does not listen yet
                await asyncio.sleep(_POLL)
        raise AssertionError(f"bearward ended with {self.process.returncode}\n{self.output().decode()}")

    async def _end(self) -> int:
        if self._session is not None:
            await self._session.close()
        if not self.is_running:
            return await self.process.wait()
        try:
            return await self.terminate()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise AssertionError(f"SIGTERM did not end bearward within {_STOP_TIMEOUT} s") from None

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "not started"
        return self._process

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def terminate(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal; the exit code."""
        self.process.send_signal(number)
        return await self.exit_code()

    async def exit_code(self) -> int:
        """Wait for the process to end by itself."""
        async with asyncio.timeout(_STOP_TIMEOUT):
            return await self.process.wait()

    def write(self, config: str | Mapping[str, Any]) -> None:
        """Put another config in the place of the file, at once and as a whole."""
        written = self.config_file.with_suffix(".new")
        written.write_text(self._complete(config))
        written.replace(self.config_file)

    async def reload(self, config: str | Mapping[str, Any] | None = None) -> None:
        """Have the file read again, after `config` was put there; returns when that is in force."""
        name = "config_last_reload_success_timestamp_seconds"
        before = (await self.metrics()).total(name)
        if config is not None:
            self.write(config)
        self.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(_START_TIMEOUT):
            while (await self.metrics()).total(name) == before:
                await asyncio.sleep(_POLL)

    async def logs(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until so many lines of the log (as JSON) tell of `event`; all of them."""
        async with asyncio.timeout(_START_TIMEOUT):
            while len(lines := self._log(event)) < count:
                await asyncio.sleep(_POLL)
        return lines

    def _log(self, event: str) -> list[dict[str, Any]]:
        *lines, _partial = (self._output / "stderr").read_bytes().split(b"\n")
        return [line for line in map(json.loads, lines) if line["event"] == event]

    async def refuses_connections(self) -> None:
        """Wait for the data port to close, as it does some moment after a signal; only a try tells."""
        async with asyncio.timeout(_STOP_TIMEOUT):
            while True:
                try:
                    async with self.connect():
                        pass
                except ConnectionRefusedError:
                    return
                except ConnectionError:
                    pass  # it was on its way when the port closed
                await asyncio.sleep(_POLL)

    def output(self) -> bytes:
        """What it has written to its standard streams."""
        return b"".join((self._output / name).read_bytes() for name in ("stdout", "stderr"))

    def assert_no_fault(self) -> None:
        """Nothing in its output tells of a programming error."""
        output = self.output()
        for sign in _SIGNS_OF_A_FAULT:
            assert sign not in output, f"bearward wrote {sign.decode()!r}:\n{output[-8000:].decode()}"

    def memory_growth(self) -> Callable[[], int]:
        """A function that tells by how many bytes the process's memory has at most exceeded that of now."""
        proc = Path(f"/proc/{self.process.pid}")
        (proc / "clear_refs").write_text("5")  # the peak begins anew

        def peak() -> int:
            lines = (proc / "status").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

        before = peak()
        return lambda: peak() - before

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        """One request to the data port, as aiohttp sends it."""
        return await self._ask(method, self.url + path, **options)

    async def get(self, path: str, **options: Any) -> Answer:
        """GET from the data port."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, data: bytes, **options: Any) -> Answer:
        """POST to the data port."""
        return await self.request("POST", path, data=data, **options)

    async def admin(self, path: str) -> Answer:
        """GET from the admin port; the answer is kept."""
        answer = await self._ask("GET", self.admin_url + path)
        self._keep(path.strip("/").replace("/", "-"), answer.body)
        return answer

    async def metrics(self) -> Metrics:
        """A scrape of now."""
        answer = await self.admin("/metrics")
        assert answer.status == 200
        return Metrics(answer.body.decode())

    async def status(self) -> Any:
        """`/api/status`."""
        answer = await self.admin("/api/status")
        assert answer.status == 200
        return answer.json()

    async def is_ready(self) -> bool:
        """Whether `/readyz` says so."""
        answer = await self.admin("/readyz?verbose")
        assert answer.status in {200, 503}
        return answer.status == 200

    def connect(self) -> Connection:
        """A raw connection to the data port."""
        return Connection(port=self.port, path=self._socket)

    async def raw(self, request: bytes, *, to_head: bool = False) -> Message:
        """One request as bytes on a connection of its own."""
        async with self.connect() as connection:
            answer = await connection.exchange(request, to_head=to_head)
        if answer.values("Bearward-Error"):
            self._keep("error", answer.raw)
        return answer

    async def _ask(self, method: str, url: str, **options: Any) -> Answer:
        assert self._session is not None
        target = URL(url, encoded=True)  # as it is written, not as aiohttp would write it
        async with self._session.request(method, target, allow_redirects=False, **options) as response:
            answer = Answer(response.status, response.headers, await response.read())
        if answer.code is not None:
            self._keep("error", repr(answer.headers).encode() + answer.body)
        return answer

    def _keep(self, name: str, content: bytes) -> None:
        self._counter += 1
        (self._output / f"{self._counter:05}-{name}").write_bytes(content)
