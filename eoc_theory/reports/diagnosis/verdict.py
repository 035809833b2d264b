"""The verdict: a few sentences in plain English, each made from the numbers of the diagnosis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...base.formatting import equals, probability, sparsity
from .findings import growth, is_exploding
from .forecast import SAFE, STARVED, Outlook
from .initialisation import (
    EDGE,
    KAIMING,
    KAIMING_OUT,
    LECUN,
    ORTHOGONAL,
    PYTORCH,
    XAVIER,
)

if TYPE_CHECKING:
    from .diagnosis import Diagnosis

Array = np.ndarray

#: Headings of what to set instead: where it mends what is wrong, and where it only does something.
CURE, HELP = "The cure", "What helps"
#: Layers that a sentence names one by one.
NAMED = 3

_PHRASES = {
    PYTORCH: "PyTorch's default initialisation (uniform weights, σ_w² = 1/3)",
    KAIMING: "Kaiming's initialisation (σ_w² = 2)",
    KAIMING_OUT: "Kaiming's initialisation by fan_out",
    XAVIER: "Xavier's initialisation",
    LECUN: "LeCun's initialisation (σ_w = 1)",
    ORTHOGONAL: "Orthogonal initialisation (σ_w = 1)",
}


def paragraphs(found: Diagnosis, *, named: bool = True) -> list[tuple[str, str]]:
    """Heading and text: the initialisation, what pruning does to it, the cure, what the numbers hold for.

    Without `named` the cure's steps are left out, for places that list them separately.
    """
    parts = [
        ("The initialisation", [_opening(found), *_state(found), _moments(found)]),
        ("What pruning does to it", pruning_sentences(found)),
        (CURE if _is_cured(found) else HELP, _cure(found, named)),
        ("What this holds for", _conditions(found)),
    ]
    return joined(parts)


def joined(parts: Sequence[tuple[str, Iterable[str]]]) -> list[tuple[str, str]]:
    """Headings and their sentences as text, those without a sentence left out."""
    told = [(heading, " ".join(part for part in said if part)) for heading, said in parts]
    return [(heading, text) for heading, text in told if text]


def _opening(found: Diagnosis) -> str:
    if found.problems:
        return ""
    if found.off.any():
        return "Not critical, but harmless at this depth and sparsity."
    return "Nothing is wrong with this initialisation."


# --- the initialisation -------------------------------------------------------------------------------------


def _state(found: Diagnosis) -> list[str]:
    reading = found.reading
    if len(found.layers) == 1:
        return ["With a single weight layer no scale is critical."]
    if not reading.hidden.any():
        return ["No activation stands between the layers, so no scale is critical."]
    said = [_normalisation(found)]
    if reading.scaled.any():
        said.append(_scales(found))
    if reading.joins:
        said.append(_blocks(found))
    return said


def _normalisation(found: Diagnosis) -> str:
    normalised = int(found.reading.normalised.sum())
    if not normalised:
        return ""
    which = (
        f"The {normalised} layers that a normalisation follows"
        if normalised > 1
        else "The layer that a normalisation follows"
    )
    several = normalised > 1
    return f"{which} {'have' if several else 'has'} no scale to set: it is divided out again."


def _scales(found: Diagnosis) -> str:
    scaled, off = found.reading.scaled, found.off
    acts = _listed(sorted({found.activations[i] for i in np.flatnonzero(scaled)}))
    count, total = int(off.sum()), int(scaled.sum())
    if not count:
        return _on_the_edge(found, acts)
    critical = np.isfinite(found.sigma_w_edge)
    if not critical[scaled].any():
        return (
            f"{_initialisation(found, off)} with {acts}: {_chi(found, scaled)}. No scale is critical: "
            f"{acts} has no edge of chaos at these biases."
        )
    if 2 * count > total:
        return f"{_initialisation(found, off)} {_side(found, acts)} {_chi(found, off)}."
    named = [
        f"layer {found.layers[i]} (σ_w = {found.sigma_w[i]:.3g}, on the edge {found.sigma_w_edge[i]:.4g})"
        for i in np.flatnonzero(off)[:NAMED]
    ]
    more = f" and {count - NAMED} more" if count > NAMED else ""
    verb = "is" if count == 1 else "are"
    return f"{count} of {total} layers {verb} off the edge of chaos: {', '.join(named)}{more}."


def _side(found: Diagnosis, acts: str) -> str:
    """ "is ordered for relu", where, and what that is measured by."""
    off, normalised = found.off, found.reading.normalised
    count, total = int(off.sum()), int(found.reading.scaled.sum())
    if normalised.any():
        few = ", ".join(found.layers[i] for i in np.flatnonzero(off)[:NAMED])
        layers = f"layer {few}" if count == 1 else f"{count} layers ({few}{', …' if count > NAMED else ''})"
        where = f" in {layers}, which no normalisation follows"
    else:
        where = "" if count == total else f" in {count} of {total} layers"
    if found.reading.joins:
        return (
            f"is off the edge of chaos of {acts}{where}, which a network with residual sums tolerates "
            "better than a plain one; there χ is 1, here"
        )
    return f"is {found.phase} for {acts}{where}; the edge of chaos has χ = 1, here"


def _on_the_edge(found: Diagnosis, acts: str) -> str:
    scaled = found.reading.scaled
    values = found.sigma_w[scaled]
    low, high = float(values.min()), float(values.max())
    shown = f"{np.median(values):.3f}" if high / low < 1.05 else f"{low:.3f} to {high:.3f}"
    kaiming = all(
        found.laws[i] == "normal" and abs(values[k] / np.sqrt(2) - 1) < 0.05
        for k, i in enumerate(np.flatnonzero(scaled))
    )
    also = ", which is Kaiming's initialisation" if kaiming else ""
    return f"The weights are on the edge of chaos of {acts} (σ_w = {shown}, {_chi(found, scaled)}){also}."


def _initialisation(found: Diagnosis, layers: Array) -> str:
    """The name that the layers' scales go by, or the scales themselves."""
    positions = np.flatnonzero(layers)
    names = Counter(found.reading.names[i] for i in positions)
    name, count = names.most_common(1)[0]
    if name and name != EDGE and count > 0.5 * len(positions):
        return _PHRASES[name]
    values = found.sigma_w[positions]
    low, high = float(values.min()), float(values.max())
    std = values / np.sqrt(found.fan_in[positions])
    laws = _listed(sorted({found.laws[i] for i in positions}))
    if high / low < 1.05:
        return f"This initialisation ({laws} weights, σ_w = {np.median(values):.3g})"
    if std.max() / std.min() < 1.05:
        return (
            f"One standard deviation of {np.median(std):.3g} for the weights of every layer "
            f"(σ_w from {low:.3g} to {high:.3g})"
        )
    return f"This initialisation ({laws} weights, σ_w from {low:.3g} to {high:.3g})"


