"""What a program printed, or a file holds → a token. Pure.

A program speaks one of three ways: Kubernetes' ExecCredential (client.authentication.k8s.io/v1), the form of Google's
pluggable auth (google.aip.dev/auth/4117), or that of a token endpoint.
"""

from collections.abc import Mapping
from typing import Any

from .answer import Issued, alive, checked, parse_json
from .credential import HeaderField, Reading
from .failure import Reason, TokenRequestError
from .lifetime import at, epoch, lifetime


def read_printed(
    output: bytes, reading: Reading, *, asked_at: float, wall: float, default: tuple[float, str]
) -> Issued:
    """The token; `asked_at` and `wall` are the same moment by `clock.now()` and by the wall clock.

    `default` is its life in seconds where nothing tells, and what to call that. Raises `TokenRequestError`.
    """
    document = parse_json(output)
    status = document.get("status") if isinstance(document, Mapping) else None
    if isinstance(status, Mapping) and "token" in status:
        token, document = status["token"], {"expires_at": status.get("expirationTimestamp")}
    elif isinstance(document, Mapping) and "success" in document:
        token, document = _pluggable(document)
    elif isinstance(reading.token, HeaderField) or not reading.token:
        token = output.decode("utf-8", "replace").strip()
    else:
        token = at(document, reading.token)
    where = ".".join(reading.token) if isinstance(reading.token, tuple) else ""
    token = checked(token, document, where or "the text")
    seconds, source = lifetime(document, token, reading, wall, default)
    return Issued(token=token, asked_at=asked_at, lifetime=alive(seconds, source), lifetime_from=source)


def _pluggable(document: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    if document["success"] is not True:
        raise TokenRequestError(Reason.COMMAND_FAILED, "the command says that it had no success")
    token = document.get("id_token") or document.get("access_token")
    return token, {"expires_at": epoch(document.get("expiration_time"))}
