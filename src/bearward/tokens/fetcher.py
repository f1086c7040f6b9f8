"""The only code that calls a token endpoint."""

import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from os import stat_result
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from .. import __version__, clock
from ..address import is_loopback
from ..egress import EgressProxy
from ..errors import os_reason, tls_reason
from ..tls import Tls, client_context
from .answer import Answer
from .failure import Reason, TokenRequestError
from .recipe import TokenRequest
from .turnstile import Turn, Turnstile

MAX_ANSWER_BYTES = 1 << 20


class Fetcher:
    """Sends token and logout requests: one connection each, no redirects, no cookies, no retries.

    A kept-alive connection that the server closes just as a request is written would leave open whether a
    refresh token was spent; token requests are rare, a new connection costs nothing.
    """

    def __init__(self, egress: EgressProxy | None) -> None:
        self.egress = egress
        """What `https` goes through; may be replaced."""
        self._contexts: dict[Tls, tuple[list[tuple[int, ...]], ssl.SSLContext]] = {}
        """Those that were made, and the state of the files that they were made from."""
        self._turnstiles: dict[str, Turnstile] = {}
        traces = aiohttp.TraceConfig()
        traces.on_request_headers_sent.append(_note_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"bearward/{__version__}"},
            skip_auto_headers=("Accept-Encoding", "Content-Type"),
            trace_configs=[traces],
        )

    @contextlib.asynccontextmanager
    async def passing(self, url: str, turn: Turn) -> AsyncIterator[None]:
        """A place among those that may ask the identity provider of `url` at a time, once there is one.

        What is sent is made after that: an assertion must not age in a queue.
        """
        scheme, _, host, *_ = url.split("/", 3)
        turnstile = self._turnstiles.setdefault(f"{scheme}//{host}", Turnstile())
        await turn.pass_into(turnstile)
        try:
            yield
        finally:
            turnstile.leave()

    async def send(self, request: TokenRequest, timeout: float, tls: Tls) -> Answer:  # noqa: ASYNC109 - of one exchange
        """The answer to `request`, whatever its status. Raises `TokenRequestError` where there is none."""
        exchange = SimpleNamespace(sent=False)
        asked_at, sent_at = clock.now(), time.time()
        try:
            async with self._session.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body or None,
                headers=request.headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout, ceil_threshold=3600),
                trace_request_ctx=exchange,
                ssl=self._context(tls),
                server_hostname=tls.server_name,
                **self._way(request.url),
            ) as response:
                answered_at = time.time()
                body = await _bounded(response)
                return Answer(response.status, response.headers, body, asked_at, sent_at, answered_at)
        except TimeoutError:
            raise _unanswered(Reason.TIMEOUT, f"no answer within {timeout:g} s", exchange.sent) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise _unanswered(Reason.TLS, tls_reason(error.certificate_error), exchange.sent) from None
        except aiohttp.ClientHttpProxyError as error:
            raise _unanswered(Reason.NETWORK, f"the egress proxy answered {error.status}", sent=False) from None
        except aiohttp.ClientConnectorError as error:
            reason = Reason.TLS if isinstance(error, aiohttp.ClientSSLError) else Reason.NETWORK
            raise _unanswered(reason, os_reason(error.os_error), exchange.sent) from None
        except aiohttp.ClientResponseError:
            raise _unanswered(Reason.NO_TOKEN, "the answer is malformed HTTP", exchange.sent) from None
        except OSError as error:
            # An alert that comes after the handshake, as TLS 1.3 refuses a client's certificate.
            if isinstance(error.__cause__, ssl.SSLError):
                raise _unanswered(Reason.TLS, os_reason(error.__cause__), exchange.sent) from None
            raise _unanswered(Reason.NETWORK, os_reason(error), exchange.sent) from None
        except (aiohttp.ClientError, ValueError):
            raise _unanswered(Reason.NETWORK, "the connection was closed", exchange.sent) from None

    def _way(self, url: str) -> dict[str, Any]:
        """Through the egress proxy, or straight."""
        parts = urlsplit(url)
        if self.egress is None or parts.scheme != "https" or is_loopback(parts.hostname or ""):
            return {}
        secret = self.egress.authorization
        headers = {} if secret is None else {"Proxy-Authorization": secret.reveal()}
        return {"proxy": self.egress.url, "proxy_headers": headers}

    def _context(self, tls: Tls) -> ssl.SSLContext | bool:
        """What speaks TLS; made anew (25 ms, where it reads all of the system's roots) when a file has changed."""
        files = [file for file in (tls.ca_file, tls.cert_file, tls.key_file) if file is not None]
        if not files:
            return True  # aiohttp has one with the system's roots
        try:
            state = [_state(Path(file).stat()) for file in files]
            if tls not in self._contexts or self._contexts[tls][0] != state:
                self._contexts[tls] = state, client_context(tls, ssl.SSLContext)
        except OSError as error:
            raise _unanswered(Reason.TLS, _why_not(error), sent=False) from None
        return self._contexts[tls][1]

    async def close(self) -> None:
        await self._session.close()


def _state(file: stat_result) -> tuple[int, ...]:
    """What changes with a file's content, whether it was replaced or written anew."""
    return file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns


def _why_not(error: OSError) -> str:
    """Why the files of a credential's `tls` cannot be used."""
    if isinstance(error, ssl.SSLError):
        reason = error.reason.lower().replace("_", " ") if error.reason else "not in PEM form"
        return f"the files of tls cannot be used: {reason}"
    return f"{error.filename or 'a file of tls'} cannot be used: {error.strerror or error}"


async def _note_sent(_session: object, context: SimpleNamespace, _params: object) -> None:
    """Of the request itself: what is said to an egress proxy before it is not traced."""
    context.trace_request_ctx.sent = True


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            response.close()
            raise TokenRequestError(Reason.NO_TOKEN, "the answer is larger than 1 MiB")
    return bytes(body)


def _unanswered(reason: Reason, detail: str, sent: bool) -> TokenRequestError:
    return TokenRequestError(reason, detail, sent=sent, answered=False)
