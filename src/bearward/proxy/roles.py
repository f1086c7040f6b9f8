"""What a client's connection expects of others: of a request on its way, and of the port that all connections share."""

from typing import Protocol, TypeVar

from .. import events
from ..errors import ProblemError
from .body import RequestBody
from .limits import Limits
from .messages import RequestHead

C = TypeVar("C")
"""A client's connection."""


class Request(Protocol):
    """One request on its way, as its connection knows it."""

    body: RequestBody | None
    idle_timeout: float

    def start(self) -> None:
        """Begins; all of the body that came with the head is there."""

    def on_body_problem(self, problem: ProblemError) -> None:
        """The rest of the body will not come."""

    def on_client_left(self) -> None: ...

    def on_client_writable(self, *, is_writable: bool) -> None:
        """Whether the client takes more of the answer."""


class Port(Protocol[C]):
    """What all connections share."""

    limits: Limits
    is_draining: bool
    waiting: dict[C, None]
    """Those without a request in progress, the longest without one first."""

    def entered(self, connection: C) -> bool:
        """A new connection; whether there is room for it."""

    def left(self, connection: C) -> None: ...

    def admit(self, head: RequestHead, connection: C) -> "Request | bytes":
        """A request, or the whole answer to it. Raises `ProblemError`."""

    def observe(self, event: events.Event, /) -> None: ...