def _chi(found: Diagnosis, layers: Array) -> str:
    """χ of these layers: one number where they agree, else from where to where."""
    chi = found.chi[layers & (found.chi > 0)]
    if not len(chi):
        return "χ = 0"
    low, high = float(chi.min()), float(chi.max())
    if high < 1.1 * low + 0.01:
        return f"χ = {_short(float(np.exp(np.log(chi).mean())))}"
    return f"χ from {_short(low)} to {_short(high)}"


def _short(value: float) -> str:
    return f"{value:.2f}" if 0.095 <= value < 100.0 else f"{value:.2g}"


def _blocks(found: Diagnosis) -> str:
    count = len(found.reading.joins)
    scales = [abs(join.scale) for join in found.reading.joins]
    rise = growth(found.before)
    if is_exploding(found.reading, found.before):
        return (
            f"The {count} residual blocks make the variance explode: it grows by a factor of {_times(rise)} "
            "from the first layer to the largest, and gradients as much in the backward pass."
        )
    how = "" if min(scales) >= 1.0 else f", with branches scaled by {_range(min(scales), max(scales))},"
    blocks = "The residual block" if count == 1 else f"The {count} residual blocks"
    grown = f"it grows {_times(rise)}-fold" if rise >= 1.5 else "it hardly grows"
    return f"{blocks}{how} {'keeps' if count == 1 else 'keep'} the variance in bounds: {grown}."


