"""How a key's tokens are obtained at a token endpoint: by its refresh token, else by the credential's own grant.

A password grant opens a session at the identity provider, and users may have few of them; so one is lived on as long
as it lasts, and none is left behind. An answer without a refresh token keeps the old one (RFC 6749 §6). A refresh
that was sent and never answered leaves open whether its refresh token is spent, and a spent one sent again would end
the session behind our back (RFC 9700 §4.14.2): it is logged out, and the first grant runs again.
"""

import asyncio
import contextlib
import math
import time
from typing import Final

from .. import clock, events
from ..secret import SecretUnreadableError
from . import schedule
from .answer import Issued, read_answer
from .credential import Assertion, TokenEndpoint
from .desk import Chained, Desk
from .failure import Reason, TokenRequestError
from .kept import Kept
from .ledger import Orphan
from .recipe import Occasion, logout_request, token_request
from .turnstile import Turn

LOGOUT_TIMEOUT: Final = 3.0
LOGOUT_QUEUE: Final = 10.0
"""For how long a session waits at the stop until others are logged out."""
MAX_ORPHANS: Final = 5
IDLE_SESSION: Final = 1800.0
"""How long a session is thought to outlive its last use where its answer does not tell: Keycloak's default."""
AFTER_IDLE: Final = 120.0
"""Keycloak ends an idle session so much later than it tells."""
_ANSWERED_WITHOUT_TOKEN: Final = frozenset({Reason.NO_TOKEN, Reason.ALREADY_EXPIRED})
_SKEW_THAT_MATTERS: Final = 5.0
_WRONG_TOKEN: Final = frozenset({"invalid_request", "invalid_grant", "invalid_token", "invalid_target"})
"""How a token endpoint says that a token in the request is none of value (RFC 8693 §2.2.2, RFC 7523 §3.1)."""


