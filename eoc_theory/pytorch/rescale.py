"""Bring a pruned network back to its scale: the rescaling trick (Hayou et al. 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base import checks
from ..base.boundary import public
from ..base.isolation import all_or_nothing, converted, seeded
from ..base.result import Result
from ..base.tables import layer_frame
from ..base.typing import DataFrame
from ..errors import ArgumentError, DataError, EmptyLayerError, EOCError, ModelError
from .graph_scales import GraphScales, UnknownScales
from .inputs import shown_input
from .lazy import require_torch, torch
from .models import PrunableWeight, prunable_weights
from .running import run_model
from .signals import Moments, signal_factors, unit_moments
from .structure import check_unshared, structure
from .trace import batch_shape
from .weights import fan_in

#: What `rescale_` may go by.
WAYS = ("weights", "units", "signal", "moments")
#: The ways that look at a batch.
SEEN = ("signal", "moments")


@public
@dataclass(frozen=True, repr=False, eq=False)
class Rescaling(Result):
    """What :func:`rescale_` did, for the L weight layers.

    σ_w and χ are those of weights that are independent of each other. After a rescaling by what a batch
    does they say how far the kept weights are from that, not how far the network is from critical.

    Attributes:
        layers: names of the weight layers.
        factors: ρ^l, by which the kept weights were multiplied, (L,); by the units the factor of the layer's
            root mean square.
        sigma_w_before, sigma_w_after: effective σ_w = √(fan_in · mean(W² mask)), (L,).
        chi_before, chi_after: χ^l = (σ_w^l)² E[φ'(√q Z)²], by which the layer and the activation φ before it
            multiply the mean squared gradient, times the square of a factor, or a running normalisation,
            between them; (L,). q goes from `q_input` through the effective scales, one mean square a node:
            pooling and padding are taken to leave it as it is, as where neighbouring positions are alike. NaN
            where `normalised`, and where the input, a sum or a normalisation by the data comes before any
            activation.
        normalised: whether the layer's output is normalised (batch normalisation in training mode, layer and
            group normalisation) before anything else: its scale then has no effect, (L,).
    """

    layers: tuple[str, ...]
    factors: np.ndarray
    sigma_w_before: np.ndarray
    sigma_w_after: np.ndarray
    chi_before: np.ndarray
    chi_after: np.ndarray
    normalised: np.ndarray

    def to_frame(self) -> DataFrame:
        """One row for each layer."""
        columns = ("factors", "sigma_w_before", "sigma_w_after", "chi_before", "chi_after", "normalised")
        return layer_frame(self, columns)

    def _headline(self) -> str:
        low, high = float(self.factors.min(initial=np.inf)), float(self.factors.max(initial=-np.inf))
        return f"{len(self.layers)} layers rescaled by {low:.4g} to {high:.4g}"


@public
def rescale_(
    model: Any,
    *,
    by: str = "weights",
    data: Any = None,
    sigma_w: float | None = None,
    q_input: float = 1.0,
    example_input: Any = None,
) -> Rescaling:
    """Multiply the kept weights of each layer or unit in place by one factor, so that the network has the
    scale that it had before pruning.

    By the weights: ρ^l = σ_w / √(fan_in · mean(W² mask)), the paper's rescaling trick. A network that was on
    the edge of chaos before pruning is on it again, if the kept weights are independent of each other. Those
    that SNIP keeps gather on the same units, and ReLU networks pruned by it come out chaotic
    (`python -m paper_checks rescaling-after-snip`).

    By the units: the same for each unit of a layer, so that all units that keep a weight have the mean square
    of a unit before pruning: ρ^l_i ∝ 1/√(Σ_j (W_ij mask_ij)²). (Where few units of each layer are left, as
    after SynFlow, the others must not take over the part of those that are gone: the signal along the paths
    that remain would grow from layer to layer.) Units that keep few weights then contribute as much as the
    others. With masks from :func:`rearrange_masks` it lets deep and sparse ReLU networks train (`python -m
    paper_checks deep-sparse-training`). Evci et al. 2022 draw the weights of each unit with the scale of its
    own kept fan-in, which is the same on average.

    By the signal: ρ^l such that W h has the mean square over a batch that it had before pruning. Layers are
    taken in order, each with the output of the layers before it, which are already rescaled. After SNIP, too,
    it brings the gradients of deep networks back to critical (the same check).

    By the moments: each unit's output gets the mean 0 over a batch (and positions), by its bias, and the mean
    square that the layer's units had before pruning. Layers without normalisation make all inputs alike
    with depth; without that part the network distinguishes them again. Where a normalisation does the
    same, and of layers that the model does not call, weights are multiplied as by the weights. Designs
    of convolutional networks train best with it (`python -m benchmarks.trained_designs report`).
    (Mishkin & Matas 2016 set the variances of whole layers so, without the means.)

    Biases are untouched but by the moments. Removed weights become 0 under their mask, so that a second call
    changes nothing.

    Args:
        model: any model with masks from :func:`prune_` or ``torch.nn.utils.prune``. Of one that
            `Architecture.from_torch` cannot read the χ are nan, and by the signal those weights that are no
            layer's (attention's, recurrent ones) are multiplied as by the weights.
        by: "weights", "units" (rows of a Linear layer's weight, output channels of a convolution's), "signal"
            or "moments".
        data: for "signal" and "moments", inputs (n, …) or (inputs, targets), arrays or tensors. The model is
            run on them in the mode it is in.
        sigma_w: for "weights" and "units", the scale to restore, for all layers; None: each layer's own
            √(fan_in · mean W²) before the mask.
        q_input: mean squared input, for the χ that are reported.
        example_input: a batch of inputs or its shape. It can be left out where `data` is given, where the
            first layer is Linear, and for images if the model takes some usual extent (32, 224, 28, …).

    Raises:
        EmptyLayerError: a ModelError; a layer without a kept weight, or that no signal passes.
        ModelError: no mask and no `sigma_w`, weights that are not finite, or a model that cannot be read.
        DataError: data that the model does not take. ArgumentError: another `by`, or an argument that does
        not go with it. The model is then left as it was.
    """
    require_torch()
    checks.one_of("by", by, WAYS)
    sigma_w = _checked_scale(by, sigma_w)
    if data is not None and by not in SEEN:
        raise ArgumentError(f"data goes with by='signal' and 'moments', got data with by={by!r}")
    q_input = checks.positive("q_input", q_input)
    inputs = _inputs(data, by) if by in SEEN else None
    if inputs is not None:
        example_input = shown_input(model, (inputs, None), example_input)
    of_graph, chosen = _structure(model, example_input)
    names = list(chosen)
    if sigma_w is None and all(weight.mask is None for weight in chosen.values()):
        raise ModelError(
            "model has no pruned layer; prune it first (prune_)" + (", or give sigma_w" * (by not in SEEN))
        )
    biases = [
        0.0 if w.bias is None else float(w.bias.detach().double().square().mean()) for w in chosen.values()
    ]
    full, before = zip(*(_scales(name, weight) for name, weight in chosen.items()), strict=True)
    restored = full if sigma_w is None else (sigma_w,) * len(full)
    factors = np.array(restored) / np.array(before)
    if by == "units":
        factors *= [math.sqrt(_alive_share(weight)) for weight in chosen.values()]
    moments: dict[str, Moments] = {}
    if inputs is not None:
        shaped = of_graph.shaped(inputs)
        moments, of_batch = _of_batch(by, model, chosen, of_graph.normalised(biases), shaped)
        factors = np.array([of_batch.get(n, f) for n, f in zip(names, factors, strict=True)])
    after = [float(value) for value in factors * before]
    found = Rescaling(
        layers=tuple(names),
        factors=factors,
        sigma_w_before=np.array(before),
        sigma_w_after=np.array(after),
        chi_before=of_graph.chi(before, biases, q_input),
        chi_after=of_graph.chi(after, biases, q_input),
        normalised=of_graph.normalised(biases),
    )
    with all_or_nothing(model), torch.no_grad():
        for (name, weight), factor in zip(chosen.items(), factors, strict=True):
            if name in moments:
                _multiply(weight, _over_units(weight, moments[name].factors))
                if (bias := weight.bias) is not None and (new := moments[name].bias) is not None:
                    bias.copy_(new)
            else:
                unit = _over_units(weight, _unit_factors(weight)) if by == "units" else 1.0
                _multiply(weight, float(factor) * unit)
    return found


def _of_batch(
    by: str, model: Any, weights: dict[str, PrunableWeight], normalised: np.ndarray, inputs: Any
) -> tuple[dict[str, Moments], dict[str, float]]:
    """The moments to set, of layers that no normalisation follows; and the layers' factors."""
    if by == "signal":
        return {}, signal_factors(model, _with_outputs(weights), inputs)
    free = {name: w for (name, w), no in zip(weights.items(), normalised, strict=True) if not no}
    moments = unit_moments(model, _with_outputs(free), inputs) if free else {}
    factors: dict[str, float] = {}
    for name, one in moments.items():
        square, _ = _by_unit(weights[name])
        grown = square * _over_units(weights[name], one.factors).double().view(square.shape) ** 2
        factors[name] = math.sqrt(float(grown.sum()) / float(square.sum()))
    return moments, factors


