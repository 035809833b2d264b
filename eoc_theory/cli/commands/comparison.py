"""``eoc compare``: theory beside experiment."""

from __future__ import annotations

import argparse
import sys

import numpy as np

from ...base import checks
from ...base.formatting import probability, shown_layers, sparsity
from ...reports.compare import MOST_SEEDS, Comparison
from ...reports.compare import compare as run
from ..networks import describe, network
from ..output import method, print_facts, print_table, say, thinned
from ..progress import bar
from .pruning import zero_scores
from .results import method_options, say_notes, sparsities, told


def compare(args: argparse.Namespace) -> int:
    """``eoc compare``: theory beside experiment."""
    net, data = network(args)
    first = checks.integer("seed", args.seed, minimum=0)
    seeds = range(first, first + checks.integer("seeds", args.seeds, 1, MOST_SEEDS))
    with bar("pruning networks:", "predicting", args.progress) as progress:
        found = run(
            net,
            sparsities(args),
            criterion=args.criterion,
            data=data,
            seeds=seeds,
            **method_options(args),
            progress=progress,
        )

    def show() -> None:
        say(describe(args, net, data))
        _print_comparison(found, args.all_layers)

    code = told(args, found, show)
    if not found.complete:
        say(f"eoc compare: interrupted after {len(found.seeds)} of {len(seeds)} seeds", file=sys.stderr)
        return 1
    return code


def _print_comparison(found: Comparison, every: bool) -> None:
    predicted, spread = (np.atleast_2d(a) for a in (found.prediction.kept, found.prediction.kept_std))
    measured, measured_spread = (np.atleast_2d(a) for a in (found.measured_kept, found.measured_std))
    zeros = zero_scores(found.prediction)
    for i, s in enumerate(np.atleast_1d(found.sparsity)):
        say(f"\nsparsity {s:.15g}, fraction of weights kept:")
        print_table(
            ("layer", "weights", "predicted", "± s.d.", "measured", "± s.d.", "error", *zeros[:1]),
            [
                (
                    found.layers[k],
                    str(found.weights[k]),
                    f"{predicted[i, k]:.4f}",
                    f"{spread[i, k]:.4f}",
                    f"{measured[i, k]:.4f}",
                    f"{measured_spread[i, k]:.4f}" if len(found.seeds) > 1 else "",
                    f"{predicted[i, k] - measured[i, k]:+.4f}",
                    *zeros[k + 1 : k + 2],
                )
                for k in shown_layers(len(found.layers), every)
            ],
            note=thinned(len(found.layers), every),
        )
    say()
    _print_headlines(found)
    say_notes(found.prediction.notes)


def _print_headlines(found: Comparison) -> None:
    law, seen = found.collapse, found.critical_sparsity

    def rows(name: str, values: list[tuple[float, float]]) -> tuple[str, str, str]:
        predicted, measured = (" to ".join(map(sparsity, side)) for side in zip(*values, strict=True))
        return name, predicted, measured

    def quantiles(*levels: float) -> list[tuple[float, float]]:
        return [(float(law.quantile(p)), float(np.quantile(seen, p))) for p in levels]

    table = [
        rows("critical sparsity, mean", [(law.critical_sparsity, float(seen.mean()))]),
        rows("critical sparsity, median", quantiles(0.5)),
        rows("critical sparsity, 80 % range", quantiles(0.1, 0.9)),
    ]
    chances = np.atleast_1d(found.prediction.collapse_probability)
    collapsed = (found.kept.reshape(len(found.seeds), len(chances), -1) == 0.0).any(axis=-1).mean(axis=0)
    for s, chance, share in zip(np.atleast_1d(found.sparsity), chances, collapsed, strict=True):
        table.append(
            (f"P(collapse) at sparsity {s:.15g}", probability(float(chance)), probability(float(share)))
        )
    seeds = f"measured, {len(found.seeds)} seed" + ("s" if len(found.seeds) > 1 else "")
    print_table(("", "predicted", seeds), table)
    weakest = float(law.weakest_probability.max())
    say()
    print_facts(
        [
            ("method of the prediction", method(found.prediction.method, found.prediction.samples)),
            ("mean absolute error of kept", f"{found.mean_absolute_error:.4f}"),
            ("expected, without measurement noise", f"{np.mean(found.prediction.kept_error):.4f}"),
            ("weakest layer, predicted", f"{law.weakest_layer}, the first to collapse in {weakest:.0%}"),
        ]
    )
