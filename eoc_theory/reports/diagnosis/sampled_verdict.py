"""The verdict of a sampled diagnosis: a few sentences, each made from its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...base.formatting import sparsity
from .forecast import SAFE, STARVED
from .signals import ALIKE, PEAKED, decades, gradient_trend, late_similarity, signal_trend, squared_norm
from .verdict import CURE, HELP, chance, joined, kept_range, pruning_sentences, these_layers, too_sparse

if TYPE_CHECKING:
    from ...propagation.observed import Observed
    from .diagnosis import Diagnosis

Array = np.ndarray


def paragraphs(found: Diagnosis, *, named: bool = True) -> list[tuple[str, str]]:
    """Heading and text: signals, what pruning does, the cure, what the numbers hold for.

    Without `named` the cure's steps are left out, for places that list them separately.
    """
    assert found.signals is not None
    parts = [
        ("Signals and gradients", [_opening(found), _gradients(found.signals), _sizes(found.signals)]),
        ("Tokens and attention", [_tokens(found.signals), _attention(found.signals)]),
        ("What pruning does to it", [*pruning_sentences(found), _starved(found)]),
        (CURE if _is_cured(found) else HELP, _cure(found, named)),
        ("What this holds for", _conditions(found)),
    ]
    return joined(parts)


def _opening(found: Diagnosis) -> str:
    if found.problems:
        return ""
    return "Nothing is wrong with this " + ("network." if found.method == "measured" else "initialisation.")


# --- signals ------------------------------------------------------------------------------------------------


def _gradients(seen: Observed) -> str:
    layers = len(seen.by_depth)
    trend, change = gradient_trend(seen), decades(seen)
    if not trend:
        return ""
    factor = f"the squared norm of the gradient is multiplied by {10.0**trend:.3g} per layer"
    grown = f"{_power(abs(change))}-fold over {layers} layers"
    if change <= -1.0:
        word = "vanish" if change <= -2.0 else "shrink"
        return f"Gradients {word} on their way to the input: {factor}, so that it falls {grown}."
    if change >= 1.0:
        word = "explode" if change >= 2.0 else "grow"
        return f"Gradients {word} on their way to the input: {factor}, so that it grows {grown}."
    low, high = _range(squared_norm(seen)[seen.by_depth])
    return f"Gradients neither vanish nor explode: {factor} (from {low} to {high} at single layers)."


def _sizes(seen: Observed) -> str:
    low, high = _range(seen.signal[seen.by_depth])
    said = f"The mean square of the layers' outputs goes from {low} to {high}"
    change = signal_trend(seen) * max(len(seen.by_depth) - 1, 0)
    if abs(change) >= 1.0:
        said += (
            f", by its trend {'growing' if change > 0 else 'falling'} {_power(abs(change))}-fold with depth"
        )
    return said + "."


def _range(values: Array) -> tuple[str, str]:
    return f"{values.min():.2g}", f"{values.max():.2g}"


def _power(exponent: float) -> str:
    return f"{10.0**exponent:.2g}" if exponent < 4 else f"10^{exponent:.1f}"


def _tokens(seen: Observed) -> str:
    if not seen.has_tokens:
        return ""
    order = seen.by_depth
    known = order[np.isfinite(seen.token_similarity[order])]
    first, last = float(seen.token_similarity[known[0]]), late_similarity(seen)
    numbers = f"their mean cosine is {first:.2f} after the first layer and {last:.2f} in the last ones"
    if last > ALIKE:
        return (
            f"Rank collapse: the tokens of an input are alike, {numbers}, so that attention has nothing to "
            "tell apart."
        )
    return f"Tokens stay apart: {numbers}."


def _attention(seen: Observed) -> str:
    entropies = seen.attention_entropy
    if not len(entropies):
        return ""
    least = int(entropies.argmin())
    low, high = float(entropies.min()), float(entropies.max())
    if low < PEAKED:
        count = int((entropies < PEAKED).sum())
        where = (
            f"{count} of {len(entropies)} attention layers, most in {seen.attention[least] or 'the model'},"
        )
        return (
            f"Entropy collapse: in {where} each query attends to single keys (entropy {low:.2g} of that of "
            "equal weights)."
        )
    shown = f"{low:.2f}" if high - low < 0.01 else f"{low:.2f} to {high:.2f}"
    even = " Attention is nearly uniform." if low > 0.95 else ""
    return f"The entropy of attention is {shown} of that of equal weights.{even}"


# --- pruning ------------------------------------------------------------------------------------------------


def _starved(found: Diagnosis) -> str:
    """The layers that keep far less than the rest, where no other sentence names them."""
    before = found.before
    collapsing = before.collapse_probability >= SAFE or len(before.emptied)
    if not before.is_starved or not collapsing:
        return ""
    few = np.flatnonzero((before.kept < STARVED * (1.0 - found.sparsity)) & (before.empty_probability <= 0.5))
    if not len(few):
        return ""
    verb = "keeps" if len(few) == 1 else "keep"
    return f"Starved: {these_layers(found.layers, few)} {verb} less than a tenth of an even share."


# --- the cure -----------------------------------------------------------------------------------------------


def _is_cured(found: Diagnosis) -> bool:
    return bool(found.problems) and found.after is not None and found.after.collapse_probability < 0.5


def _cure(found: Diagnosis, named: bool) -> list[str]:
    cure, after, signals = found.cure, found.after, found.signals_after
    if cure is None or after is None or signals is None:
        return [_no_cure(found)] if found.problems else []
    way = "Predicted" if found.method == "theory" else "Sampled"
    called = "Cure" if _is_cured(found) else "What helps most"
    emptied = after.emptied
    lost = (
        f"{these_layers(found.layers, emptied)} collapsed" if len(emptied) else "no layer likely to collapse"
    )
    if after.collapse_probability < SAFE:
        lost = "no layer collapsed"
    trend = f"the gradient's squared norm multiplied by {10.0 ** gradient_trend(signals):.3g} per layer"
    said = [
        f"{called}: {' and '.join(cure.steps)}, which {cure.does}." if named else f"This {cure.does}.",
        f"{way} then: kept {kept_range(after)}, {lost} ({chance(after)}), {trend}, critical sparsity "
        f"{sparsity(after.critical_sparsity)} instead of {sparsity(found.before.critical_sparsity)}.",
    ]
    return said + too_sparse(found, after)


def _no_cure(found: Diagnosis) -> str:
    if found.method == "measured":
        return ""
    if len(found.before.silent):
        return "No scale lets gradients through: see what blocks them, or train for some steps first."
    return "No change of scale that was tried helps: prune less, or use wider layers."


def _conditions(found: Diagnosis) -> list[str]:
    if found.method == "measured":
        first = (
            "The weights follow no known distribution (trained?), so that this is measured on the very "
            "network: one network, without a spread over initialisations."
        )
    elif found.method == "theory":
        first = (
            "No network was sampled: these are kernels and score distributions of an infinitely wide network."
        )
    else:
        first = "No theory was used: these numbers are those of a few networks that were sampled and run."
    training, evaluation = found.reading.batch_norms
    said = [first]
    if training:
        said.append("BatchNorm is taken in training mode (the batch's own statistics), as in the model.")
    if evaluation:
        said.append("BatchNorm is taken in evaluation mode, as in the model.")
    if found.synthetic:
        said.append("Uncorrelated inputs stand in for data; your own data give other numbers.")
    return said
