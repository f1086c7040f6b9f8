"""All tokens of one credential at one token endpoint: a single one, or one for each principal."""

import asyncio
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from cachetools import Cache, LRUCache

from .. import events
from .answer import Issued
from .credential import Credential
from .fetcher import Fetcher
from .keeper import Keeper
from .session import Session
from .token import TokenStatus


class TokenSource:
    """Where the routes of a credential get their tokens.

    `origin` is that of the upstream, and matters where the credential's URLs are paths. `label` names the source
    in logs and metrics: the credential's name, with `@HOST:PORT` where there may be several.
    """

    def __init__(
        self, credential: Credential, origin: str, label: str, fetcher: Fetcher, observe: events.Observer
    ) -> None:
        self.credential = credential
        self.label = label
        self.has_principals = credential.principal is not None
        self.token_url = token_url = _resolve(credential.token_url, origin)
        self._logout_url = None
        if credential.logout_url:
            scheme, _, rest = token_url.partition("://")
            self._logout_url = _resolve(credential.logout_url, f"{scheme}://{rest.partition('/')[0]}")
        self._fetcher = fetcher
        self._observe = observe
        self._leaving: set[asyncio.Task[None]] = set()
        self._one = None if credential.principal else self._keeper("")
        self._each = _Principals(credential.principal.max if credential.principal else 0, self._retire)

    def start(self) -> None:
        """Asks for the first token; with principals, nothing is asked before their first request."""
        if self._one is not None:
            self._one.start()

    def keeper(self, principal: str) -> Keeper:
        """The keeper of `principal`'s token; `""` where the credential has no principals."""
        if self._one is not None:
            return self._one
        keeper = self._each.get(principal)
        if keeper is None:
            self._each[principal] = keeper = self._keeper(principal)
            keeper.start()
        return keeper

    async def obtain(self, principal: str, *, keep_session: bool) -> Issued:
        """One token beside all keepers, for a look at it. Raises `TokenRequestError`."""
        session = self._session(principal)
        issued, _ = await session.obtain()
        if not keep_session:
            await session.end()
        return issued

    async def close(self) -> None:
        """Ends all lives, and with them the sessions."""
        await asyncio.gather(*(keeper.close() for keeper in self._keepers()), *self._leaving)

    def statuses(self) -> list[TokenStatus]:
        """What an operator may know of each token, in no order that names a principal."""
        return [keeper.status() for keeper in self._keepers()]

    @property
    def is_started(self) -> bool:
        """Whether there was a first token or a definite refusal; principals need no start."""
        return self.has_principals or all(status.is_started for status in self.statuses())

    @property
    def is_servable(self) -> bool:
        """Whether a request would get a token now, or, with principals, may get one."""
        return self.has_principals or any(status.is_usable for status in self.statuses())

    def _keepers(self) -> Iterator[Keeper]:
        return iter([self._one] if self._one is not None else self._each.held())

    def _keeper(self, principal: str) -> Keeper:
        session = self._session(principal)
        return Keeper(self.label, self.credential, session, self._observe, on_demand=self.has_principals)

    def _session(self, principal: str) -> Session:
        return Session(
            self.label,
            self.credential,
            token_url=self.token_url,
            logout_url=self._logout_url,
            fetcher=self._fetcher,
            observe=self._observe,
            principal=principal,
        )

    def _retire(self, keeper: Keeper) -> None:
        self._observe(events.TokenEvicted(self.label))
        task = asyncio.create_task(keeper.close(), name=f"end of a token of {self.label}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


class _Principals(LRUCache[str, Keeper]):
    """Keepers by principal; the least recently used leaves first, and its session is ended."""

    def __init__(self, maxsize: int, retire: Callable[[Keeper], None]) -> None:
        super().__init__(maxsize)
        self._retire = retire

    def held(self) -> list[Keeper]:
        """All of them, without a mark that they were used."""
        return [Cache.__getitem__(self, principal) for principal in self]

    def popitem(self) -> tuple[str, Keeper]:
        principal, keeper = super().popitem()
        self._retire(keeper)
        return principal, keeper


def _resolve(url: str, origin: str) -> str:
    """An absolute URL as it is; a path at `origin`. No joining: the config's path is the whole path."""
    return url if urlsplit(url).scheme else origin + url
