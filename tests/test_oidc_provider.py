"""bearward as a client of a certified authorization server, `oidc-provider`: what it sends is judged by others."""

from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote_plus

import pytest
import pytest_asyncio

from harness import Bearward
from oidc.cases import SESSION_LIMIT, SHORT
from oidc.server import ISSUER, SKEWS, Asked, Record, why_missing
from oidc.stage import LOAD_SECONDS, LOADED, Stage, stage_in

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(why_missing() is not None, reason=why_missing() or ""),
]

REFUSALS = {
    "raw": (400, "invalid_request", "URI malformed"),
    "unicode": (400, "invalid_request", "invalid character found"),
    "key-nobody": (401, "invalid_client", "signature verification failed"),
    "key-other-id": (401, "invalid_client", "no applicable key found in the JSON Web Key Set"),
    "fapi-url": (401, "invalid_client", "the audience is not the issuer"),
    "tls-nobody": (401, "invalid_client", "client certificate was not provided"),
    "tls-other": (401, "invalid_client", "certificate subject value does not match the registered one"),
    "bearer-nobody": (400, "invalid_grant", "signature verification failed"),
}
"""Status and error of the answer, and the server's own words for what was wrong."""
LOST = {
    "key-lost": ([200, 503, 200], "client assertion tokens must only be used once"),
    "bearer-lost": ([200, 200], "used before"),
}
"""What the attempts were answered, heard or not, and what would be said to an assertion that comes twice."""
AT_ONCE, NOT_SOON = 1.0, 30.0
"""Seconds: what waits for no back-off, and the least that follows a refusal."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with stage_in(tmp_path_factory.mktemp("oidc")) as stage:
        yield stage


# ── who asks ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name",
    [
        *("basic", "post", "secret-hs256", "secret-hs384", "secret-hs512", "fapi-issuer"),
        *("key-rs256", "key-ps256", "key-es256", "key-eddsa", "key-certified", "tls-authority", "tls-self-signed"),
    ],
)
async def test_a_client_is_known(stage: Stage, name: str) -> None:
    """At its first request; and the API takes the token."""
    answer = await stage.call(name)
    assert answer.summary == (200, None)
    own = stage.cast.cases[name].credential["client_id"]
    assert answer.json() == {"client": own, "bound": name == "tls-self-signed"}
    assert [asked.status for asked in await stage.asked(name)] == [200]


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_client_is_refused(stage: Stage, name: str) -> None:
    """What the server has said stands in the log; it is not asked again soon."""
    assert (await stage.call(name)).summary == (503, "credential_rejected")
    line, *_ = (line for line in await stage.bearward.logs("token refresh failed") if line["credential"] == name)
    status, error, why = REFUSALS[name]
    assert (line["reason"], line["detail"], line["for_good"]) == ("refused", f"status {status}, {error}", True)
    first, *later = await stage.asked(name)
    assert (first.status, first.why) == (status, why)
    assert all(asked.at - first.at >= NOT_SOON for asked in later)


@pytest.mark.parametrize("name", ["basic", "unicode", "raw"])
async def test_basic_authentication(stage: Stage, name: str) -> None:
    """RFC 6749 §2.3.1, UTF-8 within; or RFC 7617."""
    asked, *_ = await stage.asked(name)
    own = stage.cast.cases[name].credential
    pair = [own["client_id"], own["client_secret"]]
    expected = ":".join(pair if name == "raw" else map(quote_plus, pair))
    assert asked.authorization == f"Basic {b64encode(expected.encode()).decode()}"
    assert set(asked.form) == {"grant_type"}


async def test_a_client_says_who_it_is_in_one_way(stage: Stage) -> None:
    ways = {
        "client_secret_basic": {"Authorization"},
        "client_secret_post": {"client_id", "client_secret"},
        "client_secret_jwt": {"client_assertion", "client_assertion_type"},
        "private_key_jwt": {"client_assertion", "client_assertion_type"},
        "none": {"client_id"},
    }
    every = {way for names in ways.values() for way in names}
    record = await stage.server.record()
    seen = Counter[str]()
    for name, case in stage.cast.cases.items():
        way = case.credential.get("client_auth", "client_secret_basic")
        for asked in record.asked(name):
            sent = {*asked.form, *(["Authorization"] if asked.authorization else [])}
            assert sent & every == ways[way], name
            seen[way] += 1
    assert set(seen) == set(ways)


@pytest.mark.parametrize(
    ("name", "algorithm", "key_id"),
    [
        ("secret-hs256", "HS256", None),
        ("secret-hs384", "HS384", None),
        ("secret-hs512", "HS512", None),
        ("key-rs256", "RS256", "rsa"),
        ("key-ps256", "PS256", "rsa"),
        ("key-es256", "ES256", "ec"),
        ("key-eddsa", "EdDSA", "ed"),
        ("fapi-issuer", "ES256", "ec"),
    ],
)
async def test_what_an_assertion_says(stage: Stage, name: str, algorithm: str, key_id: str | None) -> None:
    (asked,) = await stage.asked(name)
    kid = {} if key_id is None else {"kid": key_id}
    assert asked.header == {"alg": algorithm, "typ": "JWT", **kid}
    claims = asked.claims
    assert set(claims) == {"iss", "sub", "aud", "iat", "exp", "jti"}
    assert claims["iss"] == claims["sub"] == name
    assert claims["aud"] == (ISSUER if name == "fapi-issuer" else f"{stage.server.url()}/token")
    assert claims["exp"] - claims["iat"] == 60
    assert asked.at - 15 < claims["iat"] < asked.at - 5


async def test_a_certificate_is_named_beside_its_key(stage: Stage) -> None:
    """The server has compared it with the registered one, and refuses an assertion without it."""
    (asked,) = await stage.asked("key-certified")
    assert set(asked.header) == {"alg", "typ", "kid", "x5t#S256"}


@pytest.mark.parametrize("name", LOST)
async def test_an_assertion_is_sent_once(stage: Stage, name: str) -> None:
    """Another attempt has another one: the first was heard, though its answer was lost, and the server keeps count."""
    assert (await stage.call(name)).summary == (200, None)
    asked, (statuses, why) = await stage.asked(name), LOST[name]
    assert [each.status for each in asked] == statuses
    assert len({each.claims["jti"] for each in asked}) == len(asked)
    for each in asked:
        status, _ = await stage.server.post("/token", **each.form)
        # What the server was too busy to look at is good to this day.
        assert (status == 200) == (each.status == 503)
        assert (await stage.asked(""))[-1].why == (why if each.status == 200 else None)


# ── what for ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_jwt_bearer_grant(stage: Stage) -> None:
    holder = {"client": "bearer", "account": "robot", "scope": "reports", "gty": "jwt-bearer", "bound": False}
    assert (await stage.call("bearer")).json() == holder
    (asked,) = await stage.asked("bearer")
    assert set(asked.form) == {"grant_type", "client_id", "assertion"}
    assert asked.header == {"alg": "RS256", "typ": "JWT", "kid": "rsa"}
    assert asked.claims["aud"] == f"{stage.server.url()}/token"


async def test_token_exchange(stage: Stage) -> None:
    """For the live token of another credential, and for a JWT signed here."""
    basic = stage.cast.cases["basic"].credential["client_id"]
    exchanged = {"client": "exchange", "gty": "token-exchange", "bound": False}
    assert (await stage.call("exchange")).json() == exchanged | {"account": basic, "scope": "reports"}
    assert (await stage.call("exchange-jwt")).json() == exchanged | {"account": "robot"}
    *_, asked = await stage.asked("exchange")
    assert asked.form["audience"] == ["one", "two"]
    (asked,) = await stage.asked("exchange-jwt")
    assert asked.header["alg"] == "EdDSA"


async def test_a_jwt_of_its_own(stage: Stage) -> None:
    """The API has verified it."""
    assert (await stage.call("own-jwt")).json() == {"account": "robot"}


# ── clocks ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("listener", SKEWS)
async def test_a_server_whose_clock_is_off(stage: Stage, listener: str) -> None:
    """Its refusal tells the time: what is signed by that is accepted at once, and from then on."""
    names = [f"{listener}-key", f"{listener}-bearer"]
    record = await stage.server.until(lambda seen: all(len(seen.asked(name)) >= 4 for name in names))
    refused = []
    for name in names:
        first, second, *later = record.asked(name)
        assert [asked.status for asked in (second, *later)] == [200] * (1 + len(later)), name
        if first.status != 200:
            refused.append(first)
            assert second.at - first.at < AT_ONCE
            assert second.claims["jti"] != first.claims["jti"]
            assert abs(second.claims["iat"] - first.claims["iat"] - SKEWS[listener]) <= 2
        assert (await stage.call(name)).summary == (200, None)
        skew = (await stage.bearward.metrics()).total("idp_clock_skew_seconds", credential=name)
        assert abs(skew - SKEWS[listener]) <= 2
    assert refused, "the server takes what is out of its time"


async def test_a_clock_that_is_off_excuses_nothing_twice(stage: Stage) -> None:
    """A client that is refused by any clock asks once more, where the clock was news."""
    assert (await stage.call("ahead-nobody")).summary == (503, "credential_rejected")
    asked = await stage.asked("ahead-nobody")
    assert {each.status for each in asked} == {401}
    assert len([each for each in asked if each.at - asked[0].at < NOT_SOON - AT_ONCE]) <= 2


async def test_a_clock_that_jumps(stage: Stage) -> None:
    """A refresh that is refused for its assertion's time does not cost the session."""
    await stage.server.until(lambda seen: len(seen.asked("jump-user")) >= 2)
    await stage.server.set_clock("jump", 300)

    def is_over(seen: Record) -> bool:
        statuses = [asked.status for asked in seen.asked("jump-user")]
        return 401 in statuses and statuses[-1] == 200

    record = await stage.server.until(is_over)
    first, *later = record.asked("jump-user")
    assert first.form["grant_type"] == "password"
    assert {each.form["grant_type"] for each in later} == {"refresh_token"}
    (at,) = [index for index, each in enumerate(later) if each.status == 401]
    refused, accepted = later[at : at + 2]
    assert accepted.at - refused.at < AT_ONCE
    assert accepted.form["refresh_token"] == refused.form["refresh_token"]
    assert record.live("nomad") == 1
    assert (await stage.call("jump-user")).json()["account"] == "nomad"


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_that_someone_else_has_ended(stage: Stage) -> None:
    """A refresh token is used a second time, by another: the whole session is revoked, and bearward signs in anew."""
    record = await stage.server.until(lambda seen: len(seen.sessions("victim")[0]["refresh_tokens"]) >= 3)
    (session,) = record.sessions("victim")
    spent = session["refresh_tokens"][0]
    used = await stage.server.post("/token", grant_type="refresh_token", client_id="victim", refresh_token=spent)
    assert (used[0], used[1]["error"]) == (400, "invalid_grant")
    assert session["id"] in (await stage.server.record()).revoked

    def lives_on(seen: Record) -> bool:
        return len(seen.sessions("victim")) == 2 and len(seen.sessions("victim")[1]["refresh_tokens"]) >= 2

    record = await stage.server.until(lives_on)
    assert (await stage.call("victim")).json()["account"] == "victim"
    assert record.live("victim") == 1
    _assert_each_refresh_token_is_used_once(record.asked("victim"))
    (refused,) = [asked for asked in record.asked("victim") if asked.status != 200]
    assert (refused.form["grant_type"], refused.why) == ("refresh_token", "refresh token not found")


