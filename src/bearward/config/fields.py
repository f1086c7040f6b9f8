"""The types of the model's fields. Every scalar arrives as text as written, and here the field decides what it is."""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast, get_args

from pydantic import AfterValidator, GetCoreSchemaHandler, PlainValidator, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from ..address import Address
from ..egress import EgressProxy
from ..proxy.routes import DEFAULT_PORTS, Upstream
from ..secret import Secret
from ..tokens.assertion import BACKDATED
from ..tokens.credential import FieldPath, Quota
from . import egress, urls
from .diagnostics import WrongError, did_you_mean
from .document import Text
from .references import dotted, fetch, read_file, read_plain, read_secret, reference

SHOWN = "shown"
"""Marks a field whose value is no secret: reports may show it."""

MAX_SECONDS = 10 * 365 * 86400
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_SIZE = re.compile(r"([0-9]{1,15}) ?(|kB|KB|MB|GB|KiB|MiB|GiB)")
_SIZES = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_TRUTH = {"true": True, "false": False}


def json_value(text: Text) -> Any:
    """What unquoted text means in JSON: a truth value, a number, or else the text."""
    if not text.is_plain:
        return str(text)
    if text in _TRUTH:
        return _TRUTH[text]
    found = _JSON_NUMBER.fullmatch(text)
    if not found:
        return str(text)
    if len(text) > 300 or (value := float(text)) in (float("inf"), float("-inf")):
        raise WrongError("is too large a number; put it in quotes if it is text")
    return value if found[2] or found[3] else int(text)


def _folder(info: ValidationInfo) -> Path:
    """The config's folder, which `Config` is validated with."""
    return cast(Path, info.context)


def _plain(value: object, info: ValidationInfo) -> Text:
    return read_plain(value, _folder(info))


def _typed(read: Callable[[Text], Any]) -> PlainValidator:
    """A validator that hands the text, fetched if need be, to `read`."""

    def validate(value: object, info: ValidationInfo) -> Any:
        return read(_plain(value, info))

    return PlainValidator(validate)


class TextOr:
    """Marks a field that is a text, read by `read`, or a section; unlike a union it says where a section is wrong."""

    def __init__(self, section: type, read: Callable[[object, ValidationInfo], Any]) -> None:
        self._section = section
        self._read = read

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        section = handler.generate_schema(self._section)
        return core_schema.with_info_wrap_validator_function(self._validate, section)

    def _validate(self, value: object, validate_section: Callable[[object], Any], info: ValidationInfo) -> Any:
        is_section = isinstance(value, dict) and not reference(value)
        return validate_section(value) if is_section else self._read(value, info)


def one_of(literal: Any) -> PlainValidator:
    """One of the words of a `Literal`."""
    words = get_args(literal)

    def read(text: Text) -> str:
        if text not in words:
            raise WrongError(f"must be one of {', '.join(words)}" + did_you_mean(text, words).partition("; known")[0])
        return str(text)

    return _typed(read)


def _line(text: Text) -> str:
    if not text:
        raise WrongError("is empty")
    if not text.isprintable():
        raise WrongError("must be one line without control characters")
    return str(text)


def _flag(text: Text) -> bool:
    if text not in _TRUTH:
        raise WrongError("must be true or false, written exactly so")
    return _TRUTH[text]


def _duration(text: Text) -> float:
    found = _DURATION.fullmatch(text)
    if not found:
        raise WrongError("must be a duration: 500ms, 90s, 15m, 2h, 7d, or a number of seconds")
    seconds = float(found[1]) * _UNITS[found[2] or "s"]
    if not 0 < seconds <= MAX_SECONDS:
        raise WrongError("must be longer than 0 and no more than ten years")
    return seconds


def _jwt_lifetime(text: Text) -> float:
    seconds = _duration(text)
    if round(seconds) <= BACKDATED:
        raise WrongError(f"must be longer than {BACKDATED}s: so far in the past is the time at which a JWT was issued")
    return seconds


