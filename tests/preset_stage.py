"""A product with every example of docs/presets.md, and one strict vendor behind all the host names in them.

An egress proxy leads there. Every credential that asks for tokens is there twice: as it stands, and as `NAME-wrong` at
the route `/wrong/…` with other secrets, which the vendor refuses.
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, quote_plus

import jwt
import yaml

import presets_page
from configs import Config, references
from evidence import SECRETS, new_secret
from harness import Bearward
from made_up import ME, made_up, private_key
from test_egress_proxy import ConnectProxy
from tls import Authority, TlsUpstream
from vendors.strict import FORM, Asked, Signed, StrictVendors, Vendor

SOON = 10.0
CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@cache
def given(name: str) -> str:
    """What the variable or file of this name holds; secrets have the characters on which encodings differ."""
    if name.endswith((".pem", ".json")):
        held = made_up(name, "another" if name.startswith("wrong/") else ME)
        if "PRIVATE KEY" in held:
            SECRETS.add(re.split(r"\n|\\n", held)[4], "client key")
        return held
    if name.endswith("token"):
        return service_account_token()
    if "SECRET" in name or name.startswith(("secrets/", "wrong/")):
        return new_secret("client secret", "s+e/c%r:e ")
    return f"an id, {name}"


def service_account_token() -> str:
    """A token as the kubelet writes it, for an hour."""
    claims = {"aud": ["inventory"], "exp": epoch(timedelta(hours=1)), "jti": new_secret("part of a token")}
    token = jwt.encode(claims, private_key(ME), "RS256")
    return SECRETS.add(token, "access token")


def epoch(span: timedelta) -> int:
    """The Unix time after this span."""
    return int((datetime.now(UTC) + span).timestamp())


def basic(client_id: str, secret: str, encoding: Literal["raw", "form"] = "raw") -> dict[str, str]:
    """The header that an id and a secret make."""
    parts = [client_id, secret]
    text = ":".join(map(quote_plus, parts) if encoding == "form" else parts)
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@dataclass(frozen=True)
class Row:
    """A preset by its vendor's documents: the token request, the answer, a refusal; and a call."""

    line: str
    """Method and token URL."""
    form: Mapping[str, Any]
    answer: Mapping[str, Any]
    """What stands in it beside the token; times are functions."""
    lives: int
    """For how many seconds the answer says that its token lives, or the preset where it says nothing."""
    refusal: tuple[int, Any]
    call: tuple[str, str]
    """A path of the page's route, and the URL where it arrives."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    """Of the token request, beside the usual ones."""
    query: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    """In place of `form`."""
    status: int = 200
    token: str = "access_token"
    """Where it stands in the answer."""
    reason: str = "refused"
    """What the refusal is counted as."""
    calls_with: Mapping[str, str] = field(default_factory=dict)
    """Headers of the call."""

    def vendor(self) -> Vendor:
        """The one who answers so."""
        body, kind = (self.form, FORM) if self.json is None else (self.json, "application/json")
        content_type = {"content-type": kind} if not self.query else {}
        headers = {"accept": "application/json"} | content_type | dict(self.headers)
        return Vendor(
            Asked(self.line, headers, self.query, body),
            self._answer,
            self.refusal,
        )

    def _answer(self, token: str) -> tuple[int, Any]:
        now = {name: value() if callable(value) else value for name, value in self.answer.items()}
        return self.status, {self.token: token, **now}


def client_assertion(client_id: str, url: str, lifetime: int, header: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of RFC 7523 §2.2."""
    claims = {"iss": given(client_id), "sub": given(client_id), "aud": url}
    signed = Signed({"alg": "RS256", "typ": "JWT"} | dict(header), claims, lifetime)
    return {"client_assertion_type": CLIENT_ASSERTION, "client_assertion": signed}


