"""Realms as the admin API takes them."""

from typing import Any

Fields = dict[str, Any]

_FIVE = {"userRealmLimit": "5", "userClientLimit": "0"}
_EVENTS = ("LOGIN", "LOGOUT", "REFRESH_TOKEN", "CLIENT_LOGIN", "TOKEN_EXCHANGE")
_STEPS = ("direct-grant-validate-username", "direct-grant-validate-password", "user-session-limits")


def _key(provider: str, **config: str) -> Fields:
    return {
        "name": provider,
        "providerId": provider,
        "subComponents": {},
        "config": {name: [value] for name, value in {"priority": "100", **config}.items()},
    }


def realm(name: str, lifetime: int, clients: list[Fields], **more: Any) -> Fields:
    """A realm whose tokens live for `lifetime` seconds, and whose users may all read its users.

    Its keys are quick to make, its passwords quick to judge.
    """
    keys = [_key("ecdsa-generated", ecdsaEllipticCurveKey="P-256"), _key("hmac-generated", algorithm="HS512")]
    may_read = {"name": f"default-roles-{name}", "composites": {"client": {"realm-management": ["view-users"]}}}
    return {
        "realm": name,
        "enabled": True,
        "accessTokenLifespan": lifetime,
        "defaultSignatureAlgorithm": "ES256",
        "components": {"org.keycloak.keys.KeyProvider": [*keys, _key("aes-generated")]},
        "passwordPolicy": "hashAlgorithm(pbkdf2-sha256) and hashIterations(1)",
        "eventsEnabled": True,
        "enabledEventTypes": [*_EVENTS, *(f"{each}_ERROR" for each in _EVENTS)],
        "roles": {"realm": [may_read | {"composite": True}]},
        "defaultRole": {"name": may_read["name"]},
        "clients": clients,
    } | more


def ocp_client(**more: Any) -> Fields:
    """OCP's public client, for users' passwords."""
    return {"clientId": "ocp", "publicClient": True, "directAccessGrantsEnabled": True} | more


def service(client_id: str, authenticator: str, attributes: Fields) -> Fields:
    """A client with a user of its own, as whom it asks for tokens."""
    return {
        "clientId": client_id,
        "serviceAccountsEnabled": True,
        "clientAuthenticatorType": authenticator,
        "attributes": attributes,
    }


def ocp_realm(name: str, lifetime: int, behavior: str) -> Fields:
    """Users with five sessions each, on refresh tokens that are good for one use."""
    steps = [
        {"authenticator": step, "requirement": "REQUIRED", "priority": number} for number, step in enumerate(_STEPS)
    ]
    steps[-1]["authenticatorConfig"] = "five"
    flow = {"alias": "limited", "providerId": "basic-flow", "topLevel": True, "authenticationExecutions": steps}
    return realm(
        name,
        lifetime,
        [ocp_client()],
        directGrantFlow="limited",
        authenticationFlows=[flow],
        authenticatorConfig=[{"alias": "five", "config": _FIVE | {"behavior": behavior}}],
        revokeRefreshToken=True,
        refreshTokenMaxReuse=0,
    )
