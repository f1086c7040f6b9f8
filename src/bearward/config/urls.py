"""URLs, hosts, prefixes and listening addresses: strict readings of text. Raise `WrongError`."""

import ipaddress
import re
from pathlib import Path

from ..address import Address, is_loopback
from ..proxy.routes import DEFAULT_PORTS, Upstream
from .diagnostics import WrongError

_LABELS = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?", re.ASCII)
_NUMBER_AT_END = re.compile(r"(^|\.)(\d+|0[xX][0-9A-Fa-f]*)\.?$", re.ASCII)
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/]*)(?P<path>.*)", re.DOTALL)
_SEGMENT_CHARACTERS = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]*")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_ESCAPED_STRUCTURE = re.compile(r"%(2e|2f|5c|[01][0-9a-f]|7f)", re.IGNORECASE)
_MAX_SOCKET_PATH = 107
"""What fits into a `sockaddr_un`."""


def read_upstream(text: str) -> Upstream:
    """An absolute URL; its path is kept as written, as it is what a prefix alone reaches."""
    scheme, host, port, path = split_url(text)
    return Upstream("https" if scheme == "https" else "http", host, port, "" if path == "/" else path)


def split_url(text: str) -> tuple[str, str, int, str]:
    """Scheme, host without brackets and in lower case, port and path of an absolute URL."""
    found = _URL.fullmatch(text)
    if not found:
        raise WrongError("must be a URL that starts with https:// (or http://)")
    scheme, authority, path = found["scheme"], found["authority"], found["path"]
    if "@" in authority:
        raise WrongError("a URL must not hold a user or password; credentials have fields of their own")
    for mark, name in (("?", "query"), ("#", "fragment")):
        if mark in authority + path:
            raise WrongError(f"a URL must not have a {name} here; remove it")
    host, port = split_host(authority)
    if port == 0:
        raise WrongError("the port of a URL must be a number from 1 to 65535")
    check_path(path)
    return scheme, host, DEFAULT_PORTS[scheme] if port is None else port, path


def check_path(path: str) -> None:
    """The path of a URL, or nothing: no way to say something else than what is written."""
    if path and not path.startswith("/"):
        raise WrongError("a path must start with /")
    if "?" in path or "#" in path:
        raise WrongError("a path must not have a query or a fragment here; remove it")
    segments = path.split("/")[1:]
    if "" in segments[:-1]:
        raise WrongError("a path must not have empty segments (//)")
    if _ESCAPED_STRUCTURE.search(path):
        raise WrongError("a path must not have an escaped dot, slash, backslash or control character")
    _check_segments(segments, _ESCAPE.sub("", path))


def check_query(query: str) -> None:
    """The query of a token URL, which is sent as written but for its placeholders."""
    if "#" in query:
        raise WrongError("a URL must not have a fragment here; remove it (# is %23)")
    if not query.isascii() or not query.isprintable() or " " in query:
        raise WrongError(
            "a query may hold only visible ASCII characters; write others in their %-form (a space is %20)"
        )


def check_prefix(prefix: str) -> None:
    """The prefix of a route, `{data_center}` replaced."""
    if not prefix.startswith("/"):
        raise WrongError("a prefix must start with /")
    if prefix != "/" and prefix.endswith("/"):
        raise WrongError("a prefix must not end with /; remove it")
    for mark, name in (("?", "a query (?)"), ("#", "a fragment (#)"), ("%", "escapes (%)")):
        if mark in prefix:
            raise WrongError(f"a prefix must not have {name}")
    segments = prefix.split("/")[1:]
    if "" in segments[:-1]:
        raise WrongError("a prefix must not have empty segments (//)")
    _check_segments(segments, prefix)


def _check_segments(segments: list[str], path: str) -> None:
    if any(segment in (".", "..") for segment in segments):
        raise WrongError("dot segments (. and ..) are not allowed in a path")
    if not _SEGMENT_CHARACTERS.fullmatch(path.replace("/", "")):
        raise WrongError("a path may hold only letters, digits and - . _ ~ ! $ & ' ( ) * + , ; = : @")


def split_host(authority: str) -> tuple[str, int | None]:
    """`HOST`, `HOST:PORT` or `[v6]:PORT`, the host in lower case and without brackets."""
    if authority.startswith("["):
        inside, bracket, rest = authority[1:].partition("]")
        try:
            host = str(ipaddress.IPv6Address(inside if bracket and "%" not in inside else ""))
        except ValueError:
            raise WrongError("what stands in [ ] must be an IPv6 address") from None
    else:
        host, colon, number = authority.partition(":")
        host, rest = host.lower(), colon + number
    if rest and (not re.fullmatch(r":[0-9]{1,5}", rest) or int(rest[1:]) > 65535):
        raise WrongError("the port must be a number up to 65535 (an IPv6 address stands in brackets: [::1]:PORT)")
    if ":" not in host:
        _check_name(host)
    return host, int(rest[1:]) if rest else None


def _check_name(host: str) -> None:
    if not host:
        raise WrongError("the host is missing")
    if not host.isascii():
        raise WrongError("the host must be ASCII; write an international name in its xn-- form")
    if len(host) > 253 or not _LABELS.fullmatch(host):
        raise WrongError("the host is no valid name or address")
    if _NUMBER_AT_END.search(host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise WrongError("the host is no valid IPv4 address; write four decimal numbers") from None


def read_address(text: str, folder: Path) -> Address:
    """`HOST:PORT`, `[v6]:PORT` or `unix:PATH`, a relative path from `folder`."""
    if text.startswith("unix:"):
        path = str(folder / text.removeprefix("unix:"))
        if text == "unix:" or not path.isprintable():
            raise WrongError("the path of the socket is missing or has control characters")
        if len(path.encode()) > _MAX_SOCKET_PATH:
            raise WrongError(f"the path of a unix socket must not be longer than {_MAX_SOCKET_PATH} bytes")
        return Address(path=path)
    try:
        host, port = split_host(text)
    except WrongError as error:
        raise WrongError(f"must be HOST:PORT, [IPV6]:PORT or unix:PATH; {error}") from None
    if port is None:
        raise WrongError("the port is missing; write HOST:PORT, [IPV6]:PORT or unix:PATH")
    return Address(host, port)


def is_here(host: str, port: int, address: Address) -> bool:
    """Whether a connection to `host` and `port` may end at `address`, a listening address of ours."""
    if address.path is not None or not port or port != address.port:
        return False
    return host == address.host or (_reaches_this_machine(host) and _reaches_this_machine(address.host))


def _reaches_this_machine(host: str) -> bool:
    """Loopback in any spelling that a connection understands, the unspecified addresses included."""
    name = host.removesuffix(".")
    if is_loopback(name) or name.endswith(".localhost"):
        return True
    try:
        ip = ipaddress.ip_address(name)
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or ip.is_unspecified