class Session:
    """The refresh token of one key, and the token requests that use and replace it. Not for concurrent use."""

    __slots__ = (
        "_desk", "_endpoint", "_is_ending", "_is_under_way", "_issued", "_principal", "_refresh_token",
        "_refreshable_until", "digest",
    )  # fmt: skip

    def __init__(self, desk: Desk, endpoint: TokenEndpoint, principal: str) -> None:
        self._desk = desk
        self._endpoint = endpoint
        self._principal = principal
        self._issued: Issued | None = None
        """The last token, where a store keeps it."""
        self._refresh_token: str | None = None
        self._refreshable_until = math.inf
        self._is_under_way = False
        """Whether the refresh token is being sent: from then on it may be spent."""
        self._is_ending = False
        self.digest: bytes | None = None
        """Of the secrets in the last token request."""

    async def obtain(self, turn: Turn) -> Issued:
        """A token. Raises `TokenRequestError`."""
        await self._log_out_orphans()
        refresh_token = self._refresh_token
        if refresh_token is not None and clock.now() < self._refreshable_until:
            try:
                return await self._ask(refresh_token, turn)
            except TokenRequestError as failure:
                is_refused = failure.reason is Reason.REFRESH_TOKEN_REFUSED
                may_be_spent = failure.sent and (not failure.answered or failure.reason in _ANSWERED_WITHOUT_TOKEN)
                if self._refresh_token == refresh_token and (is_refused or may_be_spent):
                    self._refresh_token = None
                    # Also what is called dead: Keycloak goes on counting the session of one that was used twice.
                    if may_be_spent or self._desk.logout_url is not None:
                        self._abandon(refresh_token)
                    self._keep()
                if not is_refused:
                    raise
                await self._log_out_orphans()
        self._refresh_token = None
        return await self._ask(None, turn)

    @property
    def has_session(self) -> bool:
        """Whether an attempt that is cut off may leave a session behind, or spend its refresh token."""
        return self._refresh_token is not None or self._desk.logout_url is not None

    async def end(self, *, keep: bool) -> None:
        """Logs out what is open, as well as it can be done in a few seconds; with `keep`, only what is not stored."""
        store = self._desk.means.store
        if keep and store is not None:
            await self._log_out_orphans()
            self._keep()
            if await store.flush():
                return
        self._is_ending = True
        if self._refresh_token is not None:
            self._abandon(self._refresh_token)
            self._refresh_token = None
        self._issued = None
        await self._log_out_orphans(LOGOUT_TIMEOUT + LOGOUT_QUEUE)
        self._keep()

    # ── one token request, and a second one where that is promising ──────────────────────────────────────────

    async def _ask(self, refresh_token: str | None, turn: Turn) -> Issued:
        grant = "refresh_token" if refresh_token else self._endpoint.grant_type
        began_at = clock.now()
        self.digest = self._desk.secrets.digest()
        try:
            if refresh_token is None:
                self._check_sessions()
            issued = await self._ask_twice(refresh_token, turn)
        except Exception as failure:  # of one that is cancelled nobody knows what would have come
            reason = failure.reason if isinstance(failure, TokenRequestError) else Reason.NO_TOKEN
            self._tell(grant, began_at, turn, reason)
            raise
        self._tell(grant, began_at, turn, None)
        return issued

    async def _ask_twice(self, refresh_token: str | None, turn: Turn) -> Issued:
        chained, skew = await self._desk.chained(self._principal), self._desk.skew
        try:
            return await self._request(refresh_token, chained, turn)
        except TokenRequestError as refusal:
            renewed = await self._second_chance(refusal, chained, skew)
            if renewed is None:
                raise
        return await self._request(refresh_token, renewed, turn)

    def _tell(self, grant: str, began_at: float, turn: Turn, reason: str | None) -> None:
        seconds = clock.now() - (turn.entered_at or began_at)
        self._desk.means.observe(events.TokenRequested(self._desk.label, grant, seconds, reason))

    async def _second_chance(self, refusal: TokenRequestError, chained: Chained, skew: float) -> Chained | None:
        """What to ask with once more, at once: other tokens where those sent were refused, or the right time."""
        if refusal.reason is Reason.PASSWORD_REFUSED:
            return None  # accounts get locked
        is_about_tokens = refusal.status == 401 or refusal.code in _WRONG_TOKEN
        if is_about_tokens and chained and (renewed := await self._desk.renewed(self._principal, chained)):
            return renewed
        was_wrong = abs(self._desk.skew - skew) >= _SKEW_THAT_MATTERS
        is_about_client = refusal.reason is Reason.REFUSED or refusal.code == "unauthorized_client"
        return chained if is_about_client and self._signs and was_wrong else None

    @property
    def _signs(self) -> bool:
        return self._endpoint.client.assertion is not None or isinstance(self._endpoint.assertion, Assertion)

    async def _request(self, refresh_token: str | None, chained: Chained, turn: Turn) -> Issued:
        desk, endpoint, credential = self._desk, self._endpoint, self._desk.credential
        tokens = {name: desk.bare(name, token) for name, token in chained.items()}
        if refresh_token is not None and desk.means.store is not None:
            self._is_under_way = True  # who is killed from here on does not send it again
            self._keep()
            await desk.means.store.flush()
        try:
            async with desk.means.fetcher.passing(desk.token_url, turn), desk.careful(self._password(refresh_token)):
                occasion = Occasion(self._principal, tokens, time.time() + desk.skew)
                request = token_request(endpoint, desk.token_url, occasion, refresh_token)
                async with desk.counted():
                    answer = await desk.means.fetcher.send(request, credential.timeout, endpoint.tls)
                issued = read_answer(
                    answer,
                    credential.reading,
                    has_password=endpoint.password is not None,
                    refreshing=refresh_token is not None,
                )
        except TokenRequestError as failure:
            self._learn(failure.clock_skew, was_refused=failure.reason is Reason.REFUSED)
            if failure.refresh_token is not None:
                self._refresh_token, self._refreshable_until = failure.refresh_token, math.inf
            if self._is_under_way or failure.refresh_token is not None:
                self._is_under_way = False
                self._keep()
            raise
        self._is_under_way = False
        self._learn(issued.clock_skew, was_refused=False)
        if issued.refresh_token is not None:
            self._refresh_token = issued.refresh_token
            self._refreshable_until = issued.asked_at + (issued.refresh_lifetime or math.inf)
        if desk.means.store is not None:
            self._issued = issued
            self._keep()
            if issued.refresh_token is not None:
                await desk.means.store.flush()  # who is killed from here on goes on with it
        return issued

    def _password(self, refresh_token: str | None) -> str | None:
        """What must not be sent too often, where it is sent at all. An unreadable one is told when it is needed."""
        username, password = self._endpoint.username, self._endpoint.password
        if refresh_token is not None or password is None:
            return None
        with contextlib.suppress(SecretUnreadableError):
            return f"{username.reveal() if username else ''}\0{password.reveal()}"
        return None

    def _learn(self, skew: float | None, *, was_refused: bool) -> None:
        """Takes over what an answer told of the identity provider's clock; a refused assertion may be its fault."""
        if skew is not None or (was_refused and self._signs):
            self._desk.skew = skew or 0.0

    # ── sessions that nobody lives on ────────────────────────────────────────────────────────────────────────

    def _check_sessions(self) -> None:
        """Opens none beyond those that the identity provider allows. Raises `TokenRequestError`."""
        allowed, now = self._endpoint.max_sessions, clock.now()
        if allowed is None:
            return
        self._orphans = [orphan for orphan in self._orphans if orphan.gone_at > now]
        if len(self._orphans) >= allowed:
            # Each attempt tries to log them out first; where it cannot, they have to end by themselves.
            wait = min(orphan.gone_at for orphan in self._orphans) - now if self._desk.logout_url is None else 0.0
            detail = f"{allowed} sessions are open, and could not be logged out"
            raise TokenRequestError(Reason.SESSION_LIMIT, detail, min(wait, schedule.RETRY_AFTER_MAX), sent=False)

    @property
    def _orphans(self) -> list[Orphan]:
        """Sessions of this key that nobody lives on, those of lives before a reload too."""
        return self._desk.ledger.orphans.get(f"{self._desk.party()}{self._principal}", [])

    @_orphans.setter
    def _orphans(self, orphans: list[Orphan]) -> None:
        whose = f"{self._desk.party()}{self._principal}"
        if orphans:
            self._desk.ledger.orphans[whose] = orphans
        else:
            self._desk.ledger.orphans.pop(whose, None)

    def _abandon(self, refresh_token: str) -> None:
        now = clock.now()
        ends_at = self._refreshable_until if self._refreshable_until < math.inf else now + IDLE_SESSION
        orphans = [*self._orphans, Orphan(refresh_token, ends_at + AFTER_IDLE)]
        self._orphans = orphans[-max(MAX_ORPHANS, self._endpoint.max_sessions or 0) :]

    async def _log_out_orphans(self, patience: float = LOGOUT_TIMEOUT) -> None:
        """As well as it can be done in so many seconds; what nobody heard stays to be done."""
        if not self._desk.ledger.orphans:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                for orphan in self._orphans:
                    if await self._log_out(orphan.refresh_token):
                        self._orphans = [other for other in self._orphans if other is not orphan]
                        self._keep()

    async def _log_out(self, refresh_token: str) -> bool:
        """Whether that was heard; an answer other than 429 and 5xx is final, whatever it says."""
        desk = self._desk
        if desk.logout_url is None:
            return self._endpoint.max_sessions is None  # else it counts until it ends by itself
        try:
            occasion = Occasion(self._principal, time=time.time() + desk.skew)
            request = logout_request(self._endpoint, desk.logout_url, occasion, refresh_token)
            async with desk.means.fetcher.passing(desk.logout_url, Turn(is_urgent=True)):
                answer = await desk.means.fetcher.send(request, LOGOUT_TIMEOUT, self._endpoint.tls)
        except TokenRequestError as failure:
            desk.means.observe(events.LogoutTried(desk.label, failure.reason))
            return False
        desk.means.observe(events.LogoutTried(desk.label, f"status {answer.status}"))
        return answer.status != 429 and answer.status < 500

    # ── what outlives the process ────────────────────────────────────────────────────────────────────────────

    def resume(self) -> Issued | None:
        """Goes on with what the store has; the token, where there is one that still lives."""
        store = self._desk.means.store
        entry = store.get(self._desk.key(self._principal)) if store else None
        if entry is None:
            return None
        now, wall = clock.now(), time.time()
        kept = Kept.read(entry)
        if kept.owner is None or kept.owner.startswith(self._desk.means.process):
            return (
                None  # another life in this process, that of an evicted token or of another config: it ends it itself
            )
        if kept.party != self._desk.party():
            return None  # its session is with somebody else, who is not known any more
        self._orphans = [Orphan(token, now + min(gone - wall, IDLE_SESSION * 2)) for token, gone in kept.orphans]
        self._refresh_token = kept.refresh_token
        self._refreshable_until = now + (kept.refreshable_until - wall)
        is_mine = kept.digest is not None and kept.digest == self._desk.fingerprint()
        if self._refresh_token is not None and (kept.is_under_way or not is_mine):
            self._abandon(self._refresh_token)  # obtained with other secrets, or spent: only to be ended
            self._refresh_token = None
        if not is_mine:
            return None
        age = wall - kept.asked_at
        if kept.token is None or not 0 <= age < kept.lifetime - schedule.margin(kept.lifetime):
            return None  # a negative age: the clock was set back, nobody knows how old it is
        self._issued = Issued(kept.token, now - age, kept.lifetime, "the token store", kept.refresh_in)
        return self._issued

    def _keep(self) -> None:
        store, now, wall = self._desk.means.store, clock.now(), time.time()
        if store is None:
            return
        key, owner = self._desk.key(self._principal), f"{self._desk.means.process}/{id(self)}"
        if self._is_ending:
            entry = store.get(key)
            if entry is None or entry.get("owner") != owner:
                return  # it is another life's by now
            if not self._orphans:
                store.remove(key)
                return
        issued = self._issued
        kept = Kept(
            owner=owner,
            party=self._desk.party(),
            is_under_way=self._is_under_way,
            digest=self._desk.fingerprint(),
            token=issued.token if issued else None,
            asked_at=wall - (now - issued.asked_at) if issued else 0.0,
            lifetime=issued.lifetime if issued else 0.0,
            refresh_in=issued.refresh_in if issued else None,
            refresh_token=self._refresh_token,
            refreshable_until=wall + (self._refreshable_until - now),
            orphans=[(orphan.refresh_token, wall + (orphan.gone_at - now)) for orphan in self._orphans],
        )
        store.put(key, kept.written(), kept.worthless_from(wall))
