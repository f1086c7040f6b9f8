"""The end of a run at awkward moments: amid the start, with work that never ends, with a successor in its place."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import wire
from configs import atlas_config
from harness import Bearward
from problems import assert_problem
from rawproxy import raw_proxy
from together import Together
from vendors import faults
from vendors.atlas import Atlas
from wire import Connection, Message, RawUpstream, Reader, Writer

# How long what is in flight may take, and what the rest of the end may add.
DRAIN = 3.0
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

    async with raw_proxy(folder, limits={"drain_timeout": DRAIN}) as proxy:
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


class InFlight:
    """A script: `/stream` is answered in two parts, `/upload` with its body; `go_on` lets the second part come."""

    def __init__(self) -> None:
        self.count = 0
        self.go_on = asyncio.Event()

    async def __call__(self, request: Message, reader: Reader, writer: Writer) -> None:
        self.count += 1
        if request.target == b"/stream":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
            writer.write(wire.chunk(b"first"))
            await self.go_on.wait()
            writer.write(wire.chunk(b"last") + wire.chunk(b""))
        else:
            body = await reader.readexactly(int(request.values("Content-Length")[0]))
            writer.write(wire.ok(body, b"Connection: close"))
        await writer.drain()


@together
async def test_nothing_in_flight_is_lost(folder: Path) -> None:
    """Fifty requests at SIGTERM: answers that stream, uploads, and some that wait for a token.

    What only waits for a next request is closed at once, and what had begun to ask hears why there is no answer.
    """
    half = bytes(50_000)
    async with AsyncExitStack() as stack:
        atlas, late = [await stack.enter_async_context(Atlas()) for _ in range(2)]
        upstream = await stack.enter_async_context(RawUpstream())
        late.token_faults.mode = hold = faults.Hold()
        config = atlas_config({"atlas": atlas, "late": late}, upstream=upstream.url)
        bearward = await stack.enter_async_context(Bearward(config, folder, until="/readyz"))
        host = b" HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % bearward.port

        async def open_with(sent: bytes, count: int = 1) -> list[Connection]:
            connections = [await stack.enter_async_context(bearward.connect()) for _ in range(count)]
            for connection in connections:
                await connection.send(sent)
            return connections

        fresh, idle = await open_with(b""), await open_with(b"GET /atlas/x" + host + b"\r\n")
        assert (await wire.read_answer(idle[0].reader)).status == 200
        begun = await open_with(b"GET /atlas/x" + host)
        upstream.script = script = InFlight()
        upload = b"Content-Length: %d\r\n\r\n" % (2 * len(half))
        waiting = await open_with(b"POST /late/upload" + host + upload + half + half, 15)
        uploads = await open_with(b"POST /atlas/upload" + host + upload + half, 15)
        streams = await open_with(b"GET /atlas/stream" + host + b"\r\n", 20)
        async with asyncio.timeout(30):
            while script.count < 35 or (await bearward.metrics()).total("token_waiters") < 15:
                await asyncio.sleep(0.02)

        bearward.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SLACK):
            for connection in fresh + idle:
                assert await connection.closed() == b""
            assert_problem(await begun[0].exchange(b"\r\n"), 503, "draining")
            await wire.close(begun[0].writer)  # else it has two seconds to read this
        for connection in uploads:
            await connection.send(half)
        script.go_on.set()
        hold.release()
        for connection in streams + uploads + waiting:
            answer = await wire.read_answer(connection.reader)
            assert (answer.status, answer.body) == (200, b"firstlast" if connection in streams else half + half)
            assert await connection.closed() == b""
        async with asyncio.timeout(SLACK):
            assert await bearward.exit_code() == 0


@together
async def test_a_tunnel_has_the_time_of_the_drain(folder: Path) -> None:
    """It goes on until then; the time is that of the last config. A second signal, of any kind, waits for nothing."""

    async def echo(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        while piece := await reader.read(wire.LIMIT):
            writer.write(piece)
            await writer.drain()

    for second in (None, signal.SIGINT):
        place = folder / str(second)
        place.mkdir()
        async with raw_proxy(place) as proxy, proxy.bearward.connect() as client:
            proxy.upstream.script = echo
            bearward = proxy.bearward
            if second is None:
                await bearward.reload(bearward.config_file.read_text() + "limits: {drain_timeout: 1s}\n")
            await client.send(proxy.request(b"/raw/chat", b"Connection: upgrade", b"Upgrade: echo"))
            assert Message(await wire.read_head(client.reader), b"", b"").status == 101
            start = time.monotonic()
            bearward.process.send_signal(signal.SIGTERM)
            await bearward.refuses_connections()
            await client.send(b"still here")
            assert await client.reader.readexactly(10) == b"still here"
            if second is None:
                assert await bearward.exit_code() == 0
                assert 1 <= time.monotonic() - start < 1 + SLACK
            else:
                assert await bearward.terminate(second) == 128 + second
                assert time.monotonic() - start < SLACK
            assert await client.closed() == b""
