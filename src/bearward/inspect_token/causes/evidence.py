"""What there is to judge by."""

import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self
from urllib.parse import SplitResult, urljoin, urlsplit

from ...address import is_loopback
from ...egress import EgressProxy
from ...tokens.answer import Answer, parse
from ...tokens.credential import Assertion, Client, Credential, TokenEndpoint
from ...tokens.failure import Reason, TokenRequestError
from ..exchange import descriptions, fields_of, last_answer
from ..masking import Mask
from ..steps import Step

FAINT: Final = 30
"""What weighs less is said only where there is nothing else."""


class Suggestion(NamedTuple):
    """A likely cause, and what to try. `weight` says how likely: 90 is as good as told by the answer, 50 is usual."""

    weight: int
    likely: str
    attempt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A failed step."""

    credential: Credential
    token_url: str
    asked_url: str
    """The token URL as it was asked, with what is secret."""
    failure: TokenRequestError
    answer: Answer | None
    document: Any
    fields: list[tuple[str, Any]]
    """All of the document, as `exchange.fields_of` tells."""
    says: str
    """What the answer says in words, in lower case; of a page for people nothing."""
    target: SplitResult | None
    """Where a redirect leads, with what may be secret."""
    leads_to: str
    """Where a redirect leads, as far as it may be shown; empty where it does not tell."""
    egress: EgressProxy | None
    """What the request went through."""
    is_local: bool
    """Whether the token endpoint is on this machine."""
    was_repeated: bool
    """Whether it was made again by the identity provider's clock."""

    @classmethod
    def of(cls, step: Step, egress: EgressProxy | None, mask: Mask) -> Self:
        assert step.failure is not None  # noqa: S101 - who asks has looked
        answer, reading = last_answer(step), step.source.credential.reading
        asked_url = step.exchanges[-1].request.url if step.exchanges else step.source.token_url
        target, parts = _target(asked_url, answer), urlsplit(step.source.token_url)
        is_local = is_loopback(parts.hostname or "")
        return cls(
            credential=step.source.credential,
            token_url=step.source.token_url,
            asked_url=asked_url,
            failure=step.failure,
            answer=answer,
            document=parse(answer, reading) if answer else None,
            fields=fields_of(step, mask),
            says=" ".join(descriptions(answer, reading) if answer else []).lower(),
            target=target,
            leads_to=mask.hide(_shown(target)) if target else "",
            egress=egress if parts.scheme == "https" and not is_local else None,
            is_local=is_local,
            was_repeated=len(step.exchanges) > 1,
        )

    @property
    def reason(self) -> Reason:
        return self.failure.reason

    @property
    def status(self) -> int | None:
        return self.answer.status if self.answer else None

    @property
    def endpoint(self) -> TokenEndpoint | None:
        source = self.credential.source
        return source if isinstance(source, TokenEndpoint) else None

    @property
    def client(self) -> Client:
        return self.endpoint.client if self.endpoint else Client()

    @property
    def code(self) -> str:
        """The OAuth error; empty where there is none."""
        found = self.document.get("error") if isinstance(self.document, dict) else None
        return found if isinstance(found, str) else ""

    @property
    def is_refused(self) -> bool:
        """Whether the identity provider said no to what it was asked."""
        return self.reason in {Reason.REFUSED, Reason.PASSWORD_REFUSED}

    @property
    def path(self) -> str:
        """That of the token URL."""
        return urlsplit(self.token_url).path

    @property
    def is_keycloak(self) -> bool:
        return "/realms/" in self.path

    @property
    def signs(self) -> bool:
        endpoint = self.endpoint
        return endpoint is not None and (
            endpoint.client.assertion is not None or isinstance(endpoint.assertion, Assertion)
        )

    @property
    def skew(self) -> float:
        """The identity provider's clock minus ours, in seconds; 0 where it is not known."""
        return self.failure.clock_skew or 0.0

    def is_said(self, pattern: str) -> bool:
        """Whether the answer has words like these."""
        return re.search(pattern, self.says) is not None


def _target(asked_url: str, answer: Answer | None) -> SplitResult | None:
    location = answer.headers.get("Location") if answer else None
    try:
        target = urlsplit(urljoin(asked_url, location)) if location else None
        _ = target and target.port  # one that is no number raises
    except ValueError:
        return None
    return target


def _shown(url: SplitResult) -> str:
    """Without user, query and fragment."""
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
