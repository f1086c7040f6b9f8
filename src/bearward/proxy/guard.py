"""Who may ask, and for what: Host, browser origins, methods and paths. Pure.

Whoever reaches the port is signed in upstream. The checks of the Host and the Origin keep out web pages (DNS
rebinding, cross-site requests); those of the path keep a request below the route's base path, whatever the upstream
makes of odd spellings. What is matched here is what is sent: nothing is ever normalised.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

from ..address import Address, is_loopback
from ..errors import ProblemError

METHODS_NOT_FORWARDED: Final = frozenset({b"CONNECT", b"TRACE"})
"""TRACE would send the token back; CONNECT is no request for a resource."""
ALLOWED_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.~!$&'()*+,;=%-]+)(?::(\d{1,5}))?")
_ABSOLUTE = re.compile(rb"(?i)http://([^/?#]*)([^#]*)")


def parse_target(raw: bytes) -> tuple[bytes | None, bytes, bytes]:
    """Authority, path and query of an origin-form or absolute-form target (RFC 9112 §3.2), bytes as they came.

    The query has its `?`, or is empty. Raises `ProblemError`.
    """
    authority = None
    if not raw.startswith(b"/"):
        found = _ABSOLUTE.match(raw)
        if found is None:
            raise ProblemError("bad_request", "The request target is neither a path nor an http:// URL.", close=True)
        authority = found[1]
        raw = raw[found.start(2) :]
        if not raw.startswith(b"/"):
            raw = b"/" + raw
    path, mark, query = raw.partition(b"?")
    return authority, path, mark + query


class Guard:
    """Judges Host and Origin by the names under which this listener may be addressed.

    `allowed_hosts` are `name:port` in lower case, `allowed_origins` whole origins.
    """

    def __init__(self, listen: Address, allowed_hosts: Iterable[str], allowed_origins: Iterable[str]) -> None:
        self._port = None if listen.path is not None else listen.port
        own = ["localhost", "127.0.0.1", "[::1]"]
        if listen.path is None and listen.host not in {"0.0.0.0", "::"}:  # noqa: S104 - these name no host
            own.append(f"[{listen.host}]" if ":" in listen.host else listen.host.lower())
        suffix = "" if self._port is None else f":{self._port}"
        self._hosts = {name + suffix for name in own} | set(allowed_hosts)
        if self._port == 80:
            self._hosts |= {host.removesuffix(":80") for host in self._hosts}
        self._raw_hosts = frozenset(host.encode() for host in self._hosts)
        self._origins = frozenset(allowed_origins)

    def check_host(self, hosts: Sequence[bytes], authority: bytes | None) -> None:
        """Raises `ProblemError` unless there is one Host, it is one of ours, and so is the target's authority."""
        if len(hosts) != 1:
            raise ProblemError("bad_request", "A request has exactly one Host header.", close=True)
        for host in hosts if authority is None else (hosts[0], authority):
            if host not in self._raw_hosts:
                self._judge(host.decode("latin-1").lower())

    def _judge(self, host: str) -> None:
        found = _HOST.fullmatch(host)
        if found is None or int(found[2] or 0) > 65535:
            raise ProblemError("bad_request", "The Host header holds no host name.", close=True)
        name = found[1].strip("[]")
        port = int(found[2]) if found[2] else None
        if host not in self._hosts and not (is_loopback(name) and port == self._port):
            raise ProblemError(
                "host_not_allowed",
                "bearward answers to a loopback name with the listener's port, and to the names in allowed_hosts.",
                close=True,
            )

    def check_origin(self, origins: Sequence[bytes], host: bytes) -> None:
        """Raises `ProblemError` unless a browser's page is one of ours or an allowed one (Fetch Standard)."""
        origin = origins[0].decode("latin-1")
        own = "http://" + host.decode("latin-1")
        if len(origins) > 1 or not (origin in self._origins or origin.lower() == own.lower()):
            self.refuse_origin()

    def refuse_origin(self) -> NoReturn:
        """Refuses a cross-site request. Raises `ProblemError`."""
        raise ProblemError("origin_not_allowed", "Pages of this origin may not ask; see allowed_origins.", close=True)


def check_method(method: bytes) -> None:
    """Raises `ProblemError` for CONNECT and TRACE."""
    if method in METHODS_NOT_FORWARDED:
        raise ProblemError(
            "method_not_allowed",
            "CONNECT and TRACE are not forwarded.",
            allow=ALLOWED_METHODS,
            close=method == b"CONNECT",
        )


_ODD = re.compile(rb"[^!-~]|[%;\\]|/\.")
"""What a harmless path does not have; all else is looked at closely."""
_CONTROL = re.compile(rb"[\x00-\x20\x7f]")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_OVERLONG = re.compile(rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]")
"""UTF-8 longer than needed (RFC 3629 §3): a lax decoder makes slashes and dots of it."""
_MOST_DECODINGS: Final = 8


def check_path(path: bytes, *, allow_encoded_slash: bool = False) -> None:
    """Raises `ProblemError` for a path that an upstream might take for another one. A query is never judged."""
    if _ODD.search(path) is None:
        return
    if _CONTROL.search(path) or _BROKEN_ESCAPE.search(path):
        raise _bad_path("control characters and broken percent-escapes are not forwarded")
    lowered = path.lower()
    if b"%00" in lowered:
        raise _bad_path("an encoded NUL is not forwarded")
    if b"\\" in path or b"%5c" in lowered:
        raise _bad_path("backslashes are not forwarded")
    if b"%2f" in lowered and not allow_encoded_slash:
        raise _bad_path("an encoded slash is forwarded only where the route says allow_encoded_slash")
    for _ in range(_MOST_DECODINGS):
        if _OVERLONG.search(path):
            raise _bad_path("overlong UTF-8 is not forwarded")
        if _has_dot_segment(path):
            raise _bad_path("dot segments are not forwarded")
        decoded = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), path)
        if decoded == path:
            return
        path = decoded
    raise _bad_path("escapes of escapes of escapes are not forwarded")


def _has_dot_segment(path: bytes) -> bool:
    segments = path.replace(b"\\", b"/").split(b"/")
    return any(segment.partition(b";")[0] in {b".", b".."} for segment in segments)


def _bad_path(why: str) -> ProblemError:
    return ProblemError("bad_path", f"In the path, {why}.")
