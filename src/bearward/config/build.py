"""The model of a config → `Settings`, with every check that looks at more than one field."""

from collections.abc import Mapping
from pathlib import Path as FilePath

from ..address import Address
from ..proxy.limits import Limits
from ..tokens.credential import Credential
from .clear_text import check_token_urls, check_upstreams
from .credentials import basic_encoding_matters, build_credential, looks_like_reference
from .diagnostics import Problem, Report
from .headers import comes_unasked, framing_names
from .model import Config
from .routes import build_route, check_routes, expand_routes
from .settings import LogSettings, Settings
from .tls import check_tls
from .urls import is_here

_LISTEN = Address("127.0.0.1", 8080)
_ADMIN = Address("127.0.0.1", 9465)


def build_settings(config: Config, named: frozenset[str], report: Report, folder: FilePath) -> Settings:
    """The settings, of use only where nothing was added to the report. `named`: see `check_routes`."""
    listen, admin = config.listen or _LISTEN, config.admin or _ADMIN
    _check_addresses(config, listen, admin, report)
    _check_required_header(config, report)
    credentials = {
        name: build_credential(name, section, report, folder) for name, section in config.credentials.items()
    }
    expanded = expand_routes(config, report)
    if not config.routes:
        report.add(("routes",), "at least one route is needed", at="key", unless=[("routes",)])
    check_routes(expanded, credentials, named, (listen, admin), report)
    check_upstreams(expanded, report)
    check_tls(config.credentials, expanded, report)
    check_token_urls(config.credentials, expanded, report)
    return Settings(
        listen=listen,
        admin=admin,
        credentials=credentials,
        routes=tuple(build_route(one, one.upstream) for one in expanded if one.upstream),
        allowed_hosts=tuple(_host(host, port, listen) for host, port in config.allowed_hosts),
        allowed_origins=tuple(config.allowed_origins),
        require_header=config.require_header,
        limits=Limits(**config.limits.written()),
        egress_proxy=config.egress_proxy,
        log=LogSettings(**config.log.written()),
    )


def find_warnings(config: Config, credentials: Mapping[str, Credential]) -> list[Problem]:
    """What is no fault but should be known."""
    used = {route.credential for route in config.routes.values()}
    unused = [
        Problem(("credentials", name), "no route uses this credential", "key")
        for name in credentials
        if name not in used
    ]
    differing = [
        Problem(
            ("credentials", name),
            "the client id or secret has characters on which the two forms of Basic authentication differ; "
            "say basic_encoding: form or raw",
            "key",
        )
        for name, credential in credentials.items()
        if basic_encoding_matters(config.credentials[name], credential)
    ]
    as_written = [
        Problem(("credentials", name, field), "is sent as it stands here; a variable is written {env: NAME}")
        for name, section in config.credentials.items()
        for field in ("client_id", "client_secret", "username", "password", "refresh_token")
        if looks_like_reference(getattr(section, field))
    ]
    stars = [
        Problem(("routes", prefix), "* is a letter like others; a prefix fits all paths below it", "key")
        for prefix in config.routes
        if "*" in prefix
    ]
    unasked = [
        Problem(("require_header",), "browsers send this header by themselves; a name of your own keeps web pages out")
        for name in [config.require_header]
        if name and comes_unasked(name)
    ]
    return unused + differing + as_written + stars + unasked


def _check_addresses(config: Config, listen: Address, admin: Address, report: Report) -> None:
    if not listen.is_loopback and not config.allow_remote:
        text = "is not a loopback address: others could use the tokens; write 127.0.0.1, or allow_remote: true as well"
        report.add(("listen",), text, unless=[("allow_remote",)])
    is_same = listen.path == admin.path if listen.path else is_here(listen.host, listen.port, admin)
    if is_same:
        field = "admin" if config.admin else "listen"
        report.add((field,), "listen and admin must not be the same address", unless=[("listen",), ("admin",)])

    proxy = config.egress_proxy
    if proxy and any(is_here(proxy.host, proxy.port, address) for address in (listen, admin)):
        report.add(("egress_proxy",), "this is bearward's own address; write that of the proxy that leads out")


def _check_required_header(config: Config, report: Report) -> None:
    if config.require_header and config.require_header.lower() in framing_names():
        report.add(("require_header",), "this header belongs to the connection; choose another")


def _host(host: str, port: int | None, listen: Address) -> str:
    """With the listener's port where none is written; a unix socket has none."""
    port = listen.port if port is None and listen.path is None else port
    return host if port is None else f"{host}:{port}"
