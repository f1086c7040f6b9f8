"""Every command that README and docs show is run, and every config is checked.

A command that stands in no row of `WAYS` fails the test, so none can be shown that nobody runs.
"""

import argparse
import importlib.util
import json
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

import bearward
from bearward import cli
from bearward.config.presets import presets
from bearward.demo.play import LIFETIME
from bearward.proxy.limits import Limits
from bearward.tokens import session
from bearward.tokens.credential import Credential
from configs import references
from docs_stage import Stage, foreground, masked, printed, shell, stage_for
from documents import CONFIG_FAULT, DOCUMENTS, KUBERNETES, ROOT, Block, Command
from made_up import TEXT, made_up

TOKEN_TIMEOUT = Credential.__dataclass_fields__["timeout"].default
CONFIGS = [block for document in DOCUMENTS.values() for block in document.of("yaml")]


@pytest.mark.parametrize("block", CONFIGS, ids=lambda block: block.place)
def test_a_config_is_without_fault(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / TEXT).write_text(f"{TEXT}\n")  # a variable may hold a file's name
    for kind, name in references(yaml.safe_load(block.body)):
        if kind == "env":
            monkeypatch.setenv(name, TEXT)
        else:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(made_up(name))
    (tmp_path / block.file).write_text(block.body)
    said = CliRunner().invoke(cli.main, ["check", "-c", block.file])
    assert said.exit_code == (CONFIG_FAULT if block.is_faulty else 0), said.output
    assert "warning" not in said.output


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


async def activate(stage: Stage, command: Command) -> None:
    """Makes a venv, whose programs then are the first to be found; by this Python, as others may lack `ensurepip`."""
    here = command.text.replace("python3", shlex.quote(sys.executable), 1)
    exit_code, output = await shell(f"{here} && command -v pip python3", stage.folder, stage.env)
    assert exit_code == 0, output
    assert output.split() == [str(stage.folder / ".venv" / "bin" / name) for name in ("pip", "python3")]


async def openssl(stage: Stage, command: Command) -> None:
    """Makes what it says: a private key for its owner's eyes, or its other half."""
    exit_code, output = await shell(command.text, stage.folder, stage.env)
    assert exit_code == 0, output
    (made,) = re.findall(r"-out (\S+)", command.text)
    content = (stage.folder / made).read_bytes()
    source = re.search(r"-(?:key|in) (\S+)", command.text)
    if source is None:
        assert isinstance(load_pem_private_key(content, None), RSAPrivateKey | EllipticCurvePrivateKey)
        assert stat.S_IMODE((stage.folder / made).stat().st_mode) == 0o600
        return
    private = load_pem_private_key((stage.folder / source[1]).read_bytes(), None)
    is_certificate = b"BEGIN CERTIFICATE" in content
    public = load_pem_x509_certificate(content).public_key() if is_certificate else load_pem_public_key(content)
    assert public == private.public_key()


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
    done |= {"test"} if re.search(r"/pytest -n auto \| tee ", ci) else set()
    # A venv of its own, as the benchmark has, is made by the same two commands as CI's.
    assert target in done or {word for word in needs.split() if not word.endswith("/installed")} <= done


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
    ending = TOKEN_TIMEOUT + session.LOGOUT_QUEUE + session.LOGOUT_TIMEOUT
    assert asked.stop_timeout > Limits().drain_timeout + ending
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
    r"python3 -m venv .*": activate,
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
    r"openssl .*": openssl,
    r"promtool check .*": at_the_root,
}


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
    assert re.search(r'"--once"', (ROOT / "tests" / "test_demo_once.py").read_text())


def test_every_command_of_the_program_is_named() -> None:
    told = "".join(document.text for document in DOCUMENTS.values())
    assert [name for name in cli.main.commands if f"bearward {name}" not in told] == []
