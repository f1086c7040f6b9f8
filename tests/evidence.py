"""What the product wrote during a run of the tests, and the texts that must not be in it."""

import base64
import json
import os
import secrets
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

import workers

_PATIENCE = 240.0
"""Seconds for which one worker may have tests to run while another has none."""
_GRAM = 8
# A shorter text is sought as a whole; one of this length holds an aligned gram wherever it begins.
_INDEXED_FROM = 2 * _GRAM - 1


class SecretRegistry:
    """Every secret and token of the run, with a word on what each is."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}

    def add(self, text: str, kind: str) -> str:
        """Remember `text` as a secret; gives it back."""
        assert len(text) >= _GRAM, f"a {kind} of {len(text)} characters would be found by chance"
        self._kinds[text] = kind
        return text

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._kinds.items())

    def __len__(self) -> int:
        return len(self._kinds)


SECRETS = SecretRegistry()


def new_secret(kind: str, prefix: str = "") -> str:
    """A fresh secret; `prefix` gives it the characters that a test needs in it.

    Only its random part is registered: that one looks the same however the rest is escaped.
    """
    return prefix + SECRETS.add(secrets.token_hex(12), kind)


class Evidence:
    """One folder with every byte the product wrote, a subfolder for each of its processes."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._of_others: list[Path] = []
        self._is_closed = False

    def open_folder(self, name: str) -> Path:
        """A new subfolder for one process."""
        assert self.folder is not None, "no folder was set for this run"
        assert not self._is_closed, "the run has been judged: what a test makes the product write now, nobody reads"
        place = self.folder / f"{len(list(self.folder.iterdir())):03}-{name}"
        place.mkdir()
        return place

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Path and content of everything collected."""
        assert self.folder is not None, "no folder was set for this run"
        for folder in (self.folder, *self._of_others):
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    yield str(path), path.read_bytes()

    def hand_over(self, place: Path) -> None:
        """Leave in `place` where this worker's folder is and what its secrets were."""
        told = {"folder": self.folder and str(self.folder), "secrets": list(SECRETS)}
        written = place / f"worker-{os.getpid()}.new"
        written.write_text(json.dumps(told))
        written.rename(written.with_suffix(".json"))

    def take_over(self, place: Path) -> None:
        """Add what all other workers leave in `place` when they have ended, and be the last."""
        begun = time.monotonic()
        while len(files := list(place.glob("worker-*.json"))) < workers.COUNT - 1:
            assert time.monotonic() - begun < _PATIENCE, f"of {workers.COUNT - 1} other workers {len(files)} have ended"
            time.sleep(0.05)
        for told in (json.loads(file.read_text()) for file in files):
            if told["folder"] is not None:  # it had a test to run
                self._of_others.append(Path(told["folder"]))
            for text, kind in told["secrets"]:
                SECRETS.add(text, kind)
        self._is_closed = True


EVIDENCE = Evidence()


def base64_forms(text: bytes) -> Iterator[bytes]:
    """What any base64 that contains `text` must contain, at each of the three alignments, in both alphabets."""
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + text)
        start = (0, 2, 3)[offset]  # characters that the bytes before have a part in
        end = len(encoded) if (offset + len(text)) % 3 == 0 else -4 + (offset + len(text)) % 3
        certain = encoded[start:end]
        yield certain
        yield certain.translate(bytes.maketrans(b"+/", b"-_"))


def forms(text: str) -> set[bytes]:
    """The spellings in which `text` might leak: plain, percent-encoded, base64."""
    percent = {quote(text, safe=""), quote_plus(text, safe="")}
    lower = {piece for spelling in percent for piece in _with_lower_case_escapes(spelling)}
    return {text.encode(), *(each.encode() for each in percent | lower), *base64_forms(text.encode())}


def _with_lower_case_escapes(spelling: str) -> Iterator[str]:
    first, *rest = spelling.split("%")
    yield "%".join([first, *(piece[:2].lower() + piece[2:] for piece in rest)])


@dataclass(frozen=True)
class Leak:
    """A registered text that was found where it must not be; its content stays out of the report."""

    kind: str
    place: str
    around: bytes

    def __str__(self) -> str:
        return f"{self.kind} in {self.place}, near {self.around!r}"


class LeakFinder:
    """Finds any form of many texts in much data, in one pass over aligned pieces of eight bytes."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        self._short: dict[bytes, str] = {}
        self._by_gram: dict[bytes, set[bytes]] = {}
        self._kinds: dict[bytes, str] = {}
        for text, kind in texts:
            for form in forms(text):
                self._add(form, kind)

    def _add(self, form: bytes, kind: str) -> None:
        if len(form) < _INDEXED_FROM:
            self._short[form] = kind
            return
        self._kinds[form] = kind
        for start in range(_GRAM):
            self._by_gram.setdefault(form[start : start + _GRAM], set()).add(form)

    def find(self, place: str, data: bytes) -> list[Leak]:
        """Every registered text that stands in `data`, once each."""
        whole = len(data) // _GRAM * _GRAM
        grams = {gram for (gram,) in struct.iter_unpack(f"{_GRAM}s", data[:whole])}
        candidates = {form for gram in grams & self._by_gram.keys() for form in self._by_gram[gram]}
        kinds = self._short | {form: self._kinds[form] for form in candidates}
        return [
            Leak(kind, place, data[max(0, at - 60) : at])
            for form, kind in kinds.items()
            if (at := data.find(form)) >= 0
        ]
