"""The initialisation of a network: each layer's scale beside the critical one, and the name it goes by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...activations import Activation
from ...base.boundary import public
from ...errors import NoCriticalPointError
from ...layers import WeightLayer
from ...mean_field.edge_of_chaos import edge_of_chaos
from ...networks.architecture import Architecture
from ...networks.graph import Graph
from ...networks.queries import batch_norm_modes, let_through, scale_is_normalised

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


@public
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
    modes = batch_norm_modes(graph)
    return Reading(
        kinds=tuple(graph.weighted_layer(node).kind for node in graph.weighted),
        edge=edge,
        names=recognise_all(list(net), edge),
        normalised=np.array([scale_is_normalised(graph, node) for node in graph.weighted]),
        hidden=np.array([layer.activation is not None for layer in net]),
        joins=residual_joins(graph),
        batch_norms=(sum(modes), len(modes) - sum(modes)),
    )


def _critical_scale(act: Activation, sigma_b: float) -> float:
    """σ_w on the edge of chaos at `sigma_b`, at 0 for a homogeneous activation; nan where there is none."""
    try:
        return float(edge_of_chaos(act, sigma_b=0.0 if act.is_homogeneous else sigma_b).sigma_w)
    except NoCriticalPointError:
        return math.nan


# --- names --------------------------------------------------------------------------------------------------


def tolerance(layer: WeightLayer) -> float:
    """Relative deviation of a scale read from the weights that chance explains (four standard errors)."""
    return max(TOLERANCE, 4.0 / math.sqrt(2.0 * layer.n_weights))


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


def residual_joins(graph: Graph) -> tuple[Join, ...]:
    """The sums of a shortcut and one branch with more weight layers behind it, in order."""
    behind: list[int] = []
    for node in graph.nodes:
        own = int(node.layer.weighted is not None)
        behind.append(own + max((behind[source] for source in node.inputs), default=0))
    found = []
    for position, node in enumerate(graph.nodes):
        if not node.layer.adds or len(node.inputs) != 2:
            continue
        first, second = (behind[source] for source in node.inputs)
        if first != second:
            branch = int(second > first)
            found.append(Join(position, branch, _branch_scale(graph, position, branch)))
    return tuple(found)


def _branch_scale(graph: Graph, position: int, branch: int) -> float:
    """The Sum's coefficient, times that of a multiplication by a number right before it."""
    node = graph.nodes[position]
    source = node.inputs[branch]
    scale = node.layer.factors(len(node.inputs))[branch]
    before = graph.nodes[source]
    while before.layer.adds and len(before.inputs) == 1:
        scale *= before.layer.factors(1)[0]
        before = graph.nodes[before.inputs[0]]
    return scale
