"""What the operator says of a credential, as values: where its tokens come from, and how to read what comes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..secret import Secret
from ..tls import Tls

ClientAuth = Literal["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"]
Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # fmt: skip
"""Of a JWT's signature (RFC 7518 §3.1, RFC 8037)."""
ExpiryUnit = Literal["seconds", "milliseconds", "epoch", "epoch_ms", "iso8601", "http_date", "duration"]
FieldPath = tuple[str, ...]
"""A way into a JSON answer: keys, and digits for a place in a list. `()` is the whole body."""
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name


# ── where a token comes from ─────────────────────────────────────────────────────────────────────────────────
# Any text of params, headers, body, subject token, assertions and of the token URL's path may hold placeholders: see
# `recipe`.


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """A JWT that is signed here, anew for each attempt (RFC 7519, RFC 7523 §3). What is None is left out."""

    key: Secret
    """PEM of the private key; with an `HS` algorithm the shared secret itself."""
    algorithm: Algorithm = "RS256"
    issuer: Secret | None = None
    subject: Secret | None = None
    audience: Secret | None = None
    is_for_token_url: bool = True
    """Whether the audience is the token URL without its query where none is given."""
    lifetime: float = 60.0
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Further claims, in the form of `TokenEndpoint.params` with `send: json`."""
    key_id: Secret | None = None
    certificate: Secret | None = None
    """PEM; its SHA-256 is named in the header `x5t#S256` (RFC 7515 §4.1.8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who asks for a token, and how it proves who it is (RFC 6749 §2.3, RFC 7523 §2.2)."""

    auth: ClientAuth = "client_secret_basic"
    id: Secret | None = None
    secret: Secret | None = None
    basic_encoding: Literal["form", "raw"] = "form"
    assertion: Assertion | None = None
    """With `client_secret_jwt` and `private_key_jwt`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEndpoint:
    """Tokens are asked for at a token endpoint: `source: oauth2`."""

    token_url: str
    """Absolute, or a path that is resolved against the origin of the route's upstream."""
    grant_type: str = "client_credentials"
    """As sent; `none` sends no such parameter."""
    client: Client = field(default_factory=Client)
    username: Secret | None = None
    password: Secret | None = None
    refresh_token: Secret | None = None
    scope: Secret | None = None
    assertion: Assertion | Secret | None = None
    """Sent with the JWT bearer grant, and what `{assertion}` stands for."""
    subject_token: Secret | None = None
    subject_token_type: str = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
    params: Mapping[str, Any] = field(default_factory=dict)
    """Text as `Secret`; a list repeats the parameter; with `send: json` any structure whose texts are `Secret`s."""
    headers: Mapping[str, Secret] = field(default_factory=dict)
    body: Secret | None = None
    """Sent in place of the parameters."""
    send: Literal["form", "json", "query"] = "form"
    method: Literal["POST", "GET"] = "POST"
    logout_url: str | None = None
    max_sessions: int | None = None
    """How many sessions the identity provider allows the user."""
    tls: Tls = field(default_factory=Tls)
    """For token and logout requests."""

    @property
    def is_relative(self) -> bool:
        """Whether each origin has tokens of its own, because the token URL is a path."""
        return self.token_url.startswith("/")


@dataclass(frozen=True, slots=True)
class GivenToken:
    """The token is there already: `source: static`, or `file`, which is read again as it changes."""

    token: Secret


@dataclass(frozen=True, slots=True)
class OwnJwt:
    """A JWT that is signed here is itself the token: `source: jwt`."""

    assertion: Assertion


@dataclass(frozen=True, slots=True)
class Command:
    """A program prints the token: `source: exec`."""

    argv: tuple[str, ...]
    """The program, by an absolute path or a name to be found on PATH, and its arguments. No shell."""
    folder: str
    """Where it runs."""


Source = TokenEndpoint | GivenToken | OwnJwt | Command


# ── how to read what comes ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class HeaderField:
    """The token stands in a header of the answer; with `cookie`, in the `Set-Cookie` of this name."""

    name: str
    is_cookie: bool = False


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
class ThrottleMark:
    """What marks throttling in an answer that does not say so by its status; what is None is not looked at."""

    status: int | None = None
    contains: str | None = None
    """Text within the body, upper and lower case alike."""
    retry_after: float | None = None
    """Seconds to wait; None: as the answer says, by header or in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How to read an answer."""

    token: FieldPath | HeaderField = ("access_token",)
    expires: ExpiryField | None = None
    """None: found automatically."""
    ttl: float | None = None
    """Seconds that a token lives where its answer does not say; None: five minutes, with a warning."""
    refusal: RefusalMark | None = None
    throttled: ThrottleMark | None = None
    takes_any_type: bool = False
    """Whether tokens of the types `DPoP` and `mac` are taken: the operator wrote how they are injected."""


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Principal:
    """Which request header names the user on whose behalf a token is requested, and how many tokens are held."""

    header: str
    max: int = 1000


@dataclass(frozen=True, slots=True)
class Quota:
    """How many token requests the identity provider allows in any span of so many seconds."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """How tokens are obtained and where they go. All fields are checked."""

    name: str
    source: Source
    reading: Reading = field(default_factory=Reading)
    chained: tuple[str, ...] = ()
    """The credentials whose tokens stand for `{token:NAME}` placeholders; no circles."""
    refresh_lead: float | None = None
    """Seconds before expiry at which the refresh starts; None: computed."""
    quota: Quota | None = None
    principal: Principal | None = None
    inject_header: str = "Authorization"
    inject_format: str = "Bearer {token}"
    timeout: float = 10.0
    """Seconds for one token request, connect included, or for one run of a command."""

    @property
    def is_relative(self) -> bool:
        """Whether each origin has tokens of its own."""
        return isinstance(self.source, TokenEndpoint) and self.source.is_relative
