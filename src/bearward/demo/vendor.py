"""An identity provider and data centers that answer as Acronis does, with tokens of any lifetime.

The token request and its answer:
https://developer.acronis.com/doc/cyberapp/latest/guide/reference/connector/authentication.html
The API behind the token: https://developer.acronis.com/doc/account-management/v2/guide/overview/auth.html
"""

import base64
import secrets
import time
from types import TracebackType
from typing import Any, Final, Self

import jwt
from aiohttp import web

from ..tokens.token import fingerprint

CLIENT_ID: Final = "7d3f60b2-9c1e-4b58-a6f4-2e8d05c7b913"
TENANT_ID: Final = "c0a8ef14-52d7-4f3b-8e69-b1f7d2a4603c"
TOKEN_PATH: Final = "/bc/idp/token"  # noqa: S105
CLIENT_PATH: Final = f"/api/2/clients/{CLIENT_ID}"
TOKEN_HEADER: Final = "Demo-Token"  # noqa: S105
"""The one thing that Acronis does not send: the fingerprint of the token that came with a call."""


class IdentityProvider:
    """Knows one client and issues it tokens of `lifetime` seconds, each valid at one data center.

    A token is a JWT that says all there is to know of it: nothing is stored, however long the demo runs.
    """

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._key = secrets.token_bytes(32)
        self.client_secret = secrets.token_urlsafe(24)

    def is_client(self, authorization: str) -> bool:
        """Whether a header is the client's `Basic`, its parts as they are (RFC 7617)."""
        expected = base64.b64encode(f"{CLIENT_ID}:{self.client_secret}".encode()).decode()
        return authorization == f"Basic {expected}"

    def issue(self, data_center: str) -> dict[str, Any]:
        """The answer to a token request. Its expiry is absolute, and there is no `expires_in`."""
        expires_on = int(time.time() + self._lifetime)
        return {
            "access_token": self._sign(data_center, expires_on),
            "expires_on": expires_on,
            "id_token": self._sign(CLIENT_ID, expires_on),
            "token_type": "bearer",
        }

    def fault_of(self, authorization: str, data_center: str) -> str | None:
        """Why a call with this header is not let in at a data center; None where it is."""
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer":
            return "The token is missing."
        try:
            jwt.decode(token, self._key, algorithms=["HS256"], audience=data_center)
        except jwt.ExpiredSignatureError:
            return "The token has expired."
        except jwt.InvalidTokenError:
            return "The token is not known here."
        return None

    def _sign(self, audience: str, expires_on: int) -> str:
        claims = {"sub": CLIENT_ID, "aud": audience, "exp": expires_on, "jti": secrets.token_hex(8)}
        return jwt.encode(claims, self._key, algorithm="HS256")


class DataCenter:
    """One origin with a token endpoint and an API; inside `async with` it listens on a free loopback port."""

    def __init__(self, name: str, identity_provider: IdentityProvider) -> None:
        self.name = name
        self.issued = 0
        """Token requests that were granted."""
        self.refused = 0
        """Calls without a token that is valid here and now: each was answered 401."""
        self._identity_provider = identity_provider
        application = web.Application()
        application.router.add_post(TOKEN_PATH, self._token)
        application.router.add_route("*", "/{path:.*}", self._call)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def host_and_port(self) -> str:
        """Where it listens."""
        host, port = self._runner.addresses[0]
        return f"{host}:{port}"

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://{self.host_and_port}"

    async def _token(self, request: web.Request) -> web.Response:
        if not self._identity_provider.is_client(request.headers.get("Authorization", "")):
            return web.json_response({"error": "invalid_client"}, status=401, headers={"WWW-Authenticate": "Basic"})
        if (await request.post()).get("grant_type") != "client_credentials":
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        self.issued += 1
        return web.json_response(self._identity_provider.issue(self.name))

    async def _call(self, request: web.Request) -> web.Response:
        authorization = request.headers.get("Authorization", "")
        if fault := self._identity_provider.fault_of(authorization, self.name):
            self.refused += 1
            return _error(401, "Unauthorized", fault)
        response = _answer(request.method, request.path)
        response.headers[TOKEN_HEADER] = fingerprint(authorization.removeprefix("Bearer "))
        return response


def _answer(method: str, path: str) -> web.Response:
    if (method, path) != ("GET", CLIENT_PATH):
        return _error(404, "NotFound", f"The demo knows nothing but GET {CLIENT_PATH}.")
    client = {
        "client_id": CLIENT_ID,
        "tenant_id": TENANT_ID,
        "type": "api_client",
        "status": "enabled",
        "token_endpoint_auth_method": "client_secret_basic",
        "data": {"client_name": "bearward demo"},
    }
    return web.json_response(client)


def _error(status: int, code: str, message: str) -> web.Response:
    details = {"domain": "PlatformAccountServer", "code": code, "message": message}
    return web.json_response({"error": details}, status=status)
