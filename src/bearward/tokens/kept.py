"""What a store keeps of one key, so that a restart goes on with it. Pure; times are Unix seconds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import schedule
from .answer import is_token
from .lifetime import number


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A token, its session, and the sessions that are still to be logged out."""

    owner: str | None
    """Names the process and the life that kept it."""
    party: str | None
    """Names whom its session is with."""
    is_under_way: bool
    """Whether the refresh token was about to be sent: it may be spent."""
    digest: str | None
    """Names what the token was obtained with; another one must not use it."""
    token: str | None = field(repr=False)
    asked_at: float
    lifetime: float
    refresh_in: float | None
    refresh_token: str | None = field(repr=False)
    refreshable_until: float
    orphans: list[tuple[str, float]] = field(repr=False)
    """Refresh tokens to be logged out, and when their sessions have ended by themselves."""

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> "Kept":
        """What an entry of a store says; anything that is not as it should be counts as absent."""
        orphans = entry.get("orphans") if isinstance(entry.get("orphans"), list) else []
        return cls(
            owner=_text(entry.get("owner")),
            party=_text(entry.get("party")),
            is_under_way=entry.get("is_under_way") is not False,
            digest=_text(entry.get("digest")),
            token=_token(entry.get("token")),
            asked_at=number(entry.get("asked_at")) or 0.0,
            lifetime=min(number(entry.get("lifetime")) or 0.0, schedule.MAX_LIFETIME),
            refresh_in=number(entry.get("refresh_in")),
            refresh_token=_token(entry.get("refresh_token")),
            refreshable_until=_moment(entry.get("refreshable_until")),
            orphans=[
                (one[0], gone_at)
                for one in (orphans if isinstance(orphans, list) else [])
                if isinstance(one, list)
                and len(one) == 2
                and is_token(one[0])
                and (gone_at := number(one[1])) is not None
            ],
        )

    def written(self) -> dict[str, Any]:
        """The entry, as JSON values."""
        until = self.refreshable_until
        return {
            "owner": self.owner,
            "party": self.party,
            "is_under_way": self.is_under_way,
            "digest": self.digest,
            "token": self.token,
            "asked_at": self.asked_at,
            "lifetime": self.lifetime,
            "refresh_in": self.refresh_in,
            "refresh_token": self.refresh_token,
            "refreshable_until": until if math.isfinite(until) else None,
            "orphans": [list(orphan) for orphan in self.orphans],
        }

    def worthless_from(self, now: float) -> float:
        """From when on it needs not be kept; a refresh token that nobody told the end of, for thirty days."""
        ends = [self.asked_at + self.lifetime, *(gone_at for _, gone_at in self.orphans)]
        if self.refresh_token is not None:
            ends.append(min(self.refreshable_until, now + 30 * 86400.0))
        return max(ends)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _token(value: Any) -> str | None:
    return value if is_token(value) else None


def _moment(value: Any) -> float:
    return math.inf if (read := number(value)) is None else read
