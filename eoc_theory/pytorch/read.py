"""Read a torch model into an `Architecture`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base.compiled_models import of_uncompiled
from ..base.isolation import isolated
from ..networks.architecture import Architecture
from ..networks.naming import CONTAINERS
from .factories import made
from .inputs import shown_input
from .trace import trace


@isolated
@of_uncompiled
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
    kind = type(model).__name__
    return Architecture.from_graph(trace(model, example_input), "" if kind in CONTAINERS else kind)


@isolated
def read_network(
    model: Any, data: Any = None, example_input: Any = None, *, only_structure: bool = False
) -> Architecture:
    """`read_architecture` of a model, or of what a factory makes first.

    The shape of one input is that of `example_input`, or else that which `data` show.
    """
    if not hasattr(model, "named_modules"):
        model = made(model, 0)
    return read_with(model, data, example_input, {}, only_structure=only_structure)


def read_with(
    model: Any, data: Any, example_input: Any, known: Mapping[str, Any], *, only_structure: bool = False
) -> Architecture:
    """`read_network` of a model, with the laws of its parameters without values, by their names."""
    example = shown_input(model, data, example_input)
    return Architecture.from_graph(trace(model, example, known, only_structure=only_structure))
