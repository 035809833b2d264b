"""What tables call a layer of a torch model."""

from __future__ import annotations

from typing import Any

import torch

from ..models import PrunableWeight

_BATCH_NORMS = torch.nn.modules.batchnorm._BatchNorm


def kind_of(weight: PrunableWeight) -> str:
    """ "Linear", "Conv 3x3 /2 depthwise", or the class of the module."""
    module = weight.module
    if not isinstance(module, torch.nn.modules.conv._ConvNd):
        return "Linear" if isinstance(module, torch.nn.Linear) else type(module).__name__
    name = "ConvTranspose " if module.transposed else "Conv "
    name += "x".join(map(str, module.kernel_size))
    if max(module.stride) > 1:
        name += " /" + "x".join(map(str, sorted(set(module.stride))))
    if module.groups > 1:
        depthwise = module.groups == module.in_channels
        name += " depthwise" if depthwise else f" in {module.groups} groups"
    return name


def batch_norm_counts(model: Any) -> tuple[int, int]:
    """How many batch normalisations use the batch's own statistics, and how many running ones."""
    modes = [m.training or m.running_mean is None for m in model.modules() if isinstance(m, _BATCH_NORMS)]
    return sum(modes), len(modes) - sum(modes)
