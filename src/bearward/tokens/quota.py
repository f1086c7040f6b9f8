"""How often a token endpoint may be asked (`max_token_requests`). Pure; times in seconds of one clock.

The identity provider counts a request when it reaches it, at any time until its answer is here. So a request counts
for the whole span after its end, and while it is under way.
"""

from collections.abc import Iterable

from .credential import Quota


class Budget:
    """The token requests of one credential at one token endpoint."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self._under_way = 0
        self._until: list[float] = []
        """Until when each request of the last span counts."""

    def restore(self, until: Iterable[float]) -> None:
        """Counts requests that were made before this process began."""
        self._until += until

    def counted(self, now: float, longest: float) -> list[float]:
        """Until when each request counts; one under way takes at most `longest` seconds from now."""
        self._until = [until for until in self._until if until > now]
        return [*self._until, *[now + longest + self.quota.seconds] * self._under_way]

    def wait(self, now: float) -> float:
        """The seconds until another request may be made; 0: now."""
        counted = sorted(self.counted(now, 0.0))
        over = len(counted) - self.quota.requests
        return counted[over] - now if over >= 0 else 0.0

    def begin(self) -> None:
        """A request is made now."""
        self._under_way += 1

    def end(self, now: float, *, counts: bool) -> None:
        """It came to its end; it counts unless it was never sent."""
        self._under_way -= 1
        if counts:
            self._until.append(now + self.quota.seconds)
