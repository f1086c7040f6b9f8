"""What is no fault of a config but should be known."""

import re
from collections.abc import Iterator, Mapping

from ..secret import Secret
from ..tokens.credential import Assertion, Credential, OwnJwt, Source, TokenEndpoint
from .diagnostics import Path, Problem
from .headers import comes_unasked
from .keys import digest_bytes, is_short
from .model import Config, CredentialSection
from .placeholders import peek, standing_in

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-")
_LITERALS = ("client_id", "client_secret", "username", "password", "refresh_token", "token", "subject_token")


def find_warnings(config: Config, credentials: Mapping[str, Credential]) -> list[Problem]:
    """What is no fault but should be known."""
    used = {route.credential for route in config.routes.values()}
    used |= {name for credential in credentials.values() for name in credential.chained}
    unused = [
        Problem(("credentials", name), "no route uses this credential", "key")
        for name in credentials
        if name not in used
    ]
    differing = [
        Problem(
            ("credentials", name),
            "the client id or secret has characters on which the two forms of Basic authentication differ; "
            "say basic_encoding: form or raw",
            "key",
        )
        for name, credential in credentials.items()
        if _basic_encoding_matters(config.credentials[name], credential.source)
    ]
    as_written = [
        Problem(("credentials", name, field), "is sent as it stands here; a variable is written {env: NAME}")
        for name, section in config.credentials.items()
        for field in _LITERALS
        if _looks_like_reference(getattr(section, field))
    ]
    short = [
        Problem(
            ("credentials", name, *place),
            f"is shorter than the {digest_bytes(assertion)} bytes that {assertion.algorithm} asks for (RFC 7518)",
        )
        for name, credential in credentials.items()
        for place, assertion in _signed(credential.source)
        if is_short(assertion)
    ]
    stars = [
        Problem(("routes", prefix), "* is a letter like others; a prefix fits all paths below it", "key")
        for prefix in config.routes
        if "*" in prefix
    ]
    unasked = [
        Problem(("require_header",), "browsers send this header by themselves; a name of your own keeps web pages out")
        for name in [config.require_header]
        if name and comes_unasked(name)
    ]
    return unused + differing + as_written + short + stars + unasked


def _basic_encoding_matters(section: CredentialSection, source: Source) -> bool:
    """Whether nobody chose how Basic is encoded, and it makes a difference for this id or secret."""
    if not isinstance(source, TokenEndpoint) or section.basic_encoding is not None:
        return False
    is_sent = source.client.auth == "client_secret_basic" or "client_basic" in standing_in(source)
    return is_sent and not set(peek(source.client.id) + peek(source.client.secret)) <= _UNRESERVED


def _looks_like_reference(secret: Secret | None) -> bool:
    """Whether a literal is most likely meant as the name of something, in another language's way."""
    return re.match(r"\$\{?\w+\}?$|(env|file):", peek(secret)) is not None


def _signed(source: Source) -> Iterator[tuple[Path, Assertion]]:
    """What is signed here, and where its key stands."""
    client = source.client.assertion if isinstance(source, TokenEndpoint) else None
    own = source.assertion if isinstance(source, TokenEndpoint | OwnJwt) else None
    if client is not None:
        yield ("client_secret",), client
    if isinstance(own, Assertion):
        yield ("assertion", "key"), own
