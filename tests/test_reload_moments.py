"""SIGHUP at awkward moments: with a faulty file, amid requests, amid the start and the end."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wire
from configs import Config, atlas_config, atlas_credential, ocp_config
from evidence import new_secret
from harness import Bearward
from test_stop import config_is_being_read, port_is_open
from together import Together
from vendors import faults
from vendors.atlas import Atlas
from vendors.ocp import Ocp
from wire import Connection, Message, RawUpstream

together = Together()


def raw_config(atlas: Atlas, upstream: RawUpstream, **header: str) -> Config:
    """The route `/atlas` to this upstream, which is sent this header."""
    headers: dict[str, Any] = {"set": {name.replace("_", "-"): value for name, value in header.items()}}
    return atlas_config({"atlas": atlas}, upstream=upstream.url, request_headers=headers)


def a_post(bearward: Bearward, body: bytes) -> bytes:
    """As a client sends it."""
    host = b"127.0.0.1:%d" % bearward.port
    return b"POST /atlas/x HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n%b" % (host, len(body), body)


@together
async def test_a_fault_changes_nothing(folder: Path) -> None:
    """It shows in log and metrics, without what may be secret, until a good file comes."""
    event, name = "config at fault, the last one stays in force", "config_last_reload_success"
    secret = new_secret("mistyped secret")
    async with Atlas() as atlas, Bearward(atlas_config({"atlas": atlas}), folder) as bearward:
        file, good = bearward.config_file, atlas_config({"atlas": atlas}) | {"log": {"level": "error"}}

        def credential(**more: Any) -> Config:
            return good | {"credentials": {"atlas": atlas_credential(atlas, **more)}}

        faulty: dict[str, Callable[[], object]] = {
            r":\d+:5: credentials\.atlas\.client_secrt: unknown key": lambda: bearward.write(
                credential(client_secrt=secret)
            ),
            r":\d+:\d+: credentials\.atlas\.client_secret\.file: ": lambda: bearward.write(
                credential(client_secret={"file": "no-such-file"})
            ),
            r":1:\d+: a comma or a bracket is missing": lambda: file.write_text(f"credentials: {{a: [{secret}\n"),
            r":1:1: .*UTF-8": lambda: file.write_bytes(b"\xff" + secret.encode()),
            r":1:1: cannot read .*No such file": file.unlink,
            r":1:1: .*not a regular file": lambda: os.mkfifo(file),
        }
        before, status = await bearward.metrics(), await bearward.status()
        for count, (told, spoil) in enumerate(faulty.items(), 1):
            spoil()
            bearward.process.send_signal(signal.SIGHUP)
            line = (await bearward.logs(event, count))[-1]
            assert re.match(re.escape(str(file)) + told, line["first"]), line
            assert secret not in line["first"]
            metrics = await bearward.metrics()
            assert metrics.total("config_last_reload_successful") == 0
            assert metrics.matching(f"{name}_timestamp_seconds") == before.matching(f"{name}_timestamp_seconds")
            assert (await bearward.get("/atlas/accountreports")).status == 200
        after = await bearward.status()
        assert after["credentials"] == status["credentials"]
        assert after["routes"] == status["routes"]
        now = time.time()
        await bearward.reload(good)
        metrics = await bearward.metrics()
        assert metrics.total("config_last_reload_successful") == 1
        assert metrics.total(f"{name}_timestamp_seconds") >= now
    assert len(atlas.token_requests) == 1


@together
async def test_no_request_is_lost_or_half_changed(folder: Path) -> None:
    """Ten reloads between two upstreams, each with a header of its own, while eight clients ask without a pause."""
    is_over = asyncio.Event()
    names = (b"one", b"two")

    async def ask(connection: Connection, request: bytes) -> list[bytes]:
        bodies = []
        while not is_over.is_set():
            answer = await connection.exchange(request)
            assert answer.status == 200
            bodies.append(answer.body)
            await asyncio.sleep(0.002)  # who reads the config wants some of the processor too
        return bodies

    async def ask_on_one_connection(bearward: Bearward, size: int) -> list[bytes]:
        async with bearward.connect() as connection:
            return await ask(connection, a_post(bearward, bytes(size)))

    async with Atlas() as atlas, RawUpstream() as one, RawUpstream() as two:
        upstreams = dict(zip(names, (one, two), strict=True))
        for name, upstream in upstreams.items():
            upstream.answer = wire.ok(name * 10_000)
        configs = [raw_config(atlas, upstream, X_Name=name.decode()) for name, upstream in upstreams.items()]
        async with Bearward(configs[1], folder) as bearward:
            clients = [asyncio.create_task(ask_on_one_connection(bearward, size)) for size in [10, 100_000] * 4]
            for number in range(10):
                await bearward.reload(configs[number % 2])
            is_over.set()
            bodies = [body for client in clients for body in await client]
        assert len(bodies) > 300
        for name, upstream in upstreams.items():
            assert upstream.requests
            assert bodies.count(name * 10_000) == len(upstream.requests), "each went out once, and its answer is whole"
            assert {tuple(request.values("X-Name")) for request in upstream.requests} == {(name,)}
            assert {len(request.body) for request in upstream.requests} == {10, 100_000}
        assert sum(len(upstream.requests) for upstream in upstreams.values()) == len(bodies)
        assert len(atlas.token_requests) == 1


@together
async def test_the_last_of_many_wins(folder: Path) -> None:
    """Fifty within a moment, each after a file of its own."""

    def numbers(request: Message) -> list[bytes]:
        return request.values("X-Number")

    async with Atlas() as atlas, RawUpstream() as upstream:
        async with Bearward(raw_config(atlas, upstream, X_Number="-1"), folder) as bearward:
            for number in range(50):
                bearward.write(raw_config(atlas, upstream, X_Number=str(number)))
                bearward.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(30):
                while not upstream.requests or numbers(upstream.requests[-1]) != [b"49"]:
                    assert (await bearward.get("/atlas/x")).status == 200
                    await asyncio.sleep(0.02)
            await bearward.reload()
            assert (await bearward.get("/atlas/x")).status == 200
            assert (await bearward.metrics()).total("config_last_reload_successful") == 1
        assert numbers(upstream.requests[-1]) == [b"49"]
        assert len(atlas.token_requests) == 1


@together
async def test_amid_the_start(folder: Path) -> None:
    """While the config is read for the first time, and before anything is served."""
    for moment in (config_is_being_read, port_is_open):
        place = folder / moment.__name__
        place.mkdir()
        async with Atlas() as atlas, Bearward(atlas_config({"atlas": atlas}), place, until=None) as bearward:
            async with asyncio.timeout(30):
                await moment(bearward)
            bearward.process.send_signal(signal.SIGHUP)
            await bearward.logs("token refreshed")
            assert (await bearward.get("/atlas/accountreports")).status == 200


@together
async def test_amid_the_end(folder: Path) -> None:
    """SIGTERM right behind SIGHUP, and SIGHUP while a request is still in flight: it ends, and the session too."""
    async with Ocp() as ocp:
        hold = faults.Hold()
        async with Bearward(ocp_config(ocp), folder) as bearward:
            ocp.api_faults.fail_next(1, hold)
            in_flight = asyncio.create_task(bearward.get("/ocp/things"))
            await hold.arrived.wait()
            for number in (signal.SIGHUP, signal.SIGTERM):
                bearward.process.send_signal(number)
            await bearward.refuses_connections()
            for _ in range(3):
                bearward.process.send_signal(signal.SIGHUP)
                await asyncio.sleep(0.01)
            hold.release()
            assert (await in_flight).status == 200
            assert await bearward.exit_code() == 0
            assert await bearward.logs("config read again", 0) == []
        assert len(ocp.logouts) == 1
        assert ocp.live_sessions == []
