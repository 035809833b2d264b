"""How large the scores of attention are, and which weights make queries and keys: seen where they meet.

Nothing is asked of how a model is written. From the scores of one call the graph of automatic differentiation
leads back to the nearest ranked weights on each side. The gradient by these weights says which output units
take part, which tells queries and keys from values in a packed projection. By Euler's theorem it also says
with which power of a common factor of these weights the scores grow: 2 for queries and keys, 1 where one of
them is no product with weights, 0 where they are normalised, so that no scale of weights matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ...base.isolation import converted, seeded
from ...propagation.observed import ScoreScale, as_runs
from ..models import PrunableWeight
from .attention import Attention, open_keys
from .observe import MOST_INPUTS

#: Steps of the graph that are looked back at most, and those from a product to the parameter itself.
_REACH, _NEAR = 512, 8
#: How far the power of the scores may be from a whole number: biases and fixed tables add to them.
_OFF = 0.3


def score_scales(sampler: Any, networks: int, seed: int) -> list[ScoreScale]:
    """The scores of every attention, over `networks` networks of a `Sampler`; none of those that no factor of
    weights changes."""
    batch = sampler.batch.part(slice(0, MOST_INPUTS))

    def look(index: int) -> list[ScoreScale]:
        model, weights = sampler.source.network([seed, 0x746F7263, index])
        return _seen(model, weights, batch, sampler.device, seed)

    found = sampler.each(look, range(networks), batch.size)
    if any([one.weights for one in seen] != [one.weights for one in found[0]] for seen in found):
        return []
    return [
        ScoreScale(math.exp(np.mean([math.log(one.std) for one in same])), same[0].degree, same[0].weights)
        for same in zip(*found, strict=True)
    ]


def _seen(
    model: Any, weights: Sequence[PrunableWeight], batch: Any, device: Any, seed: int
) -> list[ScoreScale]:
    twin = converted(model, device, torch.float32)
    tensors: dict[int, PrunableWeight] = {}
    for weight in weights:
        module = twin.of(weight.module if weight.holder is None else weight.holder)
        tensor = getattr(module, weight.parameter)
        tensor.requires_grad_(True)
        tensors[id(tensor)] = weight
    few = batch.to(next(iter(twin.model.parameters())).device, torch.float32)
    watch = _Scores(tensors)
    with seeded(seed), torch.enable_grad(), watch:
        few.call(twin.model)
    return watch.found


class _Scores(Attention):
    """Notes the scores of each call, and what weights they come from."""

    follows = True

    def __init__(self, weights: dict[int, PrunableWeight]) -> None:
        """`weights` are those that may be multiplied, by the ids of the parameters."""
        super().__init__(lambda: "")
        self._weights = weights
        self.found: list[ScoreScale] = []

    def _note(self, scores: Any) -> None:
        open_ = open_keys(scores)
        keys = open_.sum(dim=-1, keepdim=True)
        several = keys > 1
        held = scores.masked_fill(~open_, 0.0)
        centred = ((held - held.sum(dim=-1, keepdim=True) / keys.clamp_min(1)) * (open_ & several)).double()
        variance = centred.detach().square().sum(dim=-1, keepdim=True) / (keys - 1).clamp_min(1)
        square = float(centred.detach().square().sum())
        if not bool(several.any()) or not 0.0 < square < math.inf:
            return
        nearest = list(dict.fromkeys(_nearest(centred.grad_fn, set(self._weights))))
        tensors = [tensor for tensor in nearest if self._weights[id(tensor)].is_plain]
        if not tensors or len(tensors) < len(nearest):
            return
        gradients = torch.autograd.grad(centred, tensors, centred.detach(), retain_graph=True)
        power = sum(float((t.detach() * g).double().sum()) for t, g in zip(tensors, gradients, strict=True))
        power /= square
        if not math.isfinite(power) or round(power) not in (1, 2) or abs(power - round(power)) > _OFF:
            return
        parts = {}
        for tensor, gradient in zip(tensors, gradients, strict=True):
            weight = self._weights[id(tensor)]
            axis = weight.unit_axes[1]
            moved = gradient.movedim(axis, 0).flatten(1)
            parts[weight.label] = as_runs((moved != 0).any(dim=1).cpu().numpy())
        self.found.append(ScoreScale(math.sqrt(float(variance[several].mean())), round(power), parts))


def _nearest(start: Any, known: set[int]) -> Iterator[Any]:
    """The weights of the products that come last before a step of the graph, on every path back from it."""
    waiting, seen = [start], {start}
    while waiting and len(seen) < _REACH:
        step = waiting.pop(0)
        before = [one for one, _ in step.next_functions if one is not None]
        weights = [
            tensor for one in before if (tensor := _parameter(one)) is not None and id(tensor) in known
        ]
        yield from weights
        for one in [] if weights else before:
            if one not in seen:
                seen.add(one)
                waiting.append(one)


def _parameter(step: Any) -> Any:
    """The parameter that a step takes with nothing but changes of shape, kind or mask between; or None."""
    for _ in range(_NEAR):
        if hasattr(step, "variable"):
            return step.variable
        before = [one for one, _ in step.next_functions if one is not None]
        if len(before) != 1:
            return None
        (step,) = before
    return None
