"""`bearward check` of credentials: sources, grants, keys, placeholders, and the values that come of them."""

import datetime
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, PrivateKeyTypes

from bearward.config import load
from bearward.config.apart import Reading as ReadApart
from bearward.secret import Secret
from bearward.tokens.credential import (
    Assertion,
    Client,
    Command,
    Credential,
    GivenToken,
    HeaderField,
    OwnJwt,
    Quota,
    Reading,
    ThrottleMark,
    TokenEndpoint,
)
from bearward.tokens.recipe import Occasion, token_request
from checking import ROUTES, SECRET, assert_fault, check, lacking, loaded, more, of_credential

URL = "token_url: https://idp.example/token"
PUBLIC = f"{URL}, client_auth: none"
JWT_BEARER = "grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer'"
TOKEN_EXCHANGE = "grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange'"
SIGNING = f"{URL}, client_auth: private_key_jwt, client_id: id"
KEY = "key: {file: keys/rsa}"
PRINCIPAL = "principal: {header: X-User}"


def public(fields: str) -> str:
    """A file whose one credential has no client authentication, and these fields."""
    return of_credential(f"{PUBLIC}, {fields}")


def bearer(assertion: str) -> str:
    """A file whose one credential has the JWT bearer grant with this assertion."""
    return public(f"{JWT_BEARER}, assertion: {assertion}")


def signing(fields: str) -> str:
    """A file whose one client signs, with these fields."""
    return of_credential(f"{SIGNING}, {fields}")


def named(**credentials: str) -> str:
    """A file with these credentials; its route uses the first."""
    lines = "".join(f"  {name}: {{{fields}}}\n" for name, fields in credentials.items())
    return f"credentials:\n{lines}" + ROUTES.replace("credential: a", f"credential: {next(iter(credentials))}")


def chained(inner: str, outer: str = "") -> str:
    """A file whose credential a needs the token of b, which has these fields."""
    return named(a=f'{PUBLIC}, headers: {{§X: "{{token:b}}"}}{outer}', b=inner)


@pytest.fixture
def file(tmp_path: Path, keys: Path) -> Path:
    (tmp_path / "keys").symlink_to(keys)
    return tmp_path / "config.yaml"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of keys and certificates; a config names them as `keys/…`."""
    folder = tmp_path_factory.mktemp("keys")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    open_ = serialization.NoEncryption()

    def put(name: str, key: PrivateKeyTypes, protection: serialization.KeySerializationEncryption = open_) -> None:
        (folder / name).write_bytes(key.private_bytes(pem, form, protection))

    own = rsa.generate_private_key(65537, 2048)
    put("rsa", own)
    put("locked", own, serialization.BestAvailableEncryption(SECRET.encode()))
    put("small", rsa.generate_private_key(65537, 1024))
    put("p256", ec.generate_private_key(ec.SECP256R1()))
    put("p384", ec.generate_private_key(ec.SECP384R1()))
    openssh = serialization.PrivateFormat.OpenSSH
    (folder / "openssh").write_bytes(own.private_bytes(pem, openssh, open_))
    put("ed", ed25519.Ed25519PrivateKey.generate())
    public_form = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "public").write_bytes(own.public_key().public_bytes(pem, public_form))
    (folder / "certificate").write_bytes(certificate(own))
    (folder / "of-another").write_bytes(certificate(ec.generate_private_key(ec.SECP256R1())))
    (folder / "words").write_text(f"No key, {SECRET}.")
    (folder / "short").write_text(f"{SECRET}\n")
    (folder / "marked").write_text(f"\ufeff{SECRET}\r\n")
    return folder


def certificate(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    """One that the key signed itself, in PEM form."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "client.example")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


