"""The door: whatever a caller passes as a network becomes plain data here, once.

A network that can be read becomes an `Architecture`. One that cannot, or whose scores are to be sampled, is
an `UnreadNetwork`: its layers, and what samples networks like it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..base import checks
from ..base.upward import upward
from ..errors import ArgumentError
from .architecture import Architecture
from .unread import UnreadNetwork

Network = Architecture | UnreadNetwork

#: Ways to an answer: theory where it is exact and fast, else sampled; kernels alone; sampled networks.
METHODS = ("auto", "theory", "sampled")


@dataclass(frozen=True)
class Options:
    """How a network is resolved and run.

    Attributes:
        method: one of `METHODS`.
        example_input: a batch of inputs, of which the shape counts, or that shape.
        loss, output, exclude, device, dtype: what sampled networks are run with; see
            `eoc_theory.pruning.prediction.predict_pruning`.
        needs_data: whether the scores depend on inputs and targets.
        from_graph: whether the scores follow from the graph alone, as SynFlow's do.
    """

    method: str = "auto"
    example_input: Any = None
    loss: Any = "cross_entropy"
    output: Any = None
    exclude: Any = ()
    device: Any = "auto"
    dtype: str = "auto"
    needs_data: bool = True
    from_graph: bool = False

    @classmethod
    def of(cls, criterion: Any, *asked: Any) -> Options:
        """What is asked for, in the order of the attributes, where a `Criterion` ranks."""
        from_graph = criterion.needs == "paths"
        return cls(*asked, needs_data=criterion.needs_data, from_graph=from_graph)

    def __post_init__(self) -> None:
        checks.one_of("method", self.method, METHODS)
        checks.one_of("dtype", self.dtype, ("auto", "float32", "float64"))

    @property
    def beyond_theory(self) -> tuple[str, ...]:
        """Names of the options that only sampled networks can follow."""
        excluded = not isinstance(self.exclude, (tuple, list)) or len(self.exclude) > 0
        asked = {
            "loss": not (isinstance(self.loss, str) and self.loss == "cross_entropy"),
            "output": self.output is not None,
            "exclude": excluded,
        }
        return tuple(name for name, given in asked.items() if given)


def as_network(net: Any, data: Any = None, options: Options | None = None, *, seed: int = 0) -> Network:
    """`net` as plain data.

    Args:
        net: an `Architecture`, a torch model, or a factory: a function without arguments, or of a seed, that
            returns new models.
        data: show the shape of a model's inputs, and are what sampled networks are scored on.
        seed: of stand-in data.

    Raises:
        ArgumentError: `net` is none of these, or an option goes with sampled networks only. ModelError: the
            model can be neither read nor run.
    """
    options = options or Options()
    if isinstance(net, UnreadNetwork):
        return net
    if not (isinstance(net, Architecture) or is_model(net) or callable(net)):
        raise ArgumentError(
            "net must be an Architecture, a torch.nn.Module or a function that returns one, "
            f"got {type(net).__name__}"
        )
    if options.method == "theory" and options.beyond_theory:
        raise ArgumentError(f"{options.beyond_theory[0]} goes with method='sampled', got method='theory'")
    if isinstance(net, Architecture):
        sampled = options.method == "sampled" or options.beyond_theory
        return upward("net=<sampled>")(net, data, options, seed=seed) if sampled else net
    if options.method == "theory":
        # What follows from the graph alone looks at no biases.
        return upward("net=<torch model>")(
            net, data, options.example_input, only_structure=options.from_graph
        )
    return upward("net=<torch model or factory>")(net, data, options, seed=seed)


def is_model(net: Any) -> bool:
    """Whether it is a torch module; torch is not imported to tell."""
    return any(base.__module__.startswith("torch.nn") for base in type(net).__mro__)


def as_architecture(
    net: Any, data: Any = None, example_input: Any = None, *, name: str = "net"
) -> Architecture:
    """`net` itself, or the architecture of a torch model.

    Args:
        data, example_input: show the shape of a model's inputs; the example counts where both are given.
        name: the argument's, for the error.

    Raises:
        ArgumentError: `net` is neither. ModelError: the model cannot be read.
    """
    if isinstance(net, Architecture):
        return net
    if is_model(net):
        return upward("net=<torch model>")(net, data, example_input)
    raise ArgumentError(f"{name} must be an Architecture or a torch.nn.Module, got {type(net).__name__}")
