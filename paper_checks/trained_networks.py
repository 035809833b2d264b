"""Networks trained for a check: what a study's tasks lead to, by cell and seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from analysis.study import Place, Task
from analysis.training import train

from .graph_networks import mean_and_error

Array = np.ndarray
Cell = TypeVar("Cell")


@dataclass(frozen=True)
class Trained:
    """Trainings that differ by their seed alone.

    Attributes:
        accuracy: on the test images at the end, (seeds,).
        history: the same after each epoch, mean over the seeds, (epochs,).
        revived: removed weights that were not 0 at the end of some epoch, in all seeds together.
    """

    accuracy: Array
    history: Array
    revived: int

    @property
    def mean(self) -> float:
        return float(self.accuracy.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        # Of equal numbers it is 0, and not what rounding of their mean leaves.
        return mean_and_error(self.accuracy)[1] if np.ptp(self.accuracy) > 0 else 0.0

    def better_than(self, other: Trained) -> float:
        """How many standard errors of the difference its mean lies above the other's."""
        difference, error = self.mean - other.mean, math.hypot(self.error, other.error)
        if difference == 0 or error > 0:
            return difference / error if difference else 0.0
        return math.copysign(math.inf, difference)


def trained(tasks: Iterable[Task], cell: Callable[[Task], Cell], place: Place) -> dict[Cell, Trained]:
    """The tasks' trainings, those of one cell together."""
    found: dict[Cell, list[dict[str, Any]]] = {}
    for task in tasks:
        found.setdefault(cell(task), []).append(dict(train(task, place)))
    return {
        key: Trained(
            np.array([one["accuracy"] for one in group]),
            _mean_history([one["test_accuracy"] for one in group]),
            sum(one["revived"] for one in group),
        )
        for key, group in found.items()
    }


def _mean_history(histories: list[list[float]]) -> Array:
    """A training that diverged stops; its last accuracy stays."""
    longest = max(map(len, histories))
    return np.mean([[*one, *[one[-1]] * (longest - len(one))] for one in histories], axis=0)
