"""Prometheus metrics: counters that hear of events, and gauges that are read when they are asked for.

Labels are bounded by the config, and every label set that can be known exists from the start: a counter that
appears with its first failure hides that failure from `increase()`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from .. import __version__, events
from ..proxy.crossing import RoutePath
from ..tokens.failure import Reason
from ..tokens.source import TokenSource
from ..tokens.token import TokenStatus

REJECTIONS: Final = (
    *("bad_request", "bad_path", "origin_not_allowed", "no_route", "method_not_allowed", "target_too_long"),
    *("host_not_allowed", "headers_too_large", "version_not_supported", "draining", "internal_error"),
)
UPSTREAM_FAILURES: Final = (
    *("upstream_unreachable", "upstream_tls", "upstream_protocol", "upstream_closed", "upstream_timeout"),
    "truncated",
)
FIRST_CODES: Final = (("200", "upstream"), ("401", "upstream"), ("502", "proxy"), ("503", "proxy"), ("504", "proxy"))
DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """An observer that counts, and the registry of all that is shown."""

    def __init__(self, paths: Mapping[str, RoutePath], sources: Iterable[TokenSource]) -> None:
        self.registry = CollectorRegistry()
        Info("bearward_build", "The running version", registry=self.registry).info({"version": __version__})
        Gauge(
            "bearward_config_last_reload_successful",
            "Whether the last reading of the config found no fault",
            registry=self.registry,
        ).set(1)
        Gauge(
            "bearward_config_last_reload_success_timestamp_seconds",
            "When the config in force was read",
            registry=self.registry,
        ).set_to_current_time()
        self._requests = self._counter("requests", "Requests by route", "route", "method", "code", "origin")
        self._rejected = self._counter("rejected_requests", "Requests refused before any route was asked", "reason")
        self._upstream_failures = self._counter(
            "upstream_failures", "Upstreams that gave no whole answer", "route", "reason"
        )
        self._refreshes = self._counter("token_refreshes", "Token requests", "credential")
        self._refresh_failures = self._counter(
            "token_refresh_failures", "Token requests that brought no token", "credential", "reason"
        )
        durations = self._histogram("request_duration_seconds", "From a request's head to its answer's end", "route")
        refreshes = self._histogram("token_refresh_duration_seconds", "Duration of a token request", "credential")
        sources = tuple(sources)
        # `labels()` is slow: what a request needs is kept.
        self._durations = {prefix: durations.labels(prefix) for prefix in paths}
        self._refresh_durations = {source.label: refreshes.labels(source.label) for source in sources}
        self._children: dict[tuple[str, str, int, str], Counter] = {}
        self._exist_from_the_start(paths, sources)
        self.registry.register(_Readings(paths, sources))
        self._heard: dict[type, Callable[[Any], None]] = {
            events.RequestDone: self._request_done,
            events.RequestRejected: lambda event: self._rejected.labels(event.reason).inc(),
            events.UpstreamFailed: lambda event: self._upstream_failures.labels(event.route, event.reason).inc(),
            events.TokenRequested: self._token_requested,
        }

    def __call__(self, event: events.Event) -> None:
        heard = self._heard.get(type(event))
        if heard is not None:
            heard(event)

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"bearward_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, label: str) -> Histogram:
        return Histogram(f"bearward_{name}", text, [label], buckets=DURATIONS, registry=self.registry)

    def _exist_from_the_start(self, paths: Iterable[str], sources: Iterable[TokenSource]) -> None:
        for reason in REJECTIONS:
            self._rejected.labels(reason)
        for prefix in paths:
            for code, origin in FIRST_CODES:
                self._requests.labels(prefix, "GET", code, origin)
            for reason in UPSTREAM_FAILURES:
                self._upstream_failures.labels(prefix, reason)
        for source in sources:
            self._refreshes.labels(source.label)
            for cause in Reason:
                self._refresh_failures.labels(source.label, cause)

    def _request_done(self, event: events.RequestDone) -> None:
        key = (event.route, event.method, event.code, event.origin)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(*map(str, key))
        child.inc()
        self._durations[event.route].observe(event.seconds)

    def _token_requested(self, event: events.TokenRequested) -> None:
        self._refreshes.labels(event.credential).inc()
        self._refresh_durations[event.credential].observe(event.seconds)
        if event.failure is not None:
            self._refresh_failures.labels(event.credential, event.failure).inc()


class _Readings(Collector):
    """What is read from routes and tokens at the moment of a scrape."""

    def __init__(self, paths: Mapping[str, RoutePath], sources: Iterable[TokenSource]) -> None:
        self._paths = paths
        self._sources = tuple(sources)

    def collect(self) -> Iterator[Metric]:
        for name, text, kind, attribute in _ROUTE_READINGS:
            family = kind(f"bearward_{name}", text, labels=["route"])
            for prefix, path in self._paths.items():
                family.add_metric([prefix], getattr(path.tally, attribute))
            yield family
        statuses = {source.label: source.statuses() for source in self._sources}
        for name, text, reading in _TOKEN_READINGS:
            gauge = GaugeMetricFamily(f"bearward_{name}", text, labels=["credential"])
            for label, of_source in statuses.items():
                gauge.add_metric([label], reading(of_source))
            yield gauge


_ROUTE_READINGS: Final = (
    ("requests_in_flight", "Requests on their way", GaugeMetricFamily, "in_flight"),
    ("request_body_bytes", "Bytes of request bodies from clients", CounterMetricFamily, "request_bytes"),
    ("response_body_bytes", "Bytes of answer bodies from upstreams", CounterMetricFamily, "response_bytes"),
    ("upstream_unauthorized", "Answers of status 401 that another token may heal", CounterMetricFamily, "unauthorized"),
    ("replays", "Requests sent again with a new token after a 401", CounterMetricFamily, "replays"),
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
