"""What the fields of a credential must agree on: its source, its grant, and how its client says who it is."""

from collections.abc import Iterator

from ..secret import Secret
from ..tokens.credential import JWT_BEARER, TOKEN_EXCHANGE, Client, Source, TokenEndpoint
from .diagnostics import Path, Report
from .model import AssertionSection, CredentialSection, TokenPlaceSection
from .placeholders import FIELDS, NEEDS, standing_in

Disagreement = tuple[Path, str, tuple[str, ...]]
"""Where, what is wrong, and the fields that are concerned."""

_MUST = {"oauth2": "token_url", "file": "path", "static": "token", "exec": "command", "jwt": "assertion"}
"""What a source cannot be without."""

_ANY = ("oauth2", "file", "static", "exec", "jwt")
_SOURCES = {
    "source": _ANY,
    "inject": _ANY,
    "refresh": _ANY,
    "response": ("oauth2", "file", "static", "exec"),
    "ttl": ("oauth2", "file", "static", "exec"),
    "timeout": ("oauth2", "exec"),
    "assertion": ("oauth2", "jwt"),
    "principal": ("oauth2", "jwt"),
    "path": ("file",),
    "token": ("static",),
    "command": ("exec",),
}
"""Where each field may stand; all others are for a token endpoint."""

_PROOFS = {
    "client_secret_basic": ("client_id", "client_secret"),
    "client_secret_post": ("client_id", "client_secret"),
    "client_secret_jwt": ("client_id", "client_secret"),
    "private_key_jwt": ("client_id", "client_key"),
    "none": (),
}
"""What a way of client authentication cannot be without."""

_OF_PRIVATE_KEYS = {"client_key", "client_key_id", "client_certificate"}
_OF_CLIENT_ASSERTIONS = {"assertion_algorithm", "assertion_audience", "assertion_lifetime"}
_GRANTS = {
    "username": "password",
    "password": "password",
    "refresh_token": "refresh_token",
    "assertion": JWT_BEARER,
    "subject_token": TOKEN_EXCHANGE,
}
"""The one grant that takes, and needs, a field."""


def check_agreement(section: CredentialSection, source: Source, path: Path, report: Report) -> None:
    """Report what does not fit together. What merely follows from a field that is at fault is not told."""
    for field, text, concerned in _disagreements(section, source):
        unless = [(*path, other) for other in ("preset", "source", *concerned)]
        report.add((*path, *field), text, at="key", unless=unless)


def _disagreements(section: CredentialSection, source: Source) -> Iterator[Disagreement]:
    yield from _source(section)
    if isinstance(source, TokenEndpoint):
        standing = standing_in(source)
        yield from _client_auth(section, source.client, standing)
        yield from _grant(section, source.grant_type, standing)
        yield from _body(section, source.client)
        yield from _parameters(section, source)


def _source(section: CredentialSection) -> Iterator[Disagreement]:
    kind = section.source
    must = _MUST[kind]
    if getattr(section, must) is None:
        yield (), f"{must} is missing" + ("" if kind == "oauth2" else f"; source: {kind} needs it"), (must,)
    if kind == "jwt" and isinstance(section.assertion, Secret):
        yield ("assertion",), "is signed here: write {key: ...}; a token that is there already is source: static", ()
    for field in sorted(section.model_fields_set):
        kinds = _SOURCES.get(field, ("oauth2",))
        if kind not in kinds:
            instead = "remove it" if "source" in section.model_fields_set else "write that as well, or remove it"
            yield (field,), f"is only for source: {' or '.join(kinds)}; {instead}", ()
    if kind != "oauth2":
        for field in sorted(section.response.model_fields_set & {"refusal", "throttled"}):
            yield ("response", field), "is only for source: oauth2; remove it", ()
        if isinstance(section.response.token, TokenPlaceSection):
            yield ("response", "token"), "there is no header and no cookie to read; write a dotted path", ()
    if isinstance(section.assertion, AssertionSection):
        for name in sorted(section.assertion.claims.keys() & {"exp", "iat", "jti"}):
            yield ("assertion", "claims", name), "is new in each JWT; remove it (lifetime says how long one lives)", ()


