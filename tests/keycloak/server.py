"""Keycloak as its administrator and its users meet it."""

import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import aiohttp

from evidence import new_secret

# Of the administrator's tokens, which live for a minute.
_USED_FOR = 30.0


@dataclass(frozen=True)
class User:
    """Somebody who may sign in, and read a realm's users by its admin API."""

    realm: str
    id: str
    name: str
    password: str = field(repr=False)


class Keycloak:
    """`port` is set by the fixture `keycloak`."""

    def __init__(self) -> None:
        self.port = 0
        self._token, self._token_from = "", float("-inf")

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Below which everything is."""
        return f"{self.origin}/auth"

    async def admin(self, method: str, path: str, json: Any = None) -> Any:
        """One request to the admin API, as the administrator; the answer's content, or the id of what was made."""
        if time.monotonic() > self._token_from + _USED_FOR:
            who = {"username": "admin", "password": "admin", "client_id": "admin-cli"}
            self._token = (await self.ask_token("master", grant_type="password", **who))["access_token"]
            self._token_from = time.monotonic()
        headers = {"Authorization": f"Bearer {self._token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, f"{self.url}/admin{path}", json=json) as answer,
        ):
            assert answer.status < 300, f"{method} {path}: {answer.status} {await answer.text()}"
            if answer.status == 201:
                return answer.headers["Location"].rpartition("/")[2]
            return await answer.json() if answer.content_type == "application/json" else None

    async def ask_token(self, realm: str, *, origin: str | None = None, **form: str) -> Any:
        """What the token endpoint says; `origin`: where it is asked, as an issuer's name has that in it."""
        async with (
            aiohttp.ClientSession(headers={"Accept": "application/json"}) as session,
            session.post(
                f"{origin or self.origin}/auth/realms/{realm}/protocol/openid-connect/token", data=form
            ) as answer,
        ):
            return await answer.json()

    async def new_user(self, realm: str) -> User:
        """A user with a password, and nothing left that Keycloak would want to know first."""
        name, password = f"user-{uuid4()}", new_secret("password", "p&a=s%s+w ")
        made = {
            "username": name,
            "enabled": True,
            "email": f"{name}@example.com",
            "emailVerified": True,
            "firstName": name,
            "lastName": name,
            "credentials": [{"type": "password", "value": password}],
        }
        return User(realm, await self.admin("POST", f"/realms/{realm}/users", made), name, password)

    async def sign_in(self, user: User) -> Any:
        """What the token endpoint says to the user's password, from another place than bearward."""
        who = {"username": user.name, "password": user.password, "client_id": "ocp"}
        return await self.ask_token(user.realm, grant_type="password", **who)

    async def sessions(self, user: User) -> set[str]:
        """The ids of the user's sessions."""
        return {each["id"] for each in await self.admin("GET", f"/realms/{user.realm}/users/{user.id}/sessions")}

    async def events(self, realm: str, **query: str) -> list[Any]:
        """What has happened in a realm, oldest first; `query`: user, client, type."""
        found = await self.admin("GET", f"/realms/{realm}/events?{urlencode(query | {'max': '1000'})}")
        return list(reversed(found))


KEYCLOAK = Keycloak()
