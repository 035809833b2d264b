"""What the loss' gradients by the logits make of E[g²]: in the whole batch, and in one network.

With attention channels are drawn for some of the inputs. The gradient is a sum over inputs, G_ab = g_a · g_b,
and where tokens have become alike it nearly cancels: what is left of it depends on how many inputs each class
has. So sums of G over pairs of the part are not scaled by numbers of pairs, which would leave a small
difference of large numbers. Different inputs' gradients are alike as far as the loss' gradients by their
logits are, G_ab ≈ κ D_ab with D_ab = δ_a · δ_b, and κ is well known from all pairs of the part. κ Σ D is what
the sum has in common, for the whole batch from its labels; the rest grows as squares add up.

Where inputs have become alike, so have their logits, and κ Σ D = κ |Σ δ|² is that of a few classes' logits:
it differs from network to network by more than anything that many channels average out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..signals.data import DataSummary

Array = np.ndarray

#: What is left of a mean square in one network, at least.
_LEAST = 1e-3


@dataclass(frozen=True)
class LogitGradients:
    """What gradients by the logits of a part of a batch, or of all of it, lead to.

    Attributes:
        labels: classes of the part's inputs, (b,).
        own, whole: how many pairs of inputs of each kind there are, (3,): an input with itself, two others of
            one class, and two of different classes; in the part and in the batch.
        draws: D of each kind in each draw of the logits, (R, 3).
    """

    labels: Array
    own: Array
    whole: Array
    draws: Array

    @classmethod
    def of(
        cls, part: DataSummary, batch: DataSummary, sent: Sequence[Array], *, errors: bool
    ) -> LogitGradients | None:
        """From the gradients by the part's logits, (classes, b) in each draw.

        None where tokens have targets of their own.

        Args:
            errors: whether these are softmax − onehot over b, and nothing made of it. Then a class' mean
                probability is one over the number of classes, and D needs the means of p · p' alone.
        """
        if part.targets.ndim > 1:
            return None
        own = pairs_of(part.targets)
        # Of all of a batch D is what it is, and nothing is made of means.
        if errors and part.size < batch.size:
            onehot = np.eye(len(sent[0]))[:, part.targets] / part.size
            means = np.array([_means(one + onehot) for one in sent])
            classes = len(sent[0]) * part.size**2
            draws = means[:, [0, 1, 1]] + np.array([1.0, 1.0, 0.0]) / part.size**2 - 2.0 / classes
        else:
            draws = np.array([by_kind(one.T @ one, part.targets) for one in sent]) / np.maximum(own, 1.0)
            if own[1] == 0.0:
                draws[:, 1] = draws[:, 2]
        return cls(part.targets, own, pairs_of(batch.targets), draws)

    @property
    def is_part(self) -> bool:
        """Whether the batch has more inputs."""
        return bool(self.own[0] < self.whole[0])

    @property
    def products(self) -> Array:
        """D of each kind, (3,)."""
        return self.draws.mean(axis=0)

    def growth(self, sums: Array) -> float:
        """E[g²] of the batch's sum over that of the part's, from sums of G over pairs of each kind, (3,)."""
        if not self.is_part:
            return 1.0
        total = float(sums.sum())
        rest, kappa = self._split(sums)
        whole = rest * self.whole[0] / self.own[0] + max(kappa * float(self.whole @ self.products), 0.0)
        return whole / total if total > 0.0 and whole > 0.0 else 1.0

    def fluctuation(self, sums: Array) -> Array:
        """E[g²] of the batch given each draw of the logits, over its mean, (R,); `sums` as in `growth`.

        It is above 0: of a part of the batch the sum of D over all pairs is known to little more than that.
        """
        rest, kappa = self._split(sums)
        alone = self.draws[:, 0] / self.products[0] if self.products[0] > 0.0 else np.ones(len(self.draws))
        common = np.maximum(kappa * (self.draws @ self.whole), 0.0)
        each = rest * self.whole[0] / self.own[0] * alone + common
        mean = float(each.mean())
        return np.maximum(each / mean, _LEAST) if mean > 0.0 else np.ones(len(each))

    def _split(self, sums: Array) -> tuple[float, float]:
        """What each input's gradient has of its own in the part's sum, and κ."""
        total, products = float(sums.sum()), self.products
        weights = products[1:]
        across = float(self.own[1:] @ weights**2)
        kappa = float(weights @ sums[1:]) / across if across > 0.0 else 0.0
        alone = self.own[0] * products[0]
        kappa = min(max(kappa, 0.0), float(sums[0]) / alone if alone > 0.0 else 0.0)
        return max(total - max(kappa * float(self.own @ products), 0.0), 0.0), kappa


def pairs_of(labels: Array) -> Array:
    """How many pairs of inputs there are of each kind, (3,), as in `LogitGradients.own`."""
    _, sizes = np.unique(labels, return_counts=True)
    total, alike = float(len(labels)), float((sizes**2).sum())
    return np.array([total, alike - total, total**2 - alike])


def by_kind(products: Array, labels: Array) -> Array:
    """Sums of (b, b) over the pairs of each kind, (3,)."""
    own = float(np.trace(products))
    alike = float(products[labels[:, None] == labels].sum())
    return np.array([own, alike - own, float(products.sum()) - alike])


def _means(p: Array) -> tuple[float, float]:
    """Means of p_a · p_b over a = b, and over a ≠ b, of (classes, b)."""
    size = p.shape[1]
    same, both = float(np.sum(p**2)), float(np.sum(p.sum(axis=1) ** 2))
    return same / size, (both - same) / (size * (size - 1.0))
