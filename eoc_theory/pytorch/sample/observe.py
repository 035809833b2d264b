"""What signals and gradients do in a few networks: their sizes at every layer, tokens and attention.

A network is run forwards and backwards once on a few inputs, with hooks that look at the output of every
module that holds ranked weights. A layer that is never called as a module (the last projection inside of
`torch.nn.MultiheadAttention`) shows the output of the module around it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...base.isolation import converted, seeded
from ...errors import ModelError
from ...propagation.observed import Observed, mean_of
from ..batches import Batch
from ..losses import Loss
from ..models import PrunableWeight
from ..running import backward_pass
from .attention import Attention
from .residual import BranchEnds

Array = np.ndarray

#: Inputs that signals are looked at on.
MOST_INPUTS = 8
#: Networks that are looked at where more are scored.
MOST_NETWORKS = 4


def observe(sampler: Any, networks: int, seed: int) -> Observed:
    """What `networks` networks of a `Sampler` show on its first inputs.

    Raises:
        ModelError: signals or gradients that even double precision does not hold.
    """
    batch = sampler.batch.part(slice(0, MOST_INPUTS))

    def look(index: int) -> Observed:
        model, weights = sampler.source.network([seed, 0x746F7263, index])
        return observed(model, weights, batch, sampler.loss, device=sampler.device, seed=seed)

    return mean_of(sampler.each(look, range(min(networks, MOST_NETWORKS)), batch.size))


def observed(
    model: Any,
    weights: Sequence[PrunableWeight],
    batch: Batch,
    loss: Loss,
    *,
    device: Any = None,
    seed: int = 0,
) -> Observed:
    """What one network shows on a batch; it is run on a double, in the mode it is in.

    Args:
        weights: ranked weights of `model`, for each of which there is one entry of the result's arrays.
    """
    for kind in (torch.float32, torch.float64):
        found = _run(model, weights, batch, loss, device, kind, seed)
        ran = np.isfinite(found.order)
        sizes = np.stack([found.signal[ran], found.gradient[ran]])
        # What is 0 or infinite in single precision may be neither.
        if kind is torch.float64 or (np.isfinite(sizes).all() and (sizes > 0).all()):
            break
    if not np.isfinite(sizes).all():
        raise ModelError("signals or gradients of the model leave the range of double precision")
    return found


def _run(
    model: Any,
    weights: Sequence[PrunableWeight],
    batch: Batch,
    loss: Loss,
    device: Any,
    dtype: Any,
    seed: int,
) -> Observed:
    twin = converted(model, device, dtype)
    double = twin.model
    placed = [
        replace(w, module=twin.of(w.module), holder=None if w.holder is None else twin.of(w.holder))
        for w in weights
    ]
    for weight in placed:
        weight.tensor.requires_grad_(True)
    where = placed[0].tensor.device
    goal, few = loss.placed(where, dtype), batch.to(where, dtype)
    watch = _Watch(double, [w.module for w in placed], few.size)
    with seeded(seed), torch.enable_grad():
        with watch.hooks() as attention:
            returned = few.call(double)
    if attention.seen is not None:
        # Padding is known once attention has run; tokens that nothing attends to are no tokens.
        watch = _Watch(double, [w.module for w in placed], few.size, attention.seen)
        with seeded(seed), torch.enable_grad(), watch.hooks() as attention:
            returned = few.call(double)
    with seeded(seed), torch.enable_grad():
        value = goal.total(goal.outputs(returned), few.targets) / goal.count(few.targets)
        if not value.requires_grad:
            raise ModelError("the loss does not depend on any weight of the model")
        with backward_pass():
            value.backward()
    return watch.found([w.name for w in placed], attention)


class _Seen:
    """The outputs of one module, over all of its calls."""

    def __init__(self, place: int, tokens: Any = None) -> None:
        self._kept = tokens
        self.place, self.square, self.gradient, self.count = place, 0.0, 0.0, 0
        self.tokens: list[float] = []
        self.inputs: list[float] = []

    def output(self, value: Any, size: int, *, has_tokens: bool, features_axis: int) -> None:
        """Note an output, and the gradient that will come to it."""
        self.square += float(value.detach().double().square().sum())
        self.count += value.numel()
        shown = value.detach().movedim(features_axis, -1) if has_tokens else value.detach()
        rows, tokens = as_tokens(shown, size, has_tokens=has_tokens)
        if tokens is not None and tokens.shape[1] > 1:
            kept = self._kept
            fits = kept is not None and kept.shape == tokens.shape[:2]
            self.tokens.append(float(mean_cosine(tokens, kept if fits else None).nanmean()))
        if rows is not None and size > 1:
            self.inputs.append(float(mean_cosine(rows[None])[0]))
        if value.requires_grad:
            value.register_hook(self._note_gradient)

    def _note_gradient(self, gradient: Any) -> None:
        self.gradient += float(gradient.detach().double().square().sum())


class _Watch:
    """Looks at the modules that hold weights while a model runs."""

    def __init__(self, model: Any, holders: Sequence[Any], size: int, tokens: Any = None) -> None:
        """`tokens` says which of each input's are no padding, (B, T); None for all."""
        self._tokens = tokens
        self._model, self._holders, self._size = model, list(holders), size
        self._names = {id(module): name for name, module in model.named_modules()}
        around = [self._around(self._names[id(module)]) for module in holders]
        self._watched = {id(module) for chain in around for module in chain}
        self._chains = around
        self._seen: dict[int, _Seen] = {}
        self._running: list[str] = []
        self._branches = BranchEnds()

    def _around(self, name: str) -> list[Any]:
        """A module and those that hold it, from the inside."""
        parts = name.split(".") if name else []
        return [self._model.get_submodule(".".join(parts[:n])) for n in range(len(parts), -1, -1)]

    @contextmanager
    def hooks(self) -> Iterator[Attention]:
        """Watch until the block ends."""
        attention = Attention(lambda: self._running[-1] if self._running else "")
        with ExitStack() as stack:
            for module in self._model.modules():
                handles = (
                    module.register_forward_pre_hook(self._enter, prepend=True),
                    module.register_forward_hook(self._leave),
                )
                for handle in handles:
                    stack.callback(handle.remove)
            stack.enter_context(self._branches)
            stack.enter_context(attention)
            yield attention

    def _enter(self, module: Any, args: Any) -> None:
        self._running.append(self._names[id(module)])

    def _leave(self, module: Any, args: Any, output: Any) -> None:
        if self._running:
            self._running.pop()
        if id(module) in self._watched:
            value = first_tensor(output)
            if value is not None:
                seen = self._seen.setdefault(id(module), _Seen(len(self._seen), self._tokens))
                convolution = isinstance(module, torch.nn.modules.conv._ConvNd)
                axis = getattr(module, "features_axis", -1)
                seen.output(value, self._size, has_tokens=not convolution, features_axis=axis)
                if any(module is holder for holder in self._holders):
                    self._branches.note(module, value)

    def found(self, names: Sequence[str], attention: Attention) -> Observed:
        """What was seen, for each weight."""
        seen = [
            next((self._seen[id(m)] for m in chain if id(m) in self._seen), None) for chain in self._chains
        ]

        def each(pick: Any) -> Array:
            return np.array([math.nan if one is None or not one.count else pick(one) for one in seen])

        places = sorted({one.place for one in seen if one is not None})
        return Observed(
            signal=each(lambda one: one.square / one.count),
            gradient=each(lambda one: one.gradient / one.count),
            entries=each(lambda one: one.count / self._size),
            order=each(lambda one: places.index(one.place)),
            token_similarity=each(lambda one: np.mean(one.tokens) if one.tokens else math.nan),
            input_similarity=each(lambda one: np.mean(one.inputs) if one.inputs else math.nan),
            attention=attention.names,
            attention_entropy=attention.entropies,
            residual=self._ends(seen),
        )

    def _ends(self, seen: Sequence[_Seen | None]) -> tuple[int, ...]:
        """The last weight of each module that ends a branch of a residual sum."""
        by_module = {
            id(module): one for module in self._model.modules() if (one := self._seen.get(id(module)))
        }
        ends = [by_module[at] for at in self._branches.found if at in by_module]
        last = [
            max(i for i, one in enumerate(seen) if one is end) for end in ends if any(o is end for o in seen)
        ]
        linear = (torch.nn.RNNBase, torch.nn.RNNCellBase)
        return tuple(sorted(i for i in set(last) if not isinstance(self._holders[i], linear)))


