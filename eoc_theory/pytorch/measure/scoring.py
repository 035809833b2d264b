"""Real scores of real weights: what a pruning criterion says about each weight of a torch network.

Every criterion keeps its largest scores. The scale that all layers share carries no meaning and is chosen so
that nothing over- or underflows.

===============  ==========================================================================================
criterion        score of a weight W with gradient g of the mean loss over the batch
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

Biases are never scored. SynFlow is computed on absolute weights alone, biases, activations and normalisation
left out (:mod:`eoc_theory.pytorch.positive_network`), or where a model cannot be read by running it
(:mod:`eoc_theory.pytorch.measure.run_flow`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ...criteria.criterion import Criterion
from ...criteria.criterion import criterion as as_criterion
from ...errors import DataError, EOCError, ModelError
from ..batches import Batch
from ..lazy import torch
from ..losses import Loss, as_loss
from ..models import PrunableWeight, is_linear_chain, prunable_weights
from ..positive_network import check_flow
from ..trace import trace
from .gradient_scores import double_is_cheap, gradient_scores
from .synflow_rounds import ChainFlow, Flow, GraphFlow

if TYPE_CHECKING:
    from ...networks.graph import Graph


def layer_scores(
    model: Any,
    criterion: Any,
    data: Batch | tuple[Any, Any] | None = None,
    *,
    weights: Sequence[PrunableWeight] | None = None,
    loss: Any = "cross_entropy",
    output: Any = None,
    example_input: Any = None,
    device: Any = None,
    dtype: Any = "auto",
    seed: int = 0,
    masks: Sequence[torch.Tensor] | None = None,
    notes: list[str] | None = None,
    run: Callable[[], Batch] | None = None,
) -> Sequence[torch.Tensor]:
    """The scores of all prunable weights, one tensor per layer, of the weights' shapes, on `device`.

    Args:
        model: a torch module; it is left as it was. It is run in its current mode (training or evaluation).
        criterion: a criterion or its name; of one that ranks in rounds the scores of the first.
        data: a `Batch`, or (inputs, targets) as tensors, for criteria that need gradients.
        loss: whose gradients they are, as :func:`eoc_theory.pytorch.losses.as_loss` takes it.
        output: what picks the outputs from all that the model returns.
        example_input: a batch of inputs, for SynFlow on anything but a chain of Linear layers.
        device: where to compute; None: where the model is.
        dtype: "float32", "float64" or "auto": float64 for small networks of Linear layers and where float32
            would over- or underflow or lose the batch's sum to cancellation.
        seed: for the random criteria, and for modules that draw random numbers (dropout).
        masks: what earlier rounds left, for criteria that need gradients; None: all.
        notes: is given what there is to say of the scores.
        run: makes the batch that shows the inputs of a model, for SynFlow of one that cannot be read.

    Raises:
        DataError, ModelError: no data, or data or a model that the criterion cannot be computed for.
    """
    rule = as_criterion(criterion)
    weights = prunable_weights(model) if weights is None else weights
    if rule.needs == "weights":
        return WeightScores(rule, weights, device)
    if rule.needs_data:
        if data is None:
            raise DataError(f"data must be (inputs, targets) for criterion {rule.label!r}, got None")
        _check_finite(weights)
        scores = gradient_scores(
            model,
            weights,
            rule,
            data,
            loss=loss,
            output=output,
            device=device,
            dtype=dtype,
            seed=seed,
            masks=masks,
            notes=notes,
        )
    elif rule.needs == "paths":
        asked: Any = {"loss": as_loss(loss, output), "notes": notes, "run": run}
        flow = synflow_start(model, weights, example_input, device=device, dtype=dtype, **asked)
        scores = path_scores(rule, flow, weights)
    else:
        rng = np.random.default_rng(seed)
        drawn = rule.chance_scores([tuple(w.tensor.shape) for w in weights], rng)
        scores = [torch.from_numpy(s).to(device) for s in drawn]
    for weight, score in zip(weights, scores, strict=True):
        if weight.mask is not None:
            score[weight.mask.to(score.device) == 0] = -math.inf  # what is gone stays gone
    return scores


def path_scores(rule: Criterion, flow: Flow, weights: Sequence[PrunableWeight]) -> list[torch.Tensor]:
    """Scores by |W| ∂R/∂|W|, what `flow` scores in its first round."""
    products = [s.reshape(w.tensor.shape) for s, w in zip(flow.scores(), weights, strict=True)]
    if rule.is_product:
        return products
    found = []
    for product, weight in zip(products, weights, strict=True):
        value = weight.tensor.detach().to(product)
        size = value.abs()
        derivative = product / size.where(size > 0, size.new_tensor(math.inf))
        found.append(rule.score(value, derivative).to(product))
    return found


class WeightScores(Sequence["torch.Tensor"]):
    """Scores by weights alone, computed when asked for: as large as the network, and quickly computed."""

    def __init__(self, rule: Criterion, weights: Sequence[PrunableWeight], device: Any = None) -> None:
        self._rule, self._weights, self._device = rule, weights, device
        # One precision for all layers, and one in which comparisons are quick.
        kinds = {w.tensor.dtype for w in weights}
        self._dtype = torch.float64 if torch.float64 in kinds else torch.float32

    @property
    def sizes(self) -> list[int]:
        """Number of weights in each layer."""
        return [w.size for w in self._weights]

    def __len__(self) -> int:
        return len(self._weights)

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[torch.Tensor]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return WeightScores(self._rule, self._weights[index], self._device)
        weight = self._weights[index]
        value = weight.tensor.detach().to(device=self._device, dtype=self._dtype)
        # NumPy's threads never wait for one another: it has one.
        if value.device.type == "cpu":
            score = torch.from_numpy(np.array(self._rule.score(value.numpy(), None)))
        else:
            score = self._rule.score(value, None)
        if weight.mask is not None:
            score[weight.mask.to(score.device) == 0] = -math.inf
        return score


# --- SynFlow


def synflow_start(
    model: Any,
    weights: Sequence[PrunableWeight],
    example_input: Any = None,
    *,
    device: Any = None,
    dtype: Any = "auto",
    loss: Loss | None = None,
    notes: list[str] | None = None,
    run: Callable[[], Batch] | None = None,
) -> Flow:
    """The whole network before SynFlow's first round, what a mask removed having weight 0.

    Chains of Linear layers are computed on the CPU in float64, whatever `dtype`, unless `device` is another.
    A model that cannot be read is run itself (:mod:`eoc_theory.pytorch.measure.run_flow`).

    Args:
        loss, run: picks the outputs that are summed, and makes a batch of inputs, of a model that is run.
        notes: is told where it is.

    Raises:
        ModelError: a model that can be neither read nor run so, or a weight that is not plain or not finite.
    """
    _check_finite(weights)
    check_plain(weights)
    where = torch.device(device) if device is not None else weights[0].tensor.device
    if where.type == "cpu" and is_linear_chain(model, weights):
        return ChainFlow([_magnitude(w, device, torch.float64).numpy() for w in weights])
    try:
        return _graph_flow(model, weights, example_input, device, dtype)
    except ModelError as unread:
        try:
            batch = None if run is None else run()
        except EOCError:
            batch = None
        if batch is None:
            raise
        from .run_flow import RUN_NOTE, RunFlow  # torch at its top

        try:
            flow = RunFlow(model, weights, batch, as_loss() if loss is None else loss, where)
        except ModelError as error:
            raise ModelError(f"{error} (it is run, for it cannot be read: {unread})") from error
        if notes is not None:
            notes.append(f"{RUN_NOTE} ({unread})")
        return flow


def check_plain(weights: Sequence[PrunableWeight]) -> None:
    """Raises ModelError for a weight that is made from another parameter."""
    for weight in weights:
        if not weight.is_plain:
            kind = type(weight.module).__name__
            raise ModelError(
                f"synflow is for plain weights, got {weight.name!r} ({kind}), which are made from others"
            )


def _graph_flow(
    model: Any, weights: Sequence[PrunableWeight], example_input: Any, device: Any, dtype: Any
) -> GraphFlow:
    """Of a model that can be read."""
    for weight in weights:
        if weight.attribute != "weight":
            raise ModelError(f"{weight.name!r} is no weight of a Linear or convolution layer")
    graph = model_graph(model, weights, example_input)
    flow = graph_flow(graph, model, weights, device, dtype)
    check_flow(graph, flow.weights)
    return flow


def graph_flow(
    graph: Graph, model: Any, weights: Sequence[PrunableWeight], device: Any, dtype: Any
) -> GraphFlow:
    """The flow through a graph with the model's weights; layers that are not ranked have theirs, too."""
    if dtype == "auto":
        # Nothing but positive sums of numbers near 1: float32 loses no digits either.
        dtype = "float64" if double_is_cheap(weights) else "float32"
    ranked = {w.label for w in weights}
    read = {layer.name for layer in graph.weight_layers}
    others = [w for w in prunable_weights(model) if w.label in read - ranked]
    own, fixed = (
        {w.label: _magnitude(w, device, getattr(torch, dtype)) for w in some} for some in (weights, others)
    )
    return GraphFlow(graph, own, fixed)


def _check_finite(weights: Sequence[PrunableWeight]) -> None:
    """One weight that is not would spoil the scores of all others, or pass for 0 among them."""
    for weight in weights:
        low, high = (float(end) for end in weight.tensor.detach().aminmax())
        if not math.isfinite(high - low):
            wrong = low if math.isnan(low) or math.isinf(low) else high
            raise ModelError(f"the weights of layer {weight.label!r} must be finite, got {wrong}")


def _magnitude(weight: PrunableWeight, device: Any, dtype: Any) -> torch.Tensor:
    value = weight.tensor.detach().to(device=device, dtype=dtype).abs()
    return value if weight.mask is None else value * weight.mask.to(value)


def model_graph(model: Any, weights: Sequence[PrunableWeight], example_input: Any) -> Graph:
    """The model's graph, which must use each of `weights` once."""
    graph = trace(model, example_input, only_structure=True)
    used = {layer.name for layer in graph.weight_layers}
    for w in weights:
        if w.label not in used:
            raise ModelError(f"layer {w.name!r} is not used by the model's forward pass")
    return graph
