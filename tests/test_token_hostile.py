"""What comes from outside and is not as it should be: it harms nobody but the one whose it is, and starts nothing."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jwt
import pytest
import pytest_asyncio

from configs import Config
from endpoints import SOON, TOKEN, Asked, Endpoints, Stage, granted, refused, reply, stage_of
from evidence import new_secret
from harness import Bearward
from ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENT: Config = {"client_id": "me", "client_secret": new_secret("client secret")}
USERS: Config = {"principal": {"header": "X-User-Id"}, "params": {"user": "{principal}"}}
SHORT = 4
"""Seconds for which a token lives that is to be refreshed."""
AT_ONCE = 1.0
WIDTH = 10
"""How many token requests there are at a time at one identity provider."""
LONG_BLANK = "1" + " " * 60_000 + "x"
"""60 kB that a careless regular expression reads for a quarter of a minute."""
LONG_AGO = "Date: Thu, 01 Jan 1970 00:00:10 GMT"


def in_body(body: str, content_type: str) -> Config:
    """The principal's name is in the body."""
    return {
        "client_auth": "none",
        "principal": {"header": "X-User-Id"},
        "headers": {"Content-Type": content_type},
        "body": body,
    }


CREDENTIALS: dict[str, Config] = {
    "good": CLIENT,
    "surrogate": CLIENT | {"client_secret": {"file": "key.json", "field": "s"}},
    "odd-refresh-token": CLIENT,
    "blank": CLIENT | USERS | {"response": {"expires": {"field": "life", "as": "duration"}}},
    "dated": CLIENT | {"client_auth": "client_secret_jwt"},
    "json": in_body('{"user": "{principal}", "role": "reader"}', "application/json"),
    "xml": in_body("<login><user>{principal}</user><role>reader</role></login>", "text/xml"),
    "form": in_body("user={principal}&role=reader", "application/x-www-form-urlencoded"),
}


class Dated:
    """First an outage whose `Date` is absurd; then no Date, and a refusal of what is not of now."""

    def __init__(self) -> None:
        self.ages: list[float] = []
        """Of each assertion, in seconds."""

    def __call__(self, asked: Asked) -> bytes:
        claims = jwt.decode(asked.form["client_assertion"], options={"verify_signature": False})
        self.ages.append(time.time() - claims["iat"])
        if len(self.ages) == 1:
            return reply("", LONG_AGO, status="503 Service Unavailable")
        return granted() if abs(self.ages[-1]) < 60 else refused("invalid_client", "401 Unauthorized")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dated() -> Dated:
    return Dated()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory, dated: Dated) -> AsyncIterator[Stage]:
    odd = rb'{"access_token": "TOKEN", "expires_in": %d, "refresh_token": "R\ud800"}' % SHORT
    answers: dict[str, Any] = {
        "good": granted(expires_in=SHORT),
        "odd-refresh-token": reply(odd, "Content-Type: application/json"),
        "blank": reply({"access_token": TOKEN, "life": LONG_BLANK}),
        "dated": dated,
    }
    closed = f"http://127.0.0.1:{free_port()}/token"
    credentials = CREDENTIALS | {"surrogate": CREDENTIALS["surrogate"] | {"token_url": closed}}
    folder = tmp_path_factory.mktemp("hostile")
    files = {"key.json": json.dumps({"s": "fine"})}
    async with stage_of(credentials, folder, answers=answers, files=files, name="hostile") as stage:
        yield stage


async def reason_of(stage: Stage, name: str, reason: str) -> None:
    """Wait until the log has a failure of this reason."""
    async with asyncio.timeout(SOON):
        while True:
            for line in await stage.bearward.logs("token refresh failed"):
                if (line["credential"], line["reason"]) == (name, reason):
                    return
            await asyncio.sleep(0.05)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_long_blank_duration_stops_nobody(stage: Stage) -> None:
    call = asyncio.create_task(stage.call("blank", X_User_Id="ann"))
    await stage.endpoints.until(lambda: stage.endpoints.asked["blank"])
    looks = 0
    while not call.done() or looks < 3:
        async with asyncio.timeout(AT_ONCE):
            assert (await stage.bearward.admin("/livez")).status == 200
        looks += 1
    assert (await call).summary == (200, None)


