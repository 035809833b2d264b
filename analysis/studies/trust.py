"""Studies of how far the predictions are off, by width and depth: what the error map is fitted to."""

from __future__ import annotations

from ..measures_error import measuring_error
from ..study import Batch, Network, Study, grid
from .pruned import RELU_PHASES, TANH_PHASES

WIDTHS = [10, 20, 50, 100, 200, 500]
DEPTHS = [5, 10, 30, 100]
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
ELU_PHASES = [(1.0, 0.2), "eoc", (1.4, 0.2)]

TRUST = Study(
    name="trust",
    about="error of the predictions for fully connected networks, by width, depth and phase",
    networks=(
        *grid(depth=DEPTHS, width=WIDTHS, activation="tanh", init=TANH_PHASES),
        *grid(depth=DEPTHS, width=WIDTHS, activation="relu", init=RELU_PHASES),
        # Not fitted to: the map must hold for an activation that it has not seen.
        *grid(depth=[5, 30], width=[10, 20, 50], activation="elu", init=ELU_PHASES),
    ),
    criteria=("snip",),
    sparsities=SPARSITIES,
    seeds=1,
    measures=(measuring_error(seeds=40),),
    quick_depth=10,
)

TRUST_CRITERIA = Study(
    name="trust-criteria",
    about="the same for the other criteria, on fewer sizes",
    networks=grid(depth=[5, 30], width=[10, 30, 100, 300], activation=["tanh", "relu"]),
    criteria=("magnitude", "random", "synflow-oneshot", "grasp"),
    sparsities=SPARSITIES,
    seeds=1,
    measures=(measuring_error(seeds=20),),
    quick_depth=5,
)

TRUST_ROUNDS = Study(
    name="trust-rounds",
    about="the same for SynFlow in 100 rounds",
    networks=grid(depth=[5, 30], width=[10, 30, 100], activation="relu"),
    criteria=("synflow",),
    sparsities=(0.5, 0.9, 0.98),
    seeds=1,
    measures=(measuring_error(seeds=6, fewest=4),),
    quick_depth=5,
)

TRUST_GRAPHS = Study(
    name="trust-graphs",
    about="the same for narrow convolutional and residual networks",
    networks=(
        *grid(kind="cnn", depth=[5, 20], width=[8, 32], activation=["tanh", "relu"], init=["eoc"]),
        *grid(kind="resnet", depth=20, width=[4, 16], activation="relu", normalisation=["batch", None]),
        *grid(kind="stable-resnet", depth=20, width=8, activation="relu", normalisation=["batch", None]),
        Network("vgg", 11, 8, activation="relu", normalisation="batch"),
        Network("vgg", 11, 8, activation="relu"),
    ),
    criteria=("snip",),
    sparsities=SPARSITIES,
    seeds=1,
    measures=(measuring_error(seeds=16),),
    batch=Batch(size=50, shape=(3, 32, 32)),
    quick_depth=11,
)

STUDIES = (TRUST, TRUST_CRITERIA, TRUST_ROUNDS, TRUST_GRAPHS)
