"""The URL of the proxy that leads out → an `EgressProxy`."""

import base64
import re
from urllib.parse import unquote_to_bytes

from ..egress import EgressProxy
from ..secret import Secret
from .diagnostics import WrongError
from .urls import split_host

_URL = re.compile(
    r"http://(?:(?P<user>(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})+)@)?(?P<authority>[^/?#@]*)/?", re.ASCII
)


def read_proxy(text: str) -> EgressProxy:
    """`http://HOST:PORT` or `http://USER:PASSWORD@HOST:PORT`, both percent-encoded. Raises `WrongError`."""
    found = _URL.fullmatch(text)
    if not found:
        raise WrongError(
            "must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT; in user and password, special characters "
            "are percent-encoded (@ is %40); proxies of other kinds are not supported"
        )
    host, port = split_host(found["authority"])
    if not port:
        raise WrongError("the port of the proxy is missing; write http://HOST:PORT")
    return EgressProxy(host, port, _basic(found["user"]) if found["user"] else None)


def _basic(user_and_password: str) -> Secret:
    """The value of Proxy-Authorization (RFC 7617); without a colon, an empty password."""
    user, _, password = user_and_password.partition(":")
    decoded = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return Secret("Basic " + base64.b64encode(decoded).decode(), "the user and password of egress_proxy")
