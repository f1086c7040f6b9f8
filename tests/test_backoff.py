"""When a token is asked for again: the arithmetic alone, with a clock of its own."""

import pytest

from bearward.tokens.backoff import Backoff
from bearward.tokens.failure import Reason, TokenRequestError
from bearward.tokens.schedule import lead, margin, retry_delay

MINUTE, HOUR = 60.0, 3600.0


def longest(_low: float, high: float) -> float:
    """The least lucky random number."""
    return high


class Failing:
    """A key whose token requests fail; each is made when the one before allows it."""

    def __init__(self) -> None:
        self.backoff = Backoff(longest)
        self.now = 1000.0

    def after(self, reason: Reason, *, secret: bytes = b"first", retry_after: float | None = None) -> float:
        """How long the next attempt is put off by a failure of now."""
        self.backoff.note(TokenRequestError(reason, "", retry_after), self.now, secret)
        before, self.now = self.now, self.backoff.due(is_urgent=False)
        return self.now - before


@pytest.mark.parametrize(
    ("reason", "delays"),
    [
        (Reason.SERVER_ERROR, [1, 2, 4, 8, 16, 32, 60, 60]),
        (Reason.REFUSED, [30, 60, 120, 240, 480, 600, 600]),
        (Reason.PASSWORD_REFUSED, [15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 6 * HOUR, 6 * HOUR]),
    ],
)
def test_delays_double_up_to_an_end(reason: Reason, delays: list[float]) -> None:
    failing = Failing()
    assert [failing.after(reason) for _ in delays] == delays
    assert retry_delay(reason, 10_000, longest) == delays[-1]


@pytest.mark.parametrize("between", [Reason.TIMEOUT, Reason.THROTTLED, Reason.SESSION_LIMIT, Reason.SECRET_UNREADABLE])
@pytest.mark.parametrize(("refusal", "first"), [(Reason.PASSWORD_REFUSED, 15 * MINUTE), (Reason.REFUSED, 30.0)])
def test_what_fails_between_refusals_does_not_stop_their_doubling(
    between: Reason, refusal: Reason, first: float
) -> None:
    failing = Failing()
    delays = [failing.after(reason) for reason in (refusal, between, refusal, between, refusal)]
    assert delays == [first, 1, 2 * first, 1, 4 * first]


def test_a_secret_that_is_changed_back_is_the_refused_one() -> None:
    failing = Failing()
    assert failing.after(Reason.PASSWORD_REFUSED) == 15 * MINUTE
    failing.backoff.restart()
    assert failing.backoff.due(is_urgent=False) <= failing.now, "another secret is tried at once"
    assert failing.after(Reason.SERVER_ERROR, secret=b"second") == 1
    failing.backoff.restart()
    assert failing.after(Reason.PASSWORD_REFUSED) == 30 * MINUTE


def test_another_secret_is_counted_anew() -> None:
    failing = Failing()
    failing.after(Reason.PASSWORD_REFUSED)
    failing.after(Reason.PASSWORD_REFUSED)
    failing.backoff.restart()
    assert failing.after(Reason.PASSWORD_REFUSED, secret=b"second") == 15 * MINUTE
    assert failing.after(Reason.PASSWORD_REFUSED, secret=b"second") == 30 * MINUTE


def test_a_token_ends_the_count() -> None:
    failing = Failing()
    failing.after(Reason.PASSWORD_REFUSED)
    failing.backoff.succeed()
    assert failing.backoff.failure is None
    assert failing.after(Reason.PASSWORD_REFUSED) == 15 * MINUTE


@pytest.mark.parametrize(
    ("reason", "retry_after", "delay"),
    [
        (Reason.SERVER_ERROR, None, 5),
        (Reason.THROTTLED, 40, 40),
        (Reason.THROTTLED, 3, 5),
        (Reason.PASSWORD_REFUSED, None, 15 * MINUTE),
        (Reason.REFUSED, None, 30),
    ],
)
def test_requests_that_wait_shorten_what_may_be_shortened(
    reason: Reason, retry_after: float | None, delay: float
) -> None:
    failing = Failing()
    if not TokenRequestError(reason, "").for_good:
        for _ in range(4):
            failing.after(Reason.SERVER_ERROR)
    before = failing.now
    failing.after(reason, retry_after=retry_after)
    assert failing.backoff.due(is_urgent=True) - before == delay


@pytest.mark.parametrize("lifetime", [1, 3, 5, 20, 60, 300, 3600, 86400])
@pytest.mark.parametrize("configured", [None, 0.001, 0.2, 8, 30, 1e6])
def test_the_lead_lies_between_the_margin_and_half_the_lifetime(lifetime: float, configured: float | None) -> None:
    """Begun earlier, two tokens would be spent for one; begun later, calls would wait."""
    found = lead(lifetime, configured, lambda low, _: low)
    assert margin(lifetime) <= found <= lifetime / 2
    if configured is not None and 2 * margin(lifetime) <= configured <= lifetime / 2:
        assert found == configured
    if lifetime > 4 and found < lifetime / 2:
        assert found > margin(lifetime), "there is time for the refresh"
