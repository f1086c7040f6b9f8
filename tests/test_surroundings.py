"""What a run may find around it: a hostile current folder, closed or full streams, no descriptors, no C parser."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from configs import atlas_config
from harness import Bearward
from vendors.atlas import Atlas


async def test_nothing_is_imported_from_the_current_folder(tmp_path: Path) -> None:
    """`yaml` is needed to read the config, `click` by every command, `uvloop` to serve."""
    trap = "raise SystemExit('imported from the current folder')"
    files = {f"{name}.py": trap for name in ("yaml", "click", "pydantic", "uvloop", "bearward")}
    async with (
        Atlas() as atlas,
        Bearward(atlas_config({"atlas": atlas}), tmp_path, files=files, cwd=tmp_path) as bearward,
    ):
        assert (await bearward.get("/atlas/accountreports")).status == 200


@pytest.mark.parametrize(
    "streams", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"]
)
async def test_a_run_needs_no_standard_streams(tmp_path: Path, streams: str) -> None:
    async with (
        Atlas() as atlas,
        Bearward(atlas_config({"atlas": atlas}), tmp_path, shell=f'exec "$@" {streams}') as bearward,
    ):
        assert (await bearward.get("/atlas/accountreports")).status == 200
        assert await bearward.terminate() == 0


@pytest.mark.parametrize(
    ("streams", "code", "says"), [(">&-", 0, b""), ("2>&-", 0, b""), (">/dev/full", 1, b"No space left on device")]
)
@pytest.mark.parametrize("command", [["check"], ["token", "atlas"], ["token", "atlas", "--show"]], ids=" ".join)
async def test_a_result_that_cannot_be_written(
    tmp_path: Path, command: list[str], streams: str, code: int, says: bytes
) -> None:
    async with Atlas() as atlas:
        file = Bearward(atlas_config({"atlas": atlas}), tmp_path).config_file
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", f'exec "$@" {streams}', "sh"),
            *(sys.executable, "-P", "-m", "bearward", *command, "-c", str(file)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, error = await process.communicate()
    assert process.returncode == code, error.decode()
    assert says in error
    assert b"Traceback" not in error


async def test_a_lack_of_file_descriptors_does_not_flood_the_log(tmp_path: Path) -> None:
    """With asyncio's own loop, which would say so for each connection that it cannot accept."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "uvloop.py").write_text("raise ImportError")
    path = os.pathsep.join(filter(None, [str(tmp_path / "without"), os.environ.get("PYTHONPATH")]))
    message = b"socket.accept() out of system resource"
    async with Atlas() as atlas:
        bearward = Bearward(
            atlas_config({"atlas": atlas}), tmp_path, env={"PYTHONPATH": path}, shell='ulimit -n 40; exec "$@"'
        )
        async with bearward:
            async with AsyncExitStack() as clients, asyncio.timeout(30):
                for _ in range(60):
                    await clients.enter_async_context(bearward.connect())
                assert (await bearward.get("/atlas/accountreports")).status == 200
            assert (await bearward.get("/atlas/accountreports")).status == 200
            assert bearward.output().count(message) <= 1


@pytest.mark.parametrize("without", ["aiohttp's C parser", "llhttp"])
async def test_without_its_c_parsers_it_does_not_start(tmp_path: Path, without: str) -> None:
    """And says why: a parser in Python has let smuggled requests through."""
    (tmp_path / "without" / "httptools").mkdir(parents=True)
    (tmp_path / "without" / "httptools" / "__init__.py").write_text("raise ImportError('httptools.parser is missing')")
    path = os.pathsep.join(filter(None, [str(tmp_path / "without"), os.environ.get("PYTHONPATH")]))
    env, reason = {"PYTHONPATH": path}, b"httptools.parser is missing"
    if without != "llhttp":
        env, reason = {"AIOHTTP_NO_EXTENSIONS": "1"}, b"AIOHTTP_NO_EXTENSIONS"
    async with (
        Atlas() as atlas,
        Bearward(atlas_config({"atlas": atlas}), tmp_path, env=env, until=None) as bearward,
    ):
        assert await bearward.exit_code() == 1
        assert reason in bearward.output()
        assert b"wheel" in bearward.output()
    assert atlas.token_requests == [], "nothing is asked for by a process that cannot serve"
