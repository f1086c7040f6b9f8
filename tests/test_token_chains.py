"""Tokens that are asked for with other credentials' tokens: `{token:NAME}`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from configs import Config
from endpoints import SOON, TOKEN, Answering, Asked, Endpoints, Jwt, Stage, granted, refused, reply, stage_of
from evidence import SECRETS, new_secret
from harness import Bearward
from made_up import ME, made_up, private_key

pytestmark = pytest.mark.asyncio(loop_scope="module")

NO_CLIENT: Config = {"client_auth": "none"}
PLAIN: Config = NO_CLIENT | {"grant_type": "none"}
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
USERS: Config = {"principal": {"header": "X-User-Id"}}
AT_ONCE = 5.0
"""Seconds, on a busy machine; a refusal is tried again after 30."""
UNAUTHORIZED = refused("invalid_token", "401 Unauthorized")
ODD = SECRETS.add("a/b+c=?&%2F..{principal}" + new_secret("token"), "token")
"""A token with characters that URLs and forms write otherwise, and a word that is no placeholder there."""
PEM, KEY = made_up("key.pem").strip(), private_key(ME).public_key()
SECRETS.add(PEM.splitlines()[4], "private key")
SERVICE_ACCOUNT, PRINTED, SECRET = (new_secret(kind) for kind in ("token", "token", "client secret"))
CLOUD = "https://www.googleapis.com/auth/cloud-platform"

PLACES: dict[str, tuple[Config, Callable[[Asked], object], object]] = {
    "params": (
        PLAIN | {"params": {"a": ["x {token:odd}", "y"]}},
        lambda asked: asked.pairs,
        [("a", f"x {ODD}"), ("a", "y")],
    ),
    "query": (PLAIN | {"send": "query", "params": {"a": "{token:odd}"}}, lambda asked: asked.query, [("a", ODD)]),
    "json": (
        PLAIN | {"send": "json", "params": {"a": {"b": ["{token:odd}"]}}},
        lambda asked: asked.json,
        {"a": {"b": [ODD]}},
    ),
    "headers": (
        PLAIN | {"headers": {"Authorization": "Bearer {token:odd}"}},
        lambda asked: asked.headers["authorization"],
        f"Bearer {ODD}",
    ),
    "body": (
        NO_CLIENT | {"body": "<token>{token:odd}</token>", "headers": {"Content-Type": "text/xml"}},
        lambda asked: asked.body.decode(),
        f"<token>{ODD.replace('&', '&amp;')}</token>",
    ),
    "subject_token": (
        NO_CLIENT | {"grant_type": TOKEN_EXCHANGE, "subject_token": "{token:odd}"},
        lambda asked: asked.form["subject_token"],
        ODD,
    ),
    "assertion-claims": (
        NO_CLIENT
        | {
            "grant_type": JWT_BEARER,
            "assertion": {"key": PEM, "audience": "b", "claims": {"c": [{"d": "{token:odd}"}]}},
        },
        lambda asked: asked.form["assertion"],
        Jwt(KEY, {"alg": "RS256"}, {"aud": "b", "c": [{"d": ODD}]}),
    ),
    "assertion-text": (
        NO_CLIENT | {"grant_type": JWT_BEARER, "assertion": "{token:odd}"},
        lambda asked: asked.form["assertion"],
        ODD,
    ),
    "token_url": (
        PLAIN | {"token_url": "/token_url/{token:odd}/token"},
        lambda asked: asked.line,
        f"POST /token_url/{quote(ODD, safe='')}/token",
    ),
}
"""Where a token may stand, and what of the request shows it."""

VENDORS: dict[str, Config] = {
    "kubernetes": {"source": "file", "path": "service-account"},
    "gcp-sts": NO_CLIENT | {"grant_type": TOKEN_EXCHANGE, "subject_token": "{token:kubernetes}", "scope": CLOUD},
    "gcp-iam": PLAIN
    | {
        "send": "json",
        "headers": {"Authorization": "Bearer {token:gcp-sts}"},
        "params": {"scope": [CLOUD], "lifetime": "3600s"},
        "response": {"token": "accessToken", "expires": {"field": "expireTime", "as": "iso8601"}},
    },
    "app-jwt": {"source": "jwt", "assertion": {"issuer": "12345", "lifetime": "9m", "key": PEM}},
    "github-installation": PLAIN | {"send": "json", "headers": {"Authorization": "Bearer {token:app-jwt}"}},
    "salesforce": NO_CLIENT | {"inject": {"format": "OAuth {token}"}},
    "salesforce-cdp": PLAIN | {"params": {"subject_token": "{token:salesforce}"}},
    "printed": {"source": "exec", "command": ["echo", f'{{"access_token": "{PRINTED}"}}']},
    "after-a-program": PLAIN | {"params": {"a": "{token:printed}"}},
    "signed-with-one": {"source": "jwt", "assertion": {"key": PEM, "claims": {"a": "{token:printed}"}}},
    "relative": PLAIN | {"token_url": "/relative/token"},
    "after-a-relative-one": PLAIN | {"token_url": "/after-a-relative-one/token", "params": {"a": "{token:relative}"}},
}


def of(name: str, **more: Any) -> Config:
    """A credential that asks with the token of another."""
    return PLAIN | {"params": {"a": f"{{token:{name}}}"}} | more


def in_turn(*answers: bytes) -> Callable[[Asked], bytes]:
    """Each request has the next answer, the last one for ever."""
    rest = list(answers)
    return lambda _asked: rest.pop(0) if len(rest) > 1 else rest[0]


LATE: Config = {"refresh": {"lead": "1s"}}
SHORT = granted(expires_in=15)
"""With `LATE` it is refreshed after 11 s, when a token of the same age may be to blame for a 401."""

STORIES: dict[str, tuple[Answering, Config]] = {
    "user": (granted(), PLAIN | USERS | {"params": {"user": "{principal}"}}),
    "user-after-user": (granted(), of("user") | USERS),
    "shared": (granted(), PLAIN),
    "user-after-shared": (granted(), PLAIN | USERS | {"params": {"a": "{token:shared}", "user": "{principal}"}}),
    "brief": (granted(expires_in=2), PLAIN),
    "after-brief": (granted(expires_in=3), of("brief")),
    "young": (granted(), PLAIN),
    "after-young": (UNAUTHORIZED, of("young")),
    "old": (granted(), PLAIN),
    "after-old": (in_turn(SHORT, UNAUTHORIZED, granted()), of("old", **LATE)),
    "one": (granted(), PLAIN),
    "two": (granted(), of("one")),
    "three": (in_turn(SHORT, UNAUTHORIZED, granted()), of("two", **LATE)),
    "old-in-vain": (granted(), PLAIN),
    "after-old-in-vain": (in_turn(SHORT, UNAUTHORIZED), of("old-in-vain", **LATE)),
    "same": (reply({"access_token": new_secret("token")}), PLAIN | {"ttl": "1h"}),
    "after-same": (in_turn(SHORT, UNAUTHORIZED), of("same", **LATE)),
}


def locked(asked: Asked) -> bytes:
    """Knows one secret."""
    return granted() if asked.form["client_secret"] == SECRET else refused("invalid_client", "401 Unauthorized")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    def credentials(endpoints: Endpoints) -> dict[str, Config]:
        url = {"token_url": f"{endpoints.url}/token_url/{{token:odd}}/token"}
        own = {name: credential | (url if name == "token_url" else {}) for name, (credential, _, _) in PLACES.items()}
        return {"odd": PLAIN, "locked": by_file, "after-locked": of("locked")} | own | VENDORS | stories

    by_file = {
        "grant_type": "none",
        "client_auth": "client_secret_post",
        "client_id": "me",
        "client_secret": {"file": "s"},
    }
    stories = {name: credential for name, (_, credential) in STORIES.items()}
    answers: dict[str, Answering] = {name: answer for name, (answer, _) in STORIES.items()}
    answers |= {
        "odd": reply({"access_token": ODD, "expires_in": 3600}),
        "locked": locked,
        "gcp-iam": reply({"accessToken": TOKEN, "expireTime": "2999-01-01T00:00:00.123456789Z"}),
    }
    files = {"service-account": f"{SERVICE_ACCOUNT}\n", "s": "wrong-client-secret"}
    folder = tmp_path_factory.mktemp("chains")
    async with stage_of(credentials, folder, answers=answers, files=files, name="chains") as stage:
        yield stage


@pytest.mark.parametrize("name", PLACES)
async def test_a_token_stands_wherever_it_is_named(stage: Stage, name: str) -> None:
    _, part, expected = PLACES[name]
    await stage.serves(name)
    (asked,) = stage.endpoints.asked[name]
    assert part(asked) == expected
    assert len(stage.endpoints.asked["odd"]) == 1


async def test_gcp_workload_identity(stage: Stage) -> None:
    """A file, Google's STS, and the service account that is impersonated."""
    endpoints = stage.endpoints
    assert await stage.serves("gcp-iam") == f"Bearer {endpoints.tokens['gcp-iam'][0]}"
    (sts,), (iam,) = endpoints.asked["gcp-sts"], endpoints.asked["gcp-iam"]
    assert sts.form["subject_token"] == SERVICE_ACCOUNT
    assert iam.headers["authorization"] == f"Bearer {endpoints.tokens['gcp-sts'][0]}"
    assert iam.json == {"scope": [CLOUD], "lifetime": "3600s"}


