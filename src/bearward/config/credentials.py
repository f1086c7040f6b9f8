"""One checked section of `credentials` → a `Credential`, and what its fields must agree on."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from ..secret import Secret, SecretUnreadableError
from ..tls import Tls
from ..tokens.credential import Credential, ExpiryField, Principal, RefusalMark
from .diagnostics import Path, Report, WrongError
from .document import Text
from .fields import json_value
from .headers import check_names, framing_names
from .model import CredentialSection
from .references import read_secret, reference
from .urls import check_path, split_url

_SAME_IN_BOTH = frozenset(CredentialSection.model_fields) & frozenset(Credential.__dataclass_fields__)
_BUILT = {"params", "principal", "tls"}
_PRINCIPAL = "{principal}"


def build_credential(name: str, section: CredentialSection, report: Report, folder: FilePath) -> Credential:
    """The credential with its defaults. Of use only where the report is empty."""
    path: Path = ("credentials", name)
    written = {field: getattr(section, field) for field in (section.model_fields_set & _SAME_IN_BOTH) - _BUILT}
    response, principal, inject = section.response, section.principal, section.inject
    optional = {
        "token_path": response.token,
        "expires": response.expires and ExpiryField(response.expires.field, response.expires.as_),
        "refusal": response.refusal and RefusalMark(response.refusal.field, tuple(response.refusal.not_)),
        "principal": principal and Principal(principal.header, principal.max),
        "inject_header": inject.header,
        "inject_format": inject.format,
        "refresh_lead": section.refresh.lead,
    }
    credential = Credential(
        **{"token_url": "", **written, **{field: value for field, value in optional.items() if value is not None}},
        name=name,
        params=_params(section, (*path, "params"), report, folder),
        tls=Tls(**section.tls.written()),
    )
    _check_urls(section, path, report)
    _check_headers(credential, path, report)
    for field, text, concerned in _combinations(credential):
        unless = [(*path, other) for other in ("preset", *concerned)]
        at_field = (*path, *field)
        report.add(at_field if field else path, text, at="key", unless=unless)
    return credential


def basic_encoding_matters(section: CredentialSection, credential: Credential) -> bool:
    """Whether nobody chose how Basic is encoded, and it makes a difference for this id or secret."""
    is_chosen = "basic_encoding" in section.model_fields_set
    if is_chosen or credential.client_auth != "client_secret_basic":
        return False
    plain = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-")
    return not set(_peek(credential.client_id) + _peek(credential.client_secret)) <= plain


def looks_like_reference(secret: Secret | None) -> bool:
    """Whether a literal is most likely meant as the name of something, in another language's way."""
    return re.match(r"\$\{?\w+\}?$|(env|file):", _peek(secret)) is not None


def _combinations(credential: Credential) -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    """What fields must agree on: where, what is wrong, and the fields that are concerned."""
    yield from _client_auth(credential)
    yield from _grant(credential)
    yield from _principal(credential)
    if credential.method == "GET" and credential.send != "query":
        yield ("method",), "GET has no body; write send: query as well", ("send",)
    for name in sorted(credential.params.keys() & _set_elsewhere(credential)):
        yield (
            ("params", name),
            "the credential sends this parameter itself; remove it here",
            ("grant_type", "client_auth"),
        )


def _client_auth(credential: Credential) -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    auth = credential.client_auth
    if auth == "none":
        if credential.client_secret:
            yield (
                ("client_secret",),
                "client_auth: none sends no secret; remove it, or choose another client_auth",
                ("client_auth",),
            )
        return
    for field in ("client_id", "client_secret"):
        if getattr(credential, field) is None:
            yield (), f"{field} is missing; {auth} needs it (client_auth: none does not)", (field, "client_auth")


def _grant(credential: Credential) -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    grant = credential.grant_type
    for field, its_grant in (("username", "password"), ("password", "password"), ("refresh_token", "refresh_token")):
        is_set = getattr(credential, field) is not None
        if grant == its_grant and not is_set:
            yield (), f"{field} is missing; grant_type: {grant} needs it", (field, "grant_type")
        if grant != its_grant and is_set:
            yield (field,), f"is only for grant_type: {its_grant}; remove it, or put it under params", ("grant_type",)


