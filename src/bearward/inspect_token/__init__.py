"""`bearward token`: one attempt at one token, how it went, and where it failed what to change.

What may live here: the attempt itself (`steps`), what of it may be shown (`masking`), how it is laid out (`exchange`
for what was said over the network, `page` for the whole), and the likely `causes` of a failure. Nothing is asked for
the sake of a diagnosis: a second try with another password or encoding may lock an account.
"""

import asyncio

import click

from ..app import token_sources
from ..config import Settings
from ..tokens.credential import TokenEndpoint
from ..tokens.desk import Means
from ..tokens.recipe import secrets_in
from ..tokens.source import TokenSource
from ..tokens.timetable import Timetable
from . import page
from .hidden import revealed
from .steps import Listening, Steps


class NotInspectedError(Exception):
    """What is asked for is unclear or would do harm: nothing was sent. Its text says what to write instead."""


def inspect_token(settings: Settings, name: str, principal: str, *, show: bool, spend: bool) -> int:
    """Obtains a token of `name` and prints what is known of it; the exit code. Raises `NotInspectedError`.

    `spend` allows to use a refresh token of the config.
    """
    return asyncio.run(_inspect(settings, name, principal, show, spend))


async def _inspect(settings: Settings, name: str, principal: str, show: bool, spend: bool) -> int:
    fetcher = Listening(settings.egress_proxy)
    try:
        steps = Steps(fetcher, principal)
        means = Means(fetcher, Timetable(), steps.observe, shows_stderr=True)
        source = _find(token_sources(settings, means, {}), name)
        if source.has_principals and not principal:
            raise NotInspectedError(f"{name} has a token for each principal: say whose with --principal")
        if not spend and (spent := _spent(source)) is not None:
            raise NotInspectedError(
                f"{spent.label} has grant_type: refresh_token: nothing was sent. A server may take a refresh token "
                "once only: it would be used up here, or if a running bearward has used it already, that one's "
                "session would end for good. --spend asks all the same; what comes in its place is not kept"
            )
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
    raise NotInspectedError(
        f"{name} has several tokens: {names}" if found else f"no route uses a credential {name!r}; there are: {names}"
    )


def _spent(source: TokenSource) -> TokenSource | None:
    """The first one of the chain that would use a refresh token of the config (RFC 9700 §4.14.2: servers rotate)."""
    inner = next(filter(None, map(_spent, source.chained.values())), None)
    endpoint = source.credential.source
    if inner is not None or not isinstance(endpoint, TokenEndpoint):
        return inner
    written = revealed(secrets_in([endpoint.params.get("grant_type"), endpoint.body]))
    return source if any("refresh_token" in text for text in (endpoint.grant_type, *written)) else None
