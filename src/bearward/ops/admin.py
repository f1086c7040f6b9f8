"""The admin port: probes, metrics and status. Answers from memory; never asks an identity provider."""

import time
from dataclasses import fields
from typing import Any

from aiohttp import web

from .. import __version__
from ..tokens.token import TokenStatus
from .metrics import Metrics
from .state import State

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def admin_application(state: State, metrics: Metrics) -> web.Application:
    """`/livez`, `/startupz`, `/readyz`, `/metrics` and `/api/status`."""

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def startupz(_request: web.Request) -> web.Response:
        return _probe(state.is_started, "every credential has a first token or a definite refusal", "starting")

    async def readyz(request: web.Request) -> web.Response:
        response = _probe(state.is_ready, "ok", "draining" if state.is_draining else "no route can be served")
        if "verbose" in request.query and response.text:
            response.text += "".join(f"{line}\n" for line in _token_lines(state))
        return response

    async def show_metrics(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": METRICS_TYPE})

    async def status(_request: web.Request) -> web.Response:
        return web.json_response(_status(state))

    application = web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/startupz", startupz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", show_metrics)
    application.router.add_get("/api/status", status)
    return application


def _probe(holds: bool, yes: str, no: str) -> web.Response:
    return web.Response(status=200 if holds else 503, text=f"{yes if holds else no}\n")


def _token_lines(state: State) -> list[str]:
    lines = []
    for source in state.sources:
        statuses = source.statuses()
        lines += [f"{source.label}: {describe(status)}" for status in statuses]
        if not statuses:
            lines.append(f"{source.label}: no principal has asked yet")
    return lines


def describe(status: TokenStatus) -> str:
    """A token's state in a few words."""
    words: list[str] = [status.state]
    if status.is_usable and status.expires_at is not None:
        words.append(f"{_span(status.expires_at - time.time())} left")
    if status.refresh_due_at is not None:
        words.append(f"next request in {_span(status.refresh_due_at - time.time())}")
    if status.last_failure is not None:
        words.append(f"failed {status.failures}x: {status.last_failure}")
    return ", ".join(words)


def _span(seconds: float) -> str:
    seconds = max(round(seconds), 0)
    if seconds < 120:
        return f"{seconds}s"
    return f"{seconds // 60}m" if seconds < 7200 else f"{seconds // 3600}h{seconds % 3600 // 60:02}m"


def _status(state: State) -> dict[str, Any]:
    return {
        "version": __version__,
        "started": state.is_started,
        "ready": state.is_ready,
        "draining": state.is_draining,
        "routes": [
            {
                "route": prefix,
                "upstream": str(path.route.upstream),
                "credential": source.label,
                "servable": source.is_servable,
                "in_flight": path.tally.in_flight,
            }
            for prefix, (path, source) in state.routes.items()
        ],
        "credentials": [
            {"credential": source.label, "tokens": [_token(status) for status in source.statuses()]}
            for source in state.sources
        ],
    }


def _token(status: TokenStatus) -> dict[str, Any]:
    values = {each.name: getattr(status, each.name) for each in fields(status)}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
