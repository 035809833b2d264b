"""Which weights of a model are ranked: those that the loss depends on, less what the user excludes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ..base import checks
from ..base.isolation import RandomStates, converted, seeded
from ..errors import ArgumentError, ModelError
from .lazy import torch
from .losses import as_loss
from .models import PrunableWeight, prunable_weights
from .running import backward_pass

if TYPE_CHECKING:
    from .batches import Batch
    from .losses import Loss

#: Examples that the model is run on to see what it uses: more where these leave some of its weights out, as
#: experts that no example is sent to; and bytes that automatic differentiation may keep of them.
_FEW, _MORE, _MOST_BYTES = 2, (32, 256), 2**29
#: Entries of `exclude`, at most.
_MOST_EXCLUDED = 10_000
#: Layers that a note names one by one.
_NAMED = 3


@dataclass(frozen=True)
class Ranked:
    """The weights that are ranked, and what a run of the model shows of its cost.

    Attributes:
        weights: in the order of the model's modules or, where the model was run, in which it takes them.
        notes: layers that are not ranked, and why.
        multiplications: of one input's forward pass; 0 where the model was not run.
        held: bytes that automatic differentiation keeps of one input; 0 where the model was not run.
        draws: whether the model draws random numbers, as dropout does.
    """

    weights: list[PrunableWeight]
    notes: tuple[str, ...] = ()
    multiplications: float = 0.0
    held: float = 0.0
    draws: bool = False


def ranked_weights(
    model: Any, batch: Batch | None = None, loss: Loss | None = None, exclude: Any = ()
) -> Ranked:
    """The weights that pruning ranks, `prunable_weights` where no batch shows what the model does with them.

    With a batch a double of the model is run on some of its examples, forwards and backwards: own parameters
    of the user's modules count where they enter products, and layers on which the loss does not depend do
    not.

    Args:
        exclude: names of layers or of modules that hold them, patterns of names ("blocks.*.mlp.fc1"), or
            modules: their weights are not ranked.

    Raises:
        ArgumentError: an entry of `exclude` that matches nothing. ModelError: nothing is left to rank.
    """
    found = Ranked(prunable_weights(model)) if batch is None else _seen(model, batch, loss)
    return _without(model, found, exclude)


def _seen(model: Any, batch: Batch, loss: Loss | None) -> Ranked:
    """What a forward and a backward pass of few examples show, or of more where some weights are not used."""
    found = _seen_on(model, batch, loss, _FEW)
    for count in _MORE:
        if not found.notes or batch.size <= _FEW or count * found.held > _MOST_BYTES:
            break
        found = _seen_on(model, batch, loss, count)
    return found


def _seen_on(model: Any, batch: Batch, loss: Loss | None, count: int) -> Ranked:
    """What a forward and a backward pass of `count` examples show."""
    from .products import ForwardWatch, has_candidates, product_parameters

    goal = as_loss() if loss is None else loss
    twin = converted(model)
    double = twin.model
    for parameter in double.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    own = next(double.parameters())
    few = batch.part(slice(0, count)).to(own.device, own.dtype if own.is_floating_point() else None)
    returned: list[Any] = []
    products: frozenset[int] = frozenset()
    with seeded(0), torch.enable_grad():
        if has_candidates(double, prunable_weights(double, required=False)):
            products = product_parameters(double, lambda: few.call(double))
        weights = prunable_weights(double, products)
        kept, watch = _Kept(double), ForwardWatch(double)
        states = RandomStates()
        with watch, torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
            returned.append(few.call(double))
        draws, weights = not states.same(), watch.sorted(weights)
        value = goal.placed(own.device, own.dtype).total(goal.outputs(returned.pop()), few.targets)
        if not value.requires_grad:
            raise ModelError("the loss does not depend on any weight of the model")
        with backward_pass():
            gradients = torch.autograd.grad(value, [w.tensor for w in weights], allow_unused=True)
    unused = [w.name for w, g in zip(weights, gradients, strict=True) if g is None]
    ranked = [
        replace(
            weight,
            module=twin.original(weight.module),
            holder=None if weight.holder is None else twin.original(weight.holder),
        )
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None
    ]
    if not ranked:
        raise ModelError("the loss does not depend on any weight of the model")
    notes = (f"not counted, for the loss does not depend on it: {_some(unused)}",) if unused else ()
    size = max(few.size, 1)
    return Ranked(ranked, notes, watch.flops / 2.0 / size, kept.bytes / size, draws)


class _Kept:
    """Adds up what automatic differentiation keeps, but for the parameters."""

    def __init__(self, model: Any) -> None:
        self._seen = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.bytes = 0

    def note(self, tensor: Any) -> Any:
        """A hook for saved tensors."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def _without(model: Any, found: Ranked, exclude: Any) -> Ranked:
    entries = _entries(exclude)
    if not entries:
        return found
    names = {id(module): name for name, module in model.named_modules()}
    left, gone = list(found.weights), []
    for entry in entries:
        matched = [weight for weight in found.weights if _matches(entry, weight, names)]
        if not matched:
            shown = checks.shown(entry) if isinstance(entry, str) else type(entry).__name__
            known = _some([w.name for w in found.weights])
            raise ArgumentError(f"exclude must name layers of the model ({known}), got {shown}")
        gone += [weight.name for weight in matched if weight in left]
        left = [weight for weight in left if weight not in matched]
    if not left:
        raise ModelError("exclude leaves no layer to prune")
    return replace(found, weights=left, notes=(*found.notes, f"excluded: {_some(gone)}"))


def _entries(exclude: Any) -> Sequence[Any]:
    if isinstance(exclude, (str, torch.nn.Module)):
        return (exclude,)
    entries = checks.items("exclude", exclude, "names or modules", _MOST_EXCLUDED)
    for entry in entries:
        if not isinstance(entry, (str, torch.nn.Module)):
            raise ArgumentError(f"exclude must hold names or modules, got {checks.shown(entry)}")
    return entries


def _matches(entry: Any, weight: PrunableWeight, names: dict[int, str]) -> bool:
    if not isinstance(entry, str):
        return any(module is weight.module for module in entry.modules())
    path = names[id(weight.module)]
    parents = [path[:at] for at, letter in enumerate(path) if letter == "."]
    return any(fnmatchcase(name, entry) for name in (weight.name, path, *parents))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
