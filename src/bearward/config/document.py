"""YAML text → plain values as written, and the place of each. No value is interpreted here: `no` stays `no`."""

import re
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, Union

import yaml
from yaml.nodes import CollectionNode, Node, ScalarNode, SequenceNode

from .diagnostics import Path, Problem

MAX_DEPTH = 50
MAX_NODES = 50_000
"""Aliases count each time they are used, so that a small file cannot become a huge one."""

_TOO_MANY = f"more than {MAX_NODES} values, aliases included"
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_SYNTAX = {
    "mapping values are not allowed": "a key cannot stand here; check indentation, and put text with ': ' in quotes",
    "could not find expected ':'": "a ':' and a space are missing after a key",
    "found character '\\t'": "tabs do not indent YAML; use spaces",
    "found character": "a value that starts with this character must stand in quotes",
    "found undefined alias": "a value that starts with * must stand in quotes (here it names a missing anchor)",
    "but found another document": "only one document is allowed in the file; remove the second '---'",
    "expected ',' or": "a comma or a bracket is missing before this; put text with special characters in quotes",
    "found unexpected end of stream": "a quote is not closed",
    "while scanning a quoted scalar": "a quote is not closed",
    "nested": "nested too deeply",
}


class Text(str):
    """A scalar exactly as written. Unquoted text may stand for a number or a truth value; its reader decides."""

    __slots__ = ("is_plain",)
    is_plain: bool

    def __new__(cls, value: str, *, is_plain: bool = False) -> "Text":
        text = super().__new__(cls, value)
        text.is_plain = is_plain
        return text


Tree: TypeAlias = Union[Text, "list[Tree]", "dict[str, Tree]", None]


class Span(NamedTuple):
    """A stretch of one line; both numbers from 0."""

    line: int
    start: int
    end: int


class Scalar(NamedTuple):
    """A key or value on the page, for those who show a line of it."""

    span: Span
    path: Path
    is_key: bool
    is_empty: bool
    """Of a key: nothing stands after it."""


class SyntaxFault(NamedTuple):
    """Why there is no tree at all, and where reading ended."""

    text: str
    span: Span


@dataclass(slots=True, repr=False)
class Document:
    """The tree of a file and where everything in it stands."""

    lines: list[str]
    tree: Tree = None
    keys: dict[Path, Span] = field(default_factory=dict)
    values: dict[Path, Span] = field(default_factory=dict)
    scalars: list[Scalar] = field(default_factory=list)
    problems: list[tuple[Problem, Span]] = field(default_factory=list)
    syntax_fault: SyntaxFault | None = None


def read_document(text: str) -> Document:
    """Read YAML. What is wrong with it is in the document, never raised."""
    document = Document(_LINE_BREAK.split(text))
    try:
        node = _compose(text)
        document.tree = _Walk(document).visit(node, (), Span(0, 0, 0))
    except _UnreadableError as error:
        document.syntax_fault = SyntaxFault(*error.args)
    return document


class _UnreadableError(Exception):
    """Why, and a span."""


class _Loader(yaml.SafeLoader):
    """Composes nodes; leaves untagged ones without a tag, and bounds the depth."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self.depth += 1
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _UnreadableError(_TOO_MANY, _point(self.line, self.column))
        if self.depth > MAX_DEPTH:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="nested", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def resolve(self, kind: object, value: object, implicit: object) -> str:
        return ""


def _compose(text: str) -> Node:
    """The root node. The parser's own messages quote the file, so none of them is passed on."""
    if "\ufeff" in text:  # the parser does not count it, so every place after it would be wrong
        raise _UnreadableError("remove the byte order mark (U+FEFF)", _point_at(text, text.index("\ufeff")))
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        raise _UnreadableError("control characters are not allowed", _point_at(text, error.position)) from None
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or loader.get_mark()
        is_at_end = mark.index >= len(text.rstrip())
        if error.context_mark and (is_at_end or error.context == "while scanning a simple key"):
            mark = error.context_mark  # what is not closed says more than where that was noticed
        raise _UnreadableError(_in_plain_words(error), _point(mark.line, mark.column)) from None
    except (yaml.YAMLError, ValueError, OverflowError):  # an escape or a version that is no number it can hold
        mark = loader.get_mark()
        raise _UnreadableError("this is not valid YAML", _point(mark.line, mark.column)) from None

    if node is None:
        raise _UnreadableError("the file is empty", Span(0, 0, 0))
    return node