def first_tensor(output: Any) -> Any:
    """The first tensor of real numbers in what a module returns, or None."""
    if isinstance(output, torch.Tensor):
        return output if output.is_floating_point() and output.numel() else None
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return next((found for one in output if (found := first_tensor(one)) is not None), None)
    return None


def as_tokens(value: Any, size: int, *, has_tokens: bool = True) -> tuple[Any, Any]:
    """An output as one row for each input (B, N), and as tokens (B, T, C); None for what it is not.

    A token's features come last.

    The inputs come first, or second (as where recurrent layers do not have the batch first), or first with
    parts of each (windows).
    """
    if value.ndim < 2:
        return None, None
    if len(value) != size:
        if value.ndim == 3 and value.shape[1] == size:
            value = value.transpose(0, 1)
        elif len(value) % size:
            return None, None
    rows = value.reshape(size, -1)
    tokens = value.reshape(size, -1, value.shape[-1]) if has_tokens else None
    return rows, tokens


def mean_cosine(vectors: Any, kept: Any = None) -> Any:
    """Mean cosine between two different rows: (…, n, C) → (…).

    Args:
        kept: which rows count, (…, n) of booleans; nan where fewer than two do.
    """
    n = vectors.shape[-2]
    vectors = vectors.double()
    units = vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    if kept is not None:
        units, n = units * kept[..., None], kept.sum(dim=-1).double()
    # |Σ u|² counts every pair twice, and each row with itself.
    return (units.sum(dim=-2).square().sum(dim=-1) - units.square().sum(dim=(-2, -1))) / (n * (n - 1))
