"""Data in the forms that people have: gathered into one batch of arrays or tensors, as they are.

What is read of a data loader, data set or iterable ends with `MOST_EXAMPLES`. Loaders and data sets are read
through doubles of their own, with copies of their random generators: the originals stay as they were.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from ..base import checks
from ..base.isolation import seeded
from ..errors import DataError, EOCError
from ..signals.data import SEVERAL, DataSummary
from .lazy import torch
from .losses import IGNORED

#: Examples that are taken from a data loader, a data set or an iterable. Arrays are taken whole.
MOST_EXAMPLES = 1024
#: Batches that are read at most: some may be empty, or left out for their shape.
_MOST_BATCHES = 4 * MOST_EXAMPLES
#: What targets are called in a dict, the first of these that it has.
_LABELS = ("labels", "label", "targets", "target")


@dataclass(frozen=True)
class Given:
    """A batch as it was given.

    Attributes:
        args: the positional inputs.
        kwargs: the keyword inputs.
        targets: what belongs to them.
        notes: what a result says of how the batch was made.
        sampled: whether it was taken from a loader, data set or iterable.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    targets: Any = None
    notes: tuple[str, ...] = ()
    sampled: bool = False

    @property
    def inputs(self) -> Any:
        """The one positional input; None where there are others."""
        return self.args[0] if len(self.args) == 1 and not self.kwargs else None


def gathered(data: Any, seed: int = 0) -> Given:
    """`data` as one batch.

    Args:
        data: (inputs, targets); (several inputs, targets) with a tuple for the inputs; a dict of keyword
            inputs with "labels"; (dict of keyword inputs, targets); a torch ``DataLoader`` or ``Dataset`` of
            these; an iterable of such batches, or of examples. An iterator is advanced by what is read of it.
        seed: of the choice among a data set's examples, of a loader's order and of augmentation.

    Raises:
        DataError: none of these, or one that fails while it is read.
    """
    if isinstance(data, Given):
        return data
    if isinstance(data, torch.utils.data.DataLoader):
        with seeded(seed):
            return _joined(_walked(_double(data), "the data loader"), "the data loader")
    if isinstance(data, torch.utils.data.Dataset):
        with seeded(seed):
            return _of_set(_double(data), seed)
    if isinstance(data, Mapping) or (isinstance(data, (tuple, list)) and not _holds_batches(data)):
        return _of_batch(data)
    if isinstance(data, Iterable) and not isinstance(
        data, (str, bytes, np.ndarray, torch.Tensor, range, set)
    ):
        with seeded(seed):
            return _joined(_walked(data, "data"), "data")
    raise DataError(
        "data must be (inputs, targets), a dict with labels, a DataLoader, a Dataset or an iterable of "
        f"batches, got {checks.shown(data)}"
    )


def as_pair(data: Any, seed: int = 0) -> Any:
    """`data` as (inputs, targets) for what takes nothing else; None, a `DataSummary` and pairs as they are.

    Raises:
        DataError: data with several inputs, or that cannot be read.
    """
    if not needs_gathering(data):
        return data
    given = gathered(data, seed)
    if given.inputs is None:
        raise DataError(SEVERAL)
    return given.inputs, given.targets


def as_several(data: Any, seed: int = 0) -> tuple[tuple[Any, ...], Mapping[str, Any], Any]:
    """`data` as inputs by position, inputs by name, and targets.

    Raises:
        DataError: data that cannot be read.
    """
    given = gathered(data, seed)
    return given.args, given.kwargs, given.targets


def gathered_once(data: Any, seed: int = 0) -> Any:
    """Data that can be read again: those that may be read only once are gathered."""
    return gathered(data, seed) if needs_gathering(data) else data


def needs_gathering(data: Any) -> bool:
    """Whether data are anything but None, a `DataSummary`, a batch or one pair of (inputs, targets)."""
    if data is None or isinstance(data, DataSummary) or (hasattr(data, "kwargs") and hasattr(data, "part")):
        return False
    pair = isinstance(data, (tuple, list)) and len(data) == 2
    return not pair or _holds_batches(data) or isinstance(data[0], (tuple, Mapping))


# --- one batch


def _of_batch(batch: Any) -> Given:
    """A dict with labels, or inputs and then targets."""
    if isinstance(batch, Mapping):
        return _of_mapping(batch)
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise DataError(f"data must be (inputs, targets) for this model, got {checks.shown(batch)}")
    inputs, targets = batch[0], batch[-1]
    if len(batch) > 2:
        if not all(map(_is_array, batch)):
            raise DataError(f"data must be (inputs, targets) for this model, got {checks.shown(batch)}")
        return Given(tuple(batch[:-1]), {}, targets)
    if isinstance(inputs, Mapping):
        return Given((), dict(inputs), targets)
    if isinstance(inputs, (tuple, list)) and _are_several(inputs, targets):
        return Given(tuple(inputs), {}, targets)
    return Given((inputs,), {}, targets)


