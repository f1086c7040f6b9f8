"""`tls` of a credential: whom to trust at its token endpoint, and which certificate to show there (RFC 8705)."""

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import pytest_asyncio

import wire
from evidence import new_secret
from harness import Bearward
from tls import Authority, TlsUpstream, listening, peer_names, speak_plainly
from wire import Message, RawUpstream, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

USER = "X-User"
SOON = 10.0
LONG = 8 << 10
"""Bytes: more than a handshake has."""


@dataclass
class TokenEndpoint:
    """A script: every POST to `/token` gets a token, and one to `/logout` ends the session."""

    shown: list[tuple[str, str, list[str]]] = field(default_factory=list)
    """The path, the user (or client) and the names in the client's certificate, of each request."""

    async def __call__(self, request: Message, reader: Reader, writer: Writer) -> None:
        body = await reader.readexactly(int(request.values("Content-Length")[0]))
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        self.shown.append((request.target.decode(), form.get("user") or form["client_id"], peer_names(writer)))
        answer = {"access_token": new_secret("token", "t-"), "expires_in": 3600}
        if form.get("grant_type") == "password":
            answer["refresh_token"] = new_secret("refresh token", "r-")
        writer.write(wire.ok(json.dumps(answer).encode(), b"Connection: close"))
        await writer.drain()

    def of(self, user: str) -> list[tuple[str, list[str]]]:
        """The paths and names of one user or client."""
        return [(path, names) for path, asked_by, names in self.shown if asked_by == user]


