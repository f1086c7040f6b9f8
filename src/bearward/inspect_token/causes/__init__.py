"""What most likely made an attempt fail, and what to change: from what was sent, what came back, and the config.

What may live here: pure functions over `Evidence`, each for one kind of cause. They ask nobody.
"""

from itertools import chain
from typing import Final

from ...egress import EgressProxy
from ..masking import Mask
from ..steps import Step
from .answers import about_answers
from .clients import about_clients
from .evidence import FAINT, Evidence, Suggestion
from .grants import about_grants
from .reaching import about_reaching
from .secrets import about_secrets
from .signing import about_signing

MOST: Final = 3


def likely_causes(step: Step, egress: EgressProxy | None, mask: Mask) -> list[Suggestion]:
    """The most likely ones of a failed step, the likeliest first."""
    evidence = Evidence.of(step, egress, mask)
    rooms = (about_secrets, about_reaching, about_answers, about_clients, about_signing, about_grants)
    found = sorted(chain.from_iterable(room(evidence) for room in rooms), key=lambda one: -one.weight)
    different = list({suggestion.likely: suggestion for suggestion in found}.values())[:MOST]
    return [one for one in different if one.weight >= FAINT or one is different[0]]
