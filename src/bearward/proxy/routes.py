"""Which upstream a request target belongs to: the longest prefix on a segment boundary."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..secret import Secret

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
    allow_encoded_slash: bool = False
