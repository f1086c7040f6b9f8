"""Credentials whose tokens are from this machine, and what the token of each is."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from configs import Config
from endpoints import Jwt
from evidence import SECRETS, new_secret
from made_up import ME, made_up, private_key

HOUR = 3600.0
EC = ec.generate_private_key(ec.SECP256R1())
KEYS = {
    "rsa.pem": made_up("key.pem"),
    "ec.pem": EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    "shared": new_secret("shared secret", "s" * 32),
}
for pem in ("rsa.pem", "ec.pem"):
    SECRETS.add(KEYS[pem].splitlines()[2], "private key")
PUBLIC = private_key(ME).public_key()
FINGERPRINT = sha256(PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def new_token() -> str:
    return new_secret("token", "t-")


STATIC = new_token()


def signed(seconds: float = HOUR) -> str:
    """A JWT that ends so many seconds from now."""
    claims = {"exp": int(time.time() + seconds), "jti": new_secret("token")}
    return SECRETS.add(jwt.encode(claims, "k" * 32), "token")


def moment(seconds: float = HOUR) -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True)
class Given:
    """A credential whose token is `token`, with the file `content` that it stands in."""

    token: str
    credential: Config
    content: str = ""
    lifetime: tuple[float, str] | None = None


def from_file(token: str, content: str = "{}\n", lifetime: tuple[float, str] | None = None, **more: Any) -> Given:
    return Given(token, {"source": "file", "path": "NAME"} | more, content.replace("{}", token), lifetime)


def printed(token: str, content: Any, lifetime: tuple[float, str] | None = None, **more: Any) -> Given:
    text = content if isinstance(content, str) else json.dumps(content)
    return Given(token, {"source": "exec", "command": ["cat", "NAME"]} | more, text, lifetime)


def exec_credential(token: str, **status: str) -> Any:
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token, **status},
    }


def given() -> dict[str, Given]:
    """Each with a token of its own."""
    a = [new_token() for _ in range(20)]
    own = signed()
    ten_years = 10 * 365 * 86400.0
    says_where = (
        'printf \'{"access_token": "%s.%s.%s.%s"}\' "$1" "$(cat | wc -c)" "$(pwd | xargs basename)" '
        '"$(printf %s "$KUBERNETES_EXEC_INFO" | tr -dc a-z | head -c 19)"'
    )
    return {
        "file": from_file(a[0], lifetime=(ten_years, "no told end")),
        "file-without-line-end": from_file(a[1], "{}"),
        "file-with-spaces-around": from_file(a[2], "\n  {} \r\n"),
        "file-kubernetes-jwt": from_file(own, lifetime=(HOUR, "exp")),
        "file-ttl": from_file(a[3], lifetime=(7200, "ttl"), ttl="2h"),
        "file-json": from_file(a[4], '{"auth": {"client_token": "{}"}}', response={"token": "auth.client_token"}),
        "file-json-lifetime": from_file(
            a[5], '{"access_token": "{}", "expires_in": 3600}', (HOUR, "expires_in"), response={"token": "access_token"}
        ),
        "static": Given(a[6], {"source": "static", "token": a[6]}, lifetime=(ten_years, "no told end")),
        "static-from-a-file": Given(a[7], {"source": "static", "token": {"file": "NAME"}}, f"{a[7]}\n"),
        "static-from-the-environment": Given(STATIC, {"source": "static", "token": {"env": "STATIC_TOKEN"}}),
        "exec-credential": printed(a[8], exec_credential(a[8], expirationTimestamp=moment()), (HOUR, "expires_at")),
        "exec-credential-without-end": printed(a[9], exec_credential(a[9]), (300, "default")),
        "exec-credential-jwt": printed(own, exec_credential(own), (HOUR, "exp")),
        "pluggable-id_token": printed(
            a[10],
            {
                "version": 1,
                "success": True,
                "token_type": "urn:ietf:params:oauth:token-type:id_token",
                "id_token": a[10],
                "expiration_time": int(time.time() + HOUR),
            },
            (HOUR, "expires_at"),
        ),
        "pluggable-access_token": printed(a[11], {"version": 1, "success": True, "access_token": a[11]}),
        "token-answer": printed(a[12], {"access_token": a[12], "expires_in": "3600"}, (HOUR, "expires_in")),
        "aws-codeartifact": printed(
            a[13],
            {"authorizationToken": a[13], "expiration": moment()},
            (HOUR, "expiration"),
            response={"token": "authorizationToken", "expires": {"field": "expiration", "as": "iso8601"}},
        ),
        "gcloud-plain-text": printed(a[14], f"{a[14]}\n", (HOUR, "ttl"), response={"token": ""}, ttl="1h"),
        "relative-program": Given(a[15], {"source": "exec", "command": ["./program", a[15]]}),
        "surroundings": Given(
            "$HOME;`id`*.0.given0.apiersionclientauth",
            {"source": "exec", "command": ["sh", "-c", says_where, "sh", "$HOME;`id`*"]},
        ),
    }


@dataclass(frozen=True)
class Signed:
    """A credential whose token is a JWT that is signed here."""

    assertion: Config
    jwt: Jwt
    more: Config = field(default_factory=dict)


def own_jwts() -> dict[str, Signed]:
    account = {"iss": f"ACME.ME.SHA256:{FINGERPRINT}", "sub": "ACME.ME"}
    return {
        "app-store-connect": Signed(
            {
                "issuer": "ISSUER",
                "audience": "appstoreconnect-v1",
                "lifetime": "20m",
                "algorithm": "ES256",
                "key": {"file": "ec.pem"},
                "key_id": "KEY",
                "claims": {"scope": ["GET /v1/apps"]},
            },
            Jwt(
                EC.public_key(),
                {"alg": "ES256", "kid": "KEY"},
                {"iss": "ISSUER", "aud": "appstoreconnect-v1", "scope": ["GET /v1/apps"]},
                1200,
                prefix="Bearer ",
            ),
        ),
        "snowflake-key-pair": Signed(
            {"issuer": account["iss"], "subject": account["sub"], "lifetime": "1h", "key": {"file": "rsa.pem"}},
            Jwt(PUBLIC, {"alg": "RS256"}, account, 3600, prefix="Bearer "),
        ),
        "github-app": Signed(
            {"issuer": "12345", "lifetime": "9m", "key": {"file": "rsa.pem"}},
            Jwt(PUBLIC, {"alg": "RS256"}, {"iss": "12345"}, 540, prefix="Bearer "),
        ),
        "shared-secret": Signed(
            {"key": {"file": "shared"}, "algorithm": "HS256", "claims": {"n": 1}, "audience": "/admin/"},
            Jwt(KEYS["shared"], {"alg": "HS256"}, {"aud": "/admin/", "n": 1}, prefix="Ghost "),
            {"inject": {"format": "Ghost {token}"}},
        ),
    }


FAULTS: Mapping[str, tuple[list[str], str, str]] = {
    "exit-1": (["sh", "-c", "echo secret >&2; exit 1"], "command_failed", "ended with status 1"),
    "killed": (["sh", "-c", "kill -9 $$"], "command_failed", "ended with status"),
    "hangs": (["sh", "-c", "echo $$ >> hangs.pid; exec sleep 60"], "command_failed", "did not end within"),
    "ignores-sigterm": (["sh", "-c", "trap '' TERM HUP; echo $$ >> ignores-sigterm.pid; while :; do sleep 1; done"],
                        "command_failed", "did not end within"),
    "prints-2-mib": (["head", "-c", "2097152", "/dev/zero"], "command_failed", "prints more than 1 MiB"),
    "prints-for-ever": (["yes"], "command_failed", "prints more than 1 MiB"),
    "child-holds-stdout": (
        ["sh", "-c", "sleep 60 & echo $! >> child-holds-stdout.pid; echo {}"], "command_failed", "did not end within",
    ),
    "child-of-another-session": (
        ["sh", "-c", "setsid sleep 5 & echo {}"], "command_failed", "did not end within",
    ),
    "prints-nothing": (["true"], "no_token", "not JSON"),
    "prints-html": (["echo", "<html>"], "no_token", "not JSON"),
    "pluggable-without-success": (
        ["echo", '{"version": 1, "success": false, "code": "401", "message": "x"}'], "command_failed", "had no success",
    ),
    "pluggable-without-token": (["echo", '{"version": 1, "success": true}'], "no_token", ""),
    "empty-exec-credential": (["echo", '{"status": {"token": ""}}'], "no_token", ""),
    "expired": (
        ["echo", json.dumps(exec_credential("expired-token", expirationTimestamp="2020-01-01T00:00:00Z"))],
        "already_expired",
        "",
    ),
    "program-that-left": (["./left"], "command_failed", "cannot be run: No such file"),
    "no-interpreter": (["./uninterpreted"], "command_failed", "cannot be run: No such file"),
}  # fmt: skip
