"""Studies of training what pruning at initialisation left."""

from __future__ import annotations

from ..study import Batch, Network, Study, grid
from ..training import training

RESCALING = Study(
    name="rescaling",
    about="training of deep sparse networks with and without the rescaling trick, on digits",
    networks=(
        *grid(activation="tanh", init=["eoc", (1.0, 0.2)], depth=[10, 30, 60], width=100),
        *grid(activation="relu", depth=[10, 30, 60], width=100),
    ),
    criteria=("snip", "random"),
    sparsities=(0.9,),
    seeds=5,
    measures=tuple(
        training(epochs=20, learning_rate=0.005, rescale=rescale) for rescale in ("no", "weights", "signal")
    ),
    quick_seeds=3,
    quick_depth=30,
)

#: Hayou et al. 2021, section 5: 160 epochs of SGD, the learning rate dropped at half and three quarters; ten
#: images of each class to score on. Days of one GPU.
IMAGES = Study(
    name="images",
    about="the paper's image tables: CIFAR-10, ResNet-32/50/104, Stable ResNet and VGG, on a GPU",
    networks=(
        *grid(
            kind=["resnet", "stable-resnet"],
            activation="relu",
            normalisation="batch",
            depth=[32, 50, 104],
            width=32,
        ),
        Network("vgg", 16, 64, activation="relu", normalisation="batch"),
    ),
    criteria=("snip", "grasp", "synflow"),
    sparsities=(0.9, 0.95, 0.98),
    seeds=3,
    measures=(training(epochs=160, batch=128, augment=True),),
    batch=Batch("cifar10", 100),
    quick_seeds=1,
    quick_depth=32,
)
