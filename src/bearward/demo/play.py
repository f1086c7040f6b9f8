"""The composition: a vendor, a config file that leads to it, and bearward in between, until a signal or the end."""

import asyncio
import contextlib
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from textwrap import indent
from typing import Final

import yaml

from .. import events
from ..address import Address
from ..app import App, event_loop
from ..config import ConfigError, load
from ..ops.logs import EventLog, open_log
from ..run import watch_signals
from .once import make_calls, table
from .vendor import CLIENT_ID, CLIENT_PATH, TOKEN_HEADER, DataCenter, IdentityProvider

LIFETIME: Final = 20.0
"""How long a token lives, in seconds; Acronis' live two hours."""
DATA_CENTERS: Final = ("eu8", "us5")
WRONG_USAGE: Final = 2

_CREDENTIAL_AND_ROUTES: Final = f"""
credentials:
  acronis:
    preset: acronis-connector
    client_id: {CLIENT_ID}
    client_secret: {{file: client-secret}}

routes:
  /{{data_center}}: {{upstream: "{{data_center}}", credential: acronis}}
"""


def demo(listen: str | None, admin: str | None, *, once: bool = False, lifetime: float = LIFETIME) -> int:
    """Plays the demo; the exit code. Raises `BindError` where an address cannot be had.

    Addresses are HOST:PORT. Where none is given: bearward's own defaults, and with `once` any free port.
    """
    listen = listen or ("127.0.0.1:0" if once else "127.0.0.1:8080")
    admin = admin or ("127.0.0.1:0" if once else "127.0.0.1:9465")
    if listen.startswith("unix:") or admin.startswith("unix:"):
        return _wrong_usage("the demo listens on HOST:PORT alone")
    with (
        tempfile.TemporaryDirectory(prefix="bearward-demo-") as folder,
        asyncio.Runner(loop_factory=event_loop()) as runner,
    ):
        try:
            return runner.run(_play(listen, admin, Path(folder), once=once, lifetime=lifetime))
        except ConfigError as error:  # all but the two addresses is ours
            return _wrong_usage(*(f"{fault.path}: {fault.text}" for fault in error.faults))


async def _play(listen: str, admin: str, folder: Path, *, once: bool, lifetime: float) -> int:
    stopping = watch_signals()
    # A terminal that is closed ends the demo as Ctrl-C does, so that the folder does not stay behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stopping.set)
    async with contextlib.AsyncExitStack() as ends:
        identity_provider = IdentityProvider(lifetime)
        data_centers = [await ends.enter_async_context(DataCenter(name, identity_provider)) for name in DATA_CENTERS]
        config = _write_config(folder, listen, admin, data_centers, identity_provider.client_secret)
        app = App(load(config), [_observer(data_centers)])
        await app.start()
        ends.push_async_callback(app.stop)
        if once:
            return await _once(app.listen, data_centers, 2 * lifetime, stopping)
        _say(_introduction(app, config, lifetime))
        await stopping.wait()
    return 0


async def _once(listen: Address, data_centers: Sequence[DataCenter], seconds: float, stopping: asyncio.Event) -> int:
    _say(f"Two token lifetimes, {seconds:g} seconds, of calls to {' and '.join(DATA_CENTERS)} ...")
    outcomes = await make_calls({one: _url(listen, one.name) for one in data_centers}, seconds, stopping)
    _say(f"\n{table(outcomes)}")
    return 1 if any(outcome.fault for outcome in outcomes) else 0


def _write_config(
    folder: Path, listen: str, admin: str, data_centers: Sequence[DataCenter], client_secret: str
) -> Path:
    """The config and the secret that it names, as an operator would lay them down."""
    (folder / "client-secret").write_text(client_secret)
    addresses = yaml.safe_dump({"listen": listen, "admin": admin}, sort_keys=False)
    urls = "".join(f"  {one.name}: {one.url}\n" for one in data_centers)
    config = folder / "bearward.yaml"
    config.write_text(f"{addresses}\ndata_centers:\n{urls}{_CREDENTIAL_AND_ROUTES}")
    return config


def _introduction(app: App, config: Path, lifetime: float) -> str:
    calls = [f"curl -i {shlex.quote(_url(app.listen, name))}" for name in DATA_CENTERS]
    tries = "\n      ".join([*calls, f"curl {shlex.quote(f'http://{app.admin}/readyz?verbose')}"])
    return (
        f"An identity provider, the data centers {' and '.join(DATA_CENTERS)}, and bearward in front of them.\n"
        f"Tokens live {lifetime:g} seconds. This is the config it runs with, {config}:\n\n"
        f"{indent(config.read_text(), '    ')}\n"
        f"Try:  {tries}\n\n"
        f"{TOKEN_HEADER} in an answer is the fingerprint of the token that came with the call. Ctrl-C ends the demo.\n"
    )


def _url(listen: Address, data_center: str) -> str:
    return f"http://{listen}/{data_center}{CLIENT_PATH}"


def _observer(data_centers: Sequence[DataCenter]) -> events.Observer:
    """On a terminal a line for each new token, and the log for what goes wrong; elsewhere the log alone."""
    if not sys.stdout.isatty():
        return EventLog(open_log("info", "auto"))
    log = EventLog(open_log("warning", "auto"))
    names = {one.host_and_port: one.name for one in data_centers}

    def observe(event: events.Event) -> None:
        if isinstance(event, events.TokenRefreshed):
            with contextlib.suppress(OSError):  # the terminal may be gone
                _say(_refresh_line(event, names[event.credential.rpartition("@")[2]]))
        log(event)

    return observe


def _refresh_line(event: events.TokenRefreshed, data_center: str) -> str:
    what = "first token" if event.generation == 1 else "refreshed"
    return (
        f"{datetime.now():%H:%M:%S}  {data_center}  {what:<11}  {event.fingerprint}  "  # noqa: DTZ005 local: for people
        f"lives {event.lifetime:.0f} s, next refresh in {event.refresh_in:.0f} s"
    )


def _wrong_usage(*faults: str) -> int:
    print(*faults, sep="\n", file=sys.stderr)  # noqa: T201
    return WRONG_USAGE


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
