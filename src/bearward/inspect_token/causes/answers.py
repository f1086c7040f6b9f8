"""An answer came, and no token was found in it, or one that is of no use; or it says to come later."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from ...tokens.answer import Answer
from ...tokens.credential import Command, GivenToken
from ...tokens.failure import Reason
from ...tokens.lifetime import at, claims, number
from ..exchange import has_login, is_html, is_xml
from ..hidden import revealed
from .evidence import Evidence, Suggestion

_RATE = r"rate.?limit|too many (request|token|call)|throttl|quota|too frequent|try again in|slow down"
_TOKEN_NAMES = re.compile(r"token|jwt|bearer|session|ticket|credential|api_?key", re.IGNORECASE)
_OTHERS = re.compile(r"refresh|id_?token|type|csrf|xsrf|expir|hint|state", re.IGNORECASE)
_LIKE_A_TOKEN = re.compile(r"[\x21-\x7e]{16,}")
_HAS_PREFIX = re.compile(r"Bearer +[\x21-\x7e]{16,}", re.IGNORECASE)
_HAS_LOGIN = re.compile(r"log-?[io]n|sign-?in|\bsso\b|\bsaml", re.IGNORECASE)
_AS_WRITTEN = "token_url: as the vendor's document has it; redirects are not followed."
_DISCOVERY = re.compile(r"/\.well-known/[\w-]+/?$")
_AUTHORIZATION = re.compile(r"/(auth|authorize)/?$")
_FINE = frozenset({"ok", "success", "succeeded", "successful", "true", "200", "201"})
_SKEW = 30.0
_LEAST_EPOCH = 1e9
"""As a moment, a number below this lies before 2001."""


def about_answers(evidence: Evidence) -> Iterator[Suggestion]:
    """What the answer itself shows."""
    if evidence.answer is None:
        if evidence.reason is Reason.NO_TOKEN:
            yield from _local_or_malformed(evidence)
        elif evidence.reason is Reason.ALREADY_EXPIRED:
            yield from _expired(evidence)
        return
    yield from _disguised(evidence)
    yield from _other_address(evidence, evidence.answer)
    match evidence.reason:
        case Reason.NO_TOKEN:
            yield from _no_token(evidence, evidence.answer)
        case Reason.ALREADY_EXPIRED:
            yield from _expired(evidence)
        case Reason.THROTTLED:
            yield Suggestion(
                80,
                "too many token requests in too short a time; each process has its own tokens.",
                "wait; then fewer processes, or max_token_requests where there is a quota.",
            )
        case Reason.SERVER_ERROR:
            yield Suggestion(
                60,
                f"the identity provider has trouble of its own (status {evidence.status}).",
                "try again later; nothing here is at fault.",
            )
            yield from _other_form(evidence, 45)
        case Reason.REFUSED | Reason.PASSWORD_REFUSED | Reason.SESSION_LIMIT:
            yield from _refused_page(evidence, evidence.answer)


def _disguised(evidence: Evidence) -> Iterator[Suggestion]:
    if evidence.reason is not Reason.THROTTLED and (found := re.search(_RATE, evidence.says)):
        yield Suggestion(
            91,
            f"this is throttling, told by words and not by its status ({evidence.status}).",
            f'response.throttled: {{status: {evidence.status}, contains: "{found[0]}"}}.',
        )


def _other_address(evidence: Evidence, answer: Answer) -> Iterator[Suggestion]:
    """The addresses that stand beside the token endpoint's in an openid-configuration (RFC 8414 §2, RFC 6749 §3.1)."""
    if evidence.reason not in {Reason.NO_TOKEN, Reason.REFUSED, Reason.PASSWORD_REFUSED}:
        return
    if _DISCOVERY.search(evidence.path) or "token_endpoint" in _top(evidence):
        yield Suggestion(
            94,
            "this is the discovery address, which tells where the token endpoint is.",
            "token_url: take token_endpoint out of what it answers to a GET.",
        )
    elif _AUTHORIZATION.search(evidence.path) and (300 <= answer.status < 400 or _is_no_endpoint(answer)):
        yield Suggestion(
            90 if "openid" in evidence.path or "oauth" in evidence.path else 84,
            "this is the authorization address, where people log in with a browser.",
            "token_url: take token_endpoint out of /.well-known/openid-configuration.",
        )


def _is_no_endpoint(answer: Answer) -> bool:
    return answer.status in {404, 405} or is_html(answer)


def _local_or_malformed(evidence: Evidence) -> Iterator[Suggestion]:
    if evidence.endpoint is not None:
        url = urlsplit(evidence.token_url)
        yield Suggestion(
            70, f"what answers at {url.netloc} is no token endpoint.", "token_url: check host, port and path."
        )
    elif isinstance(evidence.credential.source, GivenToken):
        if any(_HAS_PREFIX.fullmatch(text.strip()) for text in revealed([evidence.credential.source.token])):
            yield Suggestion(
                88,
                "what was read has Bearer before the token.",
                "take the prefix off; inject.format puts it there again.",
            )
        yield Suggestion(
            75,
            "what was read is not the token alone: JSON around it, spaces within, or several lines.",
            "response.token: the field that holds it, as in response.token: access_token; else put right what is read.",
        )
    else:
        if "not JSON" in evidence.failure.detail:
            yield Suggestion(
                80,
                "what was printed is no JSON, but perhaps the token itself.",
                'response: {token: ""}, and ttl, as a bare token may not tell how long it lives.',
            )
        yield Suggestion(
            75,
            "what was printed is in none of the known forms, or has the token in another field.",
            "response.token: the field that holds it; or print an ExecCredential.",
        )