def _in_plain_words(error: yaml.MarkedYAMLError) -> str:
    said = f"{error.context} {error.problem}"
    known = (words for sign, words in _SYNTAX.items() if sign in said)
    return next(known, "this is not valid YAML; look at quotes, brackets and indentation on this line and before it")


def _point_at(text: str, index: int) -> Span:
    before = _LINE_BREAK.split(text[:index])
    return _point(len(before) - 1, len(before[-1]))


def _point(line: int, column: int) -> Span:
    return Span(line, column, column + 1)


class _Walk:
    """Turns nodes into values and notes their places."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._visited = 0
        self._above: set[int] = set()
        self._scalars: set[int] = set()

    def visit(self, node: Node, path: Path, key: Span) -> Tree:
        """The value of `node`; `key` is where to point if the value's own place says nothing."""
        self._visited += 1
        if self._visited > MAX_NODES:
            raise _UnreadableError(_TOO_MANY, key)
        if id(node) in self._above:
            raise _UnreadableError("an alias contains itself", self._span(node))
        place = self._place(node, key)
        if path:
            self._document.values[path] = place
        if node.tag:
            self._fault(path, "tags are not supported; put text that starts with ! in quotes", place)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path, place)
        self._above.add(id(node))
        value = self._sequence(node, path, key) if isinstance(node, SequenceNode) else self._mapping(node, path)
        self._above.remove(id(node))
        return value

    def _scalar(self, node: ScalarNode, path: Path, place: Span) -> Tree:
        self._scalars.add(id(node))
        self._document.scalars.append(Scalar(self._span(node), path, False, False))
        if any("\ud800" <= character <= "\udfff" or character == "\0" for character in node.value):
            self._fault(path, "an escape in this text stands for no character", place)
        return None if _is_null(node) else Text(node.value, is_plain=node.style is None)

    def _sequence(self, node: SequenceNode, path: Path, key: Span) -> Tree:
        return [self.visit(child, (*path, index), key) for index, child in enumerate(node.value)]

    def _mapping(self, node: Node, path: Path) -> Tree:
        mapping: dict[str, Tree] = {}
        for key, child in node.value:
            span = self._span(key)
            if not isinstance(key, ScalarNode) or key.tag or _is_null(key) or id(key) in self._scalars:
                self._fault(path, "a key must be plain text", span)
                self.visit(key, (*path, ""), span)
                self.visit(child, (*path, ""), span)
                continue
            where = (*path, key.value)
            is_empty = isinstance(child, ScalarNode) and _is_null(child)
            self._document.scalars.append(Scalar(span, where, True, is_empty))
            if key.value == "<<" and key.style is None:
                self._fault(where, "merge keys (<<) are not supported; write the fields out", span)
                self.visit(child, (*path, ""), span)
            elif key.value in mapping:
                first = self._document.keys[where]
                place = f"line {first.line + 1}, column {first.start + 1}"
                self._fault(where, f"this key is given twice, first in {place}; remove one", span)
                self.visit(child, (*path, ""), span)
            else:
                self._document.keys[where] = span
                mapping[key.value] = self.visit(child, where, span)
        return mapping

    def _fault(self, path: Path, text: str, span: Span) -> None:
        self._document.problems.append((Problem(path, text), span))

    def _place(self, node: Node, key: Span) -> Span:
        """Where to point for a value: at its key, if it is empty, an alias of something above, or a whole block."""
        span = self._span(node)
        is_block = isinstance(node, CollectionNode) and not node.flow_style
        return key if is_block or span.start == span.end or (span.line, span.start) < key[:2] else span

    def _span(self, node: Node) -> Span:
        start, end = node.start_mark, node.end_mark
        is_one_line = start.line == end.line
        return Span(start.line, start.column, end.column if is_one_line else len(self._document.lines[start.line]))


def _is_null(node: ScalarNode) -> bool:
    return node.style is None and node.value in ("", "~", "null")
