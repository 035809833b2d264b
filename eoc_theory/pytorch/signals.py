"""The signals of a batch in a torch model, and the factors that restore them after pruning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..base.isolation import converted, seeded
from ..errors import EmptyLayerError
from .lazy import torch
from .measure.gradient_scores import double_is_cheap
from .models import PrunableWeight
from .positive_network import full_precision
from .running import run_model

#: Of a layer's name and mean squared signal: what its signal is multiplied by.
Factor = Callable[[str, float], float]
#: Of a layer's name, module and output: what is sent on instead.
Change = Callable[[str, Any, Any], Any]
#: Units whose variance over a batch is less than this part of the layer's mean square are left as they are:
#: what they pass does not depend on the inputs.
_STEADY = 1e-9


class Moments(NamedTuple):
    """What gives the units of a layer their mean and mean square: tensors (units,).

    Attributes:
        factors: that their weights are multiplied by.
        bias: that they have then; None where the layer has none.
    """

    factors: Any
    bias: Any | None


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
        inputs: (n, …) as the model takes them, on the CPU or where the model is; several as a tuple or dict.

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


def unit_factors(model: Any, weights: Mapping[str, PrunableWeight], inputs: Any) -> dict[str, float]:
    """For each layer that the model calls, the factor that gives its signal W h the mean square 1.

    Layers are taken as they run, each with what the layers before it, already multiplied, make of the inputs.
    Args and errors as of `signal_factors`.
    """
    found: dict[str, float] = {}

    def unit(name: str, square: float) -> float:
        if name in found:
            return found[name]
        if not 0 < square < math.inf:
            raise EmptyLayerError(f"layer {name!r} passes no finite signal (mean square {square:g})")
        found[name] = 1.0 / math.sqrt(square)
        return found[name]

    _run(model, weights, inputs, unit, [])
    return found


def unit_moments(model: Any, weights: Mapping[str, PrunableWeight], inputs: Any) -> dict[str, Moments]:
    """For each layer that the model calls, what gives each of its units the mean 0 over batch and positions,
    and the mean square that the layer's units had with all weights.

    Layers are taken in order, each with what the layers before it, already changed, make of the inputs.
    Where a layer has no bias its units keep their mean, and their mean square is set. Args and errors as of
    `signal_factors`.
    """
    masks = [weight.mask for weight in weights.values() if weight.mask is not None]
    wanted: dict[str, float] = {}
    found: dict[str, Moments] = {}

    def note(name: str, module: Any, output: Any) -> Any:
        others = [i for i in range(output.ndim) if i != _unit_axis(module, output)]
        square, variance = output.square().mean(dim=others), output.var(dim=others, correction=0)
        # Of units that pass something: those that lost all weights in a call before are 0 here, too.
        heard = variance > _STEADY * square.mean()
        wanted.setdefault(name, float(square[heard].double().mean()))
        return output

    def restore(name: str, module: Any, output: Any) -> Any:
        axis, bias = _unit_axis(module, output), getattr(module, "bias", None)
        others = [i for i in range(output.ndim) if i != axis]
        shape = [-1 if i == axis else 1 for i in range(output.ndim)]
        if name not in found:
            mean = output.mean(dim=others) if bias is not None else output.new_zeros(output.shape[axis])
            square = (output - mean.view(shape)).square().mean(dim=others)
            heard = square > _STEADY * wanted[name]
            if not (0 < wanted[name] < math.inf and bool(heard.any()) and bool(square.isfinite().all())):
                raise EmptyLayerError(
                    f"layer {name!r} passes no finite signal that depends on the inputs: no rescaling brings "
                    "it back"
                )
            factors = (wanted[name] / square.where(heard, square.new_tensor(wanted[name]))).sqrt()
            found[name] = Moments(factors, None if bias is None else (bias - mean) * factors)
        factors, new = found[name]
        signal = output if bias is None else output - bias.view(shape)
        return signal * factors.view(shape) + (0.0 if new is None else new.view(shape))

    _pass(model, weights, inputs, note, masks)
    _pass(model, weights, inputs, restore, [])
    return found


def _unit_axis(module: Any, output: Any) -> int:
    """Channels come before positions in a convolution, last in a Linear layer."""
    return output.ndim - 1 - max(0, module.weight.ndim - 2)


def _run(
    model: Any,
    weights: Mapping[str, PrunableWeight],
    inputs: Any,
    factor: Factor,
    filled: Sequence[Any],
) -> None:
    """One forward pass in which each layer's signal is multiplied; `filled` tensors hold one value."""
    _pass(model, weights, inputs, partial(_scaled, factor), filled)


def _pass(
    model: Any, weights: Mapping[str, PrunableWeight], inputs: Any, change: Change, filled: Sequence[Any]
) -> None:
    """One forward pass in which each layer's output is changed; `filled` tensors hold one value."""
    # The precision that gradients are taken in, and for the same reason.
    dtype = torch.float64 if double_is_cheap(list(weights.values())) else torch.float32
    twin = converted(model, dtype=dtype)
    for tensor in filled:
        twin.of(tensor).fill_(1.0)
    for name, weight in weights.items():
        twin.of(weight.module).register_forward_hook(_hook(name, change))
    device = next(iter(weights.values())).tensor.device

    def placed(value: Any) -> Any:
        kind = dtype if value.is_floating_point() else None
        return value.detach().to(device=device, dtype=kind).clone()

    keywords = {name: placed(value) for name, value in inputs.items()} if isinstance(inputs, dict) else {}
    several = tuple(map(placed, inputs)) if isinstance(inputs, tuple) else None
    args = several if several is not None else () if keywords else placed(inputs)
    with full_precision(device), torch.no_grad(), seeded(0):
        run_model(twin.model, args, "data", keywords)


def _hook(name: str, change: Change) -> Any:
    def hook(module: Any, args: tuple[Any, ...], output: Any) -> Any:
        return change(name, module, output)

    return hook


def _scaled(factor: Factor, name: str, module: Any, output: Any) -> Any:
    """The output with its signal, all but the bias, multiplied."""
    bias = getattr(module, "bias", None)
    if bias is not None:
        bias = bias.view(-1, *(1,) * (output.ndim - 1 - _unit_axis(module, output)))
    signal = output if bias is None else output - bias
    scaled = signal * factor(name, float(signal.double().square().mean()))
    return scaled if bias is None else scaled + bias
