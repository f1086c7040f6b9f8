"""Token requests as vendors' documents want them: method, target, headers and parameters, and nothing else."""

import base64
import ssl
from collections.abc import AsyncIterator, Callable
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import jwt
import pytest
import pytest_asyncio

from configs import Config
from endpoints import Asked, Endpoints, Jwt, Stage, granted, refused, reply, stage_of
from harness import Bearward
from request_rows import BY_KEY, FEDERATED, OF_ID, OWN, PASSWORD, RSA, SECRET, USERNAME, Row, basic, clients, rows
from tls import Authority, TlsUpstream, peer_names
from wire import Message, Reader, Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORM = "application/x-www-form-urlencoded"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    def credentials(endpoints: Endpoints) -> dict[str, Config]:
        retried = {"private-key-jwt-again": BY_KEY, "refused-basic": OWN, "federated-again": by_file}
        return {name: row.credential for name, row in rows(endpoints.url).items()} | retried

    folder = tmp_path_factory.mktemp("requests")
    by_file = clients("")["azure-workload-identity"].credential | {"params": {"a": {"file": "changing"}}}
    answers = {
        "github-app": reply({"token": "TOKEN", "expires_at": "2999-01-01T00:00:00Z"}, status="201 Created"),
        "private-key-jwt-again": _fails_after(lambda: None),
        "federated-again": _fails_after(lambda: (folder / "changing").write_text("two\n")),
        "refused-basic": refused("invalid_client", "401 Unauthorized"),
    }
    files = {"federated": f"{FEDERATED}\n", "changing": "one"}
    async with stage_of(credentials, folder, answers=answers, files=files) as stage:
        yield stage


def _fails_after(action: Callable[[], object]) -> Callable[[Asked], bytes]:
    """The first request is answered 503, after this is done."""
    answers = iter([refused("server_error", "503 Service Unavailable")])

    def answer(_asked: Asked) -> bytes:
        action()
        return next(answers, granted())

    return answer


def expected(row: Row, name: str) -> tuple[Any, ...]:
    """The request in the form of `sent`."""
    kind = FORM if row.form is not None else "application/json" if row.json is not None else None
    kind = row.body[0] if row.body else kind
    headers = {"accept": "application/json"} | ({"content-type": kind} if kind else {}) | dict(row.headers)
    form = (
        []
        if row.form is None
        else sorted(dict(row.form).items() if isinstance(row.form, dict) else row.form, key=first)
    )
    line = row.line.replace(" /", f" /{name}/", 1)
    return line, headers, sorted(row.query.items()), row.body[1] if row.body else row.json or form


first = itemgetter(0)


def sent(asked: Asked) -> tuple[Any, ...]:
    """Line, headers, query and content; parameters by their names, those of one name as they came."""
    headers = asked.headers
    match headers.get("content-type", "").partition(";")[0]:
        case "application/json":
            content: Any = asked.json
        case "text/xml":
            content = asked.body.decode()
        case _:
            content = sorted(asked.pairs, key=first)
    return asked.line, headers, sorted(asked.query), content


@pytest.mark.parametrize("name", rows(""))
async def test_a_request_is_as_documented(stage: Stage, name: str) -> None:
    assert await stage.serves(name) == f"Bearer {stage.endpoints.tokens[name][0]}"
    (asked,) = stage.endpoints.asked[name]
    assert sent(asked) == expected(rows(stage.endpoints.url)[name], name)


async def test_basic_is_written_byte_for_byte(stage: Stage) -> None:
    """`quote_plus` leaves `_.-~`, and a space is a plus sign."""
    await stage.serves("rfc6749-basic")
    (asked,) = stage.endpoints.asked["rfc6749-basic"]
    decoded = base64.b64decode(asked.headers["authorization"].removeprefix("Basic "))
    assert decoded.startswith(b"app%3A1+%C3%A9:s%2Be%2Fc%25r%3Ae+%C3%A9_.-~")


async def test_form_parameters_are_written_byte_for_byte(stage: Stage) -> None:
    await stage.serves("password")
    (asked,) = stage.endpoints.asked["password"]
    user, password = (quote_plus(text) for text in (USERNAME, PASSWORD))
    assert asked.body == f"grant_type=password&username={user}&password={password}".encode()


async def test_a_request_names_its_sender_and_closes(stage: Stage) -> None:
    await stage.serves("rfc6749-basic")
    (asked,) = stage.endpoints.asked["rfc6749-basic"]
    (agent,) = asked.message.values("User-Agent")
    assert agent.startswith(b"bearward/")
    assert asked.message.values("Host") == [stage.endpoints.host]
    assert asked.message.values("Transfer-Encoding") == []


async def test_each_attempt_has_an_assertion_of_its_own(stage: Stage) -> None:
    """A second one with the same `jti` would be refused as a replay."""
    await stage.serves("private-key-jwt-again")
    first_try, second_try = stage.endpoints.asked["private-key-jwt-again"]
    aud = {"aud": f"{stage.endpoints.url}/private-key-jwt-again/token"}
    genuine = Jwt(RSA.public_key(), {"alg": "RS256"}, OF_ID | aud)
    assertions = [asked.form["client_assertion"] for asked in (first_try, second_try)]
    assert [genuine == text for text in assertions] == [True, True]
    assert len({jwt.decode(text, options={"verify_signature": False})["jti"] for text in assertions}) == 2


async def test_a_file_is_read_for_each_attempt(stage: Stage) -> None:
    await stage.serves("federated-again")
    assert [asked.form["a"] for asked in stage.endpoints.asked["federated-again"]] == ["one", "two"]


async def test_basic_is_not_probed(stage: Stage) -> None:
    """Another encoding would be another try, and tries may be counted."""
    for _ in range(3):
        assert (await stage.call("refused-basic")).code == "credential_rejected"
    assert len(stage.endpoints.asked["refused-basic"]) == 1


async def test_adp_a_certificate_beside_basic(tmp_path: Path) -> None:
    """Two clients of one vendor, with a certificate each; neither is taken for the other."""
    authority = Authority(tmp_path)
    shown: list[tuple[list[str], str]] = []
    async with (
        Endpoints() as endpoints,
        TlsUpstream(authority.server("127.0.0.1", asks_for_client=ssl.CERT_REQUIRED)) as vendor,
    ):

        async def script(request: Message, reader: Reader, writer: Writer) -> None:
            shown.append((peer_names(writer), request.values("Authorization")[0].decode()))
            await endpoints._answer_one(request, reader, writer)

        vendor.script = script
        credentials = {
            name: {
                "token_url": f"{vendor.url}/{name}/token",
                "client_id": name,
                "client_secret": SECRET,
                "tls": {"ca_file": authority.file} | authority.client(f"{name}@adp.test"),
            }
            for name in ("one", "two")
        }
        async with Bearward(endpoints.config(credentials), tmp_path):
            pass
    of_each = [([f"{name}@adp.test"], basic(name)["authorization"]) for name in ("one", "two")]
    assert sorted(shown) == of_each
