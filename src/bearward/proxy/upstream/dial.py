"""How a connection to an upstream comes to be: names, addresses, an egress proxy, TLS."""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import aiohappyeyeballs

from ...address import is_loopback
from ...egress import EgressProxy
from ...errors import ProblemError, os_reason
from ...tls import Tls, client_context
from ..routes import Upstream

NEXT_ADDRESS: Final = 0.25
"""After how many seconds the next of a name's addresses is tried as well (RFC 8305 §5)."""
MOST_PROXY_ANSWER: Final = 16 << 10

P = TypeVar("P", bound=asyncio.Protocol)
Addresses = list[Any]


class Names:
    """Asks the system for addresses, anew for each connection; one lookup at a time for each name.

    Each has a thread of its own, that nothing waits for: a name whose servers are silent holds up nobody, and no end.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[str, int], asyncio.Future[Addresses]] = {}

    async def addresses(self, host: str, port: int) -> Addresses:
        """Where `host` is. Raises `OSError`."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            return _look_up(host, port, socket.AI_NUMERICHOST)
        running = self._running.get((host, port))
        if running is None:
            loop = asyncio.get_running_loop()
            running = self._running[host, port] = loop.create_future()
            threading.Thread(target=self._ask, args=(loop, host, port), name="lookup", daemon=True).start()
        return await asyncio.shield(running)

    def _ask(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> None:
        found: Addresses | OSError
        try:
            found = _look_up(host, port, 0)
        except OSError as error:
            found = error
        except UnicodeError:
            found = socket.gaierror(socket.EAI_NONAME, "no such name")
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._tell, (host, port), found)

    def _tell(self, name: tuple[str, int], found: Addresses | OSError) -> None:
        running = self._running.pop(name)
        if isinstance(found, OSError):
            running.set_exception(found)
            running.exception()  # perhaps nobody waits any more
        else:
            running.set_result(found)


def _look_up(host: str, port: int, flags: int) -> Addresses:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)


class Dialer:
    """Opens connections to one upstream."""

    def __init__(
        self,
        upstream: Upstream,
        context: ssl.SSLContext | None,
        server_name: str | None,
        egress: EgressProxy | None,
        names: Names,
    ) -> None:
        self._upstream = upstream
        self._names = names
        self._context = context
        self._server_name = server_name or upstream.host
        self._egress = egress if self._context is not None and not is_loopback(upstream.host) else None

    async def connect(self, protocol: Callable[[], P], seconds: float) -> P:
        """A new connection. Raises `ProblemError` (502, 504)."""
        where = self._upstream.host_and_port
        stage = "upstream_unreachable"
        try:
            async with asyncio.timeout(seconds):
                connection = await self._reach()
                stage = "upstream_unreachable" if self._context is None else "upstream_tls"
                return await self._speak(connection, protocol)
        except TimeoutError:
            raise ProblemError("upstream_timeout", f"No connection to {where} in time.") from None
        except ssl.SSLError as error:
            raise ProblemError("upstream_tls", f"{where}: {os_reason(error).rstrip('.')}.") from None
        except ssl.CertificateError:
            raise ProblemError("upstream_tls", f"{where}: the certificate is not accepted.") from None
        except RefusedByProxyError as error:
            raise ProblemError("upstream_unreachable", f"{where}: {error}.") from None
        except (OSError, RuntimeError) as error:  # uvloop tells some of the system's errors as RuntimeError
            reason = os_reason(error) if isinstance(error, OSError) else "the system refuses"
            raise ProblemError(stage, f"{where}: {reason}.") from None

    async def _reach(self) -> socket.socket:
        egress = self._egress
        if egress is None:
            return await self._connection_to(self._upstream.host, self._upstream.port)
        try:
            connection = await self._connection_to(egress.host, egress.port)
        except OSError as error:
            raise RefusedByProxyError(f"the egress proxy {egress.url}: {os_reason(error)}") from None
        try:
            await _ask_proxy(connection, egress, self._upstream.host_and_port)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _connection_to(self, host: str, port: int) -> socket.socket:
        addresses = await self._names.addresses(host, port)
        return await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS, interleave=1)

    async def _speak(self, connection: socket.socket, protocol: Callable[[], P]) -> P:
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(
                protocol,
                sock=connection,
                ssl=self._context,
                server_hostname=self._server_name if self._context is not None else None,
            )
        except BaseException:
            connection.close()
            raise
        return made


class ResumingContext(ssl.SSLContext):
    """Offers the last session again, so that a further connection needs no new key exchange (RFC 8446 §2.2)."""

    _last: dict[str | None, ssl.SSLObject]

    @classmethod
    def of(cls, tls: Tls) -> "ResumingContext":
        """Raises `OSError` for files that cannot be used (the config was checked, but that is some time ago)."""
        context = client_context(tls, cls)
        context._last = {}
        return context

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        name = options.get("server_hostname")
        last = self._last.get(name)
        if last is not None and (session := last.session) is not None:
            options["session"] = session
        self._last[name] = made = super().wrap_bio(*args, **options)
        return made


class RefusedByProxyError(Exception):
    """The egress proxy opens no tunnel. Its text holds nothing that it sent."""


async def _ask_proxy(connection: socket.socket, egress: EgressProxy, target: str) -> None:
    """CONNECT (RFC 9110 §9.3.6)."""
    loop = asyncio.get_running_loop()
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if egress.authorization is not None:
        lines.append(f"Proxy-Authorization: {egress.authorization.reveal()}")
    await loop.sock_sendall(connection, "\r\n".join([*lines, "", ""]).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = await loop.sock_recv(connection, 4096)
        answer += data
        if not data or len(answer) > MOST_PROXY_ANSWER:
            raise RefusedByProxyError("the egress proxy gave no answer")
    status = answer[:12]
    # In TLS nobody speaks before the client: bytes behind the head are none of the upstream's.
    is_open = status.startswith(b"HTTP/1.") and status[8:10] == b" 2" and answer.endswith(b"\r\n\r\n")
    if not is_open:
        shown = status[9:12].decode("ascii", "replace") if status[9:12].isdigit() else "no HTTP"
        raise RefusedByProxyError(f"the egress proxy answered {shown}")
