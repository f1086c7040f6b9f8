"""Connections to upstreams: kept, shared by nobody else, bounded, waited for: rules 15 to 18 and 23 of a crossing."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

import wire
from problems import assert_problem
from rawproxy import AT_ONCE, RawProxy
from tls import Authority, TlsUpstream
from upstreams import SOON, Keep, Say, forget_connections, proxy_before
from wire import Message, RawUpstream, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 4
CONNECT_TIMEOUT = 1.0
PATIENCE = 20.0
FEW = 10
"""So many calls at least are served while another waits for a second; were they to wait for it, one would be."""


@dataclass
class Pool:
    """`/brief` and `/patient` lead to one upstream and differ in how long they wait, `/other` leads to another."""

    proxy: RawProxy
    other: RawUpstream

    @property
    def upstream(self) -> RawUpstream:
        return self.proxy.upstream


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """A port whose listener takes no more connections: the kernel lets further ones wait without an answer."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    async with RawUpstream() as upstream, RawUpstream() as other:
        with full_backlog() as full:
            routes = {
                "/brief": {"connect_timeout": CONNECT_TIMEOUT},
                "/patient": {"connect_timeout": PATIENCE},
                "/other": {"upstream": other.url},
                "/by-name": {"upstream": f"http://localhost:{other.port}"},
                "/full": {"upstream": f"http://127.0.0.1:{full}", "connect_timeout": CONNECT_TIMEOUT},
            }
            limits = {"upstream_connections": LIMIT}
            folder = tmp_path_factory.mktemp("pool")
            async with proxy_before(upstream, routes, folder, limits=limits) as proxy:
                yield Pool(proxy, other)


@pytest_asyncio.fixture(loop_scope="module")
async def pool(module_pool: Pool) -> Pool:
    """The module's product, without connections, before upstreams that have seen nothing and answer 200."""
    await forget_connections(module_pool.proxy, module_pool.upstream, b"/patient/x")
    await forget_connections(module_pool.proxy, module_pool.other, b"/other/x")
    await forget_connections(module_pool.proxy, module_pool.other, b"/by-name/x")
    return module_pool


class Hold:
    """A script that answers each request when it may; the connection closes after it."""

    def __init__(self) -> None:
        self.arrived = asyncio.Queue[Message]()
        self.may_answer = asyncio.Semaphore(0)
        self.open = 0
        self.most = 0

    async def __call__(self, request: Message, _reader: Reader, writer: Writer) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        self.arrived.put_nowait(request)
        await self.may_answer.acquire()
        self.open -= 1
        writer.write(wire.ok(request.target, b"Connection: close"))
        await writer.drain()

    async def has_all(self, count: int = LIMIT) -> None:
        """Wait until `count` more requests have come."""
        async with asyncio.timeout(SOON):
            for _ in range(count):
                await self.arrived.get()

    def release(self, count: int) -> None:
        for _ in range(count):
            self.may_answer.release()


@contextlib.asynccontextmanager
async def filled(pool: Pool) -> AsyncIterator[Hold]:
    """The pool of `upstream` is full of requests that wait for their answers; they get them in the end."""
    pool.upstream.script = hold = Hold()
    waiting = [asyncio.create_task(pool.proxy.get(b"/patient/%d" % n)) for n in range(LIMIT)]
    await hold.has_all()
    yield hold
    hold.release(1000)
    assert {(await task).body for task in waiting} == {b"/%d" % n for n in range(LIMIT)}


async def test_a_connection_is_used_again(pool: Pool) -> None:
    pool.upstream.script = keep = Keep()
    for n in range(3):
        assert (await pool.proxy.get(b"/brief/%d" % n)).status == 200
    assert keep.connections == [[b"/0", b"/1", b"/2"]]


