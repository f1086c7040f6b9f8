"""Secrets for configs that name some: whatever a file is called for, it holds something of that kind."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

TEXT = "a-secret-value"
ME = "the client"


def made_up(file: str, owner: str = ME) -> str:
    """What stands in a file of this name; keys and certificates of one `owner` belong together."""
    if file.endswith("key.pem"):
        return private_key(owner).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    if file.endswith("certificate.pem"):
        return certificate(owner).public_bytes(Encoding.PEM).decode()
    if file.endswith("google.json"):
        key = {"type": "service_account", "private_key": made_up("key.pem", owner), "private_key_id": "key-1"}
        return json.dumps(key | {"client_email": "reports@acme-project.iam.gserviceaccount.com"})
    return f"{TEXT}\n"


@cache
def private_key(owner: str) -> rsa.RSAPrivateKey:
    """The owner's."""
    return rsa.generate_private_key(65537, 2048)


@cache
def certificate(owner: str) -> x509.Certificate:
    """Self-signed, of the owner's key."""
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bearward")]), datetime.now(UTC)
    unsigned = x509.CertificateBuilder(name, name, private_key(owner).public_key(), x509.random_serial_number())
    valid = unsigned.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    return valid.sign(private_key(owner), hashes.SHA256())
