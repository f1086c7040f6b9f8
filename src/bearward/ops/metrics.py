"""Prometheus metrics: numbers that routes and tokens keep, or that are counted from events; a scrape reads them.

Labels are bounded by the config, and every label set that can be known is there from the start: a counter that
appears with its first failure hides that failure from `increase()`.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from .. import __version__, events
from ..proxy.tally import DURATIONS, Durations, Tally
from ..tokens.failure import Reason
from ..tokens.token import TokenStatus
from .state import State

REJECTIONS: Final = (
    *("bad_request", "bad_path", "origin_not_allowed", "header_required", "no_route", "method_not_allowed"),
    *("request_timeout", "target_too_long", "host_not_allowed", "headers_too_large", "internal_error"),
    *("overloaded", "draining", "version_not_supported"),
)
UPSTREAM_FAILURES: Final = (
    *("upstream_unreachable", "upstream_tls", "upstream_protocol", "upstream_closed", "upstream_timeout"),
    "truncated",
)
FIRST_CODES: Final = (
    *((200, "upstream"), (401, "upstream")),
    *((code, "proxy") for code in (400, 408, 413, 417, 499, 500, 502, 503, 504)),
)
"""What a route answers of its own, and what an upstream answers to a good token and to a bad one."""
_BOUNDS: Final = (*map(str, DURATIONS), "+Inf")

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Values after the values of their labels."""


