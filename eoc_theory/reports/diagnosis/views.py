"""A network as it is or after a change, and which of several changes helps most."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ...errors import EOCError, InternalError
from ...propagation.observed import Observed
from .findings import is_better
from .forecast import Outlook
from .remedies import Cure
from .signals import signal_problems


@dataclass(frozen=True)
class View:
    """A network as it is, or after a change.

    Attributes:
        outlook: what pruning does to it.
        signals: what it does to signals and gradients.
        notes: what the numbers take for granted.
    """

    outlook: Outlook
    signals: Observed
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """As `Diagnosis.problems`."""
        return signal_problems(self.outlook, self.signals)


def best_of(
    before: View, cures: Iterable[Cure], look: Callable[[Any], View], *, any_that_helps: bool = False
) -> tuple[Cure | None, View | None]:
    """The first change after which nothing is wrong, else the one that helps most; None where none helps.

    Args:
        look: shows a changed network; one that it refuses is no cure.
        any_that_helps: whether the first that helps is enough.
    """
    chosen, least = None, before
    for cure in cures:
        try:
            after = look(cure.net)
        except InternalError:
            raise
        except EOCError:
            continue
        if _helps(after, least):
            chosen, least = cure, after
            if any_that_helps or not after.problems:
                break
    return chosen, None if chosen is None else least


def _helps(one: View, other: View) -> bool:
    if is_better(one.outlook, other.outlook):
        return True
    return len(one.problems) < len(other.problems) and not is_better(other.outlook, one.outlook)
