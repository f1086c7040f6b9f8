"""OCP's identity service: Keycloak with a public client, a user's password, and few sessions for each user."""

import time
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

from aiohttp import web

from evidence import new_secret

from .base import ApiCall, TokenRequest, Vendor, oauth_error
from .book import new_jwt
from .faults import Faults

_REALM = "/auth/realms/master/protocol/openid-connect"


@dataclass
class Session:
    """What a password grant opens: it lives on its refresh tokens."""

    id: str = field(default_factory=lambda: str(uuid4()))
    refresh_tokens: list[str] = field(default_factory=list)
    """In the order in which they were issued."""
    spent: set[str] = field(default_factory=set)
    ends_at: float = 0.0
    ended: bool = False

    @property
    def is_live(self) -> bool:
        return not self.ended and time.monotonic() < self.ends_at


@dataclass
class Logout:
    """One request to end a session."""

    at: float
    refresh_token: str
    status: int | None = None
    """What was answered; None while it is not."""


class Ocp(Vendor):
    """One realm with one user.

    `rotation`: each refresh token is good for one use, a second use ends the session. `limit_answer`: what a
    sixth session is refused with, by version. `renews`: whether a refresh answers a refresh token.
    """

    token_path = f"{_REALM}/token"
    logout_path = f"{_REALM}/logout"

    def __init__(
        self,
        lifetime: float = 300.0,
        *,
        rotation: bool = False,
        renews: bool = True,
        refresh_lifetime: float = 1800.0,
        session_limit: int = 5,
        limit_answer: Literal["403", "500"] = "403",
    ) -> None:
        super().__init__(lifetime)
        self.username = "operator"
        self.password = new_secret("password", "p&a=s%s+w ")
        self.sessions: list[Session] = []
        self.logouts: list[Logout] = []
        self.logout_faults = Faults()
        self._rotation = rotation
        self._renews = renews
        self._refresh_lifetime = refresh_lifetime
        self._session_limit = session_limit
        self._limit_answer = limit_answer

    @property
    def live_sessions(self) -> list[Session]:
        """The sessions that count against the limit."""
        return [session for session in self.sessions if session.is_live]

    def grants(self, grant_type: str) -> list[TokenRequest]:
        """The token requests of one grant."""
        return [asked for asked in self.token_requests if asked.form.get("grant_type") == grant_type]

    def occupy(self, count: int) -> list[Session]:
        """Sessions that someone else has opened for the same user."""
        others = [Session(ends_at=time.monotonic() + self._refresh_lifetime) for _ in range(count)]
        self.sessions += others
        return others

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """As any vendor, and the logout endpoint."""
        if request.path == self.logout_path:
            return await self._handle_logout(request)
        return await super().handle(request)

    def grant(self, asked: TokenRequest) -> web.Response:
        """The two grants of a public client."""
        by_password = {"client_id", "grant_type", "username", "password"}
        by_refresh = {"client_id", "grant_type", "refresh_token"}
        if "Authorization" in asked.headers or not asked.is_form(by_password, by_refresh):
            return oauth_error(400, "invalid_request", "a public client and exactly its parameters are expected")
        if asked.form["client_id"] != "ocp":
            return oauth_error(401, "invalid_client", "Invalid client or Invalid client credentials")
        match asked.form["grant_type"], set(asked.form):
            case "password", names if names == by_password:
                return self._sign_in(asked)
            case "refresh_token", names if names == by_refresh:
                return self._refresh(asked)
        return oauth_error(400, "unsupported_grant_type", "Unsupported grant_type")

    def _sign_in(self, asked: TokenRequest) -> web.Response:
        if (asked.form["username"], asked.form["password"]) != (self.username, self.password):
            return oauth_error(401, "invalid_grant", "Invalid user credentials")
        if len(self.live_sessions) >= self._session_limit:
            if self._limit_answer == "500":
                return oauth_error(500, "unknown_error", "For more on this error consult the server log.")
            return web.json_response({"error": "There are too many sessions"}, status=403)
        session = Session()
        self.sessions.append(session)
        return self._tokens(asked, session, with_refresh_token=True)

    def _refresh(self, asked: TokenRequest) -> web.Response:
        text = asked.form["refresh_token"]
        session = self._session_of(text)
        if session is None:
            return oauth_error(400, "invalid_grant", "Invalid refresh token")
        if not session.is_live:
            return oauth_error(400, "invalid_grant", "Session not active")
        if text in session.spent:
            session.ended = True
            return oauth_error(400, "invalid_grant", "Maximum allowed refresh token reuse exceeded")
        if self._rotation:
            session.spent.add(text)
        return self._tokens(asked, session, with_refresh_token=self._renews)

    def _tokens(self, asked: TokenRequest, session: Session, *, with_refresh_token: bool) -> web.Response:
        session.ends_at = time.monotonic() + self._refresh_lifetime
        token = self.issue(asked, new_jwt(self.username, self.lifetime), session.id)
        answer = {
            "access_token": token.text,
            "expires_in": self.expires_in,
            "refresh_expires_in": int(self._refresh_lifetime),
            "token_type": "bearer",
            "not-before-policy": 0,
            "session_state": session.id,
            "scope": "openid",
        }
        if with_refresh_token:
            session.refresh_tokens.append(new_secret("refresh token", "rt."))
            answer["refresh_token"] = session.refresh_tokens[-1]
        return web.json_response(answer)

    async def _handle_logout(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = await TokenRequest.read(request)
        logout = Logout(asked.at, asked.form.get("refresh_token", ""))
        self.logouts.append(logout)
        fault = self.logout_faults.next()
        response = self._log_out(asked) if fault is None else await fault(request, lambda: self._log_out(asked))
        logout.status = response.status
        self.notify()
        return response

    def _log_out(self, asked: TokenRequest) -> web.Response:
        # A spent refresh token, or one of an expired session, still ends its session.
        is_well_formed = asked.is_form({"client_id", "refresh_token"}) and asked.form["client_id"] == "ocp"
        if "Authorization" in asked.headers or not is_well_formed:
            return oauth_error(400, "invalid_request", "client_id and refresh_token are expected")
        session = self._session_of(asked.form["refresh_token"])
        if session is None:
            return oauth_error(400, "invalid_grant", "Invalid refresh token")
        session.ended = True
        return web.Response(status=204)

    def _session_of(self, refresh_token: str) -> Session | None:
        return next((each for each in self.sessions if refresh_token in each.refresh_tokens), None)

    def unauthorized(self, call: ApiCall) -> web.Response:
        """Keycloak's challenge."""
        challenge = f'Bearer realm="master", error="invalid_token", error_description="{call.verdict}"'
        return web.json_response({"error": "invalid_token"}, status=401, headers={"WWW-Authenticate": challenge})
