"""All tokens of one credential at one token endpoint: a single one, or one for each principal."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from cachetools import Cache, LRUCache

from .. import events
from ..errors import ProblemError
from .credential import Credential, TokenEndpoint
from .desk import Chained, Desk, Means
from .failure import Reason, TokenRequestError
from .keeper import Keeper, Way
from .local import Local
from .session import Session
from .token import Token, TokenStatus


class TokenSource:
    """Where the routes of a credential, and credentials that are chained to it, get their tokens.

    `origin` is that of the upstream, and matters where the credential's URLs are paths. `label` names the source
    in logs and metrics: the credential's name, with `@HOST:PORT` where there may be several.
    """

    def __init__(
        self,
        credential: Credential,
        origin: str,
        label: str,
        means: Means,
        chained: Mapping[str, "TokenSource"] | None = None,
    ) -> None:
        self.credential = credential
        self.label = label
        self.chained = chained or {}
        """The sources that its requests need tokens of, by the names of their credentials."""
        self.has_principals = credential.principal is not None
        self.token_url, logout_url = "", None
        if isinstance(endpoint := credential.source, TokenEndpoint):
            self.token_url = _resolve(endpoint.token_url, origin)
            if endpoint.logout_url:
                scheme, _, rest = self.token_url.partition("://")
                logout_url = _resolve(endpoint.logout_url, f"{scheme}://{rest.partition('/')[0]}")
        self._desk = Desk(
            label=label,
            credential=credential,
            means=means,
            token_url=self.token_url,
            logout_url=logout_url,
            chained=self._chained_tokens,
            renewed=self._renewed,
            bare=lambda name, token: self.chained[name].bare(token),
            needs=lambda: [source._desk.fingerprint() for _, source in sorted(self.chained.items())],
        )
        self._leaving: set[asyncio.Task[None]] = set()
        self._one = None if credential.principal else self._keeper("")
        self._each = _Principals(credential.principal.max if credential.principal else 0, self._retire)

    def is_like(self, other: "TokenSource") -> bool:
        """Whether it would do the same: of the same credential, asked for at the same place, with the same tokens."""
        is_same = (self.credential, self.token_url) == (other.credential, other.token_url)
        return is_same and all(self.chained[name] is source for name, source in other.chained.items())

    def is_chained_to(self, other: "TokenSource") -> bool:
        """Whether its requests need tokens of that one, directly or not."""
        return any(source is other or source.is_chained_to(other) for source in self.chained.values())

    def start(self) -> None:
        """Asks for the first token; with principals, nothing is asked before their first request."""
        for source in self.chained.values():
            if self._nudge not in source._desk.followers:
                source._desk.followers.append(self._nudge)
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

    def bare(self, token: Token) -> str:
        """A token of this source as it was issued, without what is injected around it."""
        before, _, after = self.credential.inject_format.partition("{token}")
        return token.header_value[len(before) : len(token.header_value) - len(after)]

    def beside(self, principal: str, chained: Chained) -> Way:
        """How to obtain one token beside all keepers, with these tokens of other credentials, for a look at it."""

        async def given(_principal: str) -> Chained:
            return chained

        async def not_renewed(_principal: str, _refused: Chained) -> None:
            return None

        return self._way(principal, replace(self._desk, chained=given, renewed=not_renewed))

    async def close(self, *, keep: bool = False) -> None:
        """Ends all lives, and with them the sessions; with `keep`, not those that a store keeps.

        Nothing begins again after that.
        """
        for source in self.chained.values():
            with contextlib.suppress(ValueError):
                source._desk.followers.remove(self._nudge)
        await asyncio.gather(*(keeper.close(keep=keep) for keeper in self._keepers()), *self._leaving)

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
        return Keeper(self._desk, self._way(principal, self._desk), on_demand=self.has_principals)

    def _way(self, principal: str, desk: Desk) -> Session | Local:
        source = self.credential.source
        if isinstance(source, TokenEndpoint):
            return Session(desk, source, principal)
        return Local(desk, source, principal)

    async def _chained_tokens(self, principal: str) -> Chained:
        """Waits for the tokens of other credentials that a request needs. Raises `TokenRequestError`."""
        tokens = {}
        for name, source in self.chained.items():
            source.start()
            keeper = source.keeper(principal if source.has_principals else "")
            try:
                tokens[name] = keeper.current() or await keeper.wait()
            except ProblemError as problem:
                is_refused = problem.code == "credential_rejected"
                detail = (
                    f"the credential {name!r}, which this one needs, {'is refused' if is_refused else 'has no token'}"
                )
                raise TokenRequestError(Reason.CHAINED_TOKEN, detail, sent=False, is_chains_end=is_refused) from None
        return tokens

    async def _renewed(self, principal: str, refused: Chained) -> Chained | None:
        """The tokens in place of those that an identity provider refused; None where all are the same."""
        tokens = {}
        for name, token in refused.items():
            source = self.chained[name]
            keeper = source.keeper(principal if source.has_principals else "")
            tokens[name] = await keeper.replace(token) or token
        return tokens if any(tokens[name] is not refused[name] for name in tokens) else None

    def _nudge(self) -> None:
        for keeper in self._keepers():
            keeper.nudge()

    def _retire(self, keeper: Keeper) -> None:
        self._desk.means.observe(events.TokenEvicted(self.label))
        task = asyncio.create_task(keeper.close(keep=False), name=f"end of a token of {self.label}")
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