# In each text, § stands before the place to which the report must point.
FAULTS = {
    # sources
    "source-word": (of_credential("source: §executable, command: [true]"), "must be one of oauth2, file, static, exec"),
    "source-is-only-named": (lacking("source: file"), "path is missing; source: file needs it"),
    "static-without-token": (lacking("source: static"), "token is missing; source: static needs it"),
    "exec-without-command": (lacking("source: exec"), "command is missing; source: exec needs it"),
    "jwt-without-assertion": (lacking("source: jwt"), "assertion is missing; source: jwt needs it"),
    "token-without-source": (more(f"§token: {SECRET}"), "is only for source: static; write that as well, or remove it"),
    "path-without-source": (more("§path: keys/short"), "is only for source: file; write that as well"),
    "command-without-source": (more(f"§command: ['true', {SECRET}]"), "is only for source: exec; write that as well"),
    "file-with-token-url": (
        of_credential("source: file, path: keys/short, §token_url: /t"),
        "is only for source: oauth2; remove it",
    ),
    "static-with-timeout": (
        of_credential(f"source: static, token: {SECRET}, §timeout: 5s"),
        "is only for source: oauth2 or exec; remove it",
    ),
    "static-with-tls": (of_credential(f"source: static, token: {SECRET}, §tls: {{}}"), "is only for source: oauth2"),
    "static-with-principal": (
        of_credential(f"source: static, token: {SECRET}, §{PRINCIPAL}"),
        "is only for source: oauth2 or jwt; remove it",
    ),
    "exec-with-assertion": (
        of_credential(f"source: exec, command: ['true'], §assertion: {{{KEY}}}"),
        "is only for source: oauth2 or jwt; remove it",
    ),
    "exec-with-quota": (
        of_credential("source: exec, command: ['true'], §max_token_requests: 8/8h"),
        "is only for source: oauth2; remove it",
    ),
    "jwt-with-ttl": (of_credential(f"source: jwt, assertion: {{{KEY}}}, §ttl: 5m"), "is only for source: oauth2 or"),
    "jwt-of-text": (
        of_credential(f"source: jwt, §assertion: {SECRET}"),
        "is signed here: write {key: ...}; a token that is there already is source: static",
    ),
    "file-with-throttling": (
        of_credential("source: file, path: keys/short, response: {§throttled: {status: 400}}"),
        "response.throttled: is only for source: oauth2; remove it",
    ),
    "exec-with-cookie": (
        of_credential("source: exec, command: ['true'], response: {§token: {cookie: session}}"),
        "there is no header and no cookie to read",
    ),
    "preset-of-another-source": (
        of_credential(f"preset: §acronis-account, source: static, token: {SECRET}"),
        "token_url: is only for source: oauth2; remove it",
    ),
    "path-missing": (of_credential("source: file, path: §keys/none"), "cannot read /"),
    "path-is-a-token": (of_credential(f"source: file, path: §{SECRET}"), "cannot read the file: No such file"),
    "path-as-reference": (
        of_credential("source: file, path: §{file: keys/short}"),
        "path: write the bare path; {file: PATH} stands for what is in a file",
    ),
    "token-with-prefix": (
        of_credential(f"source: static, token: §bearer {SECRET}"),
        "token: write the token alone; inject.format adds Bearer",
    ),
    "token-of-words": (of_credential(f"source: static, token: §{SECRET} {SECRET}"), "is no token that can be sent: v"),
    "token-with-controls": (of_credential(f'source: static, token: §"{SECRET}\\x07"'), "is no token that can be sent"),
    "token-too-long": (of_credential(f"source: static, token: §{'t' * (1 + (16 << 10))}"), "of at most 16 KiB"),
    "token-not-in-its-field": (
        of_credential(f'source: static, token: §\'{{"a": "{SECRET}"}}\', response: {{token: b}}'),
        "is no token that can be sent",
    ),
    "token-empty": (of_credential('source: static, token: §""'), "token: is empty"),
    "command-is-text": (of_credential(f"source: exec, command: §print {SECRET}"), "command: must be a list: [A, B]"),
    "command-empty": (of_credential("source: exec, §command: []"), "must be a list of a program and its arguments"),
    "command-unknown": (
        of_credential(f"source: exec, command: [§print-a-token {SECRET}]"),
        "there is no such program on PATH; each argument is an item of its own, and there is no shell",
    ),
    "command-missing": (
        of_credential("source: exec, command: [§./none]"),
        "command.0: there is no such program; each argument is an item of its own",
    ),
    "command-no-program": (of_credential("source: exec, command: [§keys/words]"), "is not executable; chmod +x"),
    "command-folder": (of_credential("source: exec, command: [§./keys]"), "there is no such program"),
    "command-argument": (of_credential(f"source: exec, command: ['true', §[{SECRET}]]"), "command.1: must be text, or"),
    # client authentication
    "signing-without-key": (lacking(SIGNING), "client_key is missing; private_key_jwt needs it"),
    "signing-without-id": (
        lacking(f"{URL}, client_auth: private_key_jwt, client_key: {{file: keys/rsa}}"),
        "client_id is missing; private_key_jwt needs it",
    ),
    "signing-with-secret": (
        signing(f"client_key: {{file: keys/rsa}}, §client_secret: {SECRET}"),
        "client_auth: private_key_jwt sends no secret",
    ),
    "secret-jwt-without-secret": (
        lacking(f"{URL}, client_auth: client_secret_jwt, client_id: id"),
        "client_secret is missing; client_secret_jwt needs it",
    ),
    "key-for-nothing": (
        more("§client_key: {file: keys/rsa}"),
        "client_key: is only for client_auth: private_key_jwt; remove it",
    ),
    "key-id-for-nothing": (more("§client_key_id: k"), "client_key_id: is only for client_auth: private_key_jwt"),
    "certificate-for-nothing": (
        more("§client_certificate: {file: keys/certificate}"),
        "is only for client_auth: private_key_jwt; remove it",
    ),
    "algorithm-for-nothing": (
        more("§assertion_algorithm: ES256"),
        "is only for client_auth: private_key_jwt or client_secret_jwt; remove it",
    ),
    "lifetime-in-the-wrong-place": (
        public(f"{JWT_BEARER}, assertion: {{{KEY}}}, §assertion_lifetime: 5m"),
        "(what assertion needs stands under it)",
    ),
    "algorithm-word": (signing("client_key: {file: keys/rsa}, assertion_algorithm: §RS265"), "did you mean RS256?"),
    "algorithm-of-secrets": (
        signing("client_key: {file: keys/rsa}, assertion_algorithm: §HS256"),
        "private_key_jwt signs with RS, PS, ES or EdDSA",
    ),
    "algorithm-of-keys": (
        more("client_auth: client_secret_jwt, assertion_algorithm: §RS256"),
        "client_secret_jwt signs with HS256 to HS512",
    ),
    # keys
    "key-missing": (signing("client_key: {file: §keys/none}"), "client_key.file: cannot read /"),
    "key-words": (signing("client_key: §{file: keys/words}"), "client_key: holds no private key in PEM form"),
    "key-literal": (signing(f"client_key: §{SECRET}"), "client_key: holds no private key in PEM form"),
    "key-cut-off": (
        signing(f'client_key: §"-----BEGIN PRIVATE KEY-----\\n{SECRET}"'),
        "client_key: holds no private key in PEM form",
    ),
    "key-public": (signing("client_key: §{file: keys/public}"), "holds no private key in PEM form, but a public key"),
    "key-is-json": (
        signing(f'client_key: §\'{{"private_key": "{SECRET}"}}\''),
        "but JSON; add field: private_key beside file",
    ),
    "key-is-certificate": (signing("client_key: §{file: keys/certificate}"), "PEM form, but a certificate"),
    "key-openssh": (
        signing("client_key: §{file: keys/openssh}"),
        "but one in OpenSSH's form; convert it: ssh-keygen -p -m PKCS8 -f FILE",
    ),
    "key-locked": (signing("client_key: §{file: keys/locked}"), "is protected by a password; use one without"),
    "key-of-another-kind": (
        signing("client_key: §{file: keys/p256}"),
        "is an EC key on the curve secp256r1; RS256 needs an RSA key, and this one assertion_algorithm: ES256",
    ),
    "key-no-curve": (
        signing("client_key: §{file: keys/rsa}, assertion_algorithm: ES256"),
        "is an RSA key; ES256 needs an EC key on the curve P-256 (secp256r1), and this one assertion_algorithm: RS256",
    ),
    "key-other-curve": (
        signing("client_key: §{file: keys/p384}, assertion_algorithm: ES256"),
        "is an EC key on the curve secp384r1; ES256 needs an EC key on the curve P-256 (secp256r1), and this one",
    ),
    "key-no-edwards": (
        signing("client_key: §{file: keys/p256}, assertion_algorithm: EdDSA"),
        "EdDSA needs an Ed25519 or Ed448 key",
    ),
    "key-small": (
        signing("client_key: §{file: keys/small}, assertion_algorithm: PS512"),
        "cannot sign with PS512; most likely the key is too small",
    ),
    "certificate-of-another": (
        signing("client_key: {file: keys/rsa}, client_certificate: §{file: keys/of-another}"),
        "client_certificate: is not the certificate of the private key",
    ),
    "certificate-words": (
        signing("client_key: {file: keys/rsa}, client_certificate: §{file: keys/words}"),
        "client_certificate: holds no certificate in PEM form",
    ),
    "secret-is-a-key": (
        of_credential(f"{URL}, client_auth: client_secret_jwt, client_id: i, client_secret: §{{file: keys/rsa}}"),
        "HS256 takes a shared secret, and this is a key in PEM form",
    ),
    # assertions
    "assertion-without-key": (bearer("{issuer: me}").replace("assertion", "§assertion"), "assertion: key is missing"),
    "assertion-unknown-field": (bearer(f"{{{KEY}, §subjct: x}}"), "assertion.subjct: unknown key; did you mean subj"),
    "assertion-list": (bearer(f"§[{SECRET}]"), "assertion: must be text, or {env: NAME}, or {file: PATH}"),
    "assertion-file": (bearer("{file: §keys/none}"), "assertion.file: cannot read /"),
    "assertion-key": (
        bearer("{key: §{file: keys/p384}}"),
        "assertion.key: is an EC key on the curve secp384r1; RS256 needs an RSA key, and this one algorithm: ES384",
    ),
    "assertion-certificate": (
        bearer(f"{{{KEY}, certificate: §{{file: keys/of-another}}}}"),
        "assertion.certificate: is not the certificate of the private key",
    ),
    "assertion-lifetime": (bearer(f"{{{KEY}, lifetime: §1w}}"), "assertion.lifetime: must be a duration"),
    "assertion-lifetime-short": (bearer(f"{{{KEY}, lifetime: §10s}}"), "assertion.lifetime: must be longer than 10s"),
    "client-assertion-lifetime-short": (
        signing("client_key: {file: keys/rsa}, assertion_lifetime: §10.4"),
        "assertion_lifetime: must be longer than 10s: so far in the past",
    ),
    "assertion-claims": (bearer(f"{{{KEY}, claims: §[{SECRET}]}}"), "assertion.claims: must be a mapping"),
    "assertion-claim": (bearer(f"{{{KEY}, claims: {{a: {{env: §BEARWARD_NO}}}}}}"), "claims.a.env: the environment"),
    "assertion-time": (bearer(f"{{{KEY}, claims: {{§exp: 1}}}}"), "claims.exp: is new in each JWT; remove it"),
    "jwt-key": (
        of_credential("source: jwt, assertion: {key: §{file: keys/rsa}, algorithm: ES256}"),
        "assertion.key: is an RSA key; ES256 needs",
    ),
    # grants
    "bearer-without-assertion": (lacking(f"{PUBLIC}, {JWT_BEARER}"), "assertion is missing; grant_type: urn:ietf"),
    "assertion-for-nothing": (
        public(f"§assertion: {{{KEY}}}"),
        "jwt-bearer; remove it, or write {assertion} where it belongs",
    ),
    "exchange-without-subject": (lacking(f"{PUBLIC}, {TOKEN_EXCHANGE}"), "subject_token is missing; grant_type: urn"),
    "subject-for-nothing": (
        public(f"§subject_token: {SECRET}"),
        "is only for grant_type: urn:ietf:params:oauth:grant-type:token-exchange; remove it",
    ),
    "subject-type-for-nothing": (public("§subject_token_type: a"), "subject_token_type: is only for grant_type: urn"),
    "username-placed-nowhere": (public(f"§username: {SECRET}"), "remove it, or write {username} where it belongs"),
    "password-placed-nowhere": (public(f"§password: {SECRET}"), "remove it, or write {password} where it belongs"),
    "scope-list": (more(f"scope: §[a, {SECRET}]"), 'must be one string, separated as the vendor wants: "a b"'),
    "param-assertion": (
        public(f"{JWT_BEARER}, assertion: {SECRET}, params: {{§assertion: {SECRET}}}"),
        "sends this parameter itself",
    ),
    "param-subject-token": (
        public(f"{TOKEN_EXCHANGE}, subject_token: {SECRET}, params: {{§subject_token_type: a}}"),
        "sends this parameter itself",
    ),
    "param-client-assertion": (
        signing(f"client_key: {{file: keys/rsa}}, params: {{§client_assertion: {SECRET}}}"),
        "sends this parameter itself",
    ),
    "token-url-query-fragment": (
        of_credential(f'token_url: §"https://idp.example/t?key={SECRET}#x", client_auth: none'),
        "token_url: a URL must not have a fragment here; remove it",
    ),
    "token-url-query-space": (
        of_credential(f'token_url: §"/t?key={SECRET} x", client_auth: none'),
        "a query may hold only visible ASCII characters",
    ),
    "token-url-query-umlaut": (of_credential(f'token_url: §"/t?{SECRET}=ä", client_auth: none'), "only visible ASCII"),
    "token-url-query-without-path": (
        of_credential(f'token_url: §"https://idp.example?key={SECRET}/x", client_auth: none'),
        "a URL with a query needs a path before it",
    ),
    "token-url-path-before-query": (of_credential(f'token_url: §"/t/..?{SECRET}", client_auth: none'), "dot segments"),
    "token-url-query-in-the-clear": (
        of_credential(f'token_url: §"http://idp.example/t?{SECRET}", client_auth: none'),
        "http:// sends secrets in the clear",
    ),
    "token-url-query-principal": (
        of_credential(f'§token_url: "/t?{SECRET}={{principal}}", client_auth: none'),
        "token_url: {principal} stands here, but the credential has no principal",
    ),
    "logout-url-query": (
        public(f'logout_url: §"https://idp.example/out?key={SECRET}"'),
        "logout_url: a URL must not have a query here; remove it",
    ),
    "audience": (more("§audience: https://api.example"), "audience: unknown key: write it under params"),
    # body
    "body-with-grant": (public(f"body: {SECRET}, §grant_type: password"), "body stands in place of all parameters"),
    "body-with-params": (public(f"body: {SECRET}, §params: {{a: b}}"), "is not sent: body stands in place of all"),
    "body-with-scope": (public(f"body: {SECRET}, §scope: a"), "is not sent: body stands in place of all parameters"),
    "body-with-send": (public(f"body: {SECRET}, §send: json"), "is not sent: body stands in place of all parameters"),
    "body-with-get": (public(f"body: {SECRET}, §method: GET"), "GET has no body; remove one of method and body"),
    "body-with-post": (
        more(f"body: {SECRET}, §client_auth: client_secret_post"),
        "client_secret_post is sent as parameters, and body stands in place of them; choose client_secret_basic or",
    ),
    "body-is-mapping": (public(f"body: §{{a: {SECRET}}}"), "body: must be text, or {env: NAME}"),
    # answers
    "throttled-by-nothing": (
        more("response: {§throttled: {retry_after: 5s}}"),
        "response.throttled: needs status, contains or both",
    ),
    "throttled-status": (more("response: {throttled: {status: §4xx}}"), "must be the status of an answer: a number"),
    "throttled-unknown": (more("response: {throttled: {§contain: x}}"), "unknown key; did you mean contains?"),
    "token-place-two": (
        more("response: {§token: {header: X-T, cookie: t}}"),
        "must be a dotted path, {header: NAME} or {cookie: NAME}",
    ),
    "token-place-none": (more("response: {§token: {}}"), "must be a dotted path, {header: NAME} or {cookie: NAME}"),
    "token-place-header": (more("response: {token: {header: §'X:'}}"), "response.token.header: is no header name"),
    "token-place-cookie": (more("response: {token: {cookie: §'a;b'}}"), "response.token.cookie: is no name of a cook"),
    # limits of the vendor
    "quota-shape": (more("max_token_requests: §8"), "must be NUMBER/DURATION: 8/8h is at most eight requests in any"),
    "quota-number": (more("max_token_requests: §0/8h"), "must be a whole number from 1 to 1000000"),
    "quota-span": (more("max_token_requests: §8/h"), "must be a duration: 500ms, 90s, 15m, 2h, 7d"),
    "sessions-of-nobody": (
        more("§max_sessions: 5"),
        "is only for grant_type: password or refresh_token, whose sessions can be logged out; remove it",
    ),
    "sessions-zero": (more("max_sessions: §0"), "must be a whole number from 1"),
    # placeholders
    "assertion-stands-for-nothing": (
        public('headers: {§X: "{assertion}"}'),
        "headers.X: {assertion} stands here, but the credential has no assertion",
    ),
    "assertion-in-itself": (
        bearer(f'{{{KEY}, §subject: "{{assertion}}"}}'),
        "assertion.subject: {assertion} cannot stand in the assertion itself",
    ),
    "id-stands-for-nothing": (public('params: {§a: "{client_id}"}'), "but the credential has no client_id"),
    "secret-stands-for-nothing": (
        public('params: {a: [x, §"{client_secret}"]}'),
        "params.a.1: {client_secret} stands here, but the credential has no client_secret",
    ),
    "basic-stands-for-nothing": (
        public('client_id: i, headers: {§A: "Basic {client_basic}"}'),
        "{client_basic} stands here, but the credential has no client_secret",
    ),
    "username-stands-for-nothing": (public('§body: "u={username}"'), "body: {username} stands here, but the cred"),
    "principal-in-body": (public('§body: "u={principal}"'), "but the credential has no principal: {header: NAME}"),
    "principal-in-subject-token": (
        public(f'{TOKEN_EXCHANGE}, §subject_token: "{{principal}}"'),
        "but the credential has no principal: {header: NAME}",
    ),
    "principal-in-claims": (
        of_credential(f'source: jwt, assertion: {{{KEY}, claims: {{a: {{§b: "{{principal}}"}}}}}}'),
        "assertion.claims.a.***: {principal} stands here, but the credential has no principal",
    ),
    "principal-nowhere-in-jwt": (
        of_credential(f"source: jwt, assertion: {{{KEY}}}, §{PRINCIPAL}"),
        "{principal} stands nowhere in token_url, params, headers, body, subject_token or assertion",
    ),
    # chains
    "chain-unknown": (
        named(acronis=f'{PUBLIC}, headers: {{§X: "{{token:acrons}}"}}'),
        "headers.X: there is no credential of the name in {token:NAME}; did you mean acronis?",
    ),
    "chain-unknown-in-url": (of_credential('§token_url: "/t/{token:b}", client_auth: none'), "there is no credential"),
    "chain-to-itself": (public('params: {§p: "{token:a}"}'), "these tokens need each other, in a circle: a -> a"),
    "chain-of-two": (
        chained(f'{PUBLIC}, params: {{p: "{{token:a}}"}}'),
        "credentials.a.headers.X: these tokens need each other, in a circle: a -> b -> a",
    ),
    "chain-behind": (
        named(
            a=f'{PUBLIC}, params: {{p: "{{token:b}}"}}',
            b=f'{PUBLIC}, {JWT_BEARER}, assertion: {{{KEY}, §issuer: "{{token:c}}"}}',
            c=f'{PUBLIC}, {TOKEN_EXCHANGE}, subject_token: "{{token:b}}"',
        ),
        "credentials.b.assertion.issuer: these tokens need each other, in a circle: b -> c -> b",
    ),
    "chain-to-principals": (
        chained(f'{PUBLIC}, {PRINCIPAL}, params: {{p: "{{principal}}"}}'),
        "b has a token for each principal; write principal: {header: NAME} here as well",
    ),
    "chain-without-origin": (
        named(a=f'source: jwt, assertion: {{{KEY}, §issuer: "{{token:b}}"}}', b="token_url: /t, client_auth: none"),
        "the token_url of b is a path, which has no origin here; write it in full",
    ),
    "chain-in-the-clear": (
        named(
            a='token_url: http://idp.example/t, allow_http: true, client_auth: none, headers: {X: "{token:b}"}',
            b="token_url: §/t, client_auth: none",
        ),
        "credentials.b.token_url: at an http:// upstream this path sends secrets in the clear",
    ),
    "chain-in-the-clear-behind": (
        named(
            a='token_url: /t, allow_http: true, client_auth: none, headers: {X: "{token:b}"}',
            b="token_url: §/t, client_auth: none",
        ).replace("upstream: https://x.example", "upstream: http://x.example, allow_http: true"),
        "credentials.b.token_url: at an http:// upstream this path sends secrets in the clear",
    ),
    # token store
    "store-word": (f"token_store: §redis\n{more('')}", "token_store: must be memory, or {path: FILE}"),
    "store-unknown": (
        f"token_store: {{§url: redis://u:{SECRET}@h}}\n{more('')}",
        "token_store.url: unknown key; known: path",
    ),
    "store-folder": (f"token_store: {{path: §keys}}\n{more('')}", "token_store.path: is a folder; write the path of a"),
    "store-as-reference": (f"token_store: {{path: §{{file: tokens}}}}\n{more('')}", "path: write the bare path"),
    "store-nowhere": (
        f"token_store: {{path: §none/tokens}}\n{more('')}",
        "token_store.path: its folder does not exist",
    ),
    # hosts
    "host-is-url": (f"allowed_hosts: [§'http://a.example']\n{more('')}", "without http:// and without a path"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_reported_at_its_place(name: str, file: Path) -> None:
    assert_fault(file, *FAULTS[name])


def credential(file: Path, text: str) -> Credential:
    """The credential a of a file without faults and warnings."""
    settings = loaded(file, text)
    assert settings.warnings == ()
    return settings.credentials["a"]


def endpoint(file: Path, fields: str) -> TokenEndpoint:
    """The token endpoint of a credential with these fields."""
    source = credential(file, of_credential(fields)).source
    assert isinstance(source, TokenEndpoint)
    return source


def test_what_is_not_written_has_its_default(file: Path) -> None:
    assert credential(file, public("client_id: id")) == Credential(
        name="a",
        source=TokenEndpoint(token_url="https://idp.example/token", client=Client(auth="none", id=Secret("id"))),
    )


def test_a_token_that_is_there_already(file: Path) -> None:
    (file.parent / "token").write_text("t-1\n")
    in_file = of_credential("source: file, path: token, response: {token: a.b}, ttl: 7d, refresh: {lead: 1m}")
    static = of_credential("source: static, token: {file: token}, inject: {header: X-Key, format: 'Key {token}'}")

    given = GivenToken(Secret.from_file(file.parent / "token"))
    assert credential(file, in_file) == Credential(
        name="a", source=given, reading=Reading(token=("a", "b"), ttl=7 * 86400), refresh_lead=60
    )
    assert credential(file, static) == Credential(
        name="a",
        source=given,
        reading=Reading(token=(), takes_any_type=True),
        inject_header="X-Key",
        inject_format="Key {token}",
    )
    assert credential(file, of_credential("source: static, token: t-2")).source == GivenToken(Secret("t-2"))


def test_a_command(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARWARD_REGION", "eu")
    program = file.parent / "print-token"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    here = of_credential("source: exec, command: [./print-token, --region, {env: BEARWARD_REGION}, 12, '', no]")
    on_path = of_credential("source: exec, command: ['true'], timeout: 2m, response: {expires: {field: e, as: epoch}}")

    found, named_only = credential(file, here), credential(file, on_path)

    argv = (str(file.parent / "print-token"), "--region", "eu", "12", "", "no")
    assert found == Credential(name="a", source=Command(argv, str(file.parent)))
    assert (named_only.source, named_only.timeout) == (Command(("true",), str(file.parent)), 120)


def test_a_jwt_that_is_signed_here(file: Path, keys: Path) -> None:
    fields = (
        'issuer: me, subject: "s-{principal}", audience: you, lifetime: 20m, key: {file: keys/p256}, key_id: k1, '
        'algorithm: ES256, claims: {n: 1, t: "1", deep: {list: [true, x, "{token:b}"]}}'
    )
    text = named(a=f"source: jwt, assertion: {{{fields}}}, {PRINCIPAL}", b=PUBLIC)

    read = credential(file, text)

    texts = {name: Secret(text) for name, text in {"issuer": "me", "audience": "you", "key_id": "k1"}.items()}
    claims = {"n": 1, "t": Secret("1"), "deep": {"list": [True, Secret("x"), Secret("{token:b}")]}}
    assert read.source == OwnJwt(
        Assertion(
            **texts,
            subject=Secret("s-{principal}"),
            key=Secret.from_file(file.parent / "keys" / "p256"),
            algorithm="ES256",
            is_for_token_url=False,
            lifetime=1200,
            claims=claims,
        )
    )
    assert (read.chained, read.reading) == (("b",), Reading(token=()))


def test_an_assertion_of_the_bearer_grant(file: Path) -> None:
    signed = endpoint(file, f"{PUBLIC}, {JWT_BEARER}, assertion: {{{KEY}, certificate: {{file: keys/certificate}}}}")
    (file.parent / "given").write_text("e.y.J")
    given = endpoint(file, f"{PUBLIC}, {JWT_BEARER}, assertion: {{file: given}}")

    in_keys = {name: Secret.from_file(file.parent / "keys" / name) for name in ("rsa", "certificate")}
    assert signed.assertion == Assertion(key=in_keys["rsa"], certificate=in_keys["certificate"])
    assert signed.grant_type == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert given.assertion == Secret.from_file(file.parent / "given")


def test_a_client_that_signs(file: Path) -> None:
    private = endpoint(
        file,
        f"{SIGNING}, client_key: {{file: keys/rsa}}, client_key_id: k1, "
        "client_certificate: {file: keys/certificate}, assertion_algorithm: PS256, "
        "assertion_audience: https://idp.example, assertion_lifetime: 5m",
    )
    shared = endpoint(file, f"{URL}, client_auth: client_secret_jwt, client_id: id, client_secret: {'s' * 32}")

    me = Secret("id")
    assert private.client == Client(
        auth="private_key_jwt",
        id=me,
        assertion=Assertion(
            key=Secret.from_file(file.parent / "keys" / "rsa"),
            algorithm="PS256",
            issuer=me,
            subject=me,
            audience=Secret("https://idp.example"),
            lifetime=300,
            key_id=Secret("k1"),
            certificate=Secret.from_file(file.parent / "keys" / "certificate"),
        ),
    )
    secret = Secret("s" * 32)
    assert shared.client == Client(
        auth="client_secret_jwt",
        id=me,
        secret=secret,
        assertion=Assertion(key=secret, algorithm="HS256", issuer=me, subject=me),
    )


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [("rsa", "RS512"), ("rsa", "PS256"), ("p256", "ES256"), ("p384", "ES384"), ("ed", "EdDSA")],
)
def test_keys_that_fit(file: Path, key: str, algorithm: str) -> None:
    fields = f"{SIGNING}, client_key: {{file: keys/{key}}}, assertion_algorithm: {algorithm}"

    assertion = endpoint(file, fields).client.assertion

    assert assertion is not None
    assert assertion.algorithm == algorithm


def test_a_token_exchange(file: Path) -> None:
    short = endpoint(file, f"{PUBLIC}, {TOKEN_EXCHANGE}, subject_token: s")
    long = endpoint(file, f"{PUBLIC}, {TOKEN_EXCHANGE}, subject_token: s, subject_token_type: urn:x:jwt")

    assert short.subject_token == Secret("s")
    assert short.subject_token_type == "urn:ietf:params:oauth:token-type:access_token"
    assert long.subject_token_type == "urn:x:jwt"


def test_how_an_answer_is_read(file: Path) -> None:
    marked = credential(
        file,
        more("response: {token: {header: X-Token}, throttled: {status: 400, contains: Rate limit, retry_after: 10m}}"),
    ).reading
    cookie = credential(file, more("response: {token: {cookie: session}, throttled: {status: 503}}")).reading
    whole = credential(file, more('response: {token: ""}, inject: {format: "DPoP {token}"}')).reading

    assert marked == Reading(token=HeaderField("X-Token"), throttled=ThrottleMark(400, "Rate limit", 600))
    assert cookie == Reading(token=HeaderField("session", is_cookie=True), throttled=ThrottleMark(503))
    assert whole == Reading(token=(), takes_any_type=True)


def test_limits_of_the_vendor(file: Path) -> None:
    read = credential(
        file,
        of_credential(
            f"{PUBLIC}, grant_type: password, logout_url: /out, username: u, password: p, max_sessions: 5, "
            "max_token_requests: 10/7d"
        ),
    )

    assert isinstance(read.source, TokenEndpoint)
    assert (read.quota, read.source.max_sessions) == (Quota(10, 7 * 86400), 5)


def test_a_body_of_its_own(file: Path) -> None:
    fields = "client_id: i, client_secret: s, username: u, password: p"
    body = "<a><b>{client_id}</b><c>{client_secret}</c><d>{username}</d><e>{password}</e></a>"

    read = endpoint(file, f'{PUBLIC}, {fields}, body: "{body}", headers: {{Content-Type: text/xml}}')

    assert read.body == Secret(body)
    assert (read.username, read.password, read.client.secret) == (Secret("u"), Secret("p"), Secret("s"))


@pytest.mark.parametrize(
    "fields",
    [
        'send: json, grant_type: none, params: {u: {name: "{username}", word: "{password}"}}, username: u, password: p',
        'client_id: i, client_secret: s, headers: {Authorization: "ID {client_basic}"}, basic_encoding: raw',
        'client_id: i, client_secret: s, grant_type: none, params: {key: "{client_secret}"}',
        f'grant_type: none, assertion: {{{KEY}}}, headers: {{Authorization: "Bearer {{assertion}}"}}',
        f'{PRINCIPAL}, body: "{{principal}}"',
        f'{PRINCIPAL}, {TOKEN_EXCHANGE}, subject_token: "{{principal}}"',
        f'{PRINCIPAL}, {JWT_BEARER}, assertion: "{{principal}}"',
        f'{PRINCIPAL}, {JWT_BEARER}, assertion: {{{KEY}, claims: {{user: ["{{principal}}"]}}}}',
        'params: {a: "{unknown} {token} {}"}',
    ],
)
def test_what_is_allowed(file: Path, fields: str) -> None:
    endpoint(file, f"{PUBLIC}, {fields}")


def test_placeholders_in_the_path_of_a_token_url(file: Path) -> None:
    url = "https://idp.example/{client_id}/{token:b.c}/t"
    text = named(
        **{"a": f'token_url: "{url}", client_auth: none, client_id: i', "b.c": "token_url: /t, client_auth: none"}
    )

    read = credential(file, text)

    assert isinstance(read.source, TokenEndpoint)
    assert read.source.token_url == url
    assert read.chained == ("b.c",)


@pytest.mark.parametrize("origin", ["https://idp.example", ""])
def test_a_query_of_a_token_url_stays_as_written(file: Path, origin: str) -> None:
    url = f"{origin}/t;{{client_id}}?key=A%2fb&&+%20/?{{token:b}}=..&x={{unknown}}"
    text = named(a=f'token_url: "{url}", client_auth: none, client_id: i', b="token_url: /t, client_auth: none")

    read = credential(file, text)

    assert isinstance(read.source, TokenEndpoint)
    assert read.source.token_url == url
    assert read.chained == ("b",)


@pytest.mark.parametrize("principal", ["..", "a&b=c#d/ü"])
def test_a_principal_in_a_query_is_one_value(file: Path, principal: str) -> None:
    source = endpoint(file, f'token_url: "https://idp.example/t?u={{principal}}", client_auth: none, {PRINCIPAL}')

    url = token_request(source, source.token_url, Occasion(principal), None).url

    assert parse_qs(urlsplit(url).query) == {"u": [principal]}
    assert (urlsplit(url).path, urlsplit(url).fragment) == ("/t", "")


def test_a_slash_at_the_end_of_a_presets_url_is_cut(file: Path) -> None:
    keycloak = "preset: {name: keycloak, url: 'https://sso.example/auth/', realm: r}, client_id: i, client_secret: s"
    auth0 = "preset: {name: auth0, domain: a.example, audience: 'https://a.example/'}, client_id: i, client_secret: s"

    read = endpoint(file, keycloak)

    of_realm = "https://sso.example/auth/realms/r/protocol/openid-connect"
    assert (read.token_url, read.logout_url) == (f"{of_realm}/token", f"{of_realm}/logout")
    assert endpoint(file, auth0).params == {"audience": Secret("https://a.example/")}


def test_a_password_at_keycloak_ends_its_sessions(file: Path) -> None:
    keycloak = "preset: {name: keycloak, url: 'https://sso.example', realm: r}, client_auth: none, client_id: i"

    code, output = check(file, of_credential(f"{keycloak}, grant_type: password, username: u, password: p"))

    assert (code, "warning" in output) == (0, False)


def test_what_is_chained_is_named_once_and_used(file: Path) -> None:
    chains = 'headers: {A: "{token:b}{token:c}"}, params: {p: ["{token:c}", "{token:b}"]}'
    outer = f"{PUBLIC}, {PRINCIPAL}, {chains}"
    inner = f'{PUBLIC}, {PRINCIPAL}, params: {{p: "{{principal}}"}}'

    read = credential(file, named(a=outer, b=inner, c=f'{PUBLIC}, headers: {{X: "{{token:d}}"}}', d=PUBLIC))

    assert sorted(read.chained) == ["b", "c"]


def test_a_process_of_its_own_reads_the_same(file: Path) -> None:
    limits = "max_token_requests: 1/1d, response: {token: {header: X}, throttled: {status: 400}}"
    credentials = named(
        a=f'{SIGNING}, client_key: {{file: keys/rsa}}, params: {{p: "{{token:b}}"}}',
        b=f"{PUBLIC}, {JWT_BEARER}, assertion: {{{KEY}}}, {limits}",
        c=f"source: static, token: {SECRET}",
        d="source: file, path: keys/short",
        e="source: exec, command: ['true', {env: HOME}]",
        f=f"source: jwt, assertion: {{{KEY}, claims: {{a: [{SECRET}]}}}}",
    )
    settings = loaded(file, f"token_store: {{path: tokens}}\n{credentials}")

    assert ReadApart(file).settings() == settings


def test_where_tokens_are_kept(file: Path) -> None:
    assert loaded(file, f"token_store: memory\n{more('')}").token_store is None
    assert loaded(file, f"token_store: null\n{more('')}").token_store is None
    assert loaded(file, f"token_store: {{path: tokens}}\n{more('')}").token_store == file.parent / "tokens"
    assert loaded(file, f"token_store: {{path: {file.parent}/t}}\n{more('')}").token_store == file.parent / "t"


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        (
            of_credential(f"{URL}, client_auth: client_secret_jwt, client_id: i, client_secret: {SECRET}"),
            "client_secret",
            "is shorter than the 32 bytes that HS256 asks for",
        ),
        (
            of_credential("source: jwt, assertion: {key: {file: keys/short}, algorithm: HS512}"),
            "assertion.key",
            "is shorter than the 64 bytes that HS512 asks for",
        ),
        (of_credential("source: static, token: $TOKEN"), "token", "a variable is written {env: NAME}"),
        (
            public(f"grant_type: refresh_token, refresh_token: {SECRET}"),
            "grant_type",
            "a rotated refresh token is lost with the process; add token_store: {path: FILE}",
        ),
        (
            public("grant_type: password, username: u, password: p"),
            "grant_type",
            "sessions stay open after a stop; add logout_url",
        ),
        (
            public("grant_type: password, username: keys/short, password: p"),
            "username",
            "is sent as it stands here; the content of a file is written {file: PATH}",
        ),
        (more("").replace(SECRET, "keys/short"), "client_secret", "the content of a file is written {file: PATH}"),
        (more("").replace(SECRET, f"'{SECRET} '"), "client_secret", "has blanks, a line break or a byte order mark"),
        (more("").replace(SECRET, f'"\\r{SECRET}"'), "client_secret", "has blanks, a line break or a byte order mark"),
        (more("").replace(SECRET, "{file: keys/marked}"), "client_secret", "has blanks, a line break or a byte order"),
        (more("").replace(SECRET, "'x{client_id}'"), "client_secret", "placeholders are filled only in token_url, p"),
        (more("scope: 'a {token:a}'"), "scope", "is sent as it stands here; placeholders are filled only in"),
        (
            public("grant_type: password, username: '{principal}', password: p"),
            "username",
            "is sent as it stands here; placeholders are filled only in",
        ),
        (
            public('client_id: "a+b", client_secret: s, headers: {A: "Basic {client_basic}"}').replace("a:", "a:", 1),
            "",
            "the two forms of Basic authentication differ",
        ),
    ],
)
def test_what_is_warned_of(file: Path, text: str, at: str, said: str) -> None:
    code, output = check(file, text)

    assert code == 0
    place = ".".join(filter(None, ["credentials.a", at]))
    assert any(f"{place}: " in line and said in line for line in output.splitlines() if "warning: " in line), output


