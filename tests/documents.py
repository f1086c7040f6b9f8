"""README and docs, taken apart: their blocks, commands, tables, links and headings."""

import re
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
CONFIG_FAULT = 78
TIMEOUT = 120.0
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


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
