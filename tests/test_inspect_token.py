"""`bearward token`: what it shows of an attempt, and what it suggests first after each of the usual mistakes."""

import asyncio
import json
import os
import re
import ssl
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
import yaml
from aiohttp import web
from click.testing import CliRunner

import wire
from bearward.cli import main
from evidence import EVIDENCE, SECRETS, LeakFinder, new_secret
from made_up import ME, made_up, private_key
from ports import free_port
from test_token_tls import refusing
from tls import Authority, TlsUpstream, listening
from vendors.base import Site, TokenRequest, oauth_error
from vendors.book import new_jwt

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENT, SECRET = "acme-billing", new_secret("client secret")
ODD_SECRET = new_secret("client secret", "a+b/c%d:")
USER, PASSWORD = new_secret("username", "alice-"), new_secret("password")
WRONG = new_secret("wrong secret")
TOKEN, REFRESH = new_secret("access token", "at-"), new_secret("refresh token", "rt-")
KEYCLOAK = "/realms/acme/protocol/openid-connect/token"
BASIC = {"client_id": CLIENT, "client_secret": SECRET}
SIGNING = {"client_id": CLIENT, "client_auth": "private_key_jwt", "client_key": {"file": "key.pem"}}
BY_PASSWORD = {"grant_type": "password", "client_auth": "none", "client_id": CLIENT, "username": USER}

Fields = dict[str, Any]
Judge = Callable[["Asked"], web.Response]


# ── an identity provider that takes one exact request, and says to every other one what real ones say ────────


def granted(**more: Any) -> web.Response:
    return web.json_response({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600} | more)


def basic(secret: str, refusal: web.Response | None = None) -> Judge:
    """Keeps to RFC 7617 and knows nothing of form-encoding."""

    def judge(asked: TokenRequest) -> web.Response:
        if asked.basic() == (CLIENT, secret) and asked.form == {"grant_type": "client_credentials"}:
            return granted()
        return refusal or oauth_error(401, "invalid_client", "Client authentication failed")

    return judge


def in_body(asked: TokenRequest) -> web.Response:
    if asked.form.get("client_id") == CLIENT and asked.form.get("client_secret") == SECRET:
        return granted()
    return oauth_error(400, "invalid_request", "The request is missing the required parameter client_id")


def with_scope(asked: TokenRequest) -> web.Response:
    if asked.form.get("scope") == "reports:read":
        return granted()
    return oauth_error(400, "invalid_scope", f"{asked.form.get('scope')} is not a scope of {CLIENT}")


def signed_for(audience: str, said: str = "client assertion is not acceptable") -> Judge:
    def judge(asked: TokenRequest) -> web.Response:
        try:
            jwt.decode(asked.form["client_assertion"], private_key(ME).public_key(), ["RS256"], audience=audience)
        except jwt.PyJWTError:
            return oauth_error(401, "invalid_client", said)
        return granted()

    return judge


def password(status: int, error: str, description: str) -> Judge:
    def judge(asked: TokenRequest) -> web.Response:
        if asked.form.get("password") == PASSWORD and error == "invalid_grant":
            return granted(refresh_token=REFRESH, refresh_expires_in=1800)
        return oauth_error(status, error, f"{description} {asked.form['username']}/{asked.form['password']}")

    return judge


def always(status: int, document: Any, **headers: str) -> Judge:
    if isinstance(document, str):
        return lambda _asked: web.Response(status=status, text=document, headers=headers)
    return lambda _asked: web.json_response(document, status=status, headers=headers)


def said(status: int, error: str, description: str) -> Judge:
    return always(status, {"error": error, "error_description": description})


def moved(to: str) -> Judge:
    """To an address that may have the `{path}` that was asked for."""
    return lambda asked: web.Response(status=301, headers={"Location": to.format(path=asked.path)})


@dataclass
class Asked(TokenRequest):
    """A token request with the path that it was sent to."""

    path: str = ""


class Provider:
    """One origin; the first part of a path says which judge there is."""

    def __init__(self) -> None:
        self.site = Site(self._answer)
        self.judges: dict[str, Judge] = {}
        self.asked: dict[str, list[Asked]] = {}

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        name = request.path.split("/")[1]
        asked = await Asked.read(request)
        asked.path = request.path
        self.asked.setdefault(name, []).append(asked)
        return self.judges[name](asked)


@dataclass
class Outcome:
    """What a run of the command has written."""

    code: int
    stdout: str
    stderr: str

    @property
    def suggestions(self) -> list[tuple[str, str]]:
        """What is likely and what to try, each on one line."""
        found = re.findall(r"^Likely: (.*?)\nTry:    (.*?)(?=\n\n|\Z)", self.stderr.strip(), re.MULTILINE | re.DOTALL)
        return [(" ".join(likely.split()), " ".join(attempt.split())) for likely, attempt in found]