@pytest.mark.parametrize(
    "text",
    [
        f"token_store: {{path: tokens}}\n{public('grant_type: refresh_token, refresh_token: r')}",
        public("grant_type: password, logout_url: /out, username: u, password: p").replace("https://idp.example", ""),
        more("basic_encoding: raw").replace(SECRET, "{file: keys/short}"),
        more("basic_encoding: raw").replace(SECRET, "{env: BEARWARD_NAME}"),
        of_credential(f"source: static, token: '{SECRET} '"),
        more("basic_encoding: raw").replace(SECRET, f"'{{x}} {SECRET}'"),
        more("basic_encoding: raw").replace(SECRET, f"'{'x' * 5000}'"),
    ],
    ids=range(7),
)
def test_what_is_not_warned_of(file: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARWARD_NAME", "keys/short")

    code, output = check(file, text)

    assert (code, "warning" in output) == (0, False), output


def test_a_preset_brings_a_part_of_an_assertion(file: Path) -> None:
    fields = f"preset: {{name: google-service-account, scope: s}}, assertion: {{{KEY}, issuer: me, claims: {{m: n}}}}"

    assertion = endpoint(file, fields).assertion

    assert isinstance(assertion, Assertion)
    assert assertion.claims == {"scope": Secret("s"), "m": Secret("n")}
    assert (assertion.issuer, assertion.lifetime) == (Secret("me"), 3600)


def test_an_assertion_that_stands_elsewhere_takes_the_place_of_a_presets(file: Path) -> None:
    fields = "preset: {name: google-service-account, scope: s}, assertion: {file: keys/short}"

    assert endpoint(file, fields).assertion == Secret.from_file(file.parent / "keys" / "short")


def test_throttling_is_merged_with_that_of_a_preset(file: Path) -> None:
    fields = f"preset: {{name: github-app, installation_id: 1}}, assertion: {{{KEY}, issuer: i}}"

    reading = credential(file, of_credential(f"{fields}, response: {{throttled: {{retry_after: 5m}}}}")).reading

    assert reading.throttled == ThrottleMark(403, "rate limit", 300)


MISWRITTEN = [
    f"source: statc, token: {SECRET}",
    f"source: static, token: [{SECRET}]",
    f"source: static, tokn: {SECRET}",
    f"source: static, token:{SECRET}",
    f"source: {SECRET}!, path: {SECRET}",
    f"source: exec, command: [x-{SECRET}, --key, {SECRET}, {{a: {SECRET}}}]",
    f"source: exec, command: {SECRET}",
    f"source: exec, command: {{{SECRET}: x}}",
    f"client_key: {SECRET}, client_certificate: {SECRET}, client_auth: private_key_jwt, client_id: i",
    f"client_auth: private_key_jwt, client_key: {{file: {SECRET}}}",
    f"assertion: {{key: {SECRET}, claims: {{a: {SECRET}, b: {{c: [{SECRET}]}}, exp: {SECRET}}}, algoritm: x}}",
    f"assertion: {{key: {SECRET}, issuer: '{SECRET}@', subject: [{SECRET}], key_id: '{SECRET}@'}}",
    f"assertion: {{{SECRET}}}",
    f"assertion: [{SECRET}]",
    f"subject_token: {SECRET}, subject_token_type: '{SECRET}@', body: {SECRET}, send: x",
    f"body: [{SECRET}]",
    f"max_token_requests: '{SECRET}@', max_sessions: '{SECRET}@', response: {{throttled: {{contains: [{SECRET}]}}}}",
    f"response: {{token: {{cookie: '{SECRET} @'}}, throttled: {{status: '{SECRET}@'}}}}",
    f"scope: [{SECRET}]",
    f"params: {{p: '{{token:{SECRET}}}'}}",
    f"assertion: &s {SECRET}, source: *s, command: [*s], max_token_requests: *s",
]


@pytest.mark.parametrize("fields", MISWRITTEN, ids=range(len(MISWRITTEN)))
def test_a_secret_in_the_wrong_place_is_not_repeated(file: Path, fields: str) -> None:
    for text in (of_credential(fields), more(fields), of_credential(fields).replace(", ", ",\n  ")):
        code, _ = check(file, text)

        assert code == 78


def test_cryptography_is_loaded_only_where_there_is_a_key(file: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from bearward.config import load; load(Path(sys.argv[1])); "
        "print('cryptography' in sys.modules)"
    )
    for text, is_loaded in ((more(""), "False"), (bearer(f"{{{KEY}}}"), "True")):
        file.write_text(text)
        done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == is_loaded


def test_a_field_of_a_json_file_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text('{"web": {"client.id": "first"}}')
    (tmp_path / "config.yaml").write_text(
        "credentials: {a: {token_url: https://id.example/token, client_auth: none, "
        'client_id: {file: key.json, field: "web.client\\\\.id"}}}\n'
        "routes: {/x: {upstream: https://x.example, credential: a}}\n"
    )
    source = load(tmp_path / "config.yaml").credentials["a"].source
    assert isinstance(source, TokenEndpoint)
    assert source.client.id is not None
    assert source.client.id.reveal() == "first"
    (tmp_path / "key.json").write_text('{"web": {"client.id": "second"}}')
    assert source.client.id.reveal() == "second"