async def test_github_app_by_its_own_jwt(stage: Stage) -> None:
    await stage.serves("github-installation")
    (asked,) = stage.endpoints.asked["github-installation"]
    assert asked.headers["authorization"] == Jwt(KEY, {"alg": "RS256"}, {"iss": "12345"}, 540, prefix="Bearer ")


async def test_salesforce_data_cloud(stage: Stage) -> None:
    """What is injected around the first token does not go into the second's request."""
    await stage.serves("salesforce-cdp")
    (asked,) = stage.endpoints.asked["salesforce-cdp"]
    assert asked.form == {"subject_token": stage.endpoints.tokens["salesforce"][0]}
    assert await stage.serves("salesforce") == f"OAuth {stage.endpoints.tokens['salesforce'][0]}"


async def test_a_token_of_any_source(stage: Stage) -> None:
    await stage.serves("after-a-program")
    (asked,) = stage.endpoints.asked["after-a-program"]
    assert asked.form == {"a": PRINTED}
    assert await stage.serves("signed-with-one") == Jwt(KEY, {"alg": "RS256"}, {"a": PRINTED}, prefix="Bearer ")
    await stage.serves("after-a-relative-one")
    (asked,) = stage.endpoints.asked["after-a-relative-one"]
    assert asked.form == {"a": stage.endpoints.tokens["relative"][0]}