@pytest.mark.parametrize(
    "answer",
    [
        wire.ok(b"ok", b"Connection: close"),
        wire.ok(b"ok", b"Connection: x, Close"),
        wire.ok().replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
    ids=["close", "close among others", "HTTP/1.0", "close, chunked"],
)
async def test_a_connection_that_is_to_close_is_closed(pool: Pool, answer: bytes) -> None:
    """The upstream waits for that, and would answer a further request."""
    pool.upstream.script = keep = Say(answer)
    assert (await pool.proxy.get(b"/brief/x")).body == b"ok"
    await keep.is_left()
    assert keep.heard == b""


async def test_an_http_1_0_connection_may_be_kept(pool: Pool) -> None:
    pool.upstream.script = Keep(wire.ok(b"ok", b"Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"))
    for _ in range(3):
        assert (await pool.proxy.get(b"/brief/x")).body == b"ok"


@pytest.mark.parametrize("said", [b"", b"x", wire.ok(b"unasked")], ids=["FIN", "a byte", "an answer"])
async def test_an_idle_connection_is_dropped_at_once(pool: Pool, said: bytes) -> None:
    """Rule 15: when its upstream closes it or says what nobody asked; not when it is needed next."""
    may_say, is_dropped = asyncio.Event(), asyncio.Event()

    async def say(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(wire.ok(b"first"))
        await may_say.wait()
        if said:
            writer.write(said)
        else:
            writer.write_eof()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        is_dropped.set()

    pool.upstream.script = say
    assert (await pool.proxy.get(b"/brief/x")).body == b"first"
    may_say.set()
    async with asyncio.timeout(SOON):
        await is_dropped.wait()
    pool.upstream.script = None
    answer = await pool.proxy.bearward.raw(
        pool.proxy.request(b"/brief/x", b"Content-Length: 4", method=b"POST", body=b"once")
    )
    assert answer.body == b"ok", "not even a request that goes out only once is lost"


async def test_a_connection_whose_client_left_is_not_used_again(pool: Pool) -> None:
    arrived, may_answer = asyncio.Event(), asyncio.Event()
    left = asyncio.Event()

    async def answer_late(_request: Message, reader: Reader, writer: Writer) -> None:
        arrived.set()
        await may_answer.wait()
        with contextlib.suppress(ConnectionError):
            writer.write(wire.ok(b"not yours"))
            assert await reader.read() == b""
        left.set()

    pool.upstream.script = answer_late
    async with pool.proxy.bearward.connect() as connection:
        await connection.send(pool.proxy.request(b"/brief/x"))
        await arrived.wait()
    may_answer.set()
    async with asyncio.timeout(SOON):
        await left.wait()
    pool.upstream.script = None
    assert (await pool.proxy.get(b"/brief/y")).body == b"ok"


async def test_no_more_connections_than_allowed(pool: Pool) -> None:
    """Rule 23: all requests are served, a few at a time."""
    pool.upstream.script = hold = Hold()
    asked = [asyncio.create_task(pool.proxy.get(b"/patient/%d" % n)) for n in range(5 * LIMIT)]
    for _ in range(5):
        await hold.has_all()
        hold.release(LIMIT)
    assert {(await task).body for task in asked} == {b"/%d" % n for n in range(5 * LIMIT)}
    assert hold.most <= LIMIT


async def test_a_full_pool_answers_503_after_its_wait(pool: Pool) -> None:
    """Rules 18 and 23: and costs requests of other upstreams nothing meanwhile."""
    async with filled(pool) as hold:
        started = time.monotonic()
        refused = asyncio.create_task(pool.proxy.get(b"/brief/too-many"))
        served = 0
        while not refused.done():
            assert (await pool.proxy.get(b"/other/x")).status == 200
            served += 1
        assert served > FEW, "others wait for it"
        assert_problem(await refused, 503, "overloaded")
        assert CONNECT_TIMEOUT <= time.monotonic() - started < CONNECT_TIMEOUT + SOON
        assert hold.arrived.empty()
        assert b"/too-many" not in {request.target for request in pool.upstream.requests}


async def test_who_waits_is_served_when_a_connection_becomes_free(pool: Pool) -> None:
    async with filled(pool) as hold:
        waiting = asyncio.create_task(pool.proxy.get(b"/patient/waiting"))
        with pytest.raises(TimeoutError):  # it does wait
            async with asyncio.timeout(0.2):
                await hold.arrived.get()
        hold.release(1)
        await hold.has_all(1)
        hold.release(LIMIT)
        assert (await waiting).body == b"/waiting"


async def test_a_kept_connection_that_becomes_free_serves_who_waits(pool: Pool) -> None:
    may_answer = asyncio.Event()
    arrived = asyncio.Semaphore(0)

    async def keep(request: Message, reader: Reader, writer: Writer) -> None:
        arrived.release()
        await may_answer.wait()
        await Keep()(request, reader, writer)

    pool.upstream.script = keep
    asked = [asyncio.create_task(pool.proxy.get(b"/patient/x")) for _ in range(3 * LIMIT)]
    async with asyncio.timeout(SOON):
        for _ in range(LIMIT):
            await arrived.acquire()
        may_answer.set()
        assert {(await task).status for task in asked} == {200}
    assert len(pool.upstream.requests) == LIMIT, "no further connection"


async def test_a_client_that_leaves_while_it_waits_frees_its_place(pool: Pool) -> None:
    async with filled(pool) as hold:
        async with pool.proxy.bearward.connect() as first:
            await first.send(pool.proxy.request(b"/patient/left"))
            waiting = asyncio.create_task(pool.proxy.get(b"/patient/stayed"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await hold.arrived.get()
        hold.release(1)
        await hold.has_all(1)
        assert pool.upstream.requests[-1].target == b"/stayed"
        hold.release(LIMIT)
        assert (await waiting).status == 200
    assert b"/left" not in {request.target for request in pool.upstream.requests}


async def test_a_client_that_leaves_frees_its_connection(pool: Pool) -> None:
    pool.upstream.script = hold = Hold()
    async with contextlib.AsyncExitStack() as stack:
        for n in range(LIMIT):
            connection = await stack.enter_async_context(pool.proxy.bearward.connect())
            await connection.send(pool.proxy.request(b"/patient/%d" % n))
        await hold.has_all()
    pool.upstream.script = None
    assert (await pool.proxy.get(b"/brief/x")).body == b"ok"
    hold.release(LIMIT)


async def test_an_upstream_that_takes_no_connection(pool: Pool) -> None:
    """Rule 18: `connect_timeout` counts for it alone, and a client that leaves costs nothing."""
    started = time.monotonic()
    stalled = [asyncio.create_task(pool.proxy.get(b"/full/x")) for _ in range(LIMIT)]
    served = 0
    while not all(task.done() for task in stalled):
        assert (await pool.proxy.get(b"/other/x")).status == 200
        served += 1
    assert served > FEW, "others wait for it"
    for task in stalled:
        assert_problem(await task, 504, "upstream_timeout")
    assert CONNECT_TIMEOUT <= time.monotonic() - started < CONNECT_TIMEOUT + SOON


async def test_a_name_may_have_addresses_on_which_nobody_listens(pool: Pool) -> None:
    """`localhost` is often `::1` first."""
    assert (await pool.proxy.get(b"/by-name/x")).status == 200
    assert pool.other.only_request.values("Host") == [b"localhost:%d" % pool.other.port]


async def test_connections_are_shared_by_nobody_else(pool: Pool) -> None:
    """Rule 17: upstreams that differ in the host's name alone, though both names lead to one place."""
    pool.other.script = keep = Keep()
    for prefix in (b"/other", b"/by-name", b"/other", b"/by-name"):
        assert (await pool.proxy.get(prefix + b"/x")).status == 200
    assert all(len(targets) == 2 for targets in keep.connections)


async def test_nothing_goes_out_again_after_a_103(pool: Pool) -> None:
    """Rule 16: a kept connection that dies then had begun to answer."""
    has_hint = asyncio.Event()
    seen: list[bytes] = []

    async def die_after_a_hint(request: Message, reader: Reader, writer: Writer) -> None:
        seen.append(request.target)
        writer.write(wire.ok(b"first"))
        seen.append(Message(await wire.read_head(reader), b"", b"").target)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        await has_hint.wait()

    pool.upstream.script = die_after_a_hint
    assert (await pool.proxy.get(b"/brief/first")).body == b"first"
    async with pool.proxy.bearward.connect() as connection:
        await connection.send(pool.proxy.request(b"/brief/once"))
        assert (await wire.read_head(connection.reader)).startswith(b"HTTP/1.1 103 ")
        has_hint.set()
        assert_problem(await wire.read_answer(connection.reader), 502, "upstream_closed")
    assert seen == [b"/first", b"/once"]
    assert len(pool.upstream.requests) == 1, "no further connection"


class Slamming(RawUpstream):
    """A data center that closes each connection as soon as it has it, until it is well."""

    is_well = False

    async def _serve(self, reader: Reader, writer: Writer) -> None:
        if self.is_well:
            await super()._serve(reader, writer)
        else:
            await wire.close(writer)


class SlammingTls(Slamming, TlsUpstream):
    """The same after the handshake."""


async def test_an_upstream_that_closes_at_once_takes_no_place(tmp_path: Path) -> None:
    """Rule 23: however often it does, each request is told at once, and the first is served that finds it well."""
    authority = Authority(tmp_path)
    context = authority.server("127.0.0.1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # here the client's handshake is the last to end
    async with Slamming() as plain, SlammingTls(context) as tls:
        routes = {"/plain": {}, "/tls": {"upstream": tls.url, "tls": {"ca_file": authority.file}}}
        async with proxy_before(plain, routes, tmp_path, limits={"upstream_connections": LIMIT}) as proxy:
            for upstream, target in ((plain, b"/plain/x"), (tls, b"/tls/x")):
                for _ in range(3 * LIMIT):
                    async with asyncio.timeout(AT_ONCE):
                        answer = await proxy.get(target)
                    assert_problem(answer, 502, "upstream_closed")
                upstream.is_well = True
                assert (await proxy.get(target)).body == b"ok"
