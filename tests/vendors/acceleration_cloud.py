"""Acceleration Cloud: parameters in the query, an empty body, and a token for each user."""

import secrets

from aiohttp import web

from evidence import new_secret

from .base import ApiCall, TokenRequest, Vendor
from .book import new_jwt

USER_HEADER = "X-User-Id"


class AccelerationCloud(Vendor):
    """One tenant with some users. The document does not say with which status it refuses: `refusal_status`."""

    token_path = "/api/v1/auth/oauth2/token"
    api_roots = ("/api/v1/",)

    def __init__(self, lifetime: float = 7200.0, *, users: int = 3, refusal_status: int = 200) -> None:
        super().__init__(lifetime)
        self.client_id = secrets.token_hex(10)
        self.client_secret = new_secret("client secret", "s+e/c%r:e ")
        self.users = [new_secret("principal", "user+") for _ in range(users)]
        self._refusal_status = refusal_status

    def grant(self, asked: TokenRequest) -> web.Response:
        """A token of the user named in the query."""
        user = dict(asked.query).get("user_id", "")
        if not (
            asked.method == "POST"
            and sorted(asked.query) == [("grant_type", "client_credentials"), ("user_id", user)]
            and asked.headers.getall("Accept", []) == ["application/json"]
            and _has_no_body(asked)
            and USER_HEADER not in asked.headers
            and asked.basic() == (self.client_id, self.client_secret)
            and user in self.users
        ):
            return self._refuse("authentication failed")
        token = self.issue(asked, new_jwt(user, self.lifetime), user)
        return web.json_response({"access_token": token.text, "token_type": "bearer", "expires_in": self.expires_in})

    def refuse_call(self, call: ApiCall) -> web.Response | None:
        """The header that names the user is between the client and the proxy."""
        if USER_HEADER in call.headers:
            return web.json_response({"code": 400, "errorMessage": f"unknown header {USER_HEADER}"}, status=400)
        return None

    def _refuse(self, message: str) -> web.Response:
        body = {"code": 400, "errorMessage": message, "error": None, "data": None}
        return web.json_response(body, status=self._refusal_status)


def _has_no_body(asked: TokenRequest) -> bool:
    return not asked.body and "Transfer-Encoding" not in asked.headers
