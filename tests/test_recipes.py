"""docs/recipes.md: every config there sends what stands under it, takes the answer, and signs a call.

The documented URLs are asked as they stand: an egress proxy leads `https://` to one recorder. Only those of metadata
servers, which no proxy is asked for, are led there by their text.
"""

import asyncio
import json
import re
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import pytest_asyncio

from configs import Config
from evidence import SECRETS, new_secret
from harness import Answer, Bearward
from made_up import ME, made_up, private_key
from recipe_page import MASK, PAGE, Documented, Masking, Recipe, Sent, recipes
from test_egress_proxy import ConnectProxy
from tls import Authority, TlsUpstream
from wire import Message, RawUpstream, Reader, Writer

RECIPES = recipes()
SOON = 10.0
HOUR = timedelta(hours=1)
USER = "alice"
(USUAL,) = re.findall(r"the answer is `(\{.*?\})`", PAGE.text)
in_module = pytest.mark.asyncio(loop_scope="module")
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.route[0].strip("/"))


@cache
def given(name: str) -> str:
    """What the variable or file of this name holds: characters on which encodings differ, where it is no key."""
    if not name.endswith(".pem"):
        return new_secret(f"secret {name}", "s+e/c%r:e/")
    if name.endswith("key.pem"):
        SECRETS.add(made_up(name).splitlines()[4], f"secret {name}")
    return made_up(name)


PRINTED = USUAL.replace(MASK, given("what get_token.py prints"))


def an_hour_ahead(answer: str) -> str:
    """The same with its moments there."""
    moment = datetime.now(UTC) + HOUR
    answer = re.sub(r"\b20\d\d-\d\d-\d\dT[\d:]{8}Z", moment.strftime("%Y-%m-%dT%H:%M:%SZ"), answer)
    return re.sub(r"\b1[78]\d{8}\b", str(int(moment.timestamp())), answer)


@dataclass(frozen=True)
class Came:
    """A request to the recorder."""

    message: Message
    host: str
    body: bytes
    shows_certificate: bool

    @property
    def line(self) -> str:
        method, target, _ = self.message.start.decode().split(" ")
        return f"{method} {self.host}{target.partition('?')[0]}"


