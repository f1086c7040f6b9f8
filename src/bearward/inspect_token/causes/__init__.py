"""What most likely made an attempt fail, and what to change: from what was sent, what came back, and the config.

What may live here: pure functions over `Evidence`, each for one kind of cause. They ask nobody.
"""

from itertools import chain

from ...egress import EgressProxy
from ..steps import Step
from .answers import about_answers
from .clients import about_clients
from .evidence import Evidence, Suggestion
from .grants import about_grants
from .reaching import about_reaching
from .secrets import about_secrets
from .signing import about_signing

MOST = 4


def likely_causes(step: Step, egress: EgressProxy | None) -> list[Suggestion]:
    """The most likely ones of a failed step, the likeliest first."""
    evidence = Evidence.of(step, egress)
    rooms = (about_secrets, about_reaching, about_answers, about_clients, about_signing, about_grants)
    found = sorted(chain.from_iterable(room(evidence) for room in rooms), key=lambda one: -one.weight)
    return list({suggestion.likely: suggestion for suggestion in found}.values())[:MOST]
