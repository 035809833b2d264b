"""Gaussian fields over a batch's positions: what the weight layers of an infinitely wide network give.

At infinite width the outputs of a weight layer are independent Gaussian fields over inputs and positions, one
for each channel, and so are, under gradient independence, the gradients that it sends back. Inputs of one
class are taken as exchangeable, and so are classes, but for a scale of each input's own. The joint covariance
of B inputs at P positions, B·P × B·P, then falls into three matrices P × P: one for differences within a
class, one for differences between classes and one for the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..signals.covariance import scaled_root
from ..signals.data import DataSummary

Array = np.ndarray

#: Noise added to a root's diagonal, in units of the mean variance, until Cholesky's method goes through.
JITTERS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
#: Least scale of an input relative to the others'.
LEAST_SCALE = 1e-3


@dataclass(frozen=True)
class Panel:
    """The inputs that fields are drawn for: classes in turn, the same number of each.

    Attributes:
        chosen: positions in the batch, shape (members · classes,): all classes once, all a second time, …
        members: of each class.
        counts: pairs of inputs of each kind in the whole batch: an input with itself, two of one class where
            the panel has such, two others; shape (3,).
    """

    chosen: Array
    members: int
    counts: Array

    @classmethod
    def of(cls, batch: DataSummary, size: int, *, apart: bool = False) -> Panel:
        """About `size` inputs of the batch, at least one of as many classes as that allows.

        With `apart` as many as that, and no two inputs are taken to be alike for their class.
        """
        order = batch.in_turn()
        if apart:
            own, total = order[: min(size, batch.size)], float(batch.size)
            return cls(own, 1, np.array([total, 0.0, total**2 - total]))
        _, sizes = np.unique(batch.kinds, return_counts=True)
        classes, total = len(sizes), float(batch.size)
        alike = float((sizes**2).sum()) - total
        counts = np.array([total, alike, total**2 - total - alike])
        if classes == 1 or alike == 0.0 or size < 2 * classes or sizes.min() < 2:
            # All different inputs are treated as of different classes.
            own = order[: min(size, batch.size)] if classes == 1 else order[: min(size, classes)]
            return cls(own, 1, np.array([total, 0.0, total**2 - total]) if classes == 1 else counts)
        members = min(round(size / classes), int(sizes.min()))
        return cls(order[: members * classes], members, counts)

    @property
    def size(self) -> int:
        """Number of inputs B."""
        return len(self.chosen)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.size // self.members

    @property
    def parts(self) -> int:
        """Matrices that a covariance consists of: the sum's, between classes, within a class."""
        return 1 if self.size == 1 else 2 if self.members == 1 else 3

    def kinds(self, parts: Array) -> Array:
        """Parts (n, P, P) as kernels of each kind of pair, (3, P, P)."""
        if len(parts) == 1:
            return np.concatenate([parts, 0.0 * parts, 0.0 * parts])
        unlike = (parts[0] - parts[1]) / self.size
        between = (parts[1] - parts[-1]) / self.members
        if len(parts) == 2:
            return np.stack([unlike + parts[1], unlike, unlike])
        return np.stack([unlike + between + parts[2], unlike + between, unlike])

    def expand(self, kinds: Array) -> Array:
        """(3,) for each kind of pair as a matrix over the inputs, (B, B)."""
        label = np.arange(self.size) % self.classes
        found = np.where(label[:, None] == label, kinds[1], kinds[2])
        np.fill_diagonal(found, kinds[0])
        return found

    def totals(self, products: Array, scales: Array) -> tuple[float, float]:
        """Σ over pairs of a product (3,) that each kind has, inputs with scales (B,): the panel's, and all.

        Of more inputs than the panel's the scales are as in the panel.
        """
        label = scales.reshape(self.members, self.classes)
        square = float(scales @ scales)
        alike = float((label.sum(axis=0) ** 2).sum()) - square
        sums = np.array([square, alike, float(scales.sum()) ** 2 - square - alike])
        own = self.size * np.array([1.0, self.members - 1.0, self.size - self.members])
        mean = np.divide(sums, own, out=np.zeros(3), where=own > 0)
        if own[1] == 0.0:
            mean[1] = mean[2]
        return float(own @ (mean * products)), float(self.counts @ (mean * products))


