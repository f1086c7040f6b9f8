"""A secret that is not what its owner thinks: quotes, spaces, a reference that nobody resolves."""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator

from ...secret import Secret, SecretUnreadableError
from ...tokens.failure import Reason
from .evidence import Evidence, Suggestion

_NOT_THE_SECRETS = {"invalid_scope", "unsupported_grant_type", "invalid_target", "invalid_request"}
_PRINTABLE = re.compile(r"[\x20-\x7e]{8,}\s?")


def about_secrets(evidence: Evidence) -> Iterator[Suggestion]:
    """What can be seen of the secrets by themselves, where they may be why it was refused."""
    if evidence.reason is Reason.SECRET_UNREADABLE:
        yield Suggestion(
            80,
            "a secret or key cannot be used as it is now; nothing was sent.",
            "put right what `no token` names above, readable by this user.",
        )
    if not evidence.is_refused or evidence.code in _NOT_THE_SECRETS or evidence.status in {404, 405}:
        return
    for name, secret in _named(evidence):
        try:
            text = secret.reveal()
        except SecretUnreadableError:
            continue
        for weight, likely, attempt in _oddities(name, text):
            yield Suggestion(weight, f"{name} (from {secret.origin}) {likely}", attempt)


def _named(evidence: Evidence) -> Iterator[tuple[str, Secret]]:
    endpoint = evidence.endpoint
    if endpoint is None:
        return
    named = {
        "client_id": endpoint.client.id,
        "client_secret": endpoint.client.secret,
        "username": endpoint.username,
        "password": endpoint.password,
        "refresh_token": endpoint.refresh_token,
        "subject_token": endpoint.subject_token,
    }
    yield from ((name, secret) for name, secret in named.items() if secret is not None)


def _oddities(name: str, text: str) -> Iterator[Suggestion]:
    """Each with its likely cause as the end of a sentence."""
    bare = text.strip()
    if re.fullmatch(r"\$\w+|\$?\{\{?.*\}?\}|\$\(.*\)|%\w+%|(env|file):.*", bare):
        yield Suggestion(
            96,
            "looks like a reference that nobody resolves: it is sent letter for letter.",
            f"{name}: {{env: NAME}} for a variable, or {name}: {{file: PATH}}.",
        )
    elif re.fullmatch(r"<[^<>]*>|x{3,}|change-?me|todo|your[-_ ].*", bare, re.IGNORECASE):
        yield Suggestion(95, "is a placeholder, not a value.", f"put the real one into {name}.")
    elif text.startswith("\ufeff"):
        yield Suggestion(
            95,
            "begins with a byte order mark, which is sent with it.",
            f"save the file of {name} as UTF-8 without BOM.",
        )
    elif len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'`":
        yield Suggestion(
            94,
            "stands in quotation marks, which are sent with it.",
            f"take the quotation marks off {name}.",
        )
    elif text != bare:
        yield Suggestion(
            93,
            "begins or ends with a space or a line break, which is sent with it.",
            f"take it off {name}.",
        )
    elif re.match(r"(basic|bearer) ", bare, re.IGNORECASE):
        yield Suggestion(92, "is a whole Authorization header.", f"put only the value itself into {name}.")
    elif re.match(r"[A-Z][A-Z0-9_]{3,}=|[\w-]+: ", bare) or "\n" in bare or bare.startswith("{"):
        yield Suggestion(
            90,
            "has more in it than the value: a name before it, or several lines.",
            f"put only the value itself into {name}.",
        )
    elif _is_base64_of_text(bare):
        yield Suggestion(
            84,
            "looks like the Base64 form of the value, as Kubernetes writes a Secret.",
            f"decode it (base64 -d) and put the result into {name}.",
        )


def _is_base64_of_text(text: str) -> bool:
    """Random bytes in Base64 hardly ever decode to letters alone."""
    if len(text) < 12 or len(text) % 4:
        return False
    try:
        decoded = b64decode(text, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return False
    return _PRINTABLE.fullmatch(decoded) is not None
