"""How `bearward run` begins and ends: signals, exit codes, and what is said of what went wrong."""

import asyncio
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import pytest

from configs import atlas_config, ocp_config
from harness import Bearward
from problems import assert_problem
from vendors import faults
from vendors.atlas import Atlas
from vendors.ocp import Ocp


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_calls_in_flight_finish(tmp_path: Path, number: signal.Signals) -> None:
    async with Atlas() as atlas:
        hold = faults.Hold()
        atlas.api_faults.mode = hold
        async with Bearward(atlas_config({"atlas": atlas}), tmp_path) as bearward:
            in_flight = [asyncio.create_task(bearward.get("/atlas/accountreports")) for _ in range(5)]
            await atlas.wait_for(lambda vendor: len(vendor.calls) == 5)
            bearward.process.send_signal(number)
            await bearward.refuses_connections()
            assert not await bearward.is_ready()
            assert (await bearward.admin("/livez")).status == 200
            assert not any(task.done() for task in in_flight)
            hold.release()
            assert [answer.summary for answer in await asyncio.gather(*in_flight)] == [(200, None)] * 5
            assert await bearward.exit_code() == 0


async def test_a_kept_connection_learns_of_the_end(tmp_path: Path) -> None:
    """An idle connection is closed, or its next request answered `draining`: never left hanging."""
    async with Atlas() as atlas:
        hold = faults.Hold()
        async with Bearward(atlas_config({"atlas": atlas}), tmp_path) as bearward:
            host = b"Host: 127.0.0.1:%d\r\n\r\n" % bearward.port
            async with bearward.connect() as idle:
                assert (await idle.exchange(b"GET /atlas/x HTTP/1.1\r\n" + host)).status in {200, 404}
                atlas.api_faults.mode = hold
                busy = asyncio.create_task(bearward.get("/atlas/accountreports"))
                await hold.arrived.wait()
                bearward.process.send_signal(signal.SIGTERM)
                await bearward.refuses_connections()
                try:
                    answer = await idle.exchange(b"GET /atlas/x HTTP/1.1\r\n" + host)
                except (AssertionError, ConnectionError):
                    pass  # closed: as good
                else:
                    assert_problem(answer, 503, "draining")
                hold.release()
                assert (await busy).status == 200
            assert await bearward.exit_code() == 0


async def test_sessions_are_logged_out_at_the_end(tmp_path: Path) -> None:
    async with Ocp() as ocp:
        async with Bearward(ocp_config(ocp), tmp_path) as bearward:
            assert (await bearward.get("/ocp/things")).status == 200
            assert len(ocp.live_sessions) == 1
            assert await bearward.terminate() == 0
        assert ocp.live_sessions == []
    assert [(logout.refresh_token, logout.status) for logout in ocp.logouts] == [
        (ocp.sessions[0].refresh_tokens[-1], 204)
    ]


@pytest.mark.parametrize("rotation", [False, True])
async def test_a_session_that_opens_during_the_stop_is_ended_too(tmp_path: Path, rotation: bool) -> None:
    async with Ocp(rotation=rotation) as ocp:
        hold = faults.Hold()
        ocp.token_faults.mode = hold
        async with Bearward(ocp_config(ocp), tmp_path, until="/livez") as bearward:
            await hold.arrived.wait()
            bearward.process.send_signal(signal.SIGTERM)
            await bearward.refuses_connections()
            hold.release()
            assert await bearward.exit_code() == 0
    assert len(ocp.sessions) == 1
    assert ocp.live_sessions == []


async def test_an_unreachable_identity_provider_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with Ocp() as ocp, Bearward(ocp_config(ocp), tmp_path) as bearward:
        ocp.token_faults.mode = faults.hang
        await ocp.site.close()
        async with asyncio.timeout(8):
            assert await bearward.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    async with Atlas() as atlas:
        atlas.api_faults.mode = faults.hang
        async with Bearward(atlas_config({"atlas": atlas}), tmp_path) as bearward:
            in_flight = asyncio.create_task(bearward.get("/atlas/accountreports"))
            await atlas.wait_for(lambda vendor: vendor.calls)
            bearward.process.send_signal(number)
            await bearward.refuses_connections()
            async with asyncio.timeout(5):
                assert await bearward.terminate(number) == 128 + number
            with pytest.raises(aiohttp.ClientError):
                await in_flight


@pytest.mark.parametrize("which", ["listen", "admin"])
async def test_a_port_in_use_is_said_clearly(tmp_path: Path, which: str) -> None:
    async with Atlas() as atlas:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            config = atlas_config({"atlas": atlas}) | {which: address}
            async with Bearward(config, tmp_path, until=None) as bearward:
                assert await bearward.exit_code() == 1
                output = bearward.output().decode()
                assert address in output
                assert "in use" in output.lower()
    assert atlas.token_requests == [], "nothing is asked for by a process that cannot serve"


async def test_a_faulty_config_starts_nothing(tmp_path: Path) -> None:
    async with Atlas() as atlas:
        config = atlas_config({"atlas": atlas}) | {"unheard_of": 1}
        async with Bearward(config, tmp_path, until=None) as bearward:
            assert await bearward.exit_code() == 78
            assert b"unheard_of" in bearward.output()
    assert atlas.token_requests == []


@pytest.mark.parametrize("arguments", [["run"], ["run", "-c"], ["fly"], ["run", "-c", "x", "--fast"]], ids=" ".join)
async def test_wrong_usage(arguments: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bearward", *arguments),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await process.communicate()
    assert process.returncode == 2
    assert b"Traceback" not in error
    assert b"Error" in error


async def test_a_route_added_by_a_data_center_is_served(tmp_path: Path) -> None:
    """The config as text, with every kind of reference to a secret."""
    async with Atlas() as atlas:
        text = f"""\
data_centers:
  one: {atlas.api}
  two: {atlas.api}/second
credentials:
  atlas:
    token_url: {atlas.token_url}
    client_id: {{env: ATLAS_ID}}
    client_secret: {{file: secrets}}
routes:
  /{{data_center}}: {{upstream: "{{data_center}}", credential: atlas}}
"""
        env = {"ATLAS_ID": atlas.client_id}
        async with Bearward(text, tmp_path, env=env, files={"secrets": atlas.client_secret + "\n"}) as bearward:
            assert (await bearward.get("/one/x")).status == 200
            assert (await bearward.get("/two/x")).status == 200
    assert [call.target for call in atlas.calls] == ["/api/v1/x", "/api/v1/second/x"]
    assert len(atlas.token_requests) == 1, "an absolute token URL: one token for all"
