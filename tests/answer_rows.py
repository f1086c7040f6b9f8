"""What vendors' token endpoints answer, and what is to come of it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import jwt

from configs import Config
from endpoints import TOKEN, Answering, refused, reply
from evidence import SECRETS, new_secret

HOUR = 3600.0
NO_CLIENT: Config = {"client_auth": "none"}


@dataclass(frozen=True)
class Taken:
    """An answer with a token in it, and how the credential reads it."""

    answer: Answering
    response: Config = field(default_factory=dict)
    lifetime: tuple[float, str] | None = None
    """Seconds, and what said so."""
    refresh_in: float | None = None
    skew: float | None = None
    """The vendor's clock minus ours, in seconds."""
    more: Config = field(default_factory=dict)
    injected: Mapping[str, str] = field(default_factory=lambda: {"authorization": f"Bearer {TOKEN}"})
    """Headers of a call."""


def later(seconds: float = HOUR) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def epoch(seconds: float = HOUR) -> int:
    return int(time.time() + seconds)


def at(path: str, document: Any, **more: Any) -> Taken:
    return Taken(reply(document), {"token": path}, **more)


def until(value: Any, expires: Config | None = None, name: str = "", **more: Any) -> Taken:
    """Of an hour; `expires` is how the credential reads that."""
    document = {"access_token": TOKEN, **(value if isinstance(value, dict) else {name: value})}
    said_by = expires["field"] if expires else name
    response = {"expires": expires} if expires else {}
    return Taken(reply(document), response, (more.pop("seconds", HOUR), said_by), **more)


def by_another_clock(ahead: float) -> Taken:
    """The absolute end of an hour, by a clock that the answer tells as well."""
    document = {"access_token": TOKEN, "expires_on": epoch(HOUR + ahead)}
    return Taken(
        reply(document, f"Date: {format_datetime(later(ahead), usegmt=True)}"), {}, (HOUR, "expires_on"), skew=ahead
    )


def injected(header: str, form: str, **others: str) -> Taken:
    names = {header.lower(): form.replace("{token}", TOKEN), **others}
    return Taken(usual(), more={"inject": {"header": header, "format": form}}, injected=names)


def usual(**more: Any) -> bytes:
    return reply({"access_token": TOKEN, "expires_in": HOUR} | more)


def _tokens() -> dict[str, Taken]:
    """Where the token stands."""
    return {
        "token": at("token", {"token": TOKEN}),
        "jwt": at("jwt", {"jwt": TOKEN}),
        "idToken": at("idToken", {"idToken": TOKEN, "access_token": "another"}),
        "AccessToken": at("AccessToken", {"AccessToken": TOKEN}),
        "data.token.access_token": at("data.token.access_token", {"data": {"token": {"access_token": TOKEN}}}),
        "data.accessToken": at("data.accessToken", {"data": {"accessToken": TOKEN}}),
        "tokens.access.token": at("tokens.access.token", {"tokens": {"access": {"token": TOKEN}}}),
        "credentials.token": at("credentials.token", {"credentials": {"token": TOKEN, "site": {"id": "x"}}}),
        "in-a-list": at("tokens.1.value", {"tokens": [{"value": "another"}, {"value": TOKEN}]}),
        "dot-in-a-name": at(r"api\.example.token", {"api.example": {"token": TOKEN}}),
        "whole-body": Taken(reply(f"{TOKEN}\r\n"), {"token": ""}),
        "whole-body-as-json": Taken(reply(f'"{TOKEN}"', "Content-Type: application/json"), {"token": ""}),
        "header": Taken(reply({}, f"X-Auth-Token: {TOKEN}"), {"token": {"header": "X-Auth-Token"}}),
        "header-with-scheme": Taken(
            reply("", f"Authorization: bearer {TOKEN}"), {"token": {"header": "Authorization"}}
        ),
        "cookie": Taken(
            reply("", "Set-Cookie: other=1; Path=/", f'Set-Cookie: session="{TOKEN}"; HttpOnly; Path=/'),
            {"token": {"cookie": "session"}},
        ),
        "github-201": Taken(
            reply({"token": TOKEN, "expires_at": later().isoformat()}, status="201 Created"), {"token": "token"}
        ),
    }


