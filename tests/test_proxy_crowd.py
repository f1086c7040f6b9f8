"""How many connections there may be. Rule 23: `connections` bounds them; who does not ask gives way to who does."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

import wire
from problems import assert_problem
from rawproxy import AT_ONCE, RawProxy, raw_proxy
from wire import Connection, Message, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTIONS = 8
CROWD = 2000
SERVED_WITHIN = 5.0
"""Seconds, amid a crowd on a busy machine."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_narrow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RawProxy]:
    """One that takes few connections."""
    async with raw_proxy(tmp_path_factory.mktemp("narrow"), limits={"connections": CONNECTIONS}) as narrow:
        yield narrow


@pytest.fixture
def narrow(module_narrow: RawProxy) -> RawProxy:
    module_narrow.upstream.reset()
    return module_narrow


class Held:
    """A script that answers when it may; `arrived` counts the requests."""

    def __init__(self) -> None:
        self.arrived, self.may_answer = asyncio.Semaphore(0), asyncio.Event()

    async def __call__(self, _request: Message, _reader: Reader, writer: Writer) -> None:
        self.arrived.release()
        await self.may_answer.wait()
        writer.write(wire.ok(b"held", b"Connection: close"))
        await writer.drain()


async def connected(stack: AsyncExitStack, proxy: RawProxy, count: int) -> list[Connection]:
    return [await stack.enter_async_context(proxy.bearward.connect()) for _ in range(count)]


async def is_closed(connection: Connection) -> None:
    """The other side closes, and says nothing."""
    async with asyncio.timeout(AT_ONCE):
        assert await connection.closed() == b""


@pytest.mark.parametrize("target", [b"/raw/x", b"/nowhere"], ids=["answered upstream", "answered here"])
async def test_who_has_waited_longest_gives_way(narrow: RawProxy, target: bytes) -> None:
    """Rule 23: an idle connection is closed in favour of a new one, the longest idle first."""
    async with AsyncExitStack() as stack:
        idle = await connected(stack, narrow, CONNECTIONS)
        for connection in [*idle, idle[0]]:
            assert (await connection.exchange(narrow.request(target))).status in {200, 404}
        assert (await narrow.get(b"/raw/new")).status == 200
        await is_closed(idle.pop(1))
        for connection in idle:
            assert (await connection.exchange(narrow.request(b"/raw/x"))).status == 200


@pytest.mark.parametrize("begun", [0, 1, 40], ids=["silent", "a byte", "half a head"])
async def test_who_has_not_asked_yet_gives_way(narrow: RawProxy, begun: int) -> None:
    """Rule 23: a head that is not whole is no request in progress."""
    async with AsyncExitStack() as stack:
        waiting = await connected(stack, narrow, CONNECTIONS)
        for connection in waiting:
            await connection.send(narrow.request(b"/raw/x", b"X-Long: ".ljust(100, b"x"))[:begun])
        assert (await narrow.get(b"/raw/new")).status == 200
        await is_closed(waiting[0])
        rest = narrow.request(b"/raw/x", b"X-Long: ".ljust(100, b"x"))[begun:]
        assert (await waiting[-1].exchange(rest)).status == 200


async def test_who_is_being_answered_does_not_give_way(narrow: RawProxy) -> None:
    """Rule 23: where all have a request in progress, the new one is told to come back."""
    narrow.upstream.script = held = Held()
    async with AsyncExitStack() as stack:
        stack.callback(held.may_answer.set)
        asking = await connected(stack, narrow, CONNECTIONS)
        for connection in asking:
            await connection.send(narrow.request(b"/raw/x"))
            await held.arrived.acquire()
        async with narrow.bearward.connect() as late:
            await late.send(narrow.request(b"/raw/late"))
            async with asyncio.timeout(AT_ONCE):
                answer = await wire.read_answer(late.reader)
                assert await late.reader.read() == b""
        assert_problem(answer, 503, "overloaded")
        assert answer.values("Connection") == [b"close"]
        assert len(narrow.upstream.requests) == CONNECTIONS
        held.may_answer.set()
        for connection in asking:
            assert (await wire.read_answer(connection.reader)).body == b"held"
        assert (await narrow.get(b"/raw/again")).status == 200
    assert (await narrow.bearward.metrics()).total("rejected_requests_total", reason="overloaded") >= 1


async def test_an_upload_is_a_request_in_progress(narrow: RawProxy) -> None:
    """Rule 23: it does not give way while its body is on the way, however slowly."""
    sent = narrow.request(b"/raw/x", b"Content-Length: 2", method=b"POST", body=b"a")
    async with AsyncExitStack() as stack:
        (uploading,) = await connected(stack, narrow, 1)
        await uploading.send(sent)
        # Whether its head has been read by now, only an answer to someone later tells.
        for connection in await connected(stack, narrow, CONNECTIONS - 1):
            assert (await connection.exchange(narrow.request(b"/raw/y"))).status == 200
        for _ in range(CONNECTIONS):
            (new,) = await connected(stack, narrow, 1)
            assert (await new.exchange(narrow.request(b"/raw/new"))).status == 200
        assert (await uploading.exchange(b"b")).status == 200


FEW_DESCRIPTORS = 'ulimit -n 256; exec "$@"'


@pytest.mark.parametrize("shell", [None, FEW_DESCRIPTORS], ids=["as usual", "few file descriptors"])
async def test_a_crowd_that_never_asks(tmp_path: Path, shell: str | None) -> None:
    """Rule 23: 2,000 half heads keep nobody from being served, nor from probes and tokens; nor do they fill the log."""
    async with raw_proxy(tmp_path, shell=shell) as proxy, AsyncExitStack() as stack:
        begun = proxy.request(b"/raw/x")[:-2]
        for connection in await connected(stack, proxy, CROWD):
            connection.writer.write(begun)
        for n in range(3):
            began = time.monotonic()
            assert (await proxy.get(b"/raw/normal")).status == 200
            # A token that is not there yet: of a principal nobody has asked for.
            answer = await proxy.get(b"/principal/x", b"X-User-Id: user-%d" % n)
            assert answer.status == 200
            for probe in ("/livez", "/readyz", "/metrics"):
                assert (await proxy.bearward.admin(probe)).status == 200
            assert time.monotonic() - began < SERVED_WITHIN
        proxy.bearward.assert_no_fault()
        output = proxy.bearward.output()
        assert sum(output.count(b'"level": "%b"' % level) for level in (b"warning", b"error", b"critical")) < 10