def _of_mapping(batch: Mapping[str, Any]) -> Given:
    try:
        entries = {key: batch[key] for key in batch}
    except Exception as error:
        raise DataError(f"data could not be read: {checks.said(error)}") from None
    if not all(isinstance(key, str) for key in entries):
        raise DataError("data must have names of inputs for keys, got others")
    name = next((name for name in _LABELS if name in entries), None)
    if name is None or len(entries) < 2:
        have = ", ".join(map(repr, list(entries)[:8])) or "nothing"
        raise DataError(f"data must have inputs and 'labels' where it is a dict, got {have}")
    targets = entries.pop(name)
    shifted = _next_tokens(entries.get("input_ids"), targets)
    if shifted is None:
        return Given((), entries, targets)
    return Given((), entries, shifted, ("labels equal input_ids: each is compared with the token before it",))


def _next_tokens(ids: Any, labels: Any) -> Any:
    """Labels moved by one where they are the ids themselves, as causal language models are given them."""
    if ids is None or tuple(np.shape(labels)) != tuple(np.shape(ids)) or len(np.shape(ids)) != 2:
        return None
    ids, labels = (np.array(checks.off_the_graph(values)) for values in (ids, labels))
    counted = labels != IGNORED
    if not counted.any() or (ids != labels)[counted].any():
        return None
    moved = np.full_like(labels, IGNORED)
    moved[:, :-1] = labels[:, 1:]
    return moved


def _is_array(value: Any) -> bool:
    """Whether it is an array or a tensor with an axis at least."""
    return bool(getattr(value, "shape", None)) and hasattr(value, "dtype")


def _are_several(inputs: Sequence[Any], targets: Any) -> bool:
    """Whether a sequence is that of several inputs, not of the rows of one."""
    if not inputs or not all(map(_is_array, inputs)):
        return False
    size = len(targets) if hasattr(targets, "__len__") else None
    rows = len(inputs) == size and len({tuple(entry.shape) for entry in inputs}) == 1
    return not rows or (len(inputs[0]) == size and len(inputs[0].shape) > 1)


def _holds_batches(data: Sequence[Any]) -> bool:
    """Whether a sequence is one of batches or examples, not of inputs and targets."""
    if not data or not all(isinstance(entry, (tuple, list, Mapping)) for entry in data):
        return False
    if all(isinstance(entry, Mapping) for entry in data):
        return True
    if not all(isinstance(entry, (tuple, list)) and len(entry) > 1 for entry in data):
        return False
    if len(data) != 2:
        return all(_is_array(entry[0]) or isinstance(entry[0], (tuple, Mapping)) for entry in data)
    # Two: each a batch of inputs with more than one axis, beside targets.
    return all(
        len(entry) == 2 and all(map(_is_array, entry)) and len(entry[0].shape) > 1
        and len(entry[0]) == len(entry[1])
        for entry in data
    )  # fmt: skip


# --- several batches


def _walked(batches: Iterable[Any], what: str) -> Iterator[Any]:
    """What an iterable gives; what it raises is an error of the data."""
    try:
        yield from islice(iter(batches), _MOST_BATCHES)
    except EOCError:
        raise
    except Exception as error:
        raise DataError(f"{what} could not be read: it raised {checks.said(error)}") from error


def _of_set(dataset: Any, seed: int) -> Given:
    """Examples of a data set, chosen at random where it has many."""
    what = "the data set"
    if isinstance(dataset, torch.utils.data.IterableDataset):
        return _joined(_walked(dataset, what), what)
    try:
        size = len(dataset)
    except Exception:
        raise DataError("data must be a Dataset with a length, or an IterableDataset") from None
    if not size:
        raise DataError("data must have examples, got an empty data set")
    chosen = np.arange(size)
    if size > MOST_EXAMPLES:
        # Many sets are in the order of their classes.
        rng = np.random.default_rng([seed, 0x736574])
        chosen = np.sort(rng.choice(size, MOST_EXAMPLES, replace=False))
    given = _joined(_walked((dataset[int(i)] for i in chosen), what), what)
    if size <= MOST_EXAMPLES:
        return given
    note = f"{MOST_EXAMPLES} of the {size} examples of the data set are used, chosen at random"
    return Given(given.args, given.kwargs, given.targets, (*_without_cap(given.notes), note), True)