def _lifetimes() -> dict[str, Taken]:
    """How long it lives."""
    signed = SECRETS.add(jwt.encode({"exp": epoch(), "jti": new_secret("token")}, "k" * 32), "token")

    return {
        "expires_in": until(3600, name="expires_in"),
        "paypal-expires_in-as-text": until("3600", name="expires_in"),
        "expires_in-as-float": until(3599.5, name="expires_in", seconds=3599.5),
        "fiserv-milliseconds": until(3600000, {"field": "expiresIn", "as": "milliseconds"}, "expiresIn"),
        "duration": until("1h", {"field": "expires_in", "as": "duration"}, "expires_in"),
        "azure-imds-both-as-text": until({"expires_in": "3600", "expires_on": "17"}, name="expires_in"),
        "azure-app-service-expires_on-as-text": until(str(epoch()), name="expires_on"),
        "acronis-expires_on": until(epoch(), name="expires_on"),
        "acronis-clock-ahead": by_another_clock(7200),
        "acronis-clock-behind": by_another_clock(-7200),
        "expires_at-epoch": until(epoch(), name="expires_at"),
        "expires_at-epoch-milliseconds": until(epoch() * 1000, name="expires_at"),
        "expires_at-iso8601": until(later().isoformat(), name="expires_at"),
        "github-expires_at-iso8601-z": until(f"{later():%Y-%m-%dT%H:%M:%SZ}", name="expires_at"),
        "expires-iso8601-without-zone": until(
            f"{later():%Y-%m-%d %H:%M:%S}", {"field": "expires", "as": "iso8601"}, "expires"
        ),
        "google-expireTime-nanoseconds": until(
            f"{later():%Y-%m-%dT%H:%M:%S}.123456789Z", {"field": "expireTime", "as": "iso8601"}, "expireTime"
        ),
        "ivanti-http-date": until(
            {".expires": format_datetime(later(), usegmt=True)}, {"field": r"\.expires", "as": "http_date"}
        ),
        "expires-epoch-ms": until(epoch() * 1000, {"field": "exp", "as": "epoch_ms"}, "exp"),
        "expires-epoch": until(str(epoch()), {"field": "exp", "as": "epoch"}, "exp"),
        "nested": until({"data": {"ttl": 3600}}, {"field": "data.ttl", "as": "seconds"}),
        "entra-ext_expires_in": until({"expires_in": 3600, "ext_expires_in": 99999}, name="expires_in"),
        "msal-refresh_in": until({"expires_in": 3600, "refresh_in": 1800}, name="expires_in", refresh_in=1800),
        "absent-jwt": Taken(
            reply({"access_token": signed}), {}, (HOUR, "exp"), injected={"authorization": f"Bearer {signed}"}
        ),
        "absent-ttl-salesforce": Taken(
            reply({"access_token": TOKEN, "instance_url": "x"}), {}, (7200, "ttl"), more={"ttl": "2h"}
        ),
        "absent-field": Taken(usual(), {"expires": {"field": "gone", "as": "seconds"}}, (HOUR, "expires_in")),
        "absent": Taken(reply({"access_token": TOKEN}), {}, (300, "default")),
    }


FORM = f"access_token={TOKEN}&token_type=bearer&expires_in=3600"


def _forms() -> dict[str, Taken]:
    """In what clothes it comes, and goes."""
    return {
        "json-as-html": Taken(reply({"access_token": TOKEN}, "Content-Type: text/html")),
        "json-as-plain-text": Taken(reply({"access_token": TOKEN}, "Content-Type: text/plain; charset=utf-8")),
        "json-without-a-type": Taken(reply({"access_token": TOKEN}, "Content-Type:")),
        "form": Taken(reply(FORM, "Content-Type: application/x-www-form-urlencoded"), {}, (HOUR, "expires_in")),
        "form-as-plain-text": Taken(reply(FORM), {}, (HOUR, "expires_in")),
        "json-with-a-byte-order-mark": Taken(reply(b'\xef\xbb\xbf{"access_token": "TOKEN"}')),
        "lower-case-bearer": Taken(usual(token_type="bearer")),
        "sts-N_A": Taken(usual(token_type="N_A", issued_token_type="urn:ietf:params:oauth:token-type:access_token")),
        "dpop-where-configured": Taken(
            usual(token_type="DPoP"),
            more={"inject": {"format": "DPoP {token}"}},
            injected={"authorization": f"DPoP {TOKEN}"},
        ),
        "raw-authorization": injected("Authorization", "{token}"),
        "tableau": injected("X-Tableau-Auth", "{token}"),
        "x-token": injected("X-Token", "{token}"),
        "cookie-header": injected("Cookie", "session={token}"),
        "ghost-scheme": injected("Authorization", "Ghost {token}"),
    }


def taken() -> dict[str, Taken]:
    """Answers of now."""
    return _tokens() | _lifetimes() | _forms()


@dataclass(frozen=True)
class Refused:
    """An answer without a token; `retry_in`: the least and the most seconds to the next attempt."""

    answer: Answering
    reason: str
    retry_in: tuple[float, float]
    more: Config = field(default_factory=dict)

    @property
    def for_good(self) -> bool:
        return self.reason in {"refused", "password_refused"}


def for_good(error: str, status: str = "400 Bad Request", **more: Any) -> Refused:
    return Refused(refused(error, status), "refused", (29, 30), more)


def passing(answer: bytes, reason: str, retry_in: tuple[float, float] = (0, 1), **more: Any) -> Refused:
    return Refused(answer, reason, retry_in, more)


def throttled(answer: bytes, seconds: float, **mark: Any) -> Refused:
    more = {"response": {"throttled": mark}} if mark else {}
    return Refused(answer, "throttled", (seconds - 60 if seconds == 300 else seconds - 2, seconds), more)


