"""Every request of the data port: who may ask, and which route it takes."""

from collections.abc import Mapping
from typing import Final

from ..errors import ProblemError
from .client import ClientConnection
from .crossing import Crossing
from .fields import Fields
from .guard import ALLOWED_METHODS, METHODS_NOT_FORWARDED, Guard, check_method, check_path, parse_target
from .messages import RequestHead
from .path import RoutePath
from .routes import Router, join

SHOWN_PREFIXES: Final = 10


class Handler:
    """Admits requests as one config says; another config is another handler."""

    def __init__(
        self, guard: Guard, paths: Mapping[str, RoutePath], *, require_header: str | None, trailer_bytes: int
    ) -> None:
        self._guard = guard
        self._router = Router(paths)
        self._required = require_header.lower().encode() if require_header else None
        self._trailer_bytes = trailer_bytes
        some = ", ".join(sorted(paths)[:SHOWN_PREFIXES]) + (", …" if len(paths) > SHOWN_PREFIXES else "")
        self._no_route = f"No route's prefix fits this path, which is compared letter by letter; there are {some}."

    def admit(self, head: RequestHead, client: ClientConnection, *, is_draining: bool) -> Crossing | bytes:
        """The request on its way, or the whole answer to it. Raises `ProblemError`."""
        if head.method == b"CONNECT":
            check_method(head.method)
        asterisk = head.method == b"OPTIONS" and head.target == b"*"
        authority, target, query = parse_target(b"/" if asterisk else head.target)
        fields = head.fields
        self._check_who(fields, authority)
        if b"#" in head.target:
            raise ProblemError("bad_path", "A request target has no fragment.")
        if head.method in METHODS_NOT_FORWARDED:
            check_method(head.method)
        if is_draining:
            raise ProblemError("draining", "bearward is stopping.", retry_after=5, close=True)
        if not fields.has_only_host and not {b"100-continue"}.issuperset(fields.members(b"expect")):
            raise ProblemError("expectation_failed", "The only expectation that is known is 100-continue.", close=True)
        if asterisk:
            return b"HTTP/1.1 204 No Content\r\nAllow: %b\r\n\r\n" % ALLOWED_METHODS.encode()
        found = self._router.match(target)
        check_path(target, allow_encoded_slash=found is not None and found[0].route.allow_encoded_slash)
        if found is None:
            raise ProblemError("no_route", self._no_route)
        path, rest = found
        return Crossing(client, head, path, join(path.base, rest) + query, self._trailer_bytes)

    def _check_who(self, fields: Fields, authority: bytes | None) -> None:
        hosts = fields.values(b"host")
        self._guard.check_host(hosts, authority)
        if not fields.has_only_host:
            if origins := fields.values(b"origin"):
                self._guard.check_origin(origins, hosts[0])
            elif b"cross-site" in fields.values(b"sec-fetch-site"):
                self._guard.refuse_origin()
        if self._required is not None and not fields.search(self._required):
            raise ProblemError("header_required", "See require_header in the config for its name.")
