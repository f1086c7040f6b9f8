"""Acronis: one client, and at each data center a token endpoint and tokens of its own."""

import secrets
import time
import uuid
from datetime import UTC, datetime
from email.utils import format_datetime

from aiohttp import web

from evidence import new_secret

from .base import ApiCall, TokenRequest, Vendor, oauth_error
from .book import new_jwt


class AcronisClient:
    """The credentials of an application, known to every data center it is deployed at."""

    def __init__(self) -> None:
        self.id = str(uuid.uuid4())
        # The characters on which the two readings of a Basic header differ.
        self.secret = new_secret("client secret", "s+e/c%r:e ")


class AcronisDataCenter(Vendor):
    """One data center; the connector's token endpoint, or with `account=True` Account Management's.

    Its clock is `clock_ahead` seconds ahead of ours.
    """

    api_roots = ("/api/2/", "/api/task_manager/v2/")

    def __init__(
        self, client: AcronisClient, lifetime: float = 7200.0, *, account: bool = False, clock_ahead: float = 0.0
    ) -> None:
        super().__init__(lifetime)
        self.client = client
        self.clock_ahead = clock_ahead
        self.token_path = "/api/2/idp/token" if account else "/bc/idp/token"

    def grant(self, asked: TokenRequest) -> web.Response:
        """Client credentials; the answer has an absolute expiry and nothing else about time."""
        if not asked.is_form({"grant_type"}):
            return oauth_error(400, "invalid_request", "a form with grant_type alone is expected")
        if asked.basic() != (self.client.id, self.client.secret):
            return oauth_error(401, "invalid_client", "the client is unknown or its secret is wrong")
        if asked.form["grant_type"] != "client_credentials":
            return oauth_error(400, "unsupported_grant_type", "client_credentials is expected")
        now = time.time() + self.clock_ahead
        expires_on = int(now + self.lifetime)
        token = self.issue(asked, new_jwt(self.client.id, self.lifetime), self.url, expires_on - now)
        return web.json_response(
            {
                "access_token": token.text,
                "expires_on": expires_on,
                "id_token": new_jwt(f"id-{secrets.token_hex(4)}", self.lifetime),
                "token_type": "bearer",
            },
            headers={"Date": format_datetime(datetime.fromtimestamp(now, UTC), usegmt=True)},
        )

    def unauthorized(self, call: ApiCall) -> web.Response:
        """401 with details."""
        details = {"domain": "PlatformAccountServer", "code": "Unauthorized", "message": f"token is {call.verdict}"}
        return web.json_response({"error": details}, status=401)
