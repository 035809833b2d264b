"""What a study's trainings cost, before any is begun: weights, operations, hours of one GPU."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eoc_theory.networks.architecture import Architecture
from eoc_theory.signals.datasets import SETS

from .study import Batch, Network, Study, Task
from .training import DIGITS, DIGITS_TEST

#: Training images of the published sets.
TRAINING_IMAGES = {
    "mnist": 60_000, "fashion-mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000,
    "tiny-imagenet": 100_000, "digits": DIGITS - DIGITS_TEST,
}  # fmt: skip
#: Operations a second that small convolutional networks sustain in bfloat16 on one data-centre GPU: a guess,
#: a fifteenth of the 312·10¹² that an A100 has at its peak, and no measurement. Half as many for float32.
SUSTAINED = 2e13
#: Seconds that a weight layer takes in a step at least: ten kernels of five microseconds.
LAUNCHES = 5e-5
#: A step forwards and backwards is three passes, an operation a multiplication or an addition.
_PASSES, _OPERATIONS = 3, 2


@dataclass(frozen=True)
class Estimate:
    """The trainings of one network on one data set.

    Attributes:
        network, data: which.
        trainings: how many.
        weights: of the network.
        operations: of all trainings, dense, additions and multiplications alike.
        hours: of one GPU.
    """

    network: Network
    data: str
    trainings: int
    weights: int
    operations: float
    hours: float


def multiplications(net: Architecture) -> np.ndarray:
    """Of each weight layer on one input: its weights times the positions of its output, (L,)."""
    if net.graph is None:
        return net.weights.astype(float)
    positions = {
        node.layer.name: math.prod(shape.space)
        for node, shape in zip(net.graph.nodes, net.graph.shapes, strict=True)
    }
    return np.array([layer.n_weights * positions[layer.name] for layer in net.layers], dtype=float)


def estimates(study: Study, without: Iterable[tuple[str, int]] = ()) -> list[Estimate]:
    """One for each network and data set that is trained, in the study's order, these tasks left out."""
    done = set(without)
    groups: dict[tuple[Network, Batch], list[Task]] = {}
    for task in study.tasks():
        if task.measure.name == "training" and task.key not in done:
            groups.setdefault((task.network, task.batch), []).append(task)
    found = []
    for (network, batch), tasks in groups.items():
        weights, layers, cost = _size(network, batch)
        operations = seconds = 0.0
        for task in tasks:
            settings = dict(task.measure.settings)
            seen = float(settings["epochs"] * (settings["images"] or TRAINING_IMAGES[task.batch.name]))
            work = cost * _PASSES * _OPERATIONS * seen
            rate = SUSTAINED if settings["mixed"] else SUSTAINED / 2.0
            operations += work
            seconds += max(work / rate, layers * LAUNCHES * seen / settings["batch"])
        found.append(Estimate(network, batch.name, len(tasks), weights, operations, seconds / 3600.0))
    return found


@lru_cache(maxsize=64)
def _size(network: Network, batch: Batch) -> tuple[int, int, float]:
    """Weights, weight layers, and multiplications on one image."""
    shape = batch.image
    if network.kind == "mlp":
        shape = (64,) if batch.name not in SETS else (math.prod(shape),)
    net = network.build(shape, batch.classes)
    return net.n_weights, net.depth, float(multiplications(net).sum())
