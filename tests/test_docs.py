"""README and docs say what is so: their links lead somewhere, and every table and figure is compared with the code."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from types import NoneType
from typing import get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

import bearward
from bearward.config import ConfigError, load
from bearward.config.model import Config, CredentialSection, RouteSection
from bearward.config.presets import presets
from bearward.errors import TITLES
from bearward.ops.logs import LEVELS
from bearward.ops.metrics import REJECTIONS, UPSTREAM_FAILURES
from bearward.proxy import body, messages
from bearward.proxy.limits import Limits
from bearward.tokens import answer, lifetime, schedule, session, timetable, watch
from bearward.tokens.failure import Reason
from docs_stage import stage_for
from documents import (
    CONFIGURE,
    DOCUMENTS,
    MONITOR,
    PRESETS,
    PYPROJECT,
    README,
    ROOT,
    TOKEN_LIFE,
    Document,
    code,
    every_document,
)


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
    kinds = {"sh", "console", "yaml", "http", "text"}
    for block in document.blocks:
        assert block.language in kinds, f"{block.place}: nothing tests {block.info!r}"
        if block.language == "text":
            assert not re.search(r"^\s*(\$|curl|bearward|pip|make|docker|kubectl) ", block.body, re.MULTILINE), block


MINIMAL = """
credentials: {a: {token_url: "https://idp.example/token", client_id: id, client_secret: a-secret-value}}
routes: {/x: {upstream: "https://api.example", credential: a}}
"""
SECTIONS: dict[str, type[BaseModel]] = {"Top level": Config, "Credential": CredentialSection, "Route": RouteSection}
ELSEWHERE = {
    "client_auth": "source.client.auth",
    "basic_encoding": "source.client.basic_encoding",
    "response.token": "reading.token",
    "refresh.lead": "refresh_lead",
    "inject.header": "inject_header",
    "inject.format": "inject_format",
    "ttl": "reading.ttl",
    "timeout": "timeout",
}
"""Where in a credential's value a field ends up, if not under its own name in its source."""


def fields_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The fields of a section and of those below it, dotted, as they are written in a config."""
    for name, about in section.model_fields.items():
        written = prefix + name.rstrip("_")
        arms = [about.annotation, *(get_args(about.annotation) if get_origin(about.annotation) is not dict else ())]
        below = [arm for arm in arms if isinstance(arm, type) and issubclass(arm, BaseModel)]
        if below and written != "preset":
            yield from fields_of(below[0], f"{written}.")
        if not below or set(arms[1:]) - {*below, NoneType}:  # also a text, where both are allowed
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
        | {f"limits.{name}": value for name, value in asdict(settings.limits).items()}
        | {"limits.header_bytes": f"{settings.limits.header_bytes >> 10}KiB", "require_header": settings.require_header}
        | {"egress_proxy": settings.egress_proxy}
        | dict.fromkeys(["data_centers", "credentials", "allowed_hosts", "allowed_origins"]),
        "Credential": {
            name: reduce(
                lambda value, part: getattr(value, part, None),
                ELSEWHERE.get(name, f"source.{name}").split("."),
                credential,
            )
            for name in fields_of(CredentialSection)
        }
        | {"allow_http": CredentialSection().allow_http, "principal.max": 1000, "source": CredentialSection().source}
        | dict.fromkeys(["params", "headers", "subject_token_type"]),
        "Route": {name: getattr(route, name, None) for name in fields_of(RouteSection)}
        | {f"tls.{name}": value for name, value in asdict(route.tls).items()}
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
            assert (default, lifetime.DEFAULT_TTL, known[name]) == ("`5m`, with a warning", 300, None)
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
    assert {code(row[1]) for row in table if f'"{code(row[1])}"' not in raised} == set(), "never answered"


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
    "looked at every 2.5 s": (watch.TICK, 2.5),
    "longer than 15 s": (timetable.TICK, 15),
    "(3 s in all for a key)": (session.LOGOUT_TIMEOUT, 3),
    "five are remembered": (session.MAX_ORPHANS, 5),
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
    assert "more than 1000 header lines" in errors
    assert (messages.TARGET_BYTES, messages.MOST_LINES) == (16 << 10, 1000)
    assert f"{Limits().drain_timeout:g} s for requests in flight" in DOCUMENTS["docs/sidecar.md"].text


def test_the_layers_are_those_of_the_linter() -> None:
    (shown,) = [block for block in DOCUMENTS["docs/architecture.md"].blocks if block.info == "text layers"]
    assert shown.body.split("\n")[:-1] == PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]


def test_the_house_has_these_rooms() -> None:
    package = ROOT / "src" / "bearward"
    house = next(block.body for block in DOCUMENTS["docs/architecture.md"].of("text") if "src/bearward/" in block.body)
    there = {path.name for path in package.rglob("*.py")}
    assert set(re.findall(r"\b[a-z_]+\.py\b", house)) <= there
    folders = {path.parent.name for path in package.glob("*/**/__init__.py")}
    assert {name for name in folders if f"── {name}/" not in house} == set()
    for folder in ("", "proxy", "proxy/upstream", "tokens", "ops"):
        files = {path.name for path in (package / folder).glob("*.py")} - {"__init__.py", "__main__.py"}
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
