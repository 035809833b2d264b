"""Studies of collapse, and of what residual networks keep: drawn as the project's figures."""

from __future__ import annotations

from dataclasses import replace

from .. import measures_collapse, measures_layers
from ..study import Batch, Study, grid
from .pruned import RELU_PHASES, TANH_PHASES

LAYER_MEASURES = (measures_layers.PREDICTED, measures_layers.MEASURED)

COLLAPSE = Study(
    name="collapse",
    about="distribution of the critical sparsity under five criteria, in critical and ordered networks",
    networks=(
        *grid(depth=30, activation="tanh", init=["eoc", TANH_PHASES[0]]),
        *grid(depth=30, activation="relu", init=["eoc", RELU_PHASES[0]]),
    ),
    criteria=("snip", "grasp", "magnitude", "random"),
    sparsities=(0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999),
    seeds=4,
    measures=(measures_collapse.PREDICTED, measures_collapse.measured(10)),
)
# A hundred rounds for each step of a search: SynFlow gets fewer networks.
COLLAPSE = replace(COLLAPSE, more=(replace(COLLAPSE, criteria=("synflow",), seeds=1),))

#: (σ_w, σ_b) from deep in the ordered phase over the edge of chaos to deep in the chaotic one: the paper's
#: bound says something at the ends only.
DEPTH_PHASES = [(0.5, 0.2), *TANH_PHASES, (5.0, 0.2)]

COLLAPSE_DEPTH = Study(
    name="collapse-depth",
    about="critical sparsity of tanh networks under SNIP by depth, in the three phases",
    networks=grid(activation="tanh", init=DEPTH_PHASES, depth=[5, 10, 20, 40, 80, 160]),
    criteria=("snip",),
    sparsities=(0.5, 0.9, 0.98),
    seeds=2,
    measures=(measures_collapse.PREDICTED, measures_collapse.measured(10)),
    quick_seeds=1,
    quick_depth=40,
)

KEPT = Study(
    name="kept-per-layer",
    about="fraction kept per layer by SNIP in 100 × 100 tanh networks of the three phases",
    networks=grid(activation="tanh", init=TANH_PHASES, depth=100),
    criteria=("snip",),
    sparsities=(0.7,),
    seeds=40,
    measures=LAYER_MEASURES,
    quick_seeds=4,
)

RESIDUAL_LAYERS = Study(
    name="residual-layers",
    about="score moments and kept weights per layer, ResNet against Stable ResNet, with and without "
    "batch normalisation",
    networks=grid(
        kind=["resnet", "stable-resnet"],
        activation="relu",
        normalisation=[None, "batch"],
        depth=[32, 56],
        width=16,
    ),
    criteria=("snip",),
    sparsities=(0.9, 0.98),
    seeds=10,
    measures=LAYER_MEASURES,
    batch=Batch(shape=(3, 16, 16)),
    quick_depth=32,
)

STUDIES = (COLLAPSE, COLLAPSE_DEPTH, KEPT, RESIDUAL_LAYERS)
