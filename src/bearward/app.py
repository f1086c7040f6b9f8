"""The composition root: config → objects → run until told to stop → an ordered stop.

Here the two domains meet: a route of the proxy is given the tokens of its credential, and nothing else of them.
"""

import asyncio
import contextlib
import os
import re
import socket
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from aiohttp import web

from . import events
from .address import Address
from .config import Settings
from .errors import os_reason
from .ops.admin import admin_application
from .ops.metrics import Metrics
from .ops.state import State
from .proxy.crossing import RoutePath
from .proxy.guard import Guard
from .proxy.handler import Handler
from .proxy.routes import Route
from .proxy.server import DataPort
from .proxy.server import UnsafeParserError as UnsafeParserError
from .proxy.upstream import ConnectionPool
from .tokens.fetcher import Fetcher
from .tokens.source import TokenSource

DRAIN_TIMEOUT: Final = 30.0
BACKLOG: Final = 4096
ACCEPTS: Final = 64


class BindError(Exception):
    """A listening address cannot be had. Its text says which one and why."""


class App:
    """bearward as a whole: the data port, the admin port, and the tokens behind them."""

    def __init__(self, settings: Settings, observers: Iterable[events.Observer] = ()) -> None:
        self._settings = settings
        self._observers = list(observers)
        self._ends = contextlib.AsyncExitStack()
        self.listen = settings.listen
        self.admin = settings.admin
        self.state = State({})

    async def start(self) -> None:
        """Binds both ports, starts the tokens and serves.

        Raises `BindError` and `UnsafeParserError`; what was begun is then undone.
        """
        async with contextlib.AsyncExitStack() as ends:
            data_socket = _bind(self._settings.listen, ends)
            admin_socket = _bind(self._settings.admin, ends)
            self.listen = _bound(self._settings.listen, data_socket)
            self.admin = _bound(self._settings.admin, admin_socket)
            fetcher = Fetcher()
            ends.push_async_callback(fetcher.close)
            pool = ConnectionPool()
            ends.push_async_callback(pool.close)
            self.state = State(self._routes(fetcher, pool))
            port = self._data_port()
            await self._serve_admin(admin_socket, ends)
            ends.push_async_callback(_close, self.state.sources)
            for source in self.state.sources:
                source.start()
            # asyncio's own loop tries to accept as many at a time as the backlog has, out of file descriptors too.
            server = await asyncio.get_running_loop().create_server(port.protocol, sock=data_socket, backlog=ACCEPTS)
            data_socket.listen(BACKLOG)
            ends.push_async_callback(port.drain, DRAIN_TIMEOUT)
            ends.callback(server.close)
            self._ends = ends.pop_all()

    async def stop(self) -> None:
        """Not ready, stop accepting, finish what is in flight, end the sessions; then nothing is left."""
        self.state.is_draining = True
        await self._ends.aclose()

    def _observe(self, event: events.Event) -> None:
        for observer in self._observers:
            observer(event)

    def _routes(self, fetcher: Fetcher, pool: ConnectionPool) -> dict[str, tuple[RoutePath, TokenSource]]:
        sources = token_sources(self._settings, fetcher, self._observe)
        routes = {}
        for route in self._settings.routes:
            source = sources[_label(self._settings, route)]
            routes[route.prefix] = (self._path(route, source, pool), source)
        return routes

    def _path(self, route: Route, source: TokenSource, pool: ConnectionPool) -> RoutePath:
        credential = source.credential
        return RoutePath(
            route,
            source,
            pool.dialer(route.upstream, route.connect_timeout, route.response_timeout, route.idle_timeout),
            token_header=credential.inject_header,
            principal_header=credential.principal.header if credential.principal else None,
        )

    async def _serve_admin(self, listening: socket.socket, ends: contextlib.AsyncExitStack) -> None:
        paths = {prefix: path for prefix, (path, _) in self.state.routes.items()}
        metrics = Metrics(paths, self.state.sources)
        self._observers.append(metrics)
        runner = web.AppRunner(admin_application(self.state, metrics), access_log=None, shutdown_timeout=1)
        await runner.setup()
        ends.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listening).start()

    def _data_port(self) -> DataPort:
        # A name without a port means the listener's, which the system may just have chosen.
        hosts = [re.sub(":0$", f":{self.listen.port}", host) for host in self._settings.allowed_hosts]
        guard = Guard(self.listen, hosts, self._settings.allowed_origins)
        paths = {prefix: path for prefix, (path, _) in self.state.routes.items()}
        return DataPort(Handler(guard, paths, self._observe), self._observe)


def token_sources(settings: Settings, fetcher: Fetcher, observe: events.Observer) -> dict[str, TokenSource]:
    """What the routes get their tokens from, by label: one for each origin where the token URL is relative."""
    sources: dict[str, TokenSource] = {}
    for route in settings.routes:
        label = _label(settings, route)
        if label not in sources:
            credential = settings.credentials[route.credential]
            sources[label] = TokenSource(credential, route.upstream.origin, label, fetcher, observe)
    return sources


def _label(settings: Settings, route: Route) -> str:
    if settings.credentials[route.credential].is_relative:
        return f"{route.credential}@{route.upstream.host_and_port}"
    return route.credential


async def _close(sources: Iterable[TokenSource]) -> None:
    await asyncio.gather(*(source.close() for source in sources))


def _bound(address: Address, listening: socket.socket) -> Address:
    """The address with the port that the system chose, where it was left open."""
    return address if address.path is not None else Address(address.host, listening.getsockname()[1])


def _bind(address: Address, ends: contextlib.AsyncExitStack) -> socket.socket:
    try:
        if address.path is not None:
            return _bind_unix(Path(address.path), ends)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listening = socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise BindError(f"cannot listen on {address}: {os_reason(error)}") from None
    ends.callback(listening.close)
    return listening


def _bind_unix(path: Path, ends: contextlib.AsyncExitStack) -> socket.socket:
    """A unix socket of mode 0600; one that a dead process left behind is replaced."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
            path.unlink()
    listening = socket.socket(socket.AF_UNIX)
    ends.callback(listening.close)
    umask = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(umask)
    ends.callback(_unlink, path, _identity(path))
    return listening


def _unlink(path: Path, own: tuple[int, int] | None) -> None:
    """Removes the socket, unless a successor has put its own there."""
    if _identity(path) == own:
        path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop: uvloop's, which is faster, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
