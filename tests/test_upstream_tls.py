"""TLS towards upstreams, on uvloop and on asyncio's own loop: rules 15, 17 and 19 of a crossing."""

import asyncio
import importlib.util
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

import wire
from problems import assert_problem
from rawproxy import RawProxy
from tls import (
    Authority,
    TlsUpstream,
    end_without_notice,
    hang_up_at_once,
    is_resumed,
    listening,
    peer_names,
    say_nothing,
    speak_plainly,
)
from upstreams import SOON, Keep, Routes, everything, hang_up, proxy_before
from wire import Message, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
IN_SOCKETS = 64 * MIB
MEMORY = 16 * MIB
PIECE = bytes(range(256)) * 1024
CONNECT_TIMEOUT = 1.0


@dataclass
class TlsStage:
    """One product and what it can reach; `trusted` has a certificate for 127.0.0.1, `vendor` one for *.vendor.test."""

    proxy: RawProxy
    trusted: TlsUpstream
    vendor: TlsUpstream
    tls_1_2: TlsUpstream

    def reset(self) -> None:
        for upstream in (self.trusted, self.vendor, self.tls_1_2):
            upstream.reset()
            upstream.names.clear()


def _without_uvloop(folder: Path) -> dict[str, str]:
    (folder / "uvloop.py").write_text("raise ImportError('left out')")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["uvloop", "asyncio"])
async def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TlsStage]:
    """The module's product, once on each loop."""
    has_uvloop = request.param == "uvloop"
    if has_uvloop and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    env = {} if has_uvloop else _without_uvloop(tmp_path_factory.mktemp("without-uvloop"))
    folder = tmp_path_factory.mktemp("tls")
    ours, strangers = Authority(folder), Authority(folder, "strangers")
    old = ours.server("127.0.0.1", asks_for_client=ssl.CERT_OPTIONAL)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with AsyncExitStack() as stack:
        trusted = TlsUpstream(ours.server("127.0.0.1", "localhost", asks_for_client=ssl.CERT_OPTIONAL))
        vendor = TlsUpstream(ours.server("*.vendor.test", asks_for_client=ssl.CERT_REQUIRED))
        strange = TlsUpstream(strangers.server("127.0.0.1"))
        tls_1_2 = TlsUpstream(old)
        for upstream in (trusted, vendor, strange, tls_1_2):
            await stack.enter_async_context(upstream)
        trust = {"ca_file": ours.file}
        alice, bob = (trust | ours.client(f"{name}@vendor.test") for name in ("alice", "bob"))
        routes: Routes = {
            "/trusted": {"tls": trust},
            "/hasty": {"tls": trust, "idle_timeout": "2s"},
            "/by-name": {"tls": trust, "upstream": f"https://localhost:{trusted.port}"},
            "/alice": {"tls": alice},
            "/bob": {"tls": bob},
            "/old/alice": {"tls": alice, "upstream": tls_1_2.url},
            "/old/bob": {"tls": bob, "upstream": tls_1_2.url},
            "/system-roots": {},
            "/strange": {"tls": trust, "upstream": strange.url},
            "/wrong-name": {"tls": alice, "upstream": vendor.url},
            "/other-wrong-name": {"tls": alice | {"server_name": "vendor.example"}, "upstream": vendor.url},
            "/api": {"tls": alice | {"server_name": "api.vendor.test"}, "upstream": vendor.url},
            "/www": {"tls": alice | {"server_name": "www.vendor.test"}, "upstream": vendor.url},
            "/no-certificate": {"tls": trust | {"server_name": "api.vendor.test"}, "upstream": vendor.url},
            "/plain": {"tls": trust, "upstream": await stack.enter_async_context(listening(speak_plainly))},
            "/closing": {"tls": trust, "upstream": await stack.enter_async_context(listening(hang_up_at_once))},
            "/stalled": {
                "tls": trust,
                "upstream": await stack.enter_async_context(listening(say_nothing)),
                "connect_timeout": CONNECT_TIMEOUT,
            },
        }
        proxy = await stack.enter_async_context(proxy_before(trusted, routes, folder, env=env))
        loaded = Path(f"/proc/{proxy.bearward.process.pid}/maps")
        if loaded.exists():
            assert ("uvloop" in loaded.read_text()) == has_uvloop
        yield TlsStage(proxy, trusted, vendor, tls_1_2)


@pytest.fixture
def tls(stage: TlsStage) -> TlsStage:
    """The module's stage, with upstreams that have seen nothing and answer 200."""
    stage.reset()
    return stage


async def test_an_upstream_whose_authority_is_trusted(tls: TlsStage) -> None:
    answer = await tls.proxy.get(b"/trusted/x?q=1")
    assert (answer.status, answer.body) == (200, b"ok")
    seen = tls.trusted.only_request
    assert (seen.target, seen.values("Host")) == (b"/x?q=1", [tls.trusted.host])
    assert seen.values("Authorization")[0].removeprefix(b"Bearer ") in tls.proxy.tokens


