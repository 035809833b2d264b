"""The batch that scores are computed on, the same for theory and measurement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..base import checks
from ..base.boundary import public
from ..base.result import Result
from ..base.tables import Table, frame
from ..base.typing import DataFrame
from ..base.upward import upward
from ..errors import ArgumentError, DataError, MissingDependencyError
from .parts import InputPart, check_absent, check_parts, check_tokens, joined

#: Size of the stand-in batch where no data are given.
DEFAULT_BATCH = 100
#: Targets of tokens that the loss leaves out, as torch's cross-entropy does.
IGNORED = -100
#: Classes that are shown as text.
MOST_SHOWN = 12
#: Where scikit-learn keeps the digits.
_DIGITS = ("datasets", "data", "digits.csv.gz")


@public
@dataclass(frozen=True, repr=False, eq=False)
class DataSummary(Result):
    """A batch of inputs with its labels.

    Attributes:
        inputs: shape (B, features), float64.
        targets: shape (B,), class numbers 0 … classes−1; or (B, T), one for each of T vectors of logits, of
            which −100 are left out of the loss.
        classes: number of classes.
        synthetic: whether random inputs stand in for data that were not given.
    """

    inputs: np.ndarray
    targets: np.ndarray
    classes: int
    synthetic: bool = False

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            array, kinds = getattr(self, name), "f" if name == "inputs" else "iu"
            if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
                what = "floats" if name == "inputs" else "whole numbers"
                raise DataError(f"{name} must be an array of {what}, got {checks.shown(array)}")
        checks.integer("classes", self.classes, minimum=1)
        if self.inputs.ndim != 2 or not len(self.inputs):
            raise DataError(f"inputs must have shape (batch, features), got {self.inputs.shape}")
        if self.targets.ndim not in (1, 2) or len(self.targets) != len(self.inputs) or not self.targets.size:
            raise DataError(f"targets must have shape ({len(self.inputs)},), got {self.targets.shape}")
        if not np.isfinite(self.inputs).all():
            raise DataError("inputs must be finite, got nan or inf")
        labels = self.targets[self.counted]
        if not labels.size:
            raise DataError(f"targets must not all be {IGNORED}, which the loss leaves out")
        if labels.min() < 0 or labels.max() >= self.classes:
            raise DataError(
                f"targets must be class numbers 0 to {self.classes - 1}, got {labels.min()} to {labels.max()}"
            )

    @property
    def size(self) -> int:
        """Number of inputs B."""
        return len(self.inputs)

    @property
    def counted(self) -> np.ndarray:
        """Which targets are in the loss, of their shape."""
        return (self.targets != IGNORED) | (self.targets.ndim == 1)

    @property
    def kinds(self) -> np.ndarray:
        """Which inputs count as of one class, (B,): with targets for tokens each input is of its own kind."""
        return self.targets if self.targets.ndim == 1 else np.arange(self.size)

    @property
    def covariance(self) -> np.ndarray:
        """Input kernel x_a·x_b / features, shape (B, B)."""
        return self.inputs @ self.inputs.T / self.inputs.shape[1]

    def to_frame(self) -> DataFrame:
        """One row an input: its target, then its features."""
        targets = self.targets.reshape(self.size, -1).T
        names = ["target"] if self.targets.ndim == 1 else [f"target{i}" for i in range(len(targets))]
        features = {f"x{i}": column for i, column in enumerate(self.inputs.T)}
        return frame(dict(zip(names, targets, strict=True)) | features)

    def _headline(self) -> str:
        what = ", random stand-ins" if self.synthetic else ""
        return f"{self.size} inputs of {self.inputs.shape[1]} features in {self.classes} classes{what}"

    def _table(self) -> Table:
        """The classes: how many inputs, and their mean square."""
        present = np.unique(self.targets[self.counted]).tolist()
        shown = present[:MOST_SHOWN]
        rows = []
        for number in shown:
            own = self.inputs[(self.targets.reshape(self.size, -1) == number).any(axis=1)]
            rows.append((str(number), str(len(own)), f"{np.mean(own**2):.4g}"))
        note = "" if len(shown) == self.classes else f"{len(shown)} of {self.classes} classes"
        return Table(("class", "inputs", "mean square"), tuple(rows), note=note)

    def spread_indices(self, size: int) -> np.ndarray:
        """Positions of `size` of the inputs, classes in turn: labels stay as balanced as they were."""
        size = checks.integer("size", size, minimum=0)
        return np.arange(self.size) if size >= self.size else self.in_turn()[:size]

    def in_turn(self) -> np.ndarray:
        """Positions of all inputs, classes in turn."""
        return classes_in_turn(self.kinds)

    def take(self, chosen: np.ndarray) -> DataSummary:
        """The inputs at the positions `chosen`.

        Raises:
            ArgumentError: positions that there are not.
        """
        try:
            chosen = np.asarray(chosen)
            self.targets[chosen]
        except Exception:
            chosen = np.empty(0)
        if chosen.ndim != 1 or not len(chosen) or chosen.dtype.kind not in "iub":
            raise ArgumentError(f"chosen must be positions of the {self.size} inputs, (n,)")
        return DataSummary(self.inputs[chosen], self.targets[chosen], self.classes, self.synthetic)


def classes_in_turn(targets: np.ndarray) -> np.ndarray:
    """Positions of the targets (B,), the first of each class, then the second of each, and so on."""
    rank = np.empty(len(targets), dtype=np.int64)
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label)
        rank[members] = np.arange(len(members))
    return np.lexsort((targets, rank))


def _needs_torch(data: Any) -> bool:
    """Whether data are a loader or data set of torch's, or batches or inputs by name."""
    homes = ("torch.utils.data", "eoc_theory.pytorch")
    of_torch = any(base.__module__.startswith(homes) for base in type(data).__mro__)
    return of_torch or isinstance(data, (Mapping, Iterator)) or _are_batches(data)


