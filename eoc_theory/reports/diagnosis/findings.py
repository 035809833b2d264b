"""What counts as a problem of an initialisation, and which of two changes is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ...errors import ModelError
from ...networks.architecture import Architecture
from ...networks.resolve import Network
from .forecast import SAFE, Outlook
from .initialisation import Reading, read, tolerance
from .remedies import Cure

Array = np.ndarray

#: Growth of the variance through residual blocks that counts as exploding.
EXPLOSION = 100.0
#: Deviation of χ from 1 that counts where an activation has no edge of chaos to compare σ_w with.
CHI_TOLERANCE = 0.05


def off_edge(net: Architecture, reading: Reading, seen: Outlook) -> Array:
    """Layers whose scale matters and is not that of the edge of chaos, shape (L,).

    Through σ_w, which does not depend on the inputs; through χ where an activation has no critical point.
    """
    by_scale = _off_by_scale(net, reading, seen.sigma_w)
    with np.errstate(invalid="ignore"):
        by_chi = np.abs(seen.chi - 1.0) > CHI_TOLERANCE
    return reading.scaled & np.where(np.isfinite(reading.edge), by_scale, by_chi)


def is_off_edge(net: Architecture) -> bool:
    """Whether σ_w matters in some layer and is not that of the edge of chaos, by the weights alone."""
    reading = read(net)
    scales = np.array([layer.sigma_w for layer in net])
    return bool((reading.scaled & _off_by_scale(net, reading, scales)).any())


def _off_by_scale(net: Architecture, reading: Reading, sigma_w: Array) -> Array:
    """Whether each σ_w is not that of the edge of chaos; not where there is no such point."""
    near = np.array([tolerance(layer) for layer in net])
    with np.errstate(invalid="ignore"):
        return np.abs(sigma_w / reading.edge - 1.0) > near


def phase(seen: Outlook, off: Array) -> str:
    """ "ordered", "critical" or "chaotic": the mean of log χ over the layers that are off the edge."""
    told = seen.chi[off & (seen.chi > 0)]
    if not len(told):
        return "critical"
    return "ordered" if float(np.log(told).mean()) < 0.0 else "chaotic"


def is_exploding(reading: Reading, seen: Outlook) -> bool:
    """Whether the variance grows through residual blocks that nothing scales down."""
    return bool(reading.joins) and growth(seen) > EXPLOSION


def growth(seen: Outlook) -> float:
    """Largest variance of pre-activations over that of the first layer's."""
    return float(seen.q.max() / max(float(seen.q[0]), np.finfo(float).tiny))


def problems(reading: Reading, seen: Outlook, off: Array, *, helped: bool) -> tuple[str, ...]:
    """Causes first, then effects; see `Diagnosis.problems`."""
    effects = []
    if seen.collapse_probability >= 0.5:
        effects.append("collapse")
    elif seen.collapse_probability >= SAFE:
        effects.append("risk")
    if seen.is_starved and "collapse" not in effects:
        effects.append("starved")
    causes = []
    if len(seen.silent):
        causes.append("silent")
    if is_exploding(reading, seen):
        causes.append("exploding")
    # Residual networks are well conditioned at every scale (Hayou et al. 2021, on residual networks).
    # Where most layers are normalised, the scale of the few others is not what matters.
    side = phase(seen, off) if 2 * reading.scaled.sum() > reading.hidden.sum() else "critical"
    if side != "critical" and not reading.joins and (effects or helped):
        causes.append(side)
    return (*causes, *effects)


def best(
    before: Outlook, reading: Reading, candidates: Sequence[Cure], predict: Callable[[Network], Outlook]
) -> tuple[Cure | None, Outlook | None]:
    """The first change after which nothing is wrong, else the one that helps most; None where none helps."""
    chosen: tuple[Cure | None, Outlook | None] = (None, None)
    least = before
    harmless = before.is_fine and not is_exploding(reading, before)
    # Where nothing needs a cure, the most natural change alone is worth the time of a prediction.
    for cure in candidates[: 1 if harmless else None]:
        try:
            after = predict(cure.net)
        except ModelError:
            # After which nothing is left to rank, as without biases on inputs of 0, is no cure.
            continue
        calmed = is_exploding(reading, before) and not is_exploding(reading, after)
        if is_better(after, least) or (calmed and (after.is_fine or not is_better(least, after))):
            chosen, least = (cure, after), after
        if after is least and after.is_fine and not is_exploding(reading, after):
            break
    return chosen


def is_better(one: Outlook, other: Outlook) -> bool:
    """Whether more layers have scores, or collapse is less likely, or comes at a higher sparsity."""
    if len(one.silent) != len(other.silent):
        return len(one.silent) < len(other.silent)
    gain = other.collapse_probability - one.collapse_probability
    if abs(gain) > SAFE:
        return gain > 0.0
    left = [max(1.0 - seen.critical_sparsity, 1e-12) for seen in (one, other)]
    # Within a tenth of a decade of what is left, two critical sparsities cannot be told apart.
    return math.log10(left[1] / left[0]) > 0.1
