"""Does trainability at initialisation rank pruned networks by the accuracy that they reach?"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import eoc_theory as eoc
from eoc_theory.errors import EmptyLayerError

from .claim import PUBLISHED, Claim, Evidence, Finding, Verdict
from .graph_networks import mean_and_error

Array = np.ndarray

DEPTH, WIDTH = 6, 100
#: How networks are pruned: criteria, and two remedies of SynFlow's and SNIP's by `rescale_`.
WAYS = (
    ("random", ""), ("erk", ""), ("magnitude", ""), ("snip", ""), ("snip", "units"), ("synflow", ""),
    ("synflow", "units"),
)  # fmt: skip
IMAGES, TESTED, SCORED, LOOKED_AT = 1740, 300, 100, 24
EPOCHS, BATCH, RATE, MOMENTUM, CLIP = 5, 64, 0.05, 0.9, 1.0
#: What trainability tells, and whether more of it is better.
MEASURES = {
    "kernel_condition": ("condition number of the NTK", -1.0),
    "effective_rank": ("effective rank of the NTK", 1.0),
    "kernel_log_scale": ("scale of the NTK", 1.0),
    "jacobian_log_mean": ("mean squared singular value of the Jacobian", 1.0),
    "jacobian_variance": ("variance of the squared singular values", -1.0),
    "isometry": ("distance of the layers from isometry", -1.0),
}
#: The measures that the claim is about: those that its sources name.
CLAIMED = ("kernel_condition", "isometry")
#: Rank correlation from which networks count as ranked, and standard errors that it must be clear of 0.
RANKED, CLEAR = 0.7, 3.0


@cache
def images() -> tuple[Array, Array]:
    return eoc.digits(IMAGES)


def pruned(criterion: str, rescaled: str, sparsity: float, seed: int) -> Any:
    """A critical ReLU network of the seed with its masks on."""
    inputs, targets = images()
    model = eoc.mlp(DEPTH, WIDTH, activation="relu").to_torch(seed)
    batch = inputs[:SCORED], targets[:SCORED]
    masks = eoc.measure_pruning(
        model, sparsity, criterion=criterion, data=batch, seed=seed, device="cpu", collapse=False
    ).masks
    assert isinstance(masks, dict)
    eoc.prune_(model, masks)
    if rescaled:
        try:
            eoc.rescale_(model, by=rescaled)
        except EmptyLayerError:
            return model  # nothing brings a collapsed layer back
    return model


def accuracy(model: Any, seed: int) -> float:
    """On test images, after a short training by SGD."""
    import torch

    torch.set_num_threads(1)
    inputs, targets = (torch.as_tensor(part) for part in images())
    inputs, generator = inputs.float(), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), RATE, momentum=MOMENTUM)
    for _ in range(EPOCHS):
        for at in torch.randperm(IMAGES - TESTED, generator=generator).split(BATCH):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[at]), targets[at]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimiser.step()
    with torch.no_grad():
        right = model(inputs[-TESTED:]).argmax(dim=1) == targets[-TESTED:]
    return float(right.double().mean())


def told(model: Any) -> dict[str, float]:
    """The measures of a pruned network; `isometry` is the mean squared log χ of its layers, 0 at χ = 1."""
    found = eoc.trainability(model, data=images(), inputs=LOOKED_AT, device="cpu")
    values = {name: float(getattr(found, name)) for name in MEASURES if name != "isometry"}
    gain = np.maximum(found.chi[1:], 1e-30)
    values["isometry"] = float(np.mean(np.log(gain) ** 2))
    return values


def ranks(values: Array) -> Array:
    """Ranks along the last axis, equal values sharing theirs; nan ranks lowest."""
    known = np.where(np.isnan(values), -np.inf, values)
    below = (known[..., None, :] < known[..., :, None]).sum(axis=-1)
    same = (known[..., None, :] == known[..., :, None]).sum(axis=-1)
    return below + 0.5 * (same - 1)


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's; 0 where one of them does not vary."""
    one, other = ranks(np.asarray(a)), ranks(np.asarray(b))
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def correlations(sparsities: tuple[float, ...], seeds: int) -> tuple[dict[str, Array], Array]:
    """For each measure its rank correlation with accuracy over the ways to prune, one a sparsity and seed.

    And mean accuracies (sparsities, ways).
    """
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    reached = np.zeros((len(sparsities), seeds, len(WAYS)))
    for i, sparsity in enumerate(sparsities):
        for seed in range(seeds):
            rows = []
            for j, (criterion, rescaled) in enumerate(WAYS):
                model = pruned(criterion, rescaled, sparsity, seed)
                rows.append(told(model))
                reached[i, seed, j] = accuracy(model, seed)
            for name, (_, sign) in MEASURES.items():
                values = np.array([sign * row[name] for row in rows])
                found[name].append(rank_correlation(values, reached[i, seed]))
    return {name: np.array(values) for name, values in found.items()}, reached.mean(axis=1)


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    sparsities, seeds = ((0.95,), 3) if quick else ((0.9, 0.95, 0.98), 5)
    found, reached = correlations(sparsities, seeds)
    evidence = [
        Evidence(
            f"{sparsity:.0%} removed: accuracy, worst to best way",
            None,
            f"{row.min():.2f} to {row.max():.2f}",
        )
        for sparsity, row in zip(sparsities, reached, strict=True)
    ]
    means: dict[str, tuple[float, float]] = {}
    for name, (what, sign) in MEASURES.items():
        means[name] = mean, error = mean_and_error(found[name])
        claimed = "≥ 0.7" if name in CLAIMED else None
        better = "more" if sign > 0 else "less"
        evidence.append(Evidence(f"rank correlation, {better} of the {what}", claimed, mean, error))

    def ranks_them(name: str) -> bool:
        mean, error = means[name]
        return mean >= RANKED and mean > CLEAR * error

    named = [ranks_them(name) for name in CLAIMED]
    verdict = (
        Verdict.HOLDS if all(named) else Verdict.REFINED if any(map(ranks_them, MEASURES)) else Verdict.FAILS
    )
    best = max(means, key=lambda name: means[name][0])
    conclusion = (
        f"Over {len(WAYS)} ways to prune, the best predictor of accuracy is the {MEASURES[best][0]}, with a "
        f"rank correlation of {means[best][0]:.2f} ± {means[best][1]:.2f}; the NTK's condition number has "
        f"{means[CLAIMED[0]][0]:.2f} ± {means[CLAIMED[0]][1]:.2f}, the layers' distance from isometry "
        f"{means[CLAIMED[1]][0]:.2f} ± {means[CLAIMED[1]][1]:.2f}."
    )
    return Finding(tuple(evidence), verdict, conclusion)


CLAIM = Claim(
    name="trainability",
    statement="Of networks pruned at initialisation those train best whose layers are near isometry (Lee et "
    "al. 2020) and whose neural tangent kernel has a small condition number (Xiao et al. 2020).",
    method=f"ReLU networks of {DEPTH} layers of width {WIDTH} pruned by five criteria, after two of them "
    "with units rescaled, too: `eoc.trainability` of each and its accuracy on digits after "
    f"{EPOCHS} epochs; Spearman's rank correlation over these ways, mean over seeds and sparsities.",
    recorded=Verdict.REFINED,
    group=PUBLISHED,
    check=check,
)
