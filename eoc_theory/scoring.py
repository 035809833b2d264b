"""Real scores of real weights: what a pruning criterion says about each weight of a torch network.

Every criterion keeps its largest scores. The scale that all layers share carries no meaning and is chosen so
that nothing over- or underflows.

===============  ==========================================================================================
criterion        score of a weight W with gradient g of the mean cross-entropy over the batch
===============  ==========================================================================================
magnitude        |W|
snip             |W g| (Lee et al. 2019)
grasp            W (H g), signed, H the Hessian in all the weights (Wang et al. 2020, at temperature 1)
synflow          |W| ∂R/∂|W|, R = 1ᵀ|W^L|…|W^1|1 over what is left, in 100 rounds of geometrically falling
                 density
synflow-oneshot  the same in one round (Tanaka et al. 2020)
random           independent and uniform
uniform          every layer keeps the same fraction; which weights, by chance
erk              density of a layer ∝ (sum of its weight's dimensions)/(their product), at most 1; which, by
                 chance
===============  ==========================================================================================

Biases are never scored. SynFlow is computed on the weights alone, activations and biases left out.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import ranking
from .errors import DataError, ModelError
from .prediction import GRADIENT_CRITERIA
from .torch_models import PrunableWeight, chain, prunable_weights, require_torch

if TYPE_CHECKING:
    import torch

SYNFLOW_ROUNDS = 100

# Up to this many weights float64 costs no time that anybody notices.
_FLOAT64_LIMIT = 4_000_000
# A float32 layer whose largest score is below this has lost digits of its smaller scores to denormal numbers.
_FLOAT32_FLOOR = 1e-28
_FLOAT32_CEILING = 1e37
# Σ_b δ_b h_b may cancel over the batch (equal inputs, balanced labels); beyond this, rounding shows in the
# sum.
_FLOAT32_CANCELLATION = 1e-4
_FLOAT64_CANCELLATION = 1e-12


class PrecisionLostError(ArithmeticError):
    """Scores left the range, or lost the digits, of the arithmetic they were computed in."""


def layer_scores(
    model: Any,
    criterion: str,
    data: tuple[Any, Any] | None,
    *,
    device: Any = None,
    dtype: Any = "auto",
    seed: int = 0,
) -> list[np.ndarray]:
    """The scores of all prunable weights, one array per layer, of the weights' shapes.

    Args:
        model: a torch module; it is left as it was. It is run in its current mode (training or evaluation).
        criterion: one of :data:`eoc_theory.prediction.CRITERIA` but "synflow", which ranks in rounds: see
            :func:`synflow_rounds`.
        data: (inputs, targets) as tensors, used by snip and grasp alone.
        dtype: "float32", "float64" or "auto": float32 for large networks, and float64 for small ones or where
            float32 would over- or underflow or lose the batch's sum to cancellation.
        seed: for the random criteria, and for modules that draw random numbers (dropout).
    """
    weights = prunable_weights(model)
    if criterion in GRADIENT_CRITERIA:
        if data is None:
            raise DataError(f"data must be (inputs, targets) for criterion {criterion!r}, got None")
        tensors = _gradient_scores(model, weights, criterion, data, device, dtype, seed)
        scores = [t.cpu().numpy() for t in tensors]
    elif criterion == "magnitude":
        scores = [np.abs(_at_least_float32(w.tensor).cpu().numpy()) for w in weights]
    elif criterion == "synflow-oneshot":
        scores = _dense_round(chain_weights(model, weights))
    else:
        rng = np.random.default_rng(seed)
        scores = [_chance_scores(criterion, tuple(w.tensor.shape), rng) for w in weights]
    for weight, score in zip(weights, scores, strict=True):
        if weight.mask is not None:
            score[weight.mask.cpu().numpy() == 0] = -np.inf  # what is gone stays gone
    return scores


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float() if tensor.dtype.itemsize < 4 else tensor.detach()


def _chance_scores(criterion: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random scores; for uniform and erk such that any global threshold gives the layers their densities.

    The j-th weight of a layer in random order is kept once the layer's wanted number ε·r·n reaches j − 1/2,
    with r the layer's raw density: its score is r·n/(j − 1/2).
    """
    size = math.prod(shape)
    if criterion == "random":
        return rng.random(shape)
    raw = 1.0 if criterion == "uniform" else sum(shape) / size
    return (raw * size / (rng.permutation(size) + 0.5)).reshape(shape)