@dataclass
class Stage:
    """One product with all examples of the page, and their vendors."""

    bearward: Bearward
    vendors: StrictVendors
    folder: Path

    async def call(self, path: str, headers: Mapping[str, str] | None = None) -> int:
        """The status of a call."""
        return (await self.bearward.get(path, headers=dict(headers or {}))).status

    async def token(self, credential: str) -> dict[str, Any]:
        """What the product says of the credential's token; empty where nothing was asked yet."""
        credentials = (await self.bearward.status())["credentials"]
        (tokens,) = [each["tokens"] for each in credentials if each["credential"].split("@")[0] == credential]
        return next(iter(tokens), {})

    async def failure(self, credential: str) -> str:
        """Why its last token request failed, once one has."""
        async with asyncio.timeout(SOON):
            while not (reason := (await self.token(credential)).get("last_failure")):
                await asyncio.sleep(0.02)
        return str(reason)


def examples() -> Config:
    """All examples of the page as one config. One data center is enough."""
    whole: Config = {"data_centers": {}, "credentials": {}, "routes": {}}
    for file in presets_page.files().values():
        for section, content in yaml.safe_load(file["page"]["example"]).items():
            whole[section] |= content
    del whole["data_centers"]["us5"]
    return whole


def preset_of(credential: Config) -> str:
    """Its name, however it is written."""
    choice = credential["preset"]
    return str(choice["name"] if isinstance(choice, dict) else choice)


def wrong(value: Any) -> Any:
    """The same with other secrets."""
    match value:
        case {"env": str(name)}:
            return {"env": f"WRONG_{name}"}
        case {"file": str(path)}:
            return value | {"file": path.replace("secrets/", "wrong/")}
        case dict():
            return {key: wrong(inner) for key, inner in value.items()}
    return value


def complete(whole: Config, asking: Collection[str], ca_file: str) -> Config:
    """The config with its wrong half, and with the authority that vouches for all vendors here.

    `asking` are the presets that have a token endpoint.
    """
    tls = {"tls": {"ca_file": ca_file}}
    credentials, routes = dict(whole["credentials"]), dict(whole["routes"])
    for name, credential in whole["credentials"].items():
        if preset_of(credential) in asking:
            credentials |= {name: credential | tls, f"{name}-wrong": wrong(credential) | tls}
    for prefix, route in whole["routes"].items():
        routes[prefix] = route | tls
        if (other := f"{route['credential']}-wrong") in credentials:
            routes[f"/wrong{prefix}"] = route | tls | {"credential": other}
    return whole | {"credentials": credentials, "routes": routes}


def write(config: Config, folder: Path) -> dict[str, str]:
    """The files that it names, with what they hold; the variables. One that ends in `_FILE` names a file."""
    env = {}
    for kind, name in references(config):
        path = name
        if kind == "env":
            env[name] = given(name)
            if not name.endswith("_FILE"):
                continue
            path = f"wrong/{name.removeprefix('WRONG_')}" if name.startswith("WRONG_") else f"secrets/{name}"
            env[name] = path
        if not (folder / path).exists():  # the authority's is there
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(f"{given(path)}\n")
    return env


@asynccontextmanager
async def preset_stage(vendors: Mapping[str, Vendor], hosts: Collection[str], folder: Path) -> AsyncIterator[Stage]:
    """A started product; `hosts` are all whose names it will ask for, `vendors` those of the presets that ask."""
    authority = Authority(folder)
    config = complete(examples(), vendors, authority.file)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(TlsUpstream(authority.server(*hosts)))
        port.script = script = StrictVendors(
            vendors, private_key(ME).public_key(), lambda: new_secret("access token", "t-")
        )
        egress = await stack.enter_async_context(ConnectProxy(port))
        user = f"{quote(egress.user)}:{quote(egress.password, safe='')}"
        config |= {"egress_proxy": f"http://{user}@127.0.0.1:{egress.port}"}
        bearward = Bearward(config, folder, name="presets", env=write(config, folder), until="/livez")
        yield Stage(await stack.enter_async_context(bearward), script, folder)
