"""What the failures so far mean for the next attempt. Pure; times are seconds of one clock."""

from . import schedule
from .failure import Reason, TokenRequestError


class Backoff:
    """The failures of one key since its last token.

    Refusals are counted for the secrets that were refused, whatever else fails in between: each of them may count
    towards the lock of an account.
    """

    __slots__ = (
        "_failed_at", "_not_before", "_refusals", "_refused", "_retry_at", "_transients", "_uniform", "failure",
        "failures",
    )  # fmt: skip

    def __init__(self, uniform: schedule.Uniform) -> None:
        self._uniform = uniform
        self._refused: bytes | None = None
        self.succeed()

    def succeed(self) -> None:
        """Forgets everything: there is a token."""
        self._refusals = 0
        self.restart()

    def restart(self) -> None:
        """Lets the next attempt be made at once, because a secret has changed."""
        self.failure: TokenRequestError | None = None
        self.failures = 0
        self._transients = 0
        self._failed_at = self._retry_at = self._not_before = 0.0

    def note(self, failure: TokenRequestError, now: float, secrets: bytes | None) -> None:
        """Counts a failure; `secrets` is a digest of what was sent."""
        self.failure = failure
        self.failures += 1
        if failure.reason is Reason.PASSWORD_REFUSED and not failure.sent:
            self._failed_at = now
            self._retry_at = self._not_before = now + (failure.retry_after or 0.0)
            return
        if failure.for_good:
            self._refusals = self._refusals + 1 if secrets == self._refused else 1
            self._refused, self._transients = secrets, 0
        else:
            self._transients += 1
        self._failed_at = now
        self._not_before = now + (failure.retry_after or 0.0)
        count = self._refusals if failure.for_good else self._transients
        reason = Reason.REFUSED if failure.is_chains_end else failure.reason
        delay = schedule.retry_delay(reason, count, self._uniform)
        self._retry_at = max(now + delay, self._not_before)

    def due(self, *, is_urgent: bool) -> float:
        """When to try again. Urgent: requests wait and no token is usable, which shortens what is transient."""
        if is_urgent and self.failure is not None and not self.failure.for_good:
            return max(min(self._retry_at, self._failed_at + schedule.IMPATIENT), self._not_before)
        return self._retry_at