# --- gradients


def _gradient_scores(
    model: Any,
    weights: list[PrunableWeight],
    criterion: str,
    data: tuple[Any, Any],
    device: Any,
    dtype: Any,
    seed: int,
) -> list[torch.Tensor]:
    torch = require_torch()
    compute = _snip if criterion == "snip" else _grasp
    size = sum(w.tensor.numel() for w in weights)
    if dtype != "auto":
        return compute(model, weights, data, device, getattr(torch, dtype), seed, strict=False)
    if size > _FLOAT64_LIMIT:
        # Twice as fast; whether float32 was enough is known only afterwards.
        with contextlib.suppress(PrecisionLostError):
            return compute(model, weights, data, device, torch.float32, seed, strict=True)
    return compute(model, weights, data, device, torch.float64, seed, strict=False)


def _snip(
    model: Any, weights: list[PrunableWeight], data: Any, device: Any, dtype: Any, seed: int, strict: bool
) -> list[torch.Tensor]:
    torch = require_torch()
    with _loss(model, weights, data, device, dtype, seed) as (loss, leaves, addends):
        gradients = torch.autograd.grad(loss, leaves)
    _check_cancellation(gradients, addends, dtype, strict)
    with torch.no_grad():
        # In place: a large network's gradients are as large as the network.
        scores = [g.mul_(w).abs_() for g, w in zip(gradients, leaves, strict=True)]
    _check_range(scores, dtype, strict)
    return scores


def _grasp(
    model: Any, weights: list[PrunableWeight], data: Any, device: Any, dtype: Any, seed: int, strict: bool
) -> list[torch.Tensor]:
    torch = require_torch()
    with _loss(model, weights, data, device, dtype, seed) as (loss, leaves, addends):
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        detached = [g.detach() for g in gradients]
        _check_cancellation(detached, addends, dtype, strict)
        # H v for v = g/‖g‖: the norm is common to all layers, and its square may leave the floating-point
        # range.
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in detached))
        if not 0 < norm < math.inf:
            if strict:
                raise PrecisionLostError
            raise ModelError(f"the gradient's norm must be positive and finite for grasp, got {norm}")
        product = sum((g * (d / norm)).sum() for g, d in zip(gradients, detached, strict=True))
        curved = torch.autograd.grad(product, leaves, materialize_grads=True)
    with torch.no_grad():
        scores = [h.mul_(w) for h, w in zip(curved, leaves, strict=True)]
    _check_range([s.abs() for s in scores] if strict else scores, dtype, strict)
    return scores


@contextlib.contextmanager
def _loss(
    model: Any, weights: list[PrunableWeight], data: tuple[Any, Any], device: Any, dtype: Any, seed: int
) -> Iterator[tuple[Any, list[Any], list[Any]]]:
    """The mean cross-entropy as a graph over leaves of its own, the model untouched; and Σ_b ‖δ_b‖‖h_b‖ per
    layer.

    The addends are filled in by the backward pass, in the order of `weights`; NaN where a layer was not met.
    """
    torch = require_torch()
    inputs, targets = data
    inputs = inputs.to(device=device, dtype=dtype)
    targets = targets.to(device=device)
    state = {}
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        # Aliases where nothing has to change; buffers are copied, since a training-mode forward pass may
        # write them.
        moved = value.detach().to(device=device, dtype=dtype if value.is_floating_point() else value.dtype)
        is_buffer = not isinstance(value, torch.nn.Parameter)
        state[name] = moved.clone() if is_buffer and moved.data_ptr() == value.data_ptr() else moved
    leaves = [state[w.full_name].requires_grad_() for w in weights]

    addends = [math.nan] * len(weights)
    handles = [
        w.module.register_forward_hook(_addend_hook(addends, i))
        for i, w in enumerate(weights)
        if isinstance(w.module, torch.nn.Linear)
    ]
    # Under a mask, a forward pass writes the module's `weight`, which is no parameter there.
    products = [(w.module, w.module.weight) for w in weights if w.mask is not None]
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            logits = torch.func.functional_call(model, state, (inputs,))
            if logits.ndim != 2 or len(logits) != len(targets):
                raise ModelError(
                    f"model must return logits of shape ({len(targets)}, classes), got {tuple(logits.shape)}"
                )
            if int(targets.max()) >= logits.shape[1] or int(targets.min()) < 0:
                raise DataError(
                    f"targets must be classes 0 to {logits.shape[1] - 1}, "
                    f"got {int(targets.min())} to {int(targets.max())}"
                )
            yield torch.nn.functional.cross_entropy(logits, targets), leaves, addends
    finally:
        for handle in handles:
            handle.remove()
        for module, product in products:
            module.weight = product