@dataclass
class Stage:
    """A folder with what configs name, and the identity provider."""

    provider: Provider
    folder: Path
    authority: Authority
    count: int = 0
    finder: LeakFinder = field(default_factory=lambda: LeakFinder(SECRETS))

    async def token(
        self, credentials: Mapping[str, Fields], *options: str, env: Mapping[str, str] | None = None,
        apart: bool = False, requests: int | None = 1, **top: Any,
    ) -> Outcome:  # fmt: skip
        """Runs the command for the first of these; `apart`: as a process of its own, else as a call of its function."""
        self.count += 1
        file = self.folder / f"{self.count}.yaml"
        name = next(iter(credentials))
        routes = {f"/{each}": {"upstream": "https://api.example", "credential": each} for each in credentials}
        file.write_text(yaml.safe_dump({"credentials": dict(credentials), "routes": routes, **top}, allow_unicode=True))
        before = sum(map(len, self.provider.asked.values()))
        arguments = ["token", name, "-c", str(file), *options]
        outcome = await (apart_run if apart else own_run)(arguments, dict(env or {}))
        if requests is not None:
            assert sum(map(len, self.provider.asked.values())) - before == requests
        assert "Traceback" not in outcome.stderr
        if "--show" not in options:
            output = f"{outcome.stdout}\n{outcome.stderr}"
            assert not self.finder.find("the output", output.encode()), output
            (EVIDENCE.open_folder("token") / "stdout").write_text(output)
        for line in (outcome.stdout + outcome.stderr).splitlines():
            is_one_word = len(line[15:].split()) == 1
            assert len(line) <= 80 or is_one_word or line.startswith("Error: "), line
        return outcome

    def fields(self, case: str, judge: Judge, path: str, fields: Fields) -> Fields:
        """A credential whose token URL is answered by `judge`."""
        self.provider.judges[case] = judge
        return {"token_url": f"{self.provider.site.url}/{case}{path}"} | fields


async def own_run(arguments: list[str], env: dict[str, str]) -> Outcome:
    result = await asyncio.to_thread(CliRunner().invoke, main, arguments, env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return Outcome(result.exit_code, result.stdout, result.stderr)


async def apart_run(arguments: list[str], env: dict[str, str]) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "bearward", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | env,
    )
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Outcome(process.returncode, stdout.decode(), stderr.decode())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("token")
    (folder / "key.pem").write_text(made_up("key.pem"))
    provider = Provider()
    await provider.site.open()
    async with AsyncExitStack() as ends:
        ends.push_async_callback(provider.site.close)
        yield Stage(provider, folder, Authority(folder))


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Mistake:
    """A config as a new user writes it; the first suggestion names `cause` and the field in `change`."""

    judge: Judge
    fields: Fields
    cause: str
    change: str
    path: str = "/token"
    in_file: str | None = None
    """What stands in the file of the client's secret."""
    options: tuple[str, ...] = ()


