"""Whether `tls` fits the URLs it is for, and its files each other. That they can be read is known by now."""

import ssl
from collections.abc import Collection, Iterable, Iterator, Mapping

from ..tls import Tls, client_context
from .diagnostics import Path, Report
from .model import CredentialSection, TlsSection
from .routes import ExpandedRoute

_NOT_OF_THIS_CERTIFICATE = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}


def check_tls(
    credentials: Mapping[str, CredentialSection], expanded: Collection[ExpandedRoute], report: Report
) -> None:
    """Report what would fail, or have no effect, when connections are made."""
    sections: dict[Path, TlsSection] = {("credentials", name): section.tls for name, section in credentials.items()}
    sections |= {one.path: one.section.tls for one in expanded}
    for path, section in sections.items():
        for field, text in _wrong_files(Tls(**section.written())):
            concerned = ["ca_file"] if field == "ca_file" else ["cert_file", "key_file"]
            report.add((*path, "tls", field), text, unless=[(*path, "tls", other) for other in concerned])
    for path, field, where in _without_tls(credentials, expanded):
        if sections[path].written():
            text = f"has no effect at {where}; write https:// there, or remove tls"
            report.add((*path, "tls"), text, at="key", unless=[(*path, field), (*path, "tls")])


def _without_tls(
    credentials: Mapping[str, CredentialSection], expanded: Iterable[ExpandedRoute]
) -> Iterator[tuple[Path, str, str]]:
    """Which route or credential leads to `http://`, by which of its fields, and to what."""
    token_urls = {name: section.token_url or "" for name, section in credentials.items()}
    for name, url in token_urls.items():
        if url.startswith("http://"):
            yield ("credentials", name), "token_url", "an http:// token_url"
    for one in expanded:
        if one.upstream and one.upstream.scheme == "http":
            where = "an http:// upstream" + (f" (data center {one.data_center})" if one.data_center else "")
            yield one.path, "upstream", where
            name = one.section.credential or ""
            if token_urls.get(name, "").startswith("/"):
                yield ("credentials", name), "token_url", where


def _wrong_files(tls: Tls) -> Iterator[tuple[str, str]]:
    """The field at fault, and why."""
    if tls.ca_file is not None and _refusal(Tls(ca_file=tls.ca_file)):
        yield "ca_file", "holds no certificates in PEM form"
    if tls.cert_file is None:
        if tls.key_file is not None:
            yield "key_file", "is the key of no certificate; add cert_file, or remove it"
    elif _refusal(Tls(ca_file=tls.cert_file)):
        yield "cert_file", "holds no certificate in PEM form"
    elif refusal := _refusal(Tls(ca_file=tls.cert_file, cert_file=tls.cert_file, key_file=tls.key_file)):
        yield ("cert_file" if tls.key_file is None else "key_file"), _about_key(refusal, tls)


def _about_key(refusal: OSError, tls: Tls) -> str:
    """What is wrong with a key or, as OpenSSL tells only then, with its certificate."""
    if not isinstance(refusal, ssl.SSLError):
        return str(refusal)
    if refusal.reason in _NOT_OF_THIS_CERTIFICATE:
        return "the private key does not belong to the certificate"
    if refusal.reason:
        return f"OpenSSL refuses the certificate or its key ({refusal.reason.lower().replace('_', ' ')})"
    return "holds no private key in PEM form" + ("; name its file as key_file" if tls.key_file is None else "")


def _refusal(tls: Tls) -> OSError | None:
    try:
        client_context(tls, ssl.SSLContext)
    except OSError as error:
        return error
    return None
