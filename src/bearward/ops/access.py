"""The access log: a line for each request of a route, among the other lines of the log, whatever the log's level.

A line is put together by hand, because it is paid for by every request: structlog takes several times as long.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted
from typing import Final, Literal

from ..events import RequestDone
from .logs import Form, is_text, rendered
from .sink import standard_error

TEXT: Final = "request done"


def access_log(which: Literal["off", "errors", "all"], form: Form) -> Callable[[RequestDone], None] | None:
    """What takes the requests that have come to their end; `errors` are those of status 400 and above."""
    if which == "off":
        return None
    write = standard_error().write
    line = _text if is_text(form) else _json
    least = 400 if which == "errors" else 0

    def note(request: RequestDone) -> None:
        if request.code >= least:
            write(line(request))

    return note


def _json(request: RequestDone) -> str:
    now = datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    return (
        f'{{"route": {quoted(request.route)}, "method": {quoted(request.method)}, "path": {quoted(request.path)}, '
        f'"code": {request.code}, "origin": {quoted(request.origin)}, "request_bytes": {request.request_bytes}, '
        f'"response_bytes": {request.response_bytes}, "seconds": {request.seconds:.6f}, '
        f'"upstream_seconds": {request.upstream_seconds:.6f}, "token_seconds": {request.token_seconds:.6f}, '
        f'"replayed": {"true" if request.replayed else "false"}, '
        f'"token": {"null" if request.token is None else quoted(request.token)}, '
        f'"event": "{TEXT}", "level": "info", "time": "{now}Z"}}'
    )


def _text(request: RequestDone) -> str:
    facts = {name: getattr(request, name) for name in request.__slots__}
    return rendered("text", "info", TEXT, **{name: _fixed(value) for name, value in facts.items()})


def _fixed(value: object) -> object:
    return f"{value:.6f}" if isinstance(value, float) else value
