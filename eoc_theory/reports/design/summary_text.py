"""A design as sentences and tables of text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...base.formatting import equals, probability, shown_layers, sparsity
from ...base.tables import Table
from ...errors.text import name

if TYPE_CHECKING:
    from .candidate import Candidate
    from .design import Design

#: The widest a line of text may be.
TEXT_WIDTH = 100
#: Neither few networks nor the tail of a law tell one in so many from less.
_LEAST = 1e-4

CANDIDATE_HEADINGS = ("option", "P(collapse)", "P(disconnected)", "connected", "moved", "")
CANDIDATE_NOTE = "in brackets: the range that holds the probability in nine cases of ten"
LAYER_HEADINGS = ("layer", "weights", "as it is", "design", "weights kept")


def verdict(found: Design) -> str:
    """What is wrong with the network as it is, and what to do."""
    if found.goal == "training" and found.feasible:
        return f"{_left(found)} {_for_training(found)}"
    said = (
        _before(found),
        _chosen(found),
        _open_question(found) if found.feasible else "",
        _alternative(found),
    )
    return " ".join(part for part in said if part)


def _left(found: Design) -> str:
    return (
        f"At s = {found.sparsity:g} {found.criterion} leaves {int(found.kept_weights.sum())} of "
        f"{int(found.weights.sum())} weights in {len(found.layers)} layers."
    )


def _for_training(found: Design) -> str:
    """The design where the goal is training."""
    chosen = found.chosen
    said = "All weights are ranked at once."
    if chosen.allocation == "layerwise":
        said = (
            f"For training each layer has a number of weights of its own, {int(chosen.kept_weights.min())} "
            f"or more, chosen on paths; {_part(chosen.moved)} of the weights are in other layers than under "
            "global ranking."
        )
    scale = "A normalisation divides their scale out, so that they stay as they are."
    if found.rescale_by == "units":
        scale = "The units of a layer are rescaled to equal parts of its signal."
    elif found.rescale_by == "moments":
        scale = "The units of a layer get the mean 0 over the data, and equal parts of its signal."
    return f"{said} {scale}"


def _before(found: Design) -> str:
    before = found.before
    said = _left(found)
    if before.feasible:
        return f"{said} Nothing needs to change: {_lost(before)}."
    if before.collapse_probability > found.max_collapse_probability:
        odds = _between(before.collapse_probability, before.collapse_interval)
        return (
            f"{said} Ranked over the whole network as it is, P(collapse) is {odds}; half of such "
            f"networks have collapsed at s = {sparsity(found.critical_sparsity_before)}."
        )
    return f"{said} Ranked over the whole network as it is, no layer collapses, but {_cut(before)}."


def _between(value: float, interval: tuple[float, float]) -> str:
    """A probability and where it lies; nothing more where that is what is printed anyway."""
    low, high = (f"{end:.2f}".replace("0.00", "0").replace("1.00", "1") for end in interval)
    shown = probability(value) if value >= _LEAST or value == 0 else "<1e-4"
    return shown if float(low) == float(high) else f"{shown} ({low}–{high})"


def _lost(one: Candidate) -> str:
    said = equals("P(collapse)", _between(one.collapse_probability, one.collapse_interval))
    if one.drawn:
        cut = equals("P(disconnected)", _between(one.cut_probability, one.cut_interval))
        said += f", and {cut}, from "
        said += "the sampled network" if one.drawn == 1 else f"{one.drawn} sampled networks"
    return said


def _cut(one: Candidate) -> str:
    """How connected the sampled networks are."""
    odds = _between(one.cut_probability, one.cut_interval)
    odds = equals("P(disconnected)", odds)
    lost = one.drawn - round(one.connected * one.drawn)
    if lost:
        which = "the sampled network" if one.drawn == 1 else f"{lost} of {one.drawn} sampled networks"
        verb = "has" if max(lost, one.drawn == 1) == 1 else "have"
        return f"{which} {verb} a layer none of whose weights lies on a path from input to logits: {odds}"
    which = "the sampled network has" if one.drawn == 1 else f"the {one.drawn} sampled networks have"
    return f"{which} a path through every layer by a narrow margin: {odds}"


def _open_question(found: Design) -> str:
    """What the sampled networks leave open about a design that will do."""
    chosen, borne = found.chosen, found.max_collapse_probability
    if not (chosen.feasible and chosen.drawn) or chosen.cut_interval[1] <= borne:
        return ""
    drawn = "One sampled network leaves" if chosen.drawn == 1 else f"{chosen.drawn} sampled networks leave"
    return f"{drawn} open whether that is more than the {borne:g} asked for; more networks would tell."


def _chosen(found: Design) -> str:
    chosen = found.chosen
    if chosen is found.before:
        if chosen.feasible:
            return ""
        return f"Nothing avoids that: {len(found.layers)} layers cannot share so few weights. Prune less."
    where = "With the weights as they are"
    if chosen.initialisation is not None:
        sigma_w, sigma_b = chosen.initialisation
        where = f"On the edge of chaos (σ_w = {sigma_w:.4g}, σ_b = {sigma_b:g})"
    if chosen.allocation == "global":
        return f"{where} the same ranking keeps every layer: {_lost(chosen)}."
    said = (
        f"{where}, a number of weights set for each layer, {int(chosen.kept_weights.min())} or more, lets "
        f"no layer collapse; {_part(chosen.moved)} of the weights are in other layers than under global "
        "ranking."
    )
    said = f"{_not_enough(found)}{said}"
    if not chosen.feasible:
        return f"{said} But even so {_cut(chosen)}. Prune less."
    if chosen.drawn:
        said += " Chosen on paths through the network, they connect "
        said += {1: "the sampled network", 2: "both sampled networks"}.get(
            chosen.drawn, f"all {chosen.drawn} sampled networks"
        )
        if chosen.cut_interval[1] > 0:
            odds = _between(chosen.cut_probability, chosen.cut_interval)
            said += f": {equals('P(disconnected)', odds)}"
        said += "."
    return said


def _not_enough(found: Design) -> str:
    """Why another initialisation alone will not do; nothing where none was tried."""
    tried = [one for one in found.candidates if one.allocation == "global" and one is not found.before]
    if not tried:
        return ""

    def worst(one: Candidate) -> float:
        return one.cut_probability if one.drawn else one.collapse_probability

    best = min(tried, key=worst)
    what, interval = (
        ("P(disconnected)", best.cut_interval) if best.drawn else ("P(collapse)", best.collapse_interval)
    )
    return (
        f"Another initialisation alone will not do: on the edge of chaos {what} is "
        f"{_between(worst(best), interval)} at best. "
    )


def _part(share: float) -> str:
    return "none" if share < 5e-4 else f"{share:.1%}"


def _alternative(found: Design) -> str:
    if found.allocation == "layerwise":
        return ""
    other = next((one for one in found.candidates if one.allocation == "layerwise" and one.feasible), None)
    if other is None:
        return ""
    moved = f"; {_part(other.moved)} of them are in other layers then" if other.moved >= 5e-4 else ""
    number = "the number of weights in each layer, whatever the initialisation"
    return f"The layer-wise alternative sets {number}{moved}."


def candidate_rows(found: Design) -> list[tuple[str, ...]]:
    """Cells under CANDIDATE_HEADINGS."""
    return [
        (
            one.name,
            _between(one.collapse_probability, one.collapse_interval),
            _between(one.cut_probability, one.cut_interval) if one.drawn else "–",
            f"{round(one.connected * one.drawn)} of {one.drawn}" if one.drawn else "–",
            f"{one.moved:.1%}" if one.allocation == "layerwise" else "–",
            _mark(found, one),
        )
        for one in found.candidates
    ]


def _mark(found: Design, one: Candidate) -> str:
    if one is found.chosen:
        return "chosen"
    borne = found.max_collapse_probability
    chances = [(one.collapse_probability, *one.collapse_interval), (one.cut_probability, *one.cut_interval)]
    over = [low for value, low, _ in chances if value > borne]
    return "" if not over else "collapses" if max(over) > max(borne, _LEAST) else "may collapse"


def layer_rows(found: Design, layers: Sequence[int]) -> list[tuple[str, ...]]:
    """Cells under LAYER_HEADINGS for the layers at these positions."""
    return [
        (
            name(found.layers[i]),
            str(found.weights[i]),
            f"{found.before.kept[i]:.4f}",
            f"{found.kept[i]:.4f}",
            str(found.kept_weights[i]),
        )
        for i in layers
    ]


def table(found: Design) -> Table:
    """What each layer keeps, deep networks thinned out."""
    shown = shown_layers(len(found.layers))
    count = len(found.layers)
    note = "" if len(shown) == count else f"{len(shown)} of {count} layers; to_frame() holds each"
    return Table(LAYER_HEADINGS, tuple(layer_rows(found, shown)), note=note)


def as_text(found: Design) -> str:
    """Verdict, what to run, candidates, and the layers thinned out."""
    shown = shown_layers(len(found.layers))
    lines = [*textwrap.wrap(found.verdict, TEXT_WIDTH, break_long_words=False, break_on_hyphens=False), ""]
    if found.feasible:
        lines += [f"  {step}" for step in found.steps] + [""]
    lines += [*_aligned([CANDIDATE_HEADINGS, *candidate_rows(found)]), CANDIDATE_NOTE]
    lines += ["", *_aligned([LAYER_HEADINGS, *layer_rows(found, shown)])]
    if len(shown) < len(found.layers):
        lines.append(f"{len(shown)} of {len(found.layers)} layers; to_frame() holds each")
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *rest]).rstrip())
    return lines
