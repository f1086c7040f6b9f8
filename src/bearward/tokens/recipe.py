"""What to ask: a credential → the token request, byte for byte. Pure, but for secrets read from their files."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import quote, quote_plus, urlencode

from ..secret import Secret, SecretUnreadableError
from .credential import Credential
from .failure import Reason, TokenRequestError

FORM = "application/x-www-form-urlencoded"
Parameters = list[tuple[str, Any]]
Grant = Literal["first", "refresh_token"]
"""`first`: the credential's own grant. `refresh_token`: RFC 6749 §6."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request as it is to be sent. Its parts are secret: it has no readable form."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<token request, {self.method}>"


def token_request(credential: Credential, token_url: str, principal: str, refresh_token: str | None) -> TokenRequest:
    """The request for a token: by `refresh_token` where there is one, else by the credential's own grant.

    `token_url` is absolute. Raises `TokenRequestError` where a secret cannot be read.
    """
    with _unreadable_secret_is_failure():
        if "{principal}" in token_url and principal in {".", ".."}:
            raise TokenRequestError(Reason.REFUSED, "this principal would be a dot segment of the URL", sent=False)
        url = token_url.replace("{principal}", quote(principal, safe=""))
        if refresh_token is not None and credential.grant_type != "refresh_token":
            parameters: Parameters = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)]
        else:
            parameters = _first_grant(credential, principal, refresh_token)
        headers = {name: _text(value, principal) for name, value in credential.headers.items()}
        return _assemble(credential, url, headers, parameters, credential.send, credential.method)


def logout_request(credential: Credential, logout_url: str, refresh_token: str) -> TokenRequest:
    """The request that ends the session of `refresh_token` (OpenID Connect; Keycloak's form)."""
    with _unreadable_secret_is_failure():
        parameters: Parameters = [("refresh_token", refresh_token)]
        if credential.client_id is not None and credential.client_auth != "client_secret_post":
            parameters.insert(0, ("client_id", credential.client_id.reveal()))
        if credential.client_auth == "none":  # its client_id is among the parameters already
            return _encode("POST", logout_url, {}, parameters, "form")
        return _assemble(credential, logout_url, {}, parameters, "form", "POST")


def digest_of_secrets(credential: Credential) -> bytes | None:
    """What changes when any of the credential's secrets does; None where one cannot be read now."""
    digest = sha256()
    try:
        for secret in _secrets(credential):
            digest.update(sha256(secret.reveal().encode()).digest())
    except SecretUnreadableError:
        return None
    return digest.digest()


def _first_grant(credential: Credential, principal: str, refresh_token: str | None) -> Parameters:
    parameters: Parameters = []
    if credential.grant_type != "none":
        parameters.append(("grant_type", credential.grant_type))
    for name in ("username", "password", "refresh_token", "scope"):
        secret: Secret | None = getattr(credential, name)
        if name == "refresh_token" and refresh_token is not None:
            parameters.append((name, refresh_token))
        elif secret is not None:
            parameters.append((name, secret.reveal()))
    parameters += [(name, _structure(value, principal)) for name, value in credential.params.items()]
    return parameters


def _assemble(
    credential: Credential, url: str, headers: dict[str, str], parameters: Parameters, send: str, method: str
) -> TokenRequest:
    """Adds the client's authentication (RFC 6749 §2.3.1)."""
    client_id = credential.client_id.reveal() if credential.client_id else ""
    secret = credential.client_secret.reveal() if credential.client_secret else ""
    if credential.client_auth == "client_secret_basic":
        if credential.basic_encoding == "form":
            client_id, secret = quote_plus(client_id), quote_plus(secret)
        headers["Authorization"] = "Basic " + b64encode(f"{client_id}:{secret}".encode()).decode()
    else:
        if client_id:
            parameters.append(("client_id", client_id))
        if credential.client_auth == "client_secret_post":
            parameters.append(("client_secret", secret))
    return _encode(method, url, headers, parameters, send)


def _encode(method: str, url: str, headers: dict[str, str], parameters: Parameters, send: str) -> TokenRequest:
    for name, value in headers.items():
        if not value.isprintable():
            raise TokenRequestError(
                Reason.SECRET_UNREADABLE, f"the header {name} would hold control characters", sent=False
            )
    defaults = {"Accept": "application/json"}
    body = b""
    if send == "json":
        defaults["Content-Type"] = "application/json"
        body = json.dumps(dict(parameters)).encode()
    elif send == "form":
        defaults["Content-Type"] = FORM
        body = urlencode(parameters, doseq=True).encode()
    else:
        url += ("&" if "?" in url else "?") + urlencode(parameters, doseq=True)
    given = {name.lower() for name in headers}
    headers |= {name: value for name, value in defaults.items() if name.lower() not in given}
    return TokenRequest(method, url, headers, body)


def _structure(value: Any, principal: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _structure(item, principal) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_structure(item, principal) for item in value]
    return _text(value, principal) if isinstance(value, Secret) else value


def _text(secret: Secret, principal: str) -> str:
    return secret.reveal().replace("{principal}", principal)


def _secrets(credential: Credential) -> Iterator[Secret]:
    fields = ("client_id", "client_secret", "username", "password", "refresh_token", "scope")
    pending: list[Any] = [getattr(credential, name) for name in fields]
    pending += [*credential.params.values(), *credential.headers.values()]
    while pending:
        value = pending.pop()
        if isinstance(value, Secret):
            yield value
        elif isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value


class _unreadable_secret_is_failure:  # noqa: N801 - a context manager, read as a phrase
    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SecretUnreadableError):
            raise TokenRequestError(Reason.SECRET_UNREADABLE, str(error), sent=False) from None
