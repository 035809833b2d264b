"""Which criterion survives to which sparsity on which architecture."""

from __future__ import annotations

from dataclasses import replace

from ..measures_collapse import PREDICTED, measured
from ..study import Batch, Network, Study
from .pruned import ALL_CRITERIA

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)


#: Criteria that rank once, but for chance alone: its s_cr differs most from seed to seed, and costs least.
CHEAP = tuple(name for name in ALL_CRITERIA if name not in ("synflow", "random"))


def part(
    networks: tuple[Network, ...], size: int, *, blocks: int, block: int, criteria: tuple[str, ...] = CHEAP
) -> Study:
    """Networks measured with `blocks`·`block` seeds, under criteria that rank once.

    Images are of `size` × `size`.
    """
    return Study(
        name="atlas",
        about="critical sparsity of every criterion on fully connected, convolutional, residual and dense "
        "networks and transformers, batch normalisation in both modes",
        networks=networks,
        criteria=criteria,
        sparsities=SPARSITIES,
        seeds=blocks,
        measures=(PREDICTED, measured(block)),
        batch=Batch(shape=(3, size, size)),
        quick_seeds=1,
        quick_depth=11,
    )


def by_chance(cheap: Study) -> Study:
    """The same networks under random pruning, with two hundred seeds."""
    return replace(cheap, criteria=("random",), seeds=4, measures=(PREDICTED, measured(50)))


def in_rounds(cheap: Study, seeds: int) -> Study:
    """The same networks under SynFlow in a hundred rounds, with fewer seeds."""
    return replace(cheap, criteria=("synflow",), seeds=seeds, measures=(PREDICTED, measured(1)))


# The median of n networks is off by 1.25 σ/√n, σ their standard deviation of log₁₀(1 − s_cr). It is 0.2 to
# 0.4 where nothing normalises scores in training: these get 80 networks or more, so that a cell is no miss by
# chance, the others 20 to 32.
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
    block=25,
)
# Narrow, so that a CPU can prune them in a hundred rounds.
_PLAIN = part((Network("cnn", 10, 16, "relu"), Network("cnn", 10, 16, "tanh")), 16, blocks=4, block=24)
_RESIDUAL = part(
    (Network("resnet", 20, 8, "relu"), Network("stable-resnet", 20, 8, "relu")), 16, blocks=4, block=24
)
_NORMALISED = part(
    (
        Network("resnet", 20, 8, "relu", normalisation="batch"),
        Network("resnet", 32, 8, "relu", normalisation="batch"),
        Network("stable-resnet", 20, 8, "relu", normalisation="batch"),
    ),
    16,
    blocks=4,
    block=8,
)
_VGG = part((Network("vgg", 11, 8, "relu"),), 32, blocks=4, block=20)
_VGG_NORMALISED = part(
    (
        Network("vgg", 11, 8, "relu", normalisation="batch"),
        Network("vgg", 16, 8, "relu", normalisation="batch"),
    ),
    32,
    blocks=2,
    block=10,
)
_DENSE = replace(
    part((Network("densenet", 13, 8, "relu", normalisation="batch"),), 16, blocks=2, block=10), quick_depth=13
)
#: Batch normalisation in evaluation mode is the identity at initialisation.
_EVALUATED = replace(
    part(
        (
            Network("resnet", 20, 8, "relu", normalisation="batch-eval"),
            Network("densenet", 13, 8, "relu", normalisation="batch-eval"),
        ),
        16,
        blocks=4,
        block=20,
    ),
    quick_depth=13,
)
_VGG_EVALUATED = part((Network("vgg", 11, 8, "relu", normalisation="batch-eval"),), 32, blocks=2, block=10)
#: SynFlow's positive signal has no way through attention.
_ATTENTION = part(
    (Network("vit", 4, 32, "gelu"), Network("gated-vit", 4, 32, "gelu")),
    16,
    blocks=2,
    block=10,
    criteria=tuple(name for name in CHEAP if name != "synflow-oneshot"),
)
_PARTS = (
    _CHAINS, _PLAIN, _RESIDUAL, _NORMALISED, _VGG, _VGG_NORMALISED, _ATTENTION, _DENSE, _EVALUATED,
    _VGG_EVALUATED,
)  # fmt: skip

# What takes longest comes last. SynFlow looks at no data and no normalisation: a ResNet-20 or VGG-11 with
# batch normalisation is the one without. Where every layer is on every path, it leaves each a weight to the
# end, in all networks alike; layers beside a shortcut go earlier, and not in all at the same sparsity.
ATLAS = replace(
    _CHAINS,
    more=(
        *_PARTS[1:],
        *map(by_chance, _PARTS),
        in_rounds(_CHAINS, 2),
        in_rounds(_PLAIN, 3),
        in_rounds(_RESIDUAL, 20),
        in_rounds(replace(_NORMALISED, networks=_NORMALISED.networks[1:2]), 3),
        in_rounds(_VGG, 1),
        in_rounds(replace(_VGG_NORMALISED, networks=_VGG_NORMALISED.networks[1:]), 1),
    ),
)
