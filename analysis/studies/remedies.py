"""Studies of what lets deep, sparse networks train after pruning at initialisation.

SNIP's fractions of each layer are kept throughout; what is tried are other masks with the same fractions, and
other scales of the weights that are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..study import Study, grid
from ..training import training


@dataclass(frozen=True)
class Remedy:
    """What is done between pruning and training: settings of `analysis.training.Training`."""

    arrangement: str = "no"
    rescale: str = "no"

    @property
    def settings(self) -> dict[str, str]:
        """What `training` is given."""
        return {"arrangement": self.arrangement, "rescale": self.rescale}

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Remedy:
        """The remedy in a training's settings."""
        return cls(settings.get("arrangement", "no"), settings["rescale"])

    def __str__(self) -> str:
        """In words, as legends and tables have it."""
        masks = {"no": "", "random": "masks at random", "balanced": "balanced masks"}[self.arrangement]
        scales = "" if self.rescale == "no" else f"rescaled by the {self.rescale}"
        return ", ".join(filter(None, (masks, scales))) or "as pruned"


AS_PRUNED, BY_WEIGHTS = Remedy(), Remedy(rescale="weights")
BY_SIGNAL, BY_UNITS = Remedy(rescale="signal"), Remedy(rescale="units")
SHUFFLED, BALANCED = Remedy("random", "weights"), Remedy("balanced", "units")
REMEDIES = (AS_PRUNED, BY_WEIGHTS, BY_SIGNAL, BY_UNITS, SHUFFLED, BALANCED)

#: 1,496 steps of 64 digits. Gradients are clipped, so that first steps of any length do no harm.
RECIPE: dict[str, Any] = {"epochs": 68, "weight_decay": 0.0, "clip": 1.0, "every": 17, "sparse": True}


def _part(
    name: str,
    about: str,
    activation: str,
    remedies: Sequence[Remedy],
    depths: Sequence[int],
    sparsities: tuple[float, ...],
    rates: Sequence[float],
    more: tuple[Study, ...] = (),
) -> Study:
    """Networks of width 100 on the edge of chaos, each with each remedy at each learning rate."""
    return Study(
        name=name,
        about=about,
        networks=grid(depth=list(depths), width=100, activation=activation),
        criteria=("snip",),
        sparsities=sparsities,
        seeds=5,
        measures=tuple(
            training(learning_rate=rate, **remedy.settings, **RECIPE)
            for remedy, rate in product(remedies, rates)
        ),
        quick_seeds=2,
        quick_depth=10,
        more=more,
    )


def _both(name: str, about: str, tanh: Sequence[Remedy], *axes: Any) -> Study:
    """ReLU networks with every remedy, and tanh networks with some."""
    return _part(name, about, "relu", REMEDIES, *axes, more=(_part(name, about, "tanh", tanh, *axes),))


#: Of the learning rates each cell (activation, depth, sparsity, remedy) is given the one that is best for it.
REMEDIES_DIGITS = _both(
    "remedies",
    "what lets deep, sparse networks train after SNIP: rescaling, other masks in each layer; on digits",
    (AS_PRUNED, BY_WEIGHTS, BALANCED),
    (10, 20, 40),
    (0.9, 0.95),
    (0.01, 0.03, 0.08),
)

#: About ten hours of one core, which `--workers` and `--scheduler` share out; it has not been run.
REMEDIES_FULL = _both(
    "remedies-full",
    "the same over more depths, sparsities and learning rates",
    REMEDIES,
    (5, 10, 20, 40, 60, 80, 100),
    (0.5, 0.8, 0.9, 0.95, 0.98),
    (0.003, 0.01, 0.03, 0.08, 0.16, 0.3),
)
