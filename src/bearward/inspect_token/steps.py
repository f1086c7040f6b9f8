"""The attempt: a token of the credential, and before it one of each credential that it is chained to."""

from dataclasses import dataclass, field

from .. import clock, events
from ..egress import EgressProxy
from ..tls import Tls
from ..tokens.answer import Answer, Issued
from ..tokens.failure import TokenRequestError
from ..tokens.fetcher import Fetcher
from ..tokens.keeper import Way
from ..tokens.recipe import TokenRequest
from ..tokens.source import TokenSource
from ..tokens.token import Token, fingerprint
from ..tokens.turnstile import Turn


@dataclass(eq=False)
class Exchange:
    """A token request, and what came back: an answer, or the reason that there is none."""

    request: TokenRequest
    seconds: float = 0.0
    answer: Answer | None = None


@dataclass(eq=False)
class Step:
    """What one credential's part in the attempt was."""

    source: TokenSource
    exchanges: list[Exchange] = field(default_factory=list)
    seconds: float = 0.0
    issued: Issued | None = None
    failure: TokenRequestError | None = None
    logouts: list[str] = field(default_factory=list)
    """The outcome of each."""


class Listening(Fetcher):
    """A fetcher that remembers what it sent and what came back. Logouts are told by events."""

    def __init__(self, egress: EgressProxy | None) -> None:
        super().__init__(egress)
        self.exchanges: list[Exchange] = []

    async def send(self, request: TokenRequest, timeout: float, tls: Tls) -> Answer:  # noqa: ASYNC109 - of one exchange
        exchange, began_at = Exchange(request), clock.now()
        self.exchanges.append(exchange)
        try:
            exchange.answer = await super().send(request, timeout, tls)
            return exchange.answer
        finally:
            exchange.seconds = clock.now() - began_at


class Steps:
    """One walk along the chain, innermost credential first; each is asked once."""

    def __init__(self, fetcher: Listening, principal: str) -> None:
        self._fetcher = fetcher
        self._principal = principal
        self._ways: list[Way] = []
        self._tokens: dict[TokenSource, Token] = {}
        self.done: list[Step] = []

    def observe(self, event: events.Event) -> None:
        """Notes how sessions were ended."""
        if isinstance(event, events.LogoutTried):
            step = next(step for step in self.done if step.source.label == event.credential)
            step.logouts.append(event.outcome)

    async def walk(self, source: TokenSource) -> Issued | None:
        """The token; None where this step or one before it failed, which is then the last of `done`."""
        for inner in source.chained.values():
            if inner not in self._tokens and await self.walk(inner) is None:
                return None
        step = Step(source)
        self.done.append(step)
        principal = self._principal if source.has_principals else ""
        way = source.beside(principal, {name: self._tokens[inner] for name, inner in source.chained.items()})
        self._ways.append(way)
        self._fetcher.exchanges, began_at = step.exchanges, clock.now()
        try:
            step.issued = issued = await way.obtain(Turn(is_urgent=True))
        except TokenRequestError as failure:
            step.failure = failure
            return None
        finally:
            step.seconds = clock.now() - began_at
            self._fetcher.exchanges = []  # what comes later belongs to no step
        self._tokens[source] = _token(source, issued)
        return issued

    async def end(self, *, keep_sessions: bool) -> None:
        """Logs out what was opened; the innermost last, as the others may hang on it."""
        if not keep_sessions:
            for way in reversed(self._ways):
                await way.end(keep=False)


def _token(source: TokenSource, issued: Issued) -> Token:
    until = issued.asked_at + issued.lifetime
    value = source.credential.inject_format.replace("{token}", issued.token)
    return Token(value, 1, issued.asked_at, until, until, until, fingerprint(issued.token))
