"""A string that cannot be printed: `reveal()` is the only way out."""

import hmac
import json
import pickle
import stat
from pathlib import Path
from typing import Any, NoReturn

MAX_FILE_BYTES = 1 << 20


class SecretUnreadableError(Exception):
    """The file that holds a secret cannot be read now. Its text names the file and the reason, never content."""


class Secret:
    """A configured text that may be secret: a literal, an environment variable's value or a file's content.

    A file is read again at every `reveal()`, so that a rotated secret is used without a restart.
    """

    __slots__ = ("_field", "_path", "_value", "origin")

    def __init__(self, value: str, origin: str = "the config") -> None:
        self._value = value
        self._path: Path | None = None
        self._field: tuple[str, ...] = ()
        self.origin = origin

    @classmethod
    def from_file(cls, path: Path, field: tuple[str, ...] = ()) -> "Secret":
        """The content of `path`, without one trailing newline; with `field`, the text that is there in its JSON."""
        secret = cls("", f"file {path}" + (f", field {'.'.join(field)}" if field else ""))
        secret._path, secret._field = path, field
        return secret

    @property
    def is_file(self) -> bool:
        """Whether it stands in a file, and may change."""
        return self._path is not None

    def reveal(self) -> str:
        """The text itself. Raises `SecretUnreadableError` where its file is missing, unreadable or no text."""
        if self._path is None:
            return self._value
        if not (text := read_text(self._path)):
            raise SecretUnreadableError(f"{self._path} is empty")  # most likely it is just being written
        return _text_at(self._field, text, self._path) if self._field else text

    def __eq__(self, other: object) -> bool:
        """Whether both are configured alike: the same file, or the same text."""
        if not isinstance(other, Secret):
            return NotImplemented
        is_same_place = (self._path, self._field) == (other._path, other._field)
        return is_same_place and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((self._path, self._field, self._value))

    def __repr__(self) -> str:
        return f"<secret from {self.origin}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not serialised")


class SecretPickler(pickle.Pickler):
    """Hands values with secrets in them to another process of ours, through a pipe. Nothing else may pickle one."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not Secret:
            return NotImplemented
        if obj._path is not None:
            return Secret.from_file, (obj._path, obj._field)
        return Secret, (obj._value, obj.origin)


def read_text(path: Path) -> str:
    """The text of a small regular file, without one trailing newline.

    Raises `SecretUnreadableError`. What is not a regular file is refused: opening a pipe would block.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SecretUnreadableError(f"{path} is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SecretUnreadableError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise SecretUnreadableError(f"{path} is larger than 1 MiB")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SecretUnreadableError(f"{path} is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


def _text_at(field: tuple[str, ...], text: str, path: Path) -> str:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise SecretUnreadableError(f"{path} is no JSON") from None
    for name in field:
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, str) or not found or any("\ud800" <= character <= "\udfff" for character in found):
        raise SecretUnreadableError(f"{path} has no text in this field")
    return found
