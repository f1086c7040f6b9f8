"""Accounts get locked: a password that was refused is not tried again before there is another, or in 15 minutes."""

import asyncio
import json
from pathlib import Path
from typing import Any

from configs import Config, ocp_config, ocp_credential
from endpoints import SOON, Asked, Endpoints, Stage, granted, refused
from evidence import new_secret
from harness import Bearward
from problems import assert_problem
from together import Together
from vendors import faults
from vendors.ocp import Ocp

# A changed file is looked for every 2.5 s.
LOOKED_AT = 2.7
# From this age on, a token that was refused is replaced.
OLD_ENOUGH = 10.5

together = Together()


def statuses(ocp: Ocp) -> list[int | None]:
    """How the sign-ins were answered."""
    return [asked.status for asked in ocp.grants("password")]


@together
async def test_a_password_that_comes_back_is_no_new_one(folder: Path) -> None:
    """Its file is away for a while, or empty, as where an editor writes it."""
    async with Ocp() as away, Ocp() as emptied:
        vendors = {"away": away, "emptied": emptied}
        wrong = new_secret("password")
        config = {
            "credentials": {name: ocp_credential(ocp, password={"file": name}) for name, ocp in vendors.items()},
            "routes": {f"/{name}": {"upstream": f"{ocp.url}/api", "credential": name} for name, ocp in vendors.items()},
        }
        async with Bearward(config, folder, files=dict.fromkeys(vendors, wrong)) as bearward:
            for name in vendors:
                assert_problem(await bearward.get(f"/{name}/things"), 503, "credential_rejected")
            (folder / "away").unlink()
            (folder / "emptied").write_text("")
            await asyncio.sleep(LOOKED_AT)
            for name in vendors:
                (folder / name).write_text(wrong)
            await asyncio.sleep(LOOKED_AT)
            for name, ocp in vendors.items():
                assert statuses(ocp) == [401], name
                assert_problem(await bearward.get(f"/{name}/things"), 503, "credential_rejected")


@together
async def test_a_password_that_changes_amid_a_refresh_is_tried_once(folder: Path) -> None:
    """The sign-in after a refused refresh sends the new one already: it does not count as new again."""
    async with Ocp(lifetime=4) as ocp:
        config = ocp_config(ocp, password={"file": "password"})
        async with Bearward(config, folder, files={"password": ocp.password}):
            hold = faults.Hold()
            ocp.token_faults.fail_next(1, hold)
            await hold.arrived.wait()
            assert ocp.token_requests[-1].form["grant_type"] == "refresh_token"
            (folder / "password").write_text(new_secret("password"))
            ocp.sessions[0].ended = True
            hold.release()
            await ocp.wait_for(lambda vendor: len(statuses(vendor)) == 2)
            await asyncio.sleep(LOOKED_AT)
            assert statuses(ocp) == [200, 401]
            (folder / "password").write_text(ocp.password)
            await ocp.wait_for(lambda vendor: statuses(vendor) == [200, 401, 200])


@together
async def test_a_403_with_an_odd_error_is_no_refused_password(folder: Path) -> None:
    """What is no text is no error code; the user may have too many sessions."""
    odd = [{"code": 403, "message": "too many sessions"}, ["too many sessions"]]
    async with Ocp() as ocp:
        for error in odd:
            body = json.dumps({"error": error})
            ocp.token_faults.fail_next(1, faults.answer(403, body, Content_Type="application/json"))
        async with Bearward(ocp_config(ocp), folder, until="/livez") as bearward:
            await ocp.wait_for(lambda vendor: vendor.sessions)
            metrics = await bearward.metrics()
            assert b"internal error" not in bearward.output()
    failures = metrics.matching("token_refresh_failures_total", credential=f"ocp@127.0.0.1:{ocp.site.port}")
    assert {dict(labels)["reason"]: n for labels, n in failures.items() if n} == {"session_limit": len(odd)}