def _client_auth(section: CredentialSection, client: Client, standing: frozenset[str]) -> Iterator[Disagreement]:
    auth = client.auth
    for field in _PROOFS[auth]:
        if getattr(section, field) is None:
            yield (), f"{field} is missing; {auth} needs it (client_auth: none does not)", (field, "client_auth")
    is_sent = "client_secret" in _PROOFS[auth] or standing & {"client_secret", "client_basic"}
    if section.client_secret and not is_sent:
        text = f"client_auth: {auth} sends no secret; remove it, or choose another client_auth"
        yield ("client_secret",), text, ("client_auth", *FIELDS)
    if auth != "private_key_jwt":
        for field in sorted(section.model_fields_set & _OF_PRIVATE_KEYS):
            yield (field,), "is only for client_auth: private_key_jwt; remove it", ("client_auth",)
    if not auth.endswith("_jwt"):
        for field in sorted(section.model_fields_set & _OF_CLIENT_ASSERTIONS):
            text = "is only for client_auth: private_key_jwt or client_secret_jwt; remove it"
            hint = " (what assertion needs stands under it)" if section.assertion else ""
            yield (field,), text + hint, ("client_auth",)


def _grant(section: CredentialSection, grant: str, standing: frozenset[str]) -> Iterator[Disagreement]:
    for field, its_grant in _GRANTS.items():
        is_set = getattr(section, field) is not None
        if grant == its_grant and not is_set:
            yield (), f"{field} is missing; grant_type: {grant} needs it", (field, "grant_type")
        if grant != its_grant and is_set and field not in standing:
            text = f"is only for grant_type: {its_grant}; remove it"
            if field in NEEDS:
                yield (field,), f"{text}, or write {{{field}}} where it belongs", ("grant_type", *FIELDS)
            else:
                yield (field,), text, ("grant_type",)
    if grant != TOKEN_EXCHANGE and section.subject_token_type is not None:
        yield ("subject_token_type",), f"is only for grant_type: {TOKEN_EXCHANGE}; remove it", ("grant_type",)
    if section.max_sessions is not None and grant not in {"password", "refresh_token"}:
        text = "is only for grant_type: password or refresh_token, whose sessions can be logged out; remove it"
        yield ("max_sessions",), text, ("grant_type",)


def _body(section: CredentialSection, client: Client) -> Iterator[Disagreement]:
    if section.body is None:
        if section.method == "GET" and section.send != "query":
            yield ("method",), "GET has no body; write send: query as well", ("send",)
        return
    if section.method == "GET":
        yield ("method",), "GET has no body; remove one of method and body", ("body",)
    for field in sorted(section.model_fields_set & {"grant_type", "params", "scope", "send"}):
        yield (field,), "is not sent: body stands in place of all parameters; remove it, or body", ("body",)
    if client.auth not in {"client_secret_basic", "none"}:
        text = (
            f"{client.auth} is sent as parameters, and body stands in place of them; choose client_secret_basic or none"
        )
        yield ("client_auth",), text, ("body",)


def _parameters(section: CredentialSection, endpoint: TokenEndpoint) -> Iterator[Disagreement]:
    for name in sorted(section.params.keys() & _set_elsewhere(endpoint)):
        text = "the credential sends this parameter itself; remove it here"
        yield ("params", name), text, ("grant_type", "client_auth")


def _set_elsewhere(endpoint: TokenEndpoint) -> set[str]:
    """The parameters that other fields set."""
    client, grant = endpoint.client, endpoint.grant_type
    taken = set() if grant == "none" else {"grant_type"}
    if endpoint.scope is not None:
        taken.add("scope")
    if grant == "password":
        taken |= {"username", "password", "refresh_token"}
    elif grant == "refresh_token":
        taken.add("refresh_token")
    elif grant == JWT_BEARER:
        taken.add("assertion")
    elif grant == TOKEN_EXCHANGE:
        taken |= {"subject_token", "subject_token_type"}
    if client.id is not None and client.auth in {"client_secret_post", "none"}:
        taken.add("client_id")
    if client.auth.endswith("_jwt"):
        taken |= {"client_assertion", "client_assertion_type"}
    if client.secret is not None and client.auth.startswith("client_secret"):
        taken.add("client_secret")
    return taken
