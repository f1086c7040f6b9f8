"""What bearward answers itself, in its own words."""

import json
import math
from http import HTTPStatus

from ..errors import ProblemError
from .messages import RequestHead


def problem_answer(problem: ProblemError, head: RequestHead | None) -> bytes:
    """A problem document (RFC 9457) that holds fixed words only; `head` is that of the request, where it has one."""
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
    body = json.dumps(document).encode() + b"\n"
    shown = b"" if head is not None and head.method == b"HEAD" else body
    return "\r\n".join(lines).encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + shown


def with_connection(answer: bytes, head: RequestHead | None, *, keep_alive: bool) -> bytes:
    """A whole answer of ours, and what it says of its connection."""
    lines, end, body = answer.partition(b"\r\n\r\n")
    return lines + b"\r\n" + connection_line(head, keep_alive=keep_alive) + end[2:] + body


def connection_line(head: RequestHead | None, *, keep_alive: bool) -> bytes:
    """What an answer says of its connection; nothing where the client's version says it."""
    if head is None or not (keep_alive and head.keep_alive):
        return b"Connection: close\r\n"
    return b"Connection: keep-alive\r\n" if head.is_http10 else b""
