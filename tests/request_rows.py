"""Token requests as vendors' documents want them, each with the credential that makes it."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from configs import Config
from endpoints import Jwt, Pairs
from evidence import SECRETS, new_secret
from made_up import ME, certificate, made_up, private_key

FORM = "application/x-www-form-urlencoded"
CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN, ID_TOKEN = (f"urn:ietf:params:oauth:token-type:{kind}" for kind in ("access_token", "jwt"))
REALM = "http://auth0.com/oauth/grant-type/password-realm"

ID = "app:1 é"
SECRET = new_secret("client secret", "s+e/c%r:e é_.-~")
OWN = {"client_id": ID, "client_secret": SECRET}
USERNAME, PASSWORD, REFRESH, KEY = (new_secret(kind, "p&=+ ") for kind in ("user", "password", "refresh token", "key"))
RSA, PEM = private_key(ME), made_up("key.pem").strip()
SECRETS.add(PEM.splitlines()[4], "private key")
EC = ec.generate_private_key(ec.SECP256R1())
EC_PEM = EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode().strip()
X5T = base64.urlsafe_b64encode(sha256(certificate(ME).public_bytes(Encoding.DER)).digest()).decode().rstrip("=")
FEDERATED = new_secret("federated assertion", "f.")
CC = {"grant_type": "client_credentials"}
OF_ID = {"iss": ID, "sub": ID}
BY_KEY = {"client_auth": "private_key_jwt", "client_id": ID, "client_key": PEM}
NO_CLIENT = {"client_auth": "none"}
FEDERATED_FORM = {"client_assertion_type": CLIENT_ASSERTION, "client_assertion": FEDERATED}


def basic(client_id: str = ID, secret: str = SECRET, *, raw: bool = False) -> dict[str, str]:
    """RFC 7617, or RFC 6749 §2.3.1."""
    pair = [client_id, secret] if raw else [quote_plus(client_id), quote_plus(secret)]
    return {"authorization": "Basic " + base64.b64encode(":".join(pair).encode()).decode()}


BASIC = basic()


@dataclass(frozen=True)
class Row:
    """A credential, and its token request: one that has `form`, `json` or `body`, or only a query."""

    credential: Config
    form: Mapping[str, Any] | Pairs | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    body: tuple[str, str] | None = None
    """Content-Type and text."""
    line: str = "POST /token"


def client_jwt(key: Any, header: Mapping[str, str], claims: Mapping[str, str], lifetime: float = 60) -> dict[str, Any]:
    """RFC 7523 §2.2."""
    assertion = Jwt(key, {"alg": "RS256", **header}, claims, lifetime)
    return CC | {"client_assertion_type": CLIENT_ASSERTION, "client_assertion": assertion}


def clients(here: str) -> dict[str, Row]:
    """Ways in which clients say who they are; `here` leads to the endpoints."""
    public = RSA.public_key()
    certified = {"client_certificate": made_up("certificate.pem").strip(), "assertion_algorithm": "PS256"}
    apple = {
        "issuer": "TEAM",
        "subject": ID,
        "audience": "https://appleid.apple.com",
        "lifetime": "180d",
        "key_id": "K",
    }
    apple_claims = {"iss": "TEAM", "sub": ID, "aud": "https://appleid.apple.com"}
    apple_jwt = Jwt(EC.public_key(), {"alg": "ES256", "kid": "K"}, apple_claims, timedelta(days=180).total_seconds())
    netsuite = {"issuer": ID, "audience": f"{here}/netsuite/token", "claims": {"scope": ["rest"]}, "key": PEM}
    netsuite_form = client_jwt(public, {}, {"iss": ID, "aud": f"{here}/netsuite/token", "scope": ["rest"]})
    issuer = {"assertion_audience": "https://keycloak.example/realms/acme"}
    return {
        "rfc6749-basic": Row(OWN, CC, BASIC),
        "identityserver4-raw-basic": Row(OWN | {"basic_encoding": "raw"}, CC, basic(raw=True)),
        "basic-beside-its-client-id": Row(OWN | {"params": {"client_id": ID}}, CC | {"client_id": ID}, BASIC),
        "gong-only-in-the-body": Row(OWN | {"client_auth": "client_secret_post"}, CC | OWN),
        "ocp-public-client": Row(NO_CLIENT | {"client_id": ID}, CC | {"client_id": ID}),
        "client-secret-jwt": Row(
            OWN | {"client_auth": "client_secret_jwt", "client_secret": SECRET * 2},
            client_jwt(SECRET * 2, {"alg": "HS256"}, OF_ID | {"aud": f"{here}/client-secret-jwt/token"}),
        ),
        "private-key-jwt": Row(
            BY_KEY | {"client_key_id": "kid-1", "assertion_lifetime": "5m"},
            client_jwt(public, {"kid": "kid-1"}, OF_ID | {"aud": f"{here}/private-key-jwt/token"}, 300),
        ),
        "keycloak-issuer-as-audience": Row(
            BY_KEY | issuer, client_jwt(public, {}, OF_ID | {"aud": issuer["assertion_audience"]})
        ),
        "entra-certificate": Row(
            BY_KEY | certified,
            client_jwt(public, {"alg": "PS256", "x5t#S256": X5T}, OF_ID | {"aud": f"{here}/entra-certificate/token"}),
        ),
        "apple": Row(
            NO_CLIENT
            | {
                "client_id": ID,
                "grant_type": "refresh_token",
                "refresh_token": REFRESH,
                "assertion": apple | {"key": EC_PEM, "algorithm": "ES256"},
                "params": {"client_secret": "{assertion}"},
            },
            {"grant_type": "refresh_token", "refresh_token": REFRESH, "client_id": ID, "client_secret": apple_jwt},
        ),
        "netsuite": Row(
            NO_CLIENT
            | {
                "assertion": netsuite,
                "params": {"client_assertion_type": CLIENT_ASSERTION, "client_assertion": "{assertion}"},
            },
            netsuite_form,
        ),
        "api-key": Row(NO_CLIENT | {"headers": {"x-api-key": KEY}}, CC, {"x-api-key": KEY}),
        "workday": Row(
            OWN | NO_CLIENT | {"basic_encoding": "raw", "headers": {"Authorization": "ID {client_basic}"}},
            CC | {"client_id": ID},
            {"authorization": basic(raw=True)["authorization"].replace("Basic", "ID")},
        ),
        "n-able": Row(
            NO_CLIENT | {"headers": {"Authorization": f"Bearer {KEY}"}}, CC, {"authorization": f"Bearer {KEY}"}
        ),
        "okta-ssws": Row(
            NO_CLIENT | {"headers": {"Authorization": f"SSWS {KEY}"}}, CC, {"authorization": f"SSWS {KEY}"}
        ),
        "azure-workload-identity": Row(
            NO_CLIENT
            | {
                "client_id": ID,
                "params": FEDERATED_FORM | {"client_assertion": {"file": "federated"}},
            },
            CC | {"client_id": ID} | FEDERATED_FORM,
        ),
    }


def grants(here: str) -> dict[str, Row]:
    """What is asked for."""
    public = RSA.public_key()
    by_assertion = NO_CLIENT | {"grant_type": JWT_BEARER}
    google = {"issuer": ID, "subject": "user@example.com", "key": PEM, "key_id": "k", "lifetime": "1h"}
    google_claims = {"iss": ID, "sub": "user@example.com", "scope": "a b", "aud": f"{here}/google/token"}
    exchange = {"subject_token": {"file": "federated"}, "subject_token_type": ID_TOKEN}
    exchange_params = {"requested_token_type": ACCESS_TOKEN, "audience": "//iam.example/x", "scope": "a"}
    github = {"issuer": "12345", "lifetime": "10m", "key": PEM}
    installation = "/app/installations/7/access_tokens"
    github_claims = {"iss": "12345"}
    realm = {"realm": "employees", "audience": "https://api.example"}
    account = {"grant_type": "account_credentials", "account_id": "acc"}
    imds = {"api-version": "2018-02-01", "resource": "https://vault.azure.net"}
    by_get = {"method": "GET", "send": "query", "grant_type": "none"} | NO_CLIENT
    return {
        "scope-with-spaces": Row(OWN | {"scope": "a b/.default"}, CC | {"scope": "a b/.default"}, BASIC),
        "adobe-umapi-scope-with-commas": Row(OWN | {"scope": "a,b"}, CC | {"scope": "a,b"}, BASIC),
        "auth0-audience": Row(OWN | {"params": {"audience": "https://a/"}}, CC | {"audience": "https://a/"}, BASIC),
        "dynatrace-resource": Row(OWN | {"params": {"resource": "urn:x"}}, CC | {"resource": "urn:x"}, BASIC),
        "repeated-audience-and-resource": Row(
            OWN | {"params": {"audience": ["one", "two"], "resource": ["urn:a", "urn:b"]}},
            [*CC.items(), ("audience", "one"), ("audience", "two"), ("resource", "urn:a"), ("resource", "urn:b")],
            BASIC,
        ),
        "password": Row(
            NO_CLIENT | {"grant_type": "password", "username": USERNAME, "password": PASSWORD},
            {"grant_type": "password", "username": USERNAME, "password": PASSWORD},
        ),
        "auth0-password-realm": Row(
            OWN
            | {
                "client_auth": "client_secret_post",
                "grant_type": REALM,
                "username": USERNAME,
                "password": PASSWORD,
                "params": {"username": "{username}", "password": "{password}"} | realm,
            },
            {"grant_type": REALM, "username": USERNAME, "password": PASSWORD} | realm | OWN,
        ),
        "workday-refresh-token": Row(
            OWN | {"grant_type": "refresh_token", "refresh_token": REFRESH},
            {"grant_type": "refresh_token", "refresh_token": REFRESH},
            BASIC,
        ),
        "google": Row(
            by_assertion | {"assertion": google | {"claims": {"scope": "a b"}}},
            {
                "grant_type": JWT_BEARER,
                "assertion": Jwt(public, {"alg": "RS256", "kid": "k"}, google_claims, 3600),
            },
        ),
        "salesforce": Row(
            by_assertion | {"assertion": {"issuer": ID, "subject": "u", "audience": "https://login.x", "key": PEM}},
            {
                "grant_type": JWT_BEARER,
                "assertion": Jwt(public, {"alg": "RS256"}, {"iss": ID, "sub": "u", "aud": "https://login.x"}),
            },
        ),
        "servicenow": Row(
            OWN
            | {
                "client_auth": "client_secret_post",
                "grant_type": JWT_BEARER,
                "assertion": {"issuer": ID, "subject": "u", "audience": ID, "key": PEM, "key_id": "k"},
            },
            {
                "grant_type": JWT_BEARER,
                "assertion": Jwt(public, {"alg": "RS256", "kid": "k"}, {"iss": ID, "sub": "u", "aud": ID}),
            }
            | OWN,
        ),
        "gcp-sts": Row(
            NO_CLIENT | {"grant_type": TOKEN_EXCHANGE, "params": exchange_params} | exchange,
            {"grant_type": TOKEN_EXCHANGE, "subject_token": FEDERATED, "subject_token_type": ID_TOKEN}
            | exchange_params,
        ),
        "github-app": Row(
            by_get
            | {
                "method": "POST",
                "send": "json",
                "token_url": f"{here}/github-app{installation}",
                "assertion": github,
                "headers": {"Authorization": "Bearer {assertion}", "Accept": "application/vnd.github+json"},
                "params": {"repositories": ["one"], "permissions": {"contents": "read"}},
                "response": {"token": "token"},
            },
            json={"repositories": ["one"], "permissions": {"contents": "read"}},
            line=f"POST {installation}",
            headers={
                "accept": "application/vnd.github+json",
                "authorization": Jwt(public, {"alg": "RS256"}, github_claims, 600, prefix="Bearer "),
            },
        ),
        "zoom-form": Row(OWN | {"grant_type": account["grant_type"], "params": {"account_id": "acc"}}, account, BASIC),
        "zoom-query": Row(
            OWN | {"grant_type": account["grant_type"], "params": {"account_id": "acc"}, "send": "query"},
            headers=BASIC,
            query=account,
        ),
        "sap-ariba-vendor-grant": Row(OWN | {"grant_type": "openapi_2lo"}, {"grant_type": "openapi_2lo"}, BASIC),
        "no-grant-type": Row(OWN | {"grant_type": "none", "params": {"a": "b"}}, {"a": "b"}, BASIC),
        "azure-imds": Row(
            by_get | {"headers": {"Metadata": "true"}, "params": imds},
            None,
            {"metadata": "true"},
            imds,
            line="GET /token",
        ),
        "azure-app-service": Row(
            by_get | {"headers": {"X-IDENTITY-HEADER": KEY}, "params": imds},
            None,
            {"x-identity-header": KEY},
            imds,
            line="GET /token",
        ),
        "gce-metadata": Row(
            by_get | {"headers": {"Metadata-Flavor": "Google"}}, None, {"metadata-flavor": "Google"}, line="GET /token"
        ),
    }


def encodings(here: str) -> dict[str, Row]:
    """How parameters travel."""
    nested = {"user": {"name": "{username}", "tries": 3, "flags": [True, None]}}
    user = NO_CLIENT | {"username": USERNAME, "password": PASSWORD}
    bodyless = {"method": "GET", "send": "query", "client_auth": "none"}
    return {
        "json": Row(OWN | {"client_auth": "client_secret_post", "send": "json"}, json=CC | OWN),
        "nested-json": Row(
            user | {"grant_type": "none", "send": "json", "params": nested | {"secret": "{password}"}},
            json={"user": {"name": USERNAME, "tries": 3, "flags": [True, None]}, "secret": PASSWORD},
        ),
        "firebase": Row(
            user
            | {
                "token_url": f"{here}/firebase/token?key={quote_plus(KEY)}",
                "grant_type": "none",
                "send": "json",
                "params": {"email": "{username}", "password": "{password}"},
            },
            json={"email": USERNAME, "password": PASSWORD},
            query={"key": KEY},
        ),
        "query-by-post": Row(OWN | {"send": "query"}, headers=BASIC, query=CC),
        "nothing-but-a-header": Row(OWN | {"send": "query", "grant_type": "none"}, headers=BASIC),
        "xml": Row(
            user
            | {
                "body": "<login><user>{username}</user><password>{password}</password></login>",
                "headers": {"Content-Type": "text/xml; charset=utf-8"},
            },
            body=(
                "text/xml; charset=utf-8",
                f"<login><user>{escape(USERNAME)}</user><password>{escape(PASSWORD)}</password></login>",
            ),
        ),
        "get": Row(bodyless | {"client_id": ID}, query=CC | {"client_id": ID}, line="GET /token"),
        "get-with-basic": Row(
            OWN | bodyless | {"client_auth": "client_secret_basic"}, None, BASIC, CC, line="GET /token"
        ),
    }


def rows(here: str) -> dict[str, Row]:
    return clients(here) | grants(here) | encodings(here)
