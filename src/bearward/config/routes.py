"""The sections of `routes` → `Route`s, expanded over the data centers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..address import Address
from ..proxy.routes import Route, Upstream
from ..tls import Tls
from ..tokens.credential import Credential
from .diagnostics import Path, Report, WrongError, did_you_mean
from .headers import check_names, framing_names, is_forwarding_name
from .model import Config, RouteSection
from .urls import check_prefix, is_here, read_upstream

_DATA_CENTER = "{data_center}"
_SAME_IN_BOTH = {
    "credential",
    "on_401",
    "connect_timeout",
    "response_timeout",
    "idle_timeout",
    "allow_encoded_slash",
    "max_body",
}


@dataclass(frozen=True, slots=True)
class ExpandedRoute:
    """A route as it is for one data center, and where in the file it comes from."""

    path: Path
    section: RouteSection
    prefix: str
    upstream: Upstream | None
    """None where it is at fault."""
    data_center: str


def expand_routes(config: Config, report: Report) -> list[ExpandedRoute]:
    """All routes; no two have the same prefix."""
    expanded = [one for prefix, section in config.routes.items() for one in _expand(prefix, section, config, report)]
    first: dict[str, ExpandedRoute] = {}
    for one in expanded:
        other = first.setdefault(one.prefix, one)
        if other is not one:
            text = f"this is the route {one.prefix}, as is routes.{other.path[1]}; remove one of them"
            report.add(one.path, text, at="key")
    return expanded


def check_routes(
    expanded: Iterable[ExpandedRoute],
    credentials: Mapping[str, Credential],
    named: frozenset[str],
    addresses: tuple[Address, ...],
    report: Report,
) -> None:
    """What routes share with the rest of the file. `named` are its credentials, the faulty ones included."""
    for path, section in {one.path: one.section for one in expanded}.items():
        _check_credential(path, section, named, credentials, report)
        _check_headers((*path, "request_headers"), section, credentials.get(section.credential or ""), report)
    for one in expanded:
        target = one.upstream
        if target and any(is_here(target.host, target.port, address) for address in addresses):
            report.add((*one.path, "upstream"), "this is bearward's own address; requests would go in a circle")


def build_route(expanded: ExpandedRoute, upstream: Upstream) -> Route:
    """The route with its defaults."""
    section, headers = expanded.section, expanded.section.request_headers
    written = {field: value for field, value in section.written().items() if field in _SAME_IN_BOTH}
    return Route(
        **{"credential": "", **written},
        prefix=expanded.prefix,
        upstream=upstream,
        set_headers=tuple(headers.set.items()),
        remove_headers=tuple(headers.remove),
        tls=Tls(**section.tls.written()),
    )


def _expand(prefix: str, section: RouteSection, config: Config, report: Report) -> list[ExpandedRoute]:
    path: Path = ("routes", prefix)
    bases: Mapping[str, Upstream | None] = {"": None}
    if _DATA_CENTER in prefix:
        bases = config.data_centers
        if not bases:
            text = "{data_center} stands here, but the file has no data_centers"
            report.add(path, text, at="key", unless=[("data_centers",)])
    return [
        ExpandedRoute(
            path,
            section,
            _prefix(prefix.replace(_DATA_CENTER, name), path, report),
            _upstream(section, base, path, report),
            name,
        )
        for name, base in bases.items()
    ]


def _prefix(prefix: str, path: Path, report: Report) -> str:
    try:
        check_prefix(prefix)
    except WrongError as error:
        report.add(path, str(error), at="key")
    return prefix


def _upstream(section: RouteSection, base: Upstream | None, path: Path, report: Report) -> Upstream | None:
    written = (*path, "upstream")
    if section.upstream is None:
        report.add(path, "upstream is missing", at="key", unless=[written])
        return None
    try:
        return read_upstream(_at_data_center(section.upstream, base))
    except WrongError as error:
        report.add(written, str(error))
        return None


def _at_data_center(upstream: str, base: Upstream | None) -> str:
    """`upstream` with the URL of the data center in place of `{data_center}`."""
    before, placeholder, rest = upstream.partition(_DATA_CENTER)
    if not placeholder:
        return upstream
    if base is None:
        raise WrongError("{data_center} stands here, but not in the route's prefix")
    if before or _DATA_CENTER in rest or rest[:1] not in ("", "/"):
        raise WrongError("{data_center} stands for a whole URL: only at the start, with nothing or a / after it")
    return (str(base).removesuffix("/") if rest else str(base)) + rest


def _check_credential(
    path: Path, section: RouteSection, named: frozenset[str], usable: Iterable[str], report: Report
) -> None:
    name, written = section.credential, (*path, "credential")
    if name is None:
        report.add(path, "credential is missing", at="key", unless=[written])
    elif name not in named:
        text = "there is no credential of this name" + did_you_mean(name, usable)
        report.add(written, text, unless=[] if named else [("credentials",)])


def _check_headers(path: Path, section: RouteSection, credential: Credential | None, report: Report) -> None:
    headers = section.request_headers
    forbidden = framing_names() | {"authorization", *filter(is_forwarding_name, map(str.lower, headers.set))}
    if credential:
        forbidden.add(credential.inject_header.lower())
    check_names(headers.set, forbidden, (*path, "set"), report)
    for index, name in enumerate(headers.remove):
        if name.lower() in framing_names():
            report.add((*path, "remove", index), "bearward sets this header itself; do not remove it")
