"""FORCE: SNIP in rounds, in which removed weights may come back."""

from __future__ import annotations

from dataclasses import dataclass

from .criterion import register
from .snip import Snip


@register
@dataclass(frozen=True)
class Force(Snip):
    """|W g| with g the gradient at the pruned network, by all weights (de Jorge et al. 2021, equation 5).

    A weight that one round removed has a gradient still, and comes back where its score is among the largest.
    """

    name = "force"
    regrows = True
    # The weight that is multiplied is not the one that the network was run with.
    is_product = False
    rounds: int = 60

    @property
    def has_kernel_law(self) -> bool:
        """Removed weights come back in rounds alone; one round is SNIP's, from sampled networks."""
        return False
