"""The studies. A new one is declared here."""

from __future__ import annotations

from .measures import PRUNING, THEORY
from .study import Batch, Network, Study, grid
from .training import training

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
    measures=tuple(training(epochs=20, learning_rate=0.005, rescale=rescale) for rescale in (False, True)),
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

STUDIES = {study.name: study for study in (SMALL, PHASES, CRITERIA, RESIDUAL, RESCALING, IMAGES)}
