"""argv → exit code: 0 done, 1 failed at run time, 2 wrong usage, 78 the config is at fault."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import click

from . import __version__
from .config import ConfigError, Settings, load
from .errors import os_reason

CONFIG_FAULT: Final = 78  # EX_CONFIG of sysexits.h

config_option = click.option(
    "-c", "--config", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The config, a YAML file."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bearward", message="%(prog)s %(version)s")
def main() -> None:
    """A local reverse proxy that injects bearer tokens and keeps them fresh."""


def program() -> None:
    """The command line; what cannot be written (a full disk, a closed pipe) is an exit code 1, not a traceback."""
    _open_standard_streams()
    try:
        main(prog_name="bearward")
    except OSError as error:
        _fail(os_reason(error))


def _open_standard_streams() -> None:
    """A descriptor below 3 that the caller closed would be given to the next socket, and then be written to."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123


@main.command()
@config_option
def run(config: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    from .config.apart import Reading

    for number in (signal.SIGTERM, signal.SIGINT):  # until the loop has its own: as process 1 there is no default
        signal.signal(number, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # it waits until there is somebody to read again
    reading = Reading(config)
    try:
        from .app import BindError, TlsFilesError, UnsafeParserError  # takes about as long as reading does
        from .run import run
    except ImportError as error:
        _fail(f"a library does not load, install bearward again from wheels for this platform: {error}")

    settings = _settings(reading.settings)
    try:
        run(settings, config)
    except BindError as error:
        _fail(f"{error}; {config} names the addresses as listen and admin")
    except (UnsafeParserError, TlsFilesError) as error:
        _fail(str(error))


@main.command()
@config_option
def check(config: Path) -> None:
    """Report every fault of a config; start nothing."""
    settings = _settings(lambda: load(config))
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    counts = [(len(settings.routes), "route"), (len(settings.credentials), "credential")]
    counts += [(len(settings.warnings), "warning")] if settings.warnings else []
    told = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
    click.echo(f"{config}: no faults, {told}")


@main.command()
@click.argument("name")
@config_option
@click.option("--principal", default="", metavar="USER", help="On whose behalf, where the credential has principals.")
@click.option("--show", is_flag=True, help="Print the token itself; its session is then not ended.")
@click.option(
    "--spend", is_flag=True, help="Use the refresh token of a grant_type: refresh_token, though a server may use it up."
)
def token(name: str, config: Path, principal: str, show: bool, spend: bool) -> None:
    """Obtain one token of the credential NAME; show how, its lifetime and claims, or why there is none.

    NAME is the credential's name, or NAME@HOST:PORT where it has a token for each data center. With grant_type:
    refresh_token, also of a credential that NAME is chained to, nothing is sent without --spend: it may end the
    session of a bearward that runs.
    """
    from .inspect_token import NotInspectedError, inspect_token

    try:
        sys.exit(inspect_token(_settings(lambda: load(config)), name, principal, show=show, spend=spend))
    except NotInspectedError as error:
        raise click.UsageError(str(error)) from None


@main.command()
@click.option("--once", is_flag=True, help="Make a few calls over two token lifetimes, print a table, and end.")
@click.option("--listen", metavar="HOST:PORT", help="Default: 127.0.0.1:8080; with --once any free port.")
@click.option("--admin", metavar="HOST:PORT", help="Default: 127.0.0.1:9465; with --once any free port.")
def demo(once: bool, listen: str | None, admin: str | None) -> None:
    """Try it out: an identity provider, two data centers and bearward, all on this machine."""
    from .app import BindError
    from .demo import demo

    try:
        sys.exit(demo(listen, admin, once=once))
    except BindError as error:
        _fail(f"{error}; --listen and --admin take other addresses")


def _settings(read: Callable[[], Settings]) -> Settings:
    try:
        return read()
    except ConfigError as error:
        click.echo("\n".join(map(str, error.faults)), err=True)
        sys.exit(CONFIG_FAULT)
    except OSError as error:
        _fail(str(error))


def _fail(reason: str) -> NoReturn:
    with contextlib.suppress(OSError):
        click.echo(f"bearward: {reason}", err=True)
    sys.exit(1)
