"""How a key's tokens are obtained where no token endpoint is asked: they are given, signed here, or printed."""

import time

from .. import clock, events
from ..secret import Secret, SecretUnreadableError
from . import command, schedule
from .answer import Issued
from .credential import Command, GivenToken, OwnJwt
from .desk import Desk
from .failure import Reason, TokenRequestError
from .lifetime import DEFAULT_TTL
from .printed import read_printed
from .recipe import Occasion, own_jwt
from .turnstile import Turn


class Local:
    """The tokens of one key, from this machine."""

    __slots__ = ("_desk", "_principal", "_source", "digest")

    def __init__(self, desk: Desk, source: GivenToken | OwnJwt | Command, principal: str) -> None:
        self._desk = desk
        self._source = source
        self._principal = principal
        self.digest: bytes | None = None
        """Of the secrets at the last attempt."""

    def resume(self) -> None:
        """Nothing is kept: it is here anyway."""

    async def obtain(self, _turn: Turn) -> Issued:
        """A token. Raises `TokenRequestError`."""
        asked_at, wall, failure = clock.now(), time.time(), None
        self.digest = self._desk.secrets.digest()
        is_given = isinstance(self._source, GivenToken)
        default = (schedule.MAX_LIFETIME, "no told end") if is_given else (DEFAULT_TTL, "default")
        try:
            output = await self._output()
            reading = self._desk.credential.reading
            return read_printed(output, reading, asked_at=asked_at, wall=wall, default=default)
        except TokenRequestError as error:
            failure = error.reason
            raise
        finally:
            seconds = clock.now() - asked_at
            self._desk.means.observe(events.TokenRequested(self._desk.label, self._kind, seconds, failure))

    @property
    def has_session(self) -> bool:
        return False

    async def end(self, *, keep: bool) -> None:
        """There is no session."""

    async def _output(self) -> bytes:
        match self._source:
            case GivenToken(token):
                return _revealed(token).encode()
            case Command() as program:
                means, timeout = self._desk.means, self._desk.credential.timeout
                return await command.run(program, timeout, shows_stderr=means.shows_stderr)
            case OwnJwt() as source:
                chained = await self._desk.chained(self._principal)
                tokens = {name: self._desk.bare(name, token) for name, token in chained.items()}
                return own_jwt(source, Occasion(self._principal, tokens, time.time())).encode()

    @property
    def _kind(self) -> str:
        """The source's name in the config."""
        match self._source:
            case GivenToken(token):
                return "file" if token.is_file else "static"
            case Command():
                return "exec"
            case OwnJwt():
                return "jwt"


def _revealed(token: Secret) -> str:
    try:
        return token.reveal()
    except SecretUnreadableError as error:
        raise TokenRequestError(Reason.SECRET_UNREADABLE, str(error), sent=False) from None