def _times(value: float) -> str:
    """A factor in two digits."""
    return (
        f"{float(f'{value:.2g}'):,.10g}"
        if value < 1e5
        else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    )


def _moments(found: Diagnosis) -> str:
    """How far apart the layers' scores are, where that is the trouble."""
    before = found.before
    if not found.problems or before.span < 1.0:
        return ""
    least, most = (found.layers[int(at(before.log10_moment))] for at in (np.nanargmin, np.nanargmax))
    said = (
        f"The scores' second moment spans {_decades(before)} decades from layer to layer, smallest in layer "
        f"{least} and largest in layer {most}."
    )
    normalised = before.log10_moment[found.reading.normalised & np.isfinite(before.log10_moment)]
    if found.reading.batch_norms[0] and not found.reading.joins and len(normalised) > 2:
        rise = float(normalised[0] - normalised[-1])
        if rise > 1.0:
            # Yang et al. 2019: whatever the weights' scale, and for every activation.
            said += (
                f" Over the normalised layers they grow by {rise:.1f} decades towards the input, and no "
                "scale changes that: batch normalisation makes gradients explode."
            )
    return said


def _decades(seen: Outlook) -> str:
    return f"{seen.span:.{0 if seen.span >= 10 else 1}f}"


# --- what pruning does --------------------------------------------------------------------------------------


def pruning_sentences(found: Diagnosis) -> list[str]:
    """What pruning does to the layers."""
    before = found.before
    at, criterion = f"At s = {found.sparsity:g}", found.criterion
    emptied = before.emptied
    if len(emptied):
        verb = "collapses" if len(emptied) in (1, len(found.layers)) else "collapse"
        said = f"{at} {these_layers(found.layers, emptied)} {verb} under {criterion}: {chance(before)}."
    elif before.collapse_probability >= SAFE:
        weakest = found.layers[int(before.empty_probability.argmax())]
        said = (
            f"{at} some layer may collapse under {criterion}, most likely layer {weakest}: {chance(before)}."
        )
    else:
        kept = kept_range(before)
        said = f"{at} {criterion} keeps {kept} of each layer, and none collapses: {chance(before)}."
        if before.is_starved:
            starved = these_layers(
                found.layers, np.flatnonzero(before.kept < STARVED * (1.0 - found.sparsity))
            )
            said += f" Uniform pruning would leave more than ten times as much of {starved}."
    return [_silent(found), said, _limits(before)]


def _silent(found: Diagnosis) -> str:
    """Where scores are exactly 0, and whether the threshold falls among them."""
    seen = found.before
    if not len(seen.silent):
        return ""
    share = float(np.nan_to_num(seen.zero_scores) @ found.weights / found.weights.sum())
    said = (
        f"All {found.criterion} scores are exactly 0 in {these_layers(found.layers, seen.silent)}: no "
        "gradient passes, as behind a normalisation with γ = 0 or a factor 0. "
        f"They are {_percent(share)} of all."
    )
    if seen.unranked:
        said += (
            f" At s = {found.sparsity:g} the threshold falls among these zeros: which of them go is "
            "arbitrary, and what is kept there says nothing."
        )
    return said


def _percent(share: float) -> str:
    return f"{100.0 * share:.3g} %"


def _limits(seen: Outlook) -> str:
    if seen.collapse.method == "measured":
        return f"Its critical sparsity is {sparsity(seen.critical_sparsity)}."
    return (
        f"The critical sparsity, at which half of the initialisations have collapsed, is "
        f"{sparsity(seen.critical_sparsity)}; up to {sparsity(seen.safe_sparsity)} fewer than 5 % have."
    )


