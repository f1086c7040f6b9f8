"""What is wrong with a config: problems by path, collected as they are met, then faults with a place in the file."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Path = tuple[str | int, ...]
"""The keys and list indices that lead to a value."""


class WrongError(ValueError):
    """One value is not as it must be. Its text never repeats the value; `below` leads to the part that is wrong."""

    def __init__(self, text: str, below: Path = ()) -> None:
        super().__init__(text)
        self.below = below


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at a path, and whether its key or its value is to be pointed at."""

    path: Path
    text: str
    at: Literal["key", "value"] = "value"


@dataclass(slots=True)
class Report:
    """The problems met so far. What merely follows from another problem is not added."""

    problems: list[Problem] = field(default_factory=list)
    _at_fault: set[Path] = field(default_factory=set)

    def add(self, path: Path, text: str, *, at: Literal["key", "value"] = "value", unless: Iterable[Path] = ()) -> None:
        """Note a problem, except where one of `unless` is known to be at fault."""
        if not self.is_faulty(*unless):
            self.problems.append(Problem(path, text, at))
            self._at_fault.update(path[:end] for end in range(len(path) + 1))

    def is_faulty(self, *paths: Path) -> bool:
        """Whether something is wrong at one of `paths` or below it."""
        return not self._at_fault.isdisjoint(paths)


@dataclass(frozen=True, slots=True)
class Fault:
    """A problem at its place, with a source line in which every value that may be secret is masked."""

    file: str
    line: int
    column: int
    path: str
    text: str
    source: str = ""
    caret_column: int = 0
    caret_width: int = 1

    @property
    def headline(self) -> str:
        """Place, path and text, on one line."""
        return ": ".join(filter(None, (f"{self.file}:{self.line}:{self.column}", self.path, self.text)))

    def render(self) -> str:
        """The fault, the line and a caret, as three lines; where there is no line to show, the fault alone."""
        if not self.source:
            return self.headline
        carets = " " * self.caret_column + "^" * self.caret_width
        return f"{self.headline}\n    {self.source}\n    {carets}"

    __str__ = render


class ConfigError(Exception):
    """A config cannot be used. `faults` are all faults of the file, in the order of their places."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(fault.render() for fault in self.faults))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` where a known word is near, else the known words where they are few, else nothing."""
    choices = {choice.lower(): choice for choice in known}
    near = difflib.get_close_matches(word[:100].lower(), choices, n=1)
    if near:
        return f"; did you mean {choices[near[0]]}?"
    return f"; known: {', '.join(choices.values())}" if 0 < len(choices) <= 16 else ""
