"""The log: events as lines, readable on a terminal, JSON otherwise.

Nothing of a request or an answer gets here: events hold no secrets, and of other libraries' records only the first
line and the place of an error are kept, because the text of an exception may repeat what was sent.
"""

import json
import logging
import os
import sys
from functools import cache
from typing import Any, Final, Literal

import structlog
from structlog.typing import EventDict

from .. import events
from .sink import Sink, standard_error

LEVELS: Final[dict[type, tuple[str, str]]] = {
    events.TokenRequested: ("debug", "token request ended"),
    events.TokenRefreshed: ("info", "token refreshed"),
    events.RefreshFailed: ("warning", "token refresh failed"),
    events.LogoutTried: ("info", "logout tried"),
    events.TokenEvicted: ("debug", "token of a principal evicted"),
    events.TokenMarkedBad: ("warning", "upstream refused the token"),
    events.SecretChanged: ("info", "secret changed"),
    events.UpstreamFailed: ("warning", "upstream failed"),
    events.RequestRejected: ("info", "request rejected"),
    events.ConfigApplied: ("info", "config read again"),
    events.ConfigRefused: ("error", "config at fault, the last one stays in force"),
    events.StoreIgnored: ("warning", "token store ignored"),
    events.StoreFailed: ("warning", "token store not written"),
    events.StoreRecovered: ("warning", "token store written again"),
    events.StoreFull: ("warning", "token store full"),
    events.Crashed: ("error", "internal error, please report it"),
}
Form = Literal["auto", "text", "json"]

QUIET: Final = 60.0
"""For how long a library's message is not repeated, in seconds: some come thousands of times a second."""
MOST_MESSAGES: Final = 100
_COLORS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31"}


class EventLog:
    """An observer that writes events as log lines."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._without_lifetime: set[str] = set()

    def __call__(self, event: events.Event) -> None:
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


def open_log(level: str, form: Form) -> Any:
    """The process's logger, on standard error; other libraries' warnings go the same way."""
    sink, processors = standard_error(), _processors(form)
    sink.notice = lambda count: rendered(form, "warning", "log lines dropped", count=count)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=lambda *_: _Output(sink),
        cache_logger_on_first_use=True,
    )
    log = structlog.get_logger()
    logging.basicConfig(handlers=[_Foreign(log)], level=logging.WARNING, force=True)
    return log


def is_text(form: Form) -> bool:
    """Whether lines are for people."""
    return form == "text" or (form == "auto" and sys.stderr.isatty())


def rendered(form: Form, level: str, text: str, **facts: object) -> str:
    """A line as the logger would write it, whatever its level."""
    line: Any = facts | {"event": text}
    for process in _processors(form):
        line = process(None, level, line)
    return str(line)


@cache
def _processors(form: Form) -> list[Any]:
    processors: list[Any] = [structlog.processors.add_log_level]
    if is_text(form):
        stamp: Any = structlog.processors.TimeStamper("%H:%M:%S", utc=False)
        return [*processors, stamp, _Text(sys.stderr.isatty() and "NO_COLOR" not in os.environ)]
    return [*processors, structlog.processors.TimeStamper("iso", key="time"), structlog.processors.JSONRenderer()]


class _Output:
    """What structlog hands its lines to."""

    def __init__(self, sink: Sink) -> None:
        self.debug = self.info = self.warning = self.error = sink.write


class _Text:
    """`TIME LEVEL event  name=value …`, all on one line and free of control characters."""

    def __init__(self, colors: bool) -> None:
        self._colors = colors

    def __call__(self, _logger: object, _method: str, event: EventDict) -> str:
        level, text, at = event.pop("level"), event.pop("event"), event.pop("timestamp")
        text = text if text.isprintable() else json.dumps(text)[1:-1]
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
