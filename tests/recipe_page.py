"""docs/recipes.md taken apart: each recipe is a config, and the exchanges that it leads to.

What is documented and what came over the wire become the same kind of value, `Sent`, and are compared as such.
"""

import base64
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, quote_plus

import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from configs import Config, references
from documents import DOCUMENTS
from wire import Message

PAGE = DOCUMENTS["docs/recipes.md"]
MASK = "***"
_UNSAID = {
    "accept": {"application/json", "*/*"},
    "content-type": {"application/x-www-form-urlencoded"},
}
"""Headers that the page does not show where they have these values."""
_OF_ANY_REQUEST = {"host", "user-agent", "content-length", "connection", "accept-encoding"}
_JWT = re.compile(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+")
_NOTE = re.compile(r"^# ?(.*)\n?", re.MULTILINE)


@dataclass(frozen=True)
class Sent:
    """A request, with `***` in place of what is secret."""

    line: str
    """Method and URL; the scheme is not looked at."""
    query: str
    headers: Mapping[str, str]
    body: Any
    """JSON as the value that it is."""
    jwt: tuple[Any, Any] | None = None
    """Header and claims of the JWT in it."""
    shows_certificate: bool = False

    @property
    def url(self) -> str:
        """Without the scheme."""
        return self.line.partition(" ")[2]


@dataclass(frozen=True)
class Documented:
    """One exchange of the page."""

    sent: Sent
    answer: str
    """Head and body as they stand there, or nothing."""
    failure: str | None
    """The reason with which the request fails, where it does."""


@dataclass(frozen=True)
class Recipe:
    """A config with the exchanges that stand under it."""

    place: str
    yaml: str
    http: str

    @cached_property
    def config(self) -> Config:
        config: Config = yaml.safe_load(self.yaml)
        return config

    @cached_property
    def exchanges(self) -> list[Documented]:
        return [_documented(part) for part in re.split(r"^###\n", self.http, flags=re.MULTILINE)]

    @property
    def references(self) -> list[tuple[str, str]]:
        return list(references(self.config))

    @property
    def route(self) -> tuple[str, Config]:
        """Its prefix, and the route with the credential in the place of its name."""
        ((prefix, route),) = self.config["routes"].items()
        return prefix, route | {"credential": {"name": route["credential"]} | self.credentials[route["credential"]]}

    @property
    def credentials(self) -> dict[str, Config]:
        credentials: dict[str, Config] = self.config["credentials"]
        return credentials

    def urls(self, field: str) -> set[str]:
        """What its credentials name there, without the schemes."""
        return {each[field].partition("://")[2] for each in self.credentials.values() if field in each}


def recipes() -> list[Recipe]:
    """All of them; a block that has no other half is a fault of the page."""
    blocks = PAGE.of("yaml", "http")
    pairs = list(zip(blocks[::2], blocks[1::2], strict=False))
    assert len(blocks) % 2 == 0, f"{blocks[-1].place}: has no other half"
    for config, exchanges in pairs:
        assert (config.language, exchanges.language) == ("yaml", "http"), f"{config.place}: has no other half"
    return [Recipe(config.place, config.body, exchanges.body) for config, exchanges in pairs]


def _documented(text: str) -> Documented:
    notes = " ".join(_NOTE.findall(text))
    text = _NOTE.sub("", text)
    request, *answers = re.split(r"^(?=HTTP/1\.1 \d)", text, flags=re.MULTILINE)
    head, _, body = request.strip().partition("\n\n")
    start, *lines = head.split("\n")
    method, target, version = start.split(" ")
    assert version == "HTTP/1.1", start
    named = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    path, _, query = target.partition("?")
    kind = named.get("content-type")
    sent = Sent(
        f"{method} {named.pop('host')}{path}",
        query,
        named,
        json.loads(body) if kind == "application/json" else body if kind else body.replace("\n", ""),
        _documented_jwt(notes),
        "over TLS with the client's certificate" in notes,
    )
    failure = re.search(r"failure: (\w+)", notes)
    return Documented(sent, "".join(answers).strip(), failure and failure[1])


def _documented_jwt(notes: str) -> tuple[Any, Any] | None:
    if "JWT" not in notes:
        return None
    found = re.fullmatch(r".*JWT header: (\{.*?\}) *JWT claims: (\{.*\}).*", notes)
    assert found, notes
    return json.loads(found[1]), json.loads(found[2])


class Masking:
    """Makes `Sent` of a request as it came, by all that is secret to its recipe; JWTs must be signed with `key`."""

    def __init__(self, secrets: Collection[str], key: RSAPublicKey) -> None:
        self._forms = sorted(
            {form for secret in secrets for form in (secret, quote_plus(secret), quote(secret, safe=""))},
            key=len,
            reverse=True,
        )
        self._key = key

    def sent(self, request: Message, host: str, body: bytes, *, shows_certificate: bool) -> Sent:
        named = [(name.decode().lower(), value.decode()) for name, value in request.fields]
        assert len(dict(named)) == len(named), "a header came twice"
        said = {name: value for name, value in named if name not in _OF_ANY_REQUEST}
        headers = {name: value for name, value in said.items() if value not in _UNSAID.get(name, ())}
        path, _, query = request.target.decode().partition("?")
        text = body.decode()
        content = json.loads(text) if headers.get("content-type") == "application/json" else text
        (found,) = set(_JWT.findall(f"{headers} {query} {text}")) or {None}
        return Sent(
            f"{request.start.split()[0].decode()} {host}{path}",
            self._masked(query),
            {name: self._masked(value) for name, value in headers.items()},
            self._masked(content),
            self._taken_apart(found) if found else None,
            shows_certificate,
        )

    def _masked(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._masked(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._masked(inner) for inner in value]
        if not isinstance(value, str):
            return value
        if value.startswith("Basic "):
            decoded = base64.b64decode(value.removeprefix("Basic "), validate=True).decode()
            return f"Basic base64({self._masked(decoded)})"
        for form in self._forms:
            value = value.replace(form, MASK)
        return _JWT.sub(MASK, value)

    def _taken_apart(self, text: str) -> tuple[Any, Any]:
        header = jwt.get_unverified_header(text)
        claims = jwt.decode(text, self._key, [header["alg"]], options={"verify_aud": False})
        lives = claims["exp"] - claims["iat"]
        assert claims["jti"]
        return header, claims | {"iat": MASK, "exp": f"iat + {lives}", "jti": MASK}
