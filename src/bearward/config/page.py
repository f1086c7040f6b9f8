"""Problems in a document → faults: the place of each, and the line there with carets and without secrets."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .diagnostics import Fault, Path, Problem
from .document import Document, Scalar, Span
from .masking import known_keys, shows_key, shows_value

MASK = "***"
MAX_WIDTH = 160

_STRUCTURE = re.compile(r"[\s:,{}\[\]?-]*")


class _Piece(NamedTuple):
    """A stretch of a line, and what is shown for it."""

    start: int
    stop: int
    text: str
    is_mask: bool = False


class _MaskedLine:
    """A line as it is shown, and where in it the columns of the file are."""

    def __init__(self, pieces: Iterable[_Piece]) -> None:
        self._pieces = list(pieces)
        self._starts = [piece.start for piece in self._pieces]
        self._columns: list[int] = []
        width = 0
        for piece in self._pieces:
            self._columns.append(width)
            width += len(piece.text)
        self._text = "".join(piece.text for piece in self._pieces)

    def around(self, start: int, end: int) -> tuple[str, int, int]:
        """The line, cut if it is long, with the column and width of what stands from `start` to `end`."""
        first = self._column(start, is_end=False)
        last = self._column(end, is_end=True)
        cut = max(0, min(first - MAX_WIDTH // 2, len(self._text) - MAX_WIDTH))
        width = max(1, min(last, cut + MAX_WIDTH) - first)
        return self._text[cut : cut + MAX_WIDTH].rstrip(), first - cut, width

    def _column(self, position: int, *, is_end: bool) -> int:
        """Where a column of the file is shown; of a mask, its start or its end."""
        index = bisect_right(self._starts, position - is_end) - 1
        if index < 0:
            return 0
        piece, column = self._pieces[index], self._columns[index]
        if piece.is_mask and position < piece.stop + is_end:
            return column + len(MASK) * is_end
        return column + min(position - piece.start, len(piece.text))


class Page:
    """A document on its way into reports."""

    def __init__(self, file: str, document: Document) -> None:
        self._file = file
        self._document = document
        self._hidden_keys = {s.path for s in document.scalars if s.is_key and not shows_key(s)}
        self._scalars: dict[int, list[Scalar]] = {}
        for scalar in document.scalars:
            self._scalars.setdefault(scalar.span.line, []).append(scalar)
        self._lines: dict[int, _MaskedLine] = {}

    def fault(self, problem: Problem, span: Span | None = None) -> Fault:
        """The problem as a fault, at `span` or at the place of its path."""
        span = span or self._place(problem)
        if span.line not in self._lines:
            self._lines[span.line] = _MaskedLine(self._cut(span.line))
        source, column, width = self._lines[span.line].around(span.start, span.end)
        dotted = ".".join(self._part(problem.path[: end + 1]) for end in range(len(problem.path)))
        return Fault(self._file, span.line + 1, span.start + 1, dotted, problem.text, source, column, width)

    def _place(self, problem: Problem) -> Span:
        """The key or value at the path; of what a preset brought, the preset; else what is around it."""
        keys, values, path = self._document.keys, self._document.values, problem.path
        places = (keys, values) if problem.at == "key" else (values, keys)
        for place in places:
            if path in place:
                return place[path]
        if path[:1] == ("credentials",) and (preset := (*path[:2], "preset")) in values and len(path) > 2:
            return values[preset]
        around = (keys[path[:end]] for end in range(len(path), 0, -1) if path[:end] in keys)
        return next(around, Span(0, 0, 1))

    def _part(self, path: Path) -> str:
        return MASK if path in self._hidden_keys or path[-1] == "" else str(path[-1])

    def _cut(self, line: int) -> Iterator[_Piece]:
        """The line in pieces."""
        text, position = self._document.lines[line], 0
        for (start, end), is_shown in sorted(self._leaves(line).items()):
            if start < position or start == end:
                continue
            yield from _gap(text, position, start)
            yield _Piece(start, end, text[start:end] if is_shown else MASK, not is_shown)
            position = end
        yield from _gap(text, position, len(text))

    def _leaves(self, line: int) -> dict[tuple[int, int], bool]:
        """The scalars of a line, and whether each may be shown in every role that it has (aliases)."""
        if self._document.syntax_fault:
            return {found.span(1): True for found in known_keys().finditer(self._document.lines[line])}
        leaves: dict[tuple[int, int], bool] = {}
        for scalar in self._scalars.get(line, ()):
            where = scalar.span[1:]
            text = self._document.lines[line][slice(*where)]
            is_shown = shows_value(scalar.path, text)
            if scalar.is_key:  # as written, without an anchor or a tag before it
                is_shown = shows_key(scalar) and text.strip("'\"") == scalar.path[-1]
            leaves[where] = leaves.get(where, True) and is_shown and text.isprintable()
        return leaves


def _gap(text: str, start: int, end: int) -> Iterator[_Piece]:
    """What stands between scalars: punctuation is shown; a comment, an anchor or broken text is not."""
    found = _STRUCTURE.match(text, start, end)
    structure_end = found.end() if found else start
    if start < structure_end:
        yield _Piece(start, structure_end, re.sub(r"\s", " ", text[start:structure_end]))
    if structure_end < end:
        yield _Piece(structure_end, end, MASK if end == len(text) else f"{MASK} ", True)
