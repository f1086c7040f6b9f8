"""Presets: what each brings, and who wins."""

from pathlib import Path

import pytest
import yaml

from bearward.config import ConfigError, load
from bearward.tokens.credential import Credential, Principal, RefusalMark, TokenEndpoint

BASIC = "client_id: id, client_secret: s+t"
PRESETS = {
    "acronis-connector": BASIC,
    "acronis-account": BASIC,
    "acceleration-cloud": BASIC,
    "ocp": "username: u, password: p",
    "atlas": BASIC,
}
PARAMETERS = {"atlas": {"realm": "acme"}}


def credential(folder: Path, fields: str) -> Credential:
    """The one credential of a config, with these fields."""
    file = folder / "config.yaml"
    file.write_text(
        f"credentials: {{a: {{{fields}}}}}\nroutes: {{/x: {{upstream: https://x.example, credential: a}}}}\n"
    )
    settings = load(file)
    assert settings.warnings == ()
    return settings.credentials["a"]


def endpoint(folder: Path, fields: str) -> TokenEndpoint:
    """The token endpoint of that credential."""
    source = credential(folder, fields).source
    assert isinstance(source, TokenEndpoint)
    return source


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_works_with_what_only_the_user_knows(name: str, tmp_path: Path) -> None:
    choice = yaml.safe_dump({"name": name} | PARAMETERS.get(name, {}), default_flow_style=True).strip()

    assert endpoint(tmp_path, f"preset: {choice}, {PRESETS[name]}").token_url


@pytest.mark.parametrize(
    ("name", "token_url"), [("acronis-connector", "/bc/idp/token"), ("acronis-account", "/api/2/idp/token")]
)
def test_acronis(name: str, token_url: str, tmp_path: Path) -> None:
    brought = endpoint(tmp_path, f"preset: {name}, {BASIC}")

    assert brought.token_url == token_url
    assert (brought.client.auth, brought.client.basic_encoding) == ("client_secret_basic", "raw")
    assert (brought.grant_type, brought.send, brought.method) == ("client_credentials", "form", "POST")


def test_acceleration_cloud(tmp_path: Path) -> None:
    whole = credential(tmp_path, f"preset: acceleration-cloud, {BASIC}")

    brought = whole.source
    assert isinstance(brought, TokenEndpoint)
    assert (brought.token_url, brought.send, brought.method) == ("/api/v1/auth/oauth2/token", "query", "POST")
    assert (brought.client.auth, brought.client.basic_encoding) == ("client_secret_basic", "raw")
    assert {name: text.reveal() for name, text in brought.headers.items()} == {"Accept": "application/json"}
    assert {name: text.reveal() for name, text in brought.params.items()} == {"user_id": "{principal}"}
    assert whole.principal == Principal("X-User-Id")
    assert whole.reading.refusal == RefusalMark(("code",), (0, 200))


def test_ocp(tmp_path: Path) -> None:
    brought = endpoint(tmp_path, "preset: ocp, username: u, password: p")

    assert brought.token_url == "/auth/realms/master/protocol/openid-connect/token"
    assert brought.logout_url == "/auth/realms/master/protocol/openid-connect/logout"
    assert (brought.grant_type, brought.client.auth) == ("password", "none")
    assert brought.client.id is not None
    assert brought.client.id.reveal() == "ocp"


def test_parameters_stand_in_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARWARD_REALM", "r2")
    user = "username: u, password: p"
    without_path = endpoint(tmp_path, f'preset: {{name: ocp, base_path: "", realm: r1}}, {user}')
    from_variable = endpoint(tmp_path, f"preset: {{name: ocp, realm: {{env: BEARWARD_REALM}}}}, {user}")

    assert without_path.logout_url == "/realms/r1/protocol/openid-connect/logout"
    assert from_variable.token_url == "/auth/realms/r2/protocol/openid-connect/token"


def test_atlas(tmp_path: Path) -> None:
    brought = endpoint(tmp_path, f"preset: {{name: atlas, realm: acme}}, {BASIC}")

    assert brought.token_url == "https://auth.is2.app/auth/realms/acme/protocol/openid-connect/token"
    assert (brought.client.auth, brought.client.basic_encoding) == ("client_secret_basic", "form")


def test_what_the_config_gives_wins(tmp_path: Path) -> None:
    mixed = endpoint(tmp_path, f"preset: acronis-connector, {BASIC}, token_url: /other, basic_encoding: form")

    assert (mixed.token_url, mixed.client.basic_encoding) == ("/other", "form")


def test_mappings_are_merged_key_by_key(tmp_path: Path) -> None:
    fields = "params: {user_id: 'x{principal}', more: m}, headers: {accept: '*/*', X-A: a}, principal: {max: 5}"
    mixed = credential(tmp_path, f"preset: acceleration-cloud, {BASIC}, {fields}, response: {{token: t}}")

    source = mixed.source
    assert isinstance(source, TokenEndpoint)
    assert {name: text.reveal() for name, text in source.params.items()} == {"user_id": "x{principal}", "more": "m"}
    assert {name: text.reveal() for name, text in source.headers.items()} == {"accept": "*/*", "X-A": "a"}
    assert mixed.principal == Principal("X-User-Id", 5)
    assert (mixed.reading.token, mixed.reading.refusal) == (("t",), RefusalMark(("code",), (0, 200)))


def test_null_removes_what_a_preset_brings(tmp_path: Path) -> None:
    fields = "principal: null, params: {user_id: null}, headers: {accept: null}, response: null, send: null"
    bare = credential(tmp_path, f"preset: acceleration-cloud, {BASIC}, {fields}")

    source = bare.source
    assert isinstance(source, TokenEndpoint)
    assert (bare.principal, bare.reading.refusal) == (None, None)
    assert (source.params, source.headers, source.send) == ({}, {}, "form")


def test_an_encoding_that_is_removed_is_nobodys_choice(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"credentials: {{a: {{preset: acronis-connector, {BASIC}, basic_encoding: null}}}}\n"
        "routes: {/x: {upstream: https://x.example, credential: a}}\n"
    )

    (warning,) = load(file).warnings

    assert "basic_encoding" in warning


def test_one_use_of_a_preset_does_not_change_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        credential(tmp_path, f"preset: acceleration-cloud, {BASIC}, params: {{user_id: 1}}, send: nothing")

    assert credential(tmp_path, f"preset: acceleration-cloud, {BASIC}").principal == Principal("X-User-Id")