async def test_an_answer_that_is_lost(stage: Stage) -> None:
    """A refresh token may be sent again after a 503, and never after silence: it is logged out."""
    record = await stage.server.until(lambda seen: len(seen.asked("lost-user")) >= 5)
    asked = record.asked("lost-user")
    grants = [(each.form["grant_type"], each.status) for each in asked[:4]]
    assert grants == [("password", 200), ("refresh_token", 503), ("refresh_token", 200), ("password", 200)]
    assert asked[1].form["refresh_token"] == asked[2].form["refresh_token"]
    _assert_each_refresh_token_is_used_once(asked[2:])
    ended, live = record.sessions("loser")
    assert (ended["live"], live["live"]) == (False, True)
    assert ended["id"] not in record.revoked


async def test_a_session_limit_and_the_end(stage: Stage, tmp_path: Path) -> None:
    """Nobody's password is taken for wrong; the session that can be had at last is logged out at the stop."""
    form = {"client_id": "busy", "username": "busy", "password": stage.cast.users["busy"]}
    others = [await stage.server.post("/token", grant_type="password", **form) for _ in range(SESSION_LIMIT)]
    assert [status for status, _ in others] == [200] * SESSION_LIMIT
    config = stage.cast.config(stage.server, "busy")
    async with Bearward(config, tmp_path, name="oidc-busy", until="/livez") as bearward:
        (line, *_) = await bearward.logs("token refresh failed")
        assert (line["reason"], line["for_good"]) == ("session_limit", False)
        first = others[0][1]["refresh_token"]
        assert await stage.server.post("/logout", client_id="busy", refresh_token=first) == (204, None)
        assert (await bearward.get("/busy")).json()["account"] == "busy"
        assert (await stage.server.record()).live("busy") == SESSION_LIMIT
    record = await stage.server.record()
    assert record.live("busy") == SESSION_LIMIT - 1
    assert {asked.status for asked in record.asked("busy")} == {403, 200}