async def test_a_date_of_long_ago_is_forgotten(stage: Stage, dated: Dated) -> None:
    """With the next answer that has none, at the latest."""
    await stage.serves("dated")
    assert len(dated.ages) == 2
    assert all(abs(age) < 60 for age in dated.ages)


async def test_a_refresh_token_that_is_no_ascii_counts_as_absent(stage: Stage) -> None:
    asked = stage.endpoints.asked["odd-refresh-token"]
    await stage.endpoints.until(lambda: len(asked) >= 3)
    assert {each.form["grant_type"] for each in asked} == {"client_credentials"}
    tokens = stage.endpoints.tokens["odd-refresh-token"]
    assert await stage.serves("odd-refresh-token") in {f"Bearer {token}" for token in tokens[-2:]}
    assert b"internal error" not in stage.bearward.output()


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_key_file_with_a_lone_surrogate_fails_its_credential_alone(stage: Stage) -> None:
    await reason_of(stage, "surrogate", "network")
    (stage.bearward.folder / "key.json").write_text(r'{"s": "\ud800"}')
    call = asyncio.create_task(stage.call("surrogate"))  # someone waits: it is tried again soon
    good = stage.endpoints.asked["good"]
    before = len(good)
    await reason_of(stage, "surrogate", "secret_unreadable")
    await stage.endpoints.until(lambda: len(good) >= before + 3)
    await stage.serves("good")
    call.cancel()
    assert b"internal error" not in stage.bearward.output()


# ── names of principals ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_name_stays_a_text_in_json(stage: Stage) -> None:
    name = 'bob", "role": "admin", "x": "\\'
    await stage.serves("json", X_User_Id=name)
    (asked,) = stage.endpoints.asked["json"]
    assert json.loads(asked.body, object_pairs_hook=list) == [("user", name), ("role", "reader")]


async def test_a_name_stays_a_text_in_xml(stage: Stage) -> None:
    name = "bob</user><role>admin</role><user>&amp;"
    await stage.serves("xml", X_User_Id=name)
    (asked,) = stage.endpoints.asked["xml"]
    login = ElementTree.fromstring(asked.body)
    assert [(each.tag, each.text) for each in login] == [("user", name), ("role", "reader")]


async def test_a_name_stays_a_text_in_a_form(stage: Stage) -> None:
    name = "bob&role=admin+%26"
    await stage.serves("form", X_User_Id=name)
    (asked,) = stage.endpoints.asked["form"]
    assert asked.pairs == [("user", name), ("role", "reader")]


# ── crowds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_who_has_left_keeps_nobody_waiting(tmp_path: Path) -> None:
    """At an identity provider that is slow with one credential, and would be quick with another."""
    async with Endpoints() as endpoints:
        places = asyncio.Semaphore(0)

        async def slow(_asked: Asked) -> bytes:
            await places.acquire()
            return granted()

        endpoints.answers["slow"] = slow
        both = dict.fromkeys(("slow", "quick"), CLIENT | USERS)
        async with Bearward(endpoints.config(both), tmp_path, name="left") as bearward:
            stage = Stage(endpoints, bearward)

            async def waiters(credential: str, count: int) -> None:
                async with asyncio.timeout(SOON):
                    while (await bearward.metrics()).total("token_waiters", credential=credential) != count:
                        await asyncio.sleep(0.02)

            crowd = [asyncio.create_task(stage.call("slow", X_User_Id=f"user {number}")) for number in range(50)]
            await waiters("slow", len(crowd))
            await endpoints.until(lambda: len(endpoints.asked["slow"]) == WIDTH)
            for call in crowd:
                call.cancel()
            await waiters("slow", 0)
            live = asyncio.create_task(stage.serves("quick", X_User_Id="live"))
            await waiters("quick", 1)
            assert not endpoints.asked["quick"]
            places.release()
            await live
            assert len(endpoints.asked["slow"]) <= WIDTH + 1, "at most the one in the place of the one after it"
            for _ in crowd:
                places.release()


