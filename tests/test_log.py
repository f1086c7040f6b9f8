"""The log's way out of the process, where its descriptor is shared, or takes no more in the midst of a line."""

import asyncio
import os
import sys
from pathlib import Path

from bearward.ops.sink import Sink


async def test_a_descriptor_that_another_process_made_non_blocking_loses_nothing() -> None:
    lines = [f"{number:04} {'x' * 200}" for number in range(2000)]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    sink = Sink(writing)
    sink.start()
    for line in lines:
        sink.write(line)
    reader, protocol = asyncio.StreamReader(), asyncio.StreamReaderProtocol
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: protocol(reader), os.fdopen(reading, "rb", 0)
    )
    async with asyncio.timeout(10):
        read = [(await reader.readline()).decode().removesuffix("\n") for _ in lines]
    assert read == lines
    sink.close()
    os.close(writing)
    transport.close()


FULL_FOR_A_WHILE = """
import resource, time
from bearward.ops.sink import Sink

def at_most(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

sink = Sink(1)
sink.start()
at_most(10)
sink.write("the first line")
while not sink._dropped:
    time.sleep(0.01)
at_most(resource.RLIM_INFINITY)
sink.write("the second line")
sink.close()
"""


async def test_a_disk_that_was_full_has_whole_lines_after_it_and_the_count(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", FULL_FOR_A_WHILE, stdout=log)
        assert await process.wait() == 0
    assert (tmp_path / "log").read_text().splitlines() == ["the first ", "the second line", "1 log lines dropped"]
