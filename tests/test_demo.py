"""`bearward demo` as its users start it, and the vendor and the judgement inside it."""

import asyncio
import base64
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bearward.demo.once import LEAST_REFRESHES, Outcome, make_calls, table
from bearward.demo.vendor import CLIENT_ID, CLIENT_PATH, TOKEN_PATH, DataCenter, IdentityProvider
from evidence import EVIDENCE, SECRETS
from ports import free_port
from together import Together

START_TIMEOUT = 30.0
LOCAL = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
GOOD = Outcome(data_center="eu8", calls=158, failed=0, refused=0, refreshes=4, tokens=5, slowest=0.02)

together = Together()


class Demo:
    """A `bearward demo` process; what it writes to stdout is kept as it comes."""

    def __init__(self, process: asyncio.subprocess.Process, stdout: asyncio.StreamReader, stderr: Path) -> None:
        self.process = process
        self.stdout = ""
        self._reader = stdout
        self._stderr = stderr

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    async def until(self, pattern: str) -> re.Match[str]:
        """Read on until `pattern` has been written."""
        async with asyncio.timeout(START_TIMEOUT):
            while (found := re.search(pattern, self.stdout)) is None:
                more = await self._reader.read(4096)
                assert more, f"ended without {pattern!r}:\n{self.stdout}{self.stderr}"
                self.stdout += more.decode()
        return found

    async def end(self, timeout: float = START_TIMEOUT) -> int:
        """Read to the end; the exit code."""
        async with asyncio.timeout(timeout):
            with suppress(OSError):  # how a terminal says that its other side was closed
                self.stdout += (await self._reader.read()).decode()
            return await self.process.wait()

    async def terminate(self) -> int:
        self.process.terminate()
        return await self.end()


@asynccontextmanager
async def started(*arguments: str, terminal: bool = False) -> AsyncIterator[Demo]:
    """The demo with its stdout in a pipe, or with stdout and stderr on a terminal of its own."""
    output = EVIDENCE.open_folder("demo")
    ours, theirs = os.openpty() if terminal else os.pipe()
    with (output / "stderr").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bearward", "demo", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs if terminal else err,
        )
    os.close(theirs)
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", 0)
    )
    demo = Demo(process, reader, output / "stderr")
    try:
        yield demo
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        transport.close()
        (output / "stdout").write_text(demo.stdout)
    assert "Traceback" not in demo.stdout + demo.stderr


async def run(command: str) -> str:
    """What a line does that a user copies from the screen."""
    curl = await asyncio.create_subprocess_exec(*shlex.split(command), stdout=-1, stderr=asyncio.subprocess.DEVNULL)
    output, _ = await curl.communicate()
    assert curl.returncode == 0, command
    return output.decode().replace("\r\n", "\n")


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────


@together
async def test_interrupted_once_has_shown_nothing(_folder: Path) -> None:
    async with started("--once", *LOCAL) as demo:
        await demo.until("of calls to eu8 and us5")
        assert await demo.terminate() == 1
    assert "eu8: calls went out with" in demo.stdout


@together
async def test_lines_to_try_work_as_printed(_folder: Path) -> None:
    async with started(*LOCAL) as demo:
        await demo.until("Ctrl-C ends the demo")
        calls = re.findall(r"curl -i .*", demo.stdout)
        assert ["/eu8/" in call for call in calls] == [True, False]
        assert ["/us5/" in call for call in calls] == [False, True]
        answers = [await run(call) for call in calls]
        for answer in answers:
            assert answer.startswith("HTTP/1.1 200 OK\n")
            assert f'"client_id": "{CLIENT_ID}"' in answer
        assert len({re.search("(?m)^Demo-Token: ([0-9a-f]{8})$", answer)[1] for answer in answers}) == 2
        (probe,) = re.findall(r"curl 'http.*", demo.stdout)
        assert "fresh" in await run(probe)
        assert await demo.terminate() == 0
    assert "\x1b" not in demo.stdout
    assert "first token" not in demo.stdout  # of refreshes, the log alone tells
    assert demo.stderr.count('"token refreshed"') == 2


@together
async def test_printed_config_is_the_one_that_runs_and_holds_no_secret(_folder: Path) -> None:
    async with started(*LOCAL) as demo:
        file = Path((await demo.until(r"config it runs with, (\S+):"))[1])
        await demo.until("Ctrl-C ends the demo")
        printed = re.search(r"(?m)^\n((?:    .*\n|\n)+?)\nTry:", demo.stdout)[1]
        assert re.sub("(?m)^ {4}", "", printed) == file.read_text()
        secret = SECRETS.add((file.parent / "client-secret").read_text(), "client secret")
        # The same file serves the other commands while the demo runs.
        check = await run(f"{sys.executable} -m bearward check -c {file}")
        assert "no faults, 2 routes, 1 credential" in check
        demo.process.send_signal(signal.SIGHUP)
        assert await demo.end() == 0
    assert secret not in demo.stdout + demo.stderr
    assert "eyJ" not in demo.stdout + demo.stderr  # how every JWT begins
    assert not file.parent.exists()


@together
async def test_terminal_shows_new_tokens_as_they_come(_folder: Path) -> None:
    async with started(*LOCAL, terminal=True) as demo:
        for data_center in ("eu8", "us5"):
            await demo.until(
                rf"\d\d:\d\d:\d\d  {data_center}  first token  [0-9a-f]{{8}}  lives \d+ s, next refresh in "
            )
        await demo.until(r"(eu8|us5)  refreshed    [0-9a-f]{8}  lives")
        demo.process.send_signal(signal.SIGINT)
        assert await demo.end() == 0


