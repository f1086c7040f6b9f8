"""Each preset on the wire: the page's example asks the vendor's own URL as its documents say, and takes its answer."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding

import presets_page
from made_up import ME, certificate
from preset_stage import (
    CLIENT_ASSERTION,
    SOON,
    Row,
    Stage,
    basic,
    client_assertion,
    epoch,
    examples,
    given,
    preset_of,
    preset_stage,
    service_account_token,
)
from vendors.strict import Signed

in_module = pytest.mark.asyncio(loop_scope="module")

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


ENTRA = "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token"
ENTRA_FORM = {"grant_type": "client_credentials", "scope": "https://graph.microsoft.com/.default"}
ENTRA_ANSWER = {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599}
ENTRA_REFUSAL = {
    "error": "invalid_client",
    "error_description": "AADSTS7000215: Invalid client secret provided.",
    "error_codes": [7000215],
    "trace_id": "255d1aef-8c98-452f-ac51-23d051240864",
}
THUMBPRINT = sha256(certificate(ME).public_bytes(Encoding.DER)).digest()
CLIENT_CREDENTIALS = {"grant_type": "client_credentials"}

ROWS: dict[str, Row] = {
    "acronis-connector": Row(
        "POST https://eu8-cloud.acronis.com/bc/idp/token",
        CLIENT_CREDENTIALS,
        {"expires_on": lambda: epoch(timedelta(hours=2)), "id_token": "eyJ", "token_type": "bearer"},
        7200,
        (401, {"error": "invalid_client", "error_description": "client authentication failed"}),
        ("/eu8/api/2/clients", "https://eu8-cloud.acronis.com/api/2/clients"),
        headers=basic(given("ACRONIS_CLIENT_ID"), given("secrets/acronis")),
    ),
    "acronis-account": Row(
        "POST https://eu8-cloud.acronis.com/api/2/idp/token",
        CLIENT_CREDENTIALS,
        {"expires_on": lambda: epoch(timedelta(hours=2)), "id_token": "eyJ", "token_type": "bearer"},
        7200,
        (401, {"error": "invalid_client", "error_description": "client authentication failed"}),
        ("/tasks/eu8/tasks", "https://eu8-cloud.acronis.com/api/task_manager/v2/tasks"),
        headers=basic(given("ACRONIS_ACCOUNT_CLIENT_ID"), given("ACRONIS_ACCOUNT_SECRET")),
    ),
    "acceleration-cloud": Row(
        "POST https://acceleration.example.com/api/v1/auth/oauth2/token",
        {},
        {"token_type": "bearer", "expires_in": 7200},
        7200,
        (200, {"code": 400, "errorMessage": "authentication failed", "error": None, "data": None}),
        ("/acceleration/files", "https://acceleration.example.com/api/v1/files"),
        headers=basic(given("ACCELERATION_CLIENT_ID"), given("ACCELERATION_SECRET")),
        query=CLIENT_CREDENTIALS | {"user_id": "alice"},
        calls_with={"X-User-Id": "alice"},
    ),
    "ocp": Row(
        "POST https://ocp.example.com/auth/realms/master/protocol/openid-connect/token",
        {
            "grant_type": "password",
            "client_id": "ocp",
            "username": given("OCP_USERNAME"),
            "password": given("secrets/ocp"),
        },
        {
            "expires_in": 300,
            "refresh_expires_in": 1800,
            "refresh_token": "a-refresh-token",
            "token_type": "bearer",
            "not-before-policy": 0,
            "session_state": "a-session",
            "scope": "email profile",
        },
        300,
        (401, {"error": "invalid_grant", "error_description": "Invalid user credentials"}),
        ("/ocp/projects", "https://ocp.example.com/api/projects"),
        reason="password_refused",
    ),
    "atlas": Row(
        "POST https://auth.is2.app/auth/realms/acme/protocol/openid-connect/token",
        CLIENT_CREDENTIALS,
        {"token_type": "Bearer", "expires_in": 3600},
        3600,
        (401, {"error": "unauthorized_client", "error_description": "Invalid client or Invalid client credentials"}),
        ("/atlas/accountreports", "https://api.is2.app/api/v1/accountreports"),
        headers=basic("acme", given("ATLAS_SECRET"), "form"),
    ),
    "adobe": Row(
        "POST https://ims-na1.adobelogin.com/ims/token/v3",
        {
            **CLIENT_CREDENTIALS,
            "scope": "openid,AdobeID,firefly_api,ff_apis",
            "client_id": given("ADOBE_CLIENT_ID"),
            "client_secret": given("ADOBE_CLIENT_SECRET"),
        },
        {"token_type": "bearer", "expires_in": 86399},
        86399,
        (401, {"error": "invalid_client", "error_description": "invalid client_secret parameter"}),
        ("/adobe/v3/images", "https://firefly-api.adobe.io/v3/images"),
    ),
    "auth0": Row(
        "POST https://acme.eu.auth0.com/oauth/token",
        {
            **CLIENT_CREDENTIALS,
            "client_id": given("AUTH0_CLIENT_ID"),
            "client_secret": given("AUTH0_CLIENT_SECRET"),
            "audience": "https://acme.eu.auth0.com/api/v2/",
        },
        {"scope": "read:users", "expires_in": 86400, "token_type": "Bearer"},
        86400,
        (401, {"error": "access_denied", "error_description": "Unauthorized"}),
        ("/auth0/users", "https://acme.eu.auth0.com/api/v2/users"),
    ),
    "entra": Row(
        f"POST {ENTRA}",
        {**ENTRA_FORM, "client_id": given("ENTRA_CLIENT_ID"), "client_secret": given("secrets/entra")},
        ENTRA_ANSWER,
        3599,
        (401, ENTRA_REFUSAL),
        ("/graph/users", "https://graph.microsoft.com/v1.0/users"),
    ),
    "entra-certificate": Row(
        f"POST {ENTRA}",
        {
            **ENTRA_FORM,
            "client_id": given("ENTRA_CLIENT_ID"),
            **client_assertion(
                "ENTRA_CLIENT_ID",
                ENTRA,
                300,
                {"alg": "PS256", "x5t#S256": base64.urlsafe_b64encode(THUMBPRINT).decode().rstrip("=")},
            ),
        },
        ENTRA_ANSWER,
        3599,
        (401, ENTRA_REFUSAL),
        ("/graph-certificate/users", "https://graph.microsoft.com/v1.0/users"),
    ),
    "entra-workload-identity": Row(
        f"POST {ENTRA}",
        {
            **ENTRA_FORM,
            "client_id": given("AZURE_CLIENT_ID"),
            "client_assertion_type": CLIENT_ASSERTION,
            "client_assertion": given("secrets/AZURE_FEDERATED_TOKEN_FILE"),
        },
        ENTRA_ANSWER,
        3599,
        (401, ENTRA_REFUSAL),
        ("/graph-workload/users", "https://graph.microsoft.com/v1.0/users"),
    ),
    "github-app": Row(
        "POST https://api.github.com/app/installations/12345678/access_tokens",
        {},
        {
            "expires_at": lambda: (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "permissions": {"issues": "write", "contents": "read"},
            "repository_selection": "selected",
        },
        3600,
        (401, {"message": "A JSON web token could not be decoded", "status": "401"}),
        ("/github/issues", "https://api.github.com/issues"),
        headers={
            "accept": "application/vnd.github+json",
            "authorization": Signed({"alg": "RS256", "typ": "JWT"}, {"iss": given("GITHUB_APP_CLIENT_ID")}, 540),
            "x-github-api-version": "2022-11-28",
        },
        json={},
        status=201,
        token="token",
    ),
    "google-service-account": Row(
        "POST https://oauth2.googleapis.com/token",
        {
            "grant_type": JWT_BEARER,
            "assertion": Signed(
                {"alg": "RS256", "typ": "JWT"},
                {
                    "iss": "reports@acme-project.iam.gserviceaccount.com",
                    "scope": "https://www.googleapis.com/auth/devstorage.read_only",
                    "aud": "https://oauth2.googleapis.com/token",
                },
                3600,
            ),
        },
        {"expires_in": 3599, "token_type": "Bearer"},
        3599,
        (400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}),
        ("/storage/b", "https://storage.googleapis.com/storage/v1/b"),
    ),
    "keycloak": Row(
        "POST https://sso.example.com/realms/acme/protocol/openid-connect/token",
        CLIENT_CREDENTIALS,
        {
            "expires_in": 300,
            "refresh_expires_in": 0,
            "token_type": "Bearer",
            "not-before-policy": 0,
            "scope": "email profile",
        },
        300,
        (401, {"error": "unauthorized_client", "error_description": "Invalid client or Invalid client credentials"}),
        ("/orders/7", "https://orders.example.com/7"),
        headers=basic(given("KEYCLOAK_CLIENT_ID"), given("secrets/keycloak"), "form"),
    ),
    "okta": Row(
        "POST https://acme.okta.com/oauth2/v1/token",
        {
            **CLIENT_CREDENTIALS,
            "scope": "okta.users.read okta.groups.read",
            **client_assertion(
                "OKTA_CLIENT_ID", "https://acme.okta.com/oauth2/v1/token", 60, {"kid": given("OKTA_KEY_ID")}
            ),
        },
        {"token_type": "Bearer", "expires_in": 3600, "scope": "okta.users.read okta.groups.read"},
        3600,
        (401, {"error": "invalid_client", "error_description": "The client_assertion JWT kid is invalid."}),
        ("/okta/users", "https://acme.okta.com/api/v1/users"),
    ),
    "paypal": Row(
        "POST https://api-m.paypal.com/v1/oauth2/token",
        CLIENT_CREDENTIALS,
        {
            "scope": "openid",
            "token_type": "Bearer",
            "app_id": "APP-80W284485P519543T",
            "expires_in": 31668,
            "nonce": "2020-04-03T15:35:36ZaYZlGvEkV4yVSz8g6bAKFoGSEzuy3CQcz3ljhibkOHg",
        },
        31668,
        (401, {"error": "invalid_client", "error_description": "Client Authentication failed"}),
        ("/paypal/v2/checkout/orders/1", "https://api-m.paypal.com/v2/checkout/orders/1"),
        headers=basic(given("PAYPAL_CLIENT_ID"), given("secrets/paypal")),
    ),
    "salesforce": Row(
        "POST https://acme.my.salesforce.com/services/oauth2/token",
        {
            "grant_type": JWT_BEARER,
            "assertion": Signed(
                {"alg": "RS256", "typ": "JWT"},
                {
                    "iss": given("SALESFORCE_CONSUMER_KEY"),
                    "sub": "integration@acme.example.com",
                    "aud": "https://login.salesforce.com",
                },
                60,
            ),
        },
        {
            "scope": "web openid api id",
            "instance_url": "https://acme.my.salesforce.com",
            "id": "https://login.salesforce.com/id/00Dxx0000001gPLEAY/005xx000001SwiUAAS",
            "token_type": "Bearer",
        },
        900,
        (400, {"error": "invalid_grant", "error_description": "user hasn't approved this consumer"}),
        ("/salesforce/v65.0/sobjects", "https://acme.my.salesforce.com/services/data/v65.0/sobjects"),
    ),
    "servicenow": Row(
        "POST https://acme.service-now.com/oauth_token.do",
        {
            **CLIENT_CREDENTIALS,
            "client_id": given("SERVICENOW_CLIENT_ID"),
            "client_secret": given("secrets/servicenow"),
        },
        {"scope": "useraccount", "token_type": "Bearer", "expires_in": 1799},
        1799,
        (401, {"error_description": "access_denied", "error": "server_error"}),
        ("/servicenow/table/incident", "https://acme.service-now.com/api/now/table/incident"),
    ),
    "zoom": Row(
        "POST https://zoom.us/oauth/token",
        {"grant_type": "account_credentials", "account_id": "aBcDeFgHiJkLmNoPqRsTuV"},
        {"token_type": "bearer", "expires_in": 3600, "scope": "user:read:admin", "api_url": "https://api.zoom.us"},
        3600,
        (400, {"reason": "Invalid client_id or client_secret", "error": "invalid_client"}),
        ("/zoom/users/me", "https://api.zoom.us/v2/users/me"),
        headers=basic(given("ZOOM_CLIENT_ID"), given("secrets/zoom")),
    ),
}
WITHOUT_ENDPOINT = {"kubernetes"}
"""These ask nobody; each has a test of its own."""
INVENTORY = "https://inventory.example.com"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One product for all rows."""
    urls = [url for row in ROWS.values() for url in (row.line.split()[1], row.call[1])]
    hosts = {str(urlsplit(url).hostname) for url in [*urls, INVENTORY]}
    vendors = {name: row.vendor() for name, row in ROWS.items()}
    async with preset_stage(vendors, hosts, tmp_path_factory.mktemp("presets")) as stage:
        yield stage


