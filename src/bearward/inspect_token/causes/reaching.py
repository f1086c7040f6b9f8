"""No answer came: names, connections, TLS, the way out; or a program that prints no token."""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from ...tokens.credential import Command
from ...tokens.failure import Reason
from .evidence import Evidence, Suggestion

_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def about_reaching(evidence: Evidence) -> Iterator[Suggestion]:
    """Where the identity provider was not heard."""
    match evidence.reason:
        case Reason.NETWORK:
            yield from _network(evidence)
        case Reason.TLS:
            yield from _tls(evidence.failure.detail)
        case Reason.TIMEOUT:
            yield from _timeout(evidence)
        case Reason.COMMAND_FAILED:
            yield from _command(evidence)


def _network(evidence: Evidence) -> Iterator[Suggestion]:
    detail, url = evidence.failure.detail, urlsplit(evidence.token_url)
    if "egress proxy answered 407" in detail:
        yield Suggestion(
            90, "the egress proxy wants a name and a password.", "egress_proxy: set its user and password."
        )
    elif "egress proxy answered" in detail:
        yield Suggestion(85, "the egress proxy does not let this host through.", "have it allow the host of token_url.")
    elif evidence.egress is not None:
        where = f"{evidence.egress.host}:{evidence.egress.port}"
        yield Suggestion(80, f"the egress proxy at {where} is not there.", "egress_proxy: check its host and port.")
    elif "no such host name" in detail:
        yield Suggestion(75, f"the host name {url.hostname} is misspelt.", "token_url: check its host name.")
        yield from _egress(evidence, 60, "this machine looks up names of the outside only through a proxy.")
    elif "refused" in detail.lower():
        yield Suggestion(
            75,
            f"nothing listens at {url.netloc}.",
            "token_url: check its host and port, and that the server runs.",
        )
        yield from _egress(evidence, 50, "a firewall refuses connections to the outside.")
    elif "closed" in detail or "reset" in detail.lower():
        other = "https" if url.scheme == "http" else "http"
        yield Suggestion(65, f"another protocol is spoken at {url.netloc}.", f"token_url: try {other}://, or its port.")
        yield from _egress(evidence, 55, "a firewall ends connections to the outside.")
    else:
        yield from _egress(evidence, 70, "this machine has no way to that network.")


def _egress(evidence: Evidence, weight: int, likely: str) -> Iterator[Suggestion]:
    """A proxy that this machine's other programs use is a strong hint; bearward reads no such variables."""
    name = next((name for name in _PROXY_VARIABLES if os.environ.get(name)), None)
    if evidence.is_local:
        return
    if name and evidence.token_url.startswith("https:"):
        likely = f"the way out is a proxy: {name} is set, which is not looked at."
        yield Suggestion(88, likely, f"egress_proxy: write there what {name} says.")
    else:
        yield Suggestion(weight, likely, "egress_proxy: name the proxy, if there is one; or open the firewall.")


def _tls(detail: str) -> Iterator[Suggestion]:
    reason = detail.lower()
    if "files of tls" in reason or "cannot be used" in reason:
        yield Suggestion(
            90, "a file named in tls is not what it should be.", "tls: check ca_file, cert_file, key_file."
        )
    elif "self-signed" in reason or "self signed" in reason or "issuer" in reason or "unable to get" in reason:
        yield Suggestion(
            90,
            "its certificate is signed by an authority that this machine does not know.",
            "tls.ca_file: the PEM file of that authority (a company's proxy may sign anew, too).",
        )
    elif "mismatch" in reason:
        yield Suggestion(
            90,
            "its certificate is for another name than the one in token_url.",
            "token_url: use the name in the certificate; or say it as tls.server_name.",
        )
    elif "expired" in reason or "not yet valid" in reason:
        yield Suggestion(
            80,
            "its certificate has expired, or this machine's clock is wrong.",
            "check the date of this machine; else the server needs a new certificate.",
        )
    elif "want of a certificate" in reason:
        yield Suggestion(
            88,
            "it wants a client certificate, or another one than it was shown.",
            "tls.cert_file and tls.key_file: the client's certificate and its key.",
        )
    elif "no tls is spoken" in reason:
        yield Suggestion(
            85, "TLS is not spoken at that port.", "token_url: check its port; or http:// within the machine."
        )
    else:
        yield Suggestion(60, "the certificate is not accepted.", "tls: ca_file and server_name.")


def _timeout(evidence: Evidence) -> Iterator[Suggestion]:
    seconds = f"{evidence.credential.timeout:g} s"
    if not evidence.failure.sent:
        yield from _egress(evidence, 80, "a firewall drops what is sent there.")
        yield Suggestion(60, "host or port are wrong.", "token_url: check its host and port.")
    else:
        yield Suggestion(
            75,
            f"the identity provider takes longer than {seconds} to answer.",
            "timeout: write a longer one.",
        )
        yield Suggestion(50, "something at that port takes requests and does not answer.", "token_url: check its port.")


def _command(evidence: Evidence) -> Iterator[Suggestion]:
    source = evidence.credential.source
    assert isinstance(source, Command)  # noqa: S101 - no other source runs one
    program = source.argv[0].rpartition("/")[2]
    if "did not end" in evidence.failure.detail:
        yield Suggestion(
            80,
            f"{program} waits for something, perhaps for input; it has none.",
            "command: an option against questions; or a longer timeout.",
        )
    elif "cannot be run" in evidence.failure.detail:
        yield Suggestion(85, f"{program} is no program for this user.", "command: check its path, and chmod +x.")
    else:
        yield Suggestion(
            70,
            f"{program} says above why; often it is not logged in, or misses a variable of your shell.",
            f"run the command by hand in {source.folder}, as the user and with the variables that bearward has.",
        )
