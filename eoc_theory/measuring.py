"""Pruning real networks at initialisation: what each layer keeps, and when one is emptied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checks, ranking, scoring
from .data import as_data
from .errors import ArgumentError, DataError
from .prediction import CRITERIA, GRADIENT_CRITERIA, check_sparsities
from .torch_models import PrunableWeight, prunable_weights, require_torch

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PruningMeasurement:
    """What pruning one network did to each of its L weight layers.

    Attributes:
        criterion: the criterion's name.
        sparsity: the fraction of weights removed; float, or array (S,).
        layers: names of the weight layers, input to output.
        weights: number of weights per layer, int64 (L,).
        kept: fraction of each layer's weights kept, (L,), or (S, L) where the sparsity is an array.
        critical_sparsity: the smallest sparsity at which some layer has lost all its weights.
        weakest_layer: the layer that is lost first.
        log_score_moments: natural logarithm of the mean squared score per layer, (L,), up to a constant
            common to all layers; NaN for criteria that rank in rounds.
        zero_scores: fraction of exactly vanishing scores per layer, (L,); NaN for criteria that rank in
            rounds.
        masks: what is kept, by layer name, as boolean arrays of the weights' shapes; one such dict for a
            scalar sparsity, a tuple of them for an array; None if they were not asked for.
    """

    criterion: str
    sparsity: float | np.ndarray
    layers: tuple[str, ...]
    weights: np.ndarray
    kept: np.ndarray
    critical_sparsity: float
    weakest_layer: str
    log_score_moments: np.ndarray
    zero_scores: np.ndarray
    masks: dict[str, np.ndarray] | tuple[dict[str, np.ndarray], ...] | None

    def to_frame(self) -> pd.DataFrame:
        """One row for each layer (and sparsity): layer, weights, sparsity, kept, kept_weights."""
        import pandas as pd

        sparsities = np.atleast_1d(self.sparsity)
        kept = np.atleast_2d(self.kept)
        return pd.DataFrame(
            {
                "layer": np.tile(np.array(self.layers), len(sparsities)),
                "weights": np.tile(self.weights, len(sparsities)),
                "sparsity": np.repeat(sparsities, len(self.layers)),
                "kept": kept.ravel(),
                "kept_weights": np.rint(kept * self.weights).astype(np.int64).ravel(),
            }
        )


def measure_pruning(
    model: Any,
    sparsity: float | Sequence[float] | np.ndarray,
    *,
    criterion: str = "snip",
    data: Any = None,
    device: Any = "auto",
    seed: int = 0,
    dtype: str = "auto",
    masks: bool = True,
) -> PruningMeasurement:
    """Score the real weights of a network, rank them globally, and tell what each layer keeps.

    Exactly round(s·n) of the n weights of all Linear and convolution layers are removed; biases are neither
    scored nor removed. Ties are removed evenly (:mod:`eoc_theory.ranking`). The model's parameters,
    gradients, mode, hooks, buffers and torch's random state are left as they were; the model is run in the
    mode it is in.

    Critical sparsity: for ranked scores t* = min over layers of the largest score, s_cr = #{scores ≤ t*}/n.
    The random criteria (random, uniform, erk) are ranked by scores too (:mod:`eoc_theory.scoring`), drawn
    from `seed`. Iterative SynFlow has a schedule for each final sparsity: s_cr is then found by bisection
    over final sparsities.

    Args:
        model: a torch module, ``model(inputs)`` → logits (batch, classes).
        sparsity: the fraction of weights to remove, in [0, 1); a number or a sequence.
        criterion: "snip", "magnitude", "grasp", "synflow" (100 rounds), "synflow-oneshot", "random",
            "uniform", "erk".
        data: (inputs, targets), arrays or tensors; None: 100 standard normal inputs with balanced labels from
            `seed`. Only snip and grasp look at it.
        device: where to compute; "auto": the model's own accelerator, else CUDA if there is one, else the
            CPU.
        seed: for random criteria, for `data` None and for modules that draw random numbers.
        dtype: "float32", "float64", or "auto": float64 where it is cheap or float32 would lose digits.
        masks: False leaves `.masks` None and saves their memory.

    Raises:
        ArgumentError, DataError, ModelError: unusable sparsity, criterion, data or model.
        MissingDependencyError: torch is not installed.
    """
    sparsities = check_sparsities(sparsity)
    checks.one_of("criterion", criterion, CRITERIA)
    checks.one_of("dtype", dtype, ("auto", "float32", "float64"))
    checks.integer("seed", seed, 0)
    found = prunable_weights(model)
    where = _device(device, found)
    weights = np.array([w.tensor.numel() for w in found], dtype=np.int64)
    removed = [round(float(s) * int(weights.sum())) for s in sparsities]

    if criterion == "synflow":
        magnitudes = scoring.chain_weights(model, found)
        counts, chosen = [], []
        for k in removed:
            left, positions = scoring.synflow_rounds(magnitudes, k)
            counts.append(left)
            if masks:
                chosen.append([_mask_at(p, m.shape) for p, m in zip(positions, magnitudes, strict=True)])
        critical, weakest = scoring.synflow_critical_sparsity(magnitudes)
        log_moments = zeros = np.full(len(found), np.nan)
    else:
        tensors = _data(data, found, seed) if criterion in GRADIENT_CRITERIA else None
        scores = scoring.layer_scores(model, criterion, tensors, device=where, dtype=dtype, seed=seed)
        limits = ranking.thresholds(scores, removed)
        counts = [limit.kept for limit in limits]
        chosen = [ranking.masks(scores, limit) for limit in limits] if masks else []
        critical, weakest = ranking.critical_sparsity(scores)
        log_moments = np.array([_log_mean_square(s) for s in scores])
        zeros = 1 - np.array([np.count_nonzero(s) for s in scores]) / weights

    names = tuple(w.name or "weight" for w in found)
    kept = np.array(counts) / weights
    by_name = tuple(dict(zip(names, group, strict=True)) for group in chosen)
    scalar = np.ndim(sparsity) == 0
    return PruningMeasurement(
        criterion=criterion,
        sparsity=float(sparsities[0]) if scalar else sparsities,
        layers=names,
        weights=weights,
        kept=kept[0] if scalar else kept,
        critical_sparsity=critical,
        weakest_layer=names[weakest],
        log_score_moments=log_moments,
        zero_scores=zeros,
        masks=None if not masks else by_name[0] if scalar else by_name,
    )


def _log_mean_square(scores: np.ndarray) -> float:
    """log(mean score²), also where the squares leave the range of the scores' own precision."""
    flat = scores.reshape(-1)
    top = float(max(flat.max(), -flat.min()))
    if not 0 < top < np.inf:
        return -np.inf if top == 0 else np.nan
    # A power of two loses no digit. Scores far below the top may vanish when squared; they do not count.
    scaled = flat * flat.dtype.type(2.0 ** -np.frexp(top)[1])
    return float(np.log(scaled @ scaled) - np.log(flat.size) + 2 * np.frexp(top)[1] * np.log(2))