LOGIN_PAGE = "<!DOCTYPE html><form action=/login><input type='password'></form>"
SEEDED: dict[str, Mistake] = {
    "a wrong secret": Mistake(
        basic(SECRET), BASIC | {"client_secret": WRONG}, "client_secret is wrong", "client_secret"
    ),
    "an encoding of Basic that differs": Mistake(
        basic(ODD_SECRET), BASIC | {"client_secret": ODD_SECRET}, "two encodings of Basic differ", "basic_encoding: raw"
    ),
    "Basic where parameters are read": Mistake(
        in_body, BASIC, "in the parameters, not in Basic", "client_auth: client_secret_post"
    ),
    "a scope that is misspelt": Mistake(
        with_scope, BASIC | {"scope": "reports:raed"}, "a scope is unknown, misspelt", "scope:"
    ),
    "a realm that is misspelt": Mistake(
        always(404, {"error": "Realm does not exist"}), BASIC, "no such realm", "token_url", KEYCLOAK
    ),
    "an audience that is not the issuer": Mistake(
        signed_for("https://issuer.example"), SIGNING | {"client_key_id": "k1"}, "audience", "assertion_audience:"
    ),
    "a token in another field": Mistake(
        always(200, {"data": {"session": {"token": TOKEN}, "user": USER}, "expires_in": 60}),
        BASIC,
        "in the field data.session.token",
        "response.token: data.session.token",
    ),
    "throttling in disguise": Mistake(
        said(400, "invalid_request", "You exceeded the rate limit of 10 tokens"),
        BASIC,
        "this is throttling",
        "response.throttled: {status: 400",
    ),
    "a variable's name in place of its value": Mistake(
        basic(SECRET),
        BASIC | {"client_secret": "${CLIENT_SECRET}"},
        "client_secret (from the config) looks like a reference",
        "client_secret: {env: NAME}",
    ),
    "a file in Base64": Mistake(
        basic(SECRET),
        BASIC,
        "Base64 form",
        "put the result into client_secret",
        in_file=b64encode(f"{SECRET}\n".encode()).decode(),
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seeded(stage: Stage) -> Mapping[str, Outcome]:
    """What the command says of each, run as its users run it."""
    two_at_a_time = asyncio.Semaphore(2)

    async def run(number: int, mistake: Mistake) -> Outcome:
        async with two_at_a_time:
            return await make(stage, f"seeded{number}", mistake, apart=True)

    outcomes = await asyncio.gather(*(run(number, mistake) for number, mistake in enumerate(SEEDED.values())))
    return dict(zip(SEEDED, outcomes, strict=True))


async def make(stage: Stage, case: str, mistake: Mistake, *, apart: bool = False) -> Outcome:
    fields = stage.fields(case, mistake.judge, mistake.path, mistake.fields)
    if mistake.in_file is not None:
        (stage.folder / case).write_bytes(mistake.in_file.encode())
        fields["client_secret"] = {"file": case}
    outcome = await stage.token({"mine": fields}, *mistake.options, apart=apart, requests=None)
    assert len(stage.provider.asked[case]) == 1, "a diagnosis asks for nothing more"
    return outcome


@pytest.mark.parametrize("name", SEEDED)
async def test_the_first_suggestion_names_the_cause(seeded: Mapping[str, Outcome], name: str) -> None:
    assert_first(seeded[name], SEEDED[name])


def assert_first(outcome: Outcome, mistake: Mistake) -> None:
    assert (outcome.code, outcome.stdout) == (1, "")
    likely, attempt = outcome.suggestions[0]
    assert mistake.cause in likely, outcome.stderr
    assert mistake.change in attempt, outcome.stderr


CLOCK = "The assertion is not yet valid: iat lies in the future"
MORE: dict[str, Mistake] = {
    "a wrong secret at Keycloak, whose code means something else elsewhere": Mistake(
        said(401, "unauthorized_client", "Invalid client or Invalid client credentials"),
        BASIC,
        "client_secret is wrong",
        "client_secret",
        KEYCLOAK,
    ),
    "a grant that the client may not use": Mistake(
        said(401, "unauthorized_client", "Client not enabled to retrieve service account"),
        BASIC,
        "may not use the grant client_credentials (in Keycloak: service accounts",
        "grant_type",
        KEYCLOAK,
    ),
    "an unknown grant": Mistake(
        always(400, {"error": "unsupported_grant_type"}),
        BASIC | {"grant_type": "client_credential"},
        "knows no grant client_credential.",
        "grant_type:",
    ),
    "parameters where Basic is wanted": Mistake(
        always(401, {"error": "invalid_client"}, **{"WWW-Authenticate": 'Basic realm="idp"'}),
        BASIC | {"client_auth": "client_secret_post"},
        "in Basic, not in the parameters",
        "client_auth: client_secret_basic",
    ),
    "the client named twice": Mistake(
        said(400, "invalid_request", "client authentication must only be provided using only one mechanism"),
        BASIC | {"params": {"client_id": CLIENT}},
        "named twice",
        "out of params",
    ),
    "a key that is not known": Mistake(
        signed_for("https://issuer.example", "no matching key was found in the client's JWKS"),
        SIGNING,
        "does not find the key",
        "client_key_id:",
    ),
    "another key": Mistake(
        signed_for("https://issuer.example", "JWT signature verification failed"),
        SIGNING | {"client_key_id": "k1"},
        "the key is not the one",
        "client_key:",
    ),
    "clocks that differ": Mistake(
        signed_for("https://issuer.example", CLOCK),
        SIGNING | {"client_key_id": "k1"},
        "clock",
        "NTP",
    ),
    "a wrong password": Mistake(
        password(401, "invalid_grant", "Invalid user credentials"),
        BY_PASSWORD | {"password": WRONG},
        "username or password is wrong",
        "password",
    ),
    "a locked account": Mistake(
        password(400, "invalid_grant", "Account temporarily locked"),
        BY_PASSWORD | {"password": WRONG},
        "the account is locked",
        "do not try again",
    ),
    "too many sessions": Mistake(
        always(403, {"error": "User has too many sessions"}),
        BY_PASSWORD | {"password": WRONG},
        "as many sessions",
        "max_sessions",
    ),
    "a path that leads to nothing": Mistake(always(404, "not here"), BASIC, "path of token_url", "token_url"),
    "the site instead of the token endpoint": Mistake(
        always(200, LOGIN_PAGE, **{"Content-Type": "text/html"}), BASIC, "a page to log in", "token_url"
    ),
    "a path that takes no POST": Mistake(always(405, "no"), BASIC, "no POST", "token_url"),
    "http in place of https": Mistake(
        moved("https://127.0.0.1:8443{path}"), BASIC, "wants https", "token_url: https://127.0.0.1:8443/more"
    ),
    "a page to log in, by https": Mistake(
        moved("https://idp.example/ui/login?next=x"), BASIC, "page to log in: https://idp.example/ui/login", "token_url"
    ),
    "another host, by https": Mistake(
        moved("https://idp.example{path}"), BASIC, "another host: https://idp.example/more", "token_url: as the vendor"
    ),
    "another path, by https": Mistake(
        moved("https://127.0.0.1/"), BASIC, "another address: https://127.0.0.1/", "token_url: as the vendor"
    ),
    "a redirect to nowhere": Mistake(moved("http://[oops"), BASIC, "does not say where", "token_url"),
    "the discovery address": Mistake(
        always(405, "no"),
        BASIC,
        "the discovery address",
        "token_endpoint",
        "/realms/a/.well-known/openid-configuration",
    ),
    "a discovery address that answers": Mistake(
        always(200, {"token_endpoint": "https://idp.example/oauth/token"}), BASIC, "the discovery address", "token_url"
    ),
    "Keycloak's authorization address": Mistake(
        always(404, "no"),
        BASIC,
        "the authorization address",
        "token_endpoint",
        "/auth/realms/acme/protocol/openid-connect/auth",
    ),
    "Microsoft's authorization address": Mistake(
        always(200, LOGIN_PAGE, **{"Content-Type": "text/html"}),
        BASIC,
        "the authorization address",
        "token_endpoint",
        "/common/oauth2/v2.0/authorize",
    ),
    "a token address that is called auth": Mistake(
        basic(SECRET), BASIC | {"client_secret": WRONG}, "client_secret is", "client_secret", "/v1/auth"
    ),
    "an answer in XML": Mistake(
        always(200, f"<session><token>{TOKEN}</token></session>"), BASIC, "the answer is XML", "source: exec"
    ),
    "an answer in XML, and a header": Mistake(
        always(200, "<session/>", **{"X-Auth-Token": TOKEN}),
        BASIC,
        "in the header X-Auth-Token",
        "{header: X-Auth-Token}",
    ),
    "a client that Keycloak does not know": Mistake(
        said(401, "invalid_client", "Invalid client or Invalid client credentials"),
        BASIC | {"client_secret": ODD_SECRET},
        "the client_id is unknown",
        "client_id: check it",
        KEYCLOAK,
    ),
    "a token with its prefix": Mistake(
        always(200, {"access_token": f"Bearer {TOKEN}"}), BASIC, "access_token has a Bearer prefix", "response.token"
    ),
    "a code that is no refusal": Mistake(
        always(200, {"code": 0, "message": "all is well", "data": {"id": 7}}), BASIC, "another address", "token_url"
    ),
    "a code that is a refusal": Mistake(
        always(200, {"code": 1402, "data": {}}), BASIC, "this is a refusal", "response.refusal"
    ),
    "a slash too few": Mistake(always(308, "", Location="token/"), BASIC, "slash", "token_url: let its path be"),
    "another form of parameters": Mistake(always(415, "no such type"), BASIC, "another form", "send: json"),
    "a token in a header": Mistake(
        always(201, {}, **{"X-Auth-Token": TOKEN}), BASIC, "X-Auth-Token", "{header: X-Auth-Token}"
    ),
    "the whole body is the token": Mistake(always(200, TOKEN), BASIC, "whole body", 'response.token: ""'),
    "an expiry in another unit": Mistake(
        always(200, {"access_token": TOKEN, "expires_on": 3600}),
        BASIC,
        "expires_on means something else",
        "response.expires",
    ),
    "an account that is to be named": Mistake(
        always(400, {"code": 400, "errorMessage": "user_id is required"}), BASIC, "for one user", "principal: {header"
    ),
    "a throttling text with status 200": Mistake(
        said(200, "Access Denied", "too many requests continuously"),
        BASIC,
        "throttling",
        "response.throttled",
    ),
    "a refused refresh token": Mistake(
        always(400, {"error": "invalid_grant"}),
        BASIC | {"grant_type": "refresh_token", "refresh_token": WRONG},
        "refresh token is spent",
        "refresh_token",
        options=("--spend",),
    ),
    "a secret in quotes": Mistake(
        basic(SECRET), BASIC, "quotation marks", "off client_secret", in_file=f'"{SECRET}"\n'
    ),
    "a secret with a space": Mistake(
        basic(SECRET), BASIC, "space or a line break", "client_secret", in_file=f"{SECRET} \r\n"
    ),
    "a secret after a byte order mark": Mistake(
        basic(SECRET), BASIC, "byte order mark", "BOM", in_file=f"\ufeff{SECRET}\r\n"
    ),
    "a line of a shell": Mistake(
        basic(SECRET), BASIC, "more in it", "client_secret", in_file=f"CLIENT_SECRET={SECRET}\n"
    ),
}


@pytest.mark.parametrize("name", MORE)
async def test_other_mistakes(stage: Stage, name: str) -> None:
    assert_first(await make(stage, f"more{list(MORE).index(name)}", MORE[name]), MORE[name])


@pytest.mark.parametrize("code", ["invalid_client", "unauthorized_client"])
async def test_keycloak_is_never_sent_the_raw_encoding(stage: Stage, code: str) -> None:
    """It decodes, as RFC 6749 §2.3.1 wants it."""
    judge = said(401, code, "Invalid client or Invalid client credentials")
    fields = stage.fields("decodes", judge, KEYCLOAK, BASIC | {"client_secret": ODD_SECRET})
    outcome = await stage.token({"mine": fields})
    assert outcome.suggestions
    assert not any("basic_encoding" in attempt for _, attempt in outcome.suggestions)


async def test_what_an_identity_provider_echoes_is_hidden(stage: Stage) -> None:
    """Secrets, also cut off or encoded, the client's name, control characters, and what comes after much text."""
    echo = f"no \x1b[31m{CLIENT}, {SECRET.upper()} {SECRET[:12]}… {b64encode(SECRET.encode()).decode()} " + "blah " * 60
    fields = stage.fields("echo", always(401, {"error": "invalid_client", "error_description": echo}), "/token", BASIC)
    outcome = await stage.token({"mine": fields})
    (said,) = re.findall(r"it says +(.*?)\nno token", outcome.stderr, re.DOTALL)
    said = " ".join(said.split())
    assert said.startswith("no [31m***, *** ***… *** blah blah")
    assert len(said) == 200
    assert "\x1b" not in outcome.stderr


@pytest.mark.parametrize(
    "judge",
    [
        always(200, {"message": {"data": TOKEN, "title": TOKEN}, "code": TOKEN, "error": TOKEN, "scope": TOKEN}),
        always(200, json.dumps(TOKEN)),
        always(400, {"error": TOKEN, "detail": [TOKEN], "token_type": {"code": TOKEN}}),
        always(302, "", Location=f"http://127.0.0.1/#access_token={TOKEN}"),
        always(401, {}, **{"WWW-Authenticate": f'Bearer error="invalid", nonce="{TOKEN}"'}),
        always(500, f"at Login.java: token {TOKEN} is unknown"),
    ],
)
async def test_a_token_in_an_odd_place_is_not_shown(stage: Stage, judge: Judge) -> None:
    """`Stage.token` looks for it."""
    assert (await stage.token({"mine": stage.fields("odd", judge, "/token", BASIC)})).code == 1


# ── no answer ────────────────────────────────────────────────────────────────────────────────────────────────


async def first_of(stage: Stage, url: str, **more: Any) -> tuple[str, str]:
    env = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    env["HTTPS_PROXY"] = more.pop("HTTPS_PROXY", None)
    top = {"egress_proxy": more.pop("egress_proxy")} if "egress_proxy" in more else {}
    outcome = await stage.token({"mine": {"token_url": url} | BASIC | more}, env=env, requests=0, **top)
    assert outcome.code == 1
    return outcome.suggestions[0]


async def test_nothing_listens(stage: Stage) -> None:
    likely, attempt = await first_of(stage, f"http://127.0.0.1:{free_port()}/token")
    assert "nothing listens" in likely
    assert attempt.startswith("token_url")


async def test_a_name_that_nobody_knows(stage: Stage) -> None:
    likely, attempt = await first_of(stage, "https://idp.invalid/token")
    assert "idp.invalid is misspelt" in likely
    assert attempt.startswith("token_url")


async def test_a_proxy_that_only_a_variable_names(stage: Stage) -> None:
    proxy = "http://proxy.example:3128"
    likely, attempt = await first_of(stage, "https://idp.invalid/token", HTTPS_PROXY=proxy)
    assert "HTTPS_PROXY is set" in likely
    assert attempt.startswith("egress_proxy")


async def test_a_proxy_that_is_not_there(stage: Stage) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    likely, attempt = await first_of(stage, "https://idp.invalid/token", egress_proxy=proxy)
    assert "the egress proxy at 127.0.0.1" in likely
    assert attempt.startswith("egress_proxy")


async def test_an_authority_that_nobody_knows(stage: Stage) -> None:
    async with TlsUpstream(stage.authority.server("127.0.0.1")) as upstream:
        likely, attempt = await first_of(stage, f"{upstream.url}/token")
    assert "authority" in likely
    assert attempt.startswith("tls.ca_file")


async def test_another_name_in_the_certificate(stage: Stage) -> None:
    async with TlsUpstream(stage.authority.server("idp.example")) as upstream:
        likely, attempt = await first_of(stage, f"{upstream.url}/token", tls={"ca_file": stage.authority.file})
    assert "another name" in likely
    assert "tls.server_name" in attempt


async def test_a_client_certificate_that_is_wanted(stage: Stage) -> None:
    server = stage.authority.server("127.0.0.1", asks_for_client=ssl.CERT_REQUIRED)
    async with listening(refusing(server, 1)) as url:
        likely, attempt = await first_of(stage, f"{url}/token", tls={"ca_file": stage.authority.file})
    assert "wants a client certificate" in likely
    assert "tls.cert_file and tls.key_file" in attempt


async def test_no_tls_at_that_port(stage: Stage) -> None:
    likely, attempt = await first_of(stage, stage.provider.site.url.replace("http", "https") + "/none/token")
    assert "TLS is not spoken" in likely
    assert attempt.startswith("token_url")


async def test_an_identity_provider_that_is_slow(stage: Stage) -> None:
    async with wire.RawUpstream() as upstream:
        upstream.script = wire.Sink()
        likely, attempt = await first_of(stage, f"{upstream.url}/token", timeout="200ms")
    assert "longer than 0.2 s" in likely
    assert attempt.startswith("timeout")


# ── what is shown of a token ─────────────────────────────────────────────────────────────────────────────────


async def test_a_token_and_how_it_was_obtained(stage: Stage) -> None:
    fields = stage.fields("good", with_scope, "/token", BASIC | {"scope": "reports:read", "headers": {"X-Key": SECRET}})
    outcome = await stage.token({"mine": fields})
    assert (outcome.code, outcome.stderr) == (0, "")
    shown = re.sub(r"0\.\d\d s|\b[0-9a-f]{8}\b|(?<=:)\d{5}(?=/)", "#", outcome.stdout)
    assert (
        shown
        == """\
credential     mine
token URL      http://127.0.0.1:#/good/token
request        POST to the token URL
headers        X-Key: ***
               Authorization: Basic *** (basic_encoding: form)
               Accept: application/json
               Content-Type: application/x-www-form-urlencoded
form           grant_type: client_credentials
               scope: reports:read
answer         status 200 after #
               Content-Type: application/json; charset=utf-8
fields         access_token: *** (27 characters)
               token_type: Bearer
               expires_in: 3600
token          # (the start of its SHA-256), 27 characters
lifetime       3600 s, from expires_in
refresh        2700 to 2880 s after it was asked for
injected       Authorization: Bearer ***
claims         none: the token is no JWT
"""
    )


async def test_show_ends_with_the_token_itself(stage: Stage) -> None:
    outcome = await stage.token({"mine": stage.fields("show", basic(SECRET), "/token", BASIC)}, "--show")
    assert outcome.stdout.splitlines()[-1] == TOKEN
    assert TOKEN not in "".join(outcome.stdout.splitlines()[:-1])


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"send": "query", "method": "GET"}, ["request GET", "query grant_type: client_credentials", "secret: ***"]),
        ({"send": "json"}, ["JSON grant_type: client_credentials", "secret: ***"]),
        ({"send": "json", "params": {"a": {"b": [SECRET]}}}, ["JSON grant_type: client_credentials a.b.0: ***"]),
        ({"grant_type": None, "params": None, "body": f"<login>{SECRET}</login>"}, ["body *** (39 bytes)"]),
        ({"client_auth": "client_secret_post"}, [f"client_id: {CLIENT} client_secret: ***"]),
    ],
)
async def test_parameters_wherever_they_stand(stage: Stage, fields: Fields, rows: list[str]) -> None:
    wanted = BASIC | {"params": {"secret": SECRET}} | fields
    wanted = {name: value for name, value in wanted.items() if value is not None}
    outcome = await stage.token({"mine": stage.fields("where", lambda _asked: granted(), "/token", wanted)})
    assert outcome.code == 0, outcome.stderr
    for row in rows:
        assert row in " ".join(outcome.stdout.split())


