"""What a route has carried so far: plain numbers that a request adds to and a scrape reads.

A request costs a few additions here; counters with locks and labels would cost ten times as much.
"""

from bisect import bisect_left
from collections import defaultdict
from typing import Final

DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram's buckets, in seconds, included in their bucket; one more bucket has the rest."""


class Durations:
    """A histogram of what took how long."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(DURATIONS) + 1)
        """How many took how long; each is counted in one bucket only."""
        self.seconds = 0.0
        """What they took together."""

    def took(self, seconds: float) -> None:
        """One more, which took so long."""
        self.buckets[bisect_left(DURATIONS, seconds)] += 1
        self.seconds += seconds


class Tally(Durations):
    """One route's numbers; a route that stays over a reload keeps them."""

    __slots__ = ("in_flight", "replays", "request_bytes", "requests", "response_bytes", "unauthorized")

    def __init__(self) -> None:
        super().__init__()
        self.in_flight = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.unauthorized = 0
        self.replays = 0
        self.requests: defaultdict[tuple[bytes, int, str], int] = defaultdict(int)
        """How many requests ended, by method, status and who made the status (`upstream` or `proxy`)."""

    def done(self, method: bytes, code: int, origin: str, seconds: float) -> None:
        """A request came to its end; `code` 499 where its client left before an answer."""
        self.requests[method, code, origin] += 1
        self.buckets[bisect_left(DURATIONS, seconds)] += 1
        self.seconds += seconds
