"""The whole report, 80 columns wide: each step, and after a failure its likely causes."""

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Final

from ..egress import EgressProxy
from ..tokens import schedule
from ..tokens.answer import Issued
from ..tokens.credential import Command, GivenToken, OwnJwt, TokenEndpoint
from ..tokens.lifetime import claims
from ..tokens.token import fingerprint
from .causes import likely_causes
from .causes.evidence import Suggestion
from .exchange import Row, fields_of, jwt_header, rows, shown_url
from .hidden import masks_of
from .masking import HIDDEN, Mask, Masks
from .steps import Step

WIDTH: Final = 80
_LABEL = 14
_EXPIRY = re.compile(r"expir|valid|until|ttl|life", re.IGNORECASE)
_SKEW_WORTH_TELLING = 2.0


def whole(steps: list[Step], egress: EgressProxy | None) -> str:
    """The report, without a newline at its end."""
    masks = masks_of(steps)
    sections = []
    for number, step in enumerate(steps, 1):
        name = step.source.label + (f" ({number}. of a chain)" if len(steps) > 1 or step.source.chained else "")
        sections.append("\n".join(_laid_out([("credential", name), *_rows(step, masks)])))
    last = steps[-1]
    if last.failure is not None:
        sections += [_suggested(suggestion) for suggestion in likely_causes(last, egress, masks.values)]
    return "\n\n".join(sections)


def _rows(step: Step, masks: Masks) -> Iterator[Row]:
    yield from _origin_rows(step)
    for exchange in step.exchanges:
        yield from rows(step, exchange, masks)
    if step.issued is not None:
        yield from _token_rows(step, step.issued, masks.values)
    if step.failure is not None:
        yield "no token", str(step.failure)
        if step.failure.clock_skew is not None:
            yield from _skew_rows(step.failure.clock_skew)
    yield from (("logout", outcome) for outcome in step.logouts)


def _origin_rows(step: Step) -> Iterator[Row]:
    match step.source.credential.source:
        case TokenEndpoint():
            yield "token URL", shown_url(step.source.token_url)
        case GivenToken(token):
            yield "read", token.origin
        case OwnJwt(assertion):
            key = "the secret" if assertion.algorithm.startswith("HS") else "the key"
            yield "signed", f"here, {assertion.algorithm} with {key} from {assertion.key.origin}"
        case Command() as command:
            count = len(command.argv) - 1
            told = f" with {count} argument{'' if count == 1 else 's'}" if count else ""
            yield "ran", f"{command.argv[0]}{told} in {command.folder}, {step.seconds:.2f} s"


def _token_rows(step: Step, issued: Issued, mask: Mask) -> Iterator[Row]:
    credential, known = step.source.credential, claims(issued.token)
    yield "token", f"{fingerprint(issued.token)} (the start of its SHA-256), {len(issued.token)} characters"
    yield from _life_rows(step, issued, mask)
    if issued.refresh_token:
        ends = "no told end" if issued.refresh_lifetime is None else f"{issued.refresh_lifetime:.0f} s"
        yield "refresh token", ends
    if issued.clock_skew is not None:
        yield from _skew_rows(issued.clock_skew)
    yield "injected", f"{credential.inject_header}: {credential.inject_format.replace('{token}', HIDDEN)}"
    if known is not None:
        yield "header", json.dumps(jwt_header(issued.token))
    yield "claims", json.dumps(known, indent=2) if known is not None else "none: the token is no JWT"


def _life_rows(step: Step, issued: Issued, mask: Mask) -> Iterator[Row]:
    credential = step.source.credential
    if isinstance(credential.source, GivenToken) and issued.lifetime >= schedule.MAX_LIFETIME:
        yield "lifetime", "until it changes: neither it nor ttl tells an end"
        return
    hint = ""
    if issued.lifetime_from == "default":
        fields = [path for path, _ in fields_of(step, mask) if _EXPIRY.search(path)][:3]
        told = f"perhaps told by {' or '.join(fields)}: response.expires"
        hint = f"; {told if fields else 'nothing tells it: write ttl'}"
    yield "lifetime", f"{issued.lifetime:.0f} s, from {issued.lifetime_from}{hint}"
    leads = [
        schedule.lead(issued.lifetime, credential.refresh_lead, bound, issued.refresh_in)
        for bound in (lambda _low, high: high, lambda low, _high: low)
    ]
    first, last = (f"{issued.lifetime - lead:.0f}" for lead in leads)
    yield "refresh", f"{first if first == last else f'{first} to {last}'} s after it was asked for"


def _skew_rows(skew: float) -> Iterator[Row]:
    if abs(skew) > _SKEW_WORTH_TELLING:
        yield "clock skew", f"{skew:+.0f} s (the identity provider's clock minus this machine's)"


def _laid_out(all_rows: list[Row]) -> Iterator[str]:
    for label, text in all_rows:
        if "\n" in text:
            yield f"{label:<{_LABEL}} {text}"
            continue
        indent = " " * (_LABEL + 1)
        yield from _wrapped(text, f"{label:<{_LABEL}} ", indent + ("" if label else "  "))


def _wrapped(text: str, first: str, then: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    ) or [first]


def _suggested(suggestion: Suggestion) -> str:
    lines = _wrapped(suggestion.likely, "Likely: ", " " * 8) + _wrapped(suggestion.attempt, "Try:    ", " " * 8)
    return "\n".join(lines)
