"""The log: events as lines, readable on a terminal, JSON otherwise.

Nothing of a request or an answer gets here: events hold no secrets, and of other libraries' records only the first
line and the place of an error are kept, because the text of an exception may repeat what was sent.
"""

import json
import logging
import os
import sys
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict

from .. import events

LEVELS: Final[dict[type, tuple[str, str]]] = {
    events.TokenRequested: ("debug", "token request ended"),
    events.TokenRefreshed: ("info", "token refreshed"),
    events.RefreshFailed: ("warning", "token refresh failed"),
    events.LogoutTried: ("info", "logout tried"),
    events.TokenEvicted: ("debug", "token of a principal evicted"),
    events.TokenMarkedBad: ("warning", "upstream refused the token"),
    events.SecretChanged: ("info", "secret changed"),
    events.RequestDone: ("debug", "request done"),
    events.UpstreamFailed: ("warning", "upstream failed"),
    events.RequestRejected: ("info", "request rejected"),
    events.Crashed: ("error", "internal error, please report it"),
}
QUIET: Final = 60.0
"""For how long a library's message is not repeated, in seconds: some come thousands of times a second."""
MOST_MESSAGES: Final = 100
_COLORS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31"}


class EventLog:
    """An observer that writes events as log lines."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._without_lifetime: set[str] = set()
        # Told apart before a line is put together: one of them comes with every request.
        self._silent = {kind for kind, (level, _) in LEVELS.items() if not log.is_enabled_for(_number(level))}
        self._silent -= {events.RefreshFailed, events.TokenRefreshed}  # these may also warn

    def __call__(self, event: events.Event) -> None:
        if type(event) in self._silent:
            return
        level, text = LEVELS[type(event)]
        if isinstance(event, events.RefreshFailed) and event.for_good:
            level = "error"
        getattr(self._log, level)(text, **{name: _rounded(getattr(event, name)) for name in event.__slots__})
        if isinstance(event, events.TokenRefreshed) and event.lifetime_from == "default":
            self._warn_of_missing_lifetime(event.credential)

    def _warn_of_missing_lifetime(self, credential: str) -> None:
        if credential not in self._without_lifetime:
            self._without_lifetime.add(credential)
            self._log.warning("answer tells no lifetime; 5 minutes are assumed, set ttl", credential=credential)


def open_log(level: str, form: Literal["auto", "text", "json"]) -> Any:
    """The process's logger, on standard error; other libraries' warnings go the same way."""
    stream = sys.stderr
    as_text = form == "text" or (form == "auto" and stream.isatty())
    processors: list[Any] = [structlog.processors.add_log_level]
    if as_text:
        processors += [
            structlog.processors.TimeStamper("%H:%M:%S", utc=False),
            _Text(stream.isatty() and "NO_COLOR" not in os.environ),
        ]
    else:
        processors += [structlog.processors.TimeStamper("iso", key="time"), structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=lambda *_: _Sink(stream),
        cache_logger_on_first_use=True,
    )
    log = structlog.get_logger()
    logging.basicConfig(handlers=[_Foreign(log)], level=logging.WARNING, force=True)
    return log


class _Sink:
    """Writes lines. A full disk or a closed pipe costs the line, never the process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = msg


class _Text:
    """`TIME LEVEL event  name=value …`, every value on one line and free of control characters."""

    def __init__(self, colors: bool) -> None:
        self._colors = colors

    def __call__(self, _logger: object, _method: str, event: EventDict) -> str:
        level, text, at = event.pop("level"), event.pop("event"), event.pop("timestamp")
        shown = f"\x1b[{_COLORS.get(level, '0')}m{level:<7}\x1b[0m" if self._colors else f"{level:<7}"
        values = " ".join(f"{name}={_plain(value)}" for name, value in event.items() if value is not None)
        return f"{at} {shown} {text:<28} {values}".rstrip()


class _Foreign(logging.Handler):
    """Other libraries' records: their logger, their first line, and where an error came from."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log
        self._last: dict[tuple[str, str], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        where = events.place_of(error) if error is not None else None
        first_line = str(record.msg).partition("\n")[0][:200]
        if record.created - self._last.get((record.name, first_line), 0.0) < QUIET:
            return
        if len(self._last) > MOST_MESSAGES:
            self._last.clear()
        self._last[record.name, first_line] = record.created
        self._log.warning("library message", logger=record.name, text=first_line, where=where)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _plain(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and '"' not in text else json.dumps(text)


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