# ── what stands in the store ─────────────────────────────────────────────────────────────────────────────────────────

TAMPERED: dict[str, dict[str, object]] = {
    "crlf": {"token": "x\r\nX-Injected: yes\r\nY: "},
    "surrogate": {"token": "a\ud800"},
    "refresh-token-crlf": {"refresh_token": "r\r\nX-Injected: yes", "asked_at": 0},
    "refresh-token-surrogate": {"refresh_token": "r\ud800", "asked_at": 0},
    "refresh-token-no-text": {"refresh_token": {"a": 1}, "digest": ["x"]},
    "long-lifetime": {"lifetime": 1e308},
    "endless-lifetime": {"lifetime": 10**400, "asked_at": 10**400},
    "long-ago": {"asked_at": -1e308, "lifetime": 1.7e308},
    "negative": {"refresh_in": -5.0, "refreshable_until": -1e308},
    "orphans": {"orphans": [["r", 1e308], ["s", -1e308], [1, 2], ["t", True], ["u\r\n", 1e10], ["\ud800", 10**400]]},
}
COUNTED: list[dict[str, object]] = [
    {"until": [10**400, -(10**400), "1e999"]},
    {"until": [math.nan, math.inf, True, -1e308, 1e308]},
    {"until": {"a": 1}},
    {"refused": {"name": [10**400, 10**400], "other": [1, 1e308], "third": "x", "\ud800": [1, math.nan]}},
    {"refused": {"name": [1, 10**400]}},
]
"""What is counted of requests and refused passwords."""


def tampered(document: Any, tokens: dict[str, str]) -> Any:
    """The store's document with other things in the entries of these tokens."""
    damage: Iterator[dict[str, object]] = iter(COUNTED)
    for kept in document["entries"].values():
        if "until" in kept["entry"]:
            kept["entry"] |= next(damage, {})
        else:
            kept["entry"] |= TAMPERED[tokens[kept["entry"]["token"]]]
    assert next(damage, None) is None, "none is left"
    return document


async def test_tampered_entries_of_a_store_are_not_used(tmp_path: Path) -> None:
    async with Endpoints() as endpoints:
        endpoints.answers |= dict.fromkeys(TAMPERED, granted(refresh_token=new_secret("refresh token")))
        own = CLIENT | {"max_token_requests": "50/1h", "logout_url": f"{endpoints.url}/logout/x"}
        config = endpoints.config(dict.fromkeys(TAMPERED, own), token_store={"path": "tokens"})
        async with Bearward(config, tmp_path, name="tampered"):
            pass
        names = {token: name for name, (token,) in endpoints.tokens.items()}
        document = json.loads((tmp_path / "tokens").read_bytes())
        (tmp_path / "tokens").write_text(json.dumps(tampered(document, names)))
        async with Bearward(config, tmp_path, name="tampered", until="/livez") as bearward:
            stage = Stage(endpoints, bearward)
            served = dict(zip(TAMPERED, await asyncio.gather(*map(stage.serves, TAMPERED)), strict=True))
            for name, header in served.items():
                assert header.removeprefix("Bearer ") in endpoints.tokens[name], name
            assert (await bearward.admin("/readyz?verbose")).status == 200
            assert b"internal error" not in bearward.output()
            json.loads((await bearward.admin("/api/status")).body, parse_constant=pytest.fail)
    asked_anew = {name for name in TAMPERED if len(endpoints.tokens[name]) > 1}
    assert asked_anew >= TAMPERED.keys() - {"long-lifetime", "negative", "orphans"}, "a true token may live on"
    sent = [each.form.get("refresh_token", "") for name in TAMPERED for each in endpoints.asked[name][1:]]
    assert all(token.isascii() and token.isprintable() for token in sent)
    for call in (call for calls in endpoints.calls.values() for call in calls):
        assert "x-injected" not in call.headers
