"""The proxy through which bearward reaches the world, where it may not go there itself."""

from dataclasses import dataclass

from .secret import Secret


@dataclass(frozen=True, slots=True)
class EgressProxy:
    """An HTTP proxy that is asked to CONNECT (RFC 9110 §9.3.6). Only `https` goes through it."""

    host: str
    port: int
    authorization: Secret | None = None
    """The value of `Proxy-Authorization`, where the proxy wants one."""

    @property
    def url(self) -> str:
        """`http://HOST:PORT`, without the authorization."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"
