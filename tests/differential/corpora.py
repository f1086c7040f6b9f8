"""The messages of ../shared/corpora, as they are and made to fit a lane; and seeded mutations of any messages."""

import base64
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import strict
from .lanes import OWN_HOST, PREFIX

FOLDER = Path(__file__).parents[3] / "shared" / "corpora"

_TARGET = re.compile(rb"(?m)^([A-Za-z-]+ )/(?!eu8/)")
_HOST = re.compile(rb"(?im)^(host: *)[^\r\n]*")
_FIRST_LINE = re.compile(rb"\A(?:\r\n)*[^\r\n]*\r\n")
_SPECIAL = [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\0",
    b":",
    b",",
    b";",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"0",
    b"%",
    b"\r\n ",
    b"/..",
]


@dataclass(frozen=True)
class Known:
    """A message of one of the corpora. `tier` is http-desync-guardian's."""

    name: str
    message: bytes
    tier: str | None

    def variants(self) -> Iterator[bytes]:
        """As it is; for a route and host that are served; and that with the body that a bare head lacks."""
        yield self.message
        served = _served(self.message)
        yield served
        if self.tier is not None:
            length = re.search(rb"(?i)Content.Length[^:]*:\s*(\d{1,4})\s*\r", served)
            yield served + (b"a" * int(length[1]) if length else b"5\r\nhello\r\n0\r\n\r\n")


def _served(message: bytes) -> bytes:
    message = _TARGET.sub(rb"\1" + PREFIX + b"/", message)
    if _HOST.search(message):
        return _HOST.sub(rb"\g<1>" + OWN_HOST, message)
    return _FIRST_LINE.sub(lambda line: line[0] + b"Host: " + OWN_HOST + b"\r\n", message, count=1)


def known() -> list[Known]:
    """All requests of the corpora."""
    found = []
    for name in ("llhttp-requests.jsonl", "desync-requests.jsonl"):
        for line in (FOLDER / name).read_text().splitlines():
            entry = json.loads(line)
            found.append(Known(entry["name"], base64.b64decode(entry["data"]), entry.get("tier")))
    return found


def mutations(bases: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """The same ones for the same seed; half are of the well-formed messages, which are few."""
    source = random.Random(seed)
    formed = [message for message in bases if strict.read(message, as_server=True).is_finished]
    for _ in range(count):
        message = source.choice(source.choice((bases, formed)))
        for _ in range(source.choice((1, 1, 1, 2, 3))):
            message = source.choice(_MUTATIONS)(message, source, bases)
        if message:
            yield message


def _place(message: bytes, source: random.Random) -> int:
    """Mostly in the head, and there mostly where something ends."""
    edges = [found.start() for found in re.finditer(rb"[\r\n:, ]", message[:2000])]
    if edges and source.random() < 0.6:
        return min(len(message), source.choice(edges) + source.randint(0, 1))
    return source.randint(0, min(len(message), 400))


def _flip(message: bytes, source: random.Random, _bases: Sequence[bytes]) -> bytes:
    place = _place(message, source)
    return (
        message[:place]
        + bytes(byte ^ (1 << source.randrange(8)) for byte in message[place : place + 1])
        + message[place + 1 :]
    )


def _insert(message: bytes, source: random.Random, _bases: Sequence[bytes]) -> bytes:
    place = _place(message, source)
    return message[:place] + source.choice(_SPECIAL) + message[place:]


def _replace(message: bytes, source: random.Random, _bases: Sequence[bytes]) -> bytes:
    place = _place(message, source)
    return message[:place] + source.choice(_SPECIAL) + message[place + 1 :]


def _remove(message: bytes, source: random.Random, _bases: Sequence[bytes]) -> bytes:
    place = _place(message, source)
    return message[:place] + message[place + source.randint(1, 3) :]


def _double_line(message: bytes, source: random.Random, _bases: Sequence[bytes]) -> bytes:
    lines = message.split(b"\r\n")
    place = source.randrange(len(lines))
    return b"\r\n".join([*lines[:place], lines[place], *lines[place:]])


def _move_line(message: bytes, source: random.Random, _bases: Sequence[bytes]) -> bytes:
    lines = message.split(b"\r\n")
    line = lines.pop(source.randrange(len(lines)))
    lines.insert(source.randint(0, len(lines)), line)
    return b"\r\n".join(lines)


def _borrow_line(message: bytes, source: random.Random, bases: Sequence[bytes]) -> bytes:
    lines = message.split(b"\r\n")
    lines.insert(source.randint(1, len(lines)), source.choice(source.choice(bases).split(b"\r\n")))
    return b"\r\n".join(lines)


def _swap_case(message: bytes, source: random.Random, _bases: Sequence[bytes]) -> bytes:
    place = _place(message, source)
    return message[:place] + message[place : place + 8].swapcase() + message[place + 8 :]


def _cut(message: bytes, source: random.Random, _bases: Sequence[bytes]) -> bytes:
    return message[: _place(message, source)] if source.random() < 0.3 else message


def _join(message: bytes, source: random.Random, bases: Sequence[bytes]) -> bytes:
    return message + source.choice(bases) if len(message) < 10_000 else message


_MUTATIONS = [
    *(
        _flip,
        _insert,
        _insert,
        _insert,
        _replace,
        _replace,
        _remove,
        _double_line,
        _move_line,
        _borrow_line,
        _borrow_line,
    ),
    *(_swap_case, _cut, _join),
]
