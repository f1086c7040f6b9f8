"""Mappings whose keys the operator chooses (`params`, `claims`) → values of the domains."""

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from ..secret import Secret
from .diagnostics import Path, Report, WrongError
from .document import Text
from .fields import json_value
from .references import read_secret, reference


def read_structures(values: Mapping[str, Any], path: Path, report: Report, folder: FilePath) -> dict[str, Any]:
    """Any JSON structures; their texts are secrets, their unquoted numbers and truth values are what they say."""
    return {name: _structure(value, (*path, name), report, folder) for name, value in values.items()}


def read_repeatable(values: Mapping[str, Any], path: Path, report: Report, folder: FilePath) -> dict[str, Any]:
    """Texts, or lists of texts: the parameter repeats."""
    return {name: _repeatable(value, (*path, name), report, folder) for name, value in values.items()}


def _structure(value: Any, path: Path, report: Report, folder: FilePath) -> Any:
    if isinstance(value, dict) and not reference(value):
        return read_structures(value, path, report, folder)
    if isinstance(value, list):
        return [_structure(inner, (*path, index), report, folder) for index, inner in enumerate(value)]
    return None if value is None else _leaf(value, path, report, folder)


def _repeatable(value: Any, path: Path, report: Report, folder: FilePath) -> Any:
    if isinstance(value, list):
        return [_leaf(inner, (*path, index), report, folder, is_text=True) for index, inner in enumerate(value)]
    return _leaf(value, path, report, folder, is_text=True)


def _leaf(value: Any, path: Path, report: Report, folder: FilePath, *, is_text: bool = False) -> Any:
    try:
        if isinstance(value, Text):
            literal = value if is_text else json_value(value)
            return Secret(str(literal)) if isinstance(literal, str) else literal
        return read_secret(value, folder)
    except WrongError as error:
        report.add((*path, *error.below), str(error))
        return Secret("")
