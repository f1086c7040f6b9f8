"""Presets: sets of defaults for a credential, one data file each. A preset more is a file more."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path as FilePath
from typing import Any

from .diagnostics import Path, Report, WrongError, did_you_mean
from .document import Text, Tree, read_document
from .references import read_plain, reference

_MERGED: Mapping[str, Mapping[str, Any]] = {
    **{name: {} for name in ("params", "headers", "refresh", "principal", "inject", "tls")},
    "response": {"throttled": {}},
    "assertion": {"claims": {}},
}
"""The mappings of a credential that are merged key by key, and those within them."""

_PARAMETER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Preset:
    """What a preset file says. A parameter without a default (None) is required."""

    description: str
    parameters: Mapping[str, Text | None]
    credential: Mapping[str, Tree]


@cache
def presets() -> Mapping[str, Preset]:
    """All presets by name, in alphabetical order."""
    folder = resources.files(__package__).joinpath("presets")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): _parse(file.read_text(encoding="utf-8")) for file in files}


def _parse(text: str) -> Preset:
    tree: Any = read_document(text).tree
    return Preset(tree["description"], tree.get("parameters", {}), tree["credential"])


def apply_presets(tree: dict[str, Tree], report: Report, folder: FilePath) -> dict[str, Tree]:
    """The config with each credential's `preset` replaced by what it brings. What the config gives wins."""
    credentials = tree.get("credentials")
    if not isinstance(credentials, dict):
        return tree
    applied = {
        name: _apply(fields, ("credentials", name), report, folder) if isinstance(fields, dict) else fields
        for name, fields in credentials.items()
    }
    return {**tree, "credentials": applied}


def _apply(fields: dict[str, Tree], path: Path, report: Report, folder: FilePath) -> Tree:
    own = {key: value for key, value in fields.items() if key != "preset"}
    if (choice := fields.get("preset")) is None:
        return own
    path = (*path, "preset")
    given: dict[str, Tree] = {"name": choice}
    if isinstance(choice, dict) and not reference(choice):
        given = choice
    try:
        name = read_plain(given.get("name"), folder)
    except WrongError as error:
        text = "must be a preset's name, or {name: NAME} with its parameters"
        report.add((*path, *error.below), str(error) if error.below else text)
        return own
    preset = presets().get(name)
    if preset is None:
        at = (*path, "name") if given is choice else path
        report.add(at, "there is no preset of this name" + did_you_mean(name, presets()))
        return own
    values = _parameters(preset, given, path, report, folder)
    return _merge(_fill(dict(preset.credential), values), own)


def _parameters(preset: Preset, given: dict[str, Tree], path: Path, report: Report, folder: FilePath) -> dict[str, str]:
    """The value of each parameter: as given, or its default."""
    values = {name: str(default) for name, default in preset.parameters.items() if default is not None}
    for name, value in given.items():
        if name == "name":
            continue
        if name not in preset.parameters:
            report.add(
                (*path, name), "the preset has no such parameter" + did_you_mean(name, preset.parameters), at="key"
            )
            continue
        try:
            values[name] = str(read_plain(value, folder))
        except WrongError as error:
            report.add((*path, name), str(error))
    token_url = str(preset.credential.get("token_url", ""))
    for name in preset.parameters:
        if "?" in values.get(name, "") and f"{{{name}}}" in token_url:
            report.add((*path, name), "stands in the path of token_url, and must not have a query; remove it")
        if name not in values:
            report.add(
                path, f"the preset needs the parameter {name}: write {{name: ..., {name}: ...}}", unless=[(*path, name)]
            )
    return values


def _fill(tree: Any, values: Mapping[str, str]) -> Any:
    """`{parameter}` replaced in every text; other placeholders stay. Before a slash, a value needs none at its end."""
    if isinstance(tree, dict):
        return {key: _fill(value, values) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_fill(value, values) for value in tree]
    if isinstance(tree, Text):
        filled = _PARAMETER.sub(lambda found: _value(found, values), tree)
        return Text(filled, is_plain=tree.is_plain)
    return tree


def _value(found: re.Match[str], values: Mapping[str, str]) -> str:
    value = values.get(found[1], found[0])
    return value.rstrip("/") if found.string.startswith("/", found.end()) else value


def _merge(brought: dict[str, Tree], own: dict[str, Tree], merged: Mapping[str, Any] = _MERGED) -> dict[str, Tree]:
    """`own` over `brought`; null removes what was brought."""
    result = _over(brought, own, str)
    for key, within in merged.items():
        below, above = brought.get(key), own.get(key)
        if not isinstance(below, dict) or not isinstance(above, dict):
            continue
        if key == "assertion" and (reference(below) or reference(above)):
            continue  # a text that stands elsewhere is no mapping of fields
        result[key] = _over(below, above, str.lower) if key == "headers" else _merge(below, above, within)
    return result


def _over(below: dict[str, Tree], above: dict[str, Tree], same: Callable[[str], str]) -> dict[str, Tree]:
    """`above` over `below`, names compared as `same` makes them."""
    written, brought = set(map(same, above)), set(map(same, below))
    kept = {name: value for name, value in below.items() if same(name) not in written}
    return kept | {name: value for name, value in above.items() if value is not None or same(name) not in brought}
