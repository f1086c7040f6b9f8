"""What one client costs the others: neither their time, nor memory for good. Rules 18 and 19."""

import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

import wire
from rawproxy import RawProxy
from upstreams import proxy_before
from wire import Message, RawUpstream, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
MEMORY = 16 * MIB
PATIENCE = 0.5
"""Seconds of the product's processor time within which another client is answered, however busy the machine is."""
WATCHED = 1.5
"""Seconds of a flood, each of which goes on for longer."""
NAMES, NAME_BYTES = 1000, 60_000


async def swallow(_request: Message, reader: Reader, _writer: Writer) -> None:
    """A script that takes all that comes."""
    while await reader.read(wire.LIMIT):
        pass


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RawProxy]:
    """The route `/swallow` leads to an upstream that never answers; a flood leaves no flood in the log."""
    async with RawUpstream() as upstream, RawUpstream() as swallower:
        swallower.script = swallow
        routes = {"/raw": {}, "/swallow": {"upstream": swallower.url}}
        log = {"level": "error", "format": "json"}
        async with proxy_before(upstream, routes, tmp_path_factory.mktemp("fairness"), log=log) as proxy:
            yield proxy


@contextmanager
def flood(port: int, sent: bytes) -> Iterator[threading.Event]:
    """A client that sends as fast as it can, in threads of its own; the event tells that all was taken and answered."""
    is_over = threading.Event()
    with socket.create_connection(("127.0.0.1", port)) as client:

        def send() -> None:
            with suppress(OSError):
                client.sendall(sent)

        def read() -> None:
            with suppress(OSError):
                while client.recv(MIB):
                    pass
            is_over.set()

        threads = [threading.Thread(target=send), threading.Thread(target=read)]
        for thread in threads:
            thread.start()
        try:
            yield is_over
        finally:
            client.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def spent(proxy: RawProxy) -> float:
    """Seconds of processor time that the product has had."""
    fields = Path(f"/proc/{proxy.bearward.process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processor time is read from Linux's /proc")
@pytest.mark.parametrize("what", ["requests", "chunks"])
async def test_who_sends_a_flood_lets_others_have_their_turn(proxy: RawProxy, what: str) -> None:
    """Thousands of requests that are answered here, or a body in millions of chunks."""
    if what == "requests":
        sent = proxy.request(b"/nowhere") * 300_000 + proxy.request(b"/nowhere", b"Connection: close")
    else:
        sent = proxy.request(b"/swallow/x", b"Transfer-Encoding: chunked", method=b"POST") + b"1\r\nx\r\n" * 6_000_000
    assert (await proxy.get(b"/raw/before")).status == 200
    waits = []
    with flood(proxy.bearward.port, sent) as is_over:
        until = time.monotonic() + WATCHED
        while time.monotonic() < until:
            before = spent(proxy)
            assert (await proxy.get(b"/raw/x")).status == 200
            waits.append(spent(proxy) - before)
        assert max(waits) < PATIENCE
        assert not is_over.is_set()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from Linux's /proc")
async def test_names_of_headers_are_not_kept_for_good(proxy: RawProxy) -> None:
    """Whatever is remembered to read the next head faster, a stranger's long names are not."""
    grown = proxy.bearward.memory_growth()
    async with proxy.bearward.connect() as client:
        for number in range(NAMES):
            name = (b"n%d" % number).ljust(NAME_BYTES, b"a")
            assert (await client.exchange(proxy.request(b"/nowhere", name + b": x"))).status == 404
    assert grown() < MEMORY