def _are_batches(data: Any) -> bool:
    """Whether data are a list of batches, each inputs of more than one axis and targets."""
    return (
        isinstance(data, (list, tuple))
        and len(data) > 0
        and all(isinstance(batch, (list, tuple)) and len(batch) == 2 for batch in data)
        and all(hasattr(part, "shape") for batch in data for part in batch)
        and all(len(inputs.shape) > 1 for inputs, _ in data)
    )


def as_data(
    data: Any,
    *,
    in_features: int,
    classes: int | None,
    seed: int = 0,
    vocabulary: int = 0,
    absent: tuple[int, ...] = (),
    tokens: int = 0,
    stand_in: int = DEFAULT_BATCH,
    parts: Sequence[InputPart] = (),
) -> DataSummary:
    """`data` as a batch that fits a network of `in_features` inputs and `classes` outputs.

    Args:
        data: None (independent standard normal inputs with balanced labels), ``(inputs, targets)`` as arrays
            or tensors with inputs of shape (B, …) flattened to (B, in_features), or a `DataSummary`.
        classes: None: as many as the data have, which must then be given.
        seed: of the stand-in inputs.
        vocabulary: where inputs are token numbers, how many there are; those of a stand-in are uniform.
        absent: token numbers that no input may hold; see `check_absent`.
        tokens: where each of so many tokens has logits, and so a target of its own: targets are (B, tokens),
            those of a stand-in uniform. 0: one vector of logits an input.
        stand_in: size of the batch that stands in.
        parts: of a network with several inputs, what stands in a row of `DataSummary.inputs`. Data are then
            (several inputs, targets), or what else `eoc_theory.pytorch.loading.gathered` takes; masks that
            are not given leave all tokens. Of a summary masks are 1 where tokens count.

    Raises:
        DataError: shapes, labels or values that do not fit.
    """
    if data is None:
        if classes is None:
            raise DataError("data must be given where the number of classes is not known, got None")
        return _random((stand_in, in_features), classes, seed, vocabulary, absent, tokens, parts)
    if parts and not isinstance(data, DataSummary):
        args, named, targets = upward("data=<several inputs>")(data, seed)
        targets = _numbers("targets", targets)
        data = joined(args, named, parts, len(targets) if targets.ndim else 0), targets
    if _needs_torch(data):
        data = upward("data=<of torch>")(data, seed)
    if isinstance(data, DataSummary):
        summary = data
        classes = summary.classes if classes is None else classes
        if summary.classes > classes:
            raise DataError(f"data has {summary.classes} classes, the network {classes} outputs")
        summary = DataSummary(summary.inputs, summary.targets, classes, summary.synthetic)
    else:
        summary = _of_arrays(data, classes)
    wanted = (summary.size, tokens) if tokens else (summary.size,)
    if summary.targets.shape != wanted:
        raise DataError(f"targets must have shape {wanted}, got {summary.targets.shape}")
    if summary.inputs.shape[1] != in_features:
        raise DataError(f"inputs have {summary.inputs.shape[1]} features, the network takes {in_features}")
    if vocabulary:
        check_tokens(summary.inputs, vocabulary)
        check_absent(summary.inputs, absent)
    check_parts(summary.inputs, parts)
    return summary


