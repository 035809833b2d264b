"""Set the weights of a torch model to the edge of chaos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ..base import checks
from ..base.boundary import public
from ..base.isolation import all_or_nothing
from ..errors import ActivationError, DataError, EOCError, ModelError
from ..networks.critical_scales import critical_scales
from ..networks.queries import attends
from .lazy import require_torch, torch
from .models import prunable_weights
from .signals import unit_factors
from .structure import normalisations, structure
from .trace import batch_shape
from .weights import LAWS, check_delta, fill_

Model = TypeVar("Model")

#: Inputs that signals are measured on where only a shape is given.
_FEWEST = 64


@public
def initialize_(
    model: Model,
    *,
    sigma_b: float = 0.0,
    law: str = "normal",
    seed: int | None = None,
    example_input: Any = None,
) -> Model:
    """Sample all weights and biases of a model anew, on the edge of chaos of its activations.

    In each layer W has variance σ_w²/fan_in (fan_in = channels/groups × kernel size of a convolution),
    b ~ N(0, σ_b²), with σ_w from :func:`edge_of_chaos` of the activation that follows, whatever normalisation
    or sum stands between. The layer of the logits uses the nearest activation before it. A layer that goes
    into other weights without an activation between is linear: σ_w = 1 and no biases. Where dropout of
    probability p in training mode comes before the weights, σ_w is √(1−p) times that, which keeps variances
    and gradients as they are in training (`edge_of_chaos` with `dropout`).

    Normalisation layers get γ = 1, β = 0 and fresh running statistics. A branch of a residual block is
    initialised as the same layers in a row would be, and factors in the model, such as a stable ResNet's
    1/√L, stay as they are. With ReLU every block then multiplies the variance by 1 + factor² (Hayou et al.
    2021), which without such factors or normalisation grows exponentially with depth.

    A model that cannot be read is initialised by the signal instead, as in layer-sequential unit variance
    (Mishkin & Matas 2016): biases are 0, and in the order in which they run the layers' weights are scaled so
    that W h has mean square 1 over `example_input`. Weights that are no layer's (attention's inner ones,
    recurrent ones) have σ_w = 1.

    Args:
        model: a torch module; its present weights do not matter.
        sigma_b: standard deviation of the biases; positively homogeneous activations (ReLU) are critical at 0
            only.
        law: with the same variance "normal", "uniform", "truncated" (normal, cut at two standard deviations,
            variance corrected), "orthogonal" or "delta-orthogonal" (Xiao et al. 2018: kernels that are 0 but
            for an orthogonal matrix at their centre; the norm of the signal is kept exactly where positions
            are, up to the activations); see `eoc_theory.pytorch.weights.fill_`.
        seed: of a separate generator; None uses torch's global random state, as torch's own initialisers
            do.
        example_input: a batch of inputs or its shape. It can be left out where the first layer is Linear, and
            for images if the model takes some usual extent (32, 224, 28, …); not for a model that cannot be
            read, whose signals are measured on it (several inputs as a tuple, or a dict by name), or on
            standard normal inputs of its shape.

    Returns:
        the same model.

    Raises:
        ModelError: a model that cannot be read, without activation, with weights under a mask, or for
        "delta-orthogonal" with a convolution of fewer output than input channels. NoCriticalPointError: an
        activation that has no edge of chaos at `sigma_b`. The model is then left as it was.
    """
    require_torch()
    sigma_b = checks.non_negative("sigma_b", sigma_b)
    checks.one_of("law", law, LAWS)
    if seed is not None:
        seed = checks.integer("seed", seed, 0)
    for weight in prunable_weights(model):
        if weight.mask is not None or "bias_orig" in weight.module._parameters:
            raise ModelError(f"layer {weight.name!r} is pruned already; initialise before pruning")
        if not weight.is_plain:
            raise ModelError(
                f"layer {weight.name!r} makes its weight from {weight.parameter!r}: initialise before that"
            )
    refusal: EOCError | None = None
    try:
        graph, weights = structure(model, example_input, fresh=True)
        if attends(graph):
            raise ModelError("attention has no edge of chaos of its own")
        scales, inputs = critical_scales(graph, sigma_b), None
    except (ModelError, ActivationError) as unread:
        refusal = unread
        weights = {w.label: w for w in prunable_weights(model)}
        scales, inputs = dict.fromkeys(weights, (1.0, 0.0)), _shown(model, example_input, unread)
    if law == "delta-orthogonal":
        for name in scales:
            check_delta(weights[name].tensor, getattr(weights[name].module, "groups", 1), name)
    generators: dict[Any, Any] = {}
    with all_or_nothing(model):
        for name, (sigma_w, spread) in scales.items():
            module, weight, bias = weights[name].module, weights[name].tensor, weights[name].bias
            if seed is not None and weight.device not in generators:
                generators[weight.device] = torch.Generator(weight.device).manual_seed(seed)
            generator, groups = generators.get(weight.device), getattr(module, "groups", 1)
            fill_(weight, bias, sigma_w, spread, law, generator, groups, name)
        for module in normalisations(model):
            _reset(module)
        if inputs is not None:
            called = {name: w for name, w in weights.items() if w.attribute == "weight"}
            try:
                factors = unit_factors(model, called, inputs)
            except DataError as error:
                raise (refusal or error) from None
            for name, factor in factors.items():
                with torch.no_grad():
                    weights[name].tensor.mul_(factor)
    return model


def _shown(model: Any, example_input: Any, unread: EOCError) -> Any:
    """Inputs to measure signals on: those of the example, or standard normal ones of its shape.

    Raises the error `unread` where the example shows none.
    """
    if example_input is None:
        raise ModelError(f"example_input is needed for a model that cannot be read ({unread})")
    try:
        if isinstance(example_input, (tuple, list)) and all(isinstance(n, int) for n in example_input):
            first, *rest = batch_shape(example_input)
            generator = torch.Generator().manual_seed(0)
            return torch.randn(max(first, _FEWEST), *rest, generator=generator)
        if isinstance(example_input, Mapping):
            inputs = {name: torch.as_tensor(checks.for_torch(value)) for name, value in example_input.items()}
        elif isinstance(example_input, tuple) and all(hasattr(value, "shape") for value in example_input):
            inputs = tuple(torch.as_tensor(checks.for_torch(value)) for value in example_input)
        else:
            inputs = torch.as_tensor(checks.for_torch(example_input))
    except Exception:
        raise unread from None
    parts = (
        inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
    )
    if not parts:
        raise unread
    if any(part.ndim < 1 or not len(part) or part.is_complex() or part.is_meta for part in parts):
        raise unread
    return inputs


def _reset(module: Any) -> None:
    """A normalisation layer as new."""
    with torch.no_grad():
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            parameter = module._parameters.get(name)
            if parameter is not None:
                parameter.fill_(value)
    if isinstance(module, torch.nn.modules.batchnorm._NormBase):
        module.reset_running_stats()
