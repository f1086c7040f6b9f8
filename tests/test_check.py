"""`bearward check`: every fault of a file at its place, in plain words, and never a secret."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bearward.address import Address
from bearward.config import ConfigError, load
from bearward.config.apart import Reading
from bearward.proxy.limits import Limits
from bearward.tls import Tls
from bearward.tokens.credential import ExpiryField, Principal, RefusalMark, TokenEndpoint
from checking import (
    CREDENTIAL,
    CREDENTIALS,
    ROUTES,
    SECRET,
    assert_fault,
    check,
    endpoint,
    lacking,
    loaded,
    more,
    of_credential,
)


def of_routes(routes: str) -> str:
    """A file with these routes and two data centers."""
    return f"data_centers: {{eu8: https://eu8.example, us5: http://us5.example}}\n{CREDENTIALS}routes: {{{routes}}}\n"


def of_route(fields: str) -> str:
    """A file whose one route has these fields."""
    return CREDENTIALS + f"routes: {{/x: {{credential: a, {fields}}}}}\n"


def of_tls(fields: str, upstream: str = "https://x.example") -> str:
    """A file whose one route has these fields of `tls`."""
    return of_route(f"upstream: {upstream}, tls: {{{fields}}}")


def of_token_tls(fields: str) -> str:
    """A file whose one credential has these fields of `tls`."""
    return more(f"tls: {{{fields}}}")


def of_headers(fields: str) -> str:
    """A file whose one route has these `request_headers`."""
    return of_route(f"upstream: https://x.example, request_headers: {{{fields}}}")


def of_prefix(prefix: str) -> str:
    """A file with a route at this prefix."""
    return of_routes(f"{prefix}: {{upstream: https://x.example, credential: a}}")


def of_top(fields: str) -> str:
    """A file with these lines at the top level."""
    return f"{fields}\n" + CREDENTIALS + ROUTES


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of certificates and keys; a config names them as `pem/…`."""
    folder = tmp_path_factory.mktemp("pem")
    authority = trustme.CA()
    own, other = authority.issue_cert("client.example"), authority.issue_cert("other.example")
    authority.cert_pem.write_to_path(folder / "ca")
    own.cert_chain_pems[0].write_to_path(folder / "cert")
    own.private_key_pem.write_to_path(folder / "key")
    own.private_key_and_cert_chain_pem.write_to_path(folder / "both")
    other.private_key_pem.write_to_path(folder / "other-key")
    key = serialization.load_pem_private_key(own.private_key_pem.bytes(), None)
    protection = serialization.BestAvailableEncryption(SECRET.encode())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "locked-key").write_bytes(key.private_bytes(*form, protection))
    other_kind = Ed25519PrivateKey.generate().private_bytes(*form, serialization.NoEncryption())
    (folder / "other-kind-of-key").write_bytes(other_kind)
    (folder / "words").write_text(f"No certificate, {SECRET}.")
    return folder