def _mask_at(positions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask.reshape(-1)[positions] = True
    return mask


def _device(device: Any, weights: list[PrunableWeight]) -> Any:
    torch = require_torch()
    own = weights[0].tensor.device
    if isinstance(device, str) and device == "auto":
        # MPS knows no float64, which deep networks need.
        if own.type in ("cpu", "mps"):
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return own
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError(
            f"device must be 'auto' or a device that torch can use here, got {device!r} ({reason})"
        ) from error
    return where


def _data(data: Any, weights: list[PrunableWeight], seed: int) -> tuple[Any, Any]:
    """(inputs float, targets int64) as torch tensors on the CPU."""
    torch = require_torch()
    first, last = weights[0].module, weights[-1].module
    if isinstance(first, torch.nn.Linear) and isinstance(last, torch.nn.Linear):
        batch = as_data(data, in_features=first.in_features, classes=last.out_features, seed=seed)
        return torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
    # Images keep their shape.
    try:
        inputs, targets = (torch.as_tensor(part) for part in data)
    except (TypeError, ValueError):
        raise DataError(f"data must be (inputs, targets) for this model, got {type(data).__name__}") from None
    if targets.shape != inputs.shape[:1] or len(targets) == 0 or targets.is_floating_point():
        raise DataError(
            f"targets must be whole numbers of shape ({len(inputs)},), "
            f"got {targets.dtype} of shape {tuple(targets.shape)}"
        )
    if not bool(torch.isfinite(inputs).all()):
        raise DataError("inputs must be finite, got nan or inf")
    return inputs.double(), targets.long()