def _principal(credential: Credential) -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    users = list(_where_principal_stands(credential))
    concerned = ("principal", "token_url", "params", "headers")
    if credential.principal is None:
        for path in users:
            yield path, "{principal} stands here, but the credential has no principal: {header: NAME}", concerned
    elif not users:
        yield (
            ("principal",),
            (
                "{principal} stands nowhere in params, headers or token_url: all users would share one token; "
                "use it, or write principal: null"
            ),
            concerned,
        )


def _where_principal_stands(credential: Credential) -> Iterator[Path]:
    if _PRINCIPAL in credential.token_url:
        yield ("token_url",)
    for field, values in (("params", credential.params), ("headers", credential.headers)):
        for name, value in values.items():
            if any(_PRINCIPAL in text for text in _texts(value)):
                yield field, name


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Secret):
        yield _peek(value)
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _peek(secret: Secret | None) -> str:
    """The text as it is now; of a file that has just gone, nothing."""
    try:
        return secret.reveal() if secret else ""
    except SecretUnreadableError:
        return ""


def _set_elsewhere(credential: Credential) -> set[str]:
    """The parameters that other fields set."""
    names = {"scope", "username", "password", "refresh_token", "client_secret"}
    taken = {name for name in names if getattr(credential, name) is not None}
    if credential.grant_type != "none":
        taken.add("grant_type")
    if credential.grant_type == "password":
        taken.add("refresh_token")
    if credential.client_id is not None and credential.client_auth != "client_secret_basic":
        taken.add("client_id")
    return taken


def _check_urls(section: CredentialSection, path: Path, report: Report) -> None:
    if section.token_url is None:
        report.add(path, "token_url is missing", at="key", unless=[(*path, "token_url"), (*path, "preset")])
    for field, url in (("token_url", section.token_url), ("logout_url", section.logout_url)):
        if url is not None:
            try:
                _check_url(url, field == "token_url")
            except WrongError as error:
                report.add((*path, field), str(error), unless=[(*path, "preset")])


def _check_url(url: str, may_name_principal: bool) -> None:
    authority_end = 0 if url.startswith("/") else url.find("/", len("https://"))
    if may_name_principal and authority_end >= 0:
        url = url[:authority_end] + url[authority_end:].replace(_PRINCIPAL, "principal")
    if url.startswith("/"):
        check_path(url)
    else:
        split_url(url)


def _check_headers(credential: Credential, path: Path, report: Report) -> None:
    forbidden = framing_names()
    is_basic = credential.client_auth == "client_secret_basic"
    if is_basic and not report.is_faulty((*path, "client_auth"), (*path, "preset")):
        forbidden |= {"authorization"}
    check_names(credential.headers, forbidden, (*path, "headers"), report)
    for field, header in (
        ("principal", credential.principal and credential.principal.header),
        ("inject", credential.inject_header),
    ):
        if header and header.lower() in framing_names():
            report.add((*path, field, "header"), "this header belongs to the connection; choose another")


def _params(section: CredentialSection, path: Path, report: Report, folder: FilePath) -> dict[str, Any]:
    read = _structure if section.send == "json" else _repeatable
    return {name: read(value, (*path, name), report, folder) for name, value in section.params.items()}


def _structure(value: Any, path: Path, report: Report, folder: FilePath) -> Any:
    """Any JSON structure; its texts are secrets, its unquoted numbers and truth values are what they say."""
    if isinstance(value, dict) and not reference(value):
        return {name: _structure(inner, (*path, name), report, folder) for name, inner in value.items()}
    if isinstance(value, list):
        return [_structure(inner, (*path, index), report, folder) for index, inner in enumerate(value)]
    return None if value is None else _leaf(value, path, report, folder)


def _repeatable(value: Any, path: Path, report: Report, folder: FilePath) -> Any:
    """A text, or a list of texts: the parameter repeats."""
    if isinstance(value, list):
        return [_leaf(inner, (*path, index), report, folder, is_text=True) for index, inner in enumerate(value)]
    return _leaf(value, path, report, folder, is_text=True)


def _leaf(value: Any, path: Path, report: Report, folder: FilePath, *, is_text: bool = False) -> Any:
    try:
        if isinstance(value, Text):
            literal = value if is_text else json_value(value)
            return Secret(str(literal)) if isinstance(literal, str) else literal
        return read_secret(value, folder)
    except WrongError as error:
        report.add((*path, *error.below), str(error))
        return Secret("")
