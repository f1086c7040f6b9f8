"""What all keys of one credential at one token endpoint share: where they ask, with what, and what was learnt."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import uuid4

from .. import clock, events
from ..secret import SecretUnreadableError
from .credential import Credential, TokenEndpoint
from .failure import Reason, TokenRequestError
from .fetcher import Fetcher
from .ledger import Ledger, name_of
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
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    """What outlives a change of the config, by the label of the credential."""


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
    needs: Callable[[], list[str | None]] = list
    """The fingerprints of the credentials that this one is chained to."""
    skew: float = 0.0
    """The identity provider's clock minus ours, in seconds, as far as it is known."""
    secrets: SecretWatch = field(init=False)
    ledger: Ledger = field(init=False)
    _names: dict[tuple[bytes, str], str] = field(default_factory=dict)
    """Of secrets, which take long to make: the last one each."""

    def __post_init__(self) -> None:
        self.secrets = SecretWatch(self.credential.source)
        is_new = self.label not in self.means.ledgers
        self.ledger = self.means.ledgers.setdefault(self.label, Ledger())
        self.ledger.allow(self.credential.quota)
        store = self.means.store
        if is_new and store and (entry := store.get(self._ledger_key)):
            self.ledger.read(entry, time.time() - clock.now(), clock.now())

    def key(self, principal: str) -> str:
        """Where a principal's token stands in the store."""
        return sha256(f"{self.label}\0{principal}".encode()).hexdigest()

    def fingerprint(self) -> str | None:
        """Names what a token was obtained with: the operator's words and the secrets, which cannot be read from it.

        None where a secret cannot be read now.
        """
        secrets, needed = self.secrets.glance(), self.needs()
        if secrets is None or None in needed:
            return None
        return self._name(secrets, f"{self.token_url}\0{self.credential.source!r}\0{needed}")

    def party(self) -> str:
        """Names whom a session is with: it must not be ended at anybody else's."""
        source = self.credential.source
        client_id = source.client.id if isinstance(source, TokenEndpoint) else None
        try:
            client = client_id.reveal() if client_id else ""
        except SecretUnreadableError:
            client = ""
        return sha256(f"{self.token_url}\0{self.logout_url}\0{client}".encode()).hexdigest()

    def _name(self, secret: bytes, salt: str) -> str:
        if (secret, salt) not in self._names:
            if len(self._names) > 1:
                self._names.clear()
            self._names[secret, salt] = name_of(secret, salt)
        return self._names[secret, salt]

    # ── what is counted ──────────────────────────────────────────────────────────────────────────────────────

    @contextlib.asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        """A token request, counted from before it is made. Raises `TokenRequestError` where the quota is used up."""
        budget = self.ledger.budget
        if budget is None or self.credential.quota is None:
            yield
            return
        if (wait := budget.wait(clock.now())) > 0:
            detail = f"the {budget.quota.requests} token requests of {budget.quota.seconds:g} s are used up"
            raise TokenRequestError(Reason.QUOTA, detail, retry_after=wait, sent=False)
        budget.begin()
        was_sent = True
        try:
            await self._put_ledger()
            yield
        except TokenRequestError as failure:
            was_sent = failure.sent
            raise
        finally:
            budget.end(clock.now(), counts=was_sent)
            self._put_ledger_soon()

    @contextlib.asynccontextmanager
    async def careful(self, password: str | None) -> AsyncIterator[None]:
        """A request with a password, or with none: one that was refused is not sent again too soon.

        Raises `TokenRequestError`.
        """
        if password is None:
            yield
            return
        name = self._name(sha256(password.encode()).digest(), self.label)
        if (wait := self.ledger.password_waits(name, clock.now())) > 0:
            detail = "this password was refused before, and accounts get locked; nothing is sent"
            raise TokenRequestError(Reason.PASSWORD_REFUSED, detail, retry_after=wait, sent=False)
        try:
            yield
        except TokenRequestError as failure:
            if failure.reason is Reason.PASSWORD_REFUSED:
                failure.retry_after = self.ledger.password_refused(name, clock.now())
                await self._put_ledger()
            raise
        self.ledger.password_taken(name)

    @property
    def _ledger_key(self) -> str:
        return sha256(f"{self.label}\0\0ledger".encode()).hexdigest()

    async def _put_ledger(self) -> None:
        self._put_ledger_soon()
        if self.means.store is not None:
            await self.means.store.flush()

    def _put_ledger_soon(self) -> None:
        if self.means.store is None:
            return
        now, wall = clock.now(), time.time()
        budget = self.ledger.budget
        counted = budget.counted(now, self.credential.timeout) if budget else []
        longest = max([*(until - now for until in counted), 6 * 3600.0])
        self.means.store.put(self._ledger_key, self.ledger.written(wall - now, counted), wall + longest)
