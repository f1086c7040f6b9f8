"""A body that is still coming when its request has to be sent once more: rules 9 and 16 of a crossing."""

import asyncio
import contextlib
from pathlib import Path

import wire
from configs import atlas_credential
from rawproxy import RawProxy
from together import Together
from upstreams import proxy_before
from vendors.atlas import Atlas
from wire import Message, RawUpstream, Reader, Writer

BRIEF = 4.0
"""Seconds: a token's lifetime. The next one comes after half of it."""
PATIENCE = 20.0
BODY = b"".join(b"%09d\n" % n for n in range(20_000))
"""Much more than is kept for a replay."""
BEGUN = 1000
CHUNKED = b"Transfer-Encoding: chunked"

together = Together()


class OneAtATime:
    """An upstream with room for one connection; its 401 to the first request comes when another waits for that room."""

    def __init__(self) -> None:
        self.has_begun, self.may_refuse = asyncio.Event(), asyncio.Event()
        self.is_taken, self.may_leave = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: Message, _reader: Reader, writer: Writer) -> None:
        if request.target == b"/other":
            self.is_taken.set()
            await self.may_leave.wait()
            writer.write(wire.ok(b"other", b"Connection: close"))
        else:
            self.has_begun.set()
            await self.may_refuse.wait()
            writer.write(wire.answer(b"401 Unauthorized", b"", b"Connection: close"))
        await writer.drain()


@together
async def test_a_chunked_body_that_grows_while_its_replay_waits_for_a_connection(folder: Path) -> None:
    await grows_and_arrives_whole(folder, CHUNKED)


@together
async def test_a_body_with_a_length_that_grows_while_its_replay_waits_for_a_connection(folder: Path) -> None:
    await grows_and_arrives_whole(folder, b"Content-Length: %d" % len(BODY))


async def has_read_on(proxy: RawProxy) -> None:
    """Return when the product has looked several times at all that had come to it."""
    for _ in range(20):
        assert (await proxy.bearward.raw(proxy.request(b"*", method=b"OPTIONS"))).status < 300


async def grows_and_arrives_whole(folder: Path, framing: bytes) -> None:
    """It reaches the upstream whole, though it is by then more than is kept."""

    def framed(content: bytes) -> bytes:
        return wire.chunk(content) if framing == CHUNKED else content

    rest = framed(BODY[BEGUN:]) + (b"0\r\n\r\n" if framing == CHUNKED else b"")
    async with contextlib.AsyncExitStack() as stack:
        atlas = await stack.enter_async_context(Atlas(BRIEF))
        upstream = await stack.enter_async_context(RawUpstream())
        upstream.script = script = OneAtATime()
        proxy = await stack.enter_async_context(
            proxy_before(
                upstream,
                {"/brief": {"credential": "brief"}},
                folder,
                credentials={"brief": atlas_credential(atlas)},
                limits={"upstream_connections": 1},
            )
        )
        await stack.enter_async_context(asyncio.timeout(PATIENCE))
        client = await stack.enter_async_context(proxy.bearward.connect())
        await client.send(proxy.request(b"/brief/body", framing, method=b"POST", body=framed(BODY[:BEGUN])))
        await script.has_begun.wait()
        issued = len(atlas.token_requests)  # the request's token is no later one
        waiting = await stack.enter_async_context(proxy.bearward.connect())
        await waiting.send(proxy.request(b"/brief/other"))
        await proxy.bearward.logs("token refreshed", issued + 1)
        await has_read_on(proxy)
        script.may_refuse.set()
        await script.is_taken.wait()
        await client.send(rest)
        await has_read_on(proxy)
        upstream.script = None  # what comes from now on is read to its end, and answered
        script.may_leave.set()
        assert (await wire.read_answer(waiting.reader)).body == b"other"
        answer = await wire.read_answer(client.reader)
        assert (answer.status, upstream.requests[-1].body == BODY) == (200, True)
