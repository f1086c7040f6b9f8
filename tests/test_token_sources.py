"""Tokens from this machine: files, the config itself, programs, and JWTs signed here."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from configs import Config
from endpoints import SOON, Asked, Stage, granted, refused, stage_of
from source_rows import FAULTS, KEYS, STATIC, Given, given, new_token, own_jwts, signed

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTICED = 2.5
"""Seconds within which a changed file is noticed."""
BUSY = 1.5
"""What a busy machine adds to that."""
TIMEOUT = 1.0
FILE: Config = {"source": "file", "path": "NAME"}
CHANGED: dict[str, Config] = {
    "written-anew": FILE,
    "replaced": FILE,
    "gone-for-a-while": FILE,
    "empty-for-a-while": FILE,
    "no-token-for-a-while": FILE,
    "jwt": FILE,
    "static-file": {"source": "static", "token": {"file": "NAME"}},
    "symlink": {"source": "file", "path": "mount/token"},
}


@dataclass(frozen=True)
class Sources:
    """A product with all of them."""

    stage: Stage
    given: Mapping[str, Given]
    changes: dict[str, asyncio.Task[tuple[float, bool]]] = field(default_factory=dict)
    """They take long, and begin with the first test."""

    @property
    def folder(self) -> Path:
        return self.stage.bearward.folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sources(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sources]:
    rows, folder = given(), tmp_path_factory.mktemp("given")
    files = KEYS | {name: row.content for name, row in rows.items() if row.content}
    files |= {name: new_token() for name in CHANGED} | {"once": json.dumps({"access_token": new_token()})}
    credentials = {name: _named(row.credential, name) for name, row in rows.items()}
    credentials |= {name: _named(credential, name) for name, credential in CHANGED.items()}
    credentials |= {name: {"source": "jwt", "assertion": own.assertion} | own.more for name, own in own_jwts().items()}
    for name, (command, _, _) in FAULTS.items():
        credentials[name] = {"source": "exec", "command": command, "timeout": TIMEOUT}
    credentials["by-secret"] = {
        "client_auth": "client_secret_post",
        "client_id": "me",
        "client_secret": {"file": "secret"},
    }
    files["secret"] = "another secret"
    credentials["once"] = {"source": "exec", "command": ["sh", "-c", "echo >> once.count; sleep 1; cat once"]}
    (folder / "one").mkdir()
    (folder / "one" / "token").write_text(new_token())
    (folder / "mount").symlink_to("one")
    _program(folder / "program", "#!/bin/sh", 'echo "{\\"access_token\\": \\"$1\\"}"')
    _program(folder / "left", "#!/bin/sh", "rm left", """echo '{"access_token": "for-a-moment", "expires_in": 2}'""")
    _program(folder / "uninterpreted", "#!/no/such/program")
    env = {"STATIC_TOKEN": STATIC}
    answers = {"by-secret": _knows_another_secret}
    async with stage_of(credentials, folder, answers=answers, files=files, env=env, name="sources") as stage:
        sources = Sources(stage, rows)
        sources.changes.update({name: asyncio.create_task(_change(sources, name)) for name in CHANGED})
        yield sources
        await asyncio.gather(*sources.changes.values(), return_exceptions=True)


def _named(credential: Config, name: str) -> Config:
    """The credential with its own name for `NAME`."""
    return json.loads(json.dumps(credential).replace("NAME", name))  # type: ignore[no-any-return]


def _program(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)


@pytest.mark.parametrize("name", given())
async def test_a_token_is_found(sources: Sources, name: str) -> None:
    row = sources.given[name]
    assert await sources.stage.serves(name) == f"Bearer {row.token}"
    if row.lifetime is not None:
        seconds, source = row.lifetime
        line = await sources.stage.refreshed(name)
        assert line["lifetime_from"] == source
        assert seconds - 60 < line["lifetime"] <= seconds


@pytest.mark.parametrize("name", own_jwts())
async def test_a_jwt_is_signed_here(sources: Sources, name: str) -> None:
    """It lives until its own end, and is asked for nowhere."""
    row = own_jwts()[name]
    assert await sources.stage.serves(name) == row.jwt
    line = await sources.stage.refreshed(name)
    assert line["lifetime_from"] == "exp"
    assert 0 < row.jwt.lifetime - line["lifetime"] < 15, "it was issued ten seconds ago"
    assert sources.stage.endpoints.asked[name] == []


@pytest.mark.parametrize("name", FAULTS)
async def test_a_command_that_fails(sources: Sources, name: str) -> None:
    """It is tried again later, and nothing of it is left."""
    _, reason, says = FAULTS[name]
    line = await sources.stage.failed(name)
    assert (line["reason"], line["for_good"]) == (reason, False)
    assert says in line["detail"]
    assert sources.stage.endpoints.calls[name] == []
    assert not _is_running(sources.folder / f"{name}.pid")


def _is_running(pid_file: Path) -> bool:
    """Whether the first of these processes is; one that merely nobody has awaited has no arguments any more."""
    if not pid_file.exists():
        return False
    arguments = Path("/proc", pid_file.read_text().split()[0], "cmdline")
    return arguments.exists() and arguments.read_bytes() != b""


@pytest.mark.parametrize("name", ["hangs", "child-of-another-session"])
async def test_a_command_that_fails_is_tried_again(sources: Sources, name: str) -> None:
    """A child that left the group of processes, and cannot be killed, does not hold it up."""
    async with asyncio.timeout(SOON):
        while sum(line["credential"] == name for line in await sources.stage.bearward.logs("token refresh failed")) < 2:
            await asyncio.sleep(0.05)


async def test_a_command_runs_once_for_all(sources: Sources) -> None:
    answers = await asyncio.gather(*(sources.stage.call("once") for _ in range(50)))
    assert {answer.summary for answer in answers} == {(200, None)}
    assert len((sources.folder / "once.count").read_text()) == 1


async def _change(sources: Sources, name: str) -> tuple[float, bool]:
    stage, path = sources.stage, sources.folder / name
    before = await stage.serves(name)
    kept = True
    if name.endswith("-for-a-while"):
        _spoil(path, name)
        await asyncio.sleep(NOTICED + BUSY)
        kept = await stage.serves(name) == before
    new = signed() if name == "jwt" else new_token()
    if name == "symlink":
        (sources.folder / "two").mkdir()
        (sources.folder / "two" / "token").write_text(new)
        (sources.folder / "link").symlink_to("two")
        (sources.folder / "link").rename(sources.folder / "mount")
    elif name == "written-anew":
        path.write_text(new)
    else:
        written = path.with_suffix(".new")
        written.write_text(new)
        written.rename(path)
    changed_at = time.monotonic()
    async with asyncio.timeout(SOON):
        while await stage.serves(name) != f"Bearer {new}":
            await asyncio.sleep(0.02)
    return time.monotonic() - changed_at, kept


def _spoil(path: Path, name: str) -> None:
    if name.startswith("gone"):
        path.unlink()
    else:
        path.write_text("" if name.startswith("empty") else "two words")


@pytest.mark.parametrize("name", CHANGED)
async def test_a_changed_file_is_noticed(sources: Sources, name: str) -> None:
    seconds, kept = await sources.changes[name]
    assert seconds < NOTICED + BUSY
    assert kept, "the token from before serves on while there is no new one"


def _knows_another_secret(asked: Asked) -> bytes:
    is_known = asked.form["client_secret"] == KEYS["shared"]
    return granted() if is_known else refused("invalid_client", "401 Unauthorized")


async def test_a_changed_secret_is_noticed_however_many_ask(sources: Sources) -> None:
    """Each is refused at once, and puts nothing off."""
    (sources.folder / "secret").write_text(KEYS["shared"])
    changed_at = time.monotonic()
    async with asyncio.timeout(SOON):
        while (await sources.stage.call("by-secret")).code == "credential_rejected":
            await asyncio.sleep(0.02)
    assert time.monotonic() - changed_at < NOTICED + BUSY
    assert len(sources.stage.endpoints.asked["by-secret"]) == 2
