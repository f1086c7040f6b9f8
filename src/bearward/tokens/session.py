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
from typing import Final, NamedTuple

from .. import clock, events
from . import schedule
from .answer import Issued, read_answer
from .credential import Assertion, TokenEndpoint
from .desk import Chained, Desk
from .failure import Reason, TokenRequestError
from .kept import Kept
from .recipe import Occasion, logout_request, token_request
from .turnstile import Turn

LOGOUT_TIMEOUT: Final = 3.0
MAX_ORPHANS: Final = 5
IDLE_SESSION: Final = 1800.0
"""How long a session is thought to outlive its last use where its answer does not tell: Keycloak's default."""
AFTER_IDLE: Final = 120.0
"""Keycloak ends an idle session so much later than it tells."""
_ANSWERED_WITHOUT_TOKEN: Final = frozenset({Reason.NO_TOKEN, Reason.ALREADY_EXPIRED})
_SKEW_THAT_MATTERS: Final = 5.0
_WRONG_TOKEN: Final = frozenset({"invalid_request", "invalid_grant", "invalid_token", "invalid_target"})
"""How a token endpoint says that a token in the request is none of value (RFC 8693 §2.2.2, RFC 7523 §3.1)."""


class _Orphan(NamedTuple):
    """A refresh token that may be spent: to be logged out, never to be sent to the token endpoint again."""

    refresh_token: str
    gone_at: float
    """When its session has ended by itself, in seconds of `clock.now()`."""


