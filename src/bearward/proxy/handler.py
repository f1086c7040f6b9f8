"""Every request of the data port: who may ask, and which route it takes."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11

from .. import events
from ..errors import ProblemError
from .answers import send, send_problem
from .crossing import Crossing, RoutePath
from .guard import ALLOWED_METHODS, Guard, check_method, check_path, parse_target
from .routes import Router, join

SHOWN_PREFIXES: Final = 10


class Handler:
    """Takes every request of the data port."""

    def __init__(self, guard: Guard, paths: Mapping[str, RoutePath], observe: events.Observer) -> None:
        self._guard = guard
        self._router = Router(paths)
        self._observe = observe
        some = ", ".join(sorted(paths)[:SHOWN_PREFIXES]) + (", …" if len(paths) > SHOWN_PREFIXES else "")
        self._no_route = f"No route's prefix fits this path, which is compared letter by letter; there are {some}."
        self.is_draining = False

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.writer.drain()  # whoever pipelines requests reads the answers, or waits
        try:
            path, target = self._admit(request)
        except ProblemError as problem:
            self._observe(events.RequestRejected(problem.code))
            return send_problem(request, problem)
        if path is None:  # OPTIONS *
            return send(request, b"HTTP/1.1 204 No Content\r\nAllow: " + ALLOWED_METHODS.encode() + b"\r\n", b"")
        crossing = Crossing(request, path, target, self._observe)
        return await crossing.run()

    def _admit(self, request: web.BaseRequest) -> tuple[RoutePath | None, bytes]:
        headers = request.headers
        method = request.method
        if method == "CONNECT":
            check_method(method)
        if request.version not in {HttpVersion10, HttpVersion11}:
            raise ProblemError("version_not_supported", "HTTP/1.0 and HTTP/1.1 are spoken here.", close=True)
        raw = request.raw_path.encode("utf-8", "surrogateescape")
        asterisk = method == "OPTIONS" and raw == b"*"
        target = parse_target(b"/" if asterisk else raw)
        hosts = headers.getall("Host", [])
        self._guard.check_host(hosts, target.authority)
        self._guard.check_origin(headers.getall("Origin", []), headers.get("Sec-Fetch-Site"), hosts[0])
        check_method(method)
        if self.is_draining:
            raise ProblemError("draining", "bearward is stopping.", retry_after=5, close=True)
        if asterisk:
            return None, b""
        found = self._router.match(target.path)
        check_path(target.path, allow_encoded_slash=found is not None and found[0].route.allow_encoded_slash)
        if found is None:
            raise ProblemError("no_route", self._no_route)
        path, rest = found
        return path, join(path.base, rest) + target.query