@together
async def test_a_port_that_is_taken_is_named(_folder: Path) -> None:
    port = free_port()
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", port)
    async with server, started("--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0") as demo:
        assert await demo.end() == 1
    assert f"127.0.0.1:{port}" in demo.stderr
    assert "--listen" in demo.stderr


@together
async def test_addresses_that_are_none_are_wrong_usage(_folder: Path) -> None:
    async def code(*arguments: str) -> tuple[int, str]:
        async with started(*arguments) as demo:
            return await demo.end(), demo.stderr

    for listen in ("nowhere", "0.0.0.0:0", "unix:/tmp/bearward-demo.sock"):
        exit_code, said = await code("--listen", listen)
        assert exit_code == 2
        assert said.strip()


# ── its judgement ────────────────────────────────────────────────────────────────────────────────────────────────


def test_judgement_passes_what_is_promised() -> None:
    assert GOOD.fault is None
    assert "Every call was answered" in table([GOOD, replace(GOOD, data_center="us5")])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"failed": 1}, "1 of 158 calls failed"),
        ({"refused": 1}, "answered 401 by the data center: 1"),
        ({"refreshes": LEAST_REFRESHES - 1, "tokens": LEAST_REFRESHES}, f"{LEAST_REFRESHES} different tokens"),
        ({"calls": 0, "refreshes": 0, "tokens": 0}, "0 different tokens"),
    ],
)
def test_judgement_can_fail(change: dict[str, int], said: str) -> None:
    bad = replace(GOOD, data_center="us5", **change)
    assert bad.fault is not None
    assert said in bad.fault
    text = table([GOOD, bad])
    assert f"us5: {bad.fault}" in text
    assert "Every call was answered" not in text


async def test_calls_that_bear_no_token_are_told_as_failures() -> None:
    async with DataCenter("eu8", IdentityProvider(20)) as data_center:
        (outcome,) = await make_calls({data_center: data_center.url + CLIENT_PATH}, 0.6, asyncio.Event())
    assert outcome.calls == outcome.failed == outcome.refused > 1
    assert outcome.fault


async def test_calls_that_reach_nobody_are_told_as_failures() -> None:
    async with DataCenter("eu8", IdentityProvider(20)) as data_center:
        url = f"http://127.0.0.1:{free_port()}/"
        (outcome,) = await make_calls({data_center: url}, 0.3, asyncio.Event())
    assert outcome.calls == outcome.failed > 0
    assert outcome.refused == 0


# ── its vendor ───────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def vendor(lifetime: float, names: Sequence[str] = ("eu8", "us5")) -> AsyncIterator[tuple["Caller", ...]]:
    """Data centers of one identity provider, each with somebody who calls it."""
    identity_provider = IdentityProvider(lifetime)
    async with aiohttp.ClientSession() as session:
        data_centers = [DataCenter(name, identity_provider) for name in names]
        async with data_centers[0], data_centers[1]:
            yield tuple(Caller(session, one.url, identity_provider.client_secret) for one in data_centers)


class Caller:
    """The vendor's documentation, acted out."""

    def __init__(self, session: aiohttp.ClientSession, url: str, client_secret: str) -> None:
        self._session = session
        self._url = url
        self._client_secret = client_secret

    async def token(self, secret: str | None = None, **form: str) -> tuple[int, Any]:
        basic = base64.b64encode(f"{CLIENT_ID}:{secret or self._client_secret}".encode()).decode()
        form = form or {"grant_type": "client_credentials"}
        headers = {"Authorization": f"Basic {basic}"}
        async with self._session.post(self._url + TOKEN_PATH, data=form, headers=headers) as answer:
            return answer.status, await answer.json()

    async def call(self, token: str, path: str = CLIENT_PATH) -> tuple[int, Any]:
        async with self._session.get(self._url + path, headers={"Authorization": f"Bearer {token}"}) as answer:
            return answer.status, await answer.json()


async def test_answer_to_a_token_request_is_that_of_the_documentation() -> None:
    async with vendor(20) as (eu8, _):
        status, answer = await eu8.token()
    assert status == 200
    assert answer.keys() == {"access_token", "expires_on", "id_token", "token_type"}
    assert answer["token_type"] == "bearer"
    assert isinstance(answer["expires_on"], int)
    assert 18 < answer["expires_on"] - time.time() <= 20
    assert answer["access_token"].count(".") == 2


async def test_token_is_valid_at_its_data_center_alone() -> None:
    async with vendor(20) as (eu8, us5):
        _, answer = await eu8.token()
        status, client = await eu8.call(answer["access_token"])
        assert (status, client["client_id"]) == (200, CLIENT_ID)
        assert (await eu8.call(answer["access_token"], "/api/2/elsewhere"))[0] == 404
        for refused in (us5.call(answer["access_token"]), eu8.call(answer["id_token"]), eu8.call("made.up.token")):
            status, details = await refused
            assert (status, details["error"]["message"]) == (401, "The token is not known here.")


async def test_expired_token_is_refused_with_details() -> None:
    async with vendor(1.2) as (eu8, _):
        _, answer = await eu8.token()
        await asyncio.sleep(max(answer["expires_on"] - time.time(), 0) + 0.01)
        status, details = await eu8.call(answer["access_token"])
    assert (status, details["error"]["message"]) == (401, "The token has expired.")


async def test_wrong_token_requests_are_refused() -> None:
    async with vendor(20) as (eu8, _):
        assert await eu8.token(secret="wrong") == (401, {"error": "invalid_client"})
        assert await eu8.token(grant_type="password") == (400, {"error": "unsupported_grant_type"})
