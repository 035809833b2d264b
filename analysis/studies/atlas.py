"""Which criterion survives to which sparsity on which architecture."""

from __future__ import annotations

from dataclasses import replace

from ..measures_collapse import PREDICTED, measured
from ..study import Batch, Network, Study
from .pruned import ALL_CRITERIA

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)


CHEAP = tuple(name for name in ALL_CRITERIA if name != "synflow")


def part(
    networks: tuple[Network, ...], size: int, *, blocks: int, block: int, rounds: int
) -> tuple[Study, Study]:
    """Networks measured with `blocks`·`block` seeds, under SynFlow in a hundred rounds with `rounds`.

    Images are of `size` × `size`.
    """
    cheap = Study(
        name="atlas",
        about="critical sparsity of every criterion on fully connected, convolutional and residual networks",
        networks=networks,
        criteria=CHEAP,
        sparsities=SPARSITIES,
        seeds=blocks,
        measures=(PREDICTED, measured(block)),
        batch=Batch(shape=(3, size, size)),
        quick_seeds=1,
        quick_depth=11,
    )
    return cheap, replace(cheap, criteria=("synflow",), seeds=rounds, measures=(PREDICTED, measured(1)))


_CHAINS = part(
    (
        Network("mlp", 10, 100, "relu"),
        Network("mlp", 30, 100, "relu"),
        Network("mlp", 100, 100, "relu"),
        Network("mlp", 30, 100, "relu", init="pytorch"),
        Network("mlp", 10, 100, "tanh"),
        Network("mlp", 30, 100, "tanh"),
        Network("mlp", 30, 100, "tanh", init=(1.0, 0.2)),
        Network("mlp", 30, 100, "tanh", init="pytorch"),
    ),
    32,
    blocks=4,
    block=10,
    rounds=2,
)
# Narrow, so that a CPU can prune them in a hundred rounds.
_POSITIONS = part(
    (
        Network("cnn", 10, 16, "relu"),
        Network("cnn", 10, 16, "tanh"),
        Network("resnet", 20, 8, "relu"),
        Network("resnet", 20, 8, "relu", normalisation="batch"),
        Network("resnet", 32, 8, "relu", normalisation="batch"),
        Network("stable-resnet", 20, 8, "relu"),
        Network("stable-resnet", 20, 8, "relu", normalisation="batch"),
    ),
    16,
    blocks=8,
    block=4,
    rounds=3,
)
_VGG = part(
    (
        Network("vgg", 11, 8, "relu"),
        Network("vgg", 11, 8, "relu", normalisation="batch"),
        Network("vgg", 16, 8, "relu", normalisation="batch"),
    ),
    32,
    blocks=5,
    block=4,
    rounds=1,
)

# What takes longest comes last.
ATLAS = replace(_CHAINS[0], more=(_POSITIONS[0], _VGG[0], _CHAINS[1], _POSITIONS[1], _VGG[1]))
