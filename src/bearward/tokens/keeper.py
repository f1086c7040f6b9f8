"""One token's life: none → fresh → stale → expired, and rejected.

The law of this file: at most one attempt of a key is under way, and only `_plan` begins one; everybody else reads
`current`, waits for what an attempt brings, or tells what happened (a 401, a request that waits) and has it planned
again. So a refresh is never doubled, never belongs to the request that wanted it, and needs no lock. Between attempts
a key has no task and no timer, only its place in the timetable.

         something happened: a request waits, a 401, a changed secret
                 │
    ┌──► plan ──► due: attempt ──► adopt: a new generation ──┐
    │                     └─────► fail: back off, keep the old token
    └────────────────────────────────────────────────────────┘
"""

import asyncio
import math
import random
from collections import deque
from typing import Protocol

from .. import clock, events
from ..errors import ProblemError
from . import schedule, watch
from .answer import Issued
from .backoff import Backoff
from .credential import GivenToken
from .desk import Desk
from .failure import Reason, TokenRequestError
from .token import Token, TokenStatus, fingerprint
from .turnstile import Turn


class Way(Protocol):
    """How the tokens of one key are obtained."""

    digest: bytes | None
    """Of the secrets at the last attempt."""

    def resume(self) -> Issued | None:
        """A token from before this process, where one was kept."""

    async def obtain(self, turn: Turn, /) -> Issued:
        """A token. Raises `TokenRequestError`."""

    @property
    def has_session(self) -> bool:
        """Whether an attempt that is cut off may leave a session behind, or spend its refresh token."""

    async def end(self, *, keep: bool) -> None:
        """Ends what is open at the identity provider; with `keep`, not what a store keeps."""