@dataclass
class Recorder:
    """All hosts of the page: a token endpoint answers as documented, all else is an API and answers 200."""

    answers: dict[str, list[str]]
    """By the lines of token requests; the last one stays."""
    asked: defaultdict[str, list[Came]] = field(default_factory=lambda: defaultdict(list))
    calls: list[Came] = field(default_factory=list)
    issued: defaultdict[str, list[list[str]]] = field(default_factory=lambda: defaultdict(list))
    """What stood for each `***` of each answer: the first one is the token."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, request: Message, reader: Reader, writer: Writer, host: str = "") -> None:
        body = await reader.readexactly(int((request.values("Content-Length") or [b"0"])[0]))
        shown = writer.get_extra_info("peercert")
        came = Came(request, host or request.values("Host")[0].decode(), body, bool(shown))
        writer.write(self._answer(came).encode())
        await writer.drain()
        self._changed.set()
        self._changed = asyncio.Event()

    def _answer(self, came: Came) -> str:
        if came.line not in self.answers:
            self.calls.append(came)
            return "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        before = len(self.asked[came.line])
        self.asked[came.line].append(came)
        answers = self.answers[came.line]
        first, *rest = an_hour_ahead(answers[min(before, len(answers) - 1)]).split(MASK)
        secrets = [new_secret("token", "t-") for _ in rest]
        self.issued[came.line].append(secrets)
        return first + "".join(secret + text for secret, text in zip(secrets, rest, strict=True))

    async def until(self, condition: Callable[[], Any]) -> None:
        """Return once this is true; it is looked at whenever a request comes."""
        async with asyncio.timeout(SOON):
            while not condition():
                await self._changed.wait()


def call_of(recipe: Recipe) -> Sent:
    """What arrives at the API, where nothing else is documented."""
    _, route = recipe.route
    return Sent(f"GET {route['upstream'].partition('://')[2]}/items", "", {"authorization": f"Bearer {MASK}"}, "")


def token_requests(recipe: Recipe) -> dict[str, list[Documented]]:
    """What is documented of each line that leads to a token URL."""
    found: dict[str, list[Documented]] = {}
    for exchange in recipe.exchanges:
        if exchange.sent.url in recipe.urls("token_url"):
            found.setdefault(exchange.sent.line, []).append(exchange)
    return found


def served(exchanges: list[Documented]) -> list[str]:
    """Their answers on the wire. Where another request follows, it is due soon."""
    whole = []
    for number, exchange in enumerate(exchanges, 1):
        head, _, body = (exchange.answer or f"HTTP/1.1 200 OK\n\n{USUAL}").partition("\n\n")
        if number < len(exchanges):
            body = json.dumps(json.loads(body) | {"refresh_in": 1})
        whole.append("\r\n".join([*head.split("\n"), "Connection: close", "", body]))
    return whole


def lifetime(exchange: Documented) -> float:
    """Seconds for which the answer says that its token lives; an hour where that is told in another way."""
    found = re.search(r'"expires_in": "?(\d+)', exchange.answer)
    return float(found[1]) if found else HOUR.total_seconds()


@dataclass
class Stage:
    """A product with some of the recipes, and the recorder behind all of their hosts."""

    recorder: Recorder
    config: Config
    env: dict[str, str]
    folder: Path
    bearward: Bearward

    @asynccontextmanager
    async def restarted(self) -> AsyncIterator["Stage"]:
        """The same after a stop."""
        await self.bearward.terminate()
        async with started(self.config, self.folder, self.env) as bearward:
            yield replace(self, bearward=bearward)

    async def call(self, recipe: Recipe) -> Answer:
        prefix, route = recipe.route
        principal = route["credential"].get("principal")
        return await self.bearward.get(f"{prefix}/items", headers={principal["header"]: USER} if principal else {})

    async def all_asked(self, recipe: Recipe) -> None:
        """Wait for every documented token request."""
        wanted = {line: len(exchanges) for line, exchanges in token_requests(recipe).items()}
        await self.recorder.until(lambda: all(len(self.recorder.asked[line]) >= wanted[line] for line in wanted))

    def seen(self, recipe: Recipe, came: Collection[Came]) -> list[Sent]:
        """What came, with all that is secret to the recipe masked."""
        secrets = {given(name) for _, name in recipe.references}
        secrets |= {each for line in token_requests(recipe) for one in self.recorder.issued[line] for each in one}
        masking = Masking({*secrets, given("what get_token.py prints")}, private_key(ME).public_key())
        return [
            masking.sent(each.message, each.host, each.body, shows_certificate=each.shows_certificate) for each in came
        ]

    async def logged(self, event: str, credential: str) -> dict[str, Any]:
        """The first such line of the log."""
        async with asyncio.timeout(SOON):
            while True:
                for line in await self.bearward.logs(event):
                    if line["credential"] == credential:
                        return line
                await asyncio.sleep(0.02)


def started(config: Config, folder: Path, env: dict[str, str]) -> Bearward:
    return Bearward(config, folder, name="recipes", env=env, until="/livez")


def merged(chosen: Collection[Recipe]) -> Config:
    """All in one file, in which no name comes twice."""
    whole: Config = {"credentials": {}, "routes": {}}
    for recipe in chosen:
        for section, content in deepcopy(recipe.config).items():
            before = whole.setdefault(section, {})
            assert section == "token_store" or not before.keys() & content.keys(), f"{recipe.place}: a name is taken"
            before |= content
    return whole


def led_here(config: Config, ca_file: str, ports: dict[str, int]) -> Config:
    """The config with the authority that vouches for all hosts, and the recorder's ports in place of plain hosts."""
    for section in (*config["credentials"].values(), *config["routes"].values()):
        url = urlsplit(section.get("token_url") or section.get("upstream") or "")
        if url.scheme == "https":
            section["tls"] = {"ca_file": ca_file} | section.get("tls", {})
        elif url.scheme == "http":
            section["token_url"] = url._replace(netloc=f"127.0.0.1:{ports[url.netloc]}").geturl()
    return config


def write(chosen: Collection[Recipe], folder: Path) -> dict[str, str]:
    """The files that they name; the variables."""
    (folder / "get_token.py").write_text(f"print({PRINTED!r})\n")
    env = {}
    for kind, name in {pair for recipe in chosen for pair in recipe.references}:
        if kind == "env":
            env[name] = given(name)
        else:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(given(name))
    return env