async def test_a_signed_request_shows_what_was_signed(stage: Stage) -> None:
    fields = SIGNING | {"client_key_id": "k1", "assertion_audience": "https://issuer.example"}
    outcome = await stage.token({"mine": stage.fields("sign", signed_for("https://issuer.example"), "/token", fields)})
    text = " ".join(outcome.stdout.split())
    assert 'client JWT header {"alg": "RS256", "kid": "k1", "typ": "JWT"} claims {"jti": ' in text
    assert f'"iss": "{CLIENT}", "sub": "{CLIENT}", "aud": "https://issuer.example"}}' in text
    assert "client_assertion: *** client JWT" in text


async def test_claims_of_ones_own_are_shown_by_name(stage: Stage) -> None:
    assertion = {"issuer": CLIENT, "key": {"file": "key.pem"}, "claims": {"pin": SECRET, "tier": 3}}
    grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    fields = {"grant_type": grant, "client_auth": "none", "assertion": assertion}
    outcome = await stage.token({"mine": stage.fields("claims", lambda _asked: granted(), "/token", fields)})
    assert '"pin": "***", "tier": 3}' in " ".join(outcome.stdout.split())


async def test_the_session_is_logged_out(stage: Stage) -> None:
    stage.provider.judges["out"] = lambda _asked: web.Response(status=204)
    fields = BY_PASSWORD | {"password": PASSWORD, "logout_url": "/out/logout"}
    fields = stage.fields("in", password(400, "invalid_grant", "no"), "/token", fields)
    outcome = await stage.token({"mine": fields}, requests=2)
    assert re.search(r"^refresh token  1800 s$", outcome.stdout, re.MULTILINE)
    assert outcome.stdout.endswith("logout         status 204\n")
    await stage.token({"mine": fields}, "--show", requests=1)