def _count(text: Text) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= 1_000_000:
        raise WrongError("must be a whole number from 1 to 1000000")
    return int(text)


def _status(text: Text) -> int:
    if not re.fullmatch(r"[2-5][0-9][0-9]", text):
        raise WrongError("must be the status of an answer: a number from 200 to 599")
    return int(text)


def _quota(text: Text) -> Quota:
    number, slash, span = text.partition("/")
    if not slash:
        raise WrongError("must be NUMBER/DURATION: 8/8h is at most eight requests in any eight hours")
    return Quota(_count(Text(number)), _duration(Text(span)))


def _size(least: int, most: int, bounds: str) -> PlainValidator:
    """A number of bytes within bounds, which are told in words."""

    def read(text: Text) -> int:
        found = _SIZE.fullmatch(text)
        if not found:
            raise WrongError("must be a whole number of bytes, or one with a unit: 64KiB, 10MB")
        size = int(found[1]) * _SIZES[found[2].removesuffix("B").replace("k", "K")]
        if not least <= size <= most:
            raise WrongError(f"must be {bounds}")
        return size

    return _typed(read)


def _token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise WrongError("is no header name: letters, digits and hyphens, without spaces and colons")
    return str(text)


def _cookie(text: Text) -> str:
    if not _TOKEN.fullmatch(text):
        raise WrongError("is no name of a cookie")
    return str(text)


def answer_path(value: object, info: ValidationInfo) -> FieldPath:
    """`a.b\\.c.0`; empty: the whole body."""
    return _answer_path(_plain(value, info))


def _answer_path(text: Text) -> FieldPath:
    keys = dotted(text)
    if "" in keys:
        raise WrongError("has an empty name between dots; a dot inside a name is written \\.")
    return keys


def _origin(text: Text) -> str:
    found = re.fullmatch(r"([a-z][a-z0-9+.-]*)://([^/]+)", text.lower())
    if not found:
        raise WrongError("must be SCHEME://HOST or SCHEME://HOST:PORT, without a path")
    host, port = urls.split_host(found[2])
    bracketed = f"[{host}]" if ":" in host else host
    is_default = port is None or port == DEFAULT_PORTS.get(found[1])
    return f"{found[1]}://{bracketed}" + ("" if is_default else f":{port}")


def _host(text: Text) -> tuple[str, int | None]:
    if "://" in text:
        raise WrongError("must be HOST or HOST:PORT, without http:// and without a path")
    host, port = urls.split_host(text)
    return (f"[{host}]" if ":" in host else host), port


def _server_name(text: Text) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        host, port = urls.split_host(text)
    if port is not None:
        raise WrongError("must be a name without a port")
    return host.removesuffix(".")


def _path(read: Callable[[Text, Path], Any]) -> PlainValidator:
    """A validator that hands the path of a file, and the config's folder, to `read`."""

    def validate(value: object, info: ValidationInfo) -> Any:
        try:
            return read(_plain(value, info), _folder(info))
        except WrongError:
            found = reference(value)
            if found and found.kind == "file":
                raise WrongError("write the bare path; {file: PATH} stands for what is in a file") from None
            raise

    return PlainValidator(validate)


def _pem_file(name: Text, folder: Path) -> str:
    """The absolute path of a file that can be read now."""
    try:
        read_file(name, folder)
    except WrongError as error:
        raise WrongError(f"must be the path of a PEM file; {error}") from None
    return str(folder / name)


def _token_file(name: Text, folder: Path) -> Path:
    """The absolute path of a file that can be read now."""
    read_file(name, folder)
    return folder / name


def _store_file(name: Text, folder: Path) -> Path:
    """The absolute path of a file that may still be missing, in a folder that is there."""
    path = folder / _line(name)
    if path.is_dir() or name.endswith("/"):
        raise WrongError("is a folder; write the path of a file in it")
    if not path.parent.is_dir():
        raise WrongError("its folder does not exist; make it, readable for bearward alone")
    return path


