"""What bearward answers itself, written to the client's transport in our own words."""

import asyncio
import json
import math
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.http import HttpVersion11

from ..errors import ProblemError


class Sent(web.StreamResponse):
    """Tells aiohttp that the answer is on the wire already, and whether the connection may be used again."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


KEEP: Final = Sent(keep_alive=True)
CLOSE: Final = Sent(keep_alive=False)


def send_problem(request: web.BaseRequest, problem: ProblemError) -> web.StreamResponse:
    """Answers with a problem document (RFC 9457) that holds fixed words only."""
    document = {
        "type": f"urn:bearward:error:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
    }
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}", f"Bearward-Error: {problem.code}"]
    lines.append("Content-Type: application/problem+json")
    if problem.allow is not None:
        lines.append(f"Allow: {problem.allow}")
    if problem.retry_after is not None or problem.status == 503:
        lines.append(f"Retry-After: {math.ceil(problem.retry_after or 1)}")
    head = "\r\n".join(lines).encode() + b"\r\n"
    return send(request, head, json.dumps(document).encode() + b"\n", keep_alive=not problem.close)


def send(request: web.BaseRequest, head: bytes, body: bytes, *, keep_alive: bool = True) -> web.StreamResponse:
    keep_alive = keep_alive and request.keep_alive
    framing = b"Content-Length: %d\r\n" % len(body) if body else b""
    transport = transport_of(request)
    shown = b"" if request.method == "HEAD" else body
    transport.write(head + framing + connection_line(request, keep_alive=keep_alive) + b"\r\n" + shown)
    return KEEP if keep_alive else CLOSE


def transport_of(request: web.BaseRequest) -> asyncio.Transport:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client left")
    return transport


def connection_line(request: web.BaseRequest, *, keep_alive: bool) -> bytes:
    if not keep_alive:
        return b"Connection: close\r\n"
    return b"" if request.version == HttpVersion11 else b"Connection: keep-alive\r\n"