UNAUTHORIZED, FORBIDDEN = "401 Unauthorized", "403 Forbidden"
PASSWORD = {"grant_type": "password", "username": new_secret("user"), "password": new_secret("password")}
OWN_LOGIN = PASSWORD | {
    "grant_type": "http://auth0.com/oauth/grant-type/password-realm",
    "params": {"username": "{username}", "password": "{password}", "realm": "employees"},
}
REFUSAL = {"refusal": {"field": "code", "not": [0, 200]}}
VERTEX = refused("invalid_request", error_description="User exceeded the Rate Limit of 10 tokens/28800 seconds")
ZOHO = reply({"error": "Access Denied", "error_description": "You have made too many requests continuously."})


def refusals() -> dict[str, Refused]:
    """Answers of now."""
    return {
        "invalid_client": for_good("invalid_client", UNAUTHORIZED),
        "invalid_client-400": for_good("invalid_client"),
        "keycloak-wrong-secret": for_good("unauthorized_client", UNAUTHORIZED),
        "unsupported_grant_type": for_good("unsupported_grant_type"),
        "invalid_scope": for_good("invalid_scope"),
        "invalid_target": for_good("invalid_target"),
        "access_denied": for_good("access_denied", FORBIDDEN),
        "not-found": passing(reply("no such page", status="404 Not Found"), "refused", (29, 30)),
        "error-of-status-200": for_good("invalid_client", "200 OK"),
        "code-of-status-200": passing(reply({"code": 400, "data": None}), "refused", (29, 30), response=REFUSAL),
        "code-of-status-400": passing(
            reply({"code": 400, "data": None}, status="400 Bad Request"), "refused", (29, 30), response=REFUSAL
        ),
        "code-of-status-200-with-a-token": passing(usual(code=400), "refused", (29, 30), response=REFUSAL),
        "dpop": passing(usual(token_type="DPoP"), "refused", (29, 30)),
        "mac": passing(usual(token_type="mac"), "refused", (29, 30)),
        "wrong-password": passing(refused("invalid_grant"), "password_refused", (898, 900), **PASSWORD),
        "wrong-password-401": passing(
            refused("invalid_grant", UNAUTHORIZED), "password_refused", (898, 900), **PASSWORD
        ),
        "wrong-password-of-a-vendors-own-login": passing(
            refused("invalid_grant", UNAUTHORIZED), "password_refused", (898, 900), **OWN_LOGIN
        ),
        "keycloak-session-limit": passing(
            refused("There are too many sessions", FORBIDDEN), "session_limit", **PASSWORD
        ),
        "keycloak-21-session-limit": passing(
            refused("unknown_error", "500 Internal Server Error"), "session_limit", **PASSWORD
        ),
        "429-seconds": throttled(reply("", "Retry-After: 120", status="429 Too Many Requests"), 120),
        "429-date": throttled(
            reply("", f"Retry-After: {format_datetime(later(300), usegmt=True)}", status="429 Too Many Requests"), 300
        ),
        "429-more-than-ten-minutes": throttled(reply("", "Retry-After: 7200", status="429 Too Many Requests"), 600),
        "429-in-words": throttled(reply("Try again in 420 seconds", status="429 Too Many Requests"), 420),
        "429-without": passing(reply("", status="429 Too Many Requests"), "throttled"),
        "503-seconds": passing(reply("", "Retry-After: 120", status="503 Unavailable"), "server_error", (118, 120)),
        "503-date": passing(
            reply("", f"Retry-After: {format_datetime(later(300), usegmt=True)}", status="503 Unavailable"),
            "server_error",
            (240, 300),
        ),
        "temporarily_unavailable": passing(refused("temporarily_unavailable"), "server_error"),
        "server_error": passing(refused("server_error"), "server_error"),
        "slow_down": passing(refused("slow_down"), "server_error"),
        "502": passing(reply("<html>", status="502 Bad Gateway"), "server_error"),
        "408": passing(reply("", status="408 Request Timeout"), "server_error"),
        "vertex": throttled(VERTEX, 600, status=400, contains="rate limit", retry_after="10m"),
        "zoho": throttled(ZOHO, 600, contains="too many requests", retry_after="10m"),
        "in-words": throttled(refused("invalid_request", why="Try again in 7 minutes"), 420, contains="try again"),
        "by-status-alone": throttled(reply("", "Retry-After: 30", status="420 Enhance Your Calm"), 30, status=420),
        "vertex-unconfigured": Refused(VERTEX, "refused", (29, 30)),
        "no-token-in-a-header": passing(usual(), "no_token", response={"token": {"header": "X-Auth-Token"}}),
        "no-such-cookie": passing(reply("", "Set-Cookie: a=b"), "no_token", response={"token": {"cookie": "session"}}),
        "html-for-the-whole-body": passing(reply("<html> sign in </html>"), "no_token", response={"token": ""}),
        "already-expired": passing(usual(expires_in=0), "already_expired"),
        "no-answer": Refused(b"", "network", (0, 1)),
        "not-http": Refused(b"220 smtp.example ESMTP\r\n", "no_token", (0, 1)),
    }