def chance(seen: Outlook) -> str:
    """ "P(collapse) = 0.1"."""
    return equals("P(collapse)", probability(seen.collapse_probability))


def kept_range(seen: Outlook) -> str:
    """The least and the most that a layer keeps."""
    low, high = _share(float(seen.kept.min())), _share(float(seen.kept.max()))
    return low if low == high else f"between {low} and {high}"


def _share(value: float) -> str:
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def these_layers(layers: tuple[str, ...], positions: Array) -> str:
    """Layers by number where they stand together at one end, else by name."""
    count, total = len(positions), len(layers)
    if count == 1:
        return f"layer {layers[positions[0]]}"
    if count == total:
        return "every layer"
    if positions[-1] == count - 1:
        return f"the first {count} of {total} layers"
    if positions[0] == total - count:
        return f"the last {count} of {total} layers"
    if np.all(np.diff(positions) == 1):
        return f"{count} of {total} layers ({layers[positions[0]]} to {layers[positions[-1]]})"
    names = ", ".join(layers[i] for i in positions[:NAMED])
    return f"{count} of {total} layers ({names}{', …' if count > NAMED else ''})"


# --- the cure -----------------------------------------------------------------------------------------------


def _is_cured(found: Diagnosis) -> bool:
    return bool(found.problems) and found.after is not None and found.after.collapse_probability < 0.5


def _cure(found: Diagnosis, named: bool) -> list[str]:
    cure, after = found.cure, found.after
    if cure is None or after is None:
        return [] if found.before.is_fine else [_no_cure(found)]
    emptied = after.emptied
    lost = (
        f"{these_layers(found.layers, emptied)} collapsed" if len(emptied) else "no layer likely to collapse"
    )
    if after.collapse_probability < SAFE:
        lost = "no layer collapsed"
    called = "Cure" if _is_cured(found) else "What helps most" if found.problems else "Better still"
    said = [
        f"{called}: {' and '.join(cure.steps)}, which {cure.does}." if named else f"This {cure.does}.",
        f"Predicted then: kept {kept_range(after)}, {lost} ({chance(after)}), score moments within "
        f"{_decades(after)} decades, critical sparsity {sparsity(after.critical_sparsity)} instead of "
        f"{sparsity(found.before.critical_sparsity)}.",
    ]
    return said + too_sparse(found, after)


def too_sparse(found: Diagnosis, after: Outlook) -> list[str]:
    """What is said where the sparsity asked for is too much even after the cure."""
    if after.collapse_probability < SAFE:
        return []
    return [
        f"Even so s = {found.sparsity:g} is too much for it: up to s = {sparsity(after.safe_sparsity)} "
        "fewer than 5 % of the networks collapse."
    ]


def _no_cure(found: Diagnosis) -> str:
    if len(found.before.silent):
        return "No scale lets gradients through: see what blocks them, or train for some steps first."
    advice = "prune less, or use wider layers"
    if is_exploding(found.reading, found.before) or found.off.any():
        critical = np.isfinite(found.sigma_w_edge[found.reading.scaled]).any()
        tried = "No change of scale is predicted to help" if critical else "There is no critical scale to set"
        return f"{tried}: {advice}{'' if critical else ', or another activation'}."
    return f"The scales are not to blame: {advice}."


def _conditions(found: Diagnosis) -> list[str]:
    training, evaluation = found.reading.batch_norms
    said = []
    if training:
        said.append("BatchNorm is taken in training mode (the batch's own statistics), as in the model.")
    if evaluation:
        said.append(
            "BatchNorm is taken in evaluation mode, as in the model: before training it changes nothing."
        )
    if found.synthetic:
        said.append("Uncorrelated inputs stand in for data; your own data give other numbers.")
    return said


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _range(low: float, high: float) -> str:
    return f"{low:.3g}" if high <= 1.01 * low else f"{low:.3g} to {high:.3g}"
