"""What an identity provider goes on counting, whatever a reload changes here. Pure; times of one clock, in seconds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import pbkdf2_hmac
from typing import Any, Final, NamedTuple

from . import schedule
from .credential import Quota
from .failure import Reason
from .lifetime import number
from .quota import Budget

_ROUNDS: Final = 50_000
"""Of PBKDF2: a password must not be guessed from what a store has of it."""


class Orphan(NamedTuple):
    """A refresh token that may be spent: to be logged out, never to be sent to the token endpoint again."""

    refresh_token: str
    gone_at: float
    """When its session has ended by itself."""


class _Refused(NamedTuple):
    times: int
    not_before: float


@dataclass(slots=True, eq=False)
class Ledger:
    """Of the credential of one name at one token endpoint."""

    budget: Budget | None = None
    orphans: dict[str, list[Orphan]] = field(default_factory=dict)
    """Sessions that nobody lives on, by whose they are."""
    _refused: dict[str, _Refused] = field(default_factory=dict)
    """Passwords that were refused, by their names."""

    def allow(self, quota: Quota | None) -> None:
        """Another quota; what was counted for the last one stays counted."""
        if quota is None:
            return
        if self.budget is None:
            self.budget = Budget(quota)
        self.budget.quota = quota

    def password_refused(self, name: str, now: float) -> float:
        """Notes that it was; the seconds for which it must not be sent again."""
        times = self._refused[name].times + 1 if name in self._refused else 1
        wait = schedule.retry_delay(Reason.PASSWORD_REFUSED, times, max)
        self._refused[name] = _Refused(times, now + wait)
        return wait

    def password_taken(self, name: str) -> None:
        self._refused.pop(name, None)

    def password_waits(self, name: str, now: float) -> float:
        """The seconds for which it must not be sent; 0: it may be."""
        return max(self._refused[name].not_before - now, 0.0) if name in self._refused else 0.0

    # ── what a store keeps, in which times are Unix seconds: `ahead` is how much those are greater ───────────────

    def written(self, ahead: float, counted: Iterable[float]) -> dict[str, Any]:
        """As JSON values; `counted` is what the budget counts."""
        refused = {name: [one.times, one.not_before + ahead] for name, one in self._refused.items()}
        return {"until": [until + ahead for until in counted], "refused": refused}

    def read(self, entry: Mapping[str, Any], ahead: float, now: float) -> None:
        """Counts what an entry says; anything in it that is not as it should be counts as absent."""
        until = entry.get("until")
        known = [moment for one in (until if isinstance(until, list) else []) if (moment := number(one)) is not None]
        if self.budget is not None:
            self.budget.restore(min(moment - ahead, now + self.budget.quota.seconds) for moment in known)
        refused = entry.get("refused")
        for name, one in (refused if isinstance(refused, dict) else {}).items():
            match one:
                case [int(times), written] if 0 < times < 1000 and (moment := number(written)) is not None:
                    longest = schedule.retry_delay(Reason.PASSWORD_REFUSED, times, max)
                    self._refused[name] = _Refused(times, min(moment - ahead, now + longest))


def name_of(secret: str | bytes, salt: str) -> str:
    """What stands for a secret where it must not be readable, and tells it from others. Takes milliseconds."""
    content = secret.encode() if isinstance(secret, str) else secret
    return pbkdf2_hmac("sha256", content, salt.encode(), _ROUNDS).hex()