async def test_each_user_has_a_chain(stage: Stage) -> None:
    endpoints, users = stage.endpoints, [f"user {number}" for number in range(3)]
    await asyncio.gather(*(stage.serves("user-after-user", X_User_Id=user) for user in users for _ in range(5)))
    asked_for = {
        asked.form["user"]: token
        for asked, token in zip(endpoints.asked["user"], endpoints.tokens["user"], strict=True)
    }
    assert sorted(asked_for) == users
    assert sorted(asked.form["a"] for asked in endpoints.asked["user-after-user"]) == sorted(asked_for.values())


async def test_users_share_what_has_none(stage: Stage) -> None:
    endpoints, users = stage.endpoints, ["ann", "bob"]
    await asyncio.gather(*(stage.serves("user-after-shared", X_User_Id=user) for user in users))
    (token,) = endpoints.tokens["shared"]
    asked = sorted(each.form["user"] for each in endpoints.asked["user-after-shared"] if each.form["a"] == token)
    assert asked == users


async def test_where_the_first_is_refused_the_second_is_not_asked_for_and_heals_with_it(stage: Stage) -> None:
    endpoints = stage.endpoints
    line = await stage.failed("after-locked")
    assert (line["reason"], line["for_good"]) == ("chained_token", True)
    assert "'locked'" in line["detail"]
    assert (len(endpoints.asked["locked"]), endpoints.asked["after-locked"]) == (1, [])
    assert (await stage.call("after-locked")).summary == (503, "credential_rejected")
    (stage.bearward.folder / "s").write_text(SECRET)
    await stage.refreshed("after-locked")
    await stage.serves("after-locked")
    changed = [line["credential"] for line in await stage.bearward.logs("secret changed")]
    assert changed == ["locked"]
    assert [asked.form for asked in endpoints.asked["after-locked"]] == [{"a": endpoints.tokens["locked"][0]}]


