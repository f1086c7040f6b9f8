"""Answers of llhttp's own test suite, each from an upstream that closes after it: what is whole passes, nothing else.

RFC 9112 §2.2, §4, §6 and §7; rules 9 and 15 of a crossing.
"""

import asyncio
import base64
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import wire
from rawproxy import RawProxy
from upstreams import everything
from wire import Message, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

CORPUS = Path(__file__).parents[2] / "shared/corpora/llhttp-responses.jsonl"

# What llhttp accepts and bearward does not, by a part of the fixture's name, with the reason.
REFUSED = {
    "HTTP 101 response": "nobody asked for another protocol",
    "RTSP response": "another protocol",
    "ICE response": "another protocol",
    "HTTP version 0.9": "only HTTP/1.0 and 1.1 have a status line that can be believed",
    "HTTP 100 first": "an empty line before a status line: RFC 9112 §2.2 lets only servers ignore one",
    "starting with CRLF": "an empty line before a status line: RFC 9112 §2.2 lets only servers ignore one",
    "`chunked` before other transfer-encoding": "a coding that is not exactly chunked",
    "multiple transfer-encoding": "a coding that is not exactly chunked",
    "`chunkedchunked`": "a coding that is not exactly chunked",
}
# What llhttp refuses and bearward may pass: the answer is whole, and what is behind it answers nobody.
SURPLUS = "Data after `Connection: close`"

# The proxy writes these itself, so that they may stand at another place.
OWN = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"content-length"}


@dataclass(frozen=True)
class Fixture:
    """One answer as an upstream sends it."""

    name: str
    data: bytes
    strict_error: str | None

    @property
    def is_refused(self) -> bool:
        own = any(part in self.name for part in REFUSED)
        return own or (self.strict_error is not None and self.strict_error != SURPLUS)


def _fixtures() -> list[Fixture]:
    if not CORPUS.exists():
        return []
    lines = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    return [Fixture(line["name"], base64.b64decode(line["data"]), line["strict_error"]) for line in lines]


FIXTURES = _fixtures()
needs_corpus = pytest.mark.skipif(not FIXTURES, reason="the corpora are not at hand: ../shared/corpora")


def _named(fixtures: list[Fixture]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fixture", fixtures, ids=[fixture.name.split(" / ")[-1] for fixture in fixtures])


async def final(data: bytes, *, in_order: bool = True) -> Message | None:
    """The first final answer in `data`, if it is whole; one without length is, where its connection ended in order."""
    while (data := data.lstrip(b"\r\n")).split(b" ")[1].startswith(b"1"):
        data = data.partition(b"\r\n\r\n")[2]
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    try:
        answer = await wire.read_answer(reader)
    except asyncio.IncompleteReadError:
        return None
    has_end = answer.values("Content-Length") or answer.values("Transfer-Encoding") or answer.status in {204, 304}
    return answer if has_end or in_order else None


async def answered(proxy: RawProxy, fixture: Fixture) -> tuple[Message | None, bytes]:
    """What the client gets of the fixture: a whole answer or None, and all that came."""

    async def say(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(fixture.data)
        await writer.drain()

    proxy.upstream.script = say
    async with proxy.bearward.connect() as connection:
        await connection.send(proxy.request(b"/raw/x", b"Connection: close"))
        came, in_order = await everything(connection.reader)
    assert len(proxy.upstream.requests) == 1
    # The next request has an answer of its own.
    proxy.upstream.script = None
    assert (await proxy.get(b"/raw/next")).body == b"ok"
    return await final(came, in_order=in_order), came


@needs_corpus
@_named([fixture for fixture in FIXTURES if fixture.is_refused])
async def test_an_answer_that_is_malformed_is_never_a_whole_success(proxy: RawProxy, fixture: Fixture) -> None:
    answer, came = await answered(proxy, fixture)
    if answer is not None:
        # The proxy may wait for a whole head before it judges one.
        code = b"upstream_protocol" if b"\r\n\r\n" in fixture.data else b"upstream_closed"
        assert answer.status == 502, came
        assert answer.values("Bearward-Error")[0] in {code, b"upstream_protocol"}
    else:
        assert came.startswith(b"HTTP/1.1 200 "), "it broke off after its head had passed"
        assert b"chunked" in fixture.data, "only a body that is at fault lets its head pass"


@needs_corpus
@_named([fixture for fixture in FIXTURES if not fixture.is_refused])
async def test_an_answer_that_is_well_formed_passes(proxy: RawProxy, fixture: Fixture) -> None:
    """With its status, reason, headers and body; one that lacks its end breaks off."""
    expected = await final(fixture.data)
    answer, came = await answered(proxy, fixture)
    if expected is None:
        assert answer is None or answer.status == 502, came
        return
    assert answer is not None, came
    if fixture.strict_error == SURPLUS and answer.status == 502:
        return
    assert (answer.status, answer.body) == (expected.status, expected.body)
    assert _reason(answer) == _reason(expected)
    assert _crossing(answer, expected) == _crossing(expected, expected)
    assert answer.values("Content-Length") == expected.values("Content-Length")


def _reason(answer: Message) -> bytes:
    return b" ".join(answer.start.split(b" ")[2:]).strip()


def _crossing(answer: Message, expected: Message) -> list[tuple[bytes, bytes]]:
    """The headers that belong to the answer and not to one of its connections; a Date may be added."""
    dropped = OWN if expected.values("Date") else OWN | {b"date"}
    return [(name, value) for name, value in answer.fields if name.lower() not in dropped]