class Keeper:
    """Keeps the token of one key: a credential, at one token endpoint, for one principal (or none).

    With `on_demand` nothing is asked before the first request, and a token that nobody used is not refreshed.
    """

    __slots__ = (
        "_backoff", "_bad_generation", "_desk", "_generation", "_is_closed", "_is_open", "_is_outdated", "_on_demand",
        "_skew", "_task", "_token", "_turn", "_used", "_waiters", "_waiting", "_was_refused", "_way", "planned",
    )  # fmt: skip

    def __init__(self, desk: Desk, way: Way, *, on_demand: bool = False) -> None:
        self._desk = desk
        self._way = way
        self._on_demand = on_demand

        self._token: Token | None = None
        self._generation = 0
        self._bad_generation = 0
        self._used = not on_demand
        self._skew: float | None = None

        self._backoff = Backoff(random.uniform)
        self._was_refused = False
        self._is_outdated = False
        """Whether the file that holds the token has changed."""

        self._is_open = self._is_closed = False
        self._task: asyncio.Task[None] | None = None
        self._turn: Turn | None = None
        self._waiting: deque[tuple[float, asyncio.Future[Token]]] | None = None
        """Who waits, and until when; the first one is dismissed first."""
        self._waiters = 0
        self.planned = math.inf

    # ── what a request asks ──────────────────────────────────────────────────────────────────────────────────

    def current(self) -> Token | None:
        """The token, where it can be used right now. Awaits nothing."""
        if not self._is_usable():
            return None
        if not self._used:
            self._used = True
            self._plan()  # it is worth a refresh
        return self._token

    def _is_usable(self) -> bool:
        token = self._token
        if token is None or clock.now() >= token.usable_until:
            return False
        # After a 401 its replacement is on the way; should that fail, this one is served while it lives.
        return token.generation != self._bad_generation or self._backoff.failure is not None

    async def wait(self) -> Token:
        """The token, as soon as there is one. Raises `ProblemError` (503) where none comes within 15 s."""
        self._used = True
        if (token := self.current()) is not None:
            return token
        if not self._is_open:
            raise self._unavailable()
        waits: asyncio.Future[Token] = asyncio.get_running_loop().create_future()
        if self._waiting is None:
            self._waiting = deque()
        is_first = not self._waiting or self._waiting[-1][1].done()
        self._waiting.append((clock.now() + schedule.WAIT_FOR_TOKEN, waits))
        self._waiters += 1
        try:
            if is_first:  # the others wait for what that one has brought about
                if self._turn is not None:
                    self._turn.change(is_urgent=True)
                self._plan()
            return await waits
        finally:
            self._waiters -= 1
            if self._on_demand and not self._waiters and self._turn is not None:
                self._turn.change(is_urgent=False)  # nobody is there any more to whom it matters

    def reject(self, token: Token) -> None:
        """Notes that the upstream answered 401 to `token`. A young token is not to blame, an old one is known."""
        is_known = token.generation <= self._bad_generation or token.generation != self._generation
        if is_known or clock.now() - token.obtained_at < schedule.YOUNG:
            return
        self._bad_generation = token.generation
        self._desk.means.observe(events.TokenMarkedBad(self._desk.label, token.generation))
        self._plan()

    async def replace(self, token: Token) -> Token | None:
        """After an upstream's 401 to `token`: a newer one; None where there is none and the 401 is the answer."""
        self.reject(token)
        if token.generation == self._generation and token.generation != self._bad_generation:
            return None
        try:
            newer = self.current() or await self.wait()
        except ProblemError:
            return None
        # A metadata server, a file or a program may well give the same one again.
        return newer if newer.header_value != token.header_value else None

    def nudge(self) -> None:
        """A credential that this one needs has a new token: what failed for want of it may succeed."""
        if self._backoff.failure is not None and self._backoff.failure.reason is Reason.CHAINED_TOKEN:
            self._backoff.restart()
            self._plan()

    # ── its beginning and its end ────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begins the life, with the token of a life before where one was kept. Does nothing a second time."""
        if self._is_open or self._is_closed:
            return
        self._is_open = True
        if (kept := self._way.resume()) is not None:
            self._adopt(kept)
        self._plan()

    async def close(self, *, keep: bool) -> None:
        """Ends it, and its session (`Way.end`). An attempt may end: somebody waits, or it opens a session."""
        self._is_closed = True
        if not self._is_open:
            return
        if self._task is not None and (self._waiters or self._way.has_session):
            await asyncio.wait([self._task], timeout=self._desk.credential.timeout)
        self._is_open = False
        self._desk.means.timetable.plan(self, math.inf)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._answer_waiters()
        await self._way.end(keep=keep)

    def status(self) -> TokenStatus:
        """What an operator may know."""
        token, failure, now = self._token, self._backoff.failure, clock.now()
        if token is not None and now < token.usable_until:
            state = "fresh" if now < token.refresh_at and self._bad_generation < token.generation else "stale"
        elif failure is not None and failure.for_good:
            state = "rejected"
        else:
            state = "none" if token is None else "expired"
        due, to_wall = self._due(), clock.wall(now) - now
        return TokenStatus(
            state=state,  # type: ignore[arg-type]
            generation=self._generation,
            fingerprint=token.fingerprint if token else None,
            expires_at=token.expires_at + to_wall if token else None,
            refresh_due_at=(due or now) + to_wall if due < math.inf else None,
            last_refresh_at=token.obtained_at + to_wall if token else None,
            waiters=self._waiters,
            failures=self._backoff.failures,
            last_failure=failure.reason if failure else None,
            is_started=self._generation > 0 or self._was_refused,
            clock_skew=self._skew,
        )

    # ── the life ─────────────────────────────────────────────────────────────────────────────────────────────

    def ring(self) -> None:
        """The timetable's: something is due, or a look at the secrets."""
        # A secret that cannot be read is no new one: trying again with the old may lock an account.
        if self._task is None and self._watches and self._desk.secrets.glance() not in {None, self._way.digest}:
            self._desk.means.observe(events.SecretChanged(self._desk.label))
            self._backoff.restart()
            self._is_outdated = True
        self._plan()

    def _plan(self) -> None:
        """Begins an attempt that is due; has the timetable ring for what comes next."""
        if not self._is_open:
            return
        self._answer_waiters()
        at = self._waiting[0][0] if self._waiting else math.inf
        if self._task is None:
            due, now = self._due(), clock.now()
            if due <= now:
                self._turn = Turn(is_urgent=self._waiters > 0)
                self._task = asyncio.create_task(self._attempt(), name=f"token of {self._desk.label}")
            else:
                # Whoever plans again meanwhile does not put off the look at the secrets.
                at = min(at, due, min(self.planned, now + watch.TICK) if self._watches else math.inf)
        self._desk.means.timetable.plan(self, at)

    @property
    def _watches(self) -> bool:
        """Whether secrets are looked at: after a failure while somebody wants the token, and where one is the token."""
        source = self._desk.credential.source
        if isinstance(source, GivenToken) and source.token.is_file and self._token is not None:
            return True
        return self._backoff.failure is not None and self._due() < math.inf

    def _due(self) -> float:
        """When the next attempt is to be made; 0 is at once."""
        token, is_usable = self._token, self._is_usable()
        if not (self._used and (is_usable or not self._on_demand or self._backoff.failure is None or self._waiters)):
            return math.inf
        if self._backoff.failure is not None:
            return self._backoff.due(is_urgent=self._waiters > 0 and not is_usable)
        if token is None or token.generation == self._bad_generation or self._is_outdated:
            return 0.0
        return token.refresh_at

    async def _attempt(self) -> None:
        assert self._turn is not None  # noqa: S101 - who began this has made it
        try:
            self._adopt(await self._way.obtain(self._turn))
        except TokenRequestError as failure:
            self._fail(failure)
        except Exception as error:  # a fault of ours must not end the life of the token
            self._desk.means.observe(events.Crashed("token", events.place_of(error)))
            self._fail(TokenRequestError(Reason.NO_TOKEN, "internal error"))
        finally:
            self._task = self._turn = None
            self._plan()

    def _adopt(self, issued: Issued) -> None:
        credential = self._desk.credential
        lead = schedule.lead(issued.lifetime, credential.refresh_lead, random.uniform, issued.refresh_in)
        self._generation += 1
        self._token = token = Token(
            header_value=credential.inject_format.replace("{token}", issued.token),
            generation=self._generation,
            obtained_at=issued.asked_at,
            refresh_at=issued.asked_at + issued.lifetime - lead,
            usable_until=issued.asked_at + issued.lifetime - schedule.margin(issued.lifetime),
            expires_at=issued.asked_at + issued.lifetime,
            fingerprint=fingerprint(issued.token),
        )
        self._backoff.succeed()
        self._is_outdated = False
        self._used = not self._on_demand or self._waiters > 0
        self._skew = issued.clock_skew
        self._desk.means.observe(
            events.TokenRefreshed(
                credential=self._desk.label,
                generation=token.generation,
                fingerprint=token.fingerprint,
                lifetime=issued.lifetime,
                lifetime_from=issued.lifetime_from,
                refresh_in=issued.lifetime - lead,
                clock_skew=issued.clock_skew,
            )
        )
        for follow in self._desk.followers:
            follow()

    def _fail(self, failure: TokenRequestError) -> None:
        now = clock.now()
        failure.__traceback__ = failure.__context__ = None  # it is kept, and its frames would be with it
        self._backoff.note(failure, now, self._way.digest)
        self._is_outdated = False
        # A quota says as surely as a refusal that there is no token: whoever waits for the start need not.
        self._was_refused = self._was_refused or failure.for_good or failure.reason is Reason.QUOTA
        usable = self._token.usable_until - now if self._token else 0.0
        self._desk.means.observe(
            events.RefreshFailed(
                credential=self._desk.label,
                reason=failure.reason,
                detail=failure.detail,
                for_good=failure.for_good,
                retry_in=due - now if (due := self._due()) < math.inf else None,
                token_left=max(usable, 0.0),
            )
        )

    # ── who waits ────────────────────────────────────────────────────────────────────────────────────────────

    def _answer_waiters(self) -> None:
        """Gives the token to all that wait for it; dismisses those for whom none can come in time."""
        if not self._waiting:
            return
        waiting, now = self._waiting, clock.now()
        token = self._token if self._is_usable() else None
        # None comes before the next attempt.
        earliest = now if self._task is not None else max(now, self._due())
        while waiting and (token is not None or waiting[0][0] < earliest or not self._is_open or waiting[0][1].done()):
            _, waits = waiting.popleft()
            if waits.done():
                continue  # its client has left
            if token is not None:
                waits.set_result(token)
            else:
                waits.set_exception(self._unavailable())
                waits.exception()  # also where its client leaves in this very moment, it counts as seen
        if not waiting:
            self._waiting = None  # an empty deque has 600 bytes

    def _unavailable(self) -> ProblemError:
        failure, wait = self._backoff.failure, max(self._due() - clock.now(), 1.0)
        if failure is not None and failure.for_good:
            refused = "a credential needed by" if failure.is_chains_end else "the credential"
            text = f"The identity provider refuses {refused} {self._desk.credential.name!r} for good; see the log."
            return ProblemError("credential_rejected", text, retry_after=wait)
        cause = f" ({failure.reason}, see the log)" if failure else ""
        text = f"No usable token of {self._desk.label!r}{cause}; it is tried again."
        return ProblemError("token_unavailable", text, retry_after=wait)
