"""Designs carried out: predicted probabilities of collapse against networks really pruned.

    python -m benchmarks.designs measure          # some ten minutes of one core; goes on where it stopped
    python -m benchmarks.designs measure --only 'resnet*'
    python -m benchmarks.designs report           # prints the table of what is kept in designs.csv

Each network is designed for a sparsity (`eoc.design`); then networks of the chosen design, of the network as
it is, and of every other option that the design drew networks of are made from seeds of their own, pruned,
and looked at: is a layer empty, or without a weight on a path from the input to the logits?
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import eoc_theory as eoc
from eoc_theory.pytorch.inputs import example_shape
from eoc_theory.reports.design import Candidate

from .command import measure_or_report

TABLE = Path(__file__).parent / "designs.csv"

#: Seeds of the networks that are measured begin here, far from those that a design draws.
FIRST_SEED = 7000
ALL = ("snip", "grasp", "magnitude", "synflow", "synflow-oneshot", "random", "uniform", "erk")
#: Probabilities between these are the hard ones: the others are all but certain.
OPEN = (0.02, 0.98)
ORDERED = (1.1, 0.2)
SMALL, MIDDLE, LARGE = (3, 8, 8), (3, 16, 16), (3, 32, 32)


@dataclass(frozen=True)
class Case:
    """A network, its data, what it is designed for, and how many networks are measured."""

    name: str
    net: eoc.Architecture
    data: Any
    sparsities: tuple[float, ...]
    criteria: tuple[str, ...] = ("snip",)
    networks: int = 20


def cases() -> list[Case]:
    """All of them: rows of layers first."""
    digits, few = eoc.digits(100), eoc.digits(50)
    small, middle, large = (eoc.digits_images(n, s) for n, s in ((50, SMALL), (50, MIDDLE), (50, LARGE)))
    mlp, resnet, vgg = eoc.mlp, eoc.resnet, eoc.vgg
    high = (0.9, 0.98, 0.99, 0.999)
    return [
        Case("mlp15x40-tanh-ordered", mlp(15, 40, activation="tanh", init=(0.5, 0.1)), few, (0.72, 0.8)),
        Case("mlp10x100-tanh-critical", mlp(10, 100, activation="tanh"), digits, high),
        Case("mlp10x100-relu-default", mlp(10, 100, activation="relu", init="pytorch"), digits, high),
        Case("mlp30x100-tanh-critical", mlp(30, 100, activation="tanh"), digits, (0.95, 0.98)),
        Case("mlp30x100-relu-critical", mlp(30, 100, activation="relu"), digits, high),
        Case("mlp30x100-gelu-kaiming", mlp(30, 100, activation="gelu", init="kaiming"), digits, (0.9, 0.99)),
        Case(
            "mlp60x100-tanh-ordered", mlp(60, 100, activation="tanh", init=(1.1, 0.2)), digits, (0.95, 0.98)
        ),
        Case("mlp100x100-relu-critical", mlp(100, 100, activation="relu"), digits, (0.95,), networks=10),
        Case("mlp12x40-tanh", mlp(12, 40, activation="tanh", init=(0.8, 0.1)), few, (0.97, 0.99), ALL),
        Case(
            "cnn10x16-relu-default",
            eoc.cnn(10, 16, activation="relu", init="pytorch", input_shape=SMALL),
            eoc.digits_images(20, SMALL),
            (0.9, 0.97, 0.99),
            ("snip", "magnitude"),
            10,
        ),
        Case("resnet20x8", resnet(20, width=8, input_shape=MIDDLE), middle, (0.95, 0.98, 0.998), networks=10),
        Case(
            "resnet20x8-small",
            resnet(20, width=8, input_shape=SMALL),
            small,
            (0.98, 0.998),
            ("magnitude", "grasp", "random", "erk"),
            10,
        ),
        Case(
            "resnet8x8-stable-plain",
            resnet(8, width=8, scaling="stable", normalisation=None, input_shape=SMALL),
            small,
            (0.97, 0.99),
            networks=10,
        ),
        Case("vgg11x8", vgg(11, width=8, input_shape=LARGE), large, (0.98, 0.99, 0.999), networks=8),
        Case(
            "vgg11x8-plain",
            vgg(11, width=8, normalisation=None, input_shape=LARGE),
            large,
            (0.95, 0.99),
            networks=8,
        ),
    ]


def measured(
    net: eoc.Architecture, case: Case, sparsity: float, criterion: str, counts: Any
) -> tuple[int, int]:
    """How many networks have an empty layer, and how many one without a weight on a path."""
    data = case.net.summarise(case.data)
    example = None if net.graph is None else example_shape(net)
    empty = cut = 0
    for seed in range(FIRST_SEED, FIRST_SEED + case.networks):
        model = net.to_torch(seed)
        found = eoc.measure_pruning(
            model, sparsity, criterion=criterion, data=data, example_input=example, seed=seed,
            collapse=False, allocation=counts,
        )  # fmt: skip
        assert isinstance(found.masks, dict)
        empty += bool((found.kept == 0).any())
        cut += not all(eoc.connected_weights(model, found.masks, example_input=example).values())
    return empty, cut


def rows(case: Case, sparsity: float, criterion: str) -> Iterator[dict[str, Any]]:
    """One for each option that is measured."""
    started = time.process_time()
    design = eoc.design(case.net, sparsity, criterion=criterion, data=case.data)
    seconds = time.process_time() - started
    for one in design.candidates:
        if not (one is design.chosen or one is design.before or one.drawn):
            continue
        counts = one.kept_weights if one.allocation == "layerwise" else None
        empty, cut = measured(one.architecture, case, sparsity, criterion, counts)
        yield {
            "network": case.name,
            "sparsity": sparsity,
            "criterion": criterion,
            "option": one.name,
            "chosen": one is design.chosen,
            "feasible": design.feasible,
            **_chances(one),
            "drawn": one.drawn,
            "networks": case.networks,
            "empty": empty,
            "cut": cut,
            "seconds": round(seconds, 1),
        }


def _chances(one: Candidate) -> dict[str, float]:
    found = {}
    for name, label in (("collapse", "p_empty"), ("cut", "p_cut")):
        numbers = (getattr(one, f"{name}_probability"), *getattr(one, f"{name}_interval"))
        found |= {
            label + end: float(f"{n:.4g}") for end, n in zip(("", "_low", "_high"), numbers, strict=True)
        }
    return found


def measure(only: str) -> None:
    """Adds what the table lacks."""
    table = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame()
    keys = ("network", "sparsity", "criterion")
    done = set() if table.empty else set(zip(*(table[key] for key in keys), strict=True))
    for case in cases():
        for criterion in case.criteria:
            for sparsity in case.sparsities:
                key = (case.name, sparsity, criterion)
                if key in done or not fnmatchcase(case.name, only):
                    continue
                table = pd.concat([table, pd.DataFrame(rows(case, sparsity, criterion))], ignore_index=True)
                table.to_csv(TABLE, index=False)
                print(*key, file=sys.stderr, flush=True)


def agrees(low: float, high: float, happened: int, number: int) -> bool:
    """Whether some probability in the interval makes as few, and as many, with a chance of 5 % each."""
    from scipy.stats import binom

    return bool(binom.ppf(0.05, number, low) <= happened <= binom.ppf(0.95, number, high))


def report() -> None:
    """What the table says, in lines."""
    table: Any = pd.read_csv(TABLE)
    ranked = table[table["option"].str.endswith("global")]
    for label, what, some in (("p_empty", "empty", ranked), ("p_cut", "cut", ranked[ranked["drawn"] > 0])):
        share = some[what] / some["networks"]
        predicted = some[label]
        error = (predicted - share).abs()
        least, most = np.minimum(predicted, share), np.maximum(predicted, share)
        unsure = (most > OPEN[0]) & (least < OPEN[1])
        columns = (some[f"{label}_low"], some[f"{label}_high"], some[what], some["networks"])
        held = [agrees(low, high, int(k), int(n)) for low, high, k, n in zip(*columns, strict=True)]
        print(f"P(some layer is {what}) of {len(some)} options that rank all weights at once:")
        print(f"  mean absolute error {error.mean():.3f}; {np.mean(held):.0%} of the intervals agree")
        print(
            f"  of {unsure.sum()} neither sure nor impossible {error[unsure].mean():.3f}, "
            f"mean of predicted − measured {(predicted - share)[unsure].mean():+.3f}"
        )
    chosen = table[table["chosen"] & table["feasible"]]
    before = table.groupby(["network", "sparsity", "criterion"]).first()
    print(f"chosen designs: {len(chosen)}, {chosen['networks'].sum()} networks")
    print(f"  {chosen['empty'].sum()} with a collapsed layer, {chosen['cut'].sum()} disconnected")
    print(f"  as they are, {before['cut'].sum()} of {before['networks'].sum()} are disconnected")
    seconds = before["seconds"]
    print(f"seconds of processor time: median {seconds.median():.1f}, most {seconds.max():.1f}")


def main() -> int:
    return measure_or_report("benchmarks.designs", __doc__, measure, report)


if __name__ == "__main__":
    sys.exit(main())
