"""The sections of a config file and their fields. What two fields must agree on is checked where they are used."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from ..secret import Secret
from ..tokens.credential import Algorithm, ClientAuth, ExpiryUnit, FieldPath
from . import fields
from .fields import SHOWN, TextOr, one_of

SourceKind = Literal["oauth2", "file", "static", "exec", "jwt"]
BasicEncoding = Literal["form", "raw"]
Send = Literal["form", "json", "query"]
Method = Literal["POST", "GET"]
On401 = Literal["replay", "pass"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "text", "json"]
AccessLog = Literal["off", "errors", "all"]


class Section(BaseModel):
    """A mapping of known fields. One written as null counts as not written; `not_` is written `not`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        alias_generator=lambda name: name.rstrip("_"),
    )

    @classmethod
    def names(cls) -> list[str]:
        """The fields as they are written in the file."""
        return [name.rstrip("_") for name in cls.model_fields]

    def written(self) -> dict[str, Any]:
        """The fields that stand in the file."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: inner for key, inner in value.items() if inner is not None or key not in cls.names()}


class PresetSection(Section):
    """A preset with its parameters. Presets are applied before the model reads a credential."""

    model_config = ConfigDict(extra="allow")
    name: fields.Line


class ExpiresSection(Section):
    field: fields.AnswerPath
    as_: Annotated[ExpiryUnit, one_of(ExpiryUnit), SHOWN]


class RefusalSection(Section):
    field: fields.AnswerPath
    not_: list[fields.JsonScalar]


class ThrottledSection(Section):
    status: fields.Status | None = None
    contains: fields.Line | None = None
    retry_after: fields.Duration | None = None


class TokenPlaceSection(Section):
    """A token that does not stand in the body of an answer."""

    header: fields.HeaderNameText | None = None
    cookie: fields.CookieName | None = None


class ResponseSection(Section):
    token: Annotated[FieldPath | TokenPlaceSection | None, TextOr(TokenPlaceSection, fields.answer_path), SHOWN] = None
    expires: ExpiresSection | None = None
    refusal: RefusalSection | None = None
    throttled: ThrottledSection | None = None


class RefreshSection(Section):
    lead: fields.Duration | None = None


class PrincipalSection(Section):
    header: fields.HeaderNameText
    max: fields.Count = 1000


class InjectSection(Section):
    header: fields.HeaderNameText | None = None
    format: fields.Format | None = None


class TlsSection(Section):
    ca_file: Annotated[fields.PemFile, SHOWN] | None = None
    cert_file: Annotated[fields.PemFile, SHOWN] | None = None
    key_file: fields.PemFile | None = None
    server_name: fields.ServerName | None = None


class AssertionSection(Section):
    """A JWT that is signed here."""

    issuer: fields.ShownSecret | None = None
    subject: fields.ShownSecret | None = None
    audience: fields.ShownSecret | None = None
    lifetime: fields.JwtLifetime | None = None
    claims: dict[str, Any] = {}
    key: fields.SecretText
    key_id: fields.ShownSecret | None = None
    algorithm: Annotated[Algorithm, one_of(Algorithm), SHOWN] | None = None
    certificate: fields.SecretText | None = None


class CredentialSection(Section):
    preset: Annotated[str | PresetSection | None, SHOWN] = None
    source: Annotated[SourceKind, one_of(SourceKind), SHOWN] = "oauth2"
    path: fields.TokenFile | None = None
    token: fields.SecretText | None = None
    command: list[fields.Argument] | None = None
    token_url: fields.Line | None = None
    grant_type: fields.Line | None = None
    client_auth: Annotated[ClientAuth, one_of(ClientAuth), SHOWN] | None = None
    client_id: fields.ShownSecret | None = None
    client_secret: fields.SecretText | None = None
    basic_encoding: Annotated[BasicEncoding, one_of(BasicEncoding), SHOWN] | None = None
    username: fields.SecretText | None = None
    password: fields.SecretText | None = None
    refresh_token: fields.SecretText | None = None
    scope: fields.Scope | None = None
    client_key: fields.SecretText | None = None
    client_key_id: fields.ShownSecret | None = None
    client_certificate: fields.SecretText | None = None
    assertion_algorithm: Annotated[Algorithm, one_of(Algorithm), SHOWN] | None = None
    assertion_audience: fields.ShownSecret | None = None
    assertion_lifetime: fields.JwtLifetime | None = None
    assertion: Annotated[AssertionSection | Secret | None, TextOr(AssertionSection, fields.secret)] = None
    subject_token: fields.SecretText | None = None
    subject_token_type: fields.Line | None = None
    params: dict[str, Any] = {}
    headers: dict[fields.HeaderName, fields.HeaderValue] = {}
    body: fields.SecretText | None = None
    send: Annotated[Send, one_of(Send), SHOWN] | None = None
    method: Annotated[Method, one_of(Method), SHOWN] | None = None
    response: ResponseSection = ResponseSection()
    ttl: fields.Duration | None = None
    refresh: RefreshSection = RefreshSection()
    logout_url: fields.Line | None = None
    max_sessions: fields.Count | None = None
    max_token_requests: fields.RequestQuota | None = None
    principal: PrincipalSection | None = None
    inject: InjectSection = InjectSection()
    timeout: fields.Duration | None = None
    tls: TlsSection = TlsSection()
    allow_http: fields.Flag = False


class RequestHeadersSection(Section):
    set: dict[fields.HeaderName, fields.HeaderValue] = {}
    remove: list[fields.HeaderNameText] = []


class RouteSection(Section):
    upstream: fields.Line | None = None
    credential: fields.Line | None = None
    on_401: Annotated[On401, one_of(On401), SHOWN] | None = None
    request_headers: RequestHeadersSection = RequestHeadersSection()
    connect_timeout: fields.Duration | None = None
    response_timeout: fields.Duration | None = None
    idle_timeout: fields.Duration | None = None
    tls: TlsSection = TlsSection()
    allow_encoded_slash: fields.Flag = False
    allow_http: fields.Flag = False
    max_body: fields.BodySize | None = None


class TokenStoreSection(Section):
    path: fields.StoreFile


class LimitsSection(Section):
    connections: fields.Count | None = None
    upstream_connections: fields.Count | None = None
    header_timeout: fields.Duration | None = None
    header_bytes: fields.HeadSize | None = None
    drain_timeout: fields.Duration | None = None


class LogSection(Section):
    level: Annotated[LogLevel, one_of(LogLevel), SHOWN] = "info"
    format: Annotated[LogFormat, one_of(LogFormat), SHOWN] = "auto"
    access: Annotated[AccessLog, one_of(AccessLog), SHOWN] = "off"


class Config(Section):
    """The whole file."""

    listen: fields.ListeningAddress | None = None
    admin: fields.ListeningAddress | None = None
    data_centers: dict[fields.Name, fields.BaseUrl] = {}
    credentials: dict[fields.Name, CredentialSection] = {}
    routes: dict[str, RouteSection] = {}
    allowed_hosts: list[fields.HostAndPort] = []
    allowed_origins: list[fields.Origin] = []
    require_header: fields.HeaderNameText | None = None
    allow_remote: fields.Flag = False
    limits: LimitsSection = LimitsSection()
    token_store: Annotated[TokenStoreSection | None, TextOr(TokenStoreSection, fields.in_memory), SHOWN] = None
    egress_proxy: fields.Egress | None = None
    log: LogSection = LogSection()