def _over_units(weight: PrunableWeight, factors: Any) -> Any:
    """One factor for each output unit as a tensor of the weight's shape."""
    square, others = _by_unit(weight)
    shape = [1 if axis in others else size for axis, size in enumerate(square.shape)]
    made = factors.to(weight.tensor.dtype).view(shape).expand_as(square)
    return made.reshape(weight.tensor.shape)


def _multiply(weight: PrunableWeight, factor: Any) -> None:
    """Kept weights times the factor, a number or a tensor of their shape; removed ones become 0."""
    if weight.mask is None:
        weight.tensor.mul_(factor)
        return
    weight.tensor.mul_(weight.mask).mul_(factor)
    # The product that the next forward pass would make anyway, for who reads `weight` before it.
    setattr(weight.module, weight.attribute, weight.tensor * weight.mask)


def _checked_scale(by: str, sigma_w: Any) -> float | None:
    """The scale to restore, where one is given."""
    if sigma_w is None:
        return None
    if by in SEEN:
        raise ArgumentError(
            f"sigma_w goes with by='weights' and 'units', got {checks.shown(sigma_w)} with by={by!r}"
        )
    return checks.positive("sigma_w", sigma_w)


def _structure(model: Any, example_input: Any) -> tuple[UnknownScales, dict[str, PrunableWeight]]:
    """What the graph says of scales, if there is one; and the weights by their layers' names, in order."""
    try:
        graph, weights = structure(model, example_input)
        return GraphScales(graph), {layer.name: weights[layer.name] for layer in graph.weight_layers}
    except ModelError:
        readable = isinstance(model, torch.nn.Module) and any(True for _ in model.parameters())
        if not readable or (example_input is not None and not _takes(model, example_input)):
            raise
        layers = {id(w.tensor) for w in prunable_weights(model, required=False)}
        every = prunable_weights(model, {id(parameter) for parameter in model.parameters()}, required=False)
        # A module's own parameters are weights where they are masked.
        chosen = [w for w in every if w.mask is not None or id(w.tensor) in layers]
        if not any(w.mask is not None for w in chosen) or not all(w.is_plain for w in chosen):
            raise
        found = {w.label: w for w in chosen}
        check_unshared(model, found)
        return UnknownScales(), found


