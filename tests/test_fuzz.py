"""Whatever bytes a client and an upstream send: nothing crashes, hangs, leaks, or is taken for something else.

`BEARWARD_FUZZ=N` plays N scenes that differ from run to run; without it they are always the same.
"""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis.configuration import set_hypothesis_home_dir

from fuzz import strict
from fuzz.laws import judge, judge_log
from fuzz.scenes import HOST, Scene, scenes
from fuzz.stage import BOUND, Stage, open_stage
from wire import Message, RawUpstream, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

set_hypothesis_home_dir(os.devnull)  # it keeps nothing in the checkout
WANTED = os.environ.get("BEARWARD_FUZZ")


class Halting(RawUpstream):
    """Of its answer to `/N` and `/N/…`, only the first N bytes come; and then nothing, until it is left."""

    full = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"

    def __init__(self) -> None:
        super().__init__()
        self.script = self._halt
        self.asked: dict[bytes, bytes] = {}
        """All that came of each request, by target."""

    async def _halt(self, request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(self.full[: int(request.target.split(b"/")[1])])
        self.asked[request.target] = request.raw + await reader.read()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def halting() -> AsyncIterator[Halting]:
    async with Halting() as upstream:
        yield upstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory, halting: Halting) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path_factory.mktemp("fuzz"), halting.url) as opened:
        yield opened


async def assert_lawful(stage: Stage, scene: Scene) -> None:
    try:
        played = await stage.play(scene)
        tokens = [issued.text.encode() for issued in stage.atlas.book.issued]
        secrets = [*tokens, stage.atlas.client_secret.encode()]
        judge(scene, played, tokens, secrets, stage.authority)
        judge_log(stage.log(), secrets)
    except BaseException as error:
        error.add_note(f"The scene:\n{scene!r}")
        raise


@settings(
    max_examples=int(WANTED or 2000),
    derandomize=WANTED is None,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
@given(scene=scenes())
async def test_every_scene_is_lawful(stage: Stage, scene: Scene) -> None:
    await assert_lawful(stage, scene)


async def test_an_answer_that_halts_anywhere_is_ended(stage: Stage, halting: Halting) -> None:
    async def ask(number: int) -> None:
        async with asyncio.timeout(BOUND), stage.bearward.connect() as connection:
            await connection.send(b"GET /halting/%d HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (number, HOST))
            received = await connection.closed()
        answers, _ = strict.read_answers(received, [b"GET"], "closed")
        code = [code for _, answer in answers for code in answer.values(b"bearward-error")]
        assert code == [b"upstream_timeout"] or not answers[0][1].is_whole, f"{halting.full[:number]!r} is {received!r}"

    await asyncio.gather(*(ask(number) for number in range(len(halting.full))))
    assert len(halting.asked) == len(halting.full), "some were not asked, or are not left"


async def test_a_request_that_halts_anywhere_is_ended(stage: Stage, halting: Halting) -> None:
    fields = b"Host: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % HOST
    rest = b" HTTP/1.1\r\n" + fields + b"5;a=b\r\nwhole\r\n0\r\nX-Trailer: t\r\n\r\n"

    async def begin(number: int) -> None:
        begun = (b"POST /halting/0/%03d" % number + rest)[:number]
        async with asyncio.timeout(BOUND), stage.bearward.connect() as connection:
            await connection.send(begun)
            await connection.closed()
        came = halting.asked.get(b"/0/%03d" % number, b"")
        assert not any(request.is_whole for request in strict.read_requests(came)[0]), f"{begun!r} became {came!r}"

    await asyncio.gather(*(begin(number) for number in range(len(b"POST /halting/0/000" + rest))))
