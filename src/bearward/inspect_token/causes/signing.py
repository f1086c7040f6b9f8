"""A JWT that was signed here is not accepted: its audience, key, times or issuer (RFC 7523 §3)."""

from collections.abc import Iterator
from dataclasses import dataclass

from ...tokens.credential import JWT_BEARER, Assertion
from .evidence import Evidence, Suggestion

_SKEW = 30.0


@dataclass(frozen=True)
class _Fields:
    """How the config calls the parts of a JWT."""

    audience: str
    key: str
    key_id: str
    algorithm: str
    lifetime: str
    issuer: str


_OF_CLIENT = _Fields(
    "assertion_audience", "client_key", "client_key_id", "assertion_algorithm", "assertion_lifetime", "client_id"
)
_OWN = _Fields(
    "assertion.audience",
    "assertion.key",
    "assertion.key_id",
    "assertion.algorithm",
    "assertion.lifetime",
    "assertion.issuer and assertion.subject",
)


def about_signing(evidence: Evidence) -> Iterator[Suggestion]:
    """What of the JWT may be wrong; the answer's words decide, else experience does."""
    endpoint = evidence.endpoint
    if not evidence.is_refused or endpoint is None or evidence.code in {"invalid_scope", "unsupported_grant_type"}:
        return
    if evidence.status in {404, 405}:
        return
    if (client := endpoint.client.assertion) is not None:
        yield from _parts(evidence, client, _OF_CLIENT)
    if isinstance(endpoint.assertion, Assertion):
        yield from _parts(evidence, endpoint.assertion, _OWN)
    elif endpoint.assertion is not None and endpoint.grant_type == JWT_BEARER:
        yield Suggestion(
            60,
            "the assertion has expired, or is not meant for this identity provider.",
            "assertion: look at its claims above; whoever writes it must renew it.",
        )


def _parts(evidence: Evidence, assertion: Assertion, fields: _Fields) -> Iterator[Suggestion]:
    is_default = assertion.audience is None
    audience = "it is the token URL; many want the issuer" if is_default else "it is what the config says"
    yield Suggestion(
        92 if evidence.is_said(r"\baud(ience)?\b") else 64 if is_default else 45,
        f"the audience of the JWT is not the one that is expected: {audience}.",
        f"{fields.audience}: the identity provider's issuer, as its openid-configuration has it.",
    )
    is_key_said = evidence.is_said(r"\bkid\b|key.?id|jwks|matching key|find.*key|load.*key|public key|thumbprint")
    if assertion.algorithm.startswith("HS"):
        yield Suggestion(
            88 if evidence.is_said("signature") else 62,
            "the secret that signs is not the one they have.",
            "client_secret: copy it anew." if fields is _OF_CLIENT else f"{fields.key}: copy it anew.",
        )
    else:
        told = "the JWT names no key" if assertion.key_id is None else "the kid of the JWT is not known there"
        yield Suggestion(
            91 if is_key_said else 60 if assertion.key_id is None else 50,
            f"the identity provider does not find the key: {told}.",
            f"{fields.key_id}: the kid under which the public key is registered.",
        )
        yield Suggestion(
            88 if evidence.is_said("signature") else 48,
            "the key is not the one that is registered.",
            f"{fields.key}: the private half of what is registered there.",
        )
    yield from _clock(evidence)
    if evidence.is_said(r"lifetime|too long|too far|exceed"):
        yield Suggestion(92, "the JWT lives longer than is allowed.", f"{fields.lifetime}: a shorter one.")
    if evidence.is_said(r"\balg\b|algorithm"):
        yield Suggestion(91, "another algorithm is expected.", f"{fields.algorithm}: the registered one.")
    if evidence.is_said(r"\biss(uer)?\b|\bsub(ject)?\b"):
        yield Suggestion(89, "issuer or subject of the JWT are not what is expected.", f"{fields.issuer}: check them.")


def _clock(evidence: Evidence) -> Iterator[Suggestion]:
    is_said = evidence.is_said(r"\b(iat|nbf|exp)\b|expired|clock|future|not yet|too old|not before")
    if is_said or abs(evidence.skew) > _SKEW:
        told = f", by {abs(evidence.skew):.0f} s" if abs(evidence.skew) > _SKEW else ""
        # Where the answer has a Date, the JWT was signed once more by it: then it was hardly the clock.
        yield Suggestion(
            90 if is_said else 47 if evidence.was_repeated else 72,
            f"this machine's clock and the identity provider's differ{told}.",
            "set this machine's clock by NTP (timedatectl).",
        )
