"""``eoc phase`` and ``eoc attention``: phases on a grid."""

from __future__ import annotations

import argparse
import math

import numpy as np

from ...mean_field.attention_phase import ATTENTION_PHASES, AttentionPhase, attention_phase
from ...mean_field.maps import DROPOUT_PHASES, PHASES
from ...mean_field.phase_diagram import PhaseDiagram, phase_diagram
from ..output import print_table, say
from ..progress import working
from .results import arrays, thinned_grid, told

#: What the phase diagram tells of each point.
_ARRAYS = ("sigma_w", "sigma_b", "q_star", "chi", "variance_slope", "c_star", "xi_q", "xi_c", "phase")


def phase(args: argparse.Namespace) -> int:
    """``eoc phase``: the phase diagram."""
    with working("phase diagram", args.progress):
        found = phase_diagram(
            args.activation, sigma_w=args.sigma_w, sigma_b=args.sigma_b, dropout=args.dropout
        )
    return told(args, found, lambda: _print_phases(found), arrays(found, _ARRAYS))


def _print_phases(found: PhaseDiagram) -> None:

    rows, columns = (thinned_grid(len(axis)) for axis in (found.sigma_b, found.sigma_w))
    low, middle, high = DROPOUT_PHASES if found.dropout else PHASES
    letters = {low: low[0], middle: "=", high: high[0]}

    def cell(i: int, j: int) -> str:
        if math.isinf(found.q_star[i, j]):
            return "grows"
        return f"{letters[str(found.phase[i, j])]} {found.xi_c[i, j]:.3g}"

    what = f"gradients under dropout {found.dropout:g}" if found.dropout else "phase"
    say(f"{found.activation.name}: {what} and correlation depth scale xi_c in layers")
    print_table(
        ["sigma_b \\ sigma_w", *(f"{found.sigma_w[j]:.3g}" for j in columns)],
        [[f"{found.sigma_b[i]:.3g}", *(cell(i, j) for j in columns)] for i in rows],
        note=f"{low[0]} {low}, {high[0]} {high}, = {middle}; grows: the variance has no bound",
    )
    shares = [f"{name} {float(np.mean(found.phase == name)):.1%}" for name in letters]
    say(f"{found.q_star.size} points: {', '.join(shares)}")


def attention(args: argparse.Namespace) -> int:
    """``eoc attention``: the phases of transformers."""
    names = ("tokens", "depth", "norm", "gain", "mlp_gain", "skip", "similarity", "gradient_similarity")
    with working("attention phases"):
        found = attention_phase(
            args.score_scale,
            args.residual_strength,
            activation=None if args.activation == "none" else args.activation,
            **{name: getattr(args, name) for name in names},
        )
    return told(args, found, lambda: _print_attention(found))


def _print_attention(found: AttentionPhase) -> None:

    say(f"{found.summary()}\n")
    rows, columns = (thinned_grid(len(axis)) for axis in (found.residual_strength, found.score_scale))
    letters = dict(zip(ATTENTION_PHASES, "rexvt", strict=True))

    def cell(i: int, j: int) -> str:
        growth = found.gradient_exponent[i, j] * found.depth / math.log(10.0)
        return f"{letters[str(found.phase[i, j])]} {found.similarity[i, j]:.2f} {growth:+.1f}"

    print_table(
        ["strength \\ scale", *(f"{found.score_scale[j]:.3g}" for j in columns)],
        [(f"{found.residual_strength[i]:.3g}", *(cell(i, j) for j in columns)) for i in rows],
        left=0,
        note="r, e: rank- and entropy-collapsed; x, v: gradients explode, vanish; t: trainable. Then token\n"
        "similarity after the last block, and log10 of the gradients' growth through all blocks",
    )
