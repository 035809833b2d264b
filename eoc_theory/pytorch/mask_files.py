"""Masks of a pruned model as a safetensors file, which other tools read, and from a model that holds them."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np

from ..base import checks
from ..base.boundary import public
from ..base.whole_files import replacing
from ..errors import ArgumentError, DataError, MissingDependencyError
from .lazy import require_torch, torch
from .models import PrunableWeight, prunable_weights

#: What the file's header says of its content.
FORMAT = {"format": "eoc-theory masks", "version": "1"}


@public
def save_masks(masks: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write masks as a safetensors file: one boolean tensor a layer, under the layer's name.

    Args:
        masks: by layer name, as `PruningMeasurement.masks` and `masks_of` have them: arrays or tensors, true
            (or 1) where a weight is kept.
        path: the file; one that was there is replaced when the new one is complete.

    Raises:
        MissingDependencyError: safetensors is not installed. ArgumentError: masks that are no such dict, or a
            path that cannot be written.
    """
    safetensors = _safetensors()
    arrays = as_masks(masks)
    target = checks.path("path", path)
    if target.is_dir() or not target.parent.is_dir():
        raise ArgumentError(f"path must be a file in a folder that exists, got {checks.shown(str(path))}")
    content = safetensors.numpy.save(arrays, FORMAT)
    with replacing(target) as stream:
        stream.write(content)


@public
def load_masks(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read masks that `save_masks`, or another tool, wrote: boolean arrays by layer name.

    The result is what `prune_` takes. Numbers other than booleans are accepted where they are all 0 or 1.

    Raises:
        MissingDependencyError: safetensors is not installed. ArgumentError: there is no such file. DataError:
            it is no safetensors file, or one of something else than masks.
    """
    safetensors = _safetensors()
    source = checks.path("path", path)
    try:
        content = source.read_bytes()
    except OSError as error:
        raise ArgumentError(f"path {str(source)!r} cannot be read: {error.strerror}") from None
    try:
        arrays = safetensors.numpy.load(content)
    except Exception as error:
        raise DataError(f"path {str(source)!r} is not a safetensors file: {error}") from None
    try:
        return {name: _boolean(name, array) for name, array in sorted(arrays.items())}
    except ArgumentError as error:
        raise DataError(f"path {str(source)!r} holds something else than masks: {error}") from None


@public
def masks_of(model: Any) -> dict[str, np.ndarray]:
    """The masks on a model, by layer name: of `prune_`, of any method of ``torch.nn.utils.prune``, or of
    ``torch.ao.pruning``.

    Args:
        model: a torch module.

    Returns:
        Boolean arrays of the weights' shapes, on the CPU, for each layer that has a mask.

    Raises:
        ArgumentError: no torch module. MissingDependencyError: torch is not installed.
    """
    require_torch()
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    found = {}
    for weight in prunable_weights(model, required=False):
        mask = mask_on(weight)
        if mask is not None:
            found[weight.label] = (mask != 0).cpu().numpy()
    return found


def mask_on(weight: PrunableWeight) -> Any:
    """The mask on a weight, a tensor, or None: also on what a parametrisation makes it from."""
    if weight.holder is None:
        return weight.mask
    # torch.ao.pruning multiplies by the buffer of a parametrisation of its own.
    masks = [weight.holder._buffers.get(f"{weight.parameter.removesuffix('_orig')}_mask")]
    masks += [step._buffers.get("mask") for step in weight.holder.children()]
    found = [mask for mask in masks if mask is not None and mask.shape == weight.tensor.shape]
    return reduce(operator.mul, found) if found else None


def _name(name: Any) -> str:
    if not isinstance(name, str) or name == "__metadata__":
        raise ArgumentError(f"masks must have names of layers as keys, got {checks.shown(name)}")
    return name


def _boolean(name: str, mask: Any) -> np.ndarray:
    if hasattr(mask, "detach"):
        mask = mask.detach().cpu()
    array = np.asarray(mask)
    if array.dtype != np.bool_:
        array = checks.numbers_of(f"masks[{name!r}]", mask, "an array of 0 and 1")
        if not np.all((array == 0) | (array == 1)):
            raise ArgumentError(f"masks[{name!r}] must hold 0 and 1 (or booleans), got other values")
    if array.ndim == 0:
        raise ArgumentError(f"masks[{name!r}] must be an array of 0 and 1, got a single value")
    return np.ascontiguousarray(array != 0)


def as_masks(masks: Any) -> dict[str, np.ndarray]:
    """Boolean arrays by layer name, of arrays or tensors of 0 and 1.

    Raises:
        ArgumentError: no dict of such arrays, or none in it.
    """
    if not isinstance(masks, Mapping) or not masks:
        kind = "an empty dict" if isinstance(masks, Mapping) else type(masks).__name__
        raise ArgumentError(f"masks must be a dict of arrays by layer name, got {kind}")
    return {_name(name): _boolean(name, mask) for name, mask in masks.items()}


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise MissingDependencyError(
            "masks in files need safetensors, which is not installed: pip install 'eoc-theory[safetensors]'"
        ) from None
    return safetensors