def _random(
    size: tuple[int, int], classes: int, seed: int, vocabulary: int, absent: tuple[int, ...], tokens: int,
    parts: Sequence[InputPart] = (),
) -> DataSummary:  # fmt: skip
    """A batch that stands in; arguments as of `as_data`."""
    if parts:
        first, *rest = parts
        own = (size[0], first.size)
        drawn = _random(own, classes, seed, first.vocabulary, first.absent, tokens)
        inputs = np.concatenate([drawn.inputs, joined((), {}, rest, size[0])], axis=1)
        return DataSummary(inputs, drawn.targets, classes, synthetic=True)
    checks.memory(
        f"a batch of {size[0]} inputs of {size[1]} features", 16.0 * size[0] * size[1], "smaller inputs"
    )
    if vocabulary:
        known = np.setdiff1d(np.arange(vocabulary), absent)
        ids = np.random.default_rng([seed, 0x696473]).integers(len(known), size=size)
        inputs = known[ids].astype(np.float64)
    else:
        inputs = np.random.default_rng([seed, 0x64617461]).standard_normal(size)
    targets = np.arange(size[0]) % classes
    if tokens:
        targets = np.random.default_rng([seed, 0x746F6B]).integers(classes, size=(size[0], tokens))
    return DataSummary(inputs, targets, classes, synthetic=True)


def _of_arrays(data: Any, classes: int | None) -> DataSummary:
    """``(inputs, targets)`` as plain arrays, checked but for the network's shapes."""
    try:
        inputs, targets = data
    except Exception:
        raise DataError(
            f"data must be None, (inputs, targets) or a DataSummary, got {type(data).__name__}"
        ) from None
    if are_several(inputs):
        raise DataError(SEVERAL)
    inputs = _numbers("inputs", inputs).astype(np.float64, copy=False)
    targets = _numbers("targets", targets)
    if not inputs.ndim or not len(inputs):
        raise DataError(f"inputs must have shape (batch, …), at least one of them, got {inputs.shape}")
    with np.errstate(invalid="ignore"):
        whole = np.array_equal(targets, targets.astype(np.int64))
    if not whole:
        raise DataError(f"targets must be whole class numbers, got {targets.dtype} values")
    labels = targets.astype(np.int64)
    classes = int(labels.max(initial=0)) + 1 if classes is None else classes
    return DataSummary(inputs.reshape(len(inputs), -1), labels, classes)


#: What is said of several inputs where one is described.
SEVERAL = (
    "data must have one input for this, got several, or inputs by name, as an attention mask is: the network "
    "is one that was read with one input (method='sampled' of the model itself takes them)"
)


def are_several(inputs: Any) -> bool:
    """Whether inputs are a tuple of arrays or tensors, as those of a model with a mask are."""
    return isinstance(inputs, tuple) and any(getattr(one, "ndim", 0) > 1 for one in inputs)


def _numbers(name: str, values: Any) -> np.ndarray:
    """An array of real numbers, from tensors without importing torch."""
    try:
        array = np.asarray(checks.off_the_graph(values))
        array = array.astype(np.float64) if array.dtype == object else array
        masked = np.ma.is_masked(values)
    except Exception:  # objects that cannot be looked at among them
        array, masked = None, False
    if masked:
        raise DataError(f"{name} of the data must have all their entries, got a masked array")
    if array is None or array.dtype.kind not in "biuf":
        kind = type(values).__name__ if array is None else f"{array.dtype} values"
        raise DataError(f"{name} of the data must be an array of real numbers, got {kind}")
    return array


def standardise(inputs: np.ndarray) -> np.ndarray:
    """Each feature centred over the set, then one common scale: the mean squared entry becomes 1."""
    centred = inputs - inputs.mean(axis=0)
    return centred / np.sqrt(np.mean(centred**2))


def all_digits() -> tuple[np.ndarray, np.ndarray]:
    """All 1797 digits in their own order, as `digits` gives them: inputs (1797, 64), targets (1797,)."""
    pixels, labels = _digit_set()
    return standardise(pixels), labels.copy()


