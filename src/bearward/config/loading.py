"""A config file → `Settings`, or every fault that it has."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..secret import SecretUnreadableError, read_text
from .build import build_settings
from .diagnostics import ConfigError, Fault, Path, Problem, Report, did_you_mean
from .document import Tree, read_document
from .masking import known_names
from .model import Config
from .page import Page
from .presets import apply_presets
from .settings import Settings
from .warnings import find_warnings

_IN_PLAIN_WORDS = {
    "model_type": "must be a mapping: lines of the form KEY: VALUE",
    "dict_type": "must be a mapping: lines of the form KEY: VALUE",
    "list_type": "must be a list: [A, B], or lines that start with -",
}
_INSTEAD: dict[Path, str] = {
    ("tls", "verify"): "unknown key: certificates are always checked; name the CA that issued them as ca_file",
    ("credentials", "audience"): "unknown key: write it under params, as all further parameters of the token request",
    ("credentials", "resource"): "unknown key: write it under params, as all further parameters of the token request",
}
"""What to write in place of an unknown key that is often meant."""


def read_config(path: FilePath) -> Settings:
    """Read and check a config. Raises `ConfigError` with all faults of the file."""
    try:
        document = read_document(read_text(path) + "\n")
    except SecretUnreadableError as error:
        raise ConfigError([Fault(str(path), 1, 1, "", str(error))]) from None
    page = Page(str(path), document)
    if document.syntax_fault:
        raise ConfigError([page.fault(Problem((), document.syntax_fault.text), document.syntax_fault.span)])
    report = Report()
    settings, warnings = _read(document.tree, report, path.absolute().parent)
    faults = [page.fault(problem, span) for problem, span in document.problems]
    faults += [page.fault(problem) for problem in report.problems]
    if faults or not settings:
        raise ConfigError(sorted(dict.fromkeys(faults), key=lambda fault: (fault.line, fault.column)))
    return replace(settings, warnings=tuple(page.fault(problem).headline for problem in warnings))


def _read(tree: Tree, report: Report, folder: FilePath) -> tuple[Settings | None, list[Problem]]:
    """The settings and warnings, of use only where the report stays empty."""
    if not isinstance(tree, dict):
        report.add((), _IN_PLAIN_WORDS["model_type"])
        return None, []
    credentials = tree.get("credentials")
    named = frozenset(credentials if isinstance(credentials, dict) else ())
    config = _validate(apply_presets(tree, report, folder), report, folder)
    settings = build_settings(config, named, report, folder)
    return settings, find_warnings(config, settings.credentials, folder)


def _validate(tree: dict[str, Tree], report: Report, folder: FilePath) -> Config:
    """What of the tree is as the model says. The rest is reported and taken out."""
    while True:
        try:
            return Config.model_validate(tree, context=folder)
        except ValidationError as error:
            # From the end, so that the indices of lists stay true.
            for details in reversed(error.errors(include_url=False, include_input=False)):
                _take_out(tree, _report(details, report))


def _report(details: ErrorDetails, report: Report) -> Path:
    """Add what the model says to the report. Returns the path of what is to be left out."""
    path, kind = details["loc"], details["type"]
    if kind == "missing":
        report.add(path[:-1], f"{path[-1]} is missing", at="key", unless=[path])
        return path[:-1]
    if kind == "extra_forbidden":
        known = "unknown key" + did_you_mean(str(path[-1]), known_names(path[:-1]))
        instead = _INSTEAD.get(path[-2:]) or _INSTEAD.get((path[0], path[-1]))
        report.add(path, instead or known, at="key")
    elif kind != "value_error":
        report.add(path, _IN_PLAIN_WORDS[kind])
    elif path[-1] == "[key]":
        path = path[:-1]
        report.add(path, str(details["ctx"]["error"]), at="key")
    else:
        wrong = details["ctx"]["error"]
        report.add((*path, *wrong.below), str(wrong))
    return path


def _take_out(tree: Any, path: Path) -> None:
    *above, last = path
    with suppress(KeyError):  # gone already, where a key and its value are both at fault
        for part in above:
            tree = tree[part]
        del tree[last]
