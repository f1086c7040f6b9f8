"""Keys that clients sign with, and certificates that they show."""

import base64
import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from evidence import SECRETS

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_JWKS = {
    rsa.RSAPrivateKey: RSAAlgorithm,
    ec.EllipticCurvePrivateKey: ECAlgorithm,
    ed25519.Ed25519PrivateKey: OKPAlgorithm,
}


@dataclass(frozen=True)
class Key:
    """A key pair with the name `kid`: private in a PEM file, public as a JWK (RFC 7517)."""

    kid: str
    file: str
    jwk: dict[str, Any]
    private: _PrivateKey

    @classmethod
    def new(cls, kid: str, private: _PrivateKey, folder: Path) -> "Key":
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        SECRETS.add(pem.split("\n")[-3][-24:], "private key")  # of its last lines, that hold no usual header
        file = folder / f"{kid}.key"
        file.write_text(pem)
        kind = next(algorithm for base, algorithm in _JWKS.items() if isinstance(private, base))
        public = json.loads(kind.to_jwk(private.public_key()))
        return cls(kid, str(file), {"kty": public["kty"], "kid": kid, **public}, private)

    def certificate(self, folder: Path) -> tuple[str, str]:
        """The file of a certificate that it has signed for itself, and what `x5c` has of it."""
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.kid)])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder(name, name, self.private.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(self.private, None if isinstance(self.private, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        )
        file = folder / f"{self.kid}.crt"
        file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return str(file), base64.b64encode(made.public_bytes(serialization.Encoding.DER)).decode()


class Keys:
    """One of each kind, and one that nobody knows."""

    def __init__(self, folder: Path) -> None:
        self.rsa = Key.new("rsa", rsa.generate_private_key(65537, 2048), folder)
        self.ec = Key.new("ec", ec.generate_private_key(ec.SECP256R1()), folder)
        self.ed = Key.new("ed", ed25519.Ed25519PrivateKey.generate(), folder)
        self.stranger = Key.new("stranger", ec.generate_private_key(ec.SECP256R1()), folder)

    @property
    def public(self) -> dict[str, Any]:
        """What a server knows (a JWK set)."""
        return {"keys": [key.jwk for key in (self.rsa, self.ec, self.ed)]}
