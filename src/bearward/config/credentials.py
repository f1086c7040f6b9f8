"""One checked section of `credentials` → a `Credential`."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from ..secret import Secret
from ..tls import Tls
from ..tokens.credential import (
    JWT_BEARER,
    Assertion,
    Client,
    Command,
    Credential,
    ExpiryField,
    FieldPath,
    GivenToken,
    HeaderField,
    OwnJwt,
    Principal,
    Reading,
    RefusalMark,
    Source,
    ThrottleMark,
    TokenEndpoint,
)
from ..tokens.failure import Reason, TokenRequestError
from ..tokens.printed import read_printed
from ..tokens.recipe import PLACEHOLDERS
from .agreement import check_agreement
from .diagnostics import Path, Report, WrongError
from .headers import check_names, framing_names
from .keys import check_key
from .model import AssertionSection, CredentialSection, Section, TokenPlaceSection
from .placeholders import chained_names, peek
from .structures import read_repeatable, read_structures
from .urls import check_path, check_query, split_url

_MISSING = Secret("")
"""Stands for what is missing; that is reported by `check_agreement`."""


def build_credential(name: str, section: CredentialSection, report: Report, folder: FilePath) -> Credential:
    """The credential with its defaults. Of use only where the report is empty."""
    path: Path = ("credentials", name)
    source = _source(section, path, report, folder)
    check_agreement(section, source, path, report)
    _check_headers(section, path, report)
    reading = _reading(section, (*path, "response"), report)
    _check_given(section, reading, path, report)
    inject = section.inject
    optional = {
        "refresh_lead": section.refresh.lead,
        "quota": section.max_token_requests,
        "principal": section.principal and Principal(section.principal.header, section.principal.max),
        "inject_header": inject.header,
        "inject_format": inject.format,
        "timeout": section.timeout,
    }
    return Credential(
        **_without_nulls(optional),
        name=name,
        source=source,
        reading=reading,
        chained=chained_names(source),
    )


def _source(section: CredentialSection, path: Path, report: Report, folder: FilePath) -> Source:
    """Where its tokens come from."""
    match section.source:
        case "file":
            return GivenToken(Secret.from_file(section.path) if section.path else _MISSING)
        case "static":
            return GivenToken(section.token or _MISSING)
        case "exec":
            argv = _argv(section.command, (*path, "command"), report, folder) if section.command is not None else ()
            return Command(argv, str(folder))
        case "jwt":
            assertion = _assertion(section, path, report, folder)
            return OwnJwt(assertion if isinstance(assertion, Assertion) else Assertion(key=_MISSING))
    return _token_endpoint(section, path, report, folder)


def _token_endpoint(section: CredentialSection, path: Path, report: Report, folder: FilePath) -> TokenEndpoint:
    _check_urls(section, path, report)
    read = read_structures if section.send == "json" else read_repeatable
    built = {
        "client": _client(section, path, report),
        "assertion": _assertion(section, path, report, folder),
        "params": read(section.params, (*path, "params"), report, folder),
        "tls": Tls(**section.tls.written()),
    }
    return TokenEndpoint(**{"token_url": ""} | _same(section, TokenEndpoint) | built)


def _same(section: Section, kind: type[TokenEndpoint | Assertion]) -> dict[str, Any]:
    """The fields that are written, and named in the config as in the value."""
    return {name: value for name, value in section.written().items() if name in kind.__dataclass_fields__}


def _client(section: CredentialSection, path: Path, report: Report) -> Client:
    written = {
        "auth": section.client_auth,
        "id": section.client_id,
        "secret": section.client_secret,
        "basic_encoding": section.basic_encoding,
    }
    assertion = _client_assertion(section, path, report)
    return Client(**_without_nulls(written), assertion=assertion)


def _client_assertion(section: CredentialSection, path: Path, report: Report) -> Assertion | None:
    """The JWT by which the client says who it is (RFC 7523 §2.2); its key is the secret, or a private one."""
    if section.client_auth == "private_key_jwt":
        key, at_key, default = section.client_key, "client_key", "RS256"
    elif section.client_auth == "client_secret_jwt":
        key, at_key, default = section.client_secret, "client_secret", "HS256"
    else:
        return None
    algorithm = section.assertion_algorithm or default
    if algorithm.startswith("HS") != default.startswith("HS"):
        text = f"{section.client_auth} signs with " + (
            "RS, PS, ES or EdDSA" if default == "RS256" else "HS256 to HS512"
        )
        report.add((*path, "assertion_algorithm"), text, unless=[(*path, "client_auth"), (*path, "preset")])
    written = {
        "algorithm": algorithm,
        "issuer": section.client_id,
        "subject": section.client_id,
        "audience": section.assertion_audience,
        "lifetime": section.assertion_lifetime,
        "key_id": section.client_key_id,
        "certificate": section.client_certificate,
    }
    assertion = Assertion(key=key or _MISSING, **_without_nulls(written))
    names = {"algorithm": "assertion_algorithm", "key": at_key, "certificate": "client_certificate"}
    check_key(assertion, {part: (*path, name) for part, name in names.items()}, report)
    return assertion


def _assertion(section: CredentialSection, path: Path, report: Report, folder: FilePath) -> Assertion | Secret | None:
    written = section.assertion
    if not isinstance(written, AssertionSection):
        return written
    path = (*path, "assertion")
    claims = read_structures(written.claims, (*path, "claims"), report, folder)
    fields = _same(written, Assertion) | {"claims": claims, "is_for_token_url": section.grant_type == JWT_BEARER}
    assertion = Assertion(**fields)
    check_key(assertion, {part: (*path, part) for part in ("algorithm", "key", "certificate")}, report)
    return assertion


def _argv(command: list[str], path: Path, report: Report, folder: FilePath) -> tuple[str, ...]:
    """The command with its program as it will be started: by an absolute path, or a name on PATH."""
    if not command or not command[0]:
        report.add(path, "must be a list of a program and its arguments: [PROGRAM, ARG]", at="key", unless=[path])
        return ()
    program = str(folder / command[0]) if "/" in command[0] else command[0]
    if shutil.which(program) is None:
        text = "there is no such program" + ("" if "/" in program else " on PATH")
        text += "; each argument is an item of its own, and there is no shell"
        is_there = shutil.which(program, os.F_OK) is not None
        report.add((*path, 0), "is not executable; chmod +x" if is_there else text)
    return (program, *command[1:])


def _reading(section: CredentialSection, path: Path, report: Report) -> Reading:
    response = section.response
    expires, refusal, throttled = response.expires, response.refusal, response.throttled
    built = {
        "token": _token_place(response.token, (*path, "token"), report),
        "expires": expires and ExpiryField(expires.field, expires.as_),
        "refusal": refusal and RefusalMark(refusal.field, tuple(refusal.not_)),
        "throttled": throttled and ThrottleMark(**throttled.written()),
        "ttl": section.ttl,
    }
    if throttled and throttled.status is None and throttled.contains is None:
        at = (*path, "throttled")
        text = "needs status, contains or both: what marks throttling"
        report.add(at, text, at="key", unless=[(*at, "status"), (*at, "contains")])
    if response.token is None and section.source in ("file", "static", "jwt"):
        built["token"] = ()  # what is read is the token itself
    return Reading(**_without_nulls(built), takes_any_type=section.inject.format is not None)


def _check_given(section: CredentialSection, reading: Reading, path: Path, report: Report) -> None:
    """Report a token that is there already and that could never be sent."""
    text = peek(section.token)
    if section.source != "static" or not text:
        return
    if text.lstrip().lower().startswith("bearer "):
        report.add((*path, "token"), "write the token alone; inject.format adds Bearer")
        return
    try:
        read_printed(text.encode(), reading, asked_at=0, wall=0, default=(60, ""))
    except TokenRequestError as error:
        if error.reason is Reason.NO_TOKEN:
            unsent = "is no token that can be sent: visible ASCII without spaces, of at most 16 KiB"
            report.add((*path, "token"), unsent, unless=[(*path, "response")])


def _token_place(
    place: FieldPath | TokenPlaceSection | None, path: Path, report: Report
) -> FieldPath | HeaderField | None:
    if not isinstance(place, TokenPlaceSection):
        return place
    if (place.header is None) == (place.cookie is None):
        report.add(path, "must be a dotted path, {header: NAME} or {cookie: NAME}", at="key", unless=[path])
    return HeaderField(place.header or place.cookie or "", is_cookie=place.cookie is not None)


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_urls(section: CredentialSection, path: Path, report: Report) -> None:
    for field, url in (("token_url", section.token_url), ("logout_url", section.logout_url)):
        if url is not None:
            try:
                _check_url(url, field == "token_url")
            except WrongError as error:
                report.add((*path, field), str(error), unless=[(*path, "preset")])


def _check_url(url: str, is_token_url: bool) -> None:
    if is_token_url:
        url, mark, query = url.partition("?")
        path_start = 0 if url.startswith("/") else url.find("/", len("https://"))
        if path_start >= 0:
            url = url[:path_start] + PLACEHOLDERS.sub("x", url[path_start:])
        elif mark:
            raise WrongError("a URL with a query needs a path before it: https://HOST/?QUERY")
        check_query(query)
    if url.startswith("/"):
        check_path(url)
    else:
        split_url(url)


def _check_headers(section: CredentialSection, path: Path, report: Report) -> None:
    forbidden = framing_names()
    is_basic = (section.client_auth or Client().auth) == "client_secret_basic"
    if is_basic and not report.is_faulty((*path, "client_auth"), (*path, "preset")):
        forbidden |= {"authorization"}
    check_names(section.headers, forbidden, (*path, "headers"), report)
    for field, header in (
        ("principal", section.principal and section.principal.header),
        ("inject", section.inject.header),
    ):
        if header and header.lower() in framing_names():
            report.add((*path, field, "header"), "this header belongs to the connection; choose another")
