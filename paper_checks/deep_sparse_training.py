"""What lets deep, sparse networks train after SNIP: rescaling, or other masks with SNIP's fractions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.studies.remedies import (
    AS_PRUNED,
    BALANCED,
    BY_SIGNAL,
    BY_UNITS,
    BY_WEIGHTS,
    REMEDIES_DIGITS,
    SHUFFLED,
    Remedy,
)
from analysis.study import Place, Task

from .claim import Claim, Evidence, Finding, Verdict
from .picture import Picture, Series
from .trained_networks import Trained, trained

#: What leaves SNIP's masks as they are: the paper's rescaling, and others.
RESCALINGS = (BY_WEIGHTS, BY_SIGNAL, BY_UNITS)
#: (layers, sparsity): the accuracy from which networks are said to train.
TRAINS = {(20, 0.9): 0.93, (20, 0.95): 0.9, (40, 0.9): 0.9, (40, 0.95): 0.85}
#: Of the quick form: one network, and the learning rate that the study found best for most of these cells.
QUICK_PLACE, QUICK_RATE, QUICK_SEEDS = (40, 0.9), 0.08, 2
QUICK_REMEDIES = (AS_PRUNED, BY_WEIGHTS, BALANCED)


@dataclass(frozen=True)
class Cell:
    """Networks that differ by their seed alone."""

    depth: int
    sparsity: float
    remedy: Remedy
    rate: float

    @classmethod
    def of(cls, task: Task) -> Cell:
        settings = dict(task.measure.settings)
        return cls(task.network.depth, task.sparsities[0], Remedy.of(settings), settings["learning_rate"])


def networks(quick: bool) -> list[Task]:
    """The trainings of the study `remedies` of ReLU networks of 20 layers and more, or a few of them."""
    deep = [t for t in REMEDIES_DIGITS.tasks() if t.network.activation == "relu" and t.network.depth >= 20]
    if not quick:
        return deep
    return [
        task
        for task in deep
        if (cell := Cell.of(task)).remedy in QUICK_REMEDIES
        and (cell.depth, cell.sparsity, cell.rate) == (*QUICK_PLACE, QUICK_RATE)
        and task.seed < QUICK_SEEDS
    ]


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    found = trained(networks(quick), Cell.of, Place("cpu"))
    best: dict[tuple[tuple[int, float], Remedy], tuple[Cell, Trained]] = {}
    for cell, one in found.items():
        key = ((cell.depth, cell.sparsity), cell.remedy)
        if key not in best or one.mean > best[key][1].mean:
            best[key] = cell, one
    evidence = []
    for ((depth, sparsity), remedy), (cell, one) in sorted(best.items(), key=lambda item: item[0][0]):
        bar = f"≥ {TRAINS[depth, sparsity]:g}" if remedy == BALANCED else None
        what = (
            f"accuracy, ReLU, {depth} layers, {sparsity:.0%} removed: {remedy} (learning rate {cell.rate:g})"
        )
        evidence.append(Evidence(what, bar, one.mean, one.error))
    revived = sum(one.revived for one in found.values())
    evidence.append(Evidence("removed weights that came back in training", 0.0, float(revived)))
    places = sorted({place for place, _ in best})

    def train(remedies: tuple[Remedy, ...], place: tuple[int, float]) -> bool:
        """Whether networks there train with one of these."""
        means = [best[place, remedy][1].mean for remedy in remedies if (place, remedy) in best]
        return max(means) >= TRAINS[place]

    if all(train(RESCALINGS, place) for place in places):
        verdict = Verdict.HOLDS
    elif all(train((BALANCED,), place) for place in places):
        verdict = Verdict.REFINED
    else:
        verdict = Verdict.FAILS
    return Finding(tuple(evidence), verdict, _conclusion(best, places), _picture(best, places[-1]))


def _conclusion(
    best: dict[tuple[tuple[int, float], Remedy], tuple[Cell, Trained]], places: list[tuple[int, float]]
) -> str:
    parts = []
    for depth, sparsity in places:
        means = {remedy: one.mean for (at, remedy), (_, one) in best.items() if at == (depth, sparsity)}
        rescaled = max(means[remedy] for remedy in RESCALINGS if remedy in means)
        shuffled = f"{means[SHUFFLED]:.2f} with masks at random and ρ, " if SHUFFLED in means else ""
        parts.append(
            f"{depth} layers with {sparsity:.0%} removed reach {means[AS_PRUNED]:.2f} as they are, "
            f"{rescaled:.2f} with the best rescaling, {shuffled}{means[BALANCED]:.2f} with balanced masks, "
            "rescaled by the units"
        )
    # The quick form leaves the units out, by which networks of 90 % removed train.
    tried = any(remedy == BY_UNITS for _, remedy in best)
    missing = "does not always make up" if tried else "by the weights does not make up"
    return (
        f"ReLU on digits: {'; '.join(parts)}. Such masks keep SNIP's number of weights in a layer "
        "(`rearrange_masks`, `rescale_(by='units')`). So its fractions serve deep networks well; its choice "
        f"within the layers gathers on few units, and rescaling alone {missing} for that."
    )


def _picture(
    best: dict[tuple[tuple[int, float], Remedy], tuple[Cell, Trained]], place: tuple[int, float]
) -> Picture:
    """Accuracy during training, a line a remedy."""
    series = []
    for (where, remedy), (_, one) in best.items():
        if where == place:
            epochs = np.linspace(0, 68, len(one.history) + 1)[1:]
            series.append(Series(str(remedy), epochs, one.history, colour=len(series)))
    caption = f"Test accuracy of ReLU networks of {place[0]} layers, {place[1]:.0%} removed, mean over seeds."
    return Picture(caption, "epoch", "test accuracy", tuple(series))


CLAIM = Claim(
    name="deep-sparse-training",
    statement="Pruned by SNIP on the edge of chaos and rescaled, deep ReLU networks train with few weights "
    "left (Hayou et al. 2021, figure 2, read for ReLU: clipped gradients, the best of three rates).",
    method="ReLU networks of width 100 with 20 and 40 layers, 90 and 95 % removed, trained on digits by SGD "
    "with momentum: 1,496 steps, gradients clipped at norm 1, five seeds, each cell at the best of three "
    "rates. As pruned; rescaled by the weights (ρ), by the signal, by the units; with masks at random in "
    "each layer; with balanced ones. To train is to reach an accuracy of .93 and .9 (20 layers, 90 and 95 % "
    "removed), .9 and .85 (40 layers). The quick form has 40 layers, 90 % removed, two seeds, one rate, and "
    "of the rescalings ρ alone: it says less. The study is `remedies`, with its figure.",
    recorded=Verdict.REFINED,
    check=check,
)
