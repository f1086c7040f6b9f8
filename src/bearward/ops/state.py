"""What the whole process is, for probes, pages and metrics: its routes, their tokens, and whether it is stopping."""

from collections.abc import Mapping

from ..proxy.path import RoutePath
from ..tokens.source import TokenSource


class State:
    """A view on the running parts; nothing is stored twice. `routes` may be replaced while others look."""

    def __init__(self, routes: Mapping[str, tuple[RoutePath, TokenSource]]) -> None:
        self.routes = routes
        self.is_draining = False

    @property
    def sources(self) -> tuple[TokenSource, ...]:
        """Where the routes get their tokens, each once; those that others are chained to come before them."""
        found: dict[int, TokenSource] = {}

        def add(source: TokenSource) -> None:
            for other in source.chained.values():
                add(other)
            found[id(source)] = source

        for _, source in self.routes.values():
            add(source)
        return tuple(found.values())

    @property
    def is_started(self) -> bool:
        """Whether every credential has a first token or a definite refusal."""
        return all(source.is_started for source in self.sources)

    @property
    def is_ready(self) -> bool:
        """Whether at least one route can be served."""
        return not self.is_draining and any(source.is_servable for _, source in self.routes.values())
