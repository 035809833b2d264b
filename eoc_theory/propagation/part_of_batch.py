"""E[g²] of weights on a whole batch from a part of it, where the gradients of inputs partly cancel.

With attention channels are drawn for some of the inputs. The gradient is a sum over inputs, G_ab = g_a · g_b,
and where tokens have become alike it nearly cancels: what is left of it depends on how many inputs each class
has. So sums of G over pairs of the part are not scaled by numbers of pairs, which would leave a small
difference of large numbers. Different inputs' gradients are alike as far as the loss' gradients by their
logits are, G_ab ≈ κ D_ab with D_ab = δ_a · δ_b, and κ is well known from all pairs of the part. κ Σ D is what
the sum has in common, for the whole batch from its labels; the rest grows as squares add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..signals.data import DataSummary

Array = np.ndarray


@dataclass(frozen=True)
class PartOfBatch:
    """What leads from a part of a batch to the whole of it.

    Attributes:
        labels: classes of the part's inputs, (b,).
        own, whole: how many pairs of inputs of each kind there are, (3,): an input with itself, two others of
            one class, and two of different classes; in the part and in the batch.
        products: D of each kind, (3,).
    """

    labels: Array
    own: Array
    whole: Array
    products: Array

    @classmethod
    def of(
        cls, part: DataSummary, batch: DataSummary, sent: Sequence[Array], *, errors: bool
    ) -> PartOfBatch | None:
        """From the gradients by the part's logits, (classes, b) in each draw.

        None where the part is all, and where tokens have targets of their own.

        Args:
            errors: whether these are softmax − onehot over b, and nothing made of it. Then a class' mean
                probability is one over the number of classes, and D needs the means of p · p' alone.
        """
        if part.size == batch.size or part.targets.ndim > 1:
            return None
        own = pairs_of(part.targets)
        if errors:
            onehot = np.eye(len(sent[0]))[:, part.targets] / part.size
            p = [one + onehot for one in sent]
            (same, other) = _means(p)
            classes = len(sent[0]) * part.size**2
            products = (
                np.array([same, other, other]) + np.array([1.0, 1.0, 0.0]) / part.size**2 - 2.0 / classes
            )
        else:
            products = (
                sum(by_kind(one.T @ one, part.targets) for one in sent) / len(sent) / np.maximum(own, 1.0)
            )
            if own[1] == 0.0:
                products[1] = products[2]
        return cls(part.targets, own, pairs_of(batch.targets), products)

    def growth(self, sums: Array) -> float:
        """E[g²] of the batch's sum over that of the part's, from sums of G over pairs of each kind, (3,)."""
        total = float(sums.sum())
        weights = self.products[1:]
        across = float(self.own[1:] @ weights**2)
        kappa = float(weights @ sums[1:]) / across if across > 0.0 else 0.0
        alone = self.own[0] * self.products[0]
        kappa = min(max(kappa, 0.0), float(sums[0]) / alone if alone > 0.0 else 0.0)
        # What gradients have in common, and what each input's has of its own, of which squares add up.
        common, common_of_all = (max(kappa * float(n @ self.products), 0.0) for n in (self.own, self.whole))
        whole = max(total - common, 0.0) * self.whole[0] / self.own[0] + common_of_all
        return whole / total if total > 0.0 and whole > 0.0 else 1.0


def pairs_of(labels: Array) -> Array:
    """How many pairs of inputs there are of each kind, (3,), as in `PartOfBatch.own`."""
    _, sizes = np.unique(labels, return_counts=True)
    total, alike = float(len(labels)), float((sizes**2).sum())
    return np.array([total, alike - total, total**2 - alike])


def by_kind(products: Array, labels: Array) -> Array:
    """Sums of (b, b) over the pairs of each kind, (3,)."""
    own = float(np.trace(products))
    alike = float(products[labels[:, None] == labels].sum())
    return np.array([own, alike - own, float(products.sum()) - alike])


def _means(p: Sequence[Array]) -> tuple[float, float]:
    """Means of p_a · p_b over a = b, and over a ≠ b, of (classes, b) in several draws."""
    size = p[0].shape[1]
    same = float(np.mean([np.sum(one**2) for one in p]))
    both = float(np.mean([np.sum(one.sum(axis=1) ** 2) for one in p]))
    return same / size, (both - same) / (size * (size - 1.0))
