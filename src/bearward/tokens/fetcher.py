"""The only code that calls a token endpoint."""

import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from .. import __version__
from ..address import is_loopback
from ..egress import EgressProxy
from ..errors import os_reason, tls_reason
from .answer import Answer, Issued, read_answer
from .credential import Credential
from .failure import Reason, TokenRequestError
from .recipe import TokenRequest, token_request

MAX_ANSWER_BYTES = 1 << 20


class Fetcher:
    """Sends token and logout requests: one connection each, no redirects, no cookies, no retries.

    A kept-alive connection that the server closes just as a request is written would leave open whether a
    refresh token was spent; token requests are rare, a new connection costs nothing.
    """

    def __init__(self, egress: EgressProxy | None) -> None:
        self.egress = egress
        """What `https` goes through; may be replaced."""
        traces = aiohttp.TraceConfig()
        traces.on_request_headers_sent.append(_note_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"bearward/{__version__}"},
            skip_auto_headers=("Accept-Encoding", "Content-Type"),
            trace_configs=[traces],
        )

    async def send(self, request: TokenRequest, timeout: float) -> Answer:  # noqa: ASYNC109 - of one exchange
        """The answer to `request`, whatever its status. Raises `TokenRequestError` where there is none."""
        exchange = SimpleNamespace(sent=False)
        sent_at = time.time()
        try:
            async with self._session.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body or None,
                headers=request.headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout, ceil_threshold=3600),
                trace_request_ctx=exchange,
                **self._way(request.url),
            ) as response:
                answered_at = time.time()
                body = await _bounded(response)
                return Answer(response.status, response.headers, body, sent_at, answered_at)
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

    async def close(self) -> None:
        await self._session.close()


async def obtain(
    credential: Credential, token_url: str, principal: str, refresh_token: str | None, fetcher: Fetcher
) -> Issued:
    """One token request and what it brought. Raises `TokenRequestError`."""
    request = token_request(credential, token_url, principal, refresh_token)
    answer = await fetcher.send(request, credential.timeout)
    return read_answer(answer, credential, refreshing=refresh_token is not None)


async def _note_sent(_session: object, context: SimpleNamespace, _params: object) -> None:
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
