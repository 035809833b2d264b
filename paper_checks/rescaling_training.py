"""Rescaling and training: accuracy over depth and sparsity (figure 2)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from analysis.studies.trained import RESCALING_MNIST, rescaling
from analysis.study import Batch, Place, Study, Task
from eoc_theory.errors import DataError

from .claim import Claim, Evidence, Finding, Verdict
from .picture import Picture, Series
from .trained_networks import Trained, trained

ACTIVATIONS = ("tanh", "relu")
SHOWN = {"tanh": "tanh", "relu": "ReLU"}
WAYS = {"no": "not rescaled", "weights": "with ρ", "signal": "by the signal"}
#: Standard errors from which a difference counts.
CLEAR = 3.0


@dataclass(frozen=True)
class Cell:
    """One place of the figure."""

    activation: str
    depth: int
    sparsity: float
    criterion: str
    critical: bool
    rescale: str

    @classmethod
    def of(cls, task: Task) -> Cell:
        (sparsity,), network = task.sparsities, task.network
        rescale = str(dict(task.measure.settings)["rescale"])
        return cls(
            network.activation, network.depth, sparsity, task.criterion, network.init == "eoc", rescale
        )

    def __str__(self) -> str:
        phase = "" if self.critical else "ordered, "
        return (
            f"{SHOWN[self.activation]}, {self.depth} layers, {self.sparsity:.0%} removed "
            f"({self.criterion}): {phase}{WAYS[self.rescale]}"
        )


def small(quick: bool) -> Study:
    """Networks that a CPU trains in seconds each, on digits."""
    return rescaling(
        "rescaling-check",
        "a part of the study rescaling, with more seeds",
        depths=(10,) if quick else (10, 20),
        sparsities=(0.95,) if quick else (0.9, 0.95),
        seeds=3 if quick else 10,
        data=Batch(),
        quick_depth=10,
        epochs=12,
        learning_rate=0.03,
    )


def networks(quick: bool) -> tuple[list[Task], Place, str]:
    """What is trained, where, and what that is called: the paper's size where there is a GPU and MNIST."""
    import torch

    if not quick and torch.cuda.is_available():
        deepest = max(network.depth for network in RESCALING_MNIST.networks)
        tasks = [task for task in RESCALING_MNIST.tasks() if task.network.depth == deepest]
        tasks = [task for task in tasks if task.sparsities == (0.9,)]
        try:
            tasks[0].batch.load("mlp")
        except DataError:
            pass
        else:
            return tasks, Place("cuda"), "MNIST, on a GPU"
    return list(small(quick).tasks()), Place("cpu"), "digits, a reduced size"


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    tasks, place, where = networks(quick)
    found = trained(tasks, Cell.of, place)
    evidence = [Evidence(f"accuracy, {cell}", None, one.mean, one.error) for cell, one in found.items()]
    places = sorted({(cell.depth, cell.sparsity) for cell in found if cell.criterion == "snip"})
    gains: dict[tuple[str, str], list[float]] = {}
    for activation, (depth, sparsity), rescale in product(ACTIVATIONS, places, ("weights", "signal")):
        plain = found[Cell(activation, depth, sparsity, "snip", True, "no")]
        gain = found[Cell(activation, depth, sparsity, "snip", True, rescale)].better_than(plain)
        gains.setdefault((activation, rescale), []).append(gain)
        what = (
            f"{SHOWN[activation]}, {depth} layers, {sparsity:.0%} removed (snip), {rescale} less not rescaled"
        )
        claimed = f"> {CLEAR:g}" if rescale == "weights" else None
        evidence.append(Evidence(f"{what}, in standard errors", claimed, gain))
    for activation, depth in product(ACTIVATIONS, sorted({depth for depth, _ in places})):
        plain = found[Cell(activation, depth, 0.9, "random", True, "no")]
        gain = found[Cell(activation, depth, 0.9, "random", True, "weights")].better_than(plain)
        gains.setdefault((activation, "random"), []).append(gain)
    revived = sum(one.revived for one in found.values())
    evidence.append(Evidence("removed weights that came back in training", 0.0, float(revived)))

    def clear(activation: str, rescale: str) -> bool:
        return min(gains[activation, rescale]) > CLEAR

    helped = [clear(activation, "weights") for activation in ACTIVATIONS]
    cured = [clear(activation, "random") for activation in ACTIVATIONS]
    verdict = Verdict.HOLDS if all(helped) else Verdict.REFINED if helped[0] and all(cured) else Verdict.FAILS
    parts = []
    depth, sparsity = places[-1]
    for activation in ACTIVATIONS:
        arms = [
            found[Cell(activation, depth, sparsity, "snip", True, way)] for way in ("no", "weights", "signal")
        ]
        ordered = found[Cell(activation, depth, sparsity, "snip", False, "no")]
        chance = [found[Cell(activation, depth, 0.9, "random", True, way)] for way in ("no", "weights")]
        holds = "holds" if clear(activation, "weights") else "does not hold"
        parts.append(
            f"{SHOWN[activation]}: the claim {holds} for SNIP's masks; {depth} layers with {sparsity:.0%} "
            f"removed reach {arms[0].mean:.2f} as they are, {arms[1].mean:.2f} with ρ, {arms[2].mean:.2f} "
            f"rescaled by the signal and {ordered.mean:.2f} in the ordered phase; with 90 % removed at "
            f"random ρ takes them from {chance[0].mean:.2f} to {chance[1].mean:.2f}."
        )
    conclusion = f"Trained here: {where}; the accuracies are not the paper's. {' '.join(parts)}"
    if not helped[1]:
        conclusion += (
            " The reason is in rescaling-after-snip: SNIP's masks gather on the same units in ReLU networks, "
            "and ρ makes gradients explode."
        )
    return Finding(tuple(evidence), verdict, conclusion, _picture(found, depth, sparsity, where))


def _picture(found: dict[Cell, Trained], depth: int, sparsity: float, where: str) -> Picture:
    """Accuracy by epoch, one line an activation and way."""
    series = []
    for colour, rescale in enumerate(WAYS):
        for activation in ACTIVATIONS:
            history = found[Cell(activation, depth, sparsity, "snip", True, rescale)].history
            series.append(
                Series(
                    f"{SHOWN[activation]}, {WAYS[rescale]}",
                    np.arange(1, len(history) + 1),
                    history,
                    dashed=activation == "relu",
                    colour=colour,
                )
            )
    caption = (
        f"Test accuracy of critical networks of {depth} layers after SNIP at {sparsity:.0%} ({where}), mean "
        "over seeds."
    )
    return Picture(caption, "epoch", "test accuracy", tuple(series))


CLAIM = Claim(
    name="rescaling-training",
    statement="Deep and sparse fully connected networks pruned by SNIP on the edge of chaos train better "
    "with the rescaling trick than without it or from the ordered phase, tanh and ReLU (Hayou et al. 2021, "
    "figure 2: MNIST, width 100, up to 100 layers).",
    method="Networks of width 100 trained on digits by SGD with momentum (12 epochs of 1440 images, learning "
    "rate 0.03, chosen once), several seeds, 10 layers, in the full form 20 too; on a GPU with MNIST the "
    "full form takes the paper's size (the study rescaling-mnist, 100 layers at 90 %). A difference of three "
    "standard errors counts. The map over depth and sparsity is the study rescaling and its figure.",
    recorded=Verdict.REFINED,
    check=check,
)
