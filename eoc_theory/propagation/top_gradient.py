"""The gradient of the mean cross-entropy by logits that are drawn, one vector an input or one a token."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..base.side_by_side import side_by_side
from ..signals.data import DataSummary
from .infinite_width import Cotangent

Array = np.ndarray


def sent_from(
    logits: list[Array], batch: DataSummary, classes: int, tangent: Array | None = None, heat: float = 1.0
) -> list[Array]:
    """The gradient by each draw's logits, (classes, *positions, B) as these; single precision for tokens.

    Logits of every token count each for itself: the loss is the mean over all tokens of all inputs whose
    target is not ignored, as torch's cross-entropy has it.

    Args:
        batch: the inputs that were drawn, with targets (B,) or (B, T).
        tangent: as in `Cotangent`, of vectors alone.
        heat: the temperature that logits are divided by.
    """
    if batch.targets.ndim == 1:
        top = Cotangent(np.zeros((0, 0)), batch.targets, classes, tangent)
        return [top.of(one.T / heat).T for one in logits]
    return side_by_side(_of_tokens(batch, heat), logits)


def _of_tokens(batch: DataSummary, heat: float) -> Callable[[Array], Array]:
    # Of logits (classes, T, B) tokens are in the order of the targets' transpose.
    targets = batch.targets.T.reshape(-1)
    counts = batch.counted.T.reshape(-1)
    counted = np.flatnonzero(counts)

    def sent(logits: Array) -> Array:
        flat = logits.reshape(len(logits), -1)
        flat = (flat - flat.max(axis=0)) / flat.dtype.type(heat)
        np.exp(flat, out=flat)
        flat /= flat.sum(axis=0)
        flat[targets[counted], counted] -= 1.0
        flat[:, ~counts] = 0.0
        return (flat / flat.dtype.type(len(counted))).reshape(logits.shape)

    return sent