@public
def digits(n: int = 100, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return `n` images of scikit-learn's embedded 8×8 digits, equally many from each class.

    Every pixel is centred over the whole set, and one scale makes the mean squared entry 1. The images of
    each class are the first of a shuffle under `seed`; classes alternate.

    Returns:
        inputs of shape (n, 64), targets of shape (n,).

    Raises:
        ArgumentError: n < 1 or more than the smallest class allows. MissingDependencyError: no scikit-learn.
    """
    chosen, labels = _choose_digits(n, seed)
    return standardise(_digit_set()[0])[chosen], labels


@public
def digits_images(
    n: int = 100, shape: Sequence[int] = (3, 32, 32), *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of `digits`, enlarged: small pictures with the correlations of large ones.

    The 8×8 pixels are enlarged bilinearly (as ``torch.nn.functional.interpolate`` does with
    align_corners=False: pixel centres keep their place, the border is continued), and every channel holds the
    same picture. Every pixel is centred over the whole set of digits and one scale makes the mean squared
    entry 1.

    Args:
        n: number of images.
        shape: channels, height and width.
        seed: of the choice, as in `digits`.

    Returns:
        inputs of shape (n, *shape), targets of shape (n,).

    Raises:
        ArgumentError, MissingDependencyError: as `digits`; a shape that is not three whole numbers.
    """
    channels, height, width = checks.extents("shape", shape, (3,), "(C, H, W)")
    n = checks.integer("n", n, minimum=1)
    checks.memory(
        f"shape {channels}×{height}×{width}",
        8.0 * height * width * (128 + n * (2 + channels)),
        "smaller images",
    )
    chosen, labels = _choose_digits(n, seed)
    pixels = _digit_set()[0]
    centred = pixels - pixels.mean(axis=0)
    enlarge = np.kron(_bilinear(8, height), _bilinear(8, width))
    # The mean square over all 1797 enlarged images, without making them.
    square = np.mean(((enlarge @ (centred.T @ centred / len(centred))) * enlarge).sum(axis=1))
    images = (centred[chosen] @ enlarge.T / np.sqrt(square)).reshape(-1, 1, height, width)
    return np.repeat(images, channels, axis=1), labels


def _bilinear(size: int, wanted: int) -> np.ndarray:
    """Linear interpolation of `size` values at the centres of `wanted` equal cells, shape (wanted, size)."""
    at = np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)
    low = np.minimum(at.astype(np.int64), size - 2)
    matrix = np.zeros((wanted, size))
    matrix[np.arange(wanted), low] = 1 - (at - low)
    matrix[np.arange(wanted), low + 1] = at - low
    return matrix


@lru_cache(maxsize=1)
def _digit_set() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1797, 64) and labels (1797,) of scikit-learn's digits.

    The file that scikit-learn embeds is read where it is found: importing scikit-learn itself takes longer
    than most of what is done with these images.
    """
    try:
        found = find_spec("sklearn")
        folder = None if found is None else (found.submodule_search_locations or [None])[0]
        if folder is not None:
            table = np.loadtxt(Path(folder, *_DIGITS), delimiter=",", dtype=np.int64)
            return table[:, :-1].astype(np.float64), table[:, -1]
    except (OSError, ValueError):
        pass  # kept in another place or form, by a version to come
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependencyError(
            "data set 'digits' needs scikit-learn: pip install 'eoc-theory[data]'"
        ) from None
    loaded: Any = load_digits()
    return np.asarray(loaded.data, dtype=np.float64), np.asarray(loaded.target, dtype=np.int64)


def _choose_digits(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and labels of `n` images, classes in turn."""
    labels = _digit_set()[1]
    chosen = balanced_choice(labels, n, seed, "digits")
    return chosen, labels[chosen]


def balanced_choice(labels: np.ndarray, n: int, seed: int, name: str) -> np.ndarray:
    """Positions of `n` images of a set: of each class the first of a shuffle, classes in turn."""
    n = checks.integer("n", n, minimum=1)
    order = np.random.default_rng(checks.seed(seed)).permutation(len(labels))
    classes = int(labels.max()) + 1
    members = [order[labels[order] == k] for k in range(classes)]
    per_class = -(-n // classes)
    smallest = min(map(len, members))
    if per_class > smallest:
        raise ArgumentError(f"n must be at most {classes * smallest} for {name}, got {n}")
    return np.stack([m[:per_class] for m in members], axis=1).ravel()[:n]
