"""The composition root: config → objects → run until told to stop → an ordered stop.

Here the two domains meet: a route of the proxy is given the tokens of its credential, and nothing else of them.
Another config replaces all that was built from the last one, but for the tokens of credentials that stay as they
were and the numbers of routes that stay; what a request began with, it ends with.
"""

import asyncio
import contextlib
import re
import resource
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from . import events
from .config import Settings
from .ops.admin import admin_application
from .ops.metrics import Metrics
from .ops.state import State
from .proxy.guard import Guard
from .proxy.handler import Handler
from .proxy.path import RoutePath
from .proxy.routes import Route, Upstream
from .proxy.server import DataPort
from .proxy.tally import Tally
from .proxy.upstream.pool import Pools
from .sockets import BACKLOG, bind, bound
from .sockets import BindError as BindError
from .tokens.desk import Means
from .tokens.fetcher import Fetcher
from .tokens.source import TokenSource
from .tokens.store import FileStore
from .tokens.timetable import Timetable

ACCEPTS: Final = 64
AccessLog = Callable[[events.RequestDone], None]


class UnsafeParserError(Exception):
    """A parser of HTTP was installed without its C extension; the text says what to do."""


class TlsFilesError(Exception):
    """The files that a route's `tls` names were good when they were checked, and are not now."""


class App:
    """bearward as a whole: the data port, the admin port, and the tokens behind them."""

    def __init__(
        self, settings: Settings, observers: Iterable[events.Observer] = (), access: AccessLog | None = None
    ) -> None:
        self._settings = settings
        self._observers = list(observers)
        self._access = access
        self._ends = contextlib.AsyncExitStack()
        self._former: dict[asyncio.Task[None], TokenSource] = {}
        """Each waits for the last request of a route's path that was replaced, whose tokens are from there."""
        self._retiring: set[asyncio.Task[None]] = set()
        self.listen = settings.listen
        self.admin = settings.admin
        self.state = State({})
        self.metrics = Metrics(self.state)
        self._observers.append(self.metrics)
        self._means: Means
        self._pools: Pools
        self._port: DataPort

    async def start(self) -> None:
        """Binds both ports, starts the tokens and serves.

        Raises `BindError`, `UnsafeParserError` and `TlsFilesError`; what was begun is then undone.
        """
        if HttpRequestParser is HttpRequestParserPy:
            raise UnsafeParserError(
                "aiohttp runs without its C parser, and the one in Python has let smuggled requests through: "
                "install a wheel of aiohttp for this platform, and unset AIOHTTP_NO_EXTENSIONS"
            )
        async with contextlib.AsyncExitStack() as ends:
            data_socket = bind(self._settings.listen, ends)
            admin_socket = bind(self._settings.admin, ends)
            self.listen = bound(self._settings.listen, data_socket)
            self.admin = bound(self._settings.admin, admin_socket)
            fetcher = Fetcher(self._settings.egress_proxy)
            ends.push_async_callback(fetcher.close)
            self._means = Means(fetcher, Timetable(), self._observe, self._open_store(ends))
            self._settings = settings = _fitting(self._settings)
            self._pools = Pools(settings.limits, settings.egress_proxy)
            ends.callback(lambda: self._pools.close())
            self.state.routes = self._routes(self._settings, self._pools)
            self._port = DataPort(self._handler(self._settings), self._settings.limits, self._observe)
            await self._serve_admin(admin_socket, ends)
            ends.push_async_callback(self._close_sources)
            for source in self.state.sources:
                source.start()
            # asyncio's own loop tries to accept as many at a time as the backlog has, out of file descriptors too.
            loop = asyncio.get_running_loop()
            server = await loop.create_server(self._port.protocol, sock=data_socket, backlog=ACCEPTS)
            data_socket.listen(BACKLOG)
            ends.push_async_callback(lambda: self._port.drain(self._settings.limits.drain_timeout))
            ends.callback(server.close)
            self._ends = ends.pop_all()

    def apply(self, settings: Settings, observers: Iterable[events.Observer], access: AccessLog | None) -> None:
        """Puts another config in force with the next request; the two listening addresses stay.

        Raises `TlsFilesError`; nothing has changed then.
        """
        settings = _fitting(settings)
        former, sources = self.state.routes, self.state.sources
        pools = Pools(settings.limits, settings.egress_proxy)
        self._access, before = access, self._access
        try:
            routes = self._routes(settings, pools)
        except TlsFilesError:
            self._access = before
            raise
        self.state.routes = routes
        self._observers = [*observers, self.metrics]
        self._settings, self._means.fetcher.egress = settings, settings.egress_proxy
        self._port.handler, self._port.limits = self._handler(settings), settings.limits
        for source in self.state.sources:
            if source not in sources:
                source.start()
        last, self._pools = self._pools, pools
        self._retire(former.values(), last, [source for source in sources if source not in self.state.sources])
        self.metrics.config_read(ok=True)
        self._observe(events.ConfigApplied(len(routes)))

    async def stop(self) -> None:
        """Not ready, stop accepting, finish what is in flight, end the sessions; then nothing is left."""
        self.state.is_draining = True
        await self._ends.aclose()

    def refuse(self, faults: int, first: str) -> None:
        """Tells that another config was read and is at fault."""
        self.metrics.config_read(ok=False)
        self._observe(events.ConfigRefused(faults, first))

    def _retire(
        self, former: Iterable[tuple[RoutePath, TokenSource]], pools: Pools, gone: Iterable[TokenSource]
    ) -> None:
        """Ends what was replaced: idle connections now, the rest once no request needs it any more."""
        unused = {asyncio.create_task(path.unused(), name="end of a route's path"): source for path, source in former}
        self._former |= unused
        for task in unused:
            task.add_done_callback(self._former.pop)
        for path, _ in former:
            path.pool.close()
        self._end_after(unused, _close(pools))
        for source in gone:
            # The paths of configs before the last one too: what they began may have its tokens from there.
            needing = [task for task, of in self._former.items() if of is source or of.is_chained_to(source)]
            self._end_after(needing, source.close())

    def _end_after(self, unused: Iterable[asyncio.Task[None]], end: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_after(unused, end), name="end of what the last config had")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _observe(self, event: events.Event) -> None:
        for observer in self._observers:
            observer(event)

    def _routes(self, settings: Settings, pools: Pools) -> dict[str, tuple[RoutePath, TokenSource]]:
        known = {source.label: source for source in self.state.sources}
        sources = token_sources(settings, self._means, known)
        tallies = {prefix: path.tally for prefix, (path, _) in self.state.routes.items()}
        routes = {}
        for route in settings.routes:
            source = sources[_label(settings, route.credential, route.upstream)]
            tally = tallies.get(route.prefix) or Tally()
            routes[route.prefix] = (self._path(route, source, pools, tally), source)
        return routes

    def _path(self, route: Route, source: TokenSource, pools: Pools, tally: Tally) -> RoutePath:
        credential = source.credential
        try:
            pool = pools.pool(route.upstream, route.tls)
        except OSError as error:
            raise TlsFilesError(f"the files in tls of route {route.prefix} cannot be used: {error}") from None
        return RoutePath(
            route,
            source,
            pool,
            tally,
            token_header=credential.inject_header,
            principal_header=credential.principal.header if credential.principal else None,
            observe=self._observe,
            access=self._access,
        )

    async def _serve_admin(self, listening: socket.socket, ends: contextlib.AsyncExitStack) -> None:
        application = admin_application(self.state, self.metrics)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        ends.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listening).start()

    def _handler(self, settings: Settings) -> Handler:
        # A name without a port means the listener's: the system may have chosen it, or a new one wait for a restart.
        written, real = f":{settings.listen.port}$", f":{self.listen.port}"
        hosts = [re.sub(written, real, host) for host in settings.allowed_hosts]
        guard = Guard(self.listen, hosts, settings.allowed_origins)
        paths = {prefix: path for prefix, (path, _) in self.state.routes.items()}
        return Handler(guard, paths, require_header=settings.require_header, trailer_bytes=settings.limits.header_bytes)

    def _open_store(self, ends: contextlib.AsyncExitStack) -> FileStore | None:
        if self._settings.token_store is None:
            return None
        store = FileStore(self._settings.token_store, self._observe)
        store.open()
        ends.push_async_callback(store.close)
        return store

    async def _close_sources(self) -> None:
        await asyncio.gather(*(source.close(keep=True) for source in self.state.sources), *self._retiring)


