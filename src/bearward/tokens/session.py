"""How a key's tokens are obtained: by its refresh token where it has one, else by the credential's own grant.

A password grant opens a session at the identity provider, and users may have few of them; so one is lived on as long
as it lasts, and none is left behind. An answer without a refresh token keeps the old one (RFC 6749 §6). A refresh
that was sent and never answered leaves open whether its refresh token is spent, and a spent one sent again would end
the session behind our back (RFC 9700 §4.14.2): it is logged out, and the first grant runs again.
"""

import asyncio
import contextlib
import math
from typing import Final

from .. import clock, events
from .answer import Issued
from .credential import Credential
from .failure import Reason, TokenRequestError
from .fetcher import Fetcher, obtain
from .recipe import digest_of_secrets, logout_request

LOGOUT_TIMEOUT: Final = 3.0
MAX_ORPHANS: Final = 5
_ANSWERED_WITHOUT_TOKEN: Final = frozenset({Reason.NO_TOKEN, Reason.ALREADY_EXPIRED})


class Session:
    """The refresh token of one key, and the token requests that use and replace it. Not for concurrent use."""

    def __init__(
        self,
        label: str,
        credential: Credential,
        *,
        token_url: str,
        logout_url: str | None,
        fetcher: Fetcher,
        observe: events.Observer,
        principal: str,
    ) -> None:
        self._label = label
        self._credential = credential
        self._token_url = token_url
        self._logout_url = logout_url
        self._fetcher = fetcher
        self._observe = observe
        self._principal = principal
        self._refresh_token: str | None = None
        self._refreshable_until = math.inf
        self._orphans: list[str] = []
        """Refresh tokens that may be spent: to be logged out, never to be sent to the token endpoint again."""
        self.digest: bytes | None = None
        """Of the secrets in the last token request."""

    async def obtain(self) -> tuple[Issued, float]:
        """A token, and when its request was sent (seconds of `clock.now()`). Raises `TokenRequestError`."""
        await self._log_out_orphans()
        refresh_token = self._refresh_token
        if refresh_token is not None and clock.now() < self._refreshable_until:
            try:
                return await self._request(refresh_token)
            except TokenRequestError as failure:
                is_refused = failure.reason is Reason.REFRESH_TOKEN_REFUSED
                may_be_spent = failure.sent and (not failure.answered or failure.reason in _ANSWERED_WITHOUT_TOKEN)
                if self._refresh_token == refresh_token and (is_refused or may_be_spent):
                    self._refresh_token = None
                    if not failure.is_session_over:
                        self._abandon(refresh_token)
                if not is_refused:
                    raise
        self._refresh_token = None
        return await self._request(None)

    async def end(self) -> None:
        """Logs out what is open, as well as it can be done in a few seconds."""
        if self._refresh_token is not None:
            self._abandon(self._refresh_token)
            self._refresh_token = None
        await self._log_out_orphans()

    async def _request(self, refresh_token: str | None) -> tuple[Issued, float]:
        sent_at = clock.now()
        grant = "refresh_token" if refresh_token else self._credential.grant_type
        failure: str | None = Reason.NO_TOKEN
        self.digest = digest_of_secrets(self._credential)
        try:
            issued = await obtain(self._credential, self._token_url, self._principal, refresh_token, self._fetcher)
            failure = None
        except TokenRequestError as error:
            failure = error.reason
            if error.refresh_token is not None:
                self._refresh_token, self._refreshable_until = error.refresh_token, math.inf
            raise
        finally:
            self._observe(events.TokenRequested(self._label, grant, clock.now() - sent_at, failure))
        if issued.refresh_token is not None:
            self._refresh_token = issued.refresh_token
            self._refreshable_until = sent_at + (issued.refresh_lifetime or math.inf)
        return issued, sent_at

    def _abandon(self, refresh_token: str) -> None:
        self._orphans.append(refresh_token)
        del self._orphans[:-MAX_ORPHANS]

    async def _log_out_orphans(self) -> None:
        """As well as it can be done in a few seconds; what nobody heard stays to be done."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOGOUT_TIMEOUT):
                for refresh_token in self._orphans.copy():
                    if await self._log_out(refresh_token):
                        self._orphans.remove(refresh_token)

    async def _log_out(self, refresh_token: str) -> bool:
        """Whether that was heard; an answer other than 429 and 5xx is final, whatever it says."""
        if self._logout_url is None:
            return True
        try:
            request = logout_request(self._credential, self._logout_url, refresh_token)
            answer = await self._fetcher.send(request, LOGOUT_TIMEOUT, self._credential.tls)
        except TokenRequestError as failure:
            self._observe(events.LogoutTried(self._label, failure.reason))
            return False
        self._observe(events.LogoutTried(self._label, f"status {answer.status}"))
        return answer.status != 429 and answer.status < 500