def test_every_preset_has_a_row() -> None:
    assert ROWS.keys() | WITHOUT_ENDPOINT == presets_page.files().keys()


def test_every_vendor_has_its_documents_named() -> None:
    """Those of the first five were given to the project, and not all are public."""
    for name, file in presets_page.files().items():
        urls = [document["url"] for document in file["page"].get("documents", ())]
        assert urls or name in presets_page.FIRST, name
        assert all(url.startswith("https://") for url in urls), name


def test_the_page_is_made_of_the_files() -> None:
    assert presets_page.PAGE.read_text() == presets_page.page(), "make presets"


def credential_of(preset: str) -> str:
    """The name of its credential on the page."""
    names: list[str] = [name for name, each in examples()["credentials"].items() if preset_of(each) == preset]
    return names[0]


@in_module
@pytest.mark.parametrize("name", ROWS)
async def test_the_vendor_gets_what_it_documents(stage: Stage, name: str) -> None:
    """Its token arrives with the call."""
    row = ROWS[name]
    path, url = row.call
    status = await stage.call(path, row.calls_with)
    here = [asked for asked in stage.vendors.asked if asked.line == row.line]
    assert row.vendor().asked in here, here
    assert (status, len(stage.vendors.tokens[name])) == (200, 1)
    assert (f"GET {url}", [f"Bearer {stage.vendors.tokens[name][0]}".encode()]) in stage.vendors.calls
    expiry = (await stage.token(credential_of(name)))["expires_at"]
    assert epoch(timedelta(seconds=row.lives)) - 60 < expiry <= epoch(timedelta(seconds=row.lives)) + 2


