"""Which header names a config must not use."""

from collections.abc import Iterable

from .diagnostics import Path, Report

_FRAMING = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Those of one connection (RFC 9110 §7.6.1), and those that say where a message goes and where it ends."""


_OF_BROWSERS = frozenset(
    {
        "accept", "accept-encoding", "accept-language", "cache-control", "content-language", "content-type", "cookie",
        "dnt", "origin", "pragma", "priority", "range", "referer", "upgrade-insecure-requests", "user-agent",
    }
)  # fmt: skip
"""Those that a browser sends with a web page's request without asking the server first."""


def framing_names() -> set[str]:
    """The names that belong to the connection, in lower case."""
    return set(_FRAMING)


def comes_unasked(name: str) -> bool:
    """Whether any web page can make a browser send this header."""
    return name.lower() in _OF_BROWSERS or name.lower().startswith("sec-")


def is_forwarding_name(name: str) -> bool:
    """Whether a name in lower case says where a request came from."""
    return name == "forwarded" or name.startswith("x-forwarded-")


def check_names(names: Iterable[str], forbidden: set[str], path: Path, report: Report) -> None:
    """Report the forbidden ones, and those that are given twice in another case."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in forbidden:
            report.add((*path, name), "bearward sets this header itself; remove it", at="key")
        if name.lower() in seen:
            report.add((*path, name), "this header is given twice; upper and lower case are the same", at="key")
        seen.add(name.lower())
