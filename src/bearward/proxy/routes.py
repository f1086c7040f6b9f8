"""Which upstream a request target belongs to: the longest prefix on a segment boundary."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from ..secret import Secret
from ..tls import Tls

T = TypeVar("T")

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Upstream:
    """The base URL to which a route forwards; host without brackets, path without a query."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str = ""

    @property
    def host_and_port(self) -> str:
        """`HOST:PORT`, the port always there."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """What the Host header says: without the scheme's own port (RFC 9110 §7.2)."""
        whole = self.host_and_port
        return whole.rpartition(":")[0] if self.port == DEFAULT_PORTS[self.scheme] else whole

    @property
    def origin(self) -> str:
        """`SCHEME://AUTHORITY`."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A path prefix, and the upstream and credential that belong to it. Times are in seconds."""

    prefix: str
    """`/` or `/segment/…`, without a trailing slash."""
    upstream: Upstream
    credential: str
    on_401: Literal["replay", "pass"] = "replay"
    set_headers: tuple[tuple[str, Secret], ...] = ()
    remove_headers: tuple[str, ...] = ()
    connect_timeout: float = 5.0
    response_timeout: float = 60.0
    idle_timeout: float = 300.0
    tls: Tls = field(default_factory=Tls)
    allow_encoded_slash: bool = False
    max_body: int | None = None
    """The most bytes of a request's body; None: any number."""


class Router(Generic[T]):
    """Finds what belongs to a path. Prefixes match literally, byte for byte, whatever their order was."""

    def __init__(self, by_prefix: Mapping[str, T]) -> None:
        self._table = {prefix.rstrip("/").encode(): found for prefix, found in by_prefix.items()}
        self._depth = max((prefix.count(b"/") for prefix in self._table), default=0)

    def match(self, path: bytes) -> tuple[T, bytes] | None:
        """What belongs to the longest prefix of `path`, and the rest of the path; None where no prefix fits."""
        table, end = self._table, 0
        root = table.get(b"")
        best = None if root is None else (root, path)
        for _ in range(self._depth):
            end = path.find(b"/", end + 1)
            prefix = path if end < 0 else path[:end]
            if (found := table.get(prefix)) is not None:
                best = (found, path[len(prefix) :])
            if end < 0:
                break
        return best


def join(base: bytes, rest: bytes) -> bytes:
    """The upstream's path: its base path, then the rest byte for byte; the base path alone where nothing is left."""
    return (base.removesuffix(b"/") + rest) if rest else (base or b"/")