async def test_a_young_token_is_not_to_blame(stage: Stage) -> None:
    """The 401 is a refusal like others."""
    line = await stage.failed("after-young")
    assert (line["reason"], line["for_good"]) == ("refused", True)
    assert [len(stage.endpoints.asked[name]) for name in ("young", "after-young")] == [1, 1]


async def test_a_reload_renews_what_is_behind_a_change(tmp_path: Path) -> None:
    """And nothing else; a credential in the middle needs no route."""
    names = "changed", "after", "kept", "after-kept"
    async with Endpoints() as endpoints:

        def config(changed: Config) -> Config:
            of_each = changed, of("changed"), PLAIN, of("kept")
            whole = endpoints.config(dict(zip(names, of_each, strict=True)))
            del whole["routes"]["/changed"], whole["routes"]["/kept"]
            return whole

        async with Bearward(config(PLAIN), tmp_path) as bearward:
            stage = Stage(endpoints, bearward)
            await bearward.reload(config(PLAIN))
            assert [len(endpoints.asked[name]) for name in names] == [1] * 4
            await bearward.reload(config(PLAIN | {"params": {"b": "c"}}))
            assert await stage.serves("after") == f"Bearer {endpoints.tokens['after'][1]}"
            assert endpoints.asked["after"][1].form == {"a": endpoints.tokens["changed"][1]}
            await stage.serves("after-kept")
            assert [len(endpoints.asked[name]) for name in names] == [2, 2, 1, 1]


async def test_a_token_in_the_middle_makes_nothing_ready(tmp_path: Path) -> None:
    """No route can be served with it."""
    async with Endpoints() as endpoints:
        endpoints.answers["outer"] = UNAUTHORIZED
        config = endpoints.config({"inner": PLAIN, "outer": of("inner")})
        del config["routes"]["/inner"]
        async with Bearward(config, tmp_path) as bearward:
            assert not await bearward.is_ready()


# ── what takes long, and goes on since the first test ────────────────────────────────────────────────────────────────


async def grown_old(stage: Stage, name: str, count: int) -> list[Asked]:
    """The first `count` requests, once there are so many."""
    await stage.endpoints.until(lambda: len(stage.endpoints.asked[name]) >= count, timeout=SOON + 15)
    return stage.endpoints.asked[name][:count]


async def test_a_401_brings_a_new_token_and_one_more_try(stage: Stage) -> None:
    first, second = await carried(stage, "old", "after-old")
    assert first != second
    assert len(stage.endpoints.asked["old"]) == 2


async def carried(stage: Stage, inner: str, outer: str) -> tuple[str, str]:
    """The token with which `outer` was asked for and refused, and the one at once after that."""
    regular, refusal, retry = await grown_old(stage, outer, 3)
    assert regular.form == refusal.form
    assert retry.at - refusal.at < AT_ONCE
    assert [refusal.form["a"], retry.form["a"]] == stage.endpoints.tokens[inner][:2]
    async with asyncio.timeout(SOON):
        while await stage.serves(outer) != f"Bearer {stage.endpoints.tokens[outer][1]}":
            await asyncio.sleep(0.02)
    return refusal.form["a"], retry.form["a"]


async def test_of_three_in_a_row_the_one_that_was_refused_is_renewed(stage: Stage) -> None:
    await carried(stage, "two", "three")
    (token,) = stage.endpoints.tokens["one"]
    assert [asked.form["a"] for asked in stage.endpoints.asked["two"]] == [token] * 2


@pytest.mark.parametrize(("inner", "tries"), [("old-in-vain", 2), ("same", 1)], ids=["refused again", "same token"])
async def test_a_401_is_not_answered_for_ever(stage: Stage, inner: str, tries: int) -> None:
    """There is one renewal, and a second try where that brought another token; the old token serves on."""
    outer = f"after-{inner}"
    line = await stage.failed(outer)
    assert (line["reason"], line["for_good"]) == ("refused", True)
    assert line["token_left"] > 0
    assert len(stage.endpoints.asked[inner]) == 2
    assert len(stage.endpoints.asked[outer]) == 1 + tries


async def test_no_request_is_made_with_a_token_that_is_over(stage: Stage) -> None:
    asked = await grown_old(stage, "after-brief", 4)
    issued = dict(zip(stage.endpoints.tokens["brief"], stage.endpoints.asked["brief"], strict=True))
    assert all(each.at - issued[each.form["a"]].at < 2 for each in asked)
