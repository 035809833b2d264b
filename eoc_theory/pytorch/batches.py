"""The batch that a user's model is run on: what it is called with, and the targets of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..base import checks
from ..base.isolation import converted, seeded
from ..errors import DataError, ModelError
from ..signals.data import DataSummary, as_data
from .inputs import outputs_of, vector_features
from .lazy import torch
from .loading import Given, gathered
from .losses import IGNORED, Loss, as_loss
from .running import bind_inputs, run_model
from .trace import batch_shape

# Inputs that are shown to the model, to see what it takes and returns.
_PROBE = 2


@dataclass(frozen=True)
class Batch:
    """B examples: ``model(*args, **kwargs)`` gives the outputs that `targets` belong to.

    Attributes:
        args: positional inputs, tensors.
        kwargs: keyword inputs: tensors, and numbers, texts or None that are passed as they are.
        targets: a tensor whose first axis is that of the examples.
        notes: what a result says of how the batch was made.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    targets: Any = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of examples B."""
        return len(self.targets)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All inputs that are tensors."""
        return [t for t in (*self.args, *self.kwargs.values()) if isinstance(t, torch.Tensor)]

    @property
    def inputs(self) -> torch.Tensor:
        """The first input: for shapes and for what takes only one."""
        return self.tensors[0]

    @property
    def nbytes(self) -> int:
        """Memory of the inputs, in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def part(self, chosen: slice | torch.Tensor) -> Batch:
        """Some of the examples; inputs whose first axis is not that of the examples stay whole."""

        def cut(value: torch.Tensor) -> torch.Tensor:
            return value[chosen] if value.ndim and len(value) == self.size else value

        return replace(self._mapped(cut), targets=self.targets[chosen])

    def to(self, device: Any, dtype: Any) -> Batch:
        """The batch on `device`; real numbers in `dtype`, whole numbers and booleans as they are."""

        def move(value: torch.Tensor) -> torch.Tensor:
            return value.detach().to(device=device, dtype=dtype if value.is_floating_point() else value.dtype)

        return replace(self._mapped(move), targets=move(self.targets))

    def call(self, model: Any, name: str = "data (or example_input)") -> Any:
        """What `model` returns for copies of the inputs, which it may overwrite; errors as in `run_model`."""
        copied = self._mapped(lambda value: value.clone())
        return run_model(model, copied.args, name, copied.kwargs)

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        def changed(value: Any) -> Any:
            return change(value) if isinstance(value, torch.Tensor) else value

        kwargs = {name: changed(value) for name, value in self.kwargs.items()}
        return replace(self, args=tuple(map(changed, self.args)), kwargs=kwargs)


def as_batch(
    model: Any,
    data: Any = None,
    example_input: Any = None,
    seed: int = 0,
    loss: Any = "cross_entropy",
    output: Any = None,
) -> Batch:
    """`data` as a batch on the CPU that the model takes, real numbers in double precision.

    Images keep their shape; they are flattened for a model that takes vectors. Whole numbers stay whole where
    the model has an embedding, or takes nothing else; those of other models (pixels) become real.

    Args:
        model: the torch module that will be run.
        data: what `eoc_theory.pytorch.loading.gathered` takes; a `DataSummary`; a `Batch`, which is returned
            as it is; or None: 100 standard normal inputs, or token ids for a model that looks them up, with
            targets that the loss takes.
        example_input: a batch of inputs, of which only the shape counts, or that shape.
        seed: of stand-in inputs and of what is chosen from data sets.
        loss: the loss that targets are checked for, as `as_loss` takes it.
        output: what picks the outputs.

    Raises:
        ArgumentError, DataError, ModelError: data that cannot be read or do not fit the model.
    """
    goal = as_loss(loss, output)
    if isinstance(data, Batch):
        return data
    if data is None or isinstance(data, DataSummary):
        return _stand_in(model, data, example_input, seed, goal)
    given = gathered(data, seed)
    inputs = given.inputs
    features = None
    if inputs is not None and not (_takes_indices(model) and (_whole(inputs) or example_input is None)):
        features = _shape_of(model, inputs, example_input)
    if features is not None and _are_classes(given.targets, goal):
        classes = outputs_of(model)
        summary = as_data(
            (inputs, given.targets), in_features=int(np.prod(features)), classes=classes, seed=seed
        )
        return replace(_of_summary(summary, features), notes=given.notes)
    batch = _checked(model, given, goal)
    return batch if features is None else _reshaped(batch, features)


# --- data that were given


def _shape_of(model: Any, inputs: Any, example_input: Any) -> tuple[int, ...] | None:
    """The shape that inputs are to have; None: their own."""
    if example_input is not None:
        return batch_shape(example_input)[1:]
    features = vector_features(model, inputs)
    return None if features is None else (features,)


def _are_classes(targets: Any, goal: Loss) -> bool:
    """Whether targets are one class number for each input, none ignored, as far as their form tells."""
    if goal.name != "cross_entropy":
        return False
    try:
        values = np.asarray(checks.off_the_graph(targets))
        return values.ndim < 2 and not bool((values == IGNORED).any())
    except Exception:
        return True  # refused with the reason


def _whole(values: Any) -> bool:
    """Whether they are an array or a tensor of whole numbers."""
    try:
        return np.asarray(checks.off_the_graph(values)).dtype.kind in "iub"
    except Exception:
        return False


def _of_summary(summary: DataSummary, shape: tuple[int, ...]) -> Batch:
    inputs = torch.from_numpy(checks.for_torch(summary.inputs)).reshape(-1, *shape)
    return Batch((inputs,), {}, torch.from_numpy(checks.for_torch(summary.targets)))


def _reshaped(batch: Batch, shape: tuple[int, ...]) -> Batch:
    inputs = batch.inputs
    if int(np.prod(inputs.shape[1:])) != int(np.prod(shape)):
        raise DataError(
            f"inputs have {int(np.prod(inputs.shape[1:]))} features, the network takes {int(np.prod(shape))}"
        )
    return replace(batch, args=(inputs.reshape(len(inputs), *shape),))


def _checked(model: Any, given: Given, goal: Loss) -> Batch:
    """The tensors of a batch, checked as far as can be without running the model on all of it."""
    kwargs = {name: _tensor(value, constant=True) for name, value in given.kwargs.items()}
    args = tuple(_tensor(value) for value in given.args)
    batch = Batch(args, kwargs, _tensor(given.targets), given.notes)
    if not batch.tensors:
        raise DataError("data must have an input that is a tensor, got none")
    _check_inputs(batch, _takes_indices(model))
    batch = replace(batch, targets=_checked_targets(batch, goal))
    if not args and len(kwargs) == 1 and not bind_inputs(model, batch.args, kwargs):
        batch = replace(batch, args=tuple(kwargs.values()), kwargs={})
    if all(t.is_floating_point() or t.dtype is torch.bool for t in batch.tensors):
        return _real(batch)
    return _with_whole_numbers(model, batch)


def _tensor(value: Any, constant: bool = False) -> Any:
    if constant and (value is None or isinstance(value, (bool, int, float, str))):
        return value
    try:
        return torch.as_tensor(checks.for_torch(value))
    except Exception:
        shown = checks.shown(value)
        raise DataError(f"data must be (inputs, targets) for this model, got {shown}") from None


def _check_inputs(batch: Batch, looks_up: bool) -> None:
    first = batch.inputs
    for value in batch.tensors:
        ids = not value.is_floating_point() and (looks_up or len(batch.tensors) > 1)
        flat = value is first and value.ndim < (1 if ids else 2) and len(batch.tensors) == 1
        if flat or value.is_complex() or value.is_meta or batch.targets.is_meta:
            raise DataError(
                f"inputs of the data must be real numbers of shape (batch, …), got {value.dtype} of shape "
                f"{tuple(value.shape)}"
                + (" on the meta device" if value.is_meta or batch.targets.is_meta else "")
            )
        if value.is_floating_point() and bool(torch.isnan(value).any()):
            raise DataError("inputs must be finite, got nan or inf")
    # A mask that is added may hold −inf; the one input of a model may not.
    if len(batch.tensors) == 1 and not bool(torch.isfinite(first).all()):
        raise DataError("inputs must be finite, got nan or inf")


def _checked_targets(batch: Batch, goal: Loss) -> torch.Tensor:
    """Targets as whole numbers or in double precision."""
    targets = batch.targets
    size = next((len(t) for t in batch.tensors if t.ndim), 0)
    real = targets.is_floating_point()
    classes = goal.name == "cross_entropy"
    fits = targets.ndim > 0 and len(targets) == size and size > 0 and not targets.is_complex()
    if not fits or (classes and real and targets.ndim == 1):
        kind = "whole numbers" if classes else "numbers"
        raise DataError(
            f"targets must be {kind} of shape ({size},{'' if classes and targets.ndim < 2 else ' …'}), "
            f"got {targets.dtype} of shape {tuple(targets.shape)}"
        )
    if real and not bool(torch.isfinite(targets).all()):
        raise DataError("targets must be finite, got nan or inf")
    if real or goal.name in ("mse", "bce"):
        return targets.double()
    return targets.long()


# --- whole numbers or real ones


def _takes_indices(model: Any) -> bool:
    """Whether the model looks inputs up in a table, so that they must stay whole numbers."""
    nn = torch.nn
    return any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in model.modules())


def _real(batch: Batch, whole: bool = True) -> Batch:
    """Real numbers in double precision; whole numbers too, unless they stay `whole`."""

    def change(value: torch.Tensor) -> torch.Tensor:
        if value.is_floating_point() or not (whole or value.dtype is torch.bool):
            return value.double()
        return value if value.dtype is torch.bool else value.long()

    return batch._mapped(change)


def _with_whole_numbers(model: Any, batch: Batch) -> Batch:
    """Whole numbers as the model takes them: first as they are where it has an embedding or names them."""
    whole_first = bool(batch.kwargs) or _takes_indices(model)
    tried = [_real(batch, whole) for whole in (whole_first, not whole_first)]
    return next((one for one in tried if _runs(model, one)), tried[0])


def _runs(model: Any, batch: Batch) -> bool:
    try:
        _shown(model, batch.part(slice(0, _PROBE)))
    except (DataError, ModelError):
        return False
    return True


def _shown(model: Any, batch: Batch, name: str = "data (or example_input)") -> Any:
    """What a double of the model returns for a small batch."""
    own = next(model.parameters())
    with torch.no_grad(), seeded(0):
        return batch.to(own.device, own.dtype).call(converted(model).model, name)


# --- no data


def _stand_in(model: Any, data: DataSummary | None, example_input: Any, seed: int, goal: Loss) -> Batch:
    """Random inputs of the model's shape with targets of its outputs', or a summary's."""
    if example_input is not None:
        shape = batch_shape(example_input)[1:]
    else:
        features = None if data is not None and _takes_indices(model) else vector_features(model)
        if features is None:
            raise DataError(
                f"data {'None' if data is None else 'of a DataSummary'} needs an example_input for this "
                "model, to know the shape of its inputs"
            )
        shape = (features,)
    size = int(np.prod(shape))
    if data is not None:
        own = data.targets.shape[1] if data.targets.ndim > 1 else 0
        summary = as_data(data, in_features=size, classes=outputs_of(model), seed=seed, tokens=own)
        batch = _of_summary(summary, shape)
        tokens = _takes_indices(model) and len(shape) == 1 and bool((summary.inputs % 1.0 == 0.0).all())
        return replace(batch, args=(batch.inputs.long(),)) if tokens else batch
    vocabulary = _vocabulary(model, shape)
    classes = outputs_of(model) if goal.name == "cross_entropy" and vocabulary is None else None
    if classes is not None:
        return _of_summary(as_data(None, in_features=size, classes=classes, seed=seed), shape)
    batch = _of_summary(as_data(None, in_features=size, classes=1, seed=seed), shape)
    if vocabulary is not None:
        ids = np.random.default_rng([seed, 0x696473]).integers(vocabulary, size=tuple(batch.inputs.shape))
        batch = replace(batch, args=(torch.from_numpy(ids),))
    return replace(batch, targets=_targets(_shape_of_outputs(model, batch, goal), goal, seed))


