"""`bearward token`: one attempt at one token, how it went, and where it failed what to change.

What may live here: the attempt itself (`steps`), what of it may be shown (`masking`), how it is laid out (`exchange`
for what was said over the network, `page` for the whole), and the likely `causes` of a failure. Nothing is asked for
the sake of a diagnosis: a second try with another password or encoding may lock an account.
"""

import asyncio

import click

from ..app import token_sources
from ..config import Settings
from ..tokens.desk import Means
from ..tokens.source import TokenSource
from ..tokens.timetable import Timetable
from . import page
from .steps import Listening, Steps


class UnknownTokenError(Exception):
    """No token has this name, or several do. Its text lists those that there are."""


def inspect_token(settings: Settings, name: str, principal: str, *, show: bool) -> int:
    """Obtains a token of `name` and prints what is known of it; the exit code. Raises `UnknownTokenError`."""
    return asyncio.run(_inspect(settings, name, principal, show))


async def _inspect(settings: Settings, name: str, principal: str, show: bool) -> int:
    fetcher = Listening(settings.egress_proxy)
    try:
        steps = Steps(fetcher, principal)
        means = Means(fetcher, Timetable(), steps.observe, shows_stderr=True)
        source = _find(token_sources(settings, means, {}), name)
        if source.has_principals and not principal:
            raise UnknownTokenError(f"{name} has a token for each principal: say whose with --principal")
        issued = await steps.walk(source)
        await steps.end(keep_sessions=show and issued is not None)
        click.echo(page.whole(steps.done, settings.egress_proxy), err=issued is None)
        if issued is not None and show:
            click.echo(issued.token)
        return 0 if issued is not None else 1
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