def _addend_hook(addends: list[float], index: int) -> Any:
    """A forward hook that notes Σ_b ‖δ_b‖‖h_b‖ when the gradient with respect to the layer's output comes
    back."""

    def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
        norms = args[0].detach().reshape(-1, args[0].shape[-1]).double().norm(dim=1)

        def note(gradient: Any) -> None:
            # The first pass through is the loss's own; a double backward comes by again.
            if math.isnan(addends[index]):
                deltas = gradient.detach().reshape(-1, gradient.shape[-1]).double().norm(dim=1)
                addends[index] = float(deltas @ norms)

        if output.requires_grad:
            output.register_hook(note)

    return hook


def _check_cancellation(gradients: Sequence[Any], addends: list[float], dtype: Any, strict: bool) -> None:
    ratio = min(
        (float(g.norm()) / a for g, a in zip(gradients, addends, strict=True) if a > 0 and math.isfinite(a)),
        default=1.0,
    )
    if strict and ratio < _FLOAT32_CANCELLATION:
        raise PrecisionLostError
    limit = _FLOAT64_CANCELLATION if dtype.itemsize == 8 else _FLOAT32_CANCELLATION
    if ratio < limit:
        warnings.warn(
            f"the gradient cancels over the batch to {ratio:.1e} of its terms: rounding shows in the scores"
            " (inputs that the network no longer tells apart, with balanced labels)",
            RuntimeWarning,
            stacklevel=2,
        )


def _check_range(scores: list[torch.Tensor], dtype: Any, strict: bool) -> None:
    for index, score in enumerate(scores):
        low, high = (float(v) for v in score.aminmax())
        top = max(-low, high)
        if strict and not (_FLOAT32_FLOOR < top < _FLOAT32_CEILING):
            raise PrecisionLostError
        if not math.isfinite(top):
            raise ModelError(
                f"the scores of weight layer {index} are not finite in {dtype}: the signal overflows"
            )


# --- SynFlow


def chain_weights(model: Any, weights: list[PrunableWeight]) -> list[np.ndarray]:
    """|W^l| of a chain of Linear layers as float64 arrays (fan_out, fan_in), what a mask removed being 0.

    Raises:
        ModelError: the model is not a chain of Linear layers.
    """
    torch = require_torch()
    linear = [
        module for _, module in chain(model) if next(module.parameters(recurse=False), None) is not None
    ]
    if [id(m) for m in linear] != [id(w.module) for w in weights] or not all(
        isinstance(m, torch.nn.Linear) for m in linear
    ):
        raise ModelError(
            "synflow needs a chain of Linear layers and activations (nested torch.nn.Sequential)"
        )
    result = []
    for w in weights:
        value = w.tensor.detach().double().abs()
        result.append((value if w.mask is None else value * w.mask).cpu().numpy())
    return result


def _dense_round(magnitudes: list[np.ndarray]) -> list[np.ndarray]:
    """SynFlow scores of one round on dense matrices, each layer's scores scaled to sum to 1.

    Σ_w |W| ∂R/∂|W| = R in every layer (Tanaka et al. 2020, theorem 1), so this scale is common to all layers;
    signals are normalised layer by layer, and no depth overflows. A network that carries no signal scores 0
    everywhere.
    """
    forward = [np.ones(magnitudes[0].shape[1])]
    for a in magnitudes[:-1]:
        forward.append(_normalised(a @ forward[-1]))
    backward = [np.ones(magnitudes[-1].shape[0])]
    for a in magnitudes[:0:-1]:
        backward.append(_normalised(a.T @ backward[-1]))
    scores = []
    for a, f, r in zip(magnitudes, forward, reversed(backward), strict=True):
        score = a * f
        score *= r[:, None]
        scores.append(_normalised(score))
    return scores