def _vocabulary(model: Any, shape: tuple[int, ...]) -> int | None:
    """How many ids the embedding has that the inputs go to; None where they go to none as they come."""
    if not _takes_indices(model):
        return None
    twin = converted(model).model
    # No other index that a model makes is this one.
    shown = torch.from_numpy(np.random.default_rng(0).integers(2, size=(_PROBE, *shape)))
    shown = shown.to(next(model.parameters()).device)
    sizes: list[int] = []

    def note(module: Any, args: tuple[Any, ...]) -> None:
        if args and args[0].shape == shown.shape and bool((args[0] == shown).all()):
            sizes.append(module.num_embeddings)

    for module in twin.modules():
        if isinstance(module, (torch.nn.Embedding, torch.nn.EmbeddingBag)):
            module.register_forward_pre_hook(note)
    try:
        with torch.no_grad(), seeded(0):
            run_model(twin, shown)
    except (DataError, ModelError):
        pass
    return min(sizes, default=None)


def _shape_of_outputs(model: Any, batch: Batch, goal: Loss) -> tuple[int, ...]:
    """The shape of the outputs that the loss takes, for the whole batch."""
    few = batch.part(slice(0, _PROBE))
    try:
        returned = _shown(model, replace(few, args=tuple(t * 0 for t in few.args)), "example_input")
    except DataError as error:
        raise ModelError(
            f"example_input must be a batch of inputs that the model takes, tried shape "
            f"{tuple(few.inputs.shape)}: {error}"
        ) from error
    found = goal.outputs(returned).main
    if not isinstance(found, torch.Tensor):
        return (batch.size, 1)
    if found.ndim < 2 or len(found) != _PROBE:
        raise ModelError(f"model must return logits of shape (batch, classes), got {tuple(found.shape)}")
    return (batch.size, *found.shape[1:])


def _targets(shape: tuple[int, ...], goal: Loss, seed: int) -> torch.Tensor:
    """Stand-in targets of outputs of a shape: classes in turn, normal numbers, or labels at random."""
    rng = np.random.default_rng([seed, 0x74617267])
    if goal.name == "mse":
        return torch.from_numpy(rng.standard_normal(shape))
    if goal.name == "bce":
        return torch.from_numpy(rng.integers(2, size=shape).astype(np.float64))
    if len(shape) == 2:
        return torch.arange(shape[0]) % shape[1]
    axis = 1 if len(shape) > 3 else -1
    rest = tuple(np.delete(np.array(shape), axis))
    return torch.from_numpy(rng.integers(shape[axis], size=rest))
