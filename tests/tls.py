"""TLS for tests: an authority with certificates in files, and raw upstreams that speak TLS."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import trustme

from wire import LIMIT, RawUpstream, Reader, Writer


class Authority:
    """Signs certificates; `file` is what a config names as `ca_file`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._ca = trustme.CA(organization_name=name)
        self._folder = folder
        self.file = str(folder / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, *names: str, asks_for_client: ssl.VerifyMode = ssl.CERT_NONE) -> ssl.SSLContext:
        """What a server with a certificate for `names` needs; clients' certificates must be of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names).configure_cert(context)
        self._ca.configure_trust(context)
        context.verify_mode = asks_for_client
        return context

    def client(self, name: str) -> dict[str, str]:
        """`cert_file` and `key_file` of a client whose certificate has the mail address `name`."""
        issued = self._ca.issue_cert(name)
        files = {"cert_file": str(self._folder / f"{name}.pem"), "key_file": str(self._folder / f"{name}.key")}
        for pem in issued.cert_chain_pems:
            pem.write_to_path(files["cert_file"], append=True)
        issued.private_key_pem.write_to_path(files["key_file"])
        return files


class TlsUpstream(RawUpstream):
    """A raw upstream behind TLS; `names` has what each handshake asked for (SNI)."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self.context = context
        self.names: list[str | None] = []
        context.sni_callback = self._note_name

    def _note_name(self, _connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        self.names.append(name)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, limit=LIMIT, backlog=2048, ssl=self.context, ssl_shutdown_timeout=1.0
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: Reader, writer: Writer) -> None:
        with suppress(ssl.SSLError):  # the proxy may hang up without a notice at any time
            await super()._serve(reader, writer)

    @property
    def url(self) -> str:
        """By address; `https://localhost:PORT` leads here as well."""
        return f"https://127.0.0.1:{self.port}"


def peer_names(writer: Writer) -> list[str]:
    """The names in the certificate that the other side has shown, if it has."""
    shown: Any = writer.get_extra_info("ssl_object").getpeercert() or {}
    return [name for _, name in shown.get("subjectAltName", ())]


def is_resumed(writer: Writer) -> bool:
    """Whether the handshake went on with an earlier session."""
    return bool(writer.get_extra_info("ssl_object").session_reused)


def end_without_notice(writer: Writer) -> None:
    """Send FIN, and no close_notify before it; what was written must have been sent."""
    writer.get_extra_info("socket").shutdown(socket.SHUT_WR)


@asynccontextmanager
async def listening(serve: Callable[[Reader, Writer], Awaitable[None]]) -> AsyncIterator[str]:
    """The `https` URL of a port behind which there is no TLS, but `serve`."""
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def speak_plainly(_reader: Reader, writer: Writer) -> None:
    """As a port for plain HTTP answers a handshake."""
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    writer.close()


async def hang_up_at_once(_reader: Reader, writer: Writer) -> None:
    """As a balancer with nobody behind it."""
    writer.close()


async def say_nothing(reader: Reader, writer: Writer) -> None:
    """Take all that comes, and never answer."""
    while await reader.read(LIMIT):
        pass
    writer.close()