def _takes(model: Any, example_input: Any) -> bool:
    """Whether a model that cannot be read runs on an example."""
    own = next(model.parameters())
    try:
        shape = batch_shape(example_input)
        given = isinstance(example_input, torch.Tensor)
        inputs = example_input.to(own.device) if given else torch.zeros(shape).to(own)
        with torch.no_grad(), seeded(0):
            run_model(converted(model).model, inputs)
    except EOCError:
        return False
    return True


def _with_outputs(weights: dict[str, PrunableWeight]) -> dict[str, PrunableWeight]:
    """The layers whose output is W h and biases, which a hook can see."""
    return {name: w for name, w in weights.items() if w.attribute == "weight"}


def _inputs(data: Any, by: str) -> Any:
    """The inputs of `data` as a tensor (n, …)."""
    given = data[0] if isinstance(data, (tuple, list)) and len(data) == 2 else data
    try:
        inputs = torch.as_tensor(checks.for_torch(given))
    except Exception:
        inputs = None
    if inputs is None or inputs.ndim < 2 or not len(inputs):
        kind = type(data).__name__ if inputs is None else f"shape {tuple(inputs.shape)}"
        raise DataError(f"data must be inputs (n, …) or (inputs, targets) for by={by!r}, got {kind}")
    if inputs.is_complex() or inputs.is_meta:
        where = " on the meta device" if inputs.is_meta else ""
        raise DataError(f"data must hold real inputs, got {inputs.dtype}{where}")
    if not bool(torch.isfinite(inputs).all()):
        raise DataError("data must hold finite inputs, got nan or inf")
    return inputs


def _scales(name: str, weight: PrunableWeight) -> tuple[float, float]:
    """σ_w of a layer without and with its mask."""
    square = weight.tensor.detach().double().square()
    full = float(square.mean())
    kept = full if weight.mask is None else float((square * weight.mask).mean())
    if kept == 0:
        raise EmptyLayerError(
            f"layer {name!r} has no weight left: no rescaling brings back a collapsed layer"
        )
    if not math.isfinite(full):
        raise ModelError(f"the weights of layer {name!r} must be finite, got mean square {full}")
    n = fan_in(weight.tensor)
    return math.sqrt(n * full), math.sqrt(n * kept)


def _alive_share(weight: PrunableWeight) -> float:
    """The part of a layer's units that keep weights, each of which is to have the scale of a unit before.

    Units whose removed weights are 0, too, went in a call before.
    """
    kept, before = (
        int((square.sum(dim=axes) > 0).count_nonzero())
        for square, axes in (_by_unit(weight), _by_unit(weight, whole=True))
    )
    return kept / before


def _by_unit(weight: PrunableWeight, *, whole: bool = False) -> tuple[Any, list[int]]:
    """W² mask, or W² of the `whole`, as (groups, rows, columns, …); and the axes not of output units."""
    square = weight.tensor.detach().double().square()
    if weight.mask is not None and not whole:
        square = square * weight.mask
    if square.ndim < 2:
        return square, []
    groups, axis = weight.unit_axes
    # One group after the other along the first axis.
    square = square.view(groups, -1, *square.shape[1:])
    return square, [i for i in range(1, square.ndim) if i != axis + 1]


def _unit_factors(weight: PrunableWeight) -> Any:
    """What gives all units of a layer the same Σ_j (W_ij mask_ij)², and leaves the layer's mean square.

    One factor a unit; 1 for units that keep nothing, and for each entry of a vector.
    """
    square, others = _by_unit(weight)
    if not others:
        return torch.ones_like(square)
    of_unit = square.sum(dim=others)
    alive = of_unit > 0
    mean = of_unit.sum() / alive.count_nonzero()
    return (mean / of_unit.where(alive, mean)).sqrt()
