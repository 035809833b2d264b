"""Read a torch model into an `Architecture`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base.isolation import isolated
from ..networks.architecture import Architecture
from .inputs import shown_input
from .trace import trace


@isolated
def read_architecture(model: Any, example_input: Any = None) -> Architecture:
    """The architecture of a torch model, read from the model itself; see `eoc_theory.pytorch.trace.trace`.

    Scales are those of the weights at hand: σ_w = √(fan_in · mean W²), σ_b = √(mean b²); the law is the one
    that is most likely for these weights. Masked weights count as 0, so that a pruned model shows its
    effective scale.

    Args:
        model: ``torch.nn.Module`` that returns logits.
        example_input: a batch of inputs or its shape; may be None where the first layer is Linear.

    Raises:
        ModelError: the model holds something that cannot be described. ActivationError: unknown activations.
    """
    return _read(model, example_input, {})


def _read(model: Any, example_input: Any, known: Mapping[str, Any]) -> Architecture:
    """With the laws that are known of parameters without values, by their names."""
    return Architecture.from_graph(trace(model, example_input, known))


@isolated
def read_network(model: Any, data: Any = None, example_input: Any = None) -> Architecture:
    """`read_architecture` of a model, or of what a factory makes first, large tensors of it without memory.

    The shape of one input is that of `example_input`, or else that which `data` show.
    """
    known: dict[str, Any] = {}
    if not hasattr(model, "named_modules"):
        from .weightless import weightless

        model, known = weightless(model)
    return _read(model, shown_input(model, data, example_input), known)
