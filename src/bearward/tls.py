"""TLS towards a server: what the config may say of it, and the context that comes of that."""

import ssl
from dataclasses import dataclass
from typing import NoReturn, TypeVar


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM format, named by absolute paths."""

    ca_file: str | None = None
    """Whom to trust, in place of the system's roots."""
    cert_file: str | None = None
    """The certificate shown to the server, with its chain."""
    key_file: str | None = None
    """That certificate's key, not protected by a password; None where it stands in `cert_file`."""
    server_name: str | None = None
    """The name to ask for (SNI) and to find in the certificate, in place of the URL's host."""


C = TypeVar("C", bound=ssl.SSLContext)


def client_context(tls: Tls, kind: type[C]) -> C:
    """A context of this kind that checks names and certificates.

    Raises `OSError` (`ssl.SSLError` too) for files that do not fit.
    """
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca_file is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(tls.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file, password=_ask_nobody)
    return context


def _ask_nobody() -> NoReturn:
    """OpenSSL would ask on the terminal."""
    raise OSError("the private key is protected by a password; use one without")