class Files:
    """What a `tls` names, in a folder that is reached by a link, as Kubernetes mounts secrets."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        folder.mkdir()
        self._authority = authority
        self._folder, self._count = folder, 0
        self.link = folder / "live"
        self.tls = {"ca_file": str(self.link / "ca"), "cert_file": str(self.link / "cert")}
        self.tls["key_file"] = str(self.link / "key")
        self.as_another_folder(self.contents(folder.name))

    def contents(self, name: str) -> dict[str, bytes]:
        """The three files, for a client of this name, which is a new one each time."""
        own = self._authority.client(f"{name}@vendor.test")
        paths = {"ca": self._authority.file, "cert": own["cert_file"], "key": own["key_file"]}
        return {name: Path(path).read_bytes() for name, path in paths.items()}

    def in_place(self, contents: dict[str, bytes]) -> None:
        for name, content in contents.items():
            (self.link / name).write_bytes(content)

    def by_other_files(self, contents: dict[str, bytes]) -> None:
        for name, content in contents.items():
            (self.link / "new").write_bytes(content)
            (self.link / "new").replace(self.link / name)

    def as_another_folder(self, contents: dict[str, bytes]) -> None:
        self._count += 1
        (self._folder / str(self._count)).mkdir()
        for name, content in contents.items():
            (self._folder / str(self._count) / name).write_bytes(content)
        (self._folder / "next").symlink_to(str(self._count))
        (self._folder / "next").replace(self.link)


def refusing(context: ssl.SSLContext, request_bytes: int) -> Callable[[Reader, Writer], Awaitable[None]]:
    """A server that accepts no client's certificate, and says so: asyncio's own servers send no alert.

    In TLS 1.3 a client is done before it is judged, and its request, of at least so many bytes, is on its way.
    """

    async def serve(reader: Reader, writer: Writer) -> None:
        heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.wrap_bio(heard, said, server_side=True)
        with suppress(asyncio.IncompleteReadError):
            for least in (1, request_bytes):
                heard.write(await reader.readexactly(least) + await reader.read(wire.LIMIT))
                with suppress(ssl.SSLError):
                    server.do_handshake()
                writer.write(said.read())
            writer.write_eof()
            await reader.read()  # an end before all was read would be a reset
        await wire.close(writer)

    return serve


@dataclass
class Stage:
    """`open` asks nobody for a certificate, `guarded` everybody; both have one for `id.vendor.test` and 127.0.0.1."""

    bearward: Bearward
    open: TlsUpstream
    endpoint: TokenEndpoint
    renewed: Files
    damaged: Files

    async def call(self, credential: str, user: str = "") -> tuple[int, str | None]:
        return (await self.bearward.get(f"/{credential}", headers={USER: user} if user else {})).summary

    async def failure(self, credential: str, after: int = 0) -> dict[str, Any]:
        """What the log says of a failed attempt of this credential, the next one after so many."""
        async with asyncio.timeout(SOON):
            while len(lines := self.failures(credential)) <= after:
                await asyncio.sleep(0.02)
        return lines[after]

    def failures(self, credential: str) -> list[dict[str, Any]]:
        """What the log says of all failed attempts of this credential."""
        lines = [json.loads(line) for line in self.bearward.output().splitlines() if line.endswith(b"}")]
        return [line for line in lines if line["event"] == "token refresh failed" and line["credential"] == credential]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One product, with a route of the same name for each credential."""
    folder = tmp_path_factory.mktemp("token-tls")
    ours, strangers = Authority(folder), Authority(folder, "strangers")
    names = ("id.vendor.test", "127.0.0.1")
    async with AsyncExitStack() as stack:
        endpoint = TokenEndpoint()
        free = TlsUpstream(ours.server(*names))
        guarded = TlsUpstream(ours.server(*names, asks_for_client=ssl.CERT_REQUIRED))
        old = ours.server(*names, asks_for_client=ssl.CERT_REQUIRED)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        guarded_old, other = TlsUpstream(old), TlsUpstream(ours.server("id.other.test"))
        for upstream in (free, guarded, guarded_old, other):
            upstream.script = endpoint
            await stack.enter_async_context(upstream)
        new = ours.server(*names, asks_for_client=ssl.CERT_REQUIRED)
        refusing_new = await stack.enter_async_context(listening(refusing(new, LONG)))
        refusing_old = await stack.enter_async_context(listening(refusing(old, 1)))
        plain = await stack.enter_async_context(listening(speak_plainly))
        trust = {"ca_file": ours.file}
        alice = trust | ours.client("alice@vendor.test")
        renewed, damaged = Files(folder / "renewed", ours), Files(folder / "damaged", ours)
        each_user = {"principal": {"header": USER}, "params": {"user": "{principal}"}}
        long = {"params": {"padding": "x" * LONG}}
        session = {"grant_type": "password", "username": "u", "password": new_secret("password")}
        credentials: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
            "trusted": (free.url, trust, {}),
            "named": (free.url, trust | {"server_name": "id.vendor.test"}, {}),
            "alice": (guarded.url, alice, {}),
            "alice-old": (guarded_old.url, alice, {}),
            "users": (guarded.url, alice, each_user),
            "session": (guarded.url, alice, session | {"logout_url": "/logout"}),
            "renewed": (guarded.url, renewed.tls, each_user),
            "damaged": (guarded.url, damaged.tls, each_user),
            "system-roots": (free.url, {}, {}),
            "strange-authority": (free.url, {"ca_file": strangers.file}, {}),
            "wrong-name": (other.url, trust, {}),
            "wrong-server-name": (free.url, trust | {"server_name": "id.other.test"}, {}),
            "no-certificate": (refusing_new, trust, long),
            "no-certificate-old": (refusing_old, trust, {}),
            "strange-certificate": (refusing_new, trust | strangers.client("mallory@vendor.test"), long),
            "plain": (plain, trust, {}),
        }
        client = {"client_auth": "client_secret_post", "client_secret": new_secret("client secret")}
        upstream = await stack.enter_async_context(RawUpstream())
        config = {
            "credentials": {
                name: client | {"client_id": name, "token_url": f"{url}/token", "tls": tls} | more
                for name, (url, tls, more) in credentials.items()
            },
            "routes": {f"/{name}": {"upstream": upstream.url, "credential": name} for name in credentials},
        }
        bearward = await stack.enter_async_context(Bearward(config, folder, name="token-tls", until="/livez"))
        yield Stage(bearward, free, endpoint, renewed, damaged)


async def test_an_authority_of_ones_own(stage: Stage) -> None:
    assert await stage.call("trusted") == (200, None)
    assert stage.endpoint.of("trusted") == [("/token", [])]


async def test_a_name_of_ones_own(stage: Stage) -> None:
    assert await stage.call("named") == (200, None)
    assert stage.open.names.count("id.vendor.test") == 1


@pytest.mark.parametrize("credential", ["alice", "alice-old"])
async def test_a_certificate_is_shown(stage: Stage, credential: str) -> None:
    """In TLS 1.3 and in TLS 1.2."""
    assert await stage.call(credential) == (200, None)
    assert stage.endpoint.of(credential) == [("/token", ["alice@vendor.test"])]


