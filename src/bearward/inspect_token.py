"""`bearward token`: one token request, and what came of it."""

import asyncio
import json

import click

from .app import token_sources
from .config import Settings
from .tokens.answer import Issued
from .tokens.desk import Means
from .tokens.failure import TokenRequestError
from .tokens.fetcher import Fetcher
from .tokens.lifetime import claims
from .tokens.source import TokenSource
from .tokens.timetable import Timetable
from .tokens.token import fingerprint


class UnknownTokenError(Exception):
    """No token has this name, or several do. Its text lists those that there are."""


def inspect_token(settings: Settings, name: str, principal: str, *, show: bool) -> int:
    """Obtains a token of `name` and prints what is known of it; the exit code. Raises `UnknownTokenError`."""
    return asyncio.run(_inspect(settings, name, principal, show))


async def _inspect(settings: Settings, name: str, principal: str, show: bool) -> int:
    fetcher = Fetcher(settings.egress_proxy)
    try:
        means = Means(fetcher, Timetable(), lambda _event: None)
        source = _find(token_sources(settings, means, {}), name)
        if source.has_principals and not principal:
            raise UnknownTokenError(f"{name} has a token for each principal: say whose with --principal")
        try:
            issued = await source.obtain(principal, keep_session=show)
        except TokenRequestError as failure:
            click.echo(f"{source.label}: no token from {source.token_url}: {failure}", err=True)
            return 1
        click.echo(_description(source, issued))
        if show:
            click.echo(issued.token)
        return 0
    finally:
        await fetcher.close()


def _find(sources: dict[str, TokenSource], name: str) -> TokenSource:
    found = [source for label, source in sources.items() if name in {label, source.credential.name}]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(source.label for source in found or sources.values()))
    raise UnknownTokenError(
        f"{name} has several tokens: {names}" if found else f"no route uses a credential {name!r}; there are: {names}"
    )


def _description(source: TokenSource, issued: Issued) -> str:
    rows = [
        ("credential", source.label),
        ("token URL", source.token_url),
        ("token", f"{fingerprint(issued.token)} (the start of its SHA-256), {len(issued.token)} characters"),
        ("lifetime", f"{issued.lifetime:.0f} s, from {issued.lifetime_from}"),
    ]
    if issued.refresh_token:
        ends = "no told end" if issued.refresh_lifetime is None else f"{issued.refresh_lifetime:.0f} s"
        rows.append(("refresh token", ends))
    if issued.clock_skew is not None and abs(issued.clock_skew) > 2:
        rows.append(("clock skew", f"{issued.clock_skew:+.0f} s"))
    known = claims(issued.token)
    rows.append(("claims", json.dumps(known, indent=2) if known is not None else "none: the token is no JWT"))
    return "\n".join(f"{name:<14} {text}" for name, text in rows)