@dataclass(frozen=True)
class FieldLaw:
    """The law of one channel's field: Gaussian with these parts of its covariance, times each input's scale.

    Attributes:
        parts: (n, P, P).
        scales: (B,), of mean square 1.
        log_scale: logarithm of a factor of the field that is left out.
    """

    parts: Array
    scales: Array
    log_scale: float = 0.0

    @classmethod
    def estimated(cls, panel: Panel, fields: Sequence[Array], log_scale: float = 0.0) -> FieldLaw:
        """From channels' fields, arrays (channels, P, B)."""
        squares = np.concatenate([np.einsum("cpb,cpb->cb", f, f, dtype=float) / f.shape[1] for f in fields])
        mean = float(squares.mean())
        positions = fields[0].shape[1]
        if not mean > 0.0:
            return cls(np.zeros((panel.parts, positions, positions)), np.ones(panel.size), log_scale)
        scales = _scales(squares / mean)
        factor = (1.0 / (scales * math.sqrt(mean))).astype(fields[0].dtype)
        parts, channels = 0.0, 0
        for field in fields:
            parts = parts + _sums(panel, field * factor)
            channels += len(field)
        counts = np.array([1.0, panel.classes - 1.0, panel.size - panel.classes])[: panel.parts]
        parts = np.asarray(parts) / (channels * counts)[:, None, None]
        return cls(parts, scales, log_scale + 0.5 * math.log(mean))

    def mapped(self, parts: Array) -> FieldLaw:
        """The law with other parts."""
        return replace(self, parts=parts)

    def roots(self) -> Array:
        """Roots of the parts, (n, P, P), single precision."""
        return np.stack([_root(part) for part in self.parts])


def _scales(squares: Array) -> Array:
    """Each input's scale from mean squares of single channels (channels, B), less what is chance."""
    mean = squares.mean(axis=0)
    if len(mean) < 2:
        return np.ones(len(mean))
    # What a channel has in common for all inputs is none of theirs.
    apart = squares - squares.mean(axis=1, keepdims=True)
    chance = float(apart.var(axis=0).mean()) / len(squares)
    observed = float(((mean - 1.0) ** 2).sum()) / (len(mean) - 1)
    kept = max(0.0, 1.0 - chance / observed) if observed > 0.0 else 0.0
    scales = np.sqrt(np.maximum(1.0 + kept * (mean - 1.0), LEAST_SCALE**2))
    return scales / math.sqrt(float(np.mean(scales**2)))


def _sums(panel: Panel, field: Array) -> Array:
    """Σ over channels of the products that the parts are means of, (n, P, P)."""
    channels, positions, _ = field.shape
    means = field.reshape(channels, positions, panel.members, panel.classes).mean(axis=2)
    mean = means.mean(axis=2, keepdims=True)
    found = [panel.size * _product(mean)]
    if panel.parts > 1:
        found.append(panel.members * _product(means - mean))
    if panel.parts > 2:
        found.append(_product(field - np.tile(means, (1, 1, panel.members))))
    return np.stack(found)


def _product(field: Array) -> Array:
    """Σ over channels and inputs of x(p) x(p'), (P, P)."""
    flat = np.ascontiguousarray(field.swapaxes(0, 1)).reshape(field.shape[1], -1)
    return (flat @ flat.T).astype(float)


def draw_field(panel: Panel, law: FieldLaw, roots: Array, channels: int, rng: np.random.Generator) -> Array:
    """Fields of a law but for its `log_scale`, (channels, P, B)."""
    positions = roots.shape[1]
    normals = rng.standard_normal((channels, positions, panel.size), dtype=np.float32)
    if panel.parts == 1:
        field = roots[0] @ normals
    else:
        means = normals.reshape(channels, positions, panel.members, panel.classes).mean(axis=2)
        mean = means.mean(axis=2, keepdims=True)
        field = np.tile(roots[1] @ (means - mean), (1, 1, panel.members)) + roots[0] @ mean
        if panel.parts == 3:
            field += roots[2] @ (normals - np.tile(means, (1, 1, panel.members)))
    field *= law.scales.astype(np.float32)
    return field


def _root(covariance: Array) -> Array:
    """R with R Rᵀ = covariance but for rounding."""
    size = float(np.trace(covariance)) / len(covariance)
    if not size > 0.0:
        return np.zeros(covariance.shape, np.float32)
    if len(covariance) == 1:
        return np.sqrt(covariance).astype(np.float32)
    return scaled_root(covariance / size, size, JITTERS).astype(np.float32)
