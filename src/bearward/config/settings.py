"""The checked config as values of the domains: what `load` returns and `app` builds from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..address import Address
from ..egress import EgressProxy
from ..proxy.limits import Limits
from ..proxy.routes import Route
from ..tokens.credential import Credential


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and in which form; `auto` is text on a terminal and JSON lines otherwise."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"
    access: Literal["off", "errors", "all"] = "off"
    """Which requests have a line of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A whole config, without faults: routes expanded over the data centers, presets applied."""

    listen: Address
    admin: Address
    credentials: Mapping[str, Credential]
    routes: tuple[Route, ...]
    allowed_hosts: tuple[str, ...] = ()
    """`name:port` in lower case, the port always there (a name without one: accepted only on a unix socket)."""
    allowed_origins: tuple[str, ...] = ()
    require_header: str | None = None
    """The name of a header that every client must send."""
    limits: Limits = field(default_factory=Limits)
    egress_proxy: EgressProxy | None = None
    token_store: Path | None = None
    """The file that keeps tokens over a restart; None: they are kept in memory."""
    log: LogSettings = field(default_factory=LogSettings)
    warnings: tuple[str, ...] = ()
    """What is no fault but should be known, each a line that names its place."""
