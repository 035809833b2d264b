"""Setting a torch model's weights to the edge of chaos."""

from __future__ import annotations

from typing import Any, TypeVar

from . import checks
from .activations import activation
from .errors import ModelError
from .torch_models import activations_between, require_torch
from .torch_weights import fill_

Model = TypeVar("Model")


def initialize_(model: Model, *, sigma_b: float = 0.0, law: str = "normal", seed: int | None = None) -> Model:
    """Draw all weights and biases of a chain of layers anew, on the edge of chaos of its activations.

    Layer by layer W ~ law(0, σ_w²/fan_in), b ~ N(0, σ_b²), with σ_w from :func:`edge_of_chaos` of the
    activation that follows the layer; the last layer, and any other without an activation, takes the one
    before.

    Args:
        model: nested ``torch.nn.Sequential`` of Linear or convolution layers and activations.
        sigma_b: standard deviation of the biases; positively homogeneous activations (ReLU) are critical at 0
            only.
        law: "normal" or "uniform", with the same variance.
        seed: of a generator of its own; None draws from torch's global random state, as torch's own
            initialisers do.

    Returns:
        the same model.

    Raises:
        ModelError: not a chain, no activation in it, or weights under a mask. NoCriticalPointError: an
        activation that has no edge of chaos at `sigma_b`. The model is then left as it was.
    """
    from .criticality import edge_of_chaos

    torch = require_torch()
    sigma_b = checks.non_negative("sigma_b", sigma_b)
    checks.one_of("law", law, ("normal", "uniform"))
    modules = activations_between(model)
    scales: dict[Any, float] = {}
    before = next((follower for _, _, follower in modules if follower is not None), None)
    if before is None:
        raise ModelError("model has no activation between its layers, so no edge of chaos")
    drawn = []
    for name, module, follower in modules:
        if "weight" not in dict(module.named_parameters(recurse=False)):
            raise ModelError(f"layer {name!r} is pruned already; initialise before pruning")
        before = before if follower is None else follower
        act = activation(before)
        if act not in scales:
            scales[act] = float(edge_of_chaos(act, sigma_b=sigma_b).sigma_w)
        drawn.append((module, scales[act]))
    generators = {}
    for module, sigma_w in drawn:
        device = module.weight.device
        if seed is not None and device not in generators:
            generators[device] = torch.Generator(device).manual_seed(checks.integer("seed", seed, 0))
        fill_(module.weight, module.bias, sigma_w, sigma_b, law, generators.get(device))
    return model