async def test_short_tokens_under_load(stage: Stage) -> None:
    """No call meets a token that is over, not even where the next one is slow; a session lasts all the time."""
    outcomes = await stage.load
    assert {(status, code) for _, status, code in outcomes} == {(200, None)}, outcomes
    record, metrics = await stage.server.record(), await stage.bearward.metrics()
    for name in LOADED:
        assert metrics.total("upstream_unauthorized_total", route=f"/{name}") == 0
        asked = record.asked(name)
        assert {each.status for each in asked} == {200}, name
        assert len(asked) > LOAD_SECONDS / (SHORT - 1.5), name  # each was asked for before the last was used up
        assert outcomes[name, 200, None] > 50, name
    for name in ("load-key", "load-bearer"):
        jtis = [each.claims["jti"] for each in record.asked(name)]
        assert len(jtis) == len(set(jtis))
    (session,) = record.sessions("lodger")
    assert session["live"]
    first, *later = record.asked("load-user")
    assert (first.form["grant_type"], {each.form["grant_type"] for each in later}) == ("password", {"refresh_token"})
    _assert_each_refresh_token_is_used_once(later)


async def test_a_token_that_is_revoked(stage: Stage) -> None:
    """The API refuses it, and the client does not notice."""
    await stage.load  # a token younger than ten seconds is not replaced
    own = stage.cast.cases["revoked"].credential
    client = {"client_id": own["client_id"], "client_secret": own["client_secret"]}
    (token,) = (await stage.server.record()).tokens("revoked")
    assert (await stage.server.post("/token/revocation", token=token, **client))[0] == 200
    assert (await stage.call("revoked")).json() == {"client": "revoked", "bound": False}
    assert [asked.status for asked in await stage.asked("revoked")] == [200, 200]


def _assert_each_refresh_token_is_used_once(asked: list[Asked]) -> None:
    sent = [each.form["refresh_token"] for each in asked if each.form["grant_type"] == "refresh_token"]
    assert len(sent) > 1
    assert len(sent) == len(set(sent))