async def test_a_clock_that_differs_is_told_and_the_request_signed_anew(stage: Stage) -> None:
    """As `bearward run` does it: the second one carries the identity provider's time."""
    theirs = time.time() + 600

    def judge(asked: TokenRequest) -> web.Response:
        issued_at = jwt.decode(asked.form["client_assertion"], options={"verify_signature": False})["iat"]
        answer = granted() if abs(issued_at - theirs) < 60 else oauth_error(401, "invalid_client", "no")
        answer.headers["Date"] = formatdate(theirs, usegmt=True)
        return answer

    outcome = await stage.token({"mine": stage.fields("clock", judge, "/token", SIGNING)}, requests=2)
    assert outcome.code == 0
    assert re.search(r"^clock skew     \+(599|60[01]) s", outcome.stdout, re.MULTILINE)
    assert outcome.stdout.count("\nrequest  ") == 2


async def test_a_lifetime_that_nothing_tells(stage: Stage) -> None:
    answer = {"access_token": TOKEN, "info": {"validUntil": "2100-01-01"}}
    outcome = await stage.token({"mine": stage.fields("ttl", always(200, answer), "/token", BASIC)})
    assert "300 s, from default; perhaps told by info.validUntil: response.expires" in " ".join(outcome.stdout.split())


async def test_a_token_that_is_over_because_of_this_machines_clock(stage: Stage) -> None:
    """Nothing in the answer says how late it is there but the token's own claims."""
    token = jwt.encode({"iat": int(time.time()) - 7200, "exp": int(time.time()) - 3600}, "k" * 32)

    def judge(_asked: TokenRequest) -> web.Response:
        return web.json_response({"access_token": token}, headers={"Date": "none"})

    outcome = await stage.token({"mine": stage.fields("over", judge, "/token", BASIC)})
    likely, attempt = outcome.suggestions[0]
    assert re.search(r"clock is 7\d\d\d s ahead of", likely)
    assert "NTP" in attempt


