"""Configs as a user of a preset writes them (the preset's name, URLs and credentials), and what they name."""

from collections.abc import Iterator
from typing import Any

from vendors.acceleration_cloud import AccelerationCloud
from vendors.acronis import AcronisClient
from vendors.atlas import Atlas
from vendors.ocp import Ocp

Config = dict[str, Any]

NAMED_FILES = {"token_file", "ca_file", "cert_file", "key_file"}
"""Fields whose text is a path, as is `path` beside `source: file`."""


def acronis_credential(client: AcronisClient, preset: str = "acronis-connector", **more: Any) -> Config:
    """One client for every data center."""
    return {"preset": preset, "client_id": client.id, "client_secret": client.secret} | more


def acceleration_credential(vendor: AccelerationCloud, **more: Any) -> Config:
    """One client for every user."""
    return {
        "preset": "acceleration-cloud",
        "client_id": vendor.client_id,
        "client_secret": vendor.client_secret,
    } | more


def ocp_credential(ocp: Ocp, **more: Any) -> Config:
    """One user."""
    return {"preset": "ocp", "username": ocp.username, "password": ocp.password} | more


def atlas_credential(atlas: Atlas, **more: Any) -> Config:
    """One client; the preset's own token URL leads to the vendor's real host."""
    return {
        "preset": {"name": "atlas", "realm": atlas.realm},
        "token_url": atlas.token_url,
        "client_id": atlas.client_id,
        "client_secret": atlas.client_secret,
    } | more


def atlas_config(vendors: dict[str, Atlas], **route: Any) -> Config:
    """A credential and a route, `/NAME`, for each of some realms; `route` adds to every route."""
    return {
        "credentials": {name: atlas_credential(atlas) for name, atlas in vendors.items()},
        "routes": {f"/{name}": {"upstream": atlas.api, "credential": name} | route for name, atlas in vendors.items()},
    }


def ocp_config(ocp: Ocp, **credential: Any) -> Config:
    """The route `/ocp` and its credential."""
    return {
        "credentials": {"ocp": ocp_credential(ocp, **credential)},
        "routes": {"/ocp": {"upstream": f"{ocp.url}/api", "credential": "ocp"}},
    }


def references(config: Any) -> Iterator[tuple[str, str]]:
    """Each {env: NAME} and {file: PATH} of a config, as pairs; what stands in `NAMED_FILES` is a file as well."""
    match config:
        case {"env": str(name)} | {"file": str(name)} if config.keys() <= {"env", "file", "field"}:
            yield next(iter(config)), name
        case dict():
            for key, value in config.items():
                is_file = key in NAMED_FILES or (key == "path" and config.get("source") == "file")
                yield from references({"file": value} if is_file and isinstance(value, str) else value)
        case list():
            for value in config:
                yield from references(value)
