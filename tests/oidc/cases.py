"""Clients as they are registered at the server, each with the credential by which bearward is that client."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evidence import new_secret
from tls import Authority

from .keys import Key, Keys
from .server import ISSUER, SKEWS, OidcServer

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ROBOT = "robot@vendor.test"
"""Signs JWTs of its own, which the server accepts."""
SESSION_LIMIT = 5
SHORT = 4
"""Seconds that a token lives where its renewal is looked at: it is handed out for two of them."""
LONG = 300
NASTY = "s+e/c%r:e t"
"""What the two forms of Basic authentication differ on; without the form encoding it is no valid one."""

Fields = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A registered client (its metadata, RFC 7591 §2) and the credential.

    `listener` is where it asks and calls, `faults` are what its first token requests meet: `unavailable` (503),
    `lost` (done, and never answered) or `slow` (answered when a short token from before is over).
    """

    client: Fields
    credential: Fields
    listener: str = "plain"
    lifetime: int = LONG
    faults: tuple[str | None, ...] = ()
    route: Fields = field(default_factory=dict)


class Cast:
    """All cases by name, and what the server and bearward are told of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = Authority(folder, "oidc")
        self.keys = Keys(folder)
        users = ("lodger", "victim", "loser", "nomad", "busy")
        self.users = {name: new_secret("password", "p&a=s%s+w ") for name in users}
        groups = (
            self._by_secret(),
            self._by_key(),
            self._by_certificate(),
            self._by_grant(),
            self._off(),
            self._short(),
        )
        self.cases: dict[str, Case] = {name: case for group in groups for name, case in group.items()}

    def setup(self) -> Fields:
        """What the server is told."""
        shown = self._authority.client("127.0.0.1")
        clients = {case.credential["client_id"]: case for case in self.cases.values() if "client_id" in case.credential}
        return {
            "clients": [{"client_id": name, **case.client} for name, case in clients.items()],
            "lifetimes": {name: case.lifetime for name, case in clients.items()},
            "faults": {name: case.faults for name, case in self.cases.items()},
            "users": self.users,
            "limit": SESSION_LIMIT,
            "issuers": {ROBOT: self.keys.public},
            "tls": {"ca": self._authority.file, "cert": shown["cert_file"], "key": shown["key_file"]},
        }

    def config(self, server: OidcServer, *names: str) -> Fields:
        """bearward's: for each case a credential and a route of its name."""
        config: Fields = {"credentials": {}, "routes": {}}
        for name in names:
            case = self.cases[name]
            asks = {"token_url": f"{server.url(case.listener)}/token", "headers": {"X-Credential": name}}
            config["credentials"][name] = case.credential | ({} if "source" in case.credential else asks)
            config["routes"][f"/{name}"] = {
                "upstream": f"{server.url(case.listener)}/api/who",
                "credential": name,
            } | case.route
        return config

    # ── who asks ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _by_secret(self) -> dict[str, Case]:
        cases = {}
        for name, more in {
            "basic": {"client_id": "an+odd:id %41"},
            "raw": {"basic_encoding": "raw"},
            "post": {"client_auth": "client_secret_post"},
            "revoked": {"client_auth": "client_secret_post"},
        }.items():
            secret = new_secret("client secret", NASTY)
            client = _client(more.get("client_auth", "client_secret_basic"), client_secret=secret)
            cases[name] = Case(client, {"client_id": name, "client_secret": secret} | more)
        # The server keeps to RFC 6749 §A.2, by which a secret is ASCII: it can only refuse this one.
        other = _client("client_secret_basic", client_secret=new_secret("client secret"))
        secret = new_secret("client secret", "s+e/c%r:e tü€")
        cases["unicode"] = Case(other, {"client_id": "unicode", "client_secret": secret})
        for bits in (256, 384, 512):
            secret = "".join(new_secret("client secret") for _ in range(3))
            name, algorithm = f"secret-hs{bits}", f"HS{bits}"
            client = _client("client_secret_jwt", client_secret=secret, token_endpoint_auth_signing_alg=algorithm)
            own = {"client_id": name, "client_auth": "client_secret_jwt", "client_secret": secret}
            cases[name] = Case(client, own | ({} if bits == 256 else {"assertion_algorithm": algorithm}))
        return cases

    def _by_key(self) -> dict[str, Case]:
        keys = self.keys
        certificate, x5c = keys.rsa.certificate(self._folder)
        certified = {"client_certificate": {"file": certificate}, "assertion_algorithm": "PS256"}
        return {
            "key-rs256": self._key("key-rs256", keys.rsa, "RS256", assertion_algorithm=None),
            "key-ps256": self._key("key-ps256", keys.rsa, "PS256"),
            "key-es256": self._key("key-es256", keys.ec, "ES256"),
            "key-eddsa": self._key("key-eddsa", keys.ed, "EdDSA"),
            "key-nobody": self._key("key-nobody", keys.stranger, "ES256", client_key_id="ec"),
            "key-other-id": self._key("key-other-id", keys.ec, "ES256", client_key_id="rsa"),
            "key-certified": Case(
                _client("private_key_jwt", jwks={"keys": [keys.rsa.jwk | {"x5c": [x5c]}]}),
                self._signs("key-certified", keys.rsa) | certified,
            ),
            "fapi-issuer": self._key("fapi-issuer", keys.ec, "ES256", assertion_audience=ISSUER),
            "fapi-url": self._key("fapi-url", keys.ec, "ES256"),
            "key-lost": self._key("key-lost", keys.ec, "ES256", faults=("lost", "unavailable")),
        }

    def _by_certificate(self) -> dict[str, Case]:
        mail = "client@vendor.test"
        ca = {"ca_file": self._authority.file}
        shown = ca | self._authority.client(mail)
        certificate, x5c = self.keys.ec.certificate(self._folder)
        own = ca | {"cert_file": certificate, "key_file": self.keys.ec.file}
        authorized = _client("tls_client_auth", tls_client_auth_san_email=mail)
        bound = {"tls_client_certificate_bound_access_tokens": True}
        known = _client("self_signed_tls_client_auth", jwks={"keys": [self.keys.ec.jwk | {"x5c": [x5c]}]}, **bound)

        def case(name: str, client: Fields, tls: Fields) -> Case:
            credential = {"client_id": name, "client_auth": "none", "tls": tls}
            return Case(client, credential, listener="tls", route={"tls": tls})

        return {
            "tls-authority": case("tls-authority", authorized, shown),
            "tls-self-signed": case("tls-self-signed", known, own),
            "tls-nobody": case("tls-nobody", authorized, ca),
            "tls-other": case("tls-other", authorized, ca | self._authority.client("other@vendor.test")),
        }

    # ── what for ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _by_grant(self) -> dict[str, Case]:
        secret = new_secret("client secret", NASTY)
        exchange = {"client_id": "exchange", "client_secret": secret, "grant_type": TOKEN_EXCHANGE}
        exchanging = _client("client_secret_basic", TOKEN_EXCHANGE, client_secret=secret)
        signed = {"subject_token": "{assertion}", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}
        own = {"issuer": ROBOT, "subject": "robot", "audience": ISSUER}
        return {
            "bearer": self._bearer("bearer", self.keys.rsa, claims={"scope": "reports"}),
            "bearer-nobody": self._bearer("bearer-nobody", self.keys.stranger, key_id="ec"),
            "bearer-lost": self._bearer("bearer-lost", self.keys.ec, faults=("lost",)),
            "exchange": Case(
                exchanging,
                exchange
                | {"subject_token": "{token:basic}", "scope": "reports", "params": {"audience": ["one", "two"]}},
            ),
            "exchange-jwt": Case(exchanging, exchange | signed | {"assertion": _signed_by(self.keys.ed) | own}),
            "own-jwt": Case({}, {"source": "jwt", "assertion": _signed_by(self.keys.ec) | own}),
        }

    def _off(self) -> dict[str, Case]:
        """At servers whose clock is off."""
        key, short = self.keys.ec, {"lifetime": SHORT}
        cases = {}
        for listener in SKEWS:
            at = {"listener": listener}
            cases |= {
                f"{listener}-key": self._key(f"{listener}-key", key, "ES256", **at, **short),
                f"{listener}-bearer": self._bearer(f"{listener}-bearer", key, **at, **short),
            }
        nobody = self._key("ahead-nobody", self.keys.stranger, "ES256", client_key_id="ec", listener="ahead")
        return cases | {"ahead-nobody": nobody}

    def _short(self) -> dict[str, Case]:
        """With tokens that have to be renewed all the time."""
        short = {"lifetime": SHORT}
        secrets = [new_secret("client secret", NASTY) for _ in range(2)]
        basic, chain = (
            _client("client_secret_basic", grant, client_secret=secret)
            for grant, secret in zip(("client_credentials", TOKEN_EXCHANGE), secrets, strict=True)
        )
        session, signed = self._user("jump-user", "nomad"), self._key("jump-user", self.keys.ec, "ES256")
        asks = {"client_id": "load-chain", "client_secret": secrets[1], "grant_type": TOKEN_EXCHANGE}
        return {
            "load-basic": Case(basic, {"client_id": "load-basic", "client_secret": secrets[0]}, **short),
            "load-key": self._key("load-key", self.keys.ec, "ES256", faults=(None, None, "slow"), **short),
            "load-bearer": self._bearer("load-bearer", self.keys.ed, **short),
            "load-chain": Case(chain, asks | {"subject_token": "{token:load-basic}"}, **short),
            "load-user": self._user("load-user", "lodger"),
            "victim": self._user("victim", "victim"),
            "lost-user": self._user("lost-user", "loser", faults=(None, "unavailable", "lost")),
            "jump-user": Case(
                signed.client | {"grant_types": ("password", "refresh_token")},
                session.credential | signed.credential,
                listener="jump",
                lifetime=SHORT,
            ),
            "busy": self._user("busy", "busy"),
        }

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _key(self, name: str, key: Key, algorithm: str, **more: Any) -> Case:
        """`private_key_jwt`; what of `more` is no field of a case belongs to the credential."""
        about = {field: more.pop(field) for field in ("lifetime", "listener", "faults") if field in more}
        client = _client("private_key_jwt", jwks=self.keys.public, token_endpoint_auth_signing_alg=algorithm)
        written = {"assertion_algorithm": algorithm} | more
        own = {field: value for field, value in written.items() if value is not None}
        return Case(client, self._signs(name, key) | own, **about)

    def _signs(self, name: str, key: Key) -> Fields:
        named = {"client_id": name, "client_auth": "private_key_jwt"}
        return named | {"client_key": {"file": key.file}, "client_key_id": key.kid}

    def _bearer(self, name: str, key: Key, **more: Any) -> Case:
        """The JWT bearer grant; what of `more` is no field of a case belongs to the assertion."""
        about = {field: more.pop(field) for field in ("lifetime", "listener", "faults") if field in more}
        assertion = _signed_by(key) | {"issuer": ROBOT, "subject": "robot"} | more
        credential = {"client_id": name, "client_auth": "none", "grant_type": JWT_BEARER, "assertion": assertion}
        return Case(_client("none", JWT_BEARER), credential, **about)

    def _user(self, name: str, user: str, **about: Any) -> Case:
        """A user's session, as OCP has them: a public client, rotated refresh tokens, a limit."""
        signs_in = {"grant_type": "password", "username": user, "password": self.users[user]}
        credential = {"client_id": name, "client_auth": "none", "logout_url": "/logout"} | signs_in
        return Case(_client("none", "password", "refresh_token"), credential, lifetime=SHORT, **about)


def _client(auth: str, *grants: str, **more: Any) -> Fields:
    return {"token_endpoint_auth_method": auth, "grant_types": grants or ("client_credentials",), **more}


def _signed_by(key: Key) -> Fields:
    algorithm = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA", "stranger": "ES256"}[key.kid]
    return {"key": {"file": key.file}, "key_id": key.kid, "algorithm": algorithm}
