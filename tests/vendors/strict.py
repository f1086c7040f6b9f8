"""All vendors of the presets behind one port: each answers one exact token request, and refuses every other one."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

import wire
from wire import Message, Reader, Writer

FORM = "application/x-www-form-urlencoded"
_OF_ANY_CLIENT = {"host", "user-agent", "content-length", "connection"}


@dataclass(frozen=True)
class Asked:
    """A token request as it came: every header and parameter, JWTs verified and taken apart."""

    line: str
    """Method and URL, without a query."""
    headers: Mapping[str, Any]
    """By their names in lower case, without those that say nothing."""
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Signed:
    """A JWT that the vendor knows to be the client's."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    """Without `iat`, `exp` and `jti`, which must be there."""
    lifetime: int


@dataclass(frozen=True)
class Vendor:
    """What one vendor's documents say of its token endpoint."""

    asked: Asked
    answer: Callable[[str], tuple[int, Any]]
    """Status and document that bring this token."""
    refusal: tuple[int, Any]


class StrictVendors:
    """A script for an upstream: token endpoints by their lines, and APIs that take any call.

    A token endpoint may have several clients, with a vendor each. `key` is the one that they sign with.
    """

    def __init__(self, vendors: Mapping[str, Vendor], key: RSAPublicKey, new_token: Callable[[], str]) -> None:
        self._vendors = vendors
        self._key = key
        self._new_token = new_token
        self._jwt_ids: set[str] = set()
        self.asked: list[Asked] = []
        self.tokens: dict[str, list[str]] = {name: [] for name in vendors}
        """The tokens that each vendor gave away."""
        self.calls: list[tuple[str, list[bytes]]] = []
        """Line and Authorization of every other request."""

    async def __call__(self, request: Message, reader: Reader, writer: Writer) -> None:
        body = await reader.readexactly(int((request.values("Content-Length") or [b"0"])[0]))
        path, _, query = request.target.decode().partition("?")
        line = f"{request.start.split()[0].decode()} https://{request.values('Host')[0].decode()}{path}"
        there = {name: vendor for name, vendor in self._vendors.items() if vendor.asked.line == line}
        if not there:
            self.calls.append((line, request.values("Authorization")))
            writer.write(wire.ok(b"ok", b"Connection: close"))
        else:
            status, document = self._judge(there, self._read(line, request, query, body))
            content = json.dumps(document).encode()
            head = f"{status} As Documented".encode()
            writer.write(wire.answer(head, content, b"Content-Type: application/json", b"Connection: close"))
        await writer.drain()

    def _judge(self, vendors: Mapping[str, Vendor], asked: Asked) -> tuple[int, Any]:
        self.asked.append(asked)
        for name, vendor in vendors.items():
            if asked == vendor.asked:
                self.tokens[name].append(self._new_token())
                return vendor.answer(self.tokens[name][-1])
        return next(iter(vendors.values())).refusal

    def _read(self, line: str, request: Message, query: str, body: bytes) -> Asked:
        named = [(name.decode().lower(), value.decode()) for name, value in request.fields]
        headers = _once([(name, value) for name, value in named if name not in _OF_ANY_CLIENT])
        assert request.values("User-Agent"), "GitHub refuses requests without one"
        is_json = headers.get("content-type") == "application/json"
        content = json.loads(body) if is_json else _once(parse_qsl(body.decode(), True, strict_parsing=bool(body)))
        parts = headers, _once(parse_qsl(query, True, strict_parsing=bool(query))), content
        return Asked(line, *({name: self._taken_apart(value) for name, value in part.items()} for part in parts))

    def _taken_apart(self, value: Any) -> Any:
        text = value.removeprefix("Bearer ") if isinstance(value, str) else ""
        if not text.startswith("eyJ"):
            return value
        header = jwt.get_unverified_header(text)
        try:  # the times as well: nothing is given to clocks that differ
            claims = jwt.decode(
                text, self._key, [header["alg"]], options={"verify_aud": False, "require": ["iat", "exp", "jti"]}
            )
        except jwt.InvalidSignatureError:
            return "a JWT that another key has signed"
        lifetime, jwt_id = claims.pop("exp") - claims.pop("iat"), claims.pop("jti")
        assert jwt_id not in self._jwt_ids, "every attempt has a JWT of its own"
        self._jwt_ids.add(jwt_id)
        return Signed(header, claims, lifetime)


def _once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    assert len(dict(pairs)) == len(pairs), f"something came twice: {[name for name, _ in pairs]}"
    return dict(pairs)
