"""The initialisation of a network: each layer's scale beside the critical one, and the name it goes by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...activations import Activation
from ...errors import NoCriticalPointError
from ...layers import (
    BatchNorm,
    Convolution,
    Dense,
    GroupNorm,
    LayerNorm,
    Nonlinearity,
    Sum,
    WeightLayer,
)
from ...mean_field.edge_of_chaos import edge_of_chaos
from ...networks.architecture import Architecture
from ...networks.critical_scales import let_through
from ...networks.graph import Graph

Array = np.ndarray

#: Relative deviation of σ_w from a named value that still counts as that value; more where few weights say
#: what σ_w is.
TOLERANCE = 0.02
#: Names of the initialisations that are recognised, as they stand in a sentence.
EDGE, PYTORCH, KAIMING, KAIMING_OUT = "edge of chaos", "PyTorch default", "Kaiming", "Kaiming (fan_out)"
XAVIER, LECUN, ORTHOGONAL = "Xavier", "LeCun", "orthogonal"


@dataclass(frozen=True)
class Join:
    """A sum of a shortcut and a residual branch.

    Attributes:
        position: of the Sum in the graph.
        branch: which of its inputs is the branch: the one with more weight layers behind it.
        scale: what the branch is multiplied by.
    """

    position: int
    branch: int
    scale: float


@dataclass(frozen=True)
class Reading:
    """What an initialisation is, layer by layer; L weight layers.

    Attributes:
        kinds: "Linear", "Conv 3x3", …
        edge: σ_w on the edge of chaos of the activation that follows, at the layer's own σ_b (at 0 for a
            positively homogeneous one); nan where no activation follows or it has no such point. Shape (L,).
        names: initialisation that each layer's scale and law are those of, "" for none.
        normalised: whether a normalisation stands between the layer and the next activation, so that its
            scale does not matter. Shape (L,).
        hidden: whether an activation follows. Shape (L,).
        joins: the residual sums.
        batch_norms: how many BatchNorm layers are in training mode, and how many in evaluation mode.
    """

    kinds: tuple[str, ...]
    edge: Array
    names: tuple[str, ...]
    normalised: Array
    hidden: Array
    joins: tuple[Join, ...]
    batch_norms: tuple[int, int]

    @property
    def scaled(self) -> Array:
        """Where an activation follows and the scale matters, shape (L,)."""
        return self.hidden & ~self.normalised


def read(net: Architecture) -> Reading:
    """The reading of `net`."""
    graph = net.as_graph()
    edge = np.array(
        [
            math.nan
            if layer.activation is None
            else _critical_scale(layer.activation, layer.sigma_b) * math.sqrt(let_through(graph, node))
            for layer, node in zip(net, graph.weighted, strict=True)
        ]
    )
    normalised = np.zeros(net.depth, dtype=bool)
    joins: tuple[Join, ...] = ()
    norms = (0, 0)
    kinds = [kind(layer) for layer in net]
    if not net.is_chain:
        normalised = np.array([_is_normalised(net.as_graph(), node) for node in net.as_graph().weighted])
        joins = residual_joins(net.as_graph())
        modes = [node.layer.training for node in net.as_graph().nodes if isinstance(node.layer, BatchNorm)]
        norms = (sum(modes), len(modes) - sum(modes))
        kinds = [_kind_of_node(net.as_graph(), node) for node in net.as_graph().weighted]
    return Reading(
        kinds=tuple(kinds),
        edge=edge,
        names=recognise_all(list(net), edge),
        normalised=normalised,
        hidden=np.array([layer.activation is not None for layer in net]),
        joins=joins,
        batch_norms=norms,
    )


def _critical_scale(act: Activation, sigma_b: float) -> float:
    """σ_w on the edge of chaos at `sigma_b`, at 0 for a homogeneous activation; nan where there is none."""
    try:
        return float(edge_of_chaos(act, sigma_b=0.0 if act.is_homogeneous else sigma_b).sigma_w)
    except NoCriticalPointError:
        return math.nan


def kind(layer: WeightLayer) -> str:
    """ "Linear", or "Conv" with its kernel."""
    return "Conv " + "x".join(map(str, layer.kernel)) if layer.kernel else "Linear"


def _kind_of_node(graph: Graph, position: int) -> str:
    node = graph.nodes[position].layer
    assert isinstance(node, (Dense, Convolution))
    name = kind(node.weight)
    if isinstance(node, Convolution):
        if max(node.stride) > 1:
            name += " /" + "x".join(map(str, sorted(set(node.stride))))
        if node.groups > 1:
            name += " depthwise" if node.weight.channels_in == 1 else f" in {node.groups} groups"
    return name


# --- names --------------------------------------------------------------------------------------------------


def tolerance(layer: WeightLayer) -> float:
    """Relative deviation of a scale read from the weights that chance explains (four standard errors)."""
    return max(TOLERANCE, 4.0 / math.sqrt(2.0 * layer.n_weights))


def recognise(layer: WeightLayer, edge: float) -> str:
    """The initialisation of one layer by itself."""
    return recognise_all([layer], np.array([edge]))[0]


def recognise_all(layers: list[WeightLayer], edges: Array) -> tuple[str, ...]:
    """The initialisation that each layer's σ_w and law are those of, "" for none that is known.

    A small layer's scale fits several. The network's layers tell them apart together: a name must fit the
    mean of log σ_w over the layers that it fits one by one, and of several the one that fits most layers
    counts.
    """
    fits = []
    for layer, edge in zip(layers, edges, strict=True):
        near = tolerance(layer)
        fits.append({n: s for n, s in known_scales(layer, edge) if abs(layer.sigma_w / s - 1.0) <= near})
    counts: dict[str, int] = {}
    for name in (EDGE, PYTORCH, KAIMING, KAIMING_OUT, ORTHOGONAL, XAVIER, LECUN):
        of = [(layer, fit[name]) for layer, fit in zip(layers, fits, strict=True) if name in fit]
        weights = sum(2.0 * layer.n_weights for layer, _ in of)
        off = sum(2.0 * layer.n_weights * math.log(layer.sigma_w / scale) for layer, scale in of)
        if of and abs(off) / weights <= max(TOLERANCE, 4.0 / math.sqrt(weights)):
            counts[name] = len(of)
    counts[EDGE] = len(layers) + 1 if EDGE in counts else 0
    # The first of those that fit equally many.
    return tuple(max((n for n in fit if counts.get(n)), key=lambda n: counts[n], default="") for fit in fits)


def known_scales(layer: WeightLayer, edge: float) -> list[tuple[str, float]]:
    """Names of initialisations and the σ_w that they give a layer, nan for another law.

    He et al. 2015 (Kaiming, either fan), Glorot & Bengio 2010 (Xavier), LeCun et al. 1998, and what
    ``torch.nn.Linear`` and ``torch.nn.Conv2d`` do by themselves: uniform with σ_w² = 1/3.
    """
    outputs = layer.fan_out * math.prod(layer.kernel)
    return [
        (EDGE, edge),
        (PYTORCH, math.sqrt(1 / 3) if layer.law == "uniform" else math.nan),
        (KAIMING, math.sqrt(2.0)),
        (KAIMING_OUT, math.sqrt(2.0 * layer.fan_in / outputs)),
        (
            ORTHOGONAL,
            math.sqrt(min(1.0, layer.fan_in / layer.fan_out)) if layer.law == "orthogonal" else math.nan,
        ),
        (XAVIER, math.sqrt(2.0 * layer.fan_in / (layer.fan_in + outputs))),
        (LECUN, 1.0),
    ]


# --- the graph ----------------------------------------------------------------------------------------------


def _is_normalised(graph: Graph, position: int) -> bool:
    """Whether every way from the node to an activation or the next weights leads through a normalisation."""
    ahead = list(graph.consumers[position])
    seen: set[int] = set()
    found = False
    while ahead:
        here = ahead.pop()
        if here in seen:
            continue
        seen.add(here)
        layer = graph.nodes[here].layer
        if isinstance(layer, (LayerNorm, GroupNorm)) or (isinstance(layer, BatchNorm) and layer.training):
            found = True
        elif isinstance(layer, (Nonlinearity, Dense, Convolution)) or not graph.consumers[here]:
            return False
        else:
            ahead.extend(graph.consumers[here])
    return found


def residual_joins(graph: Graph) -> tuple[Join, ...]:
    """The sums of a shortcut and one branch with more weight layers behind it, in order."""
    behind: list[int] = []
    for node in graph.nodes:
        own = int(isinstance(node.layer, (Dense, Convolution)))
        behind.append(own + max((behind[source] for source in node.inputs), default=0))
    found = []
    for position, node in enumerate(graph.nodes):
        if not isinstance(node.layer, Sum) or len(node.inputs) != 2:
            continue
        first, second = (behind[source] for source in node.inputs)
        if first != second:
            branch = int(second > first)
            found.append(Join(position, branch, _branch_scale(graph, position, branch)))
    return tuple(found)


def _branch_scale(graph: Graph, position: int, branch: int) -> float:
    """The Sum's coefficient, times that of a multiplication by a number right before it."""
    layer, source = graph.nodes[position].layer, graph.nodes[position].inputs[branch]
    assert isinstance(layer, Sum)
    scale = layer.coefficients[branch]
    before = graph.nodes[source].layer
    while isinstance(before, Sum) and len(before.coefficients) == 1:
        scale *= before.coefficients[0]
        source = graph.nodes[source].inputs[0]
        before = graph.nodes[source].layer
    return scale
