"""README and docs say what is so: every command in them is run, every config checked, every table compared.

A command that stands in no row of `WAYS` fails the test, so none can be shown that nobody runs.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from aiohttp import web
from pydantic import BaseModel

import bearward
from bearward import cli
from bearward.app import DRAIN_TIMEOUT
from bearward.config import ConfigError, load
from bearward.config.model import Config, CredentialSection, RouteSection
from bearward.config.presets import presets
from bearward.demo.play import LIFETIME
from bearward.errors import TITLES
from bearward.ops.logs import LEVELS
from bearward.ops.metrics import REJECTIONS, UPSTREAM_FAILURES
from bearward.proxy import body, server
from bearward.tokens import answer, keeper, schedule
from bearward.tokens.failure import Reason
from harness import Bearward
from ports import free_port
from vendors.acceleration_cloud import AccelerationCloud
from vendors.acronis import AcronisClient, AcronisDataCenter
from vendors.atlas import Atlas
from vendors.ocp import Ocp

ROOT = Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
CONFIG_FAULT = 78
TIMEOUT = 120.0
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


# ── documents, taken apart ───────────────────────────────────────────────────────────────────────────────────────

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_UNDER_HEADERS = re.compile(r"^\|(---\|)+$")


@dataclass(frozen=True)
class Block:
    """What stands between two fences, and where. The second word of `info` is the name of a file, or of a kind."""

    place: str
    info: str
    body: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def file(self) -> str:
        return self.info.partition(" ")[2] or "bearward.yaml"

    @property
    def is_faulty(self) -> bool:
        return self.file.startswith("faulty")


@dataclass(frozen=True)
class Command:
    """A command as a reader would copy it, and what it is said to print (None: nothing is said)."""

    place: str
    text: str
    output: str | None


class Document:
    """One Markdown file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path.relative_to(ROOT))
        self.text = path.read_text()
        self.prose = _FENCE.sub("", self.text)
        self.blocks = [
            Block(
                f"{self.name}:{self.text.count(chr(10), 0, found.start()) + 1}",
                found["info"],
                textwrap.dedent(found["body"]),
            )
            for found in _FENCE.finditer(self.text)
        ]

    def of(self, *languages: str) -> list[Block]:
        return [block for block in self.blocks if block.language in languages]

    @cached_property
    def commands(self) -> list[Command]:
        return [command for block in self.of("sh", "console") for command in _commands(block)]

    def section(self, heading: str) -> str:
        """What stands under a heading, up to the next one of its rank or above; without fenced blocks."""
        found = re.search(rf"^(#+) {re.escape(heading)}$", self.prose, re.MULTILINE)
        assert found, f"{self.name} has no heading {heading!r}"
        rest = self.prose[found.end() :]
        end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
        return rest[: end.start()] if end else rest

    def tables(self, heading: str) -> list[list[list[str]]]:
        """The tables under a heading: rows of cells, without the headers."""
        tables: list[list[list[str]]] = []
        for line in self.section(heading).splitlines():
            if _UNDER_HEADERS.match(line):
                tables.append([])
            elif line.startswith("|") and tables:
                tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        return [_without_next_header(table, at < len(tables) - 1) for at, table in enumerate(tables)]

    def table(self, heading: str) -> list[list[str]]:
        (table,) = self.tables(heading)
        return table

    @property
    def anchors(self) -> set[str]:
        """Its headings as links name them."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)


def _without_next_header(table: list[list[str]], has_next: bool) -> list[list[str]]:
    return table[:-1] if has_next else table


def _commands(block: Block) -> Iterator[Command]:
    lines = block.body.replace("\\\n", " ").splitlines()
    if block.language == "sh":
        for line in lines:
            if line.strip() and not line.startswith("#"):
                yield Command(block.place, " ".join(line.split()), None)
        return
    starts = [at for at, line in enumerate(lines) if line.startswith("$ ")]
    assert starts[:1] == [0], f"{block.place}: a console starts with a command"
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield Command(block.place, lines[start].removeprefix("$ "), "\n".join(lines[start + 1 : end]))


def code(cell: str) -> str:
    """What a cell that is one piece of code says."""
    found = re.fullmatch(r"`([^`]*)`", cell)
    assert found, f"not one piece of code: {cell!r}"
    return found[1]


DOCUMENTS = {
    document.name: document
    for document in map(Document, [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))])
}
README, CONFIGURE, MONITOR = DOCUMENTS["README.md"], DOCUMENTS["docs/configure.md"], DOCUMENTS["docs/monitor.md"]
TOKEN_LIFE, PRESETS = DOCUMENTS["docs/token-life.md"], DOCUMENTS["docs/presets.md"]
every_document = pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)


@every_document
def test_links_lead_somewhere(document: Document) -> None:
    for link in document.links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.path.parent / path).resolve() if path else document.path
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in DOCUMENTS[str(target.relative_to(ROOT))].anchors, f"{link} names no heading"


@every_document
def test_every_block_is_of_a_kind_that_is_looked_at(document: Document) -> None:
    assert document.text.count("```") == 2 * len(document.blocks), "a fence was not understood"
    assert "~~~" not in document.text
    for block in document.blocks:
        assert block.language in {"sh", "console", "yaml", "text"}, f"{block.place}: nothing tests {block.info!r}"
        if block.language == "text":
            assert not re.search(r"^\s*(\$|curl|bearward|pip|make|docker|kubectl) ", block.body, re.MULTILINE), block


# ── configs ──────────────────────────────────────────────────────────────────────────────────────────────────────


def references(config: Any) -> Iterator[tuple[str, str]]:
    """Each {env: NAME} and {file: PATH} of a config."""
    match config:
        case {"env": str(name)} | {"file": str(name)} if len(config) == 1:
            yield next(iter(config)), name
        case dict():
            for value in config.values():
                yield from references(value)
        case list():
            for value in config:
                yield from references(value)


CONFIGS = [block for document in DOCUMENTS.values() for block in document.of("yaml")]


@pytest.mark.parametrize("block", CONFIGS, ids=lambda block: block.place)
async def test_a_config_is_without_fault(block: Block, tmp_path: Path) -> None:
    env = dict(os.environ)
    for kind, name in references(yaml.safe_load(block.body)):
        if kind == "env":
            env[name] = "a-secret-value"
        else:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("a-secret-value\n")
    (tmp_path / block.file).write_text(block.body)
    exit_code, output = await shell(f"{sys.executable} -m bearward check -c {block.file}", tmp_path, env)
    assert exit_code == (CONFIG_FAULT if block.is_faulty else 0), output
    assert "warning" not in output


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────


class DataCenter(AcronisDataCenter):
    """One that serves the token endpoints of both of Acronis' systems, as the real one does."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path in {"/bc/idp/token", "/api/2/idp/token"}:
            return await self.handle_token_request(request)
        return await self.handle_call(request)