async def test_the_urls_host_is_what_is_asked_for(tls: TlsStage) -> None:
    hang_up(tls.trusted)
    assert (await tls.proxy.get(b"/by-name/x")).status == 200
    assert tls.trusted.names == ["localhost"]


@pytest.mark.parametrize("prefix", [b"/system-roots", b"/strange"])
async def test_an_authority_that_is_not_trusted(tls: TlsStage, prefix: bytes) -> None:
    assert_problem(await tls.proxy.get(prefix + b"/x"), 502, "upstream_tls")
    assert tls.trusted.requests == []


@pytest.mark.parametrize("prefix", [b"/wrong-name", b"/other-wrong-name"])
async def test_a_certificate_for_another_name(tls: TlsStage, prefix: bytes) -> None:
    assert_problem(await tls.proxy.get(prefix + b"/x"), 502, "upstream_tls")
    assert tls.vendor.requests == []


async def test_a_server_name_is_asked_for_and_checked(tls: TlsStage) -> None:
    """It takes the place of the URL's host in TLS, and only there."""
    hang_up(tls.vendor)
    assert (await tls.proxy.get(b"/api/x")).status == 200
    assert tls.vendor.names == ["api.vendor.test"]
    assert tls.vendor.only_request.values("Host") == [tls.vendor.host]


async def _tell_the_clients_name(_request: Message, reader: Reader, writer: Writer) -> None:
    keep = Keep(wire.ok(b",".join(name.encode() for name in peer_names(writer))))
    await keep(_request, reader, writer)


@pytest.mark.parametrize("base", [b"", b"/old"], ids=["TLS 1.3", "TLS 1.2"])
async def test_each_route_shows_its_own_certificate(tls: TlsStage, base: bytes) -> None:
    """Rule 17: routes that differ in TLS settings alone share no connection."""
    for upstream in (tls.trusted, tls.tls_1_2):
        hang_up(upstream)
        upstream.script = _tell_the_clients_name
    for name in (b"alice", b"bob", b"alice", b"bob"):
        assert (await tls.proxy.get(base + b"/" + name + b"/x")).body == name + b"@vendor.test"
    assert len(tls.trusted.requests + tls.tls_1_2.requests) == 2, "each keeps its connection"
    if not base:
        assert (await tls.proxy.get(b"/trusted/x")).body == b"", "no certificate is shown where none is set"


async def test_each_server_name_has_its_own_connections(tls: TlsStage) -> None:
    """Rule 17."""
    hang_up(tls.vendor)
    for prefix in (b"/api", b"/www", b"/api", b"/www"):
        assert (await tls.proxy.get(prefix + b"/x")).status == 200
    assert tls.vendor.names == ["api.vendor.test", "www.vendor.test"]


@pytest.mark.parametrize("base", [b"", b"/old"], ids=["TLS 1.3", "TLS 1.2"])
async def test_a_session_is_resumed_by_the_route_that_began_it(tls: TlsStage, base: bytes) -> None:
    """A session brings the certificate of its beginning along: another's must never be resumed."""
    met: list[tuple[bytes, bool]] = []

    async def note(_request: Message, _reader: Reader, writer: Writer) -> None:
        met.append((peer_names(writer)[0].encode(), is_resumed(writer)))
        writer.write(wire.ok(peer_names(writer)[0].encode(), b"Connection: close"))
        await writer.drain()

    for upstream in (tls.trusted, tls.tls_1_2):
        hang_up(upstream)
        upstream.script = note
    for name in (b"alice", b"bob", b"alice", b"bob"):
        assert (await tls.proxy.get(base + b"/" + name + b"/x")).body == name + b"@vendor.test"
    assert [name for name, _ in met] == [b"alice@vendor.test", b"bob@vendor.test"] * 2
    assert [is_old for _, is_old in met][2:] == [True, True]


async def test_an_upstream_that_wants_a_certificate(tls: TlsStage) -> None:
    """With TLS 1.3 its refusal comes only after the handshake, in place of an answer."""
    answer = await tls.proxy.get(b"/no-certificate/x")
    assert answer.values("Bearward-Error")[0] in {b"upstream_tls", b"upstream_closed"}
    assert_problem(answer, 502, answer.values("Bearward-Error")[0].decode())
    assert tls.vendor.requests == []


@pytest.mark.parametrize("prefix", [b"/plain", b"/closing"])
async def test_a_port_that_speaks_no_tls(tls: TlsStage, prefix: bytes) -> None:
    assert_problem(await tls.proxy.get(prefix + b"/x"), 502, "upstream_tls")


async def test_a_handshake_that_stalls(tls: TlsStage) -> None:
    """Its time is that of the connection, and nobody else's."""
    stalled = asyncio.create_task(tls.proxy.get(b"/stalled/x"))
    started, served = time.monotonic(), 0
    while not stalled.done():
        assert (await tls.proxy.get(b"/trusted/x")).status == 200
        served += 1
    assert served > 10, "others wait for it"
    assert_problem(await stalled, 504, "upstream_timeout")
    assert time.monotonic() - started < CONNECT_TIMEOUT + SOON