@in_module
@pytest.mark.parametrize("name", ROWS)
async def test_the_vendors_refusal_is_understood(stage: Stage, name: str) -> None:
    row = ROWS[name]
    path, _ = row.call
    if row.calls_with:  # nothing is asked before a principal comes
        assert await stage.call(f"/wrong{path}", row.calls_with) == 503
    assert await stage.failure(f"{credential_of(name)}-wrong") == row.reason


@in_module
async def test_a_federated_token_is_read_again(stage: Stage) -> None:
    """After a refusal another one in its place is sent as soon as it is there."""
    await stage.failure("entra_workload-wrong")
    (stage.folder / "wrong" / "AZURE_FEDERATED_TOKEN_FILE").write_text("another token of the cluster's")
    async with asyncio.timeout(SOON):
        while not any("another token of the cluster's" in asked.body.values() for asked in stage.vendors.asked):
            await asyncio.sleep(0.02)


@in_module
async def test_a_service_accounts_token_is_the_files_content(stage: Stage) -> None:
    """Also after the kubelet has changed it."""
    file = stage.folder / "secrets" / "inventory-token"
    for token in (given("secrets/inventory-token"), service_account_token()):
        file.write_text(token)
        arrived = (f"GET {INVENTORY}/items", [f"Bearer {token}".encode()])
        async with asyncio.timeout(SOON):
            while arrived not in stage.vendors.calls:
                assert await stage.call("/inventory/items") == 200
                await asyncio.sleep(0.05)
