"""`bearward run`: an app, until a signal ends it."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import structlog

from .app import AccessLog, App, TlsFilesError, event_loop
from .config import ConfigError, Settings
from .config.apart import Reading
from .errors import os_reason
from .events import place_of
from .ops.access import access_log
from .ops.logs import EventLog, open_log
from .ops.welcome import welcome

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
FIRST_TOKENS: Final = 5.0
"""How long the welcome waits for the first tokens, in seconds."""


def run(settings: Settings, config: Path) -> None:
    """Serves until SIGTERM or SIGINT; reads `config` again at SIGHUP. Raises what `App.start` raises."""
    _raise_file_limit()
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(_serve(settings, config))


def _raise_file_limit() -> None:
    """As many open files as the system allows: each request in flight takes two, and a shell's default is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(settings: Settings, config: Path) -> None:
    stopping, reloading = watch_signals(), _watch_for_reload()
    log, access = _open_logs(settings)
    something_happened = asyncio.Event()
    app = App(settings, [EventLog(log), lambda _event: something_happened.set()], access)
    await app.start()
    try:
        log.info("started", listen=str(app.listen), admin=str(app.admin), routes=len(app.state.routes))
        _say(f"bearward listens on {app.listen}, admin on {app.admin}")
        await _first(stopping.wait(), _until_started(app, something_happened))
        if not stopping.is_set():
            _say(welcome(app.state, app.listen, settings.require_header))
            # What is alive now stays: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            await _first(stopping.wait(), _reload(app, config, settings, reloading))
    finally:
        log = structlog.get_logger()  # as the config in force has it
        log.info("stopping")
        await app.stop()
        log.info("stopped")


def _open_logs(settings: Settings) -> tuple[Any, AccessLog | None]:
    log = open_log(settings.log.level, settings.log.format)
    for warning in settings.warnings:
        log.warning(warning)
    return log, access_log(settings.log.access, settings.log.format)


async def _reload(app: App, config: Path, first: Settings, reloading: asyncio.Event) -> None:
    """Puts the config in force again whenever it is asked for; one at fault changes nothing."""
    while True:
        await reloading.wait()
        reloading.clear()
        gc.collect()  # the config before the last one: it hangs together in circles, and certificates are large
        try:
            settings = await _read_again(config)
            log, access = _open_logs(settings)
            app.apply(settings, [EventLog(log)], access)
            if (settings.listen, settings.admin) != (first.listen, first.admin):
                log.warning("other addresses need a restart", listen=str(settings.listen), admin=str(settings.admin))
            if settings.token_store != first.token_store:
                log.warning("another token_store needs a restart")
        except ConfigError as error:
            app.refuse(len(error.faults), error.faults[0].headline)
        except (TlsFilesError, OSError) as error:
            app.refuse(1, f"{config}: {os_reason(error) if isinstance(error, OSError) else error}")
        except Exception as error:  # whatever it is, what serves goes on
            app.refuse(1, f"{config}: {place_of(error)}")


async def _read_again(config: Path) -> Settings:
    reading = await asyncio.to_thread(Reading, config)
    try:
        return await asyncio.to_thread(reading.settings)
    finally:
        reading.end()


async def _until_started(app: App, something_happened: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_TOKENS):
            while not app.state.is_started:
                something_happened.clear()
                await something_happened.wait()


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody has to read it
        print(text, flush=True)  # noqa: T201


def _watch_for_reload() -> asyncio.Event:
    """An event that SIGHUP sets. The loop's own handler would leave a SIGHUP after its end to kill the process."""
    loop, reloading = asyncio.get_running_loop(), asyncio.Event()

    def reload(*_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(reloading.set)

    signal.signal(signal.SIGHUP, reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one may have come while bearward started
    return reloading


def watch_signals() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; a second one ends the process at once with 128 + its number."""
    stopping = asyncio.Event()

    def stop(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    return stopping
