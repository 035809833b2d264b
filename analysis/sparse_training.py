"""Training that stores and multiplies kept weights alone: fully connected networks, on a CPU.

The same trainings as `analysis.training` has in torch, to rounding, in about a tenth of the time at 90 %
removed: the sums are fewer, and none is a call of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from eoc_theory.errors import ArgumentError

from .training import Run, Training

if TYPE_CHECKING:
    import torch

Array = np.ndarray


class SparseRun(Run):
    """A network on its way, as the kept weights of its layers one after the other."""

    def __init__(self, settings: Training, seed: int, model: Any, masks: Mapping[str, torch.Tensor]) -> None:
        from . import _sparse_kernel as kernel

        super().__init__(settings, seed, model, masks)
        if self.device.type != "cpu" or settings.augment:
            raise ArgumentError("sparse training is for a CPU and without augmentation")
        self.kind = _activation(model, kernel)
        kept = [~removed.numpy() for removed in self.removed]
        self.widths = np.array([kept[0].shape[1], *(len(mask) for mask in kept)])
        self.sources = np.concatenate([np.nonzero(mask)[1] for mask in kept])
        self.ends = np.concatenate([[0], np.cumsum(np.concatenate([mask.sum(axis=1) for mask in kept]))])
        layers = [model.get_submodule(name) for name in masks]
        values = [layer.weight.detach().numpy()[mask] for layer, mask in zip(layers, kept, strict=True)]
        self.values = (
            np.concatenate(values),
            np.concatenate([layer.bias.detach().numpy() for layer in layers]),
        )
        self.velocities = np.zeros_like(self.values[0]), np.zeros_like(self.values[1])

    def _learn(self, order: Array, batch: int, rng: np.random.Generator) -> float:
        from ._sparse_kernel import epoch

        settings = self.settings
        clip = np.inf if settings.clip is None else settings.clip
        recipe = (settings.rate(self.epoch), settings.momentum, settings.weight_decay, float(clip))
        inputs, targets = (one.numpy() for one in self.tensors[:2])
        weights, biases = self.values
        losses = epoch(
            self.widths,
            self.ends,
            self.sources,
            weights,
            biases,
            self.velocities,
            self.kind,
            inputs,
            targets,
            order,
            batch,
            recipe,
        )
        return float(losses.mean())

    def _accuracy(self) -> float:
        from ._sparse_kernel import forward

        inputs, targets = (one.numpy() for one in self.tensors[2:])
        signals = np.zeros((len(self.widths), self.widths.max(), len(inputs)), dtype=np.float32)
        signals[0, : self.widths[0]] = inputs.T
        forward(self.widths, self.ends, self.sources, *self.values, self.kind, signals)
        return int((signals[-1, : self.widths[-1]].argmax(axis=0) == targets).sum()) / len(inputs)

    def _revived(self) -> int:
        return 0  # what is removed is not there

    def state(self) -> dict[str, Any]:
        import torch

        parts = (*self.values, *self.velocities)
        return {**super().state(), "parts": [torch.from_numpy(part) for part in parts]}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        super().restore(state)
        if state is not None:
            weights, biases, *velocities = (part.numpy() for part in state["parts"])
            self.values, self.velocities = (weights, biases), (velocities[0], velocities[1])


def _activation(model: Any, kernel: Any) -> int:
    """The kernel's number of the one activation between the layers.

    Raises:
        ArgumentError: the model is no row of Linear layers with ReLU or tanh between them.
    """
    import torch

    leaves = [module for module in model.modules() if not list(module.children())]
    layers, between = leaves[::2], leaves[1::2]
    kinds = {type(module) for module in between}
    known = {torch.nn.ReLU: kernel.RELU, torch.nn.Tanh: kernel.TANH}
    if (
        not all(type(one) is torch.nn.Linear for one in layers)
        or len(kinds) != 1
        or not kinds <= known.keys()
    ):
        raise ArgumentError("sparse training is for fully connected networks of one activation, relu or tanh")
    return known[kinds.pop()]
