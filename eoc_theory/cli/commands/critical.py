"""``eoc init``, ``eoc gain`` and ``eoc curve``: the edge of chaos of an activation."""

from __future__ import annotations

import argparse
import math
from typing import Any

from ...mean_field.edge_of_chaos import CriticalCurve, CriticalPoint, critical_curve, edge_of_chaos
from ...mean_field.gain import gain as critical_gain
from ..output import print_facts, print_table, say
from ..progress import working
from .results import arrays, say_notes, told


def init(args: argparse.Namespace) -> int:
    """``eoc init``: the critical point."""
    point = edge_of_chaos(
        args.activation, sigma_b=args.sigma_b, sigma_w=args.sigma_w, q=args.q, dropout=args.dropout
    )
    return told(
        args,
        point,
        lambda: _print_point(point, of_bias=bool(args.sigma_w)),
        lambda: {**_point(point), "others": [_point(other) for other in point.others]},
    )


def _print_point(point: CriticalPoint, *, of_bias: bool) -> None:
    say(f"{point.activation.name}: {_what(point)}")
    any_q = "  (any: the activation is homogeneous)" if point.activation.is_homogeneous else ""
    print_facts(
        [
            ("sigma_w", f"{point.sigma_w:.12g}"),
            ("sigma_b", f"{point.sigma_b:.12g}"),
            ("q", f"{point.q:.12g}{any_q}"),
            ("chi", f"{point.chi:.12g}"),
            ("variance slope", f"{point.variance_slope:.12g}"),
            ("convergence", _law(point)),
            ("error", f"{point.error:.1e}  (absolute, of {'sigma_b' if of_bias else 'sigma_w'})"),
        ]
    )
    say_notes([point.note] if point.note else [])
    if point.others:
        say("\nother solutions:")
        rows = [
            (
                *(f"{value:.10g}" for value in (other.sigma_w, other.sigma_b, other.q)),
                f"{other.variance_slope:.6g}",
                "yes" if other.is_stable else "no",
            )
            for other in point.others
        ]
        print_table(("sigma_w", "sigma_b", "q", "variance slope", "stable"), rows, left=0)


def _point(point: CriticalPoint) -> dict[str, Any]:
    law = point.convergence
    return {
        "activation": point.activation.name,
        "dropout": point.dropout,
        **{name: getattr(point, name) for name in ("sigma_w", "sigma_b", "q", "chi", "variance_slope")},
        "is_stable": point.is_stable,
        "note": point.note,
        "c_star": point.c_star,
        "depth_scale": point.depth_scale,
        "convergence": {"kind": law.kind, "exponent": law.exponent, "constant": law.constant},
        "error": point.error,
    }


def _law(point: CriticalPoint) -> str:
    law = point.convergence
    if law.kind == "exponential":
        return f"c -> {point.c_star:.10g} like exp(-depth/{point.depth_scale:.10g})"
    if law.kind == "linear":
        return "none: linear, correlations stay as they are"
    if math.isinf(law.constant):
        return "none in the limit q -> 0, where the activation is linear"
    power = "depth" if law.exponent == 1 else f"depth^{law.exponent}"
    return f"1 - c ~ {law.constant:.10g} / {power}  ({law.kind})"


def gain(args: argparse.Namespace) -> int:
    """``eoc gain``: the critical σ_w and the lines that use it."""
    found = critical_gain(args.activation, args.sigma_b, q=args.q, dropout=args.dropout)
    scaling = found.variance_scaling
    values = {
        "activation": found.point.activation.name,
        "gain": found.sigma_w,
        "sigma_b": found.sigma_b,
        "variance_scaling": scaling,
    }
    keywords = ", ".join(f"{name}={value!r}" for name, value in scaling.items())
    facts = [
        ("gain", f"{found.sigma_w:.12g}"),
        ("sigma_b", f"{found.sigma_b:.12g}"),
        ("torch", f"torch.nn.init.orthogonal_(weight, gain={found.sigma_w!r})"),
        ("JAX, Flax", f"jax.nn.initializers.variance_scaling({keywords})"),
        ("Keras", f"keras.initializers.VarianceScaling({keywords})"),
    ]

    def show() -> None:
        print_facts(facts)
        say_notes([found.point.note] if found.point.note else [])

    return told(args, found, show, lambda: values)


def curve(args: argparse.Namespace) -> int:
    """``eoc curve``: the critical curve."""
    with working("critical curve", args.progress):
        found = critical_curve(args.activation, sigma_b=args.sigma_b, dropout=args.dropout)
    names = ("sigma_w", "sigma_b", "q", "stable")
    return told(args, found, lambda: _print_curve(found), arrays(found, names))


def _print_curve(found: CriticalCurve) -> None:
    say(f"{found.activation.name}: {_what(found)}")
    rows = [
        (f"{b:.6g}", f"{w:.10g}", f"{q:.10g}", "yes" if stable else "no")
        if math.isfinite(w)
        else (f"{b:.6g}", "none", "", "")
        for b, w, q, stable in zip(found.sigma_b, found.sigma_w, found.q, found.stable, strict=True)
    ]
    print_table(("sigma_b", "sigma_w", "q", "stable"), rows, left=0)


def _what(found: CriticalPoint | CriticalCurve) -> str:
    if not found.dropout:
        return "edge of chaos"
    return f"variances and gradients stationary under dropout {found.dropout:g}"