@asynccontextmanager
async def stage_of(chosen: Collection[Recipe], folder: Path) -> AsyncIterator[Stage]:
    """A started product."""
    authority = Authority(folder)
    requests = [item for recipe in chosen for item in token_requests(recipe).items()]
    assert len(dict(requests)) == len(requests), "two recipes ask the same URL"
    config = merged(chosen)
    sections = [*config["credentials"].values(), *config["routes"].values()]
    urls = [urlsplit(each[field]) for each in sections for field in ("token_url", "upstream") if field in each]
    context = authority.server(*{url.netloc for url in urls}, asks_for_client=ssl.CERT_OPTIONAL)
    context.load_verify_locations(cadata=made_up("certificate.pem"))
    recorder = Recorder({line: served(exchanges) for line, exchanges in requests})
    async with AsyncExitStack() as stack:
        vendor = await stack.enter_async_context(TlsUpstream(context))
        vendor.script = recorder
        egress = await stack.enter_async_context(ConnectProxy(vendor))
        ports = {}
        for host in {url.netloc for url in urls if url.scheme == "http"}:
            plain = await stack.enter_async_context(RawUpstream())
            plain.script = partial(recorder, host=host)
            ports[host] = plain.port
        user = f"{quote(egress.user)}:{quote(egress.password, safe='')}"
        config = led_here(config, authority.file, ports) | {"egress_proxy": f"http://{user}@127.0.0.1:{egress.port}"}
        env = write(chosen, folder)
        bearward = await stack.enter_async_context(started(config, folder, env))
        yield Stage(recorder, config, env, folder, bearward)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One product with the whole page."""
    async with stage_of(RECIPES, tmp_path_factory.mktemp("recipes")) as stage:
        yield stage


@each_recipe
def test_a_recipe_is_whole(recipe: Recipe) -> None:
    """It shows a request to each of its token URLs, and nothing that its config does not lead to."""
    shown = {exchange.sent.url for exchange in recipe.exchanges}
    token_urls = recipe.urls("token_url")
    assert token_urls <= shown
    assert shown <= token_urls | recipe.urls("logout_url") | {call_of(recipe).url}


@in_module
@each_recipe
async def test_a_recipe_does_what_it_shows(stage: Stage, recipe: Recipe) -> None:
    """Its token requests, and a call that arrives with the token of the documented answer."""
    requests = token_requests(recipe)
    failures = {exchange.failure for exchange in recipe.exchanges} - {None}
    _, route = recipe.route
    credential = route["credential"]
    answer = await stage.call(recipe)
    assert answer.status == (503 if failures else 200), answer.body
    await stage.all_asked(recipe)
    for line, exchanges in requests.items():
        came = stage.recorder.asked[line][: len(exchanges) if failures else None]  # what failed is tried again
        assert stage.seen(recipe, came) == [exchange.sent for exchange in exchanges]
    if failures:
        assert {(await stage.logged("token refresh failed", credential["name"]))["reason"]} == failures
        return
    stage.recorder.calls.clear()
    assert (await stage.call(recipe)).status == 200
    (call,) = stage.recorder.calls
    usual = call_of(recipe)
    (shown,) = [exchange.sent for exchange in recipe.exchanges if exchange.sent.line == usual.line] or [usual]
    assert stage.seen(recipe, [call]) == [shown]
    if url := credential.get("token_url"):
        (line,) = [line for line in requests if line.endswith(f" {url.partition('://')[2]}")]
        (value,) = call.message.values(credential.get("inject", {}).get("header", "Authorization"))
        assert any(token in value.decode() for token, *_ in stage.recorder.issued[line])
        refreshed = await stage.logged("token refreshed", credential["name"])
        assert abs(refreshed["lifetime"] - lifetime(requests[line][0])) < 2


async def test_a_session_is_logged_out_at_the_stop(tmp_path: Path) -> None:
    (recipe,) = (recipe for recipe in RECIPES if recipe.urls("logout_url"))
    async with stage_of([recipe], tmp_path) as stage:
        assert (await stage.call(recipe)).status == 200
        await stage.all_asked(recipe)
        stage.recorder.calls.clear()
        assert await stage.bearward.terminate() == 0
        shown = [exchange.sent for exchange in recipe.exchanges if exchange.sent.url in recipe.urls("logout_url")]
        assert stage.seen(recipe, stage.recorder.calls) == shown


async def test_a_store_outlives_a_restart(tmp_path: Path) -> None:
    chosen = [recipe for recipe in RECIPES if "token_store" in recipe.config]
    async with stage_of(chosen, tmp_path) as stage:
        for recipe in chosen:
            assert (await stage.call(recipe)).status == 200
        async with stage.restarted() as again:
            for recipe in chosen:
                assert (await again.call(recipe)).status == 200
        assert {line: len(came) for line, came in stage.recorder.asked.items()} == {
            line: 1 for recipe in chosen for line in token_requests(recipe)
        }
