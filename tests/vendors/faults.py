"""What can go wrong at a vendor: each fault answers a request in the place of the vendor, or bends its answer."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Regular = Callable[[], web.StreamResponse]
"""Makes the answer that the vendor would give without the fault."""
Fault = Callable[[web.BaseRequest, Regular], Awaitable[web.StreamResponse]]

_TEN_MIB = 10 << 20


class Faults:
    """Which faults an endpoint has: the ones queued for the next requests, then the lasting one."""

    def __init__(self) -> None:
        self.mode: Fault | None = None
        self._queue: deque[Fault] = deque()

    def fail_next(self, count: int, fault: Fault) -> None:
        """The next `count` requests meet `fault`."""
        self._queue.extend([fault] * count)

    def next(self) -> Fault | None:
        """The fault for the request that has just come, if any."""
        return self._queue.popleft() if self._queue else self.mode


def answer(status: int, body: bytes | str = b"", **headers: str) -> Fault:
    """A fixed answer; header names are written with `_` for `-`."""
    content = body.encode() if isinstance(body, str) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def fault(_request: web.BaseRequest, _regular: Regular) -> web.StreamResponse:
        return web.Response(status=status, body=content, headers=named)

    return fault


async def none(_request: web.BaseRequest, regular: Regular) -> web.StreamResponse:
    """No fault: the regular answer, before the others."""
    return regular()


server_error = answer(500, '{"error":"server_error"}', Content_Type="application/json")
html = answer(200, "<!doctype html><title>Sign in to the network</title>", Content_Type="text/html")
empty = answer(200, Content_Type="application/json")


def too_many_requests(retry_after: int) -> Fault:
    """429 with the seconds to wait."""
    return answer(429, '{"error":"slow_down"}', Content_Type="application/json", Retry_After=str(retry_after))


def redirect(location: str) -> Fault:
    """307, which asks to send the whole request once more to `location`."""
    return answer(307, Location=location)


def unauthorized(challenge: str = 'Bearer error="invalid_token"') -> Fault:
    """401 with a challenge."""
    return answer(401, '{"error":"unauthorized"}', Content_Type="application/json", WWW_Authenticate=challenge)


async def huge(_request: web.BaseRequest, regular: Regular) -> web.StreamResponse:
    """The regular answer, 10 MiB long: still JSON, and still with its token."""
    content = _fields(regular()) | {"padding": "x" * _TEN_MIB}
    return web.json_response(content)


async def hang(_request: web.BaseRequest, _regular: Regular) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def taken(fault: Fault) -> Fault:
    """Do what is asked, and never say so: the client meets `fault`, and the outcome is unknown to it."""

    async def answer_otherwise(request: web.BaseRequest, regular: Regular) -> web.StreamResponse:
        regular()
        return await fault(request, regular)

    return answer_otherwise


take_and_hang = taken(hang)


async def disconnect(request: web.BaseRequest, _regular: Regular) -> web.StreamResponse:
    """Reset the connection instead of an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def close_early(request: web.BaseRequest, _regular: Regular) -> web.StreamResponse:
    """Promise a thousand bytes, send ten, and close."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"0123456789")
    assert request.transport is not None
    request.transport.close()
    return response


class Hold:
    """Requests wait here until `release()`, then meet `then`; `arrived` tells when the first is in."""

    def __init__(self, then: Fault = none) -> None:
        self.arrived = asyncio.Event()
        self._released = asyncio.Event()
        self._then = then

    def release(self) -> None:
        """Let every request go on, the later ones too."""
        self._released.set()

    async def __call__(self, request: web.BaseRequest, regular: Regular) -> web.StreamResponse:
        self.arrived.set()
        await self._released.wait()
        return await self._then(request, regular)


class Gather:
    """Requests wait until `count` of them are in; then all of them meet `fault` at once."""

    def __init__(self, count: int, fault: Fault) -> None:
        self._barrier = asyncio.Barrier(count)
        self._fault = fault

    async def __call__(self, request: web.BaseRequest, regular: Regular) -> web.StreamResponse:
        await self._barrier.wait()
        return await self._fault(request, regular)


def change(**fields: Any) -> Fault:
    """The regular JSON answer with other values in some fields."""

    async def fault(_request: web.BaseRequest, regular: Regular) -> web.StreamResponse:
        return web.json_response(_fields(regular()) | fields)

    return fault


def omit(*names: str) -> Fault:
    """The regular JSON answer without some fields."""

    async def fault(_request: web.BaseRequest, regular: Regular) -> web.StreamResponse:
        return web.json_response({key: value for key, value in _fields(regular()).items() if key not in names})

    return fault


def _fields(response: web.StreamResponse) -> dict[str, Any]:
    assert isinstance(response, web.Response)
    assert response.status == 200, f"only a regular answer can be bent, this one was {response.status}"
    fields: dict[str, Any] = json.loads(response.text or "")
    return fields