class Metrics(Collector):
    """An observer that counts, and the collector of all that is shown.

    What is shown is what `state` holds at that moment; what was counted of a route or credential that is gone stays
    for its return.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._is_config_good = True
        self._config_read_at = time.time()
        self._rejected = Counter(dict.fromkeys(REJECTIONS, 0))
        self._upstream_failures = _by_reason(UPSTREAM_FAILURES)
        self._refreshes: defaultdict[str, Durations] = defaultdict(Durations)
        self._refresh_failures = _by_reason(Reason)
        self._heard: dict[type, Callable[[Any], None]] = {
            events.RequestRejected: self._request_rejected,
            events.UpstreamFailed: self._upstream_failed,
            events.TokenRequested: self._token_requested,
        }

    def __call__(self, event: events.Event) -> None:
        heard = self._heard.get(type(event))
        if heard is not None:
            heard(event)

    def config_read(self, *, ok: bool) -> None:
        """The config was read again: it is in force now, or at fault."""
        self._is_config_good = ok
        if ok:
            self._config_read_at = time.time()

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self)

    def _request_rejected(self, event: events.RequestRejected) -> None:
        self._rejected[event.reason] += 1

    def _upstream_failed(self, event: events.UpstreamFailed) -> None:
        self._upstream_failures[event.route][event.reason] += 1

    def _token_requested(self, event: events.TokenRequested) -> None:
        self._refreshes[event.credential].took(event.seconds)
        if event.failure is not None:
            self._refresh_failures[event.credential][event.failure] += 1

    def collect(self) -> Iterator[Metric]:
        """All that is shown, read now."""
        yield InfoMetricFamily("bearward_build", "The running version", {"version": __version__})
        rejected: Samples = (((reason,), count) for reason, count in self._rejected.items())
        yield _counter("rejected_requests", "Requests refused before any route was asked", ["reason"], rejected)
        yield from self._of_routes({prefix: path.tally for prefix, (path, _) in self._state.routes.items()})
        yield from self._of_tokens({source.label: source.statuses() for source in self._state.sources})
        successful, timestamp = float(self._is_config_good), self._config_read_at
        name = "config_last_reload_successful"
        yield _gauge(name, "Whether the last reading of the config found no fault", [], [((), successful)])
        name = "config_last_reload_success_timestamp_seconds"
        yield _gauge(name, "When the config in force was read", [], [((), timestamp)])

    def _of_routes(self, tallies: Mapping[str, Tally]) -> Iterator[Metric]:
        requests: Samples = (sample for prefix, tally in tallies.items() for sample in _requests(prefix, tally))
        yield _counter("requests", "Requests by route", ["route", "method", "code", "origin"], requests)
        yield _histogram("request_duration_seconds", "From a request's head to its answer's end", "route", tallies)
        for name, text, family, attribute in _ROUTE_READINGS:
            readings: Samples = (((prefix,), getattr(tally, attribute)) for prefix, tally in tallies.items())
            yield family(name, text, ["route"], readings)
        failures = _samples(tallies, self._upstream_failures)
        yield _counter("upstream_failures", "Upstreams that gave no whole answer", ["route", "reason"], failures)

    def _of_tokens(self, statuses: Mapping[str, list[TokenStatus]]) -> Iterator[Metric]:
        durations = {label: self._refreshes[label] for label in statuses}
        refreshes: Samples = (((label,), sum(of_source.buckets)) for label, of_source in durations.items())
        yield _counter("token_refreshes", "Token requests", ["credential"], refreshes)
        yield _histogram("token_refresh_duration_seconds", "Duration of a token request", "credential", durations)
        failures, labels = _samples(statuses, self._refresh_failures), ["credential", "reason"]
        yield _counter("token_refresh_failures", "Token requests that brought no token", labels, failures)
        for name, text, reading in _TOKEN_READINGS:
            readings: Samples = (((label,), reading(of_source)) for label, of_source in statuses.items())
            yield _gauge(name, text, ["credential"], readings)


def _by_reason(reasons: Iterable[str]) -> defaultdict[str, Counter[str]]:
    """Counts by route or credential, and by reason; those of `reasons` are always there."""
    nothing = dict.fromkeys(map(str, reasons), 0)
    return defaultdict(lambda: Counter(nothing))


def _samples(names: Iterable[str], counts: Mapping[str, Counter[str]]) -> Samples:
    return (((name, reason), count) for name in names for reason, count in counts[name].items())


def _requests(prefix: str, tally: Tally) -> Samples:
    """Counts by method, code and origin; the first codes of every method that was seen, and of GET, are there."""
    methods = dict.fromkeys([b"GET", *(method for method, _, _ in tally.requests)])
    counts = {(method, *first): 0 for method in methods for first in FIRST_CODES} | tally.requests
    return (((prefix, method.decode(), str(code), origin), n) for (method, code, origin), n in counts.items())


def _counter(name: str, text: str, labels: list[str], samples: Samples) -> Metric:
    return _filled(CounterMetricFamily(f"bearward_{name}", text, labels=labels), samples)


def _gauge(name: str, text: str, labels: list[str], samples: Samples) -> Metric:
    return _filled(GaugeMetricFamily(f"bearward_{name}", text, labels=labels), samples)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, samples: Samples) -> Metric:
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histogram(name: str, text: str, label: str, durations: Mapping[str, Durations]) -> Metric:
    family = HistogramMetricFamily(f"bearward_{name}", text, labels=[label])
    for own, each in durations.items():
        family.add_metric([own], list(zip(_BOUNDS, accumulate(each.buckets), strict=True)), each.seconds)
    return family


_ROUTE_READINGS: Final = (
    ("requests_in_flight", "Requests on their way", _gauge, "in_flight"),
    ("request_body_bytes", "Bytes of request bodies from clients", _counter, "request_bytes"),
    ("response_body_bytes", "Bytes of answer bodies from upstreams", _counter, "response_bytes"),
    ("upstream_unauthorized", "Answers of status 401 that another token may heal", _counter, "unauthorized"),
    ("replays", "Requests sent again with a new token after a 401", _counter, "replays"),
)


def _soonest(statuses: list[TokenStatus], time: Callable[[TokenStatus], float | None]) -> float:
    """Of tokens that are to be refreshed: one that nobody asks for may end without harm."""
    return min((time(status) or 0.0 for status in statuses if status.refresh_due_at is not None), default=0.0)


_TOKEN_READINGS: Final[tuple[tuple[str, str, Callable[[list[TokenStatus]], float]], ...]] = (
    (
        "token_expiry_timestamp_seconds",
        "When the token ends (the first of several); 0 where there is none",
        lambda statuses: _soonest(statuses, lambda status: status.expires_at),
    ),
    (
        "token_refresh_due_timestamp_seconds",
        "When the next token request is due (the first of several); 0 where none is planned",
        lambda statuses: _soonest(statuses, lambda status: status.refresh_due_at),
    ),
    (
        "token_last_refresh_success_timestamp_seconds",
        "When the newest token was requested; 0 where there is none",
        lambda statuses: max((status.last_refresh_at or 0.0 for status in statuses), default=0.0),
    ),
    ("token_waiters", "Requests that wait for a token", lambda statuses: sum(status.waiters for status in statuses)),
    ("tokens_held", "Tokens that can be used", lambda statuses: sum(status.is_usable for status in statuses)),
    (
        "idp_clock_skew_seconds",
        "The identity provider's clock minus ours",
        lambda statuses: max((status.clock_skew or 0.0 for status in statuses), key=abs, default=0.0),
    ),
)