# ── other sources, and chains ────────────────────────────────────────────────────────────────────────────────


async def test_a_file(stage: Stage) -> None:
    (stage.folder / "token").write_text(f"{new_jwt('me', 600.0)}\n")
    outcome = await stage.token({"mine": {"source": "file", "path": "token"}}, requests=0)
    assert f"read           file {stage.folder / 'token'}\n" in outcome.stdout
    assert '"sub": "me"' in outcome.stdout


async def test_a_file_with_a_token_of_the_past(stage: Stage) -> None:
    (stage.folder / "old").write_text(new_jwt("me", -600.0))
    outcome = await stage.token({"mine": {"source": "file", "path": "old"}}, requests=0)
    assert "token of the past" in outcome.suggestions[0][0]


async def test_a_file_with_a_whole_header(stage: Stage) -> None:
    (stage.folder / "prefixed").write_text(f"Bearer {TOKEN}\n")
    outcome = await stage.token({"mine": {"source": "file", "path": "prefixed"}}, requests=0)
    assert "has Bearer before the token" in outcome.suggestions[0][0]


async def test_a_static_token(stage: Stage) -> None:
    fields = {"source": "static", "token": {"env": "MY_TOKEN"}, "inject": {"header": "X-Session", "format": "{token}"}}
    outcome = await stage.token({"mine": fields}, env={"MY_TOKEN": TOKEN}, requests=0)
    assert "read           the environment variable MY_TOKEN\n" in outcome.stdout
    assert "lifetime       until it changes" in outcome.stdout
    assert "injected       X-Session: ***\n" in outcome.stdout