# ── 2xx without a token, redirects ───────────────────────────────────────────────────────────────────────────


def _no_token(evidence: Evidence, answer: Answer) -> Iterator[Suggestion]:
    if 300 <= answer.status < 400:
        yield from _redirect(evidence)
    elif is_html(answer):
        what = "a page to log in" if has_login(answer) else "a web page"
        yield Suggestion(
            85,
            f"token_url leads to {what}, not to a token endpoint.",
            "token_url: take the one in the vendor's document.",
        )
    elif not answer.body:
        yield Suggestion(
            60,
            "token_url is another address of the vendor's, or wants another form.",
            "token_url, and method or send as the vendor's document says.",
        )
    else:
        yield from _elsewhere(evidence, answer)


def _redirect(evidence: Evidence) -> Iterator[Suggestion]:
    own, to = urlsplit(evidence.asked_url), evidence.target
    if to is None:
        yield Suggestion(75, "the token endpoint is elsewhere; the redirect does not say where.", _AS_WRITTEN)
    elif (own.scheme, own.hostname, own.path) == ("http", to.hostname, to.path) and to.scheme == "https":
        has_port = own.port is not None or to.port is not None
        change = evidence.leads_to if has_port else "write https:// in place of http://."
        yield Suggestion(90, "the server wants https.", f"token_url: {change}")
    elif to.path.rstrip("/") == own.path.rstrip("/") and to.netloc == own.netloc and to.path != own.path:
        path = evidence.path.rstrip("/") + ("/" if to.path.endswith("/") else "")
        yield Suggestion(88, "the path differs by the slash at its end.", f"token_url: let its path be {path}")
    elif _HAS_LOGIN.search(f"{to.netloc}{to.path}") and "token" not in to.path:
        yield Suggestion(85, f"it leads to a page to log in: {evidence.leads_to}", _AS_WRITTEN)
    else:
        what = "host" if to.hostname != own.hostname else "address"
        yield Suggestion(75, f"it leads to another {what}: {evidence.leads_to}", _AS_WRITTEN)


def _elsewhere(evidence: Evidence, answer: Answer) -> Iterator[Suggestion]:
    prefixed = [path for path, value in evidence.fields if isinstance(value, str) and _HAS_PREFIX.fullmatch(value)]
    for path in prefixed[:1]:
        yield Suggestion(
            90,
            f"the value of {path} has a Bearer prefix, which is no part of a token.",
            "response.token: another field, if one has the token alone; else source: exec, to take it off.",
        )
    names = [path for path, value in evidence.fields if _is_token(path, value)]
    found = sorted(names, key=lambda path: (bool(_OTHERS.search(path)), "access" not in path.lower(), len(path)))[:3]
    if found:
        more = f" (or {', '.join(found[1:])})" if found[1:] else ""
        yield Suggestion(88, f"the token stands in the field {found[0]}{more}.", f"response.token: {found[0]}")
    for name in answer.headers:
        if _names_token(name) or name == "Authorization":
            yield Suggestion(80, f"the token stands in the header {name}.", f"response.token: {{header: {name}}}")
    cookies = answer.headers.getall("Set-Cookie", []) if hasattr(answer.headers, "getall") else []
    for name in [cookie.partition("=")[0].strip() for cookie in cookies]:
        if _names_token(name):
            yield Suggestion(78, f"the token stands in the cookie {name}.", f"response.token: {{cookie: {name}}}")
    body, text = evidence.document, answer.body.decode("utf-8", "replace").strip()
    if is_xml(answer):
        yield Suggestion(
            76,
            "the answer is XML; of that only a header or a cookie can be read.",
            "response.token: {header: NAME} or {cookie: NAME}, if the token is there too; else source: exec.",
        )
    elif (body is None or isinstance(body, str)) and _LIKE_A_TOKEN.fullmatch(text):
        yield Suggestion(85, "the whole body is the token.", 'response.token: ""')
    if _is_refusal(evidence):
        yield Suggestion(
            70,
            f"this is a refusal, told with status {answer.status}; the answer above says why.",
            "do what it says; response.refusal: {field: code, not: [0, 200]} makes it count as one.",
        )
    yield Suggestion(40, "token_url is another address of the vendor's.", "token_url: compare it with their document.")