@pytest.mark.parametrize("ends", ["with close_notify", "with FIN alone"])
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_a_body_that_ends_with_its_connection(tls: TlsStage, ends: str, version: bytes) -> None:
    """Rule 15: over TLS only close_notify tells that it is whole; anybody on the way can send a FIN."""

    async def until_the_end(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole?")
        await writer.drain()
        if ends == "with FIN alone":
            end_without_notice(writer)
            await _reader.read()

    tls.trusted.script = until_the_end
    request = tls.proxy.request(b"/trusted/x", b"Connection: close").replace(b"HTTP/1.1", version)
    async with tls.proxy.bearward.connect() as connection:
        await connection.send(request)
        came, in_order = await everything(connection.reader)
    head, _, rest = came.partition(b"\r\n\r\n")
    is_whole = rest.endswith(b"0\r\n\r\n") if b"chunked" in head.lower() else in_order
    if ends == "with close_notify":
        assert (b"whole?" in rest, is_whole) == (True, True)
    else:
        assert not is_whole or head.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("sent", [b"Content-Length: 6\r\n\r\nwh", b"Transfer-Encoding: chunked\r\n\r\n6\r\nwhole?\r\n"])
@pytest.mark.parametrize("notice", [True, False], ids=["close_notify", "FIN alone"])
async def test_a_body_that_lacks_its_end(tls: TlsStage, sent: bytes, notice: bool) -> None:
    """Rule 9: close_notify does not make a body whole that says otherwise."""

    async def break_off(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + sent)
        await writer.drain()
        if not notice:
            end_without_notice(writer)
            await _reader.read()

    tls.trusted.script = break_off
    async with tls.proxy.bearward.connect() as connection:
        await connection.send(tls.proxy.request(b"/trusted/x"))
        came, _ = await everything(connection.reader)
    assert b"wh" in came
    assert not came.endswith(b"0\r\n\r\n")
    assert b"Content-Length: 6" in came or b"chunked" in came


async def test_a_body_with_a_length_needs_no_close_notify(tls: TlsStage) -> None:
    async def answer(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(wire.ok(b"whole", b"Connection: close"))
        await writer.drain()
        end_without_notice(writer)
        await reader.read()

    tls.trusted.script = answer
    for _ in range(3):
        assert (await tls.proxy.get(b"/trusted/x")).body == b"whole"


async def test_an_echo_streams_both_ways_at_once(tls: TlsStage) -> None:
    """Rule 19: each piece is sent only after the one before has come back; pieces are larger than a TLS record."""

    async def echo(_request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        while content := (await wire.read_chunk(reader))[0]:
            writer.write(wire.chunk(content))
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    tls.trusted.script = echo
    async with tls.proxy.bearward.connect() as connection:
        await connection.send(tls.proxy.request(b"/trusted/x", b"Transfer-Encoding: chunked", method=b"POST"))
        await wire.read_head(connection.reader)
        for _ in range(8):
            await connection.send(wire.chunk(PIECE))
            back = b""
            while len(back) < len(PIECE):
                back += (await wire.read_chunk(connection.reader))[0]
            assert back == PIECE
        await connection.send(b"0\r\n\r\n")
        assert (await wire.read_chunk(connection.reader))[0] == b""


async def _pour(writer: Writer) -> int:
    """Write until it stops going in; how much went in."""
    sent = 0
    while sent < 2 * IN_SOCKETS:
        writer.write(PIECE)
        try:
            async with asyncio.timeout(0.5):
                await writer.drain()
        except TimeoutError:
            break
        sent += len(PIECE)
    return sent


measures_memory = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="a process's peak of memory is read from Linux's /proc"
)


@measures_memory
async def test_a_stalled_client_holds_back_the_upstream(tls: TlsStage) -> None:
    """Rule 19: what a client does not read gathers nowhere."""
    went_in = asyncio.get_running_loop().create_future()

    async def answer(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
        went_in.set_result(await _pour(writer))

    tls.trusted.script = answer
    grown = tls.proxy.bearward.memory_growth()
    async with tls.proxy.bearward.connect() as connection:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await connection.send(tls.proxy.request(b"/trusted/x"))
        assert await went_in < IN_SOCKETS
        assert grown() < MEMORY
        connection.writer.transport.abort()


@measures_memory
async def test_a_stalled_upstream_holds_back_the_client(tls: TlsStage) -> None:
    """Rule 19: and an upload that is not read ends after `idle_timeout`."""
    is_over = asyncio.Event()

    async def read_nothing(_request: Message, _reader: Reader, writer: Writer) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await is_over.wait()

    tls.trusted.script = read_nothing
    grown = tls.proxy.bearward.memory_growth()
    async with tls.proxy.bearward.connect() as connection:
        request = tls.proxy.request(b"/hasty/x", b"Content-Length: %d" % (1 << 30), method=b"PUT")
        await connection.send(request)
        assert await _pour(connection.writer) < IN_SOCKETS
        assert grown() < MEMORY
        assert_problem(await wire.read_answer(connection.reader), 504, "upstream_timeout")
    is_over.set()
