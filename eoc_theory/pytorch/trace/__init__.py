"""Reading a torch model into a graph of layers.

`torch.export` follows a double of the model on tensors that carry shapes and no numbers, so that nothing in
the model is executed, drawn or changed; one reader for each ATen operation makes layers of what it finds.
torch is imported when `trace` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..models import require_torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...networks.graph import Graph

__all__ = ["batch_shape", "first_layer", "trace"]


def trace(
    model: Any,
    example_input: Any = None,
    known: Mapping[str, Any] | None = None,
    *,
    only_structure: bool = False,
) -> Graph:
    """The graph of a torch model: its layers, how they are connected, and the distributions of its weights.

    Understood are linear layers and convolutions over one or two axes, normalisation, pooling, dropout,
    activations (modules, functions, or written out as in ``x * torch.sigmoid(x)``), sums, products,
    concatenations, parts and other orders of channels, padding and resizing, however they are written:
    what the operations are counts, not the modules' classes. Weights may be computed from one parameter, by a
    mask or a standardisation: the scales and the law are then those of what they are computed to.

    Normalisation and dropout are read in the mode (training or evaluation) that each module is in. Scales and
    laws are those of the weights at hand, which must look random and of mean 0, and so must biases, tables of
    rows and β. Max-pooling before an
    activation that never falls is read as standing after it, which is the same. The model is left as it was.

    Args:
        model: ``torch.nn.Module`` with one output, the logits.
        example_input: a tensor or array with a batch dimension, (B, features), (B, C, length) or
            (B, C, height, width), of which only the shape counts, or such a shape as a tuple of whole
            numbers. Several inputs as a tuple, or by name: what stands beside the first are masks of padding,
            token numbers, or the same for all examples. None: vectors of the first layer's features, if that
            is Linear.
        known: the laws of parameters without values (`weightless`), by their names.
        only_structure: whether biases, rows and β may have any mean, since how layers are connected is asked
            for and not what the theory says of them.

    Raises:
        ModelError: the model holds something that the theory does not describe; the message names the
            operation and the module where it is. Or its forward pass depends on computed values.
        MissingDependencyError: torch is not installed.
    """
    require_torch()
    from .tracer import trace_model

    return trace_model(model, example_input, known or {}, only_structure)


def first_layer(model: Any, example_input: Any = None) -> Any:
    """The Linear or convolution module that a model runs first, whatever the order its layers are kept in.

    The forward pass is followed as by `trace`, on inputs of the example's shape or else of shapes that the
    model's layers suggest, as far as its first layer with weights; what comes after it need not be
    describable.

    Args:
        model: ``torch.nn.Module`` with one input.
        example_input: as `trace` takes it, or None.

    Returns:
        the module, or None where the forward pass cannot be followed so far.

    Raises:
        ModelError: no torch module, without such a layer, or an example_input that is no batch of inputs.
        MissingDependencyError: torch is not installed.
    """
    require_torch()
    from .tracer import first_layer_of

    return first_layer_of(model, example_input)


def batch_shape(example_input: Any) -> tuple[int, ...]:
    """The shape of a batch of inputs, or that shape itself, as tuple or list, as whole numbers.

    Raises:
        ModelError: it is neither. MissingDependencyError: torch is not installed.
    """
    require_torch()
    from .call import batch_shape_of

    return batch_shape_of(example_input)
