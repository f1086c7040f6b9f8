"""Nothing that the product wrote in this whole run holds a secret or a token; this module runs last."""

import base64
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from evidence import EVIDENCE, SECRETS, LeakFinder

# Patterns of the files that a run must have left; whether a log goes to stdout or stderr is the product's business.
WRITTEN = {"stdout$|stderr$", "metrics$", "api-status$", r"readyz\?verbose$", "error$"}

SECRET = "tee/th+of&the=finder 0123"

DISGUISES: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": lambda text: quote(text, safe=""),
    "form": quote_plus,
    "lower-case percent": lambda text: re.sub("%..", lambda escape: escape[0].lower(), quote(text, safe="")),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 behind one byte": lambda text: base64.b64encode(f"x{text}".encode()).decode(),
    "base64 behind two bytes": lambda text: base64.b64encode(f"xy{text}z".encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(f"?{text}?".encode()).decode(),
    "Basic header": lambda text: "Basic " + base64.b64encode(f"client:{text}".encode()).decode(),
    "Bearer header": lambda text: f"Bearer {text}",
    "JSON": lambda text: f'{{"event": "refreshed", "token": "{text}"}}',
}


@pytest.mark.parametrize("at", [0, 1, 5, 8])
@pytest.mark.parametrize("disguise", DISGUISES)
def test_the_finder_has_teeth(disguise: str, at: int) -> None:
    finder = LeakFinder([(SECRET, "client secret")])
    data = b"." * at + DISGUISES[disguise](SECRET).encode() + b"."
    (leak,) = {found.kind for found in finder.find("a log", data)}
    assert leak == "client secret"


def test_the_finder_bites_nothing_else() -> None:
    finder = LeakFinder([(SECRET, "client secret")])
    assert finder.find("a log", b"nothing but tee/th and 0123" * 100) == []


def test_nothing_leaked(whole_run: None) -> None:
    finder = LeakFinder(SECRETS)
    files = list(EVIDENCE.files())
    kinds = {kind for _, kind in SECRETS}
    assert {"client secret", "password", "access token", "refresh token"} <= kinds, (
        f"the run made too few kinds of secrets to show anything: {sorted(kinds)}"
    )
    collected = {what for what in WRITTEN for name, content in files if content and re.search(what, name)}
    assert collected == WRITTEN, f"nothing was collected of {sorted(WRITTEN - collected)}: run the whole suite"
    leaks = [leak for name, content in files for leak in finder.find(name, content)]
    assert not leaks, "\n".join(map(str, leaks[:20]))
