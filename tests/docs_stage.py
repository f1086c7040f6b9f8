"""Where a document's commands are run: a folder with its config, the vendors it names, and a started bearward."""

import asyncio
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from configs import references
from documents import README, TIMEOUT, Document
from harness import Bearward
from ports import free_port
from vendors.acceleration_cloud import AccelerationCloud
from vendors.acronis import AcronisClient, AcronisDataCenter
from vendors.atlas import Atlas
from vendors.ocp import Ocp


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