# In each text, § stands before the place to which the report must point.
FAULTS = {
    # YAML
    "duplicate-key": (of_top("listen: 127.0.0.1:1\n§listen: 127.0.0.1:2"), "given twice, first in line 1, column 1"),
    "duplicate-secret": (more(f"§client_secret: {SECRET}"), "credentials.a.client_secret: this key is given twice"),
    "key-no-text": (of_top("§[listen]: 1"), "a key must be plain text"),
    "key-null": (of_top("§~: 1"), "a key must be plain text"),
    "key-alias": (of_credential(f"client_secret: §&s {SECRET}, *s : 1"), "a key must be plain text"),
    "tag": (of_top("listen: §!!python/object:os.system x"), "tags are not supported"),
    "tag-local": (of_credential(f"client_id: id, client_secret: §!{SECRET} ''"), "tags are not supported"),
    "merge-key": (of_top("log: {§<<: {level: info}}"), "merge keys (<<) are not supported"),
    "two-documents": (of_top("").strip() + "\n§---\na: 1", "only one document"),
    "alias-in-itself": (of_top("allowed_hosts: §&a [*a]"), "an alias contains itself"),
    "alias-unknown": (of_credential(f"client_id: id, client_secret: §*{SECRET}"), "starts with * must stand in quotes"),
    "too-deep": ("[" * 50 + "§" + "[" * 5000, "nested too deeply"),
    "tab": ("listen:\n§\t127.0.0.1:1", "tabs do not indent"),
    "quote-open": (of_credential(f'client_secret: §"{SECRET}'), "a quote is not closed"),
    "bracket-open": (f"credentials: §{{a: {SECRET}", "a comma or a bracket is missing"),
    "comma": (f"credentials: {{a: {SECRET} §{{", "a comma or a bracket is missing"),
    "colon-in-text": (f"client_secret: a§: {SECRET}", "put text with ': ' in quotes"),
    "no-colon": (f"listen: 127.0.0.1:1\n§client_secret {SECRET}\nadmin: x", "':' and a space are missing"),
    "at-sign": (f"credentials:\n  a:\n    password: §@{SECRET}", "starts with this character must stand in quotes"),
    "control-character": (f"client_secret: {SECRET}§\x07", "control characters are not allowed"),
    "escape-too-large": (f'password: "{SECRET}\\U§FFFFFFFF"', "not valid YAML"),
    "surrogate": (more(r'scope: §"\ud800"'), "an escape in this text stands for no character"),
    "byte-order-mark": ("§\ufeff" + of_top(""), "byte order mark"),
    "empty": ("§# nothing", "the file is empty"),
    "null": ("§~", "must be a mapping"),
    "a-list": ("§- a", "must be a mapping"),
    # structure
    "unknown-key": (of_top("§lisen: x"), "lisen: unknown key; did you mean listen?"),
    "unknown-without-likeness": (of_top("§xyzzy: x"), "xyzzy: unknown key; known: listen, admin"),
    "misspelt-secret": (
        of_credential(f"§client_secrt: {SECRET}"),
        "client_secrt: unknown key; did you mean client_secret?",
    ),
    "key-without-space": (
        of_credential(f"client_id: a, §client_secret:{SECRET}"),
        "a.***: unknown key; did you mean client_s",
    ),
    "word-as-key": (of_credential(f"client_id: a, §{SECRET}"), "credentials.a.***: unknown key"),
    "section-is-text": (f"credentials: {{a: §{SECRET}}}\n" + ROUTES, "credentials.a: must be a mapping"),
    "section-is-list": (of_top("log: §[a]"), "log: must be a mapping"),
    "list-is-text": (of_top("allowed_hosts: §a"), "allowed_hosts: must be a list"),
    "no-routes": ("§" + CREDENTIALS, "routes: at least one route is needed"),
    "empty-routes": (CREDENTIALS + "§routes: {}", "at least one route is needed"),
    # types
    "flag": (of_top("allow_remote: §yes"), "allow_remote: must be true or false"),
    "duration-zero": (more("timeout: §0s"), "timeout: must be longer than 0"),
    "duration-unit": (more("ttl: §5w"), "ttl: must be a duration: 500ms, 90s, 15m, 2h, 7d"),
    "duration-infinite": (
        more("refresh: {lead: §999999999999h}"),
        "lead: must be longer than 0 and no more than ten years",
    ),
    "duration-exponent": (of_route("upstream: https://x.example, idle_timeout: §1e3"), "must be a duration"),
    "count-zero": (more('principal: {header: X-U, max: §0}, params: {u: "{principal}"}'), "from 1 to 1000000"),
    "count-large": (more('principal: {header: X-U, max: §1000001}, params: {u: "{principal}"}'), "from 1 to 1000000"),
    "choice": (more("send: §jso"), "send: must be one of form, json, query; did you mean json?"),
    "choice-alias": (of_credential(f"client_secret: &s {SECRET}, §send: *s"), "send: must be one of"),
    "text-is-mapping": (
        of_credential(f"client_secret: §{{a: {SECRET}}}"),
        "client_secret: must be text, or {env: NAME}",
    ),
    "text-is-list": (of_credential(f"client_secret: §[{SECRET}]"), "client_secret: must be text"),
    "empty-secret": (of_credential('client_secret: §""'), "client_secret: is empty"),
    "line-break": (f"credentials:\n  a:\n    client_secret: §|\n      {SECRET}\n", "ends with a line break"),
    "header-name": (more(f'headers: {{§"a b": {SECRET}}}'), "headers.a b: is no header name"),
    "header-value": (more(f'headers: {{A: §"{SECRET}\\n"}}'), "headers.A: ends with a line break"),
    "header-value-controls": (more(f'headers: {{A: §"{SECRET}\\rX: y"}}'), "headers.A: must be visible ASCII text"),
    "name": (of_top("data_centers: {§a b: https://a.example}"), "must be a name of letters"),
    # references
    "variable-missing": (
        of_credential("client_secret: {env: §BEARWARD_NO}"),
        "the environment variable BEARWARD_NO is not set",
    ),
    "variable-is-secret": (of_credential(f"client_secret: {{env: §{SECRET}}}"), "the environment variable is not set"),
    "variable-empty": (of_credential("client_secret: {env: §BEARWARD_EMPTY}"), "BEARWARD_EMPTY is empty"),
    "file-missing": (of_credential(f"password: {{file: §{SECRET}}}"), "cannot read the file: No such file"),
    "file-missing-absolute": (of_credential("password: {file: §/none/such}"), "cannot read /none/such: No such file"),
    "file-empty": (of_credential("password: {file: §./empty}"), "empty is empty"),
    "file-is-folder": (of_credential("password: {file: §/}"), "/ is not a regular file"),
    "file-binary": (of_credential("password: {file: §./binary}"), "is not UTF-8 text"),
    "field-of-no-json": (of_credential(f"password: {{file: ./text, field: §{SECRET}}}"), "text is no JSON"),
    "field-missing": (of_credential("password: {file: ./json, field: §a.c}"), "json has no text in this field"),
    "field-number": (of_credential("password: {file: ./json, field: §number}"), "json has no text in this field"),
    "field-alone": (of_credential("password: §{field: a}"), "must be text, or {env: NAME}, or {file: PATH}"),
    "file-name": (of_credential('password: {file: §"a\\0b"}').replace("a\\0b", "a\\nb"), "control characters"),
    "duration-variable": (more("ttl: {env: §BEARWARD_NO}"), "credentials.a.ttl.env: the environment variable"),
    "param-variable": (more("params: {u: [x, {env: §BEARWARD_NO}]}"), "credentials.a.params.u.1.env: the environment"),
    # addresses
    "listen-no-port": (of_top("listen: §localhost"), "the port is missing"),
    "listen-no-host": (of_top("listen: §:8080"), "the host is missing"),
    "listen-port": (of_top("listen: §127.0.0.1:65536"), "must be a number up to 65535"),
    "listen-v6": (of_top("listen: §::1"), "IPv6 address stands in brackets"),
    "listen-remote": (of_top("listen: §0.0.0.0:8080"), "listen: is not a loopback address"),
    "listen-odd-loopback": (of_top("listen: §127.1:8080"), "no valid IPv4 address"),
    "socket-path": (of_top("listen: §'unix:'"), "path of the socket is missing"),
    "socket-path-long": (of_top(f"listen: §unix:/{'a' * 110}"), "not be longer than 107 bytes"),
    "same-address": (of_top("listen: 127.0.0.1:7000\nadmin: §localhost:7000"), "must not be the same address"),
    "same-as-default": (of_top("listen: §127.0.0.1:9465"), "must not be the same address"),
    "same-socket": (of_top("listen: unix:/run/a\nadmin: §unix:/run/a"), "must not be the same address"),
    # URLs
    "url-scheme": (of_route("upstream: §ftp://x.example"), "starts with https://"),
    "url-user": (of_route(f"upstream: §https://user:{SECRET}@x.example"), "must not hold a user or password"),
    "url-password-as-port": (of_route(f"upstream: §https://user:{SECRET}"), "port must be a number"),
    "url-query": (of_route(f'upstream: §"https://x.example/?key={SECRET}"'), "must not have a query"),
    "url-fragment": (of_route(f'upstream: §"https://x.example/#{SECRET}"'), "must not have a fragment"),
    "url-dots": (of_route("upstream: §https://x.example/a/../b"), "dot segments"),
    "url-escaped-dots": (of_route("upstream: §https://x.example/a/%2E%2e/b"), "escaped dot"),
    "url-odd": (of_route("upstream: §'https://x.example/a b'"), "a path may hold only"),
    "url-empty-segment": (of_route("upstream: §https://x.example//a"), "empty segments"),
    "url-host": (of_route("upstream: §https://x_.-example"), "no valid name"),
    "url-host-number": (of_route("upstream: §https://2130706433"), "no valid IPv4 address"),
    "url-host-unicode": (of_route("upstream: §https://bücher.example"), "xn-- form"),
    "url-no-host": (of_route("upstream: §https:///a"), "the host is missing"),
    "url-port-zero": (of_route("upstream: §https://x.example:0"), "from 1 to 65535"),
    "url-v6": (of_route('upstream: §"https://[::1%lo]/"'), "must be an IPv6 address"),
    "url-http": (of_route("upstream: §http://x.example"), "http:// sends the token in the clear;"),
    "url-http-odd-loopback": (
        of_route('upstream: §"http://[::ffff:127.0.0.1]"'),
        "http:// sends the token in the clear",
    ),
    "url-of-data-center": (
        of_top(f"data_centers: {{a: §https://u:{SECRET}@a.example}}"),
        "data_centers.a: a URL must not hold",
    ),
    "own-address": (of_route("upstream: §http://127.0.0.1:8080/x"), "bearward's own address"),
    "own-address-odd": (of_route('upstream: §"https://[::ffff:127.0.0.2]:9465"'), "bearward's own address"),
    "own-address-any": (of_route("upstream: §https://0.0.0.0:8080"), "bearward's own address"),
    "token-url-missing": (lacking(f"client_id: a, client_secret: {SECRET}"), "token_url is missing"),
    "token-url-http": (
        of_credential("token_url: §http://idp.example, client_auth: none"),
        "http:// sends secrets in the clear",
    ),
    "token-url-word": (of_credential("token_url: §idp/token, client_auth: none"), "starts with https://"),
    "token-url-slashes": (of_credential("token_url: §//evil.example/token, client_auth: none"), "empty segments"),
    "logout-url-http": (more("logout_url: §http://idp.example/out"), "http:// sends secrets in the clear"),
    "token-url-relative-http": (
        of_credential("token_url: §/token, client_auth: none")
        .replace("https://x.example", "http://x.example")
        .replace("credential: a", "credential: a, allow_http: true"),
        "at an http:// upstream this path sends secrets in the clear",
    ),
    # data centers and prefixes
    "data-center-in-upstream-only": (
        of_routes('/x: {upstream: §"{data_center}", credential: a}'),
        "not in the route's prefix",
    ),
    "data-center-in-the-middle": (
        of_routes('"/{data_center}": {upstream: §"https://{data_center}", credential: a}'),
        "only at the start",
    ),
    "data-center-as-host-part": (
        of_routes('"/{data_center}": {upstream: §"{data_center}.evil.example", credential: a}'),
        "only at the start",
    ),
    "data-center-http": (
        of_routes('"/{data_center}": {upstream: §"{data_center}/api", credential: a}'),
        "in the clear (data center us5)",
    ),
    "no-data-centers": (
        CREDENTIALS + 'routes: {§"/{data_center}": {upstream: "{data_center}", credential: a}}',
        "no data_centers",
    ),
    "same-route": (
        of_prefix('"/{data_center}": {upstream: https://a.example, credential: a}, §/us5'),
        "this is the route /us5, as is routes./{data_center}",
    ),
    "prefix-start": (of_prefix("§x"), "must start with /"),
    "prefix-end": (of_prefix("§/x/"), "must not end with /"),
    "prefix-query": (of_prefix('§"/x?a"'), "a query (?)"),
    "prefix-fragment": (of_prefix('§"/x#a"'), "a fragment (#)"),
    "prefix-escape": (of_prefix("§/x%20"), "escapes (%)"),
    "prefix-dots": (of_prefix("§/x/.."), "dot segments"),
    "prefix-slashes": (of_prefix("§/x//y"), "empty segments"),
    "prefix-space": (of_prefix("§/x y"), "a path may hold only"),
    "prefix-unicode": (of_prefix("§/ü"), "a path may hold only"),
    "prefix-control": (of_prefix(r'§"/x\t"'), "a path may hold only"),
    "prefix-backslash": (of_prefix(r"§/x\y"), "a path may hold only"),
    # routes
    "upstream-missing": (CREDENTIALS + "routes: {§/x: {credential: a}}", "upstream is missing"),
    "credential-missing": (CREDENTIALS + "routes: {§/x: {upstream: https://x.example}}", "credential is missing"),
    "credential-unknown": (
        more("").replace("{a:", "{acronis:").replace("credential: a", "credential: §acrons"),
        "no credential of this name; did you mean acronis?",
    ),
    "set-host": (of_headers(f"set: {{§host: {SECRET}}}"), "bearward sets this header"),
    "set-hop-by-hop": (of_headers("set: {§Transfer-Encoding: a}"), "bearward sets"),
    "set-authorization": (of_headers("set: {§Authorization: a}"), "bearward sets"),
    "set-forwarded": (of_headers("set: {§X-Forwarded-For: a}"), "bearward sets"),
    "set-injected": (
        more("inject: {header: X-Token}").replace(
            "credential: a", "credential: a, request_headers: {set: {§x-token: a}}"
        ),
        "bearward sets",
    ),
    "set-twice": (of_headers("set: {A: a, §a: b}"), "header is given twice"),
    "remove-host": (of_headers("remove: [A, §Host]"), "remove.1: bearward sets"),
    "remove-name": (of_headers("remove: [§'a:']"), "is no header name"),
    # hosts, origins, log
    "host-wildcard": (of_top("allowed_hosts: [a.example, §'*']"), "allowed_hosts.1: the host is no valid name"),
    "origin-path": (of_top("allowed_origins: [§https://a.example/]"), "without a path"),
    "origin-null": (of_top('allowed_origins: [§"null"]'), "must be SCHEME://HOST"),
    "origin-any": (of_top('allowed_origins: [§"*"]'), "must be SCHEME://HOST"),
    "log-level": (of_top("log: {level: §warn}"), "did you mean warning?"),
    "log-access": (of_top("log: {access: §error}"), "one of off, errors, all; did you mean errors?"),
    "required-header-name": (of_top("require_header: §'X-Local: 1'"), "is no header name"),
    "required-header-of-the-connection": (of_top("require_header: §Host"), "belongs to the connection; choose another"),
    # limits
    "limit-unknown": (of_top("limits: {§conections: 5}"), "unknown key; did you mean connections?"),
    "limit-of-connections": (of_top("limits: {connections: §0}"), "from 1 to 1000000"),
    "limit-of-upstream-connections": (of_top("limits: {upstream_connections: §-1}"), "from 1 to 1000000"),
    "header-timeout": (of_top("limits: {header_timeout: §0}"), "header_timeout: must be longer than 0"),
    "drain-timeout": (of_top("limits: {drain_timeout: §1w}"), "drain_timeout: must be a duration"),
    "header-bytes-few": (of_top("limits: {header_bytes: §1023}"), "header_bytes: must be from 1KiB to 1MiB"),
    "header-bytes-many": (of_top("limits: {header_bytes: §1048577}"), "must be from 1KiB to 1MiB"),
    "header-bytes-unit": (of_top("limits: {header_bytes: §64k}"), "bytes, or one with a unit: 64KiB, 10MB"),
    "max-body-fraction": (
        of_route("upstream: https://x.example, max_body: §1.5MiB"),
        "max_body: must be a whole number of bytes",
    ),
    "max-body-negative": (of_route("upstream: https://x.example, max_body: §-1"), "must be a whole number of bytes"),
    "max-body-word": (of_route("upstream: https://x.example, max_body: §unlimited"), "a whole number of bytes"),
    "max-body-large": (of_route("upstream: https://x.example, max_body: §1048577GiB"), "leave it out for no limit"),
    # egress
    "egress-scheme": (of_top(f"egress_proxy: §https://u:{SECRET}@p.example:3128"), "must be http://HOST:PORT or"),
    "egress-socks": (of_top("egress_proxy: §socks5://p.example:1080"), "proxies of other kinds are not supported"),
    "egress-bare": (of_top(f"egress_proxy: §{SECRET}"), "must be http://HOST:PORT"),
    "egress-path": (of_top("egress_proxy: §http://p.example:3128/x"), "must be http://HOST:PORT"),
    "egress-odd-password": (of_top(f'egress_proxy: §"http://u:{SECRET}/@p.example:3128"'), "(@ is %40)"),
    "egress-at-sign": (of_top(f"egress_proxy: §http://u@v:{SECRET}@p.example:3128"), "(@ is %40)"),
    "egress-no-port": (of_top(f"egress_proxy: §http://u:{SECRET}@p.example"), "the port of the proxy is missing"),
    "egress-no-host": (of_top(f"egress_proxy: §http://u:{SECRET}@:3128"), "the host is missing"),
    "egress-password-as-port": (of_top(f"egress_proxy: §http://u:{SECRET}"), "port must be a number"),
    "egress-variable": (of_top("egress_proxy: {env: §BEARWARD_NO}"), "egress_proxy.env: the environment variable"),
    "egress-variable-odd": (of_top("egress_proxy: §{env: PATH}"), "egress_proxy: must be http://HOST:PORT"),
    "egress-to-itself": (of_top("egress_proxy: §http://localhost:8080"), "this is bearward's own address"),
    # TLS
    "tls-is-text": (of_route("upstream: https://x.example, tls: §pem/ca"), "tls: must be a mapping"),
    "tls-unknown": (of_tls("§xyzzy: x"), "unknown key; known: ca_file, cert_file, key_file, server_name"),
    "tls-verify": (
        of_tls("§verify: false"),
        "certificates are always checked; name the CA that issued",
    ),
    "ca-missing": (of_tls("ca_file: §pem/none"), "must be the path of a PEM file; cannot read /"),
    "ca-missing-here": (of_tls("ca_file: §none"), "cannot read the file: No such file or directory (a relative path"),
    "ca-folder": (of_tls("ca_file: §pem/."), "is not a regular file"),
    "ca-empty": (of_tls("ca_file: §./empty"), "empty is empty"),
    "ca-der": (of_tls("ca_file: §./binary"), "is not UTF-8 text"),
    "ca-content": (of_tls("ca_file: §{file: pem/ca}"), "ca_file: write the bare path; {file: PATH} stands for"),
    "ca-words": (of_tls("ca_file: §pem/words"), "ca_file: holds no certificates in PEM form"),
    "ca-is-key": (of_tls("ca_file: §pem/key"), "holds no certificates in PEM form"),
    "certificate-words": (
        of_tls("cert_file: §pem/words, key_file: pem/key"),
        "cert_file: holds no certificate in PEM form",
    ),
    "certificate-without-key": (of_tls("cert_file: §pem/cert"), "holds no private key in PEM form; name its file as"),
    "key-missing": (of_tls("cert_file: pem/cert, key_file: §pem/none"), "key_file: must be the path of a PEM file"),
    "key-without-certificate": (of_tls("key_file: §pem/key"), "key_file: is the key of no certificate; add cert_file"),
    "key-words": (of_tls("cert_file: pem/cert, key_file: §pem/words"), "holds no private key in PEM form"),
    "key-of-another": (of_tls("cert_file: pem/cert, key_file: §pem/other-key"), "does not belong to the certificate"),
    "key-of-another-kind": (of_tls("cert_file: pem/cert, key_file: §pem/other-kind-of-key"), "does not belong to the"),
    "key-locked": (of_tls("cert_file: pem/cert, key_file: §pem/locked-key"), "is protected by a password; use one"),
    "key-itself": (of_tls(f'key_file: §"-----BEGIN PRIVATE KEY-----\\n{SECRET}"'), "the name of the file"),
    "server-name": (of_tls("server_name: §x_.-example"), "server_name: the host is no valid name"),
    "server-name-wildcard": (of_tls('server_name: §"*.x.example"'), "the host is no valid name"),
    "server-name-port": (of_tls("server_name: §x.example:443"), "must be a name without a port"),
    "server-name-url": (of_tls("server_name: §https://x.example"), "the port must be a number"),
    "tls-at-http": (
        of_tls("server_name: x.example", "http://127.0.0.1:81").replace("tls:", "§tls:"),
        "tls: has no effect at an http:// upstream; write https:// there, or remove tls",
    ),
    "tls-at-http-data-center": (
        of_routes(
            '"/{data_center}": '
            '{upstream: "{data_center}", credential: a, allow_http: true, §tls: {server_name: x.example}}'
        ),
        "at an http:// upstream (data center us5)",
    ),
    "token-tls-verify": (of_token_tls("§verify: false"), "credentials.a.tls.verify: unknown key: certificates are"),
    "token-ca-missing": (of_token_tls("ca_file: §pem/none"), "credentials.a.tls.ca_file: must be the path of a PEM"),
    "token-ca-words": (of_token_tls("ca_file: §pem/words"), "ca_file: holds no certificates in PEM form"),
    "token-certificate-without-key": (of_token_tls("cert_file: §pem/cert"), "holds no private key in PEM form; name"),
    "token-key-of-another": (
        of_token_tls("cert_file: pem/cert, key_file: §pem/other-key"),
        "credentials.a.tls.key_file: the private key does not belong to the certificate",
    ),
    "token-key-itself": (of_token_tls(f'key_file: §"-----BEGIN PRIVATE KEY-----\\n{SECRET}"'), "the name of the file"),
    "token-server-name-port": (of_token_tls("server_name: §x.example:443"), "must be a name without a port"),
    "token-tls-at-http": (
        of_credential("token_url: http://127.0.0.1:81/t, client_auth: none, §tls: {server_name: x.example}"),
        "credentials.a.tls: has no effect at an http:// token_url; write https:// there, or remove tls",
    ),
    "token-tls-at-http-upstream": (
        of_credential("token_url: /t, client_auth: none, §tls: {ca_file: pem/ca}").replace(
            "https://x.example", "http://127.0.0.1:81"
        ),
        "credentials.a.tls: has no effect at an http:// upstream; write https:// there, or remove tls",
    ),
    "token-tls-of-preset": (
        "credentials: {a: {preset: {name: atlas, realm: r}, client_id: i, token_url: http://127.0.0.1:1, "
        f"client_secret: {SECRET}, §tls: {{server_name: x.example}}}}}}\n" + ROUTES,
        "has no effect at an http:// token_url",
    ),
    # credentials
    "basic-without-id": (lacking(f"token_url: /t, client_secret: {SECRET}"), "client_id is missing"),
    "post-without-secret": (
        lacking("token_url: /t, client_auth: client_secret_post, client_id: a"),
        "client_secret is missing; client_secret_post needs it",
    ),
    "none-with-secret": (
        of_credential(f"token_url: /t, client_auth: none, §client_secret: {SECRET}"),
        "none sends no secret",
    ),
    "password-without-user": (
        lacking(f"{CREDENTIAL}, grant_type: password, password: {SECRET}"),
        "username is missing",
    ),
    "password-without-password": (lacking(f"{CREDENTIAL}, grant_type: password, username: u"), "password is missing"),
    "refresh-without-token": (lacking(f"{CREDENTIAL}, grant_type: refresh_token"), "refresh_token is missing"),
    "username-for-nothing": (more(f"§username: {SECRET}"), "only for grant_type: password"),
    "refresh-token-for-nothing": (more(f"§refresh_token: {SECRET}"), "only for grant_type: refresh_token"),
    "principal-missing": (more('params: {§user: "x{principal}"}'), "has no principal"),
    "principal-missing-header": (more('headers: {§User: "{principal}"}'), "has no principal"),
    "principal-missing-url": (of_credential('§token_url: "/t/{principal}", client_auth: none'), "has no principal"),
    "principal-unused": (more("§principal: {header: X-User}"), "all users would share one token"),
    "principal-header": (more('principal: {header: §Host}, params: {u: "{principal}"}'), "belongs to the connection"),
    "principal-in-host": (
        of_credential('token_url: §"https://{principal}.example/t", client_auth: none, principal: {header: X-U}'),
        "no valid name",
    ),
    "get-with-body": (more("§method: GET"), "GET has no body"),
    "param-grant-type": (more("params: {§grant_type: x}"), "sends this parameter itself"),
    "param-client-id": (
        more("client_auth: client_secret_post, params: {§client_id: x}"),
        "sends this parameter itself",
    ),
    "param-client-secret": (more(f"params: {{§client_secret: {SECRET}}}"), "sends this parameter itself"),
    "param-is-mapping": (more(f"params: {{u: §{{a: {SECRET}}}}}"), "params.u: must be text"),
    "json-number": (more("send: json, params: {n: §1e999}"), "too large a number"),
    "header-authorization": (more(f"headers: {{§authorization: {SECRET}}}"), "bearward sets this header"),
    "header-length": (more("headers: {§Content-Length: '1'}"), "bearward sets this header"),
    "inject-header": (more("inject: {header: §Connection}"), "belongs to the connection"),
    "inject-format": (more(f"inject: {{format: §Bearer {SECRET}}}"), "holds {token} exactly once"),
    "inject-format-twice": (more('inject: {format: §"{token} {token}"}'), "holds {token} exactly once"),
    "response-path": (more("response: {token: §a..b}"), "empty name between dots"),
    "expires-incomplete": (more("response: {§expires: {field: a}}"), "response.expires: as is missing"),
    "expires-unit": (more("response: {expires: {field: a, as: §second}}"), "did you mean seconds?"),
    "refusal-list": (more("response: {refusal: {field: a, not: §0}}"), "must be a list"),
    # presets
    "preset-unknown": (
        of_credential("preset: §acronis-conector"),
        "no preset of this name; did you mean acronis-connector?",
    ),
    "preset-unknown-name": (
        of_credential("preset: {name: §ocpp, realm: x}"),
        "no preset of this name; did you mean ocp?",
    ),
    "preset-shape": (of_credential("preset: §[ocp]"), "must be a preset's name, or {name: NAME}"),
    "preset-parameter": (
        of_credential(f"preset: {{name: atlas, §relm: {SECRET}, realm: x}}"),
        "no such parameter; did you mean realm?",
    ),
    "preset-parameter-missing": (of_credential("preset: §atlas"), "needs the parameter realm"),
    "preset-parameter-odd": (
        of_credential('preset: {name: ocp, realm: §"a?b"}'),
        "preset.realm: stands in the path of token_url, and must not have a query; remove it",
    ),
    "preset-brought": (
        of_credential(f"preset: §acceleration-cloud, client_id: a, client_secret: {SECRET}, params: {{user_id: u}}"),
        "principal: null",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_reported_at_its_place(name: str, file: Path, pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, said = FAULTS[name]
    monkeypatch.setenv("BEARWARD_EMPTY", "")
    file.with_name("empty").write_text("\n")
    file.with_name("binary").write_bytes(b"\xff\xfe")
    file.with_name("text").write_text("{a: b}")
    file.with_name("json").write_text('{"a": {"b.c": "x"}, "number": 1}')
    file.with_name("pem").symlink_to(pem)

    assert_fault(file, text, said)


MANY = f"""\
listen: 10.0.0.1:8080
data_centers:
  eu8: http://eu8.example/
credentials:
  acronis:
    preset: acronis-conector
    client_secrt: {SECRET}  # {SECRET}
  ocp:
    preset: ocp
    username: &u {SECRET}
    password: {{env: BEARWARD_NO}}
    scope: *u
    ttl: soon
    ttl: 90s
    params: {{grant_type: {SECRET}, a: [1, {{b: {SECRET}}}]}}
routes:
  /{{data_center}}: {{upstream: "{{data_center}}", credential: acronis}}
  /ocp/: {{upstream: https://ocp.example, credential: opc}}
"""


def test_all_faults_are_reported_at_once_in_order(file: Path) -> None:
    code, output = check(file, MANY)

    headlines = [line.removeprefix(f"{file}:") for line in output.splitlines() if line.startswith(str(file))]
    assert code == 78
    assert [line.split(": ")[:2] for line in headlines] == [
        ["1:9", "listen"],
        ["6:13", "credentials.acronis.preset"],
        ["7:5", "credentials.acronis.client_secrt"],
        ["11:21", "credentials.ocp.password.env"],
        ["13:10", "credentials.ocp.ttl"],
        ["14:5", "credentials.ocp.ttl"],
        ["15:14", "credentials.ocp.params.grant_type"],
        ["15:42", "credentials.ocp.params.a.1"],
        ["17:30", "routes./{data_center}.upstream"],
        ["18:3", "routes./ocp/"],
        ["18:54", "routes./ocp/.credential"],
    ]


def test_a_fault_is_three_lines_with_what_may_be_secret_masked(file: Path) -> None:
    _, output = check(file, f'a: "{SECRET}" # {SECRET}\n' + more("params: {b: [c, d]}, send: jsn"))

    assert output == (
        f"{file}:1:1: a: unknown key; known: listen, admin, data_centers, credentials, routes, allowed_hosts, "
        "allowed_origins, require_header, allow_remote, limits, token_store, egress_proxy, log\n"
        "    a: *** ***\n"
        "    ^\n"
        f"{file}:2:123: credentials.a.send: must be one of form, json, query; did you mean json?\n"
        "    credentials: {a: {token_url: https://idp.example/token, client_id: id, client_secret: ***, "
        "params: {b: [***, ***]}, send: jsn}}\n" + " " * (4 + 122) + "^^^\n"
    )


def test_the_carets_follow_the_masked_line(file: Path) -> None:
    for text, (shown, carets) in {
        f"credentials: {{a: {{password: {SECRET * 3}, user: {SECRET}}}}}": (
            "credentials: {a: {password: ***, user: ***}}",
            "                                 ^^^^",
        ),
        f"listen: 127.0.0.1:1{SECRET}": ("listen: ***", "        ^^^"),
        f"data_centers: {{a: https://{SECRET}.example/{SECRET}%}}".replace(SECRET, "x"): (
            "data_centers: {a: ***}",
            "                  ^^^",
        ),
    }.items():
        _, output = check(file, text)
        lines = output.splitlines()
        assert f"    {shown}" in lines
        assert f"    {carets}" in lines


def test_a_long_line_is_cut_around_the_fault(file: Path) -> None:
    _, output = check(file, "allowed_hosts: [" + "a.example, " * 500 + "'*'" + ", a.example" * 500 + "]")

    source, carets = output.splitlines()[-2:]
    assert len(source) < 200
    assert source[carets.index("^") :].startswith("***")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        (b"\xff\xfea: 1", "is not UTF-8 text"),
        (b"a: " + b"x" * (1 << 20), "is larger than 1 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_fault(file: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigError) as raised:
        load(file)

    assert said in str(raised.value)
    assert str(raised.value).startswith(f"{file}:1:1: ")


def test_a_folder_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a regular file"):
        load(tmp_path)


def test_aliases_cannot_make_a_small_file_huge(file: Path) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(12))

    code, output = check(file, bomb)

    assert code == 78
    assert "more than 50000 values" in output


def test_text_stays_as_written(file: Path) -> None:
    read = endpoint(loaded(file, of_credential("token_url: /t, client_id: 0123, client_secret: no, scope: 1:30")))

    texts = [read.client.id, read.client.secret, read.scope]
    assert [text.reveal() for text in texts if text] == ["0123", "no", "1:30"]


def test_everything_in_its_place(file: Path) -> None:
    settings = loaded(
        file,
        f"""
listen: "[::1]:0"
admin: 0.0.0.0:9000
data_centers: {{eu8: https://eu8.example/base/, us5: "http://[::1]:81"}}
allowed_hosts: [A.Example, b.example:1, "[::2]"]
allowed_origins: ["HTTPS://A.example:443", "http://b.example:81"]
require_header: X-Local
limits:
  connections: 1
  upstream_connections: 2
  header_timeout: 500ms
  header_bytes: 64 KiB
  drain_timeout: 2m
log: {{level: debug, format: json, access: errors}}
credentials:
  a:
    token_url: https://idp.example/t/{{principal}}/
    client_auth: client_secret_post
    client_id: id
    client_secret: {SECRET}
    headers: {{A: "{{principal}}"}}
    params: {{b: [c, "1"], d: 1}}
    response:
      token: data.a\\.b.0
      expires: {{field: "", as: epoch}}
      refusal: {{field: code, not: [0, "0", true, null, 1.5, x]}}
    ttl: 500ms
    refresh: {{lead: 2m}}
    timeout: 1.5
    principal: {{header: X-User, max: 5}}
    inject: {{header: X-Token, format: "T {{token}}"}}
routes:
  /{{data_center}}/x:
    upstream: "{{data_center}}/api/"
    credential: a
    on_401: pass
    request_headers: {{set: {{A: b}}, remove: [C]}}
    connect_timeout: 2h
    response_timeout: 90s
    idle_timeout: 15m
    allow_encoded_slash: true
    max_body: 10MB
  /: {{upstream: https://x.example, credential: a}}
""",
    )

    assert (settings.listen, settings.admin) == (Address("::1", 0), Address("0.0.0.0", 9000))
    assert settings.allowed_hosts == ("a.example:0", "b.example:1", "[::2]:0")
    assert settings.allowed_origins == ("https://a.example", "http://b.example:81")
    assert (settings.log.level, settings.log.format, settings.log.access) == ("debug", "json", "errors")
    assert settings.require_header == "X-Local"
    assert settings.limits == Limits(
        connections=1, upstream_connections=2, header_timeout=0.5, header_bytes=65536, drain_timeout=120
    )
    assert [(route.prefix, str(route.upstream)) for route in settings.routes] == [
        ("/eu8/x", "https://eu8.example/base/api/"),
        ("/us5/x", "http://[::1]:81/api/"),
        ("/", "https://x.example"),
    ]
    first, *_, last = settings.routes
    assert (first.on_401, first.remove_headers, first.allow_encoded_slash) == ("pass", ("C",), True)
    assert [(name, value.reveal()) for name, value in first.set_headers] == [("A", "b")]
    assert (first.connect_timeout, first.response_timeout, first.idle_timeout) == (7200, 90, 900)
    assert (last.on_401, last.connect_timeout) == ("replay", 5)
    assert (first.max_body, last.max_body) == (10_000_000, None)
    a = settings.credentials["a"]
    assert isinstance(a.source, TokenEndpoint)
    assert a.source.token_url == "https://idp.example/t/{principal}/"
    assert a.source.headers["A"].reveal() == "{principal}"
    assert [text.reveal() for text in a.source.params["b"]] == ["c", "1"]
    assert a.source.params["d"].reveal() == "1"
    assert a.reading.token == ("data", "a.b", "0")
    assert a.reading.expires == ExpiryField((), "epoch")
    assert a.reading.refusal == RefusalMark(("code",), (0, "0", True, None, 1.5, "x"))
    assert (a.reading.ttl, a.refresh_lead, a.timeout) == (0.5, 120, 1.5)
    assert a.principal == Principal("X-User", 5)
    assert (a.inject_header, a.inject_format) == ("X-Token", "T {token}")
    assert settings.warnings == ()


def test_json_parameters_have_the_types_that_are_written(file: Path) -> None:
    fields = 'send: json, params: {a: {b: [true, 12, -1.5e3, null, "12", 0123, yes]}, c: null, d: {env: HOME}}'
    params = endpoint(loaded(file, more(fields))).params

    *plain, quoted, octal, word = params["a"]["b"]
    assert repr(plain) == "[True, 12, -1500.0, None]"
    assert [text.reveal() for text in (quoted, octal, word)] == ["12", "0123", "yes"]
    assert params["c"] is None
    assert params["d"].reveal() == str(Path.home())


def test_a_secret_file_is_read_again_and_found_from_the_folder_of_the_config(file: Path) -> None:
    secret = file.with_name("secret")
    secret.write_text("first\n")
    settings = loaded(file, of_credential("token_url: /t, client_id: a, client_secret: {file: secret}"))
    secret.write_text("second")

    read = endpoint(settings).client.secret
    assert read is not None
    assert read.reveal() == "second"


def test_what_is_not_written_has_its_default(file: Path) -> None:
    settings = loaded(file, of_top("limits: {drain_timeout: 5s}"))

    assert settings.limits == Limits(
        connections=1024, upstream_connections=256, header_timeout=10, header_bytes=65536, drain_timeout=5
    )
    assert (settings.require_header, settings.egress_proxy, settings.log.access) == (None, None, "off")
    assert (settings.routes[0].tls, settings.routes[0].max_body) == (Tls(), None)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        *(("0", 0), ("1024", 1024), ("1kB", 1000), ("1KB", 1000), ("64KiB", 65536), ("64 KiB", 65536)),
        *(("10MB", 10**7), ("1MiB", 1 << 20), ("2GB", 2 * 10**9), ("2 GiB", 2 << 30)),
    ],
)
def test_sizes(file: Path, written: str, size: int) -> None:
    settings = loaded(file, of_route(f"upstream: https://x.example, max_body: {written}"))

    assert settings.routes[0].max_body == size


@pytest.mark.parametrize("name", ["x.example", "X.example.", "192.0.2.1", "2001:DB8::1", "'[2001:db8:0::1]'"])
def test_a_server_name_is_a_name_or_an_address(file: Path, name: str) -> None:
    settings = loaded(file, of_tls(f"server_name: {name}"))

    plain = "2001:db8::1" if "2001" in name else name.lower().rstrip(".")
    assert settings.routes[0].tls == Tls(server_name=plain)


def test_certificates_are_found_from_the_folder_of_the_config(file: Path, pem: Path) -> None:
    file.with_name("pem").symlink_to(pem)
    own = f"ca_file: {pem}/ca, cert_file: pem/cert, key_file: pem/key"

    settings = loaded(file, of_tls(own)), loaded(file, of_tls("cert_file: pem/both"))

    folder = file.parent / "pem"
    assert [one.routes[0].tls for one in settings] == [
        Tls(ca_file=f"{pem}/ca", cert_file=f"{folder}/cert", key_file=f"{folder}/key"),
        Tls(cert_file=f"{folder}/both"),
    ]


def test_certificates_for_token_requests(file: Path, pem: Path) -> None:
    fields = f"tls: {{ca_file: {pem}/ca, cert_file: {pem}/cert, key_file: {pem}/key, server_name: y.example}}"
    preset = f"preset: {{name: atlas, realm: r}}, client_id: i, client_secret: {SECRET}, {fields}"

    settings = loaded(file, more(fields)), loaded(file, of_credential(preset)), loaded(file, more("tls: null"))

    own = Tls(ca_file=f"{pem}/ca", cert_file=f"{pem}/cert", key_file=f"{pem}/key", server_name="y.example")
    assert [endpoint(one).tls for one in settings] == [own, own, Tls()]
    assert settings[0].routes[0].tls == Tls(), "a route has its own"
    assert endpoint(Reading(file).settings()).tls == Tls()


def test_every_file_at_fault_is_told(file: Path, pem: Path) -> None:
    _, output = check(file, of_tls(f"ca_file: {pem}/words, cert_file: {pem}/cert, key_file: {pem}/none"))

    told = [line for line in output.splitlines() if line.startswith(str(file))]
    assert len(told) == 2
    assert "ca_file" in told[0]
    assert "key_file" in told[1]


@pytest.mark.parametrize(
    ("url", "where", "authorization"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128", None),
        ("http://[::1]:3128/", "http://[::1]:3128", None),
        (f"http://user:{SECRET}@P.example:80", "http://p.example:80", "Basic dXNlcjpodW50ZXIy"),
        ("http://us%20er:p%40%3a%C3%A9@p.example:80", "http://p.example:80", "Basic dXMgZXI6cEA6w6k="),
        ("http://user@p.example:80", "http://p.example:80", "Basic dXNlcjo="),
        ("http://user:a:b@p.example:80", "http://p.example:80", "Basic dXNlcjphOmI="),
    ],
)
def test_an_egress_proxy(
    file: Path, monkeypatch: pytest.MonkeyPatch, url: str, where: str, authorization: str | None
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)

    proxy = loaded(file, of_top("egress_proxy: {env: HTTPS_PROXY}")).egress_proxy

    assert proxy is not None
    assert proxy.url == where
    assert (proxy.authorization and proxy.authorization.reveal()) == authorization
    assert SECRET not in repr(proxy)
    assert "Basic" not in repr(proxy)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_in_the_environment_is_not_used_unless_it_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://proxy.example:3128")

    assert loaded(file, of_top("")).egress_proxy is None


def test_a_process_of_its_own_reads_the_same(file: Path, pem: Path) -> None:
    text = of_tls(f"ca_file: {pem}/ca, server_name: y.example").replace("tls:", "max_body: 5, tls:")
    top = f"limits: {{connections: 3}}\nrequire_header: X-A\negress_proxy: http://u:{SECRET}@p.example:1\n"
    here = loaded(file, f"{top}log: {{access: all}}\n{text}")

    there = Reading(file).settings()

    assert there.routes == here.routes
    assert there.routes[0].tls == Tls(ca_file=f"{pem}/ca", server_name="y.example")
    assert (there.limits, there.require_header, there.log) == (here.limits, "X-A", here.log)
    assert there.egress_proxy is not None
    assert there.egress_proxy.authorization is not None
    assert there.egress_proxy.url == "http://p.example:1"
    assert there.egress_proxy.authorization.reveal() == "Basic dTpodW50ZXIy"


def test_any_text_may_stand_elsewhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARWARD_TTL", "90s")
    monkeypatch.setenv("BEARWARD_URL", "https://y.example")
    file.with_name("on").write_text("true\n")
    text = more("ttl: {env: BEARWARD_TTL}, allow_http: {file: on}").replace("https://x.example", "{env: BEARWARD_URL}")

    settings = loaded(file, text)

    assert settings.credentials["a"].reading.ttl == 90
    assert str(settings.routes[0].upstream) == "https://y.example"


def test_a_data_center_may_be_named_like_a_reference(file: Path) -> None:
    text = of_top("data_centers: {env: https://env.example}").replace("/x:", '"/{data_center}":')

    assert [route.prefix for route in loaded(file, text).routes] == ["/env"]


def test_a_socket_takes_hosts_without_a_port(file: Path) -> None:
    settings = loaded(file, of_top("listen: unix:run.sock\nallowed_hosts: [a.example]"))

    assert settings.listen == Address(path=str(file.with_name("run.sock")))
    assert settings.allowed_hosts == ("a.example",)


@pytest.mark.parametrize(
    "text",
    [
        of_top("listen: 0.0.0.0:8080\nallow_remote: true"),
        of_top("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0"),
        of_route("upstream: http://x.example, allow_http: true"),
        of_route("upstream: http://localhost:81"),
        of_credential("token_url: http://idp.example/t, allow_http: true, client_auth: none"),
        of_credential("token_url: /a%20b/t, client_auth: none"),
        of_credential("token_url: /t, client_auth: none, grant_type: none, params: {username: a, grant_type: b}"),
        more('grant_type: password, username: u, password: "p w"'),
        more("params: {empty: '', list: []}, basic_encoding: null"),
        of_tls("", "http://127.0.0.1:81"),
        of_top("limits: {header_bytes: 1024, connections: 1000000}"),
        of_top("limits: {header_bytes: 1MiB, header_timeout: null}\negress_proxy: null"),
        "--- \n" + of_top("# a comment") + "...\n",
    ],
)
def test_what_is_allowed(file: Path, text: str) -> None:
    loaded(file, text)


def test_warnings_name_their_place_and_no_secret(file: Path) -> None:
    credentials = (
        f"credentials:\n  a: {{{CREDENTIAL}}}\n  b: {{{CREDENTIAL}+}}\n  c: {{{CREDENTIAL}+, basic_encoding: raw}}\n"
    )
    code, output = check(
        file, credentials + ROUTES.replace("}}", "}, /c: {upstream: https://x.example, credential: c}}")
    )

    assert code == 0
    assert f"warning: {file}:3:3: credentials.b: no route uses this credential\n" in output
    assert f"warning: {file}:3:3: credentials.b: the client id or secret has characters on which" in output
    assert output.count("warning: ") == 2


@pytest.mark.parametrize("secret", ["$CLIENT_SECRET", "'${CLIENT_SECRET}'", "env:CLIENT_SECRET"])
def test_what_looks_like_a_reference_is_warned_of(file: Path, secret: str) -> None:
    credential = f"token_url: https://idp.example/t, client_id: id, basic_encoding: raw, client_secret: {secret}"
    code, output = check(file, f"credentials: {{a: {{{credential}}}}}\n{ROUTES}")

    assert code == 0
    assert "credentials.a.client_secret: is sent as it stands here" in output
    assert "CLIENT_SECRET" not in output


@pytest.mark.parametrize("name", ["Accept", "User-Agent", "Sec-Fetch-Mode"])
def test_a_required_header_that_browsers_send_is_warned_of(file: Path, name: str) -> None:
    code, output = check(file, of_top(f"require_header: {name}"))

    assert code == 0
    assert f"warning: {file}:1:17: require_header: browsers send this header by themselves" in output


def test_a_star_in_a_prefix_is_warned_of(file: Path) -> None:
    code, output = check(file, of_top("").replace("/x:", '"/x/*":'))

    assert code == 0
    assert ": * is a letter like others" in output


WITH_ROUTES = "\n" + ROUTES
MISWRITTEN = [
    f"credentials:\n  a:\n    client_secret:\n      {SECRET}: x\n" + WITH_ROUTES,
    f"credentials:\n  a:\n    client_secret {SECRET}\n    send: jsn\n" + WITH_ROUTES,
    f"credentials:\n  a:\n    client_secret={SECRET}: 5\n    send: jsn\n" + WITH_ROUTES,
    f"credentials: {{a: {{send: jsn, client_secret: {SECRET}\n   more {SECRET}, method: PUT}}}}" + WITH_ROUTES,
    f"credentials: {{a: {{client_secret: 'x\n   {SECRET}', method: PUT}}}}" + WITH_ROUTES,
    f"credentials:\n  a:\n    ? client_secret\n    : {SECRET}\n    method: PUT" + WITH_ROUTES,
    f"credentials:\n  a:\n    &{SECRET} method: PUT" + WITH_ROUTES,
    f"credentials:\n  a:\n    !{SECRET} method: PUT" + WITH_ROUTES,
    f"credentials:\n  a:\n    client_secret: ! {SECRET}\n    method: PUT" + WITH_ROUTES,
    f"credentials:\n  a: &a\n    client_secret: {SECRET}\n  b:\n    <<: *a\n    method: PUT" + WITH_ROUTES,
    f"credentials:\n  a:\n    client_secret: &p {SECRET}\n    token_url: *p\n    grant_type: *p\n    preset: *p"
    + WITH_ROUTES,
    f"credentials:\n  a:\n    client_secret: &p {SECRET}\nroutes:\n  /x: {{credential: *p, upstream: *p}}",
    f"credentials:\n  a:\n    client_secret: &p {SECRET}\nlisten: *p\nallowed_hosts: [*p]\nlog: {{level: *p, *p : 3}}",
    f"credentials: {{a: {{headers: &h {{level: {SECRET}}}}}}}\nlog: *h" + WITH_ROUTES,
    f"log: &l {{level: {SECRET}}}\ncredentials: {{a: {{headers: *l}}}}" + WITH_ROUTES,
    f"routes:\n  /x: {{credential: {{client_secret: {SECRET}}}, upstream: https://a:{SECRET}}}",
    f"data_centers: {{a: 'https://a.example:{SECRET}', b: 'https://{SECRET}@c', c: '/?{SECRET}'}}" + WITH_ROUTES,
    f'data_centers: {{a: "https://x/\\t{SECRET}"}}' + WITH_ROUTES,
    f"credentials: {{a: {{token_url: 'https://x:{SECRET}@y/z', logout_url: 'https://h/?t={SECRET}'}}}}" + WITH_ROUTES,
    f"client_secret: |\n  {SECRET}\n foo",
    f"client_secret: >2\n{SECRET}\n",
    f'password: "{SECRET}\\q"',
    f"password: {SECRET}\n- x",
    f"password: [{SECRET}",
    f"password: {{{SECRET}",
    f"- {SECRET}\nfoo",
    f"{SECRET}",
    f"'{SECRET}'",
    f"{SECRET}: [",
    f"{SECRET}\nlisten: x\n",
    f"credentials: {{a: {{preset: {{name: ocp, password: {SECRET}}}}}}}" + WITH_ROUTES,
    f"credentials: {{a: {{preset: {{name: ocp, {SECRET}}}}}}}" + WITH_ROUTES,
    f"credentials: {{a: {{params: {{{SECRET}}}, headers: {{{SECRET}, 'X: {SECRET}': x}}}}}}" + WITH_ROUTES,
    f"credentials: {{a: {{password: {{file: {SECRET}}}, username: {{env: {SECRET}}}}}}}" + WITH_ROUTES,
    f"credentials: {{a: {{client_secret: {{env: {{{SECRET}: x}}}}}}}}" + WITH_ROUTES,
    f"credentials: {{a: {{inject: {{format: {SECRET}, header: 'x {SECRET}@'}}}}}}" + WITH_ROUTES,
    f"credentials: {{a: {SECRET}}}" + WITH_ROUTES,
    f"credentials: {SECRET}" + WITH_ROUTES,
    f"credentials: [{SECRET}]" + WITH_ROUTES,
    f"%TAG {SECRET} {SECRET}\n---\na",
    f"%YAML 1.{SECRET}\n---\n",
    f"%{SECRET}\n---\nlisten: x",
    f"password: {SECRET}\n---\npassword: {SECRET}",
    f"password: {SECRET}\x00",
    f"password: {SECRET} \x1b[0m",
    f"a: b\n\t{SECRET}: c",
    f"{{client_secret:{SECRET}}}",
    f"{{client_secret: {SECRET}}}}}",
    f'{{"client_secret":"{SECRET}","listen":5}}',
    f'{{"client_secret":"{SECRET}" "listen":5}}',
    f"\u2028client_secret: {SECRET}\x85listen: {SECRET}@",
    f"credentials: {{a: {{scope: {SECRET}, response: {SECRET}@, ttl: [{SECRET}]}}}}" + WITH_ROUTES,
    f"credentials: {{a: {{timeout: '{SECRET}!', params: '{SECRET}'}}}}" + WITH_ROUTES,
    f"egress_proxy: http://{SECRET}\nlimits: {{connections: {SECRET}@}}" + WITH_ROUTES,
    f"egress_proxy: p.example:{SECRET}\nrequire_header: '{SECRET}: {SECRET}'" + WITH_ROUTES,
    f"egress_proxy: &p http://u:{SECRET}@p.example\nlisten: *p" + WITH_ROUTES,
    f"egress_proxy: {{url: {SECRET}}}" + WITH_ROUTES,
    f"routes: {{/x: {{tls: {{key_file: {SECRET}, ca_file: {{file: {SECRET}}}}}}}}}",
    f"routes: {{/x: {{tls: {{key_file: MIIEvQIBADANBgkqhkiG{SECRET}}}}}}}",
    f"credentials: {{a: {{tls: {{key_file: {SECRET}, ca_file: {{file: {SECRET}}}}}}}}}",
    f"routes:\n  /x:\n    tls:\n      key_file: |\n        -----BEGIN KEY-----\n        {SECRET}\n",
    f"# {SECRET}",
    f"listen: x # {SECRET}",
    f"listen: x#{SECRET}",
]


@pytest.mark.parametrize("text", MISWRITTEN, ids=range(len(MISWRITTEN)))
def test_a_secret_in_the_wrong_place_is_not_repeated(file: Path, text: str) -> None:
    code, _ = check(file, text)

    assert code == 78


def hostile_files() -> Iterator[bytes]:
    """Random bytes, and a valid file and a faulty one, cut off or changed at random."""
    chance = random.Random(20240517)
    signed = (
        f"assertion: {{key: {SECRET}, claims: {{a: [{SECRET}]}}}}, body: {SECRET}, response: {{token: {{cookie: a}}}}"
    )
    given = f"b: {{source: static, token: {SECRET}}}, c: {{source: exec, command: ['true', {SECRET}]}}"
    seeds = [
        MANY,
        more(f"params: {{a: {SECRET}}}, headers: {{B: {SECRET}}}, scope: {SECRET}"),
        more(f"{signed}, headers: {{A: '{{token:b}}'}}").replace("{a:", f"{{{given}, a:", 1),
    ]
    alphabet = "{}[]:,&*!|>'\"%@`#-? \n\t\\<\u2028é~$0aA"
    for _ in range(60):
        yield chance.randbytes(chance.randrange(200))
    for seed in seeds:
        for _ in range(40):
            yield seed[: chance.randrange(len(seed))].encode()
        for _ in range(120):
            text = list(seed)
            for _ in range(chance.randrange(1, 6)):
                place = chance.randrange(len(text))
                if SECRET not in "".join(text[max(0, place - 7) : place + 7]):  # the secret itself stays whole
                    text[place : place + chance.randrange(2)] = chance.choice(alphabet)
            yield "".join(text).encode()


def test_hostile_files_neither_break_it_nor_make_it_talk(file: Path) -> None:
    codes = [check(file, content)[0] for content in hostile_files()]

    assert set(codes) <= {0, 78}
    assert codes.count(78) > 300


def test_the_command_itself(file: Path) -> None:
    for text, code in ((of_top(""), 0), (of_top("lisen: x"), 78)):
        file.write_text(text)
        command = [sys.executable, "-m", "bearward", "check", "-c", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == code
        assert ("did you mean listen?" in done.stderr) == (code == 78)
        assert bool(done.stdout) == (code == 0)