async def test_a_jwt_of_ones_own(stage: Stage) -> None:
    fields = {"source": "jwt", "assertion": {"issuer": "me", "key": {"file": "key.pem"}, "key_id": "k1"}}
    outcome = await stage.token({"mine": fields}, requests=0)
    assert f"signed         here, RS256 with the key from file {stage.folder / 'key.pem'}" in " ".join(
        outcome.stdout.replace("\n               ", " ").splitlines()
    )
    assert 'header         {"alg": "RS256", "kid": "k1", "typ": "JWT"}' in outcome.stdout


@pytest.mark.parametrize("code", [0, 3])
async def test_a_program_and_what_it_says(stage: Stage, code: int) -> None:
    script = f"echo not a token >&2; echo '{json.dumps({'access_token': TOKEN})}'; exit {code}"
    outcome = await stage.token({"mine": {"source": "exec", "command": ["sh", "-c", script]}}, apart=True, requests=0)
    assert outcome.code == (1 if code else 0)
    assert outcome.stderr.startswith("not a token\n")
    assert "sh with 2 arguments in " in " ".join((outcome.stdout + outcome.stderr).split())  # however it is wrapped
    if code:
        assert "sh says above why" in outcome.suggestions[0][0]


async def test_a_chain_is_shown_in_the_order_of_its_steps(stage: Stage) -> None:
    def exchange(asked: TokenRequest) -> web.Response:
        good = asked.headers["Authorization"] == f"Bearer {TOKEN}" and asked.form["user"] == USER
        return granted(access_token=REFRESH) if good else oauth_error(401, "access_denied", "no")

    headers, params = {"Authorization": "Bearer {token:inner}"}, {"user": "{principal}"}
    outer: Fields = {"client_auth": "none", "headers": headers, "params": params, "principal": {"header": "X-User"}}
    credentials = {
        "outer": stage.fields("outer", exchange, "/{principal}/token", outer),
        "inner": stage.fields("inner", basic(SECRET), "/token", BASIC),
    }
    outcome = await stage.token(credentials, "--principal", USER, requests=2)
    assert outcome.code == 0, outcome.stderr
    steps = re.findall(r"^credential     (.*)$", outcome.stdout, re.MULTILINE)
    assert steps == ["inner (1. of a chain)", "outer (2. of a chain)"]
    assert "Authorization: Bearer ***" in outcome.stdout


async def test_a_chain_ends_where_it_breaks(stage: Stage) -> None:
    """The inner credential is asked once, though a running bearward would try again."""
    inner = stage.fields("broken", always(503, {"error": "temporarily_unavailable"}), "/token", BASIC)
    outer = stage.fields("never", always(200, {}), "/token", {"client_auth": "none", "headers": {"X": "{token:inner}"}})
    outcome = await stage.token({"outer": outer, "inner": inner}, requests=1)
    assert outcome.code == 1
    assert "trouble of its own" in outcome.suggestions[0][0]


async def test_a_name_that_is_not_there_and_a_principal_that_is_missing(stage: Stage) -> None:
    fields = BASIC | {"principal": {"header": "X-User"}, "params": {"user": "{principal}"}}
    outcome = await stage.token({"mine": stage.fields("user", always(200, {}), "/token", fields)}, requests=0)
    assert outcome.code == 2
    assert "say whose with --principal" in outcome.stderr