class Vendors:
    """The vendors that the docs name, as fakes; `pairs` are texts of the docs and what stands for them here."""

    def __init__(self) -> None:
        client = AcronisClient()
        self.eu8, self.us5 = DataCenter(client), DataCenter(client)
        self.acceleration, self.ocp, self.atlas = AccelerationCloud(), Ocp(), Atlas()
        self.acceleration.users.append("alice")
        self.all = (self.eu8, self.us5, self.acceleration, self.ocp, self.atlas)
        identity = self.atlas.identity_site.url
        urls = {
            "https://eu8-cloud.acronis.com": self.eu8.url,
            "https://us5-cloud.acronis.com": self.us5.url,
            "https://acceleration.example.com": self.acceleration.url,
            "https://ocp.example.com": self.ocp.url,
            "https://auth.is2.app": identity,
            "https://api.is2.app": self.atlas.url,
        }
        hosts = {f"{url.partition('://')[2]}:443": own.partition("://")[2] for url, own in urls.items()}
        self.pairs = urls | hosts
        self.values = {
            "ACRONIS_CLIENT_ID": client.id,
            "secrets/acronis": client.secret,
            "ACRONIS_ACCOUNT_CLIENT_ID": client.id,
            "ACRONIS_ACCOUNT_SECRET": client.secret,
            "ACCELERATION_CLIENT_ID": self.acceleration.client_id,
            "ACCELERATION_SECRET": self.acceleration.client_secret,
            "OCP_USERNAME": self.ocp.username,
            "secrets/ocp": self.ocp.password,
            "ATLAS_SECRET": self.atlas.client_secret,
        }

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in self.values.items() if "/" not in name}

    def config_of(self, document: Document) -> dict[str, Any]:
        """What the document tells its reader to write, or else the README's, leading to the fakes."""
        blocks = [block for block in document.of("yaml") if block.file == "bearward.yaml"]
        whole: dict[str, Any] = {}
        for block in blocks if document.name in {"docs/presets.md", "docs/sidecar.md"} else README.of("yaml"):
            for section, content in yaml.safe_load(self.here(block.body)).items():
                whole[section] = whole.get(section, {}) | content if isinstance(content, dict) else content
        credentials = {
            name: credential
            for name, credential in whole["credentials"].items()
            if all(reference in self.values for _, reference in references(credential)) and name != "ocp_new"
        }
        if "atlas" in credentials:  # the preset's own token URL leads to the real one
            credentials["atlas"]["token_url"] = self.atlas.token_url
        routes = {prefix: route for prefix, route in whole["routes"].items() if route["credential"] in credentials}
        return whole | {"credentials": credentials, "routes": routes}

    def write(self, folder: Path, config: dict[str, Any]) -> None:
        """A config, and the secrets that it names."""
        (folder / "secrets").mkdir(parents=True, exist_ok=True)
        for name, value in self.values.items():
            if "/" in name:
                (folder / name).write_text(f"{value}\n")
        (folder / "bearward.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def here(self, text: str) -> str:
        for shown, own in self.pairs.items():
            text = text.replace(shown, own)
        return text

    def shown(self, text: str) -> str:
        for shown, own in self.pairs.items():
            text = text.replace(own, shown)
        return text


@dataclass
class Stage:
    """Where a document's commands are run: a folder with its config, its vendors, and a bearward that has started."""

    document: Document
    folder: Path
    vendors: Vendors
    bearward: Bearward
    env: dict[str, str] = field(default_factory=dict)

    def second_folder(self) -> Path:
        """A folder with the config for a process more, on ports of its own."""
        folder = self.folder / f"second-{free_port()}"
        config = self.vendors.config_of(README)
        ports = {"listen": f"127.0.0.1:{free_port()}", "admin": f"127.0.0.1:{free_port()}"}
        self.vendors.write(folder, ports | config)
        return folder

    def here(self, text: str) -> str:
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{self.bearward.port}")
        return self.vendors.here(text.replace("127.0.0.1:9465", f"127.0.0.1:{self.bearward.admin_port}"))


async def shell(command: str, folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of a command, as a shell runs it."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", command),
        cwd=folder,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(TIMEOUT):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@asynccontextmanager
async def foreground(command: str, folder: Path, env: dict[str, str]) -> AsyncIterator[asyncio.StreamReader]:
    """A command that goes on until SIGTERM, which it obeys with exit code 0; what it prints."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"exec {command}"),
        cwd=folder,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        yield process.stdout
        process.terminate()
        async with asyncio.timeout(TIMEOUT):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def printed(stdout: asyncio.StreamReader, pattern: str) -> str:
    """Everything up to the first match of `pattern`, and the match's first group."""
    text = ""
    async with asyncio.timeout(TIMEOUT):
        while not (found := re.search(pattern, text)):
            more = await stdout.readline()
            assert more, f"ended after {text!r}"
            text += more.decode()
    return found[1]


def masked(text: str) -> str:
    """A text without what differs from run to run: numbers, spans of time, hexadecimal names."""
    text = re.sub(r"\b[0-9a-f]{8,}\b(-[0-9a-f]{4,})*", "HEX", text.replace("\r", ""))
    text = re.sub(r"\b\d+(h\d\d)?[hms]\b", "SPAN", text)
    return re.sub(r"\d+", "N", text).strip()


async def to_its_end(stage: Stage, command: Command) -> None:
    """Runs it. Where its output is shown, that is what it prints; else it succeeds, for curl: with a 2xx."""
    env = stage.env | ({} if command.output is not None else {"CURL_HOME": str(stage.folder)})
    exit_code, output = await shell(stage.here(command.text), stage.folder, env)
    output = stage.vendors.shown(output)
    assert exit_code == (CONFIG_FAULT if "faulty" in command.text else 0), output
    if command.output is not None:
        compared = str.strip if "check" in command.text else masked
        assert compared(output) == compared(command.output)


async def bearward_run(stage: Stage, command: Command) -> None:
    """Runs it in a folder of its own until it has said what to try, and stops it."""
    async with foreground(command.text, stage.second_folder(), stage.env) as stdout:
        assert await printed(stdout, r"Try:  (curl .*)\n")


async def bearward_demo(stage: Stage, command: Command) -> None:
    """Runs it on other ports, tries what it says, and stops it."""
    async with foreground(
        f"{command.text} --listen 127.0.0.1:0 --admin 127.0.0.1:0", stage.folder, stage.env
    ) as stdout:
        curl = await printed(stdout, r"Try:  (curl .*)\n")
        exit_code, output = await shell(f"{curl} --silent --fail", stage.folder, stage.env)
        assert exit_code == 0, output
    assert f"live {LIFETIME:g} seconds" in stage.document.text


async def pip_install(stage: Stage, command: Command) -> None:
    """Installs the checkout into a folder, without the dependencies, which are here already, and runs what is there."""
    target = stage.folder / "installed"
    offline = " --no-build-isolation" if importlib.util.find_spec("hatchling") else ""
    more = f"--no-deps --quiet --disable-pip-version-check --root-user-action ignore --target {target}{offline}"
    exit_code, output = await shell(f"{command.text} {more}", ROOT, stage.env)
    assert exit_code == 0, output
    assert "extra" not in output, output  # "does not provide the extra"
    (metadata,) = target.glob("bearward-*.dist-info/METADATA")
    assert re.search(r"^Provides-Extra: uvloop$", metadata.read_text(), re.MULTILINE)
    env = stage.env | {"PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}
    where = f"{sys.executable} -c 'import bearward; print(bearward.__file__)'"
    assert await shell(where, stage.folder, env) == (0, f"{target / 'bearward' / '__init__.py'}\n")
    version = f"{sys.executable} {target / 'bin' / 'bearward'} --version"
    assert await shell(version, stage.folder, env) == (0, f"bearward {bearward.__version__}\n")
    for preset in presets():
        assert (target / "bearward" / "config" / "presets" / f"{preset}.yaml").exists()


async def make(stage: Stage, command: Command) -> None:
    """`make` knows the target, and what it does is what CI does: the tests cannot run themselves."""
    assert stage.document.name == "docs/architecture.md"
    exit_code, output = await shell(f"{command.text} --dry-run", ROOT, stage.env)
    assert exit_code == 0, output
    _, target, *arguments = shlex.split(command.text)
    for argument in arguments:
        assert argument.removeprefix("ARGS=") in output
    (needs,) = re.findall(rf"^{target}:(.*?)##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    ci = (ROOT / ".ci" / "run").read_text()
    done = {word for line in re.findall(r"\bmake --silent (.*)$", ci, re.MULTILINE) for word in line.split()}
    done |= {"test"} if re.search(r"/pytest$", ci, re.MULTILINE) else set()
    assert target in done or set(needs.split()) <= done


async def docker_build(_stage: Stage, command: Command) -> None:
    """No engine here: the Dockerfile, which `test_deploy.py` examines, says that it is built so."""
    build = (ROOT / "Dockerfile").read_text().splitlines()[0]
    assert build.startswith("# docker build ")
    assert build.endswith(command.text.removeprefix("docker build"))


async def docker_run(stage: Stage, command: Command) -> None:
    """No engine here: runs what the image would, with what is mounted at a root of its own and no other variables."""
    folder = stage.second_folder()
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--name")
    parser.add_argument("--network")
    parser.add_argument("--stop-timeout", type=float)
    parser.add_argument("--env", action="append")
    parser.add_argument("--volume", action="append")
    parser.add_argument("image")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    asked = parser.parse_args(shlex.split(command.text.replace("$PWD", str(folder)))[2:])
    assert asked.stop_timeout > DRAIN_TIMEOUT + 2 * keeper.CLOSE_TIMEOUT
    assert asked.image in next(command.text for command in stage.document.commands if "docker build" in command.text)
    root = stage.folder / "root"
    for volume in asked.volume:
        outside, inside, mode = volume.split(":")
        assert mode == "ro"
        mounted = root / inside.removeprefix("/")
        mounted.parent.mkdir(parents=True, exist_ok=True)
        mounted.symlink_to(outside)
    arguments = [str(root / each[1:]) if each.startswith("/") else each for each in asked.arguments]
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    (default,) = re.findall(r"^CMD (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert asked.arguments == json.loads(default)
    passed = {name: stage.env[name] for name in ("PATH", "PYTHONPATH", *asked.env) if name in stage.env}
    program, *rest = json.loads(entry)
    assert program == "python"
    async with foreground(shlex.join([sys.executable, *rest, *arguments]), folder, passed) as stdout:
        assert await printed(stdout, r"Try:  (curl .*)\n")


async def kubectl_create_secret(stage: Stage, command: Command) -> None:
    """The secret has the name and keys that the manifests use; made by kubectl where it is installed."""
    _, _, _, _, name, *files = shlex.split(command.text)
    keys = {file.removeprefix("--from-file=") for file in files}
    if shutil.which("kubectl"):
        for key in keys:
            (stage.folder / key).write_text("a-secret-value")
        dry = f"{command.text} --dry-run=client --output=yaml"
        exit_code, output = await shell(dry, stage.folder, stage.env)
        assert exit_code == 0, output
        made = yaml.safe_load(output)
        name, keys = made["metadata"]["name"], set(made["data"])
    config = yaml.safe_load(yaml.safe_load((KUBERNETES / "configmap.yaml").read_text())["data"]["config.yaml"])
    assert {Path(path).name for kind, path in references(config) if kind == "file"} == keys
    volumes = yaml.safe_load((KUBERNETES / "deployment.yaml").read_text())["spec"]["template"]["spec"]["volumes"]
    assert name in {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}


async def kubectl_apply(stage: Stage, command: Command) -> None:
    """No cluster here: what would be applied, rendered by kubectl where it is installed."""
    folder = command.text.rpartition(" ")[2]
    assert set(yaml.safe_load((ROOT / folder / "kustomization.yaml").read_text())["resources"]) == {
        path.name for path in (ROOT / folder).iterdir() if path.name != "kustomization.yaml"
    }
    if shutil.which("kubectl"):
        exit_code, output = await shell(f"kubectl kustomize {folder}", ROOT, stage.env)
        assert exit_code == 0, output
        assert {each["kind"] for each in yaml.safe_load_all(output)} == {"ConfigMap", "Deployment"}


async def at_the_root(stage: Stage, command: Command) -> None:
    """Runs it in the checkout."""
    exit_code, output = await shell(command.text, ROOT, stage.env)
    assert exit_code == 0, output


WAYS: dict[str, Callable[[Stage, Command], Awaitable[None]]] = {
    r"pip install '\.\[uvloop\]'": pip_install,
    r"bearward demo": bearward_demo,
    r"bearward (check|token) .*": to_its_end,
    r"bearward run -c bearward\.yaml": bearward_run,
    r"curl .*": to_its_end,
    r"docker build .*": docker_build,
    r"docker run .*": docker_run,
    r"kubectl create secret generic .*": kubectl_create_secret,
    r"kubectl apply -k .*": kubectl_apply,
    r"make .*": make,
    r"promtool check .*": at_the_root,
}


@asynccontextmanager
async def stage_for(document: Document, folder: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as ends:
        vendors = Vendors()
        for vendor in vendors.all:
            await ends.enter_async_context(vendor)
        config = vendors.config_of(document)
        vendors.write(folder, config)
        for block in document.of("yaml"):
            if block.is_faulty:
                (folder / block.file).write_text(block.body)
        (folder / ".curlrc").write_text("silent\nshow-error\nfail\n")
        programs = folder / "bin"
        programs.mkdir()
        for name in ("bearward", "pip"):
            (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {name} "$@"\n')
            (programs / name).chmod(0o755)
        bearward = await ends.enter_async_context(
            Bearward(config, folder, name=f"docs-{document.path.stem}", env=vendors.environment)
        )
        path = os.pathsep.join([str(programs), os.environ["PATH"]])
        env = os.environ | vendors.environment | {"PATH": path, "HOME": str(folder / "secrets"), "LC_ALL": "C.UTF-8"}
        yield Stage(document, folder, vendors, bearward, env)


@pytest.mark.parametrize("name", [name for name, document in DOCUMENTS.items() if document.commands])
async def test_every_command_does_what_it_should(name: str, tmp_path: Path) -> None:
    async with stage_for(DOCUMENTS[name], tmp_path) as stage:
        for command in stage.document.commands:
            (way,) = [way for pattern, way in WAYS.items() if re.fullmatch(pattern, command.text)] or [None]
            assert way is not None, f"{command.place}: no test knows how to run {command.text!r}"
            try:
                await way(stage, command)
            except Exception as error:
                error.add_note(f"{command.place}: {command.text}")
                raise


def test_the_demo_is_played_to_its_end_elsewhere() -> None:
    assert "bearward demo --once" not in "".join(document.text for document in DOCUMENTS.values())
    assert re.search(r'"--once"', (ROOT / "tests" / "test_demo.py").read_text())


def test_every_command_of_the_program_is_named() -> None:
    told = "".join(document.text for document in DOCUMENTS.values())
    assert [name for name in cli.main.commands if f"bearward {name}" not in told] == []


# ── what the tables say ──────────────────────────────────────────────────────────────────────────────────────────

MINIMAL = """
credentials: {a: {token_url: "https://idp.example/token", client_id: id, client_secret: a-secret-value}}
routes: {/x: {upstream: "https://api.example", credential: a}}
"""
SECTIONS: dict[str, type[BaseModel]] = {"Top level": Config, "Credential": CredentialSection, "Route": RouteSection}
OTHERWISE_NAMED = {
    "response.token": "token_path",
    "refresh.lead": "refresh_lead",
    "inject.header": "inject_header",
    "inject.format": "inject_format",
}


def fields_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The fields of a section and of those below it, dotted, as they are written in a config."""
    for name, about in section.model_fields.items():
        written = prefix + name.rstrip("_")
        arms = [about.annotation, *(get_args(about.annotation) if get_origin(about.annotation) is not dict else ())]
        below = [arm for arm in arms if isinstance(arm, type) and issubclass(arm, BaseModel)]
        if below and written != "preset":
            yield from fields_of(below[0], f"{written}.")
        else:
            yield written


def as_written(value: object) -> str:
    """A default as the docs write it."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value / 60:g}m`" if value >= 120 else f"`{value:g}s`"
    if isinstance(value, tuple) and value:
        return f"`{'.'.join(value)}`"
    return f"`{value}`" if value or value == 0 else "none"


@pytest.mark.parametrize("heading", SECTIONS)
def test_a_table_of_fields_is_that_of_the_model(heading: str) -> None:
    table = CONFIGURE.table(heading)
    assert sorted(code(row[0]) for row in table) == sorted(fields_of(SECTIONS[heading]))


def defaults(tmp_path: Path) -> dict[str, dict[str, object]]:
    """What holds for each field that is not written."""
    (tmp_path / "minimal.yaml").write_text(MINIMAL)
    settings = load(tmp_path / "minimal.yaml")
    (credential,), (route,) = settings.credentials.values(), settings.routes
    return {
        "Top level": {"listen": settings.listen, "admin": settings.admin, "log.level": settings.log.level}
        | {"log.format": settings.log.format, "log.access": Config().log.access, "allow_remote": Config().allow_remote}
        | dict.fromkeys(["data_centers", "credentials", "allowed_hosts", "allowed_origins"]),
        "Credential": {
            name: getattr(credential, OTHERWISE_NAMED.get(name, name), None)
            for name in fields_of(CredentialSection)
            if name not in {"client_id", "client_secret", "params", "headers"}
        }
        | {"allow_http": CredentialSection().allow_http, "principal.max": 1000, "params": None, "headers": None},
        "Route": {name: getattr(route, name, None) for name in fields_of(RouteSection)}
        | {"allow_http": RouteSection().allow_http},
    }


@pytest.mark.parametrize("heading", SECTIONS)
def test_a_default_is_what_the_table_says(heading: str, tmp_path: Path) -> None:
    known = defaults(tmp_path)[heading]
    computed = {"response.expires.field": "automatic", "response.expires.as": "automatic", "refresh.lead": "computed"}
    for name, default in ((code(row[0]), row[1]) for row in CONFIGURE.table(heading)):
        if default == "required":
            without = re.sub(rf"\b{name}: ?(\"[^\"]*\"|\w+)(, )?", "", MINIMAL) if name != "routes" else "routes: {}"
            (tmp_path / "without.yaml").write_text(without)
            with pytest.raises(ConfigError, match=r"missing|needed"):
                load(tmp_path / "without.yaml")
        elif name == "ttl":
            assert (default, answer.DEFAULT_TTL, known[name]) == ("`5m`, with a warning", 300, None)
        elif name in computed:
            assert (default, known[name]) == (computed[name], None)
        else:
            assert default == as_written(known.get(name)), name


def test_every_preset_has_a_section() -> None:
    told = re.findall(r"^## .*: `(.*)`$", PRESETS.text, re.MULTILINE)
    assert sorted(told) == sorted(presets())


def test_every_error_has_a_row() -> None:
    table = DOCUMENTS["docs/errors.md"].table("Errors")
    assert {(code(row[1]), int(row[0])) for row in table} == {(name, status) for name, (status, _) in TITLES.items()}
    assert len(table) == len(TITLES)
    sources = (ROOT / "src" / "bearward").rglob("*.py")
    raised = "".join(path.read_text() for path in sources if path.name not in {"errors.py", "metrics.py"})
    for row in table:
        is_reserved = row[2].startswith("reserved")
        assert is_reserved != (f'"{code(row[1])}"' in raised), f"{row[1]}: is it ever answered?"


async def test_the_metrics_are_those_of_a_scrape(tmp_path: Path) -> None:
    async with stage_for(README, tmp_path) as stage:
        scrape = await stage.bearward.metrics()
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", scrape.text, re.MULTILINE))
    labels: dict[str, set[str]] = {name: set() for name in types}
    for sample, own in scrape.samples:
        name = sample if sample in types else re.sub(r"_(bucket|count|sum)$", "", sample)
        labels[name] |= {label for label, _ in own if label != "le"}
    table = MONITOR.table("Metrics")
    assert {code(row[0]): row[1] for row in table} == types
    assert {code(row[0]): set(re.findall(r"`(\w+)`", row[2])) for row in table} == labels
    for document in DOCUMENTS.values():
        assert set(re.findall(r"\bbearward_\w+", document.text)) <= types.keys(), document.name
    told = {labels["reason"] for name, own in scrape.samples if "rejected" in name for labels in [dict(own)]}
    assert told == set(REJECTIONS)
    assert told | set(UPSTREAM_FAILURES) <= TITLES.keys() | {"truncated"}


def test_every_alert_has_a_row() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())["groups"]
    rules = {(rule["alert"], rule["labels"]["severity"]) for group in groups for rule in group["rules"]}
    assert {(code(row[0]), row[1]) for row in MONITOR.table("Alerts")} == rules


def test_every_event_has_a_row() -> None:
    told = {code(row[0]): (row[1].partition(",")[0], re.findall(r"`(\w+)`", row[2])) for row in MONITOR.table("Log")}
    assert told == {text: (level, list(event.__slots__)) for event, (level, text) in LEVELS.items()}


def test_every_reason_has_a_row() -> None:
    table = MONITOR.table("Why a token request failed")
    assert [code(row[0]) for row in table] == list(Reason)
    assert {code(row[0]) for row in table if row[1].startswith("**for good**")} == {"password_refused", "refused"}


def test_the_figures_of_a_lifetime_are_those_of_the_schedule() -> None:
    _, table = TOKEN_LIFE.tables("When a refresh starts")
    for told, refreshed, until in table:
        lifetime = float(told.removesuffix(" s"))
        earliest = lifetime - schedule.lead(lifetime, None, lambda _, most: most)
        latest = lifetime - schedule.lead(lifetime, None, lambda least, _: least)
        assert refreshed == f"{earliest:g} to {latest:g} s"
        assert until == f"{lifetime - schedule.margin(lifetime):g} s"


FIGURES: dict[str, tuple[object, object]] = {
    "15 s at most": (schedule.WAIT_FOR_TOKEN, 15),
    "younger than 10 s": (schedule.YOUNG, 10),
    "within 5 s of the failure": (schedule.IMPATIENT, 5),
    "at most 10 min count": (schedule.RETRY_AFTER_MAX, 600),
    "Less than a second": (schedule.MIN_LIFETIME, 1),
    "more than ten years": (schedule.MAX_LIFETIME, 3650 * 86400),
    "looked at every 2.5 s": (keeper.SECRET_TICK, 2.5),
    "longer than 15 s": (keeper.TICK, 15),
    "may end (3 s)": (keeper.CLOSE_TIMEOUT, 3),
    "at most 16 KiB": (answer.MAX_TOKEN_BYTES, 16 << 10),
    "at most 64 KiB": (body.KEEP_BYTES, 64 << 10),
    "15 min, doubling to 6 h": (
        [schedule.retry_delay(Reason.PASSWORD_REFUSED, count, max) for count in (1, 2, 99)],
        [900, 1800, 21600],
    ),
    "30 s, doubling to 10 min": (
        [schedule.retry_delay(Reason.REFUSED, count, max) for count in (1, 2, 99)],
        [30, 60, 600],
    ),
    "random within 1 s, doubling to within 60 s": (
        [schedule.retry_delay(Reason.NETWORK, count, max) for count in (1, 2, 99)],
        [1, 2, 60],
    ),
}


def test_the_figures_in_the_text_are_those_of_the_code() -> None:
    for words, (is_so, said) in FIGURES.items():
        assert words in " ".join(TOKEN_LIFE.text.split())
        assert is_so == said, words
    errors = DOCUMENTS["docs/errors.md"].text
    assert "longer than 16 KiB" in errors
    assert "longer than 64 KiB" in errors
    assert "more than 1000 header lines" in errors
    assert (server.TARGET_BYTES, server.HEAD_BYTES, server.MAX_FIELDS) == (16 << 10, 64 << 10, 1000)
    assert f"{DRAIN_TIMEOUT:g} s for requests in flight" in DOCUMENTS["docs/sidecar.md"].text


# ── the house ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_layers_are_those_of_the_linter() -> None:
    (shown,) = [block for block in DOCUMENTS["docs/architecture.md"].blocks if block.info == "text layers"]
    assert shown.body.split("\n")[:-1] == PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]


def test_the_house_has_these_rooms() -> None:
    package = ROOT / "src" / "bearward"
    house = next(block.body for block in DOCUMENTS["docs/architecture.md"].of("text") if "src/bearward/" in block.body)
    there = {path.name for path in package.rglob("*.py")}
    assert set(re.findall(r"\b[a-z_]+\.py\b", house)) <= there
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert {name for name in folders if f"── {name}/" not in house} == set()
    for folder in ("proxy", "tokens"):
        files = {path.name for path in (package / folder).glob("*.py")} - {"__init__.py"}
        assert {name for name in files if name not in house} == set()


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return found[0]


def test_every_dependency_has_its_reason() -> None:
    document = DOCUMENTS["docs/dependencies.md"]
    project = PYPROJECT["project"]
    asked = {
        "At run time": project["dependencies"],
        "Optional": [each for extra in project["optional-dependencies"].values() for each in extra],
        "For development": PYPROJECT["dependency-groups"]["dev"],
    }
    for heading, requirements in asked.items():
        rows = document.table(heading)
        assert sorted(code(row[0]) for row in rows) == sorted(map(_name, requirements))
        assert all(row[1] and row[2] for row in rows)
    for requirement in PYPROJECT["build-system"]["requires"]:
        assert f"`{_name(requirement)}`" in document.text


def test_the_changelog_ends_with_this_version() -> None:
    versions = re.findall(r"^## \[(.*?)\] - ", DOCUMENTS["CHANGELOG.md"].text, re.MULTILINE)
    assert versions[0] == bearward.__version__