def _is_refusal(evidence: Evidence) -> bool:
    """Whether a code says so, or where there is none, words: `{"code": 0, "message": "success"}` does not."""
    document = evidence.document if isinstance(evidence.document, dict) else {}
    marks = [document[name] for name in ("code", "status", "success") if name in document]
    errors = [document[name] for name in ("error", "errors") if document.get(name)]
    is_fine = all(mark is None or str(mark).lower() in _FINE or not str(mark).strip("0") for mark in marks)
    return bool(errors) or not is_fine or (not marks and evidence.says.strip(" .!") not in {"", *_FINE})


def _top(evidence: Evidence) -> set[str]:
    return set(evidence.document) if isinstance(evidence.document, dict) else set()


def _names_token(name: str) -> bool:
    is_ordinary = re.fullmatch(r"[\w-]{1,40}", name, re.ASCII) is not None
    return is_ordinary and bool(_TOKEN_NAMES.search(name)) and not _OTHERS.search(name)


def _is_token(path: str, value: object) -> bool:
    if not isinstance(value, str) or not _LIKE_A_TOKEN.fullmatch(value):
        return False
    return claims(value) is not None or bool(_TOKEN_NAMES.search(path))


# ── a token that is over ─────────────────────────────────────────────────────────────────────────────────────


def _expired(evidence: Evidence) -> Iterator[Suggestion]:
    field = evidence.failure.detail.partition(" ")[0]
    if isinstance(evidence.credential.source, Command):
        yield Suggestion(
            85,
            "the command's token is old: it prints one of the past, perhaps out of a cache of its own.",
            "command: an option that has it make a new one; or log it in again.",
        )
        return
    if evidence.endpoint is None:
        yield Suggestion(
            85,
            "what was read is a token of the past: whoever renews it has stopped.",
            "look at what writes it; source exec or oauth2 would renew it here.",
        )
    off = _clock_off(evidence)
    if abs(off) > _SKEW:
        which = "behind" if off > 0 else "ahead of"
        yield Suggestion(
            86,
            f"this machine's clock is {abs(off):.0f} s {which} the identity provider's.",
            "set this machine's clock by NTP (timedatectl).",
        )
    value = number(at(evidence.document, tuple(field.split("."))))
    unit = "seconds" if value is not None and 0 < value < _LEAST_EPOCH else "UNIT"
    yield Suggestion(
        88 if unit == "seconds" else 70,
        f"{field} means something else than it is taken for: another unit, or local time.",
        f"response.expires: {{field: {field}, as: {unit}}}; the vendor's document names the unit.",
    )
    if evidence.answer is not None and evidence.failure.clock_skew is None:
        yield Suggestion(
            50,
            "the clocks differ, and the answer has no Date to tell by how much.",
            "set this machine's clock by NTP (timedatectl).",
        )


def _clock_off(evidence: Evidence) -> float:
    """Seconds: by the answer's Date, else by when its token says that it was made."""
    if evidence.skew or evidence.answer is None:
        return evidence.skew
    for _, value in evidence.fields:
        known = claims(value) if isinstance(value, str) else None
        if known and (made := number(known.get("iat"))) is not None:
            return made - evidence.answer.sent_at
    return 0.0


# ── refusals by something before the token endpoint ──────────────────────────────────────────────────────────


def _refused_page(evidence: Evidence, answer: Answer) -> Iterator[Suggestion]:
    if answer.status == 404:
        yield from _not_found(evidence)
    elif answer.status == 405:
        method = evidence.endpoint.method if evidence.endpoint else "POST"
        if method == "GET":
            yield Suggestion(85, "the token endpoint takes no GET.", "method: POST")
        else:
            yield Suggestion(
                80,
                "what is at this path takes no POST: it is not the token endpoint.",
                "token_url: check its path; a few vendors want method: GET.",
            )
    elif answer.status in {406, 415} or evidence.is_said(r"content.?type|media type|malformed json|not valid json"):
        yield from _other_form(evidence, 86)
    elif is_html(answer):
        what = "a page to log in" if has_login(answer) else "a web page"
        yield Suggestion(
            80,
            f"{what} answers, with status {answer.status}: a gateway before the token endpoint, or another address.",
            "token_url: check host and path; a gateway may have to let you in.",
        )


def _not_found(evidence: Evidence) -> Iterator[Suggestion]:
    if evidence.is_said("realm"):
        yield Suggestion(
            95, "there is no such realm.", "the realm in token_url, or realm of the preset: check its name."
        )
    elif evidence.is_keycloak and "/auth/realms/" in evidence.token_url:
        yield Suggestion(82, "Keycloak has no /auth before its paths since version 17.", "token_url: without /auth.")
    elif evidence.is_keycloak:
        yield Suggestion(82, "an older Keycloak has /auth before its paths.", "token_url: /auth/realms/… in its path.")
    yield Suggestion(80, "the path of token_url is wrong.", "token_url: take its path from the vendor's document.")


def _other_form(evidence: Evidence, weight: int) -> Iterator[Suggestion]:
    if evidence.endpoint is not None:
        other = "form" if evidence.endpoint.send != "form" else "json"
        yield Suggestion(weight, "the parameters are wanted in another form.", f"send: {other}")