async def test_a_certificate_is_shown_for_each_user(stage: Stage) -> None:
    for user in ("ann", "bob", "ann"):
        assert await stage.call("users", user) == (200, None)
    assert [stage.endpoint.of(user) for user in ("ann", "bob")] == [[("/token", ["alice@vendor.test"])]] * 2


@pytest.mark.parametrize(
    ("credential", "says"),
    {
        "system-roots": "the certificate is not accepted: self-signed certificate in certificate chain",
        "strange-authority": "the certificate is not accepted: self-signed certificate in certificate chain",
        "wrong-name": "the certificate is not accepted: IP address mismatch",
        "wrong-server-name": "the certificate is not accepted: Hostname mismatch",
        "no-certificate": "CERTIFICATE_REQUIRED",
        "no-certificate-old": "HANDSHAKE_FAILURE",
        "strange-certificate": "UNKNOWN_CA",
        "plain": "no TLS is spoken there",
    }.items(),
)
async def test_what_is_not_trusted(stage: Stage, credential: str, says: str) -> None:
    """By us or by them: the reason is `tls`, with what OpenSSL says, and nothing was asked."""
    failure = await stage.failure(credential)
    assert failure["reason"] == "tls"
    assert says in failure["detail"]
    assert stage.endpoint.of(credential) == []
    failures = (await stage.bearward.metrics()).matching("token_refresh_failures_total", credential=credential)
    assert {dict(labels)["reason"] for labels, count in failures.items() if count} == {"tls"}


@pytest.mark.parametrize("way", [Files.in_place, Files.by_other_files, Files.as_another_folder])
async def test_a_renewed_certificate(stage: Stage, way: Callable[[Files, dict[str, bytes]], None]) -> None:
    """The next token request shows it; nothing is to be restarted or read again."""
    for name in (f"{way.__name__}-{count}" for count in range(3)):
        way(stage.renewed, stage.renewed.contents(name))
        assert await stage.call("renewed", name) == (200, None)
        assert stage.endpoint.of(name) == [("/token", [f"{name}@vendor.test"])]


DAMAGE: dict[str, tuple[str, Callable[[Files], None], str]] = {
    "no-key": ("key", lambda files: (files.link / "key").unlink(), "key cannot be used: No such file or directory"),
    "words": ("key", lambda files: files.in_place({"key": b"words"}), "files of tls cannot be used: not in PEM form"),
    "no-words": ("ca", lambda files: files.in_place({"ca": b""}), "files of tls cannot be used: "),
    "another-key": (
        "key",
        lambda files: files.in_place({"key": files.contents("another")["key"]}),
        "files of tls cannot be used: key values mismatch",
    ),
}


@pytest.mark.parametrize(("name", "damage", "says"), DAMAGE.values(), ids=DAMAGE.keys())
async def test_files_that_cannot_be_used_for_a_time(
    stage: Stage, name: str, damage: Callable[[Files], None], says: str
) -> None:
    """An attempt fails, with the reason, and a later one succeeds; a request that waits for it is served."""
    files, user = stage.damaged, new_secret("user", "u-")
    good = (files.link / name).read_bytes()
    before = len(stage.failures("damaged"))
    damage(files)
    try:
        waiting = asyncio.create_task(stage.call("damaged", user))
        failure = await stage.failure("damaged", before)
        assert failure["reason"] == "tls"
        assert says in failure["detail"]
        assert stage.endpoint.of(user) == []
    finally:
        files.in_place({name: good})
    assert await waiting == (200, None)
    assert stage.endpoint.of(user) == [("/token", ["damaged@vendor.test"])]


async def test_the_command_shows_it_too_and_a_logout_as_well(stage: Stage) -> None:
    """`bearward token` ends the session that it has opened."""
    assert await stage.call("session") == (200, None)
    before = len(stage.endpoint.of("session"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "bearward", "token", "session", "-c", str(stage.bearward.config_file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    shown = ["alice@vendor.test"]
    assert stage.endpoint.of("session")[before:] == [("/token", shown), ("/logout", shown)]


async def test_the_command_tells_the_reason(stage: Stage) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "bearward", "token", "wrong-name", "-c", str(stage.bearward.config_file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 1
    assert b"tls: the certificate is not accepted: IP address mismatch" in output
