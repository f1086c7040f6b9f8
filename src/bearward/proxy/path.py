"""A route with all that its requests need, put together once: tokens, connections, rules, numbers.

What the proxy knows of tokens is here: that there is a keeper, and what it gives.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from .. import events
from ..errors import ProblemError
from .headers import RequestRules
from .messages import RequestHead
from .routes import Route
from .tally import Tally
from .upstream.pool import Pool


class Token(Protocol):
    """What the proxy knows of a token."""

    @property
    def header_value(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


T = TypeVar("T", bound=Token)


class Keeper(Protocol[T]):
    """Who gives the token; the only thing that the proxy knows of how tokens live."""

    def current(self) -> T | None:
        """The token, where it can be used at once."""

    async def wait(self) -> T:
        """The token, as soon as there is one; raises `ProblemError`."""

    def reject(self, token: T) -> None:
        """Hears that the upstream answered 401 to `token`."""

    async def replace(self, token: T) -> T | None:
        """After such a 401: a newer token, or None."""


class Tokens(Protocol):
    """Where a route's tokens come from."""

    def keeper(self, principal: str) -> Keeper[Any]: ...


class RoutePath:
    """A route with all that its requests need, put together once."""

    def __init__(
        self,
        route: Route,
        tokens: Tokens,
        pool: Pool,
        tally: Tally,
        *,
        token_header: str,
        principal_header: str | None,
        observe: events.Observer,
        access: Callable[[events.RequestDone], None] | None,
    ) -> None:
        self.route = route
        self.tokens = tokens
        self.pool = pool
        self.tally = tally
        self.principal_header = principal_header
        self.observe = observe
        self.access = access
        self._in_flight = 0
        self._unused: asyncio.Event | None = None
        self.base = route.upstream.path.encode()
        self.rules = RequestRules(
            authority=route.upstream.authority,
            token_header=token_header,
            drop=(*route.remove_headers, *([principal_header] if principal_header else [])),
            add=[(name, value.reveal()) for name, value in route.set_headers],
        )

    def entered(self) -> None:
        """One more request is on its way."""
        self._in_flight += 1
        self.tally.in_flight += 1

    def left(self, method: bytes, code: int, origin: str, sent: int, received: int, seconds: float) -> None:
        """It came to its end; `sent` and `received` are bytes of bodies, to the upstream and from there."""
        self._in_flight -= 1
        tally = self.tally
        tally.in_flight -= 1
        tally.request_bytes += sent
        tally.response_bytes += received
        tally.done(method, code, origin, seconds)
        if self._unused is not None and not self._in_flight:
            self._unused.set()

    async def unused(self) -> None:
        """Waits until no request is on its way; no new ones may come."""
        if self._in_flight:
            self._unused = asyncio.Event()
            await self._unused.wait()

    def principal(self, head: RequestHead) -> str:
        """On whose behalf a request is made; `""` where the route has no principals. Raises `ProblemError`."""
        name = self.principal_header
        if name is None:
            return ""
        values = head.fields.search(name.lower().encode())
        if len(values) > 1:
            raise ProblemError("bad_request", f"The header {name} names one principal, not several.")
        if not values or not values[0]:
            raise ProblemError("principal_required", f"The header {name} must name the principal.")
        principal = values[0].decode("utf-8", "replace")
        if not principal.isprintable() or "\ufffd" in principal:
            raise ProblemError("bad_request", f"The header {name} is no printable UTF-8 text.")
        return principal
