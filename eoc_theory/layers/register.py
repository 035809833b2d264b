"""Which torch module classes of a user's own are read as which layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..base import checks
from ..base.boundary import public
from ..errors import ArgumentError, ModelError
from ..signals.shape import Shape
from .layer import Layer

#: A layer for a module, its name and the shapes of its inputs.
Describe = Callable[[Any, str, tuple[Shape, ...]], Layer]


@dataclass(frozen=True)
class ModuleKind:
    """A torch module class of a user's own and how to read it.

    Attributes:
        base: the class; subclasses with its forward pass count too.
        layer: the layer that a module is.
        weights: whether it has weights that pruning ranks.
    """

    base: type
    layer: Describe
    weights: bool = False


_KINDS: dict[type, ModuleKind] = {}


def add_kind(kind: ModuleKind) -> None:
    """Make a module class known."""
    _KINDS[kind.base] = kind


def kind_of_class(module: type) -> ModuleKind | None:
    """The entry of the nearest class that a module's class inherits from."""
    return next((_KINDS[base] for base in module.__mro__ if base in _KINDS), None)


def classes_with_weights() -> Iterator[type]:
    """The users' classes whose parameter `weight` pruning ranks."""
    return (kind.base for kind in _KINDS.values() if kind.weights)


@public
def register_layer(module: type, layer: Describe | type[Layer], *, weights: bool = False) -> None:
    """Make a torch module class of one's own known: how the theory reads it.

    Models that hold such modules are predicted, diagnosed, measured and initialised as others are. The
    module's ``forward`` is not looked at: what `layer` says counts. Registering a class again replaces what
    was said before.

    Args:
        module: a subclass of ``torch.nn.Module``, none of torch's own. Its subclasses count too, unless they
            have a ``forward`` of their own.
        layer: ``layer(module, name, shapes)``, the `eoc_theory.layers.Layer` that a module is: one of the
            library's (``Dense``, ``Sum``, ``Nonlinearity``, …) or of a subclass, a frozen dataclass. `name`
            is to be its name, `shapes` are the `Shape` of each input. A subclass of `Layer` that takes its
            name alone may stand for that function. ``Architecture.to_torch`` makes the library's layers as
            torch's own modules; a subclass that says what it is in torch has a method ``build(shape)``.
        weights: whether the module has weights that pruning ranks, the parameter `weight` (and maybe
            `bias`): then `layer` returns a layer with weights such as ``Dense(name, WeightLayer(name, fan_in,
            fan_out, 1.0, 0.0))``. Scales and law are read from the parameters, whatever that says.

    Raises:
        ArgumentError: no such class or function. A `layer` that fails, or returns none that fits, is told
            when a model is read.
    """
    if not (isinstance(module, type) and _inherits_from_torch(module)):
        raise ArgumentError(f"module must be a subclass of torch.nn.Module, got {checks.shown(module)}")
    if _is_torchs(module):
        raise ArgumentError(f"module must be a class of your own, got torch's {module.__name__}")
    weights = checks.flag("weights", weights)
    if isinstance(layer, type) and not issubclass(layer, Layer):
        raise ArgumentError(
            "layer must be a function of (module, name, shapes), or a subclass of eoc_theory.layers.Layer, "
            f"got the class {layer.__name__}"
        )
    if not callable(layer):
        raise ArgumentError(f"layer must be a function of (module, name, shapes), got {checks.shown(layer)}")
    add_kind(ModuleKind(module, _describing(layer), weights))


def _describing(layer: Any) -> Describe:
    return (lambda module, name, shapes: layer(name)) if isinstance(layer, type) else layer


def _is_torchs(base: type) -> bool:
    return str(base.__module__).partition(".")[0] == "torch"


def _inherits_from_torch(module: type) -> bool:
    return any(_is_torchs(base) and base.__name__ == "Module" for base in module.__mro__)


def layer_of(kind: ModuleKind, module: Any, name: str, shapes: tuple[Shape, ...]) -> Layer:
    """The layer that a user's class says a module is.

    Raises:
        CallbackError: the user's function fails. ModelError: it returns no layer that fits.
    """
    where = f"layer of {kind.base.__name__}"
    layer = checks.call(where, kind.layer, module, name, shapes)
    if not isinstance(layer, Layer):
        raise ModelError(f"{where} must return an eoc_theory.layers.Layer, got {checks.shown(layer)}")
    if "__dataclass_params__" not in vars(type(layer)):
        raise ModelError(f"{where} must return a dataclass, and {type(layer).__name__} is none")
    if layer.name != name:
        raise ModelError(f"{where} must have the name {name!r}, got {checks.shown(layer.name)}")
    if (layer.weighted is not None) != kind.weights:
        has = "has weights" if layer.weighted is not None else "has no weights"
        raise ModelError(f"{where} {has}: register it with weights={layer.weighted is not None}")
    shape = checks.call(f"{where}: output_shape", layer.output_shape, *shapes)
    if not isinstance(shape, Shape):
        raise ModelError(f"{where}: output_shape must return a Shape, got {checks.shown(shape)}")
    return layer
