"""Every answer that bearward makes itself has a name: its code, its status and its public title (RFC 9457)."""

import os
import socket
import ssl
from dataclasses import dataclass
from typing import Final

TITLES: Final[dict[str, tuple[int, str]]] = {
    "bad_request": (400, "The request is not well formed"),
    "bad_path": (400, "The path is not one that can be forwarded safely"),
    "principal_required": (400, "The request does not say on whose behalf it is made"),
    "origin_not_allowed": (403, "Requests of this browser origin are not accepted"),
    "header_required": (403, "A required header is missing"),
    "no_route": (404, "No route has this path"),
    "method_not_allowed": (405, "This method is not forwarded"),
    "request_timeout": (408, "The request did not arrive in time"),
    "body_too_large": (413, "The request body is too large"),
    "target_too_long": (414, "The request target is too long"),
    "expectation_failed": (417, "This expectation cannot be met"),
    "host_not_allowed": (421, "This host name is not served here"),
    "headers_too_large": (431, "The request header section is too large"),
    "internal_error": (500, "An error inside bearward"),
    "upstream_unreachable": (502, "The upstream cannot be reached"),
    "upstream_tls": (502, "No TLS connection to the upstream could be made"),
    "upstream_protocol": (502, "The upstream's answer is not valid HTTP"),
    "upstream_closed": (502, "The upstream closed the connection before it answered"),
    "token_unavailable": (503, "There is no usable token at the moment"),
    "credential_rejected": (503, "The identity provider refuses the credential"),
    "overloaded": (503, "Too many requests at the moment"),
    "draining": (503, "bearward is stopping"),
    "upstream_timeout": (504, "The upstream did not answer in time"),
    "version_not_supported": (505, "This version of HTTP is not supported"),
}
"""Code → status and title. `internal_error` stands for a fault of bearward's own and is a bug wherever seen."""


@dataclass(eq=False)
class ProblemError(Exception):
    """A request that bearward answers itself. `detail` is public: it never holds request bytes or a secret."""

    code: str
    detail: str
    retry_after: float | None = None
    """Seconds; every 503 has one."""
    allow: str | None = None
    """What a 405 allows (RFC 9110 §15.5.6)."""
    close: bool = False
    """Whether the connection is of no further use."""

    @property
    def status(self) -> int:
        return TITLES[self.code][0]

    @property
    def title(self) -> str:
        return TITLES[self.code][1]

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


def tls_reason(error: Exception) -> str:
    """Why a certificate is not accepted."""
    return os_reason(error) if isinstance(error, OSError) else "the certificate is not accepted"


def os_reason(error: OSError) -> str:
    """What the system says of an error, without the addresses and names that libraries put around it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        if error.reason and "ALERT" in error.reason:
            return f"the other side refuses the TLS connection, perhaps for want of a certificate ({error.reason})"
        return f"no TLS is spoken there, or not ours ({error.reason or 'unknown'})"
    if isinstance(error, socket.gaierror) or (error.errno or 0) < 0:
        return "no such host name"
    return os.strerror(error.errno) if error.errno else "the connection was closed"
