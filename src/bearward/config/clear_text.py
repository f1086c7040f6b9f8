"""`http://` only to this machine, or where the route or credential says `allow_http: true`."""

from collections.abc import Iterable, Mapping

from ..address import is_loopback
from ..tokens.credential import Credential, TokenEndpoint
from .diagnostics import Path, Report, WrongError
from .model import CredentialSection
from .routes import ExpandedRoute
from .urls import split_url

_TOKENS = "http:// sends the token in the clear{}; write https://, or allow_http: true on this route"
_SECRETS = "http:// sends secrets in the clear; write https://, or allow_http: true on this credential"
_RELATIVE = "at an http:// upstream this path sends secrets in the clear; write allow_http: true on this credential"


def check_upstreams(expanded: Iterable[ExpandedRoute], report: Report) -> None:
    """The upstreams of routes; the URL of a data center is judged where it is used."""
    for one in expanded:
        if not one.section.allow_http and _is_clear(one):
            where = f" (data center {one.data_center})" if one.data_center else ""
            report.add((*one.path, "upstream"), _TOKENS.format(where), unless=[(*one.path, "allow_http")])


def check_token_urls(
    sections: Mapping[str, CredentialSection],
    credentials: Mapping[str, Credential],
    expanded: Iterable[ExpandedRoute],
    report: Report,
) -> None:
    """Token and logout URLs; a relative one is as safe as the origins at which it is resolved."""
    clear = _resolved_in_clear(credentials, expanded)
    for name, section in sections.items():
        path: Path = ("credentials", name)
        for field, url in (("token_url", section.token_url), ("logout_url", section.logout_url)):
            if url is None or section.allow_http:
                continue
            unless = [(*path, "allow_http"), (*path, field)]
            # A relative logout URL stands at the token URL's origin.
            if url.startswith("/") and name in clear and (section.token_url or "").startswith("/"):
                report.add((*path, field), _RELATIVE, unless=unless)
            elif _is_clear_url(url):
                report.add((*path, field), _SECRETS, unless=unless)


def _resolved_in_clear(credentials: Mapping[str, Credential], expanded: Iterable[ExpandedRoute]) -> set[str]:
    """Credentials whose relative URLs stand at an `http://` origin: an upstream's, or that of who names their token."""
    clear = {one.section.credential or "" for one in expanded if _is_clear(one)}
    for credential in credentials.values():
        if isinstance(credential.source, TokenEndpoint) and _is_clear_url(credential.source.token_url):
            clear.update(credential.chained)
    pending = list(clear)
    while pending:
        outer = credentials.get(pending.pop())
        new = set(outer.chained) - clear if outer and outer.is_relative else set[str]()
        clear |= new
        pending += new
    return clear


def _is_clear(one: ExpandedRoute) -> bool:
    return one.upstream is not None and one.upstream.scheme == "http" and not is_loopback(one.upstream.host)


def _is_clear_url(url: str) -> bool:
    return url.startswith("http://") and not is_loopback(_host(url))


def _host(url: str) -> str:
    """The host; the path, which may hold placeholders, is not looked at."""
    try:
        return split_url("/".join(url.split("/")[:3]))[1]
    except WrongError:
        return ""