def token_sources(settings: Settings, means: Means, known: Mapping[str, TokenSource]) -> dict[str, TokenSource]:
    """What the routes get their tokens from, by label: one for each origin where the token URL is relative.

    Credentials that these are chained to come before them. Of the `known` ones those stay that would be the same.
    """
    sources: dict[str, TokenSource] = {}

    def source_of(name: str, upstream: Upstream) -> TokenSource:
        label = _label(settings, name, upstream)
        if label not in sources:
            credential = settings.credentials[name]
            chained = {other: source_of(other, upstream) for other in credential.chained}
            source = TokenSource(credential, upstream.origin, label, means, chained)
            last = known.get(label)
            sources[label] = last if last is not None and last.is_like(source) else source
        return sources[label]

    for route in settings.routes:
        source_of(route.credential, route.upstream)
    return sources


def _fitting(settings: Settings) -> Settings:
    """The limits as far as the system allows."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return replace(settings, limits=settings.limits.fitting(descriptors))


def _label(settings: Settings, credential: str, upstream: Upstream) -> str:
    return f"{credential}@{upstream.host_and_port}" if settings.credentials[credential].is_relative else credential


async def _after(unused: Iterable[asyncio.Task[None]], end: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(*unused)
    await end


async def _close(pools: Pools) -> None:
    """A request that has no connection yet may still need their lookups."""
    pools.close()


def event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop: uvloop's, which is faster, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
