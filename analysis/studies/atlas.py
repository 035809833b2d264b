"""Which criterion survives to which sparsity on which architecture."""

from __future__ import annotations

from ..study import Batch, Network, Study
from .collapse import COLLAPSE_MEASURES
from .pruned import ALL_CRITERIA

#: Convolutional networks are narrow, so that a CPU can prune them in a hundred rounds.
ATLAS = Study(
    name="atlas",
    about="critical sparsity of every criterion on fully connected, convolutional and residual networks",
    networks=(
        Network("mlp", 10, 100, "relu"),
        Network("mlp", 30, 100, "relu"),
        Network("mlp", 100, 100, "relu"),
        Network("mlp", 30, 100, "relu", init="pytorch"),
        Network("mlp", 10, 100, "tanh"),
        Network("mlp", 30, 100, "tanh"),
        Network("mlp", 30, 100, "tanh", init=(1.0, 0.2)),
        Network("mlp", 30, 100, "tanh", init="pytorch"),
        Network("cnn", 10, 16, "relu"),
        Network("cnn", 10, 16, "tanh"),
        Network("vgg", 11, 8, "relu"),
        Network("vgg", 11, 8, "relu", normalisation="batch"),
        Network("vgg", 16, 8, "relu", normalisation="batch"),
        Network("resnet", 20, 8, "relu"),
        Network("resnet", 20, 8, "relu", normalisation="batch"),
        Network("resnet", 32, 8, "relu", normalisation="batch"),
        Network("stable-resnet", 20, 8, "relu"),
        Network("stable-resnet", 20, 8, "relu", normalisation="batch"),
    ),
    criteria=ALL_CRITERIA,
    sparsities=(0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999),
    seeds=5,
    measures=COLLAPSE_MEASURES,
    batch=Batch(shape=(3, 32, 32)),
    quick_seeds=2,
    quick_depth=11,
)
