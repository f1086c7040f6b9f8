"""The model of a config → `Settings`, with every check that looks at more than one field."""

from pathlib import Path as FilePath

from ..address import Address
from ..proxy.limits import Limits
from .clear_text import check_token_urls, check_upstreams
from .credentials import build_credential
from .diagnostics import Report
from .headers import framing_names
from .model import Config
from .placeholders import check_placeholders
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
    given = {name: section.model_fields_set for name, section in config.credentials.items()}
    check_placeholders(credentials, given, named, report)
    expanded = expand_routes(config, report)
    if not config.routes:
        report.add(("routes",), "at least one route is needed", at="key", unless=[("routes",)])
    check_routes(expanded, credentials, named, (listen, admin), report)
    check_upstreams(expanded, report)
    check_tls(config.credentials, expanded, report)
    check_token_urls(config.credentials, credentials, expanded, report)
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
        token_store=config.token_store.path if config.token_store else None,
        log=LogSettings(**config.log.written()),
    )


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