def _sparse_round(entries: list[_Entries]) -> list[np.ndarray]:
    """The same round over the surviving weights alone."""
    forward = [np.ones(entries[0].fan_in)]
    for e in entries[:-1]:
        forward.append(_normalised(np.bincount(e.row, e.value * forward[-1][e.column], minlength=e.fan_out)))
    backward = [np.ones(entries[-1].fan_out)]
    for e in entries[:0:-1]:
        backward.append(_normalised(np.bincount(e.column, e.value * backward[-1][e.row], minlength=e.fan_in)))
    return [
        _normalised(e.value * f[e.column] * r[e.row])
        for e, f, r in zip(entries, forward, reversed(backward), strict=True)
    ]


def _normalised(values: np.ndarray) -> np.ndarray:
    total = values.sum()
    return values / total if total > 0 else np.zeros_like(values)


class _Entries:
    """The surviving weights of one layer by row and column."""

    def __init__(self, magnitude: np.ndarray, position: np.ndarray) -> None:
        self.fan_out, self.fan_in = magnitude.shape
        self.position = position
        self.row, self.column = np.divmod(position, self.fan_in)
        self.value = magnitude.reshape(-1)[position]

    def keep(self, chosen: np.ndarray) -> None:
        self.position, self.row, self.column = self.position[chosen], self.row[chosen], self.column[chosen]
        self.value = self.value[chosen]


def synflow_rounds(
    magnitudes: list[np.ndarray], removed: int, rounds: int = SYNFLOW_ROUNDS
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Iterative SynFlow: n − removed weights are left after `rounds` rounds of geometrically falling density.

    Round k leaves n·d^(k/rounds) weights, d the final density (Tanaka et al. 2020, algorithm 1); what one
    round has removed scores 0 from then on.

    Args:
        magnitudes: |W^l| as (fan_out, fan_in) arrays.
        removed: the number of weights to remove in the end.

    Returns:
        the number of weights each layer keeps, int64 (layers,), and their flat positions per layer.
    """
    n = sum(m.size for m in magnitudes)
    if removed >= n:
        return np.zeros(len(magnitudes), dtype=np.int64), [np.zeros(0, dtype=np.int64) for _ in magnitudes]
    density = 1 - removed / n
    dense = [m.copy() for m in magnitudes]
    alive = [np.ones(m.shape, dtype=bool) for m in magnitudes]
    entries: list[_Entries] | None = None
    for k in range(1, rounds + 1):
        keep = n - removed if k == rounds else round(n * density ** (k / rounds))
        if entries is None:
            scores = _dense_round(dense)
            for s, a in zip(scores, alive, strict=True):
                s[~a] = -1.0  # below the survivors that have lost their connection and score 0
        else:
            scores = _sparse_round(entries)
        size = sum(s.size for s in scores)
        (threshold,) = ranking.thresholds(scores, [size - keep])
        chosen = ranking.masks(scores, threshold)
        if entries is not None:
            for e, c in zip(entries, chosen, strict=True):
                e.keep(c)
        elif keep < 0.35 * n or k == rounds:
            # From here on lists of survivors are smaller than matrices with holes.
            entries = [_Entries(m, np.flatnonzero(c)) for m, c in zip(magnitudes, chosen, strict=True)]
        else:
            alive = chosen
            for d, c in zip(dense, chosen, strict=True):
                d *= c
    assert entries is not None
    return np.array([e.value.size for e in entries], dtype=np.int64), [e.position for e in entries]


def synflow_critical_sparsity(magnitudes: list[np.ndarray]) -> tuple[float, int]:
    """The sparsity from which iterative SynFlow leaves a layer empty; and that layer.

    Each final sparsity has a schedule of its own, so this is a search over the number of weights left, from
    few to many: doubling until no layer is empty, then bisection, which takes emptiness to be monotone in
    between.
    """
    n, fewest = sum(m.size for m in magnitudes), len(magnitudes)
    emptied = fewest - 1  # fewer weights than layers leave one empty
    weakest = int(synflow_rounds(magnitudes, n - emptied)[0].argmin())
    safe = fewest
    while safe < n and (kept := synflow_rounds(magnitudes, n - safe)[0]).min() == 0:
        emptied, weakest, safe = safe, int(kept.argmin()), min(2 * safe, n)
    while safe - emptied > 1:
        middle = (safe + emptied) // 2
        kept = synflow_rounds(magnitudes, n - middle)[0]
        if kept.min() == 0:
            emptied, weakest = middle, int(kept.argmin())
        else:
            safe = middle
    return 1 - emptied / n, weakest