@together
async def test_a_refusal_stays_a_start(folder: Path) -> None:
    """A process that has started does not go back, whatever becomes of the next password."""
    async with Ocp() as ocp:
        config = ocp_config(ocp, password={"file": "password"})
        async with Bearward(config, folder, files={"password": new_secret("password")}) as bearward:
            ocp.token_faults.mode = faults.server_error
            (folder / "password").write_text(ocp.password)
            await ocp.wait_for(lambda vendor: len(vendor.token_requests) >= 2)
            for _ in range(2):  # amid the second attempt, and after it
                assert (await bearward.admin("/startupz")).status == 200
                await ocp.wait_for(lambda vendor: vendor.token_requests[1].status == 500)
            assert not await bearward.is_ready()


def refusals_of(sent: list[Asked], right: str) -> list[bool]:
    """Which of these passwords were refused, each of which may be sent once."""
    passwords = [asked.form["password"] for asked in sent]
    assert len(set(passwords)) == len(passwords), "an account gets locked"
    return [password != right for password in passwords]


@together
async def test_a_refused_password_is_not_sent_again_whatever_else_changes(folder: Path) -> None:
    """Another secret of the credential, a field of the config, the process, a token that the request needs."""
    right, wrong, worse = (new_secret("password") for _ in range(3))

    def answer(asked: Asked) -> bytes:
        return granted() if asked.form["password"] == right else refused("invalid_grant")

    def signing_in(**more: Any) -> Config:
        return {"client_auth": "none", "grant_type": "password", "username": "me", "password": wrong} | more

    def config(timeout: str) -> Config:
        credentials = {
            "noted": signing_in(params={"note": {"file": "note"}}),
            "reloaded": signing_in(timeout=timeout),
            "flapping": signing_in(password={"file": "password"}),
            "inner": {"client_auth": "none", "grant_type": "none"},
            "chained": signing_in(
                params={"a": "{token:inner}", "user": "{principal}"}, principal={"header": "X-User-Id"}
            ),
        }
        return endpoints.config(credentials, token_store={"path": "tokens"})

    async with Endpoints() as endpoints:
        endpoints.answers |= dict.fromkeys(("noted", "reloaded", "flapping", "chained"), answer)
        (folder / "note").write_text("one")
        (folder / "password").write_text(wrong)

        async with Bearward(config("10s"), folder, name="refused") as bearward:
            stage = Stage(endpoints, bearward)
            await stage.serves("inner")
            old_enough = asyncio.create_task(asyncio.sleep(OLD_ENOUGH))

            async def fails(name: str, count: int) -> None:
                async with asyncio.timeout(SOON):
                    while [line["credential"] for line in await bearward.logs("token refresh failed")].count(
                        name
                    ) < count:
                        await asyncio.sleep(0.05)

            await asyncio.gather(fails("noted", 1), fails("reloaded", 1), fails("flapping", 1))
            (folder / "note").write_text("another")
            (folder / "password").write_text(worse)
            await asyncio.gather(fails("noted", 2), fails("flapping", 2))
            (folder / "password").write_text(wrong)
            await fails("flapping", 3)
            await bearward.reload(config("11s"))
            await fails("reloaded", 2)
            for name in ("noted", "reloaded"):
                assert refusals_of(endpoints.asked[name], right) == [True], name
            assert refusals_of(endpoints.asked["flapping"], right) == [True, True]
            bearward.process.kill()
            await bearward.exit_code()

        async with Bearward(config("12s"), folder, name="refused-restarted") as bearward:
            stage = Stage(endpoints, bearward)
            for name in ("noted", "reloaded", "flapping"):
                assert_problem(await stage.call(name), 503, "credential_rejected")
            (folder / "password").write_text(right)
            await endpoints.until(lambda: len(endpoints.asked["flapping"]) == 3)
            await stage.serves("flapping")
            assert refusals_of(endpoints.asked["flapping"], right) == [True, True, False]
            await old_enough
            for _ in range(2):
                assert_problem(await stage.call("chained", X_User_Id="ann"), 503, "credential_rejected")
            for name in ("noted", "reloaded", "chained"):
                assert refusals_of(endpoints.asked[name], right) == [True], name
