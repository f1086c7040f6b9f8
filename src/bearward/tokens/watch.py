"""Whether the secrets of a source have changed: one look for all of its keys."""

from typing import Final

from .. import clock
from .recipe import digest_of_secrets

TICK: Final = 2.5
"""Seconds between two looks."""


class SecretWatch:
    """The secrets within a credential's source, some of which stand in files."""

    def __init__(self, source: object) -> None:
        self._source = source
        self._last: bytes | None = None
        self._looked_at = -TICK

    def digest(self) -> bytes | None:
        """What changes when any of the secrets does; None where one cannot be read now."""
        self._looked_at = clock.now()
        digest = digest_of_secrets(self._source)
        if digest != self._last:
            self._last = digest
        return self._last

    def glance(self) -> bytes | None:
        """The same, as it was at most half a tick ago."""
        return self._last if clock.now() - self._looked_at < TICK / 2 else self.digest()
