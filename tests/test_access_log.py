"""The access log: a line for each request of a route; and a log whose reader stalls or leaves costs nobody anything."""

import asyncio
import hashlib
import json
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import bearward.events
import wire
from bearward.ops import sink
from configs import Config, atlas_credential
from documents import MONITOR, code
from evidence import EVIDENCE, new_secret
from harness import Bearward
from ports import free_port
from problems import assert_problem
from vendors import faults
from vendors.atlas import Atlas
from wire import Message, RawUpstream, Reader, Writer

in_module_loop = pytest.mark.asyncio(loop_scope="module")

FIELDS = list(bearward.events.RequestDone.__slots__)
TIMEOUT = 20.0
Line = dict[str, Any]


def lines_of(output: bytes) -> list[Line]:
    """The lines of the access log among the others, all of which must be whole."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
    return [line for line in lines if line["event"] == "request done"]


def config_of(atlas: Atlas, upstream: RawUpstream, **log: str) -> Config:
    """The route `/raw` to the upstream, without any other lines than those of the access log."""
    return {
        "credentials": {"atlas": atlas_credential(atlas)},
        "routes": {"/raw": {"upstream": f"{upstream.url}/base", "credential": "atlas"}},
        "log": {"level": "error", "format": "json", "access": "all"} | log,
    }


@dataclass
class Logged:
    """A product that logs every request."""

    bearward: Bearward
    upstream: RawUpstream
    short: Atlas

    def request(self, target: bytes, *lines: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
        host = b"Host: 127.0.0.1:%d" % self.bearward.port
        return b"\r\n".join([method + b" " + target + b" HTTP/1.1", host, *lines, b"", body])

    async def line(self, path: str) -> Line:
        """The one line of this path; it is written a moment after the answer."""
        async with asyncio.timeout(TIMEOUT):
            while not (found := [line for line in self.lines() if line["path"] == path]):
                await asyncio.sleep(0.01)
        (line,) = found
        return line

    def lines(self) -> list[Line]:
        whole, _, _ = self.bearward.output().rpartition(b"\n")
        return lines_of(whole)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_logged(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Logged]:
    async with AsyncExitStack() as stack:
        atlas = await stack.enter_async_context(Atlas())
        short = await stack.enter_async_context(Atlas(3.0))
        upstream = await stack.enter_async_context(RawUpstream())
        config = config_of(atlas, upstream)
        config["credentials"]["short"] = atlas_credential(short)
        config["routes"] |= {
            "/short": {"upstream": short.api, "credential": "short"},
            "/nobody": {"upstream": f"http://127.0.0.1:{free_port()}", "credential": "atlas"},
        }
        folder = tmp_path_factory.mktemp("access")
        bearward = await stack.enter_async_context(Bearward(config, folder, name="access"))
        yield Logged(bearward, upstream, short)


@pytest.fixture
def logged(module_logged: Logged) -> Logged:
    module_logged.upstream.reset()
    return module_logged


@in_module_loop
async def test_a_line_tells_the_facts_of_a_request(logged: Logged) -> None:
    secret = new_secret("query value")
    body = b"x" * 1000
    length = b"Content-Length: %d" % len(body)
    before = time.time()
    answer = await logged.bearward.raw(
        logged.request(b"/raw/facts?key=" + secret.encode(), length, method=b"POST", body=body)
    )
    assert answer.status == 200
    line = await logged.line("/raw/facts")
    assert list(line) == [*FIELDS, "event", "level", "time"]
    expected = {"route": "/raw", "method": "POST", "code": 200, "origin": "upstream", "replayed": False}
    assert {name: line[name] for name in expected} == expected
    assert (line["request_bytes"], line["response_bytes"]) == (len(body), len(answer.body))
    (authorization,) = logged.upstream.only_request.values("Authorization")
    assert line["token"] == hashlib.sha256(authorization.removeprefix(b"Bearer ")).hexdigest()[:8]
    assert 0 < line["upstream_seconds"] <= line["seconds"] < time.time() - before
    assert 0 <= line["token_seconds"] <= line["seconds"]
    assert before - 1 < time.mktime(time.strptime(line["time"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone < time.time()
    assert secret.encode() not in logged.bearward.output()


@in_module_loop
@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/raw/a%20b?q", "/raw/a%20b"),
        (b'/raw/"quoted"={}', '/raw/"quoted"={}'),
        (b"/raw?q", "/raw"),
    ],
)
async def test_a_path_is_one_word_whatever_it_is_made_of(logged: Logged, target: bytes, path: str) -> None:
    assert (await logged.bearward.raw(logged.request(target))).status == 200
    assert (await logged.line(path))["code"] == 200


@in_module_loop
async def test_bytes_that_are_no_ascii_do_not_reach_the_log(logged: Logged) -> None:
    """A target of such bytes is no valid one (RFC 3986 §2): refused, or told in escapes."""
    answer = await logged.bearward.raw(logged.request("/raw/ä\u202e".encode()))
    if answer.status == 200:
        await logged.line("/raw/%C3%A4%E2%80%AE")
    else:
        assert_problem(answer, 400, "bad_request")
    assert logged.bearward.output().isascii()


@in_module_loop
async def test_an_answer_of_bearwards_own_is_told_as_such(logged: Logged) -> None:
    assert (await logged.bearward.get("/nobody/own")).summary == (502, "upstream_unreachable")
    line = await logged.line("/nobody/own")
    assert (line["code"], line["origin"], line["route"]) == (502, "proxy", "/nobody")


@in_module_loop
async def test_what_no_route_takes_has_no_line(logged: Logged) -> None:
    assert (await logged.bearward.get("/nowhere")).summary == (404, "no_route")
    assert (await logged.bearward.get("/raw/after")).status == 200
    await logged.line("/raw/after")
    assert "/nowhere" not in {line["path"] for line in logged.lines()}


@in_module_loop
async def test_a_client_that_left_is_told(logged: Logged) -> None:
    is_asked, is_left = asyncio.Event(), asyncio.Event()

    async def never_answer(_request: Message, reader: Reader, _writer: Writer) -> None:
        is_asked.set()
        await reader.read()
        is_left.set()

    logged.upstream.script = never_answer
    async with logged.bearward.connect() as client:
        await client.send(logged.request(b"/raw/left"))
        await is_asked.wait()
    await is_left.wait()
    line = await logged.line("/raw/left")
    assert (line["code"], line["response_bytes"]) == (499, 0)


@in_module_loop
async def test_a_replay_is_told_with_the_token_that_went_last(logged: Logged) -> None:
    """The first token is refused after the second one came."""
    atlas, hold = logged.short, faults.Hold(faults.unauthorized())
    newest = len(atlas.token_requests)
    atlas.api_faults.fail_next(1, hold)
    asked = asyncio.create_task(logged.bearward.get("/short/accountreports"))
    await hold.arrived.wait()
    # The one after the next was asked for when the next was in use.
    await atlas.wait_for(lambda vendor: len(vendor.token_requests) >= newest + 2)
    hold.release()
    assert (await asked).status == 200
    line = await logged.line("/short/accountreports")
    assert (line["replayed"], line["code"]) == (True, 200)
    carried = atlas.calls[-1].token
    assert carried is not None
    assert carried is not atlas.calls[-2].token
    assert line["token"] == hashlib.sha256(carried.text.encode()).hexdigest()[:8]


async def test_errors_alone_as_text(tmp_path: Path) -> None:
    async with Atlas() as atlas, RawUpstream() as upstream:
        config = config_of(atlas, upstream, access="errors", format="text")
        async with Bearward(config, tmp_path) as bearward:
            assert (await bearward.get("/raw/good")).status == 200
            upstream.answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
            assert (
                await bearward.raw(b'GET /raw/"bad" HTTP/1.1\r\nHost: localhost:%d\r\n\r\n' % bearward.port)
            ).status == 400
            assert await bearward.terminate() == 0
        (line,) = [line for line in bearward.output().decode().splitlines() if "request done" in line]
    found = re.fullmatch(r"\d\d:\d\d:\d\d info +request done +(.*)", line)
    assert found, line
    told = dict(fact.split("=", 1) for fact in found[1].split(" "))
    assert list(told) == FIELDS
    assert (told["path"], told["code"], told["origin"]) == (r'"/raw/\"bad\""', "400", "upstream")


async def test_the_end_writes_what_is_left_in_order(tmp_path: Path) -> None:
    paths = [f"/raw/{number}" for number in range(200)]
    async with Atlas() as atlas, RawUpstream() as upstream:
        async with Bearward(config_of(atlas, upstream, level="info"), tmp_path) as bearward:
            for path in paths:
                assert (await bearward.get(path)).status == 200
            assert await bearward.terminate() == 0
        assert [line["path"] for line in lines_of(bearward.output())] == paths
        assert json.loads(bearward.output().splitlines()[-1])["event"] == "stopped"


class Pipe:
    """A product's standard error as a pipe that is read only when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "stderr"
        os.mkfifo(self.path)
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self._kept = EVIDENCE.open_folder("pipe") / "stderr"
        self.content = b""

    @property
    def shell(self) -> str:
        return f'exec "$@" 2>{self.path}'

    def close(self) -> None:
        os.close(self._descriptor)

    async def read_to(self, pattern: bytes) -> None:
        """Reads on until there is a match, or the other side has closed."""
        async with asyncio.timeout(TIMEOUT):
            while not re.search(pattern, self.content):
                try:
                    if not (more := os.read(self._descriptor, 1 << 20)):
                        break
                    self.content += more
                except BlockingIOError:
                    await asyncio.sleep(0.01)
        self._kept.write_bytes(self.content)


