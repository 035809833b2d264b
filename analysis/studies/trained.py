"""Studies of training what pruning at initialisation left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..study import Batch, Network, Study, grid
from ..training import training
from .pruned import RELU_PHASES, TANH_PHASES

#: (σ_w, σ_b) in the ordered phase.
ORDERED = {"tanh": TANH_PHASES[0], "relu": RELU_PHASES[0]}


def rescaling(
    name: str,
    about: str,
    *,
    depths: Sequence[int],
    sparsities: tuple[float, ...],
    seeds: int,
    data: Batch,
    quick_depth: int,
    **settings: Any,
) -> Study:
    """Accuracy over depth × sparsity (Hayou et al. 2021, figure 2), tanh and ReLU networks of width 100.

    SNIP on the edge of chaos, rescaled by the weights, by the signal and not at all, and in the ordered
    phase. At 90 % also random pruning on the edge of chaos, whose masks are such as the paper's rescaling
    takes for granted, with it and without.
    """

    def part(criterion: str, rescales: Sequence[str], ordered: bool, more: tuple[Study, ...] = ()) -> Study:
        deep: dict[str, Any] = {"depth": list(depths), "width": 100}
        networks = [
            grid(activation=name, init=init if ordered else "eoc", **deep) for name, init in ORDERED.items()
        ]
        return Study(
            name=name,
            about=about,
            networks=networks[0] + networks[1],
            criteria=(criterion,),
            sparsities=(0.9,) if criterion == "random" else sparsities,
            seeds=seeds,
            measures=tuple(training(rescale=rescale, **settings) for rescale in rescales),
            batch=data,
            quick_seeds=2,
            quick_depth=quick_depth,
            more=more,
        )

    others = (part("snip", ("no",), True), part("random", ("no", "weights"), False))
    return part("snip", ("no", "weights", "signal"), False, others)


#: The learning rate was chosen once among 0.003, 0.01, 0.03 and 0.1, at depths 20 and 40 with 90 % removed
#: and one seed: of each way that trains there 0.03 is the best, or within 0.03 of the best accuracy. No rate
#: makes tanh networks train that are not rescaled, or ReLU networks of depth 40.
RESCALING = rescaling(
    "rescaling",
    "accuracy of deep sparse networks with and without the rescaling trick, on digits",
    depths=(5, 10, 20, 40),
    sparsities=(0.5, 0.8, 0.9, 0.95),
    seeds=3,
    data=Batch(),
    quick_depth=5,
    epochs=12,
    learning_rate=0.03,
)

#: The size of the paper's figure, for a GPU; it has not been run. Without bfloat16: rounding to eight bits
#: adds up over a hundred layers.
RESCALING_MNIST = rescaling(
    "rescaling-mnist",
    "the paper's figure 2: accuracy over depth × sparsity with and without rescaling, on MNIST, on a GPU",
    depths=(10, 20, 40, 60, 80, 100),
    sparsities=(0.1, 0.3, 0.5, 0.7, 0.8, 0.9),
    seeds=3,
    data=Batch("mnist"),
    quick_depth=20,
    epochs=20,
    batch=128,
    learning_rate=0.01,
    mixed=False,
)


def image_tables(
    name: str,
    about: str,
    data: Sequence[Batch],
    *,
    resnets: Sequence[int],
    vggs: Sequence[int],
    widths: tuple[int, int],
    sparsities: tuple[float, ...],
    seeds: int,
    **settings: Any,
) -> Study:
    """ResNets, Stable ResNets and VGGs with batch normalisation, pruned by three criteria and trained.

    On each of the data sets; `widths` are channels of the first stage of ResNets and of VGGs.
    """
    deep, normalised = list(resnets), {"activation": "relu", "normalisation": "batch"}
    networks = (
        *grid(kind=["resnet", "stable-resnet"], depth=deep, width=widths[0], **normalised),
        *grid(kind="vgg", depth=list(vggs), width=widths[1], **normalised),
    )
    first, *others = (
        Study(
            name=name,
            about=about,
            networks=networks,
            criteria=("snip", "grasp", "synflow"),
            sparsities=sparsities,
            seeds=seeds,
            measures=(training(**settings),),
            batch=batch,
            quick_seeds=1,
            quick_depth=min(deep),
        )
        for batch in data
    )
    return replace(first, more=tuple(others))


#: Hayou et al. 2021, section 5: 160 epochs of SGD, the learning rate dropped at half and three quarters; ten
#: images of each class to score on. VGG-34 and VGG-49 are taken to go on as VGG-13, -16 and -19 do
#: (`eoc_theory.vgg`): no published form of them is known here. It has not been run;
#: `python -m analysis run images --dry-run` says what it costs.
IMAGES = image_tables(
    "images",
    "the paper's image tables: CIFAR-10, CIFAR-100 and Tiny ImageNet, ResNets, Stable ResNets and VGGs, on a "
    "GPU",
    (Batch("cifar10", 100), Batch("cifar100", 1000), Batch("tiny-imagenet", 2000)),
    resnets=(32, 50, 104, 152),
    vggs=(16, 19, 34, 49),
    widths=(32, 64),
    sparsities=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999),
    seeds=3,
    epochs=160,
    batch=128,
    augment=True,
)

#: Channels of the first stage, in small.
_SMALL = {"activation": "relu", "normalisation": "batch", "width": 4}
_RESNETS = grid(kind="resnet", depth=[20, 50], **_SMALL)
_STABLE = grid(kind="stable-resnet", depth=[20, 50], **_SMALL)
_VGGS = grid(kind="vgg", depth=[11, 16], **_SMALL)


def _small_images(
    networks: tuple[Network, ...],
    criteria: tuple[str, ...],
    sparsities: tuple[float, ...] = (0.9, 0.95, 0.98),
    *,
    size: int = 8,
    more: tuple[Study, ...] = (),
) -> Study:
    """Images of `size` × `size` pixels."""
    return Study(
        name="images-digits",
        about="the image tables in small: narrow ResNets, Stable ResNets and VGGs on digits",
        networks=networks,
        criteria=criteria,
        sparsities=sparsities,
        seeds=4,
        measures=(training(epochs=3, learning_rate=0.1),),
        batch=Batch(shape=(1, size, size)),
        quick_seeds=3,
        quick_depth=20,
        more=more,
    )


#: Nothing of this is the paper's but the question: another data set, networks of less than a fiftieth of the
#: weights, 66 steps of training. With nothing removed it says what is not due to pruning. A VGG halves its
#: images five times, and sees digits enlarged to 32 × 32 pixels.
IMAGES_DIGITS = _small_images(
    _RESNETS + _STABLE,
    ("snip",),
    more=(
        _small_images(_RESNETS, ("grasp", "synflow")),
        _small_images(_RESNETS + _STABLE, ("snip",), (0.0,)),
        _small_images(_VGGS, ("snip", "grasp", "synflow"), size=32),
        _small_images(_VGGS, ("snip",), (0.0,), size=32),
    ),
)
