"""Confidential clients that say in different ways who they are, as Keycloak knows them and as a config has them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence import new_secret
from oidc.keys import Key, Keys

from .realms import Fields, service

_ALGORITHMS = {"RS256": "rsa", "PS256": "rsa", "ES256": "ec", "EdDSA": "ed"}
# What form encoding changes, and what parts id from secret.
_SPECIAL = "s+e/c%r:e t&=ü"
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


@dataclass(frozen=True)
class Client:
    """`known` is Keycloak's part, `credential` that of a config."""

    known: Fields
    credential: Fields

    @property
    def id(self) -> str:
        return self.known["clientId"]

    @property
    def authenticator(self) -> str:
        """By what Keycloak tells that it is this client."""
        return self.known["clientAuthenticatorType"]


def clients(keys: Keys, folder: Path) -> dict[str, Client]:
    """By name; all can be served."""
    basic = _by_secret("who: I+%/&=ü")
    basic.known["protocolMappers"] = [_names_in_tokens("exchange")]
    exchange = {"grant_type": _EXCHANGE, "subject_token": "{token:basic}"}
    return {
        "basic": basic,
        "post": _by_secret("post", client_auth="client_secret_post"),
        "secret-jwt": _by_secret("secret-jwt", authenticator="client-secret-jwt", client_auth="client_secret_jwt"),
        "lower-case": _by_secret("lower-case", {"token.response.type.bearer.lower-case": "true"}),
        "exchange": _by_secret("exchange", {"standard.token.exchange.enabled": "true"}, **exchange),
        "certificate": _by_certificate("certificate", keys.rsa, folder),
        **{name: _by_key(name, getattr(keys, kind), name) for name, kind in _ALGORITHMS.items()},
    }


def strangers(keys: Keys) -> dict[str, Client]:
    """By name; their secret or key is another than Keycloak has."""
    by_secret, by_key = _by_secret("wrong-secret"), _by_key("wrong-key", keys.ec, "ES256")
    wrong_secret = {"client_secret": new_secret("client secret", _SPECIAL)}
    wrong_key = {"client_key": {"file": keys.stranger.file}}
    return {
        "wrong-secret": Client(by_secret.known, by_secret.credential | wrong_secret),
        "wrong-key": Client(by_key.known, by_key.credential | wrong_key),
    }


def _by_secret(
    client_id: str, attributes: Fields | None = None, *, authenticator: str = "client-secret", **credential: Any
) -> Client:
    secret = {"secret": new_secret("client secret", _SPECIAL)}
    known = service(client_id, authenticator, attributes or {}) | secret
    return Client(known, {"client_id": client_id, "client_secret": secret["secret"]} | credential)


def _by_key(client_id: str, key: Key, algorithm: str) -> Client:
    public = key.jwk | {"use": "sig", "alg": algorithm}
    jwks = {"use.jwks.string": "true", "jwks.string": json.dumps({"keys": [public]})}
    known = service(client_id, "client-jwt", jwks | {"token.endpoint.auth.signing.alg": algorithm})
    return Client(
        known,
        {
            "client_id": client_id,
            "client_auth": "private_key_jwt",
            "client_key": {"file": key.file},
            "client_key_id": key.kid,
            "assertion_algorithm": algorithm,
        },
    )


def _by_certificate(client_id: str, key: Key, folder: Path) -> Client:
    certificate, x5c = key.certificate(folder)
    return Client(
        service(client_id, "client-jwt", {"jwt.credential.certificate": x5c}),
        {
            "client_id": client_id,
            "client_auth": "private_key_jwt",
            "client_key": {"file": key.file},
            "client_certificate": {"file": certificate},
        },
    )


def _names_in_tokens(audience: str) -> Fields:
    """A mapper: tokens are meant for that client too."""
    return {
        "name": f"for-{audience}",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": {"included.client.audience": audience, "access.token.claim": "true"},
    }