async def ask(bearward: Bearward, start: int, end: int) -> None:
    """Requests with long paths that tell their number; each must be answered."""

    async def client(numbers: range) -> None:
        async with bearward.connect() as connection:
            for number in numbers:
                request = b"GET /raw/%d/%b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (
                    number,
                    b"x" * 2000,
                    bearward.port,
                )
                assert (await connection.exchange(request)).status == 200

    async with asyncio.timeout(60):
        await asyncio.gather(*(client(range(start + each, end, 8)) for each in range(8)))


async def test_a_reader_that_stalls_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    many, room = 2500, 3 << 20
    pipe = Pipe(tmp_path)
    async with (
        Atlas() as atlas,
        RawUpstream() as upstream,
        Bearward(config_of(atlas, upstream), tmp_path, shell=pipe.shell) as bearward,
    ):
        await ask(bearward, 0, 50)
        growth = bearward.memory_growth()
        await ask(bearward, 50, many)
        assert growth() < 2 * room, "what waits for its reader is bounded"
        await pipe.read_to(rb'"event": "log lines dropped".*\n')
        *whole, rest = pipe.content.split(b"\n")
        lines = [json.loads(line) for line in whole]
        assert rest == b""
        (notice,) = [line for line in lines if line["event"] == "log lines dropped"]
        told = [int(line["path"].split("/")[2]) for line in lines if line["event"] == "request done"]
        assert len(told) == len(set(told)) == len(lines) - 1
        assert (notice["level"], notice["count"]) == ("warning", many - len(told))
        assert len(told) * 2000 < room
        assert lines[-1] == notice, "it stands where the lines are missing"

        flags = Path(f"/proc/{bearward.process.pid}/fdinfo/2").read_text().splitlines()[1].split()[1]
        assert not int(flags, 8) & os.O_NONBLOCK, "whoever shares the descriptor finds it as it was"

        # As many as the pipe does not hold: the end comes while one is being written.
        await ask(bearward, many, many + 100)
        start = time.monotonic()
        assert await bearward.terminate() == 0
        assert time.monotonic() - start < 5
    pipe.close()


