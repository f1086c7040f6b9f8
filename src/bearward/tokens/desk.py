"""What all keys of one credential at one token endpoint share: where they ask, with what, and what was learnt."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import uuid4

from .. import clock, events
from .credential import Credential
from .failure import Reason, TokenRequestError
from .fetcher import Fetcher
from .quota import Budget
from .store import FileStore
from .timetable import Timetable
from .token import Token
from .watch import SecretWatch

Chained = Mapping[str, Token]
"""The tokens of other credentials that one request is made with, by the credentials' names."""


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """What every token of the process is kept with."""

    fetcher: Fetcher
    timetable: Timetable
    observe: events.Observer
    store: FileStore | None = None
    shows_stderr: bool = False
    """Whether the standard error of programs is ours: somebody looks on."""
    process: str = field(default_factory=lambda: uuid4().hex)
    """Names this process in the store."""


@dataclass(slots=True, eq=False, kw_only=True)
class Desk:
    """Where the keys of a credential ask. URLs are absolute; `""` where the source has none."""

    label: str
    credential: Credential
    means: Means
    token_url: str = ""
    logout_url: str | None = None
    chained: Callable[[str], Awaitable[Chained]]
    """The tokens that a principal's request needs. Raises `TokenRequestError`."""
    renewed: Callable[[str, Chained], Awaitable[Chained | None]]
    """Newer ones in place of those that were refused; None where there are none."""
    bare: Callable[[str, Token], str]
    """A chained token without the form in which it is injected."""
    followers: list[Callable[[], None]] = field(default_factory=list)
    """Told of each new token: the sources that need them."""
    skew: float = 0.0
    """The identity provider's clock minus ours, in seconds, as far as it is known."""
    secrets: SecretWatch = field(init=False)
    budget: Budget | None = field(init=False)

    def __post_init__(self) -> None:
        self.secrets = SecretWatch(self.credential.source)
        quota = self.credential.quota
        self.budget = Budget(quota) if quota else None
        store = self.means.store
        if self.budget and store and (entry := store.get(self._budget_key)):
            now, wall = clock.now(), time.time()
            until = entry.get("until")
            known = [moment for moment in until if isinstance(moment, int | float)] if isinstance(until, list) else []
            self.budget.restore(now + min(moment - wall, quota.seconds if quota else 0.0) for moment in known)

    def key(self, principal: str) -> str:
        """Where a principal's token stands in the store."""
        return sha256(f"{self.label}\0{principal}".encode()).hexdigest()

    def fingerprint(self) -> str | None:
        """Names what a token was obtained with: the operator's words and the secrets, which cannot be read from it.

        None where a secret cannot be read now.
        """
        if (secrets := self.secrets.glance()) is None:
            return None
        words = f"{self.token_url}\0{self.credential.source!r}"
        return sha256(words.encode() + secrets).hexdigest()

    @contextlib.asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        """A token request, counted from before it is made. Raises `TokenRequestError` where the quota is used up."""
        if self.budget is None:
            yield
            return
        if (wait := self.budget.wait(clock.now())) > 0:
            quota = self.budget.quota
            detail = f"the {quota.requests} token requests of {quota.seconds:g} s are used up"
            raise TokenRequestError(Reason.QUOTA, detail, retry_after=wait, sent=False)
        self.budget.begin()
        try:
            if self.means.store is not None:
                self._put_budget(self.budget, self.means.store)
                await self.means.store.flush()
            yield
        finally:
            self.budget.end(clock.now())
            if self.means.store is not None:
                self._put_budget(self.budget, self.means.store)

    def count_those_of(self, last: "Desk") -> None:
        """Counts the token requests of another credential of this name, that of the config before a reload."""
        if self.budget and last.budget:
            last.budget.quota = self.budget.quota
            self.budget = last.budget

    @property
    def _budget_key(self) -> str:
        return sha256(f"{self.label}\0\0max_token_requests".encode()).hexdigest()

    def _put_budget(self, budget: Budget, store: FileStore) -> None:
        now, wall = clock.now(), time.time()
        until = [wall + moment - now for moment in budget.counted(now, self.credential.timeout)]
        store.put(self._budget_key, {"until": until}, max(until, default=wall))