class Session:
    """The refresh token of one key, and the token requests that use and replace it. Not for concurrent use."""

    __slots__ = (
        "_desk",
        "_endpoint",
        "_issued",
        "_orphans",
        "_principal",
        "_refresh_token",
        "_refreshable_until",
        "digest",
    )

    def __init__(self, desk: Desk, endpoint: TokenEndpoint, principal: str) -> None:
        self._desk = desk
        self._endpoint = endpoint
        self._principal = principal
        self._issued: Issued | None = None
        """The last token, where a store keeps it."""
        self._refresh_token: str | None = None
        self._refreshable_until = math.inf
        self._orphans: list[_Orphan] = []
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

    async def end(self, *, keep: bool) -> None:
        """Logs out what is open, as well as it can be done in a few seconds; with `keep`, only what is not stored."""
        store = self._desk.means.store
        if keep and store is not None:
            await self._log_out_orphans()
            self._keep()
            if await store.flush():
                return
        if self._refresh_token is not None:
            self._abandon(self._refresh_token)
            self._refresh_token = None
        self._issued = None
        await self._log_out_orphans()
        if store is None or (entry := store.get(self._desk.key(self._principal))) is None:
            return
        if Kept.read(entry).digest == self._desk.fingerprint():  # else it is that of a newer config already
            if self._orphans:
                self._keep()
            else:
                store.remove(self._desk.key(self._principal))

    # ── one token request, and a second one where that is promising ──────────────────────────────────────────

    async def _ask(self, refresh_token: str | None, turn: Turn) -> Issued:
        grant = "refresh_token" if refresh_token else self._endpoint.grant_type
        began_at, failure = clock.now(), None
        self.digest = self._desk.secrets.digest()
        try:
            if refresh_token is None:
                self._check_sessions()
            chained, skew = await self._desk.chained(self._principal), self._desk.skew
            try:
                return await self._request(refresh_token, chained, turn)
            except TokenRequestError as refusal:
                renewed = await self._second_chance(refusal, chained, skew)
                if renewed is None:
                    raise
            return await self._request(refresh_token, renewed, turn)
        except TokenRequestError as error:
            failure = error
            raise
        finally:
            seconds = clock.now() - (turn.entered_at or began_at)
            reason = failure.reason if failure else None
            self._desk.means.observe(events.TokenRequested(self._desk.label, grant, seconds, reason))

    async def _second_chance(self, refusal: TokenRequestError, chained: Chained, skew: float) -> Chained | None:
        """What to ask with once more, at once: other tokens where those sent were refused, or the right time."""
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
        try:
            async with desk.means.fetcher.passing(desk.token_url, turn):
                occasion = Occasion(self._principal, tokens, time.time() + desk.skew)
                request = token_request(endpoint, desk.token_url, occasion, refresh_token)
                async with desk.counted():
                    answer = await desk.means.fetcher.send(request, credential.timeout, endpoint.tls)
            is_refresh = refresh_token is not None
            issued = read_answer(
                answer, credential.reading, has_password=endpoint.password is not None, refreshing=is_refresh
            )
        except TokenRequestError as failure:
            desk.skew = desk.skew if failure.clock_skew is None else failure.clock_skew
            if failure.refresh_token is not None:
                self._refresh_token, self._refreshable_until = failure.refresh_token, math.inf
                self._keep()
            raise
        desk.skew = desk.skew if issued.clock_skew is None else issued.clock_skew
        if issued.refresh_token is not None:
            self._refresh_token = issued.refresh_token
            self._refreshable_until = issued.asked_at + (issued.refresh_lifetime or math.inf)
        if desk.means.store is not None:
            self._issued = issued
            self._keep()
            if issued.refresh_token is not None:
                await desk.means.store.flush()  # who is killed from here on goes on with it
        return issued

    # ── sessions that nobody lives on ────────────────────────────────────────────────────────────────────────

    def _check_sessions(self) -> None:
        """Opens none beyond those that the identity provider allows. Raises `TokenRequestError`."""
        allowed, now = self._endpoint.max_sessions, clock.now()
        self._orphans = [orphan for orphan in self._orphans if orphan.gone_at > now]
        if allowed is not None and len(self._orphans) >= allowed:
            # Each attempt tries to log them out first; where it cannot, they have to end by themselves.
            wait = min(orphan.gone_at for orphan in self._orphans) - now if self._desk.logout_url is None else 0.0
            detail = f"{allowed} sessions are open, and could not be logged out"
            raise TokenRequestError(Reason.SESSION_LIMIT, detail, min(wait, schedule.RETRY_AFTER_MAX), sent=False)

    def _abandon(self, refresh_token: str) -> None:
        now = clock.now()
        ends_at = self._refreshable_until if self._refreshable_until < math.inf else now + IDLE_SESSION
        self._orphans.append(_Orphan(refresh_token, ends_at + AFTER_IDLE))
        del self._orphans[: -max(MAX_ORPHANS, self._endpoint.max_sessions or 0)]

    async def _log_out_orphans(self) -> None:
        """As well as it can be done in a few seconds; what nobody heard stays to be done."""
        if not self._orphans:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOGOUT_TIMEOUT):
                for orphan in self._orphans.copy():
                    if await self._log_out(orphan.refresh_token):
                        self._orphans.remove(orphan)
                        self._keep()

    async def _log_out(self, refresh_token: str) -> bool:
        """Whether that was heard; an answer other than 429 and 5xx is final, whatever it says."""
        desk = self._desk
        if desk.logout_url is None:
            return self._endpoint.max_sessions is None  # else it counts until it ends by itself
        try:
            occasion = Occasion(self._principal, time=time.time() + desk.skew)
            request = logout_request(self._endpoint, desk.logout_url, occasion, refresh_token)
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
        is_mine = kept.digest == self._desk.fingerprint()
        if not is_mine and kept.process == self._desk.means.process:
            return None  # of the config before a reload: it ends its sessions itself
        self._orphans = [_Orphan(token, now + min(gone - wall, IDLE_SESSION * 2)) for token, gone in kept.orphans]
        self._refresh_token = kept.refresh_token
        self._refreshable_until = now + (kept.refreshable_until - wall)
        if not is_mine:
            # Obtained with other secrets, or for another scope: not ours to use, only ours to end.
            if self._refresh_token is not None:
                self._abandon(self._refresh_token)
                self._refresh_token = None
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
        issued = self._issued
        kept = Kept(
            process=self._desk.means.process,
            digest=self._desk.fingerprint(),
            token=issued.token if issued else None,
            asked_at=wall - (now - issued.asked_at) if issued else 0.0,
            lifetime=issued.lifetime if issued else 0.0,
            refresh_in=issued.refresh_in if issued else None,
            refresh_token=self._refresh_token,
            refreshable_until=wall + (self._refreshable_until - now),
            orphans=[(orphan.refresh_token, wall + (orphan.gone_at - now)) for orphan in self._orphans],
        )
        store.put(self._desk.key(self._principal), kept.written(), kept.worthless_from(wall))
