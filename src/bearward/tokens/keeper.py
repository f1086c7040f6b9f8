"""One token's life: none → fresh → stale → expired, and rejected.

The law of this file: one task, `_live`, makes every token request of a key, one after the other; everybody else
only reads `current`, waits for what the task brings, or tells it what happened (a 401, a request that waits).
So a refresh is never doubled, never belongs to the request that wanted it, and needs no lock.

             wake: a request waits, a 401, a changed secret
                 │
    ┌──► until due ──► attempt ──► adopt: a new generation ──┐
    │                     └─────► fail: back off, keep the old token
    └────────────────────────────────────────────────────────┘
"""

import asyncio
import contextlib
import math
import random
from typing import Final

from .. import clock, events
from ..errors import ProblemError
from . import schedule
from .answer import Issued
from .backoff import Backoff
from .credential import Credential
from .failure import Reason, TokenRequestError
from .recipe import digest_of_secrets
from .session import Session
from .token import Token, TokenStatus, fingerprint

TICK: Final = 15.0
"""The longest sleep: timers stop while a laptop sleeps, the clock does not."""
SECRET_TICK: Final = 2.5
"""How often changed secrets are looked for after a failure."""


class Keeper:
    """Keeps the token of one key: a credential, at one token endpoint, for one principal (or none).

    With `on_demand` nothing is asked before the first request, and a token that nobody used is not refreshed.
    """

    def __init__(
        self,
        label: str,
        credential: Credential,
        session: Session,
        observe: events.Observer,
        *,
        on_demand: bool = False,
    ) -> None:
        self._label = label
        self._credential = credential
        self._session = session
        self._observe = observe
        self._on_demand = on_demand

        self._token: Token | None = None
        self._generation = 0
        self._bad_generation = 0
        self._used = not on_demand
        self._skew: float | None = None

        self._backoff = Backoff(random.uniform)
        self._was_refused = False

        self._task: asyncio.Task[None] | None = None
        self._attempting = False
        self._wake = asyncio.Event()
        self._change: asyncio.Future[None] | None = None
        self._waiters = 0

    # ── what a request asks ──────────────────────────────────────────────────────────────────────────────────

    def current(self) -> Token | None:
        """The token, where it can be used right now. Awaits nothing."""
        if not self._is_usable():
            return None
        if not self._used:
            self._used = True
            self._wake.set()  # it is worth a refresh
        return self._token

    def _is_usable(self) -> bool:
        token = self._token
        if token is None or clock.now() >= token.usable_until:
            return False
        # After a 401 its replacement is on the way; should that fail, this one is served while it lives.
        return token.generation != self._bad_generation or self._backoff.failure is not None

    async def wait(self) -> Token:
        """The token, as soon as there is one. Raises `ProblemError` (503) where none comes within 15 s."""
        deadline = clock.now() + schedule.WAIT_FOR_TOKEN
        self._used = True
        self._waiters += 1
        try:
            while (token := self.current()) is None:
                self._wake.set()
                remaining = deadline - clock.now()
                if remaining <= 0 or self._is_closed or not (self._attempting or self._due() <= deadline):
                    raise self._unavailable()
                await asyncio.wait([self._next_change()], timeout=remaining)
            return token
        finally:
            self._waiters -= 1

    def reject(self, token: Token) -> None:
        """Notes that the upstream answered 401 to `token`. A young token is not to blame, an old one is known."""
        is_known = token.generation <= self._bad_generation or token.generation != self._generation
        if is_known or clock.now() - token.obtained_at < schedule.YOUNG:
            return
        self._bad_generation = token.generation
        self._observe(events.TokenMarkedBad(self._label, token.generation))
        self._wake.set()

    async def replace(self, token: Token) -> Token | None:
        """After an upstream's 401 to `token`: a newer one; None where there is none and the 401 is the answer."""
        self.reject(token)
        if token.generation == self._generation and token.generation != self._bad_generation:
            return None
        try:
            newer = self.current() or await self.wait()
        except ProblemError:
            return None
        return newer if newer.generation > token.generation else None

    # ── its beginning and its end ────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begins the life, in a task of its own."""
        self._task = asyncio.create_task(self._live(), name=f"token of {self._label}")

    async def close(self) -> None:
        """Ends it, and its session. A token request that runs may end: somebody waits, or it opens a session."""
        task, self._task = self._task, None
        if task is None:
            return
        if self._attempting and (self._waiters or self._credential.logout_url):
            await asyncio.wait([self._next_change()], timeout=self._credential.timeout)
        task.cancel()
        await asyncio.wait([task])
        self._notify()
        await self._session.end()

    @property
    def _is_closed(self) -> bool:
        return self._task is None

    def status(self) -> TokenStatus:
        """What an operator may know."""
        token, failure, now = self._token, self._backoff.failure, clock.now()
        if token is not None and now < token.usable_until:
            state = "fresh" if now < token.refresh_at and self._bad_generation < token.generation else "stale"
        elif failure is not None and failure.for_good:
            state = "rejected"
        else:
            state = "none" if token is None else "expired"
        due = self._due()
        return TokenStatus(
            state=state,  # type: ignore[arg-type]
            generation=self._generation,
            fingerprint=token.fingerprint if token else None,
            expires_at=clock.wall(token.expires_at) if token else None,
            refresh_due_at=clock.wall(due or now) if due < math.inf else None,
            last_refresh_at=clock.wall(token.obtained_at) if token else None,
            waiters=self._waiters,
            failures=self._backoff.failures,
            last_failure=failure.reason if failure else None,
            is_started=self._generation > 0 or self._was_refused,
            clock_skew=self._skew,
        )

    # ── the life ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _live(self) -> None:
        while True:
            await self._until_due()
            self._attempting = True
            try:
                await self._attempt()
            except Exception as error:  # a fault of ours must not end the life of the token
                self._observe(events.Crashed("token", events.place_of(error)))
                self._fail(TokenRequestError(Reason.NO_TOKEN, "internal error"))
            finally:
                self._attempting = False
                self._notify()

    async def _until_due(self) -> None:
        while (remaining := self._due() - clock.now()) > 0:
            self._wake.clear()
            # Secrets are looked at after a failure, while somebody wants the token.
            tick = SECRET_TICK if self._backoff.failure and remaining < math.inf else TICK
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(remaining, tick)):
                    await self._wake.wait()
            # One that cannot be read is no new one: trying again with the old may lock an account.
            if self._backoff.failure and digest_of_secrets(self._credential) not in {None, self._session.digest}:
                self._observe(events.SecretChanged(self._label))
                self._backoff.restart()
                return

    def _due(self) -> float:
        """When the next attempt is to be made; 0 is at once."""
        token, is_usable = self._token, self._is_usable()
        if not (self._used and (is_usable or not self._on_demand or self._backoff.failure is None or self._waiters)):
            return math.inf
        if self._backoff.failure is not None:
            return self._backoff.due(is_urgent=self._waiters > 0 and not is_usable)
        if token is None or token.generation == self._bad_generation:
            return 0.0
        return token.refresh_at

    async def _attempt(self) -> None:
        try:
            self._adopt(*await self._session.obtain())
        except TokenRequestError as failure:
            self._fail(failure)

    def _adopt(self, issued: Issued, sent_at: float) -> None:
        lead = schedule.lead(issued.lifetime, self._credential.refresh_lead, random.uniform)
        self._generation += 1
        self._token = token = Token(
            header_value=self._credential.inject_format.replace("{token}", issued.token),
            generation=self._generation,
            obtained_at=sent_at,
            refresh_at=sent_at + issued.lifetime - lead,
            usable_until=sent_at + issued.lifetime - schedule.margin(issued.lifetime),
            expires_at=sent_at + issued.lifetime,
            fingerprint=fingerprint(issued.token),
        )
        self._backoff.succeed()
        self._used = not self._on_demand or self._waiters > 0
        self._skew = issued.clock_skew
        self._observe(
            events.TokenRefreshed(
                credential=self._label,
                generation=token.generation,
                fingerprint=token.fingerprint,
                lifetime=issued.lifetime,
                lifetime_from=issued.lifetime_from,
                refresh_in=issued.lifetime - lead,
                clock_skew=issued.clock_skew,
            )
        )

    def _fail(self, failure: TokenRequestError) -> None:
        now = clock.now()
        self._backoff.note(failure, now, self._session.digest)
        self._was_refused = self._was_refused or failure.for_good
        usable = self._token.usable_until - now if self._token else 0.0
        self._observe(
            events.RefreshFailed(
                credential=self._label,
                reason=failure.reason,
                detail=failure.detail,
                for_good=failure.for_good,
                retry_in=self._due() - now,
                token_left=max(usable, 0.0),
            )
        )

    # ── who waits ────────────────────────────────────────────────────────────────────────────────────────────

    def _next_change(self) -> asyncio.Future[None]:
        if self._change is None:
            self._change = asyncio.get_running_loop().create_future()
        return self._change

    def _notify(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)
        self._change = None

    def _unavailable(self) -> ProblemError:
        wait = max(self._due() - clock.now(), 1.0)
        if self._backoff.failure is not None and self._backoff.failure.for_good:
            return ProblemError(
                "credential_rejected",
                f"The identity provider refuses the credential {self._credential.name!r} for good; see the log.",
                retry_after=wait,
            )
        cause = f" ({self._backoff.failure.reason}, see the log)" if self._backoff.failure else ""
        return ProblemError(
            "token_unavailable",
            f"No usable token of {self._label!r}{cause}; it is tried again.",
            retry_after=wait,
        )
