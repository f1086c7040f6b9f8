"""What the operator says of a credential, as values: the fields of a token request and how to read its answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..secret import Secret
from ..tls import Tls

ClientAuth = Literal["client_secret_basic", "client_secret_post", "none"]
ExpiryUnit = Literal["seconds", "milliseconds", "epoch", "epoch_ms", "iso8601", "http_date", "duration"]
FieldPath = tuple[str, ...]
"""A way into a JSON answer: keys, and digits for a place in a list. `()` is the whole body."""


@dataclass(frozen=True, slots=True)
class ExpiryField:
    """Where an answer says how long its token lives, and in what form."""

    path: FieldPath
    unit: ExpiryUnit


@dataclass(frozen=True, slots=True)
class RefusalMark:
    """What marks a refusal for good in an answer of status 200: a field with a value that is none of `accepted`."""

    path: FieldPath
    accepted: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Principal:
    """Which request header names the user on whose behalf a token is requested, and how many tokens are held."""

    header: str
    max: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """How tokens are obtained. The fields are those of the config's credential table, all checked.

    Inside `params` and `headers` any text may hold the placeholder `{principal}`.
    """

    name: str
    token_url: str
    """Absolute, or a path that is resolved against the origin of the route's upstream."""
    grant_type: str = "client_credentials"
    """As sent; `none` sends no such parameter."""
    client_auth: ClientAuth = "client_secret_basic"
    client_id: Secret | None = None
    client_secret: Secret | None = None
    basic_encoding: Literal["form", "raw"] = "form"
    username: Secret | None = None
    password: Secret | None = None
    refresh_token: Secret | None = None
    scope: Secret | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """Text as `Secret`; a list repeats the parameter; with `send: json` any structure whose texts are `Secret`s."""
    headers: Mapping[str, Secret] = field(default_factory=dict)
    send: Literal["form", "json", "query"] = "form"
    method: Literal["POST", "GET"] = "POST"
    token_path: FieldPath = ("access_token",)
    expires: ExpiryField | None = None
    """None: found automatically."""
    refusal: RefusalMark | None = None
    ttl: float | None = None
    """Seconds that a token lives where its answer does not say; None: five minutes, with a warning."""
    refresh_lead: float | None = None
    """Seconds before expiry at which the refresh starts; None: computed."""
    logout_url: str | None = None
    principal: Principal | None = None
    inject_header: str = "Authorization"
    inject_format: str = "Bearer {token}"
    timeout: float = 10.0
    """Seconds for one token request, connect included."""
    tls: Tls = field(default_factory=Tls)
    """For token and logout requests."""

    @property
    def is_relative(self) -> bool:
        """Whether each origin has tokens of its own, because the token URL is a path."""
        return self.token_url.startswith("/")