def _without_cap(notes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(note for note in notes if not note.startswith("the first"))


def _joined(batches: Iterator[Any], what: str) -> Given:
    """One batch of the first `MOST_EXAMPLES` examples of several batches, or of single examples."""
    first = next(batches, None)
    if first is None:
        raise DataError(f"data must have examples, got none of {what}")
    if _is_example(first):
        examples = [first, *islice(batches, MOST_EXAMPLES - 1)]
        notes = (_capped(what),) if len(examples) == MOST_EXAMPLES else ()
        given = _tensors(_of_batch(_collated(examples, what)), what)
        return Given(given.args, given.kwargs, given.targets, given.notes + notes, True)
    parts, size, left_out = [_tensors(_of_batch(first), what)], 0, 0
    size = len(parts[0].targets)
    while size < MOST_EXAMPLES:
        batch = next(batches, None)
        if batch is None:
            break
        part = _tensors(_of_batch(batch), what)
        if _form(part) != _form(parts[0]):
            left_out += 1
            continue
        parts.append(part)
        size += len(part.targets)
    else:
        return _concatenated(parts, (*_left_out(left_out), _capped(what)))
    return _concatenated(parts, _left_out(left_out))


def _left_out(batches: int) -> tuple[str, ...]:
    if not batches:
        return ()
    return (f"{batches} batches whose examples have other shapes than those of the first are left out",)


def _capped(what: str) -> str:
    return f"the first {MOST_EXAMPLES} examples of {what} are used"


def _is_example(item: Any) -> bool:
    """Whether an item is one example: its target is a number by itself."""
    try:
        targets = _of_batch(item).targets
    except DataError:
        return False
    return not isinstance(targets, (str, bytes, Mapping)) and np.ndim(checks.off_the_graph(targets)) == 0


def _collated(examples: list[Any], what: str) -> Any:
    try:
        return torch.utils.data.default_collate(examples)
    except Exception as error:
        raise DataError(
            f"the examples of {what} must be numbers of one shape each: {checks.said(error)}"
        ) from error


def _tensors(given: Given, what: str) -> Given:
    """The same as tensors on this machine; what has no numbers is as it was."""

    def tensor(value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        try:
            return torch.as_tensor(checks.for_torch(value)).detach().cpu()
        except Exception:
            raise DataError(f"the batches of {what} must be of tensors, got {checks.shown(value)}") from None

    targets = tensor(given.targets)
    if not isinstance(targets, torch.Tensor) or not targets.ndim:
        raise DataError(f"the batches of {what} must have targets, got {checks.shown(given.targets)}")
    kwargs = {name: tensor(value) for name, value in given.kwargs.items()}
    return Given(tuple(map(tensor, given.args)), kwargs, targets, given.notes)


def _form(given: Given) -> Any:
    """What must be the same of batches that are joined: all but numbers of examples, and of masked tokens."""
    tokens = _tokens(given)

    def form(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        follows = tokens is not None and value.ndim == 2 and value.shape[1] == tokens
        return "tokens" if follows and not value.is_floating_point() else value.shape[1:], value.dtype

    kwargs = {name: form(value) for name, value in given.kwargs.items()}
    return [form(value) for value in (*given.args, given.targets)], kwargs


def _tokens(given: Given) -> int | None:
    """How many tokens a batch is padded to, where it says which of them are padding."""
    mask = given.kwargs.get("attention_mask")
    return None if mask is None or mask.ndim != 2 else mask.shape[1]


def _concatenated(parts: Sequence[Given], notes: tuple[str, ...]) -> Given:
    """One batch; batches of fewer tokens are padded to the most, with a mask of 0 and ignored labels."""

    def join(values: Sequence[Any], filled: int = 0) -> Any:
        if not isinstance(values[0], torch.Tensor):
            return values[0]
        if len({value.shape[1:] for value in values}) > 1:
            most = max(value.shape[1] for value in values)
            values = [
                torch.nn.functional.pad(value, (0, most - value.shape[1]), value=filled) for value in values
            ]
        return torch.cat(list(values))[:MOST_EXAMPLES]

    first = parts[0]
    return Given(
        tuple(join([part.args[i] for part in parts]) for i in range(len(first.args))),
        {name: join([part.kwargs[name] for part in parts]) for name in first.kwargs},
        join([part.targets for part in parts], IGNORED),
        first.notes + notes,
        True,
    )


# --- doubles


def _double(source: Any) -> Any:
    """A double of a loader or data set, with generators of its own, that reads without worker processes."""
    data = torch.utils.data
    made: dict[int, Any] = {}

    def double(thing: Any) -> Any:
        if id(thing) in made:
            return made[id(thing)]
        if isinstance(thing, torch.Generator):
            new: Any = torch.Generator(thing.device)
            new.set_state(thing.get_state())
        elif (
            isinstance(thing, (np.random.Generator, np.random.RandomState))
            or type(thing).__name__ == "Random"
        ):
            new = copy.deepcopy(thing)
        elif isinstance(thing, (data.DataLoader, data.Dataset, data.Sampler)) and hasattr(thing, "__dict__"):
            try:
                new = object.__new__(type(thing))
            except TypeError:
                return thing
            made[id(thing)] = new
            new.__dict__.update({name: double(value) for name, value in thing.__dict__.items()})
        elif type(thing) is list and any(isinstance(entry, data.Dataset) for entry in thing):
            new = [double(entry) for entry in thing]
        else:
            return thing
        made[id(thing)] = new
        return new

    new = double(source)
    if isinstance(new, data.DataLoader):
        alone = {"num_workers": 0, "timeout": 0, "prefetch_factor": None, "persistent_workers": False}
        new.__dict__.update(alone, pin_memory=False, _iterator=None)
    return new
