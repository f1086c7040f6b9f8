"""Whether keys and certificates can sign what they are for. `cryptography` is loaded only where there are some."""

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..tokens.credential import Assertion
from .diagnostics import Path, Report
from .placeholders import peek

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

_LABEL = re.compile(r"-----BEGIN (?:RSA |EC )?([A-Z0-9 ]+)-----")
_OTHER_PEM = {
    "CERTIFICATE": ", but a certificate",
    "PUBLIC KEY": ", but a public key",
    "OPENSSH PRIVATE KEY": ", but one in OpenSSH's form; convert it: ssh-keygen -p -m PKCS8 -f FILE",
}
"""What is often put in place of a private key, by its label."""
_CURVES = {"ES256": ("secp256r1", "P-256"), "ES384": ("secp384r1", "P-384"), "ES512": ("secp521r1", "P-521")}


def check_key(assertion: Assertion, at: Mapping[str, Path], report: Report) -> None:
    """Report a key that cannot sign, and a certificate of another. `at`: where algorithm, key and certificate stand."""
    key = peek(assertion.key)
    if not key or report.is_faulty(at["algorithm"], at["key"]):
        return
    if wrong := _wrong_key(key, assertion.algorithm, str(at["algorithm"][-1])):
        report.add(at["key"], wrong)
    elif assertion.certificate is not None and (wrong := _wrong_certificate(key, assertion)):
        report.add(at["certificate"], wrong, unless=[at["certificate"]])


def is_short(assertion: Assertion) -> bool:
    """Whether a shared secret is shorter than the digest it is for (RFC 7518 §3.2)."""
    return assertion.algorithm.startswith("HS") and len(peek(assertion.key).encode()) < digest_bytes(assertion)


def digest_bytes(assertion: Assertion) -> int:
    """Of an `HS` algorithm."""
    return int(assertion.algorithm[2:]) // 8


def _wrong_key(key: str, algorithm: str, field: str) -> str | None:
    if algorithm.startswith("HS"):
        return f"{algorithm} takes a shared secret, and this is a key in PEM form" if _LABEL.search(key) else None
    try:
        private = _private_key(key)
    except TypeError:
        return "the private key is protected by a password; use one without"
    except Exception:  # of many kinds, and its text may hold a part of the key
        return "holds no private key in PEM form" + _what_it_is(key)
    return _misfit(private, algorithm, field) or _refused(private, algorithm)


def _what_it_is(text: str) -> str:
    """What is often put in place of a private key."""
    if text.lstrip().startswith("{"):
        return ", but JSON; add field: private_key beside file"
    label = _LABEL.search(text)
    return _OTHER_PEM.get(label[1], "") if label else ""


def _private_key(key: str) -> "PrivateKeyTypes":
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(key.encode(), None)


def _misfit(private: Any, algorithm: str, field: str) -> str | None:
    """What kind of key it is, which one the algorithm takes, and which algorithm `field` may name for it."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    curve, name = _CURVES.get(algorithm, ("", ""))
    if isinstance(private, rsa.RSAPrivateKey):
        kind, fits, fitting = "an RSA key", algorithm[:2] in {"RS", "PS"}, "RS256"
    elif isinstance(private, ec.EllipticCurvePrivateKey):
        kind, fits = f"an EC key on the curve {private.curve.name}", private.curve.name == curve
        fitting = next((name for name, (its, _) in _CURVES.items() if its == private.curve.name), "")
    elif isinstance(private, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        kind, fits, fitting = "an Ed25519 or Ed448 key", algorithm == "EdDSA", "EdDSA"
    else:
        kind, fits, fitting = "a key of another kind", False, ""
    if fits:
        return None
    wanted = f"an EC key on the curve {name} ({curve})" if curve else "an RSA key"
    wanted = "an Ed25519 or Ed448 key" if algorithm == "EdDSA" else wanted
    return f"is {kind}; {algorithm} needs {wanted}" + (f", and this one {field}: {fitting}" if fitting else "")


def _refused(private: Any, algorithm: str) -> str | None:
    """Signs a probe: a key may still be too small."""
    import jwt

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            jwt.encode({}, private, algorithm)
    except Exception:  # as above
        return f"cannot sign with {algorithm}; most likely the key is too small"
    return None


def _wrong_certificate(key: str, assertion: Assertion) -> str | None:
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certificate = load_pem_x509_certificate(peek(assertion.certificate).encode())
        is_of_key = certificate.public_key() == _private_key(key).public_key()
    except Exception:  # as above
        return "holds no certificate in PEM form"
    return None if is_of_key else "is not the certificate of the private key"
