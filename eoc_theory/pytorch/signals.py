"""The signals of a batch in a torch model, and the factors that restore them after pruning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..base.isolation import converted, seeded
from ..errors import EmptyLayerError
from .measure.gradient_scores import double_is_cheap
from .models import PrunableWeight, require_torch
from .positive_network import full_precision
from .running import run_model

#: Of a layer's name and mean squared signal: what its signal is multiplied by.
Factor = Callable[[str, float], float]


def signal_factors(model: Any, weights: Mapping[str, PrunableWeight], inputs: Any) -> dict[str, float]:
    """For each layer, what its kept weights are multiplied by to give the signal that all of them gave.

    The signal of a layer is its output without the bias, W h; its strength the mean square over batch, units
    and positions. What counts is the strength in the network before pruning, fed with its own h. A layer
    takes what the layers before it, already multiplied, make of the inputs. (Asking of each layer only
    what it did with the h at hand is not enough: SNIP's masks of one layer favour the units that the next
    one's favour, and mean squared gradients of critical ReLU networks then grow by e^0.7 a layer at 90 %
    removed instead of e^0.0.)

    Args:
        model: in the mode it is in; it is left as it was, and so is torch's random state.
        weights: the layers by name; those under a mask hold the weights that were removed.
        inputs: (n, …) as the model takes them, on the CPU or where the model is.

    Returns:
        a factor for each layer that the model calls; one that is called several times has that of its first
        call.

    Raises:
        DataError: inputs that the model does not take. EmptyLayerError: a layer that no signal passes.
    """
    masks = [weight.mask for weight in weights.values() if weight.mask is not None]
    wanted: dict[str, float] = {}
    found: dict[str, float] = {}

    def note(name: str, square: float) -> float:
        wanted.setdefault(name, square)
        return 1.0

    def restore(name: str, square: float) -> float:
        if name in found:
            return found[name]
        if not (0 < square < math.inf and 0 < wanted[name] < math.inf):
            raise EmptyLayerError(
                f"layer {name!r} passes no finite signal (mean square {square:g}, before pruning "
                f"{wanted[name]:g}): no rescaling brings it back"
            )
        found[name] = math.sqrt(wanted[name] / square)
        return found[name]

    _run(model, weights, inputs, note, masks)
    _run(model, weights, inputs, restore, [])
    return found


def _run(
    model: Any,
    weights: Mapping[str, PrunableWeight],
    inputs: Any,
    factor: Factor,
    filled: Sequence[Any],
) -> None:
    """One forward pass in which each layer's signal is multiplied; `filled` tensors hold one value."""
    torch = require_torch()
    # The precision that gradients are taken in, and for the same reason.
    dtype = torch.float64 if double_is_cheap(list(weights.values())) else torch.float32
    twin = converted(model, dtype=dtype)
    for tensor in filled:
        twin.of(tensor).fill_(1.0)
    for name, weight in weights.items():
        twin.of(weight.module).register_forward_hook(_hook(name, factor))
    device = next(iter(weights.values())).tensor.device
    kind = dtype if inputs.is_floating_point() else None
    with full_precision(device), torch.no_grad(), seeded(0):
        run_model(twin.model, inputs.detach().to(device=device, dtype=kind).clone(), "data")


def _hook(name: str, factor: Factor) -> Any:
    def hook(module: Any, args: tuple[Any, ...], output: Any) -> Any:
        bias = getattr(module, "bias", None)
        if bias is not None:
            # Channels come before positions in a convolution, last in a Linear layer.
            axes = output.ndim - 2 if module.weight.ndim > 2 else 0
            bias = bias.view(-1, *(1,) * axes)
        signal = output if bias is None else output - bias
        scaled = signal * factor(name, float(signal.double().square().mean()))
        return scaled if bias is None else scaled + bias

    return hook
