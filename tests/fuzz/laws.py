"""What holds for every scene, whatever its bytes: judged from what the client and the upstream have sent and seen."""

import re
from collections.abc import Collection

from . import strict
from .scenes import Scene
from .stage import PROBED, Exchange, Played
from .strict import Message

_HOP_BY_HOP = {
    *(b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    *(b"proxy-authenticate", b"proxy-authorization", b"content-length"),
}
_NOT_UPSTREAM = _HOP_BY_HOP | {b"host", b"authorization", b"forwarded"}
_NOT_DOWNSTREAM = _HOP_BY_HOP | {b"bearward-error"}
_RESENT = {b"GET", b"HEAD", b"OPTIONS"}
Place = tuple[int, int]
"""Which client's which request."""
_SIGNS_OF_A_CRASH = (b"Traceback", b"internal error", b"internal_error")


def judge(scene: Scene, played: Played, tokens: Collection[bytes], secrets: Collection[bytes], host: bytes) -> None:
    """Raises `AssertionError`, with what was broken, unless every law was kept."""
    assert played.probe == PROBED, f"a plain request afterwards was answered {played.probe!r}"
    for end in played.upstream:
        _, fault = strict.read_requests(end.received)
        assert not fault, f"the upstream got what is no HTTP: {end.received!r}"
    asked = _asked(played)
    told = _match(asked, played.exchanges)
    for exchange in played.exchanges:
        _judge_request(exchange, tokens, host)
    for number, end in enumerate(played.clients):
        for secret in secrets:
            assert secret not in end.received, f"a secret reached the client: {end.received!r}"
        requests = [request for (client, _), request in asked if client == number]
        exchanges = [told.get((number, n)) for n in range(len(requests))]
        _judge_answers(end.received, end.ending, requests, exchanges, tame=scene.tame)


def judge_log(log: bytes, secrets: Collection[bytes]) -> None:
    """The same for what bearward wrote meanwhile."""
    for sign in _SIGNS_OF_A_CRASH:
        assert sign not in log, f"{sign!r} in the log: {log[-4000:]!r}"
    for secret in secrets:
        assert secret not in log, "a secret in the log"


def _asked(played: Played) -> list[tuple[Place, Message]]:
    """The requests that were well formed, in the order in which they were sent."""
    return [
        ((client, number), request)
        for client, sent in enumerate(played.sent)
        for number, request in enumerate(strict.to_the_last(strict.read_requests(sent)[0]))
    ]


def _match(asked: list[tuple[Place, Message]], exchanges: list[Exchange]) -> dict[Place, Exchange]:
    """Which exchange belongs to which client's which request; each of the upstream's has its own of a client's."""
    told: dict[Place, Exchange] = {}
    rest = iter(asked)
    place, sent, before = None, None, None
    for exchange in exchanges:
        came = _request(exchange)
        if not (before and sent and _is_same(sent, came) and _may_go_out_again(before)):
            place, sent = next(((at, request) for at, request in rest if _is_same(request, came)), (None, None))
        assert place is not None, f"the upstream got a request that no client sent, or one twice: {came}\nof {asked}"
        told[place] = before = exchange
    return told


def _request(exchange: Exchange) -> Message:
    """The request as far as it came in the end."""
    return strict.read_requests(exchange.end.received)[0][exchange.number]


def _is_same(sent: Message, came: Message) -> bool:
    """Whether this is what must come of that."""
    target = re.sub(rb"(?i)^http://[^/?]*", b"", sent.start[1])
    found = re.fullmatch(rb"/fuzz((?:[/?].*)?)", target, re.DOTALL)
    return (
        found is not None
        and came.start == (sent.start[0], b"/base" + found[1], b"1.1")
        and _crossing(came, _NOT_UPSTREAM) == _crossing(sent, _NOT_UPSTREAM)
        and came.framing == sent.framing
        and sent.body.startswith(came.body)
        and (sent.is_whole or not came.is_whole)
        and (not came.is_whole or came.body == sent.body)
    )


def _crossing(message: Message, dropped: Collection[bytes]) -> list[tuple[bytes, bytes]]:
    named = set(message.options(b"connection"))
    return [
        (name, value)
        for name, value in message.fields
        if not (low := name.lower()).startswith(b"x-forwarded-") and low not in dropped and low not in named
    ]


def _may_go_out_again(exchange: Exchange) -> bool:
    """A bodiless request whose reused connection died before a single byte came back."""
    request = _request(exchange)
    return (
        request.start[0] in _RESENT
        and not request.body
        and exchange.number > 0
        and not exchange.sent
        and exchange.ending != "open"
    )


def _judge_request(exchange: Exchange, tokens: Collection[bytes], host: bytes) -> None:
    request = _request(exchange)
    signed = [b"Bearer " + token for token in tokens]
    authorization = request.values(b"authorization")
    assert len(authorization) == 1 and authorization[0] in signed, f"not signed, or twice: {request}"
    assert request.values(b"host") == [host], f"not for this upstream: {request}"


def _judge_answers(
    received: bytes, ending: strict.Ending, requests: list[Message], exchanges: list[Exchange | None], *, tame: bool
) -> None:
    """Each request has at most one answer, in their order; the one behind them is that of what is no request."""
    methods: list[bytes | None] = [request.start[0] for request in requests]
    try:
        answers, rest = strict.read_answers(received, [*methods, None], ending)
    except strict.MalformedError as error:
        raise AssertionError(f"the client got what is no HTTP ({error}): {received!r}") from None
    for number, (interim, answer) in enumerate(answers):
        exchange = exchanges[number] if number < len(exchanges) else None
        code = answer.values(b"bearward-error")
        assert not answer.is_faulty, f"the client got what is no HTTP: {received!r}"
        assert answer.status != 500 or not code, f"an internal error: {answer}"
        if number < len(requests) and requests[number].start[2] == b"1.0":
            assert not interim, f"an interim answer to an HTTP/1.0 client: {interim}"
        if not code:
            assert exchange is not None, f"the upstream was not asked for this answer: {answer}"
            _judge_answer(interim, answer, exchange)
        assert not tame or (not code and answer.is_whole), f"a good request was answered {answer}"
    assert not rest or len(answers) <= len(requests), f"bytes after the last answer: {rest!r}"
    if tame:
        assert len(answers) == len(requests), f"{len(requests)} good requests have {len(answers)} answers ({ending})"


def _judge_answer(interim: list[Message], answer: Message, exchange: Exchange) -> None:
    """What the client got is what the upstream said, and is whole only where that was."""
    said = f"the upstream said {exchange.sent!r} ({exchange.ending}), and the client was told"
    try:
        hints, own = strict.read_answer(exchange.sent, 0, _request(exchange).start[0], exchange.ending)
    except (strict.MalformedError, strict.IncompleteError):
        raise AssertionError(f"{said} {answer}") from None
    statuses = iter([hint.status for hint in hints])
    assert all(early.status in statuses for early in interim), f"{said} {interim}"
    assert answer.status == own.status, f"{said} {answer}"
    assert _crossing(answer, _NOT_DOWNSTREAM) == _crossing(own, _NOT_DOWNSTREAM), f"{said} {answer}"
    assert own.body.startswith(answer.body), f"{said} {answer}"
    if answer.is_whole:
        assert own.is_whole, f"{said} {answer}, as if it were whole"
        assert own.body == answer.body, f"{said} {answer}"
