"""Studies of what pruning at initialisation keeps: theory beside networks really pruned."""

from __future__ import annotations

from ..measures import PRUNING, THEORY
from ..study import Batch, Network, Study, grid

#: (σ_w, σ_b) in the ordered and in the chaotic phase, and the edge of chaos.
TANH_PHASES = [(1.0, 0.2), "eoc", (2.0, 0.2)]
RELU_PHASES = [(1.2, 0.2), "eoc", (1.6, 0.2)]

ALL_CRITERIA = ("snip", "grasp", "magnitude", "synflow", "synflow-oneshot", "random", "uniform", "erk")

SMALL = Study(
    name="small",
    about="a fully connected and a convolutional network, small enough for tests",
    networks=(Network("mlp", 4, 20), Network("cnn", 3, 4, activation="relu")),
    criteria=("snip", "magnitude"),
    sparsities=(0.5, 0.9),
    seeds=3,
    measures=(THEORY, PRUNING),
    batch=Batch(size=20, shape=(1, 8, 8)),
)

PHASES = Study(
    name="phases",
    about="kept weights and collapse of fully connected networks in the three phases, by depth",
    networks=(
        *grid(activation="tanh", init=TANH_PHASES, depth=[10, 30, 100], width=100),
        *grid(activation="relu", init=RELU_PHASES, depth=[10, 30, 100], width=100),
    ),
    criteria=("snip",),
    sparsities=(0.5, 0.7, 0.8, 0.9, 0.95, 0.98),
    seeds=20,
    measures=(THEORY, PRUNING),
    quick_seeds=4,
    quick_depth=30,
)

CRITERIA = Study(
    name="criteria",
    about="every criterion on fully connected, convolutional and residual networks",
    networks=(
        *grid(kind="mlp", activation=["tanh", "relu"], depth=30, width=100),
        *grid(kind="cnn", activation=["tanh", "relu"], depth=10, width=32),
        Network("resnet", 20, 16, activation="relu", normalisation="batch"),
    ),
    criteria=ALL_CRITERIA,
    sparsities=(0.5, 0.8, 0.9, 0.95, 0.98),
    seeds=10,
    measures=(THEORY, PRUNING),
    batch=Batch(shape=(3, 16, 16)),
)

RESIDUAL = Study(
    name="residual",
    about="ResNet against Stable ResNet, with and without batch normalisation, by depth",
    networks=grid(
        kind=["resnet", "stable-resnet"],
        activation="relu",
        normalisation=["batch", None],
        depth=[20, 32, 56],
        width=16,
    ),
    criteria=("snip", "grasp", "synflow"),
    sparsities=(0.5, 0.9, 0.95, 0.98),
    seeds=10,
    measures=(THEORY, PRUNING),
    batch=Batch(shape=(3, 32, 32)),
    quick_depth=20,
)
