"""Where a socket listens: HOST:PORT, [::1]:PORT or unix:PATH."""

import ipaddress
from dataclasses import dataclass


def is_loopback(host: str) -> bool:
    """Whether `host` (no brackets) is `localhost` or a loopback address in its usual spelling.

    Odd spellings (`127.1`, a decimal number, a trailing dot, `0.0.0.0`) are not: they are how DNS rebinding
    and request forgery get past such checks.
    """
    if host.lower() == "localhost" or host == "::1":
        return True
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Address:
    """A listening address: a host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.path is not None or is_loopback(self.host)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
