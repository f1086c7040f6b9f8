"""What must not be shown, found wherever it stands: whole, in part, in other letters or encoded. Pure."""

import html
import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from string import ascii_lowercase, ascii_uppercase
from typing import Final, NamedTuple
from urllib.parse import quote, quote_plus

HIDDEN: Final = "***"
LIMIT: Final = 200
"""How much of a text of the identity provider's is shown, in characters."""

_GRAM = 8
"""So many characters of a secret in a row are hidden, also where the rest is missing."""
_WORD = 4
"""What is shorter is hidden where it is a whole word."""
_MOST = 4096
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_LIKE_A_TOKEN = re.compile(r"(?=[A-Za-z_=-]*\d)[\w=-]{20,}", re.ASCII)


class Mask:
    """Hides these texts in others."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._short: set[str] = set()
        self._words: set[str] = set()
        self._grams: set[str] = set()
        for form in {_plain(form).translate(_LOWER) for text in texts for form in _forms(text)}:
            if len(form) >= _GRAM:
                self._grams.update(form[at : at + _GRAM] for at in range(len(form) - _GRAM + 1))
            elif form.strip():
                (self._short if len(form) >= _WORD else self._words).add(form)

    def hide(self, text: str) -> str:
        """The text on one line, of at most `LIMIT` characters, without what is hidden and what looks like a token."""
        text = _plain(text[:_MOST])
        hidden = [False] * len(text)
        for start, end in (*self._found(text), *(found.span() for found in _LIKE_A_TOKEN.finditer(text))):
            hidden[start:end] = [True] * (end - start)
        marked = "".join("\0" if is_hidden else character for character, is_hidden in zip(text, hidden, strict=True))
        shown = " ".join(re.sub("\0+", HIDDEN, marked).split())
        return shown if len(shown) <= LIMIT else f"{shown[: LIMIT - 1]}…"

    def is_clean(self, text: str) -> bool:
        """Whether none of the texts is in it."""
        return not any(True for _ in self._found(_plain(text)))

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        lower = text.translate(_LOWER)
        for at in range(len(lower) - _GRAM + 1):
            if lower[at : at + _GRAM] in self._grams:
                yield at, at + _GRAM
        for short in self._short:
            yield from (found.span() for found in re.finditer(re.escape(short), lower))
        for word in self._words:
            yield from (found.span() for found in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", lower))


def _plain(text: str) -> str:
    """Without control characters, and those that turn the direction of writing or have no width."""
    return "".join(character if character.isprintable() else " " for character in text)


def _forms(text: str) -> Iterator[str]:
    yield from (text, text.strip(), quote(text, safe=""), quote_plus(text), html.escape(text), json.dumps(text)[1:-1])
    for encode in (b64encode, urlsafe_b64encode):
        yield encode(text.encode("utf-8", "replace")).decode().rstrip("=")


class Masks(NamedTuple):
    """What hides."""

    values: Mask
    """What is secret."""
    words: Mask
    """That, and names of clients: for texts that the identity provider has written."""