@pytest.mark.parametrize(
    "fields",
    [
        {"grant_type": "refresh_token", "refresh_token": REFRESH},
        {"grant_type": "none", "params": {"grant_type": "refresh_token", "refresh_token": REFRESH}},
        {"body": f"grant_type=refresh_token&refresh_token={REFRESH}"},
    ],
)
async def test_a_refresh_token_is_used_only_when_told_so(stage: Stage, fields: Fields) -> None:
    """Wherever in a chain; what comes before it in the chain is not asked either."""
    outer = BASIC | {"params": {"first": "{token:before}", "second": "{token:mine}"}}
    credentials = {
        "mine": stage.fields("seed", lambda _asked: granted(refresh_token=WRONG), "/token", BASIC | fields),
        "before": stage.fields("before", basic(SECRET), "/token", BASIC),
        "outer": stage.fields("outer2", lambda _asked: granted(), "/token", outer),
    }
    chain = {"outer": credentials["outer"], "before": credentials["before"], "mine": credentials["mine"]}
    for one in (credentials, chain):
        outcome = await stage.token(one, requests=0)
        assert (outcome.code, outcome.stdout) == (2, "")
        assert "mine has grant_type: refresh_token: nothing was sent." in outcome.stderr
        assert "session would end for good. --spend asks all the same" in outcome.stderr
    outcome = await stage.token(chain, "--spend", requests=3)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert stage.provider.asked["seed"][-1].form["refresh_token"] == REFRESH


async def test_the_help_says_that_a_refresh_token_is_not_used() -> None:
    outcome = await own_run(["token", "--help"], {})
    assert "nothing is sent without --spend" in " ".join(outcome.stdout.split())


async def test_the_words_of_placeholders_are_no_secrets(stage: Stage) -> None:
    """What stands for them is one, and so is what is written beside them."""
    fields = BASIC | {
        "client_secret": SECRET,
        "username": USER,
        "password": PASSWORD,
        "headers": {"X-Login": "{username}:{password}", "X-Key": f"Key {{client_secret}} {WRONG}"},
        "params": {"client_assertion_type": "urn:x:client_assertion", "client_assertion": "Bearer {assertion}",
                   "username": "client_id={username}"},
        "assertion": {"issuer": CLIENT, "key": {"file": "key.pem"}},
    }  # fmt: skip
    echo = f"bad '{WRONG}' or '{USER}' with '{PASSWORD}' in client_assertion of username, client_secret '{SECRET}'"
    fields = stage.fields("words", said(401, "invalid_client", echo), "/token", fields)
    outcome = await stage.token({"mine": fields})
    text = " ".join(outcome.stderr.split())
    assert (
        "form grant_type: client_credentials client_assertion: *** "
        "client_assertion_type: urn:x:client_assertion username: ***" in text
    )
    assert "it says bad '***' or '***' with '***' in client_assertion of username, client_secret '***'" in text


@pytest.mark.parametrize("send", ["json", "form"])
async def test_the_names_in_a_body_are_no_secrets(stage: Stage, send: str) -> None:
    form = "userName={username}&loginPassword={password}&apiKey=" + WRONG
    body = f'{{"userName": "{{username}}", "loginPassword": "{{password}}", "apiKey": "{WRONG}"}}'
    kind = "application/json" if send == "json" else "application/x-www-form-urlencoded"
    fields = {
        "client_auth": "none", "username": USER, "password": PASSWORD, "headers": {"Content-Type": kind},
        "body": body if send == "json" else form,
    }  # fmt: skip
    judge = always(200, {"message": f"loginPassword {PASSWORD} or apiKey {WRONG} of {USER} is wrong"})
    outcome = await stage.token({"mine": stage.fields("body", judge, "/token", fields)})
    text = " ".join(outcome.stderr.split())
    assert "userName: *** loginPassword: *** apiKey: ***" in text
    assert "it says loginPassword *** or apiKey *** of *** is wrong" in text


@pytest.mark.parametrize("fields", [{}, {"send": "query", "method": "GET"}])
async def test_the_query_of_the_token_url_is_hidden(stage: Stage, fields: Fields) -> None:
    echo = f"no such key: {SECRET}, {WRONG}"
    fields = stage.fields("query", said(401, "invalid_client", echo), f"/token?key={SECRET}&{WRONG}", BASIC | fields)
    outcome = await stage.token({"mine": fields})
    assert re.search(r"^token URL +http://127.0.0.1:\d+/query/token\?\*\*\*$", outcome.stderr, re.MULTILINE)
    assert "to the token URL\n" in outcome.stderr
    assert "no such key: ***, ***" in outcome.stderr
    assert dict(stage.provider.asked["query"][-1].query)["key"] == SECRET


async def test_a_program_that_prints_a_bare_token(stage: Stage) -> None:
    fields = {"source": "exec", "command": ["echo", TOKEN]}
    outcome = await stage.token({"mine": fields}, requests=0)
    assert 'response: {token: ""}, and ttl' in outcome.suggestions[0][1]
    outcome = await stage.token({"mine": fields | {"response": {"token": ""}, "ttl": "5m"}}, requests=0)
    assert outcome.code == 0


async def test_a_program_that_prints_an_old_token(stage: Stage) -> None:
    status = {"token": TOKEN, "expirationTimestamp": "2020-01-01T00:00:00Z"}
    document = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    outcome = await stage.token({"mine": {"source": "exec", "command": ["echo", json.dumps(document)]}}, requests=0)
    assert "the command's token is old" in outcome.suggestions[0][0]
    assert len(outcome.suggestions) == 1
