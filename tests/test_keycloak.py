"""The product before a real Keycloak: clients of every kind, and a program that uses Keycloak's API for long."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from harness import Bearward
from keycloak.clients import Client, clients, strangers
from keycloak.realms import ocp_client, realm
from keycloak.server import KEYCLOAK
from oidc.keys import Keys
from problems import assert_problem
from together import Together

pytest_plugins = ["keycloak.plugin"]
pytestmark = [pytest.mark.first, pytest.mark.usefixtures("keycloak")]

# How often is asked what can only be asked, and for how long.
POLL, PATIENCE = 0.2, 45.0

together = Together()


def atlas_config(some: Mapping[str, Client]) -> dict[str, Any]:
    """For each client a credential with the preset of Atlas, and a route to the admin API of its realm."""
    atlas = {
        "preset": {"name": "atlas", "realm": "atlas"},
        "token_url": f"{KEYCLOAK.url}/realms/atlas/protocol/openid-connect/token",
    }
    upstream = f"{KEYCLOAK.url}/admin/realms/atlas"
    return {
        "credentials": {name: atlas | client.credential for name, client in some.items()},
        "routes": {f"/{name}": {"upstream": upstream, "credential": name} for name in some},
    }


@together
async def test_clients_are_known_by_secrets_and_keys(folder: Path) -> None:
    """Time and again: an assertion that came a second time would be refused."""
    keys = Keys(folder)
    known, unknown = clients(keys, folder), strangers(keys)
    everybody = known | unknown
    await KEYCLOAK.admin("POST", "/realms", realm("atlas", 4, [client.known for client in everybody.values()]))
    async with Bearward(atlas_config(everybody), folder) as bearward:
        for name in known:
            assert (await bearward.get(f"/{name}/users/count")).summary == (200, None), name
        for name in unknown:
            assert_problem(await bearward.get(f"/{name}/users/count"), 503, "credential_rejected")
        async with asyncio.timeout(PATIENCE):
            while min(map(len, (await deeds(known)).values())) < 3:
                await asyncio.sleep(POLL)
        said = {line["credential"]: line for line in await bearward.logs("token refresh failed", len(unknown))}
    done = await deeds(known)
    for name, client in known.items():
        deed = "TOKEN_EXCHANGE" if name == "exchange" else "CLIENT_LOGIN"
        assert set(done[name]) == {(deed, None, client.authenticator)}, name
    assert said.keys() == unknown.keys()
    assert {(line["reason"], line["for_good"]) for line in said.values()} == {("refused", True)}
    assert said["wrong-secret"]["detail"] == "status 401, unauthorized_client"
    lower_case = {key: known["lower-case"].credential[key] for key in ("client_id", "client_secret")}
    answer = await KEYCLOAK.ask_token("atlas", grant_type="client_credentials", **lower_case)
    assert answer["token_type"] == "bearer"


async def deeds(some: Mapping[str, Client]) -> dict[str, list[tuple[str | None, ...]]]:
    """What each client did, how it failed if it did, and by what Keycloak knew it."""
    happened = [
        (each["clientId"], (each["type"], each.get("error"), each["details"].get("client_auth_method")))
        for each in await KEYCLOAK.events("atlas")
    ]
    return {name: [deed for who, deed in happened if who == client.id] for name, client in some.items()}


@together
async def test_a_plain_program_works_with_the_api_for_long(folder: Path) -> None:
    """Ten lifetimes of a token and more: users are made, found and deleted by a client that knows of no token."""
    lifetime = 3
    short_lived = ocp_client(attributes={"access.token.lifespan": str(lifetime)})
    await KEYCLOAK.admin("POST", "/realms/master/clients", short_lived)
    credential = {"preset": "ocp", "username": "admin", "password": "admin"}
    config = {
        "credentials": {"kc": credential},
        "routes": {"/kc": {"upstream": f"{KEYCLOAK.url}/admin/realms/master", "credential": "kc"}},
    }
    async with Bearward(config, folder) as bearward:
        first = time.monotonic()
        while time.monotonic() < first + 10 * lifetime:
            await asyncio.gather(*(make_and_delete_a_user(f"{bearward.url}/kc/users") for _ in range(2)))
            await asyncio.sleep(2 * POLL)
        metrics = await bearward.metrics()
        assert [user["username"] for user in (await bearward.get("/kc/users")).json()] == ["admin"]
    assert metrics.total("token_refreshes_total") > 10
    assert metrics.total("token_refresh_failures_total") == 0
    assert metrics.total("upstream_unauthorized_total") == 0
    codes = {dict(labels)["code"] for labels, n in metrics.matching("requests_total").items() if n}
    assert codes == {"200", "201", "204", "404"}


async def make_and_delete_a_user(users: str) -> None:
    """As any program would, on connections of its own."""
    name = f"user-{uuid4()}"
    async with aiohttp.ClientSession() as session:
        async with session.post(users, json={"username": name}) as made:
            assert made.status == 201
            user = f"{users}/{made.headers['Location'].rpartition('/')[2]}"
        async with session.get(users, params={"username": name, "exact": "true"}) as found:
            assert found.status == 200
            assert [each["username"] for each in await found.json()] == [name]
        async with session.delete(user) as deleted:
            assert deleted.status == 204
        async with session.get(user) as gone:
            assert gone.status == 404
