"""The end of a run at awkward moments: amid the start, with work that never ends, with a successor in its place."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import wire
from configs import atlas_config
from harness import Bearward
from rawproxy import raw_proxy
from together import Together
from vendors import faults
from vendors.atlas import Atlas
from wire import Message, Reader, Writer

# How long what is in flight may take, and what the rest of the end may add.
DRAIN = 30.0
SLACK = 4.0

together = Together()


@together
async def test_work_without_end_is_ended(folder: Path) -> None:
    """An event stream that never pauses and a call that is never answered, both in flight at SIGTERM."""
    is_asked = asyncio.Event()

    async def tell(request: Message, reader: Reader, writer: Writer) -> None:
        if request.target.endswith(b"/unanswered"):
            is_asked.set()
            await reader.read()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(wire.chunk(b"data: 1\n\n"))
            await writer.drain()
            await asyncio.sleep(0.1)

    async with raw_proxy(folder) as proxy:
        proxy.upstream.script = tell
        async with proxy.bearward.connect() as stream, proxy.bearward.connect() as waiting:
            await stream.send(proxy.request(b"/raw/events"))
            await wire.read_head(stream.reader)
            await waiting.send(proxy.request(b"/raw/unanswered"))
            await is_asked.wait()
            start = time.monotonic()
            assert await proxy.bearward.terminate() == 0
            assert DRAIN - 1 < time.monotonic() - start < DRAIN + SLACK
            rest = await stream.closed()
            assert rest.endswith(b"data: 1\n\n\r\n"), "an end would make it look whole"
            assert await waiting.closed() == b""


async def config_is_being_read(bearward: Bearward) -> None:
    """Wait for the process that reads the config; at that time nothing else tells that there is a bearward."""
    children = Path(f"/proc/{bearward.process.pid}/task/{bearward.process.pid}/children")
    while not children.read_text():
        await asyncio.sleep(0.005)


async def port_is_open(bearward: Bearward) -> None:
    """Wait for the data port; nothing serves it yet."""
    while True:
        try:
            async with bearward.connect():
                return
        except ConnectionRefusedError:
            await asyncio.sleep(0.005)


@together
async def test_a_signal_amid_the_start_is_obeyed(folder: Path) -> None:
    async def end(moment: Callable[[Bearward], Awaitable[None]], number: signal.Signals) -> tuple[int, bytes]:
        place = folder / f"{moment.__name__}-{number.name}"
        place.mkdir()
        async with Bearward(atlas_config({"atlas": atlas}), place, until=None) as bearward:
            async with asyncio.timeout(30):
                await moment(bearward)
            return await bearward.terminate(number), bearward.output()

    async with Atlas() as atlas:
        for moment in (config_is_being_read, port_is_open):
            for number in (signal.SIGTERM, signal.SIGINT):
                code, output = await end(moment, number)
                assert code == 0, f"{number.name} when {moment.__name__}: {code}\n{output.decode()}"


@together
async def test_a_successor_keeps_its_unix_socket(folder: Path) -> None:
    """The old process ends its last call while the new one serves at the same path."""
    path = folder / "bearward.sock"
    places = [folder / "old", folder / "new"]
    for place in places:
        place.mkdir()
    async with Atlas() as atlas:
        config = atlas_config({"atlas": atlas}) | {"listen": f"unix:{path}"}
        hold = faults.Hold()
        request = b"GET /atlas/accountreports HTTP/1.1\r\nHost: localhost\r\n\r\n"
        async with Bearward(config, places[0]) as old:
            atlas.api_faults.fail_next(1, hold)
            in_flight = asyncio.create_task(old.raw(request))
            await hold.arrived.wait()
            old.process.send_signal(signal.SIGTERM)
            await old.refuses_connections()
            async with Bearward(config, places[1]) as new:
                hold.release()
                assert (await in_flight).status == 200
                assert await old.exit_code() == 0
                assert (await new.raw(request)).status == 200
        assert not path.exists(), "the last one leaves nothing behind"
