"""Starts server.mjs, and reads its record."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
import jwt

from evidence import SECRETS

_SERVERS = Path(os.environ.get("BEARWARD_SERVERS") or "~/.cache/bearward-servers").expanduser()
_MODULES = _SERVERS / "oidc" / "node_modules"
_SERVER = Path(__file__).with_name("server.mjs")
_START_TIMEOUT = 120.0
_POLL = 0.05

ISSUER = "https://id.vendor.test"
"""Its name for itself, wherever it listens."""
SKEWS = {"ahead": 300, "behind": -300}
"""Listeners whose clock is off, by seconds."""
_SKEWS = SKEWS | {"jump": 0}


def why_missing() -> str | None:
    """What stands in the way of a start, for whoever skips a test over it."""
    if shutil.which("node") is None:
        return "needs Node.js"
    if not (_MODULES / "oidc-provider").is_dir():
        return f"oidc-provider is not in {_MODULES}: install with `make servers`"
    return None


@dataclass(frozen=True)
class Asked:
    """A token request that came."""

    at: float
    authorization: str | None
    form: Mapping[str, Any]
    status: int
    """What was answered, heard or not."""
    why: str | None
    """What was wrong with it, in the provider's words."""

    @property
    def assertion(self) -> str:
        """The JWT in it, whichever parameter it is."""
        names = ("client_assertion", "assertion", "subject_token")
        return next(self.form[name] for name in names if name in self.form)

    @property
    def claims(self) -> dict[str, Any]:
        return jwt.decode(self.assertion, options={"verify_signature": False})

    @property
    def header(self) -> dict[str, Any]:
        """The JOSE header."""
        return jwt.get_unverified_header(self.assertion)


class Record:
    """What the server has seen so far."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._requests = document["requests"]
        self._sessions = document["sessions"]
        self._tokens = document["tokens"]
        self.revoked: list[str] = document["revoked"]
        """The sessions that were ended because a refresh token was used twice."""

    def asked(self, credential: str) -> list[Asked]:
        """The requests of one credential that were answered."""
        return [
            Asked(**{name: value for name, value in each.items() if name != "credential"})
            for each in self._requests
            if each["credential"] == credential and "status" in each
        ]

    def tokens(self, client: str) -> list[str]:
        """All that were issued to a client, but for refresh tokens."""
        return [each["token"] for each in self._tokens if each["client"] == client]

    def sessions(self, user: str) -> list[dict[str, Any]]:
        """`id`, `live` and `refresh_tokens` of each session of a user."""
        return [session for session in self._sessions if session["user"] == user]

    def live(self, user: str) -> int:
        """How many of them are live."""
        return sum(session["live"] for session in self.sessions(user))

    def register_secrets(self) -> None:
        """Let the leak test look for everything that was issued or signed."""
        for each in self._tokens:
            SECRETS.add(each["token"], "access token")
        for session in self._sessions:
            for token in session["refresh_tokens"]:
                SECRETS.add(token, "refresh token")
        for each in self._requests:
            for name in ("client_assertion", "assertion"):
                if name in each.get("form", ()):
                    SECRETS.add(each["form"][name].rpartition(".")[2], "signature")


class OidcServer:
    """The process; it runs inside `async with`. `setup` is what server.mjs expects, without what is ours to know."""

    def __init__(self, setup: Mapping[str, Any], folder: Path) -> None:
        self._setup = folder / "setup.json"
        ours = {"modules": str(_MODULES), "issuer": ISSUER, "skews": _SKEWS}
        self._setup.write_text(json.dumps(ours | dict(setup)))
        self._log = folder / "oidc-provider.log"
        self._process: asyncio.subprocess.Process
        self._ports: dict[str, int]
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("node", str(_SERVER), str(self._setup)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                said = await self._process.stdout.readline()
            assert said, f"the server has ended:\n{self._log.read_text()}"
        except BaseException:
            await self._end()
            raise
        self._ports = json.loads(said)
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self._end()
        if error is not None:
            error.add_note(f"the server's log:\n{self._log.read_text()[-2000:]}")

    async def _end(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.communicate()

    def url(self, listener: str = "plain") -> str:
        """Its origin, at one of its listeners."""
        return f"{'https' if listener == 'tls' else 'http'}://127.0.0.1:{self._ports[listener]}"

    async def record(self) -> Record:
        """The record of now."""
        async with self._session.get(self.url() + "/record") as response:
            return Record(await response.json())

    async def until(self, condition: Callable[[Record], object], timeout: float = 10.0) -> Record:
        """Wait until the record fulfils the condition; the record."""
        async with asyncio.timeout(timeout):
            while not condition(record := await self.record()):
                await asyncio.sleep(_POLL)
        return record

    async def set_clock(self, listener: str, seconds: int) -> None:
        """Let the clock of a listener be off by so much from now on."""
        async with self._session.post(f"{self.url()}/clock?listener={listener}&seconds={seconds}") as response:
            assert response.status == 204

    async def post(self, path: str, **form: str) -> tuple[int, Any]:
        """What someone else than bearward asks for: status and document of the answer."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        async with self._session.post(self.url() + path, data=urlencode(form), headers=headers) as response:
            return response.status, await response.json() if response.content_type == "application/json" else None
