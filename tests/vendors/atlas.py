"""Atlas: Keycloak with a confidential client, and the API at another origin than the identity provider."""

from types import TracebackType
from typing import Self
from urllib.parse import unquote_plus

from aiohttp import web

from evidence import new_secret

from .base import ApiCall, Site, TokenRequest, Vendor, oauth_error
from .book import new_jwt, new_opaque


class Atlas(Vendor):
    """One realm with one client. `opaque`: the token is no JWT, as in the vendor's own sample."""

    api_roots = ("/api/v1/",)

    def __init__(self, lifetime: float = 3600.0, *, realm: str = "acme", opaque: bool = False) -> None:
        super().__init__(lifetime)
        self.realm = realm
        self.client_id = "acme"
        # The characters on which the two readings of a Basic header differ.
        self.client_secret = new_secret("client secret", "s+e/c%r:e ")
        self.token_path = f"/auth/realms/{realm}/protocol/openid-connect/token"
        self.identity_site = Site(self._handle_identity)
        self._opaque = opaque

    @property
    def token_url(self) -> str:
        """Where tokens are requested."""
        return self.identity_site.url + self.token_path

    @property
    def api(self) -> str:
        """The base of the API."""
        return f"{self.url}/api/v1"

    async def __aenter__(self) -> Self:
        await self.identity_site.open()
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.identity_site.close()
        await super().__aexit__(kind, error, trace)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The API's origin has no token endpoint."""
        return await self.handle_call(request)

    async def _handle_identity(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != self.token_path:
            return web.json_response({"error": "Realm does not exist"}, status=404)
        return await self.handle_token_request(request)

    def grant(self, asked: TokenRequest) -> web.Response:
        """Client credentials; Keycloak decodes both halves of the Basic header as RFC 6749 §2.3.1 says."""
        if not asked.is_form({"grant_type"}):
            return oauth_error(400, "invalid_request", "a form with grant_type alone is expected")
        basic = asked.basic()
        if basic is None or tuple(map(unquote_plus, basic)) != (self.client_id, self.client_secret):
            return oauth_error(401, "unauthorized_client", "Invalid client or Invalid client credentials")
        if asked.form["grant_type"] != "client_credentials":
            return oauth_error(400, "unsupported_grant_type", "Unsupported grant_type")
        text = new_opaque() if self._opaque else new_jwt(self.client_id, self.lifetime)
        token = self.issue(asked, text, self.client_id)
        return web.json_response({"access_token": token.text, "token_type": "Bearer", "expires_in": self.expires_in})

    def unauthorized(self, call: ApiCall) -> web.Response:
        """Keycloak's challenge."""
        challenge = f'Bearer realm="{self.realm}", error="invalid_token", error_description="{call.verdict}"'
        return web.json_response({"error": "invalid_token"}, status=401, headers={"WWW-Authenticate": challenge})
