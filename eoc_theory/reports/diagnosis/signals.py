"""What counts as a problem of signals, gradients, tokens and attention that were seen in sampled networks."""

from __future__ import annotations

import numpy as np

from ...propagation.observed import Observed
from .forecast import SAFE, Outlook

Array = np.ndarray

#: Decades, from the last layer to the first, over which a gradient's squared norm vanishes or explodes.
DECADES = 2.0
#: Fewest layers that have a trend.
FEWEST = 4
#: Mean cosine between the tokens of an input, in most of the last quarter of layers, that makes them alike.
ALIKE = 0.95
#: Entropy of attention, over that of equal weights, under which it has collapsed to single keys.
PEAKED = 0.1


def gradient_trend(signals: Observed) -> float:
    """log₁₀ of what a layer multiplies the gradient's squared norm by in the backward pass, as a robust mean.

    The median over pairs of layers, half the depth or more apart, of the slope between them (after Theil and
    Sen). The norm is over all of an output's entries, which widths and strides leave alone on the edge of
    chaos. 0 for few layers.
    """
    return _trend(np.log10(np.maximum(squared_norm(signals), np.finfo(float).tiny)), signals)


def squared_norm(signals: Observed) -> Array:
    """Squared norm of the gradient by one input's output of each layer, (L,)."""
    return signals.gradient * signals.entries


def signal_trend(signals: Observed) -> float:
    """log₁₀ of what a layer multiplies the signal's mean square by, as `gradient_trend`, forwards."""
    return -_trend(np.log10(np.maximum(signals.signal, np.finfo(float).tiny)), signals)


def _trend(logs: Array, signals: Observed) -> float:
    """Decades a layer, from the last to the first."""
    values = logs[signals.by_depth]
    count = len(values)
    if count < FEWEST:
        return 0.0
    first, second = np.triu_indices(count, k=(count + 1) // 2)
    return -float(np.median((values[second] - values[first]) / (second - first)))


def decades(signals: Observed) -> float:
    """log₁₀ of the gradient's growth from the last layer to the first by its trend."""
    return gradient_trend(signals) * max(len(signals.by_depth) - 1, 0)


def late_similarity(signals: Observed) -> float:
    """Median cosine between tokens over the last quarter of the layers that have them; nan without."""
    order = signals.by_depth
    known = signals.token_similarity[order]
    known = known[np.isfinite(known)]
    return float(np.median(known[-max(1, len(known) // 4) :])) if len(known) else float("nan")


def signal_problems(seen: Outlook, signals: Observed) -> tuple[str, ...]:
    """Causes first, then effects; see `Diagnosis.problems`."""
    found = []
    if len(seen.silent):
        found.append("silent")
    change = decades(signals)
    if abs(change) >= DECADES:
        found.append("vanishing" if change < 0 else "exploding")
    if late_similarity(signals) > ALIKE:
        found.append("rank collapse")
    if len(signals.attention_entropy) and float(signals.attention_entropy.min()) < PEAKED:
        found.append("entropy collapse")
    if seen.collapse_probability >= 0.5:
        found.append("collapse")
    else:
        if seen.collapse_probability >= SAFE:
            found.append("risk")
        if seen.is_starved:
            found.append("starved")
    return tuple(found)


def signal_columns(signals: Observed) -> dict[str, Array]:
    """Columns of a table, one row a layer."""
    return {
        "order": signals.order,
        "signal": signals.signal,
        "gradient": signals.gradient,
        "token_similarity": signals.token_similarity,
        "input_similarity": signals.input_similarity,
    }
