"""What to ask: a credential → the token request, byte for byte. Pure, but for secrets read from their files.

Texts of the operator may hold placeholders (`PLACEHOLDERS`). They are replaced in one pass: what stands for one is
not looked at again, so nobody can smuggle another in by a principal's name.
"""

import dataclasses
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote, quote_plus, urlencode

from ..secret import Secret, SecretUnreadableError
from .assertion import signed
from .credential import JWT_BEARER, Assertion, Client, OwnJwt, TokenEndpoint
from .failure import Reason, TokenRequestError

FORM: Final = "application/x-www-form-urlencoded"
CLIENT_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
PLACEHOLDERS: Final = re.compile(
    r"\{(principal|assertion|client_id|client_secret|client_basic|username|password"
    r"|token:(?P<credential>[A-Za-z0-9][A-Za-z0-9._-]*))\}"
)
Parameters = list[tuple[str, Any]]
_IN_XML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"})


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a token request is made for, and when."""

    principal: str = ""
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The tokens of other credentials, by their names."""
    time: float = 0.0
    """Unix time by the identity provider's clock, as far as it is known."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request as it is to be sent. Its parts are secret: it has no readable form."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<token request, {self.method}>"


def token_request(
    endpoint: TokenEndpoint, token_url: str, occasion: Occasion, refresh_token: str | None
) -> TokenRequest:
    """The request for a token: by `refresh_token` where there is one, else by the credential's own grant.

    `token_url` is absolute. Raises `TokenRequestError` where a secret cannot be read or used.
    """
    with _unreadable_secret_is_failure():
        url = _url(token_url, _Filling(endpoint, "", occasion))
        filling = _Filling(endpoint, url, occasion)
        headers = {name: filling.text(value) for name, value in endpoint.headers.items()}
        if refresh_token is not None and endpoint.grant_type != "refresh_token":
            parameters: Parameters = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)]
        elif endpoint.body is not None:
            _authenticate(endpoint.client, headers, [], filling)
            text = endpoint.body.reveal()
            return _finish(endpoint.method, url, headers, filling.replace(text, _escape_for(headers, text)).encode())
        else:
            parameters = _first_grant(endpoint, filling, refresh_token)
        _authenticate(endpoint.client, headers, parameters, filling)
        return _encode(endpoint.method, url, headers, parameters, endpoint.send)


def logout_request(endpoint: TokenEndpoint, logout_url: str, occasion: Occasion, refresh_token: str) -> TokenRequest:
    """The request that ends the session of `refresh_token` (OpenID Connect; Keycloak's form)."""
    with _unreadable_secret_is_failure():
        client, headers = endpoint.client, dict[str, str]()
        parameters: Parameters = [("refresh_token", refresh_token)]
        if client.id is not None and client.auth not in {"client_secret_post", "none"}:
            parameters.insert(0, ("client_id", client.id.reveal()))
        _authenticate(client, headers, parameters, _Filling(endpoint, logout_url, occasion))
        return _encode("POST", logout_url, headers, parameters, "form")


def own_jwt(source: OwnJwt, occasion: Occasion) -> str:
    """The JWT that is itself the token. Raises `TokenRequestError`."""
    with _unreadable_secret_is_failure():
        return signed(source.assertion, _Filling(None, "", occasion).fill, time=occasion.time)


def digest_of_secrets(source: object) -> bytes | None:
    """What changes when any of the secrets within does; None where one cannot be read now."""
    digest = sha256()
    try:
        for secret in secrets_in(source):
            digest.update(sha256(secret.reveal().encode()).digest())
    except SecretUnreadableError:
        return None
    return digest.digest()


def secrets_in(value: object) -> Iterator[Secret]:
    """Every secret within a value: dataclasses, mappings and lists are looked into."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from secrets_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from secrets_in(inner)
    elif dataclasses.is_dataclass(value):
        for one in dataclasses.fields(value):
            yield from secrets_in(getattr(value, one.name))


class _Filling:
    """What stands for the placeholders of one request. An assertion is signed when it is first needed, once."""

    def __init__(self, endpoint: TokenEndpoint | None, token_url: str, occasion: Occasion) -> None:
        self._occasion = occasion
        self._token_url = token_url
        self._assertion = endpoint.assertion if endpoint else None
        self._made: str | None = None
        self._values: dict[str, Callable[[], str]] = {"principal": lambda: occasion.principal}
        if endpoint:
            self._values |= _revealing(endpoint)

    def fill(self, value: Any) -> Any:
        """The structure with its texts revealed and filled."""
        if isinstance(value, Secret):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.fill(item) for key, item in value.items()}
        return [self.fill(item) for item in value] if isinstance(value, list | tuple) else value

    def text(self, secret: Secret, escape: Callable[[str], str] = str) -> str:
        return self.replace(secret.reveal(), escape)

    def replace(self, text: str, escape: Callable[[str], str] = str) -> str:
        return PLACEHOLDERS.sub(lambda found: self._value(found, escape), text)

    def _value(self, found: re.Match[str], escape: Callable[[str], str]) -> str:
        if (credential := found["credential"]) is not None:
            value = self._occasion.tokens.get(credential)
        elif found[1] == "assertion" and self._assertion is not None:
            value = self.assertion()
        else:
            value = reveal() if (reveal := self._values.get(found[1])) else None
        return found[0] if value is None else escape(value)

    def assertion(self) -> str:
        if self._made is None:
            assertion, self._assertion = self._assertion, None  # inside itself the placeholder means nothing
            if isinstance(assertion, Assertion):
                self._made = self.signed(assertion)
            else:
                self._made = self.text(assertion) if assertion is not None else ""
            self._assertion = assertion
        return self._made

    def signed(self, assertion: Assertion) -> str:
        return signed(assertion, self.fill, time=self._occasion.time, token_url=self._token_url)


def _revealing(endpoint: TokenEndpoint) -> dict[str, Callable[[], str]]:
    client = endpoint.client
    values: dict[str, Callable[[], str]] = {"client_basic": lambda: _basic(client)}
    named = {
        "client_id": client.id,
        "client_secret": client.secret,
        "username": endpoint.username,
        "password": endpoint.password,
    }
    return values | {name: secret.reveal for name, secret in named.items() if secret is not None}


def _url(token_url: str, filling: _Filling) -> str:
    def escaped(value: str) -> str:
        if value in {".", ".."}:
            raise TokenRequestError(Reason.REFUSED, "this principal would be a dot segment of the URL", sent=False)
        return quote(value, safe="")

    path, mark, query = token_url.partition("?")
    return filling.replace(path, escaped) + mark + filling.replace(query, lambda value: quote(value, safe=""))


def _escape_for(headers: Mapping[str, str], body: str) -> Callable[[str], str]:
    """What makes a value a text, and nothing else, in a body of this kind."""
    kind = next((value.lower() for name, value in headers.items() if name.lower() == "content-type"), "")
    if "json" in kind or (not kind and body.lstrip()[:1] in {"{", "["}):
        return lambda value: json.dumps(value)[1:-1]
    if "xml" in kind or (not kind and body.lstrip()[:1] == "<"):
        return lambda value: value.translate(_IN_XML)
    return quote_plus if "urlencoded" in kind else str


def _first_grant(endpoint: TokenEndpoint, filling: _Filling, refresh_token: str | None) -> Parameters:
    parameters: Parameters = []
    if endpoint.grant_type != "none":
        parameters.append(("grant_type", endpoint.grant_type))
    if endpoint.grant_type == JWT_BEARER:
        parameters.append(("assertion", filling.assertion()))
    if endpoint.subject_token is not None:
        parameters.append(("subject_token", filling.text(endpoint.subject_token)))
        parameters.append(("subject_token_type", endpoint.subject_token_type))
    if endpoint.grant_type == "password":
        named = {"username": endpoint.username, "password": endpoint.password}
        parameters += [(name, secret.reveal()) for name, secret in named.items() if secret is not None]
    if endpoint.grant_type == "refresh_token" and (refresh_token or endpoint.refresh_token):
        first = endpoint.refresh_token.reveal() if endpoint.refresh_token else ""
        parameters.append(("refresh_token", refresh_token or first))
    if endpoint.scope is not None:
        parameters.append(("scope", endpoint.scope.reveal()))
    return parameters + [(name, filling.fill(value)) for name, value in endpoint.params.items()]


def _authenticate(client: Client, headers: dict[str, str], parameters: Parameters, filling: _Filling) -> None:
    """Adds the client's authentication (RFC 6749 §2.3, RFC 7523 §2.2)."""
    if client.auth == "client_secret_basic":
        headers["Authorization"] = f"Basic {_basic(client)}"
        return
    if client.assertion is not None:
        parameters.append(("client_assertion_type", CLIENT_ASSERTION_TYPE))
        parameters.append(("client_assertion", filling.signed(client.assertion)))
        return
    if client.id is not None:
        parameters.append(("client_id", client.id.reveal()))
    if client.auth == "client_secret_post" and client.secret is not None:
        parameters.append(("client_secret", client.secret.reveal()))


def _basic(client: Client) -> str:
    client_id = client.id.reveal() if client.id else ""
    secret = client.secret.reveal() if client.secret else ""
    if client.basic_encoding == "form":  # RFC 6749 §2.3.1
        client_id, secret = quote_plus(client_id), quote_plus(secret)
    return b64encode(f"{client_id}:{secret}".encode()).decode()


def _encode(method: str, url: str, headers: dict[str, str], parameters: Parameters, send: str) -> TokenRequest:
    if send == "json":
        return _finish(method, url, headers, json.dumps(dict(parameters)).encode(), "application/json")
    if send == "form":
        return _finish(method, url, headers, urlencode(parameters, doseq=True).encode(), FORM)
    if parameters:
        url += ("&" if "?" in url else "?") + urlencode(parameters, doseq=True)
    return _finish(method, url, headers, b"")


def _finish(method: str, url: str, headers: dict[str, str], body: bytes, content_type: str = "") -> TokenRequest:
    for name, value in headers.items():
        if not value.isprintable():
            raise TokenRequestError(
                Reason.SECRET_UNREADABLE, f"the header {name} would hold control characters", sent=False
            )
    defaults = {"Accept": "application/json"} | ({"Content-Type": content_type} if content_type else {})
    given = {name.lower() for name in headers}
    headers |= {name: value for name, value in defaults.items() if name.lower() not in given}
    return TokenRequest(method, url, headers, body)


class _unreadable_secret_is_failure:  # noqa: N801 - a context manager, read as a phrase
    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SecretUnreadableError):
            raise TokenRequestError(Reason.SECRET_UNREADABLE, str(error), sent=False) from None
