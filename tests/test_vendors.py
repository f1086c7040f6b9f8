"""The fake vendors accept what the vendor's document says, and refuse everything beside it."""

import asyncio
import base64
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import jwt
import pytest

from vendors import faults
from vendors.acceleration_cloud import AccelerationCloud
from vendors.acronis import AcronisClient, AcronisDataCenter
from vendors.atlas import Atlas
from vendors.base import Vendor
from vendors.ocp import Ocp

Fields = dict[str, Any]


async def ask(method: str, url: str, **options: Any) -> tuple[int, Any, aiohttp.ClientResponse]:
    """One request on a connection of its own: status, JSON or text, and the response."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.request(method, url, allow_redirects=False, **options) as response,
    ):
        is_json = response.content_type == "application/json"
        return response.status, (await response.json() if is_json else await response.text()), response


def basic(name: str, secret: str) -> dict[str, str]:
    """A Basic header of these very texts."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """A Bearer header."""
    return {"Authorization": f"Bearer {token}"}


CLIENT_CREDENTIALS = {"grant_type": "client_credentials"}


def acronis_request(center: AcronisDataCenter) -> Fields:
    """A good token request."""
    return {"headers": basic(center.client.id, center.client.secret), "data": CLIENT_CREDENTIALS}


@pytest.mark.parametrize(
    ("account", "path"), [(False, "/bc/idp/token"), (True, "/api/2/idp/token")], ids=["connector", "account"]
)
async def test_acronis_grants_a_token_of_its_own_data_center(account: bool, path: str) -> None:
    client = AcronisClient()
    async with AcronisDataCenter(client, account=account) as eu, AcronisDataCenter(client, account=account) as us:
        status, granted, _ = await ask("POST", eu.url + path, **acronis_request(eu))
        assert status == 200
        assert set(granted) == {"access_token", "expires_on", "id_token", "token_type"}
        headers = bearer(granted["access_token"])
        for api in ("/api/2/clients/x", "/api/task_manager/v2/tasks"):
            assert (await ask("GET", eu.url + api, headers=headers))[0] == 200
        assert (await ask("GET", us.url + "/api/2/clients/x", headers=headers))[0] == 401
        assert (await ask("GET", eu.url + "/elsewhere", headers=headers))[0] == 404
    assert [call.verdict for call in us.calls] == ["unknown"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": {}},
        {"data": {"grant_type": "password"}},
        {"data": CLIENT_CREDENTIALS | {"scope": "x"}},
        {"params": CLIENT_CREDENTIALS},
        {"data": b"grant_type=client_credentials"},
        {"headers": {}},
        {"headers": basic("nobody", "nothing")},
    ],
    ids=["nothing", "grant", "scope", "query", "type", "no Basic", "wrong Basic"],
)
async def test_acronis_refuses(wrong: Fields) -> None:
    async with AcronisDataCenter(AcronisClient()) as center:
        status, refusal, _ = await ask("POST", center.url + center.token_path, **acronis_request(center) | wrong)
    assert status in {400, 401}
    assert set(refusal) == {"error", "error_description"}


async def test_acronis_reads_basic_as_it_stands() -> None:
    async with AcronisDataCenter(AcronisClient()) as center:
        encoded = acronis_request(center) | {"headers": basic(center.client.id, quote_plus(center.client.secret))}
        assert (await ask("POST", center.url + center.token_path, **encoded))[0] == 401


def acceleration_request(vendor: AccelerationCloud, user: str) -> Fields:
    """A good token request."""
    return {
        "params": CLIENT_CREDENTIALS | {"user_id": user},
        "headers": basic(vendor.client_id, vendor.client_secret) | {"Accept": "application/json"},
    }


async def test_acceleration_cloud_grants_a_token_to_a_user() -> None:
    async with AccelerationCloud() as vendor:
        request = acceleration_request(vendor, vendor.users[1])
        status, granted, _ = await ask("POST", vendor.url + vendor.token_path, **request)
        assert (status, granted["token_type"], granted["expires_in"]) == (200, "bearer", 7200)
        token = granted["access_token"]
        assert (await ask("GET", vendor.url + "/api/v1/orders", headers=bearer(token)))[0] == 200
        named = bearer(token) | {"X-User-Id": vendor.users[1]}
        assert (await ask("GET", vendor.url + "/api/v1/orders", headers=named))[0] == 400
        assert (await ask("GET", vendor.url + "/api/v1/orders"))[0] == 401
    assert vendor.book.issued[0].key == vendor.users[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"params": CLIENT_CREDENTIALS | {"user_id": "nobody"}},
        {"params": CLIENT_CREDENTIALS},
        {"data": {"a": "b"}},
        {"headers": {"Accept": "application/json"}},
    ],
    ids=["unknown user", "no user", "a body", "no Basic"],
)
@pytest.mark.parametrize("status", [200, 400])
async def test_acceleration_cloud_refuses(wrong: Fields, status: int) -> None:
    async with AccelerationCloud(refusal_status=status) as vendor:
        request = acceleration_request(vendor, vendor.users[0]) | wrong
        answer = await ask("POST", vendor.url + vendor.token_path, **request)
    refusal = {"code": 400, "errorMessage": "authentication failed", "error": None, "data": None}
    assert answer[:2] == (status, refusal)


async def test_acceleration_cloud_wants_an_accept_header() -> None:
    async with AccelerationCloud() as vendor:
        request = acceleration_request(vendor, vendor.users[0])
        request["headers"] |= {"Accept": "*/*"}
        assert (await ask("POST", vendor.url + vendor.token_path, **request))[1]["code"] == 400


def atlas_request(atlas: Atlas) -> Fields:
    """A good token request."""
    return {
        "headers": basic(quote_plus(atlas.client_id), quote_plus(atlas.client_secret)),
        "data": CLIENT_CREDENTIALS,
    }


async def test_atlas_grants_a_jwt() -> None:
    async with Atlas() as atlas:
        status, granted, _ = await ask("POST", atlas.token_url, **atlas_request(atlas))
        assert (status, granted["token_type"], granted["expires_in"]) == (200, "Bearer", 3600)
        claims = jwt.decode(granted["access_token"], options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == 3600
        headers = bearer(granted["access_token"])
        assert (await ask("GET", f"{atlas.api}/accountreports", headers=headers))[0] == 200


async def test_atlas_reads_basic_form_decoded() -> None:
    async with Atlas() as atlas:
        raw = atlas_request(atlas) | {"headers": basic(atlas.client_id, atlas.client_secret)}
        status, refusal, _ = await ask("POST", atlas.token_url, **raw)
    assert (status, refusal["error"]) == (401, "unauthorized_client")


async def sign_in(ocp: Ocp, **changes: str) -> tuple[int, Any]:
    """A password grant."""
    form = {"client_id": "ocp", "grant_type": "password", "username": ocp.username, "password": ocp.password}
    return (await ask("POST", ocp.url + ocp.token_path, data=form | changes))[:2]


async def refresh(ocp: Ocp, refresh_token: str) -> tuple[int, Any]:
    """A refresh grant."""
    form = {"client_id": "ocp", "grant_type": "refresh_token", "refresh_token": refresh_token}
    return (await ask("POST", ocp.url + ocp.token_path, data=form))[:2]


async def log_out(ocp: Ocp, refresh_token: str) -> int:
    """End a session; the status."""
    form = {"client_id": "ocp", "refresh_token": refresh_token}
    return (await ask("POST", ocp.url + ocp.logout_path, data=form))[0]


async def test_ocp_session_lives_on_its_refresh_token_until_logout() -> None:
    async with Ocp() as ocp:
        status, first = await sign_in(ocp)
        assert status == 200
        assert (first["expires_in"], first["refresh_expires_in"], first["not-before-policy"]) == (300, 1800, 0)
        status, second = await refresh(ocp, first["refresh_token"])
        assert (status, second["session_state"]) == (200, first["session_state"])
        assert (await refresh(ocp, first["refresh_token"]))[0] == 200, "without rotation the old one stays good"
        assert await log_out(ocp, first["refresh_token"]) == 204
        status, refusal = await refresh(ocp, second["refresh_token"])
        assert (status, refusal["error"]) == (400, "invalid_grant")
    assert len(ocp.sessions) == 1


async def test_ocp_rotation_ends_the_session_at_the_second_use() -> None:
    async with Ocp(rotation=True) as ocp:
        first = (await sign_in(ocp))[1]
        second = (await refresh(ocp, first["refresh_token"]))[1]
        status, refusal = await refresh(ocp, first["refresh_token"])
        assert (status, refusal["error_description"]) == (400, "Maximum allowed refresh token reuse exceeded")
        assert (await refresh(ocp, second["refresh_token"]))[0] == 400, "the whole session is over"
        assert await log_out(ocp, first["refresh_token"]) == 204, "a spent one still logs out"


@pytest.mark.parametrize(("variant", "status"), [("403", 403), ("500", 500)])
async def test_ocp_refuses_a_sixth_session(variant: Any, status: int) -> None:
    async with Ocp(limit_answer=variant) as ocp:
        others = ocp.occupy(5)
        assert (await sign_in(ocp))[0] == status
        others[0].ended = True
        assert (await sign_in(ocp))[0] == 200


async def test_ocp_refuses_a_wrong_password() -> None:
    async with Ocp() as ocp:
        status, refusal = await sign_in(ocp, password="wrong")
        assert (status, refusal["error"]) == (401, "invalid_grant")
        assert (await sign_in(ocp, scope="openid"))[0] == 400
        assert (await sign_in(ocp, client_id="other"))[0] == 401
    assert ocp.sessions == []


async def test_the_api_wants_exactly_one_live_token() -> None:
    async with Atlas(lifetime=1) as atlas:
        token = (await ask("POST", atlas.token_url, **atlas_request(atlas)))[1]["access_token"]
        url = f"{atlas.api}/accountreports"
        assert (await ask("GET", url, headers=bearer(token)))[0] == 200
        both = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
        assert (await ask("GET", url, headers=both))[0] == 401
        assert (await ask("GET", url, headers={"Authorization": f"bearer {token}"}))[0] == 401
        await asyncio.sleep(1.05)
        assert (await ask("GET", url, headers=bearer(token)))[0] == 401
    assert [call.verdict for call in atlas.calls] == ["live", "several", "malformed", "expired"]


async def test_revoked_tokens_are_told_from_unknown_ones() -> None:
    async with Atlas() as atlas:
        token = (await ask("POST", atlas.token_url, **atlas_request(atlas)))[1]["access_token"]
        atlas.book.revoke_all()
        for text in (token, "other"):
            await ask("GET", f"{atlas.api}/accountreports", headers=bearer(text))
    assert [call.verdict for call in atlas.calls] == ["revoked", "unknown"]


FAULTS = {
    "500": (faults.server_error, 500),
    "429": (faults.too_many_requests(7), 429),
    "html": (faults.html, 200),
    "empty": (faults.answer(200), 200),
    "huge": (faults.huge, 200),
    "redirect": (faults.redirect("/elsewhere"), 307),
    "expires_in": (faults.change(expires_in=0), 200),
    "no expiry": (faults.omit("expires_in"), 200),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_comes_as_often_as_it_is_ordered(name: str) -> None:
    fault, status = FAULTS[name]
    async with Atlas() as atlas:
        regular = await ask("POST", atlas.token_url, **atlas_request(atlas))
        atlas.token_faults.fail_next(1, fault)
        faulty = await ask("POST", atlas.token_url, **atlas_request(atlas))
        again = await ask("POST", atlas.token_url, **atlas_request(atlas))
    assert faulty[0] == status
    assert faulty[1] != regular[1]
    assert again[1].keys() == regular[1].keys()


@pytest.mark.parametrize("fault", [faults.disconnect, faults.close_early], ids=["disconnect", "close early"])
async def test_a_fault_may_break_the_connection(fault: faults.Fault) -> None:
    async with Atlas() as atlas:
        atlas.api_faults.mode = fault
        with pytest.raises(aiohttp.ClientError):
            await ask("GET", f"{atlas.api}/accountreports")


async def test_an_origin_refuses_connections_while_it_is_closed() -> None:
    async with Atlas() as atlas:
        await atlas.identity_site.close()
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask("POST", atlas.token_url)
        await atlas.identity_site.open()
        assert (await ask("POST", atlas.token_url, **atlas_request(atlas)))[0] == 200


async def test_held_requests_go_on_when_released() -> None:
    async with Atlas() as atlas:
        hold = faults.Hold()
        atlas.token_faults.mode = hold
        waiting = asyncio.create_task(ask("POST", atlas.token_url, **atlas_request(atlas)))
        await hold.arrived.wait()
        assert not waiting.done()
        hold.release()
        assert (await waiting)[0] == 200


async def test_waiting_for_what_does_not_happen_says_what_did() -> None:
    async with Vendor() as vendor:
        with pytest.raises(AssertionError, match="so far 0 token requests"):
            await vendor.wait_for(lambda v: v.calls, timeout=0.05)
