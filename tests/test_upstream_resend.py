"""A request goes out once, or, where nothing can have happened twice, once more: rule 16 of a crossing."""

import asyncio

import pytest

import wire
from problems import assert_problem
from rawproxy import RawProxy
from upstreams import forget_connections, reset
from wire import Message, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")


class DieLater:
    """A script whose first connection answers once, and then dies at the next request; so do `deaths` further ones."""

    def __init__(self, *, deaths: int = 0, last_words: bytes = b"", is_reset: bool = False) -> None:
        self.deaths = deaths
        self.last_words = last_words
        self.is_reset = is_reset
        self.seen: list[bytes] = []
        """The first lines of all requests."""

    async def __call__(self, request: Message, reader: Reader, writer: Writer) -> None:
        self.seen.append(request.start)
        if len(self.seen) == 1:
            writer.write(wire.ok(b"first"))
            await writer.drain()
            self.seen.append(Message(await wire.read_head(reader), b"", b"").start)
            writer.write(self.last_words)
            await writer.drain()
        elif self.deaths:
            self.deaths -= 1
        else:
            answer = wire.ok(b"again", b"Connection: close")
            writer.write(answer.removesuffix(b"again") if request.start.startswith(b"HEAD") else answer)
            await writer.drain()
            return
        if self.is_reset:
            reset(writer)

    async def first(self, proxy: RawProxy) -> None:
        """A call that leaves a connection behind, and no other."""
        await forget_connections(proxy, proxy.upstream, b"/raw/x")
        proxy.upstream.script = self
        assert (await proxy.get(b"/raw/first")).body == b"first"


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
async def test_what_is_safe_goes_out_once_more(proxy: RawProxy, method: bytes, is_reset: bool) -> None:
    """Rule 16."""
    script = DieLater(is_reset=is_reset)
    await script.first(proxy)
    request = proxy.request(b"/raw/x", method=method)
    answer = await proxy.bearward.raw(request, to_head=method == b"HEAD")
    assert (answer.status, answer.body) == (200, b"" if method == b"HEAD" else b"again")
    assert script.seen[1:] == [method + b" /base/x HTTP/1.1"] * 2


@pytest.mark.parametrize(
    ("method", "lines", "body"),
    [
        (b"POST", [], b""),
        (b"POST", [b"Content-Length: 4"], b"once"),
        (b"PUT", [b"Content-Length: 0"], b""),
        (b"DELETE", [], b""),
        (b"PATCH", [b"Transfer-Encoding: chunked"], wire.chunk(b"once") + b"0\r\n\r\n"),
        (b"PROPFIND", [], b""),
        (b"GET", [b"Content-Length: 4"], b"once"),
        (b"GET", [b"Transfer-Encoding: chunked"], wire.chunk(b"once") + b"0\r\n\r\n"),
    ],
    ids=repr,
)
async def test_all_else_goes_out_once(proxy: RawProxy, method: bytes, lines: list[bytes], body: bytes) -> None:
    """Rule 16: methods that may change something, and bodies, whatever their method."""
    script = DieLater()
    await script.first(proxy)
    answer = await proxy.bearward.raw(proxy.request(b"/raw/x", *lines, method=method, body=body))
    assert_problem(answer, 502, "upstream_closed")
    assert script.seen[1:] == [method + b" /base/x HTTP/1.1"]


async def test_nothing_goes_out_a_third_time(proxy: RawProxy) -> None:
    """Rule 16: the second connection is fresh, and what is asked there dies with it."""
    script = DieLater(deaths=5)
    await script.first(proxy)
    assert_problem(await proxy.get(b"/raw/x"), 502, "upstream_closed")
    assert len(script.seen) == 3


async def test_nothing_goes_out_again_after_a_byte_came_back(proxy: RawProxy) -> None:
    """Rule 16: the upstream has begun to answer, so that it has carried the request out."""
    script = DieLater(last_words=b"H")
    await script.first(proxy)
    assert_problem(await proxy.get(b"/raw/x"), 502, "upstream_closed")
    assert len(script.seen) == 2


async def test_the_second_try_takes_a_fresh_connection(proxy: RawProxy) -> None:
    """Rule 16: where one kept connection is dead the others are, after a restart of the upstream."""
    await forget_connections(proxy, proxy.upstream, b"/raw/x")
    both_came = asyncio.Barrier(2)
    has_restarted = False

    async def serve(_request: Message, reader: Reader, writer: Writer) -> None:
        if not has_restarted:
            await both_came.wait()
            writer.write(wire.ok(b"before"))
            await writer.drain()
            await wire.read_head(reader)
        else:
            writer.write(wire.ok(b"after", b"Connection: close"))
            await writer.drain()

    proxy.upstream.script = serve
    answers = await asyncio.gather(proxy.get(b"/raw/x"), proxy.get(b"/raw/x"))
    assert [answer.body for answer in answers] == [b"before"] * 2
    has_restarted = True
    assert (await proxy.get(b"/raw/x")).body == b"after"
