"""Does a design pay? Networks pruned by SNIP, SynFlow, ERK and by `eoc.design`, trained.

    python -m benchmarks.trained_designs measure          # an hour of one core; goes on where it stopped
    python -m benchmarks.trained_designs measure --only 'mlp*'
    python -m benchmarks.trained_designs report           # prints the tables of trained_designs.csv

SynFlow has no meaning in networks with attention, and is left out there. Each network is pruned at
initialisation, trained by SGD with momentum and gradients clipped at norm 1, and
tested. All methods share seeds: initial weights, order of the images. "design" is
`eoc.design(net, sparsity, goal="training")` carried out. The trainability of each pruned network is measured
before it is trained.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import eoc_theory as eoc
from eoc_theory.errors import EmptyLayerError
from eoc_theory.networks.queries import attends

from .command import measure_or_report
from .images import gratings

TABLE = Path(__file__).parent / "trained_designs.csv"
METHODS = ("snip", "synflow", "erk", "design")

SPARSITIES = (0.95, 0.98, 0.99, 0.995)
DATA = ("gratings", "digits")
SHAPE, CLASSES = (1, 8, 8), 10
#: Images, of which the last are for testing; scored on; whose tangent kernel is taken.
IMAGES, TESTED, SCORED, LOOKED_AT = 1740, 300, 100, 16
BATCH, MOMENTUM, DECAY, CLIP = 64, 0.9, 5e-4, 1.0
#: What trainability tells of a network before training.
MEASURES = (
    "kernel_condition",
    "effective_rank",
    "kernel_log_scale",
    "jacobian_log_mean",
    "jacobian_variance",
)


@dataclass(frozen=True)
class Case:
    """A network and how it is trained: passes over the images, and the learning rate of SGD.

    Where methods are close together, more seeds tell them apart.
    """

    name: str
    build: Callable[[], eoc.Architecture]
    epochs: int
    rate: float
    seeds: int = 3


CASES = (
    Case("mlp5x200", lambda: eoc.mlp(5, 200, activation="relu"), 12, 0.05),
    Case("resnet8x12", lambda: eoc.resnet(8, width=12, input_shape=SHAPE, classes=CLASSES), 6, 0.1, 10),
    Case("cnn5x24", lambda: eoc.cnn(5, 24, activation="relu", input_shape=SHAPE, strides={2}), 8, 0.1),
    Case(
        "vit2x48",
        lambda: eoc.vit(
            None, depth=2, width=48, heads=4, patch=2, input_shape=SHAPE, classes=CLASSES,
            readout="mean", sigma_w=1.0,
        ),
        6,
        0.1,
    ),
)  # fmt: skip


@cache
def images(name: str, flat: bool) -> tuple[Any, Any]:
    """Inputs and targets, classes in turn."""
    inputs, targets = (
        eoc.digits_images(IMAGES, SHAPE) if name == "digits" else gratings(IMAGES, SHAPE, seed=0)
    )
    return (inputs.reshape(len(inputs), -1) if flat else inputs), targets


@cache
def designed(case: Case, data: str, sparsity: float) -> eoc.Design:
    """The design, which serves all seeds."""
    net = case.build()
    inputs, targets = images(data, net.is_chain)
    batch = inputs[:SCORED], targets[:SCORED]
    return eoc.design(net, sparsity, goal="training", data=batch, networks=0)


def pruned(case: Case, data: str, sparsity: float, method: str, seed: int) -> Any:
    """A network of the seed, pruned by the method, with its masks on."""
    found = designed(case, data, sparsity) if method == "design" else None
    net = case.build() if found is None else found.architecture
    inputs, targets = images(data, net.is_chain)
    model = net.to_torch(seed)
    masks = eoc.measure_pruning(
        model,
        sparsity,
        criterion=method if found is None else found.criterion,
        data=(inputs[:SCORED], targets[:SCORED]),
        seed=seed,
        device="cpu",
        collapse=False,
        allocation=found if found is not None and found.allocation == "layerwise" else None,
    ).masks
    eoc.prune_(model, masks)
    if found is not None and found.rescale_by is not None:
        seen = {} if found.rescale_by == "units" else {"data": inputs[:SCORED]}
        with contextlib.suppress(EmptyLayerError):  # nothing brings a collapsed layer back
            eoc.rescale_(model, by=found.rescale_by, example_input=(2, *inputs.shape[1:]), **seen)
    return model


def accuracy(model: Any, inputs: Any, targets: Any, case: Case, seed: int) -> float:
    """Part of the test images told right after training."""
    import torch

    torch.set_num_threads(1)
    x, y = torch.as_tensor(inputs, dtype=torch.float32), torch.as_tensor(targets)
    train, test = slice(None, -TESTED), slice(-TESTED, None)
    optimiser = torch.optim.SGD(model.parameters(), case.rate, momentum=MOMENTUM, weight_decay=DECAY)
    drops = [case.epochs // 2, case.epochs * 3 // 4]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, drops)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(case.epochs):
        order = torch.randperm(len(x[train]), generator=generator)
        for at in order.split(BATCH):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x[at]), y[at]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimiser.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        return float((model(x[test]).argmax(dim=1) == y[test]).double().mean())


def row(case: Case, data: str, sparsity: float, method: str, seed: int) -> dict[str, Any]:
    """One network: its trainability as pruned, and its accuracy once trained."""
    model = pruned(case, data, sparsity, method, seed)
    inputs, targets = images(data, case.build().is_chain)
    seen = eoc.trainability(model, data=(inputs, targets), inputs=LOOKED_AT, device="cpu")
    told = {name: float(f"{getattr(seen, name):.4g}") for name in MEASURES}
    right = accuracy(model, inputs, targets, case, seed)
    key = {"network": case.name, "data": data, "sparsity": sparsity, "method": method, "seed": seed}
    return {**key, "accuracy": round(right, 4), **told}


def keys(only: str) -> Iterator[tuple[Case, str, float, str, int]]:
    """What is measured, seed by seed."""
    for seed, case, data, sparsity in product(range(max(c.seeds for c in CASES)), CASES, DATA, SPARSITIES):
        if seed >= case.seeds:
            continue
        attention = attends(case.build().as_graph())
        for method in METHODS:
            if fnmatchcase(case.name, only) and not (attention and method == "synflow"):
                yield case, data, sparsity, method, seed


def measure(only: str) -> None:
    """Adds what the table lacks."""
    table: Any = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame()
    names = ["network", "data", "sparsity", "method", "seed"]
    done = set() if table.empty else set(table[names].itertuples(index=False, name=None))
    for key in keys(only):
        if (key[0].name, *key[1:]) in done:
            continue
        table = pd.concat([table, pd.DataFrame([row(*key)])], ignore_index=True)
        table.to_csv(TABLE, index=False)
        print(key[0].name, *key[1:], table["accuracy"].iloc[-1], file=sys.stderr, flush=True)


def beside(table: Any) -> Any:
    """One line for each network, data set and sparsity: mean accuracies, and the design's difference.

    `best` is the best of the others by its mean; `difference` is the design's mean less that, seed by seed,
    and `error` its standard error: that over seeds, and no less than so many test images have.
    """
    lines = []
    for key, rows in table.groupby(["network", "data", "sparsity"], sort=False):
        by_seed = rows.pivot_table(index="seed", columns="method", values="accuracy").dropna()
        if "design" not in by_seed.columns or len(by_seed.columns) < 3 or by_seed.empty:
            continue
        means = by_seed.mean()
        best = str(means.drop("design").idxmax())
        gain = by_seed["design"] - by_seed[best]
        chance = sum(means[one] * (1.0 - means[one]) for one in ("design", best)) / (TESTED * len(gain))
        of_seeds = gain.var(ddof=1) / len(gain) if len(gain) > 1 else 0.0
        lines.append(
            {
                **dict(zip(("network", "data", "sparsity"), key, strict=True)),
                "seeds": len(by_seed),
                **{method: round(float(means.get(method, np.nan)), 3) for method in METHODS},
                "best": best,
                "difference": round(float(gain.mean()), 3),
                "error": round(max(chance, of_seeds) ** 0.5, 3),
            }
        )
    return pd.DataFrame(lines)


def correlations(table: Any) -> Any:
    """Rank correlation of each measure of trainability with accuracy, over the methods and seeds of a cell.

    Mean over cells of network, data set and sparsity, and the standard error of that mean.
    """
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    for _, rows in table.groupby(["network", "data", "sparsity"]):
        right = rows["accuracy"].rank()
        for name in MEASURES:
            # What is infinite or unknown is the worst there is: no rank 0 is trained.
            ranks = rows[name].fillna(-np.inf).rank()
            if ranks.nunique() > 1 and right.nunique() > 1:
                found[name].append(float(np.corrcoef(ranks, right)[0, 1]))
    return pd.DataFrame(
        {
            "measure": list(found),
            "correlation": [round(float(np.mean(values)), 2) for values in found.values()],
            "error": [
                round(float(np.std(values, ddof=1) / len(values) ** 0.5), 2) for values in found.values()
            ],
            "cells": [len(values) for values in found.values()],
        }
    )


def report() -> None:
    """What the table says, in lines."""
    table = pd.read_csv(TABLE)
    lines = beside(table)
    print(lines.to_string(index=False))
    better = lines["difference"] > 2 * lines["error"]
    worse = lines["difference"] < -2 * lines["error"]
    print(f"design better by two standard errors in {better.sum()} of {len(lines)} cells,")
    print(f"worse by two in {worse.sum()}, behind at all in {(lines['difference'] < 0).sum()}")
    print("\nrank correlation of trainability before training with accuracy after it:")
    print(correlations(table).to_string(index=False))


def main() -> int:
    return measure_or_report("benchmarks.trained_designs", __doc__, measure, report)


if __name__ == "__main__":
    sys.exit(main())