async def test_a_reader_that_leaves_costs_nothing(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path)
    async with (
        Atlas() as atlas,
        RawUpstream() as upstream,
        Bearward(config_of(atlas, upstream), tmp_path, shell=pipe.shell) as bearward,
    ):
        await ask(bearward, 0, 100)
        pipe.close()
        await ask(bearward, 100, 200)
        assert await bearward.terminate() == 0


def test_the_docs_tell_every_fact() -> None:
    assert [code(row[0]) for row in MONITOR.table("Access log")] == FIELDS
    (example,) = [block.body for block in MONITOR.of("text") if "request done" in block.body]
    assert list(json.loads(example)) == [*FIELDS, "event", "level", "time"]
    assert (sink.MOST_BYTES, sink.LAST_WAIT) == (1 << 20, 1)
    assert "up to 1 MiB of them wait" in MONITOR.text
    assert "waits 1 s for the reader" in " ".join(MONITOR.text.split())


@in_module_loop
async def test_a_tunnel_is_told_with_the_bytes_of_both_directions(logged: Logged) -> None:
    """What came right behind the handshake included."""
    early, later, told = b"e" * 100, b"l" * 2000, b"t" * 300

    async def switch(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + told)
        assert await reader.readexactly(len(early + later)) == early + later

    logged.upstream.script = switch
    async with logged.bearward.connect() as client:
        await client.send(logged.request(b"/raw/tunnel", b"Connection: Upgrade", b"Upgrade: tcp", body=early))
        assert (await wire.read_head(client.reader)).startswith(b"HTTP/1.1 101 ")
        await client.send(later)
        assert await client.closed() == told
    line = await logged.line("/raw/tunnel")
    assert (line["code"], line["origin"]) == (101, "upstream")
    assert (line["request_bytes"], line["response_bytes"]) == (len(early + later), len(told))