def in_memory(value: object, info: ValidationInfo) -> None:
    """The word `memory`."""
    if not isinstance(value, Text) or value != "memory":
        raise WrongError("must be memory, or {path: FILE}")


def _egress(value: object, info: ValidationInfo) -> EgressProxy:
    return egress.read_proxy(fetch(value, _folder(info))[1])


def _listening(value: object, info: ValidationInfo) -> Address:
    return urls.read_address(_plain(value, info), _folder(info))


def _format(text: Text) -> str:
    if not text.isprintable() or not text.isascii() or text.count("{token}") != 1:
        raise WrongError("must be visible ASCII text that holds {token} exactly once")
    return str(text)


def secret(value: object, info: ValidationInfo) -> Secret:
    """A text that may be secret."""
    return read_secret(value, _folder(info))


def _scope(value: object, info: ValidationInfo) -> Secret:
    if isinstance(value, list):
        raise WrongError('must be one string, separated as the vendor wants: "a b"')
    return secret(value, info)


def _header_value(value: object, info: ValidationInfo) -> Secret:
    secret, text = fetch(value, _folder(info))
    if text != text.strip() or not (text.isascii() and text.replace("\t", "").isprintable()):
        raise WrongError("must be visible ASCII text on one line, without spaces around it")
    return secret


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise WrongError("must be a name of letters, digits, dots, hyphens and underscores")
    return text


def _json_scalar(value: object, info: ValidationInfo) -> Any:
    return None if value is None else json_value(_plain(value, info))


Line = Annotated[str, _typed(_line), SHOWN]
Flag = Annotated[bool, _typed(_flag), SHOWN]
Duration = Annotated[float, _typed(_duration), SHOWN]
JwtLifetime = Annotated[float, _typed(_jwt_lifetime), SHOWN]
Count = Annotated[int, _typed(_count), SHOWN]
HeadSize = Annotated[int, _size(1 << 10, 1 << 20, "from 1KiB to 1MiB"), SHOWN]
BodySize = Annotated[int, _size(0, 1 << 50, "no more than 1 PiB; leave it out for no limit"), SHOWN]
SecretText = Annotated[Secret, PlainValidator(secret)]
ShownSecret = Annotated[Secret, PlainValidator(secret), SHOWN]
HeaderValue = Annotated[Secret, PlainValidator(_header_value)]
Scope = Annotated[Secret, PlainValidator(_scope)]
HeaderName = Annotated[str, AfterValidator(_token)]
HeaderNameText = Annotated[str, _typed(_token), SHOWN]
CookieName = Annotated[str, _typed(_cookie), SHOWN]
Status = Annotated[int, _typed(_status), SHOWN]
RequestQuota = Annotated[Quota, _typed(_quota), SHOWN]
AnswerPath = Annotated[FieldPath, _typed(_answer_path), SHOWN]
BaseUrl = Annotated[Upstream, _typed(urls.read_upstream), SHOWN]
Origin = Annotated[str, _typed(_origin), SHOWN]
HostAndPort = Annotated[tuple[str, int | None], _typed(_host), SHOWN]
ServerName = Annotated[str, _typed(_server_name), SHOWN]
PemFile = Annotated[str, _path(_pem_file)]
TokenFile = Annotated[Path, _path(_token_file)]
StoreFile = Annotated[Path, _path(_store_file), SHOWN]
Argument = Annotated[str, _typed(str)]
Egress = Annotated[EgressProxy, PlainValidator(_egress)]
ListeningAddress = Annotated[Address, PlainValidator(_listening), SHOWN]
Format = Annotated[str, _typed(_format)]
Name = Annotated[str, AfterValidator(_name)]
JsonScalar = Annotated[Any, PlainValidator(_json_scalar), SHOWN]
