"""What is no fault of a config but should be known."""

import os.path
import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from ..secret import Secret
from ..tokens.credential import Assertion, Credential, OwnJwt, Source, TokenEndpoint
from ..tokens.recipe import PLACEHOLDERS
from .diagnostics import Path, Problem
from .headers import comes_unasked
from .keys import digest_bytes, is_short
from .model import Config, CredentialSection
from .placeholders import FIELDS, peek, standing_in

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-")
_LITERALS = ("client_id", "client_secret", "username", "password", "refresh_token", "token", "subject_token")
_UNFILLED = ("client_id", "client_secret", "username", "password", "scope")
_LOST = "a rotated refresh token is lost with the process; add token_store: {path: FILE}"
_LEFT_OPEN = "sessions stay open after a stop; add logout_url, where the vendor has one"


def find_warnings(config: Config, credentials: Mapping[str, Credential], folder: FilePath) -> list[Problem]:
    """What is no fault but should be known. Relative paths start at `folder`."""
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
        Problem(("credentials", name, field), text)
        for name, section in config.credentials.items()
        for field, text in _sent_as_written(section, folder)
    ]
    sessions = [
        Problem(("credentials", name, "grant_type"), text)
        for name, credential in credentials.items()
        if isinstance(credential.source, TokenEndpoint)
        for text in _about_sessions(credential.source, is_kept=config.token_store is not None)
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
    return unused + differing + as_written + sessions + short + stars + unasked


def _basic_encoding_matters(section: CredentialSection, source: Source) -> bool:
    """Whether nobody chose how Basic is encoded, and it makes a difference for this id or secret."""
    if not isinstance(source, TokenEndpoint) or section.basic_encoding is not None:
        return False
    is_sent = source.client.auth == "client_secret_basic" or "client_basic" in standing_in(source)
    return is_sent and not set(peek(source.client.id) + peek(source.client.secret)) <= _UNRESERVED


def _sent_as_written(section: CredentialSection, folder: FilePath) -> Iterator[tuple[str, str]]:
    """The fields whose text is most likely not what is meant, and why."""
    for field in _LITERALS:
        text, literal = peek(getattr(section, field)), _literal(getattr(section, field))
        if re.match(r"\$\{?\w+\}?$|(env|file):", text):
            yield field, "is sent as it stands here; a variable is written {env: NAME}"
        elif literal and os.path.isfile(folder / literal):  # noqa: PTH113 - it may be too long for a name
            yield field, "is sent as it stands here; the content of a file is written {file: PATH}"
        elif field != "token" and text != text.strip().strip("\ufeff"):  # around a token they are cut
            yield field, "has blanks, a line break or a byte order mark around it, which are sent as well; remove them"
    for field in _UNFILLED:
        if PLACEHOLDERS.search(_literal(getattr(section, field))):
            yield field, f"is sent as it stands here; placeholders are filled only in {', '.join(FIELDS)}"


def _literal(secret: Secret | None) -> str:
    """The text where it stands in the config itself, else nothing."""
    return "" if secret is None or secret.is_file or secret.origin != Secret("").origin else peek(secret)


def _about_sessions(endpoint: TokenEndpoint, *, is_kept: bool) -> Iterator[str]:
    if endpoint.grant_type == "refresh_token" and not is_kept:
        yield _LOST
    if endpoint.grant_type == "password" and endpoint.logout_url is None:
        yield _LEFT_OPEN


def _signed(source: Source) -> Iterator[tuple[Path, Assertion]]:
    """What is signed here, and where its key stands."""
    client = source.client.assertion if isinstance(source, TokenEndpoint) else None
    own = source.assertion if isinstance(source, TokenEndpoint | OwnJwt) else None
    if client is not None:
        yield ("client_secret",), client
    if isinstance(own, Assertion):
        yield ("assertion", "key"), own
