"""The client is not accepted: its secret, how that is encoded, where it is put (RFC 6749 §2.3, §5.2)."""

import string
from collections.abc import Iterator

from ...secret import SecretUnreadableError
from ...tokens.credential import Client
from .evidence import Evidence, Suggestion

_UNRESERVED = frozenset(string.ascii_letters + string.digits + "._~-")
_NO_CLIENT = (
    r"client_(id|secret)\W.*(missing|required|must|not found|absent)"
    r"|(missing|required|must|no|absent|contain)\b.*client_(id|secret)"
    r"|(no|missing) client (authentication|credential)|auth(entication)? method|authentication mechanism"
)
_BOTH = (
    r"only one (mechanism|method)|multiple (client )?(credential|authentication|mechanism)|more than one (client )?auth"
)
_IS_GRANT = r"not (enabled|allowed|authori[sz]ed|permitted)|service account|direct access|grant"


def about_clients(evidence: Evidence) -> Iterator[Suggestion]:
    """Where the client was refused, or nothing says that it was something else."""
    client, code = evidence.client, evidence.code
    if not evidence.is_refused or evidence.endpoint is None or evidence.status in {404, 405}:
        return
    if code in {"invalid_request", "invalid_client", "unauthorized_client"} and evidence.is_said(_BOTH):
        yield Suggestion(
            92,
            "the client is named twice: by client_auth, and once more in params or headers.",
            "take the client's id and secret out of params and headers.",
        )
    if code == "unauthorized_client" and evidence.is_said(_IS_GRANT):
        return  # not the secret
    is_told = code in {"invalid_client", "unauthorized_client"}
    is_open = code not in {"invalid_scope", "invalid_grant", "unsupported_grant_type", "invalid_target"}
    if client.assertion is not None or not (is_told or (is_open and evidence.status in {400, 401, 403})):
        return
    yield from _where(evidence, client)
    if client.auth == "none":
        if is_told and client.secret is None:
            yield Suggestion(
                72,
                "the client must prove who it is, or its client_id is unknown here.",
                "client_auth: client_secret_basic, with client_secret; else check client_id.",
            )
        return
    if is_told or evidence.status == 401:
        yield from _encoding(evidence, client)
        yield _wrong(evidence)


def _wrong(evidence: Evidence) -> Suggestion:
    secret = evidence.client.secret
    if evidence.is_keycloak and evidence.code == "invalid_client":
        return Suggestion(
            84,
            "the client_id is unknown in this realm (to a wrong secret Keycloak says unauthorized_client).",
            "client_id: check it, and the realm in token_url.",
        )
    origin = f" (now from {secret.origin})" if secret else ""
    if evidence.code == "unauthorized_client":
        told = (
            "Keycloak says unauthorized_client for a wrong secret, too"
            if evidence.is_keycloak
            else "unauthorized_client"
        )
        return Suggestion(
            78 if evidence.is_keycloak else 50,
            f"client_secret is wrong for this client ({told}).",
            f"client_secret{origin}: copy it anew; check client_id, and the realm that it is of.",
        )
    return Suggestion(
        65,
        "client_secret is wrong for this client, has been replaced, or the client_id is unknown.",
        f"client_secret{origin}: copy it anew; check client_id as well.",
    )


def _encoding(evidence: Evidence, client: Client) -> Iterator[Suggestion]:
    """Form-encoding before Base64 is what RFC 6749 §2.3.1 says; RFC 7617 and many servers know nothing of it."""
    if client.auth != "client_secret_basic" or not _is_encoding_visible(client):
        return
    other = "raw" if client.basic_encoding == "form" else "form"
    weight = 90 if evidence.is_said(r"encod|decod") else 72
    if evidence.is_keycloak:  # it decodes
        if other == "raw":
            return
        weight = 82
    yield Suggestion(
        weight,
        "client_id or client_secret has characters on which the two encodings of Basic differ, "
        f"and {client.basic_encoding} was used.",
        f"basic_encoding: {other}",
    )


def _is_encoding_visible(client: Client) -> bool:
    try:
        texts = [part.reveal() for part in (client.id, client.secret) if part is not None]
    except SecretUnreadableError:
        return False
    return not set("".join(texts)) <= _UNRESERVED


def _where(evidence: Evidence, client: Client) -> Iterator[Suggestion]:
    """Basic or parameters: which one the server looks for it does not always say."""
    is_asked_for = evidence.is_said(_NO_CLIENT)
    challenge = evidence.answer.headers.get("WWW-Authenticate", "").lower() if evidence.answer else ""
    if client.auth == "client_secret_basic":
        yield Suggestion(
            86 if is_asked_for else 45,
            "the server looks for the client in the parameters, not in Basic.",
            "client_auth: client_secret_post",
        )
    elif client.auth == "client_secret_post":
        weight = 86 if is_asked_for or evidence.is_said(r"authorization header|\bbasic\b") else 45
        # Who authenticates in the body is shown no challenge (RFC 6749 §5.2); who sees one is to use it.
        yield Suggestion(
            84 if weight == 45 and challenge.startswith("basic") else weight,
            "the server looks for the client in Basic, not in the parameters.",
            "client_auth: client_secret_basic",
        )
