"""``eoc predict`` and ``eoc collapse``: what pruning is predicted to keep."""

from __future__ import annotations

import argparse

import numpy as np

from ...base.formatting import equals, probability, shown_layers, sparsity
from ...pruning.collapse import CollapsePrediction, predict_collapse
from ...pruning.prediction import PruningPrediction, check_sparsities, predict_pruning
from ..networks import describe, network
from ..output import method, print_facts, print_table, say, thinned
from ..progress import working
from .results import method_options, sampling, say_notes, sparsities, told


def predict(args: argparse.Namespace) -> int:
    """``eoc predict``: kept per layer."""
    net, data = network(args)
    with working("predicting", args.progress):
        found = predict_pruning(
            net,
            sparsities(args),
            criterion=args.criterion,
            data=data,
            **sampling(args),
            **method_options(args),
        )
        _ = found.collapse_probability  # computed when it is first read: while progress is shown

    def show() -> None:
        say(describe(args, net, data))
        _print_prediction(found, args.all_layers)

    return told(args, found, show)


def _print_prediction(found: PruningPrediction, every: bool) -> None:
    kept, std, empty = (np.atleast_2d(a) for a in (found.kept, found.kept_std, found.empty_probability))
    chances = np.atleast_1d(found.collapse_probability)
    errors, bounds = (np.atleast_1d(a) for a in (found.kept_error, found.kept_error_bound))
    zeros, way = zero_scores(found), method(found.method, found.samples)
    for i, s in enumerate(np.atleast_1d(found.sparsity)):
        say(f"\nsparsity {s:.15g}: {equals('P(collapse)', probability(float(chances[i])))}")
        say(f"{way}; expected error of kept {errors[i]:.2g}, in nine networks of ten under {bounds[i]:.2g}")
        print_table(
            ("layer", "weights", "kept", "± s.d.", "P(empty)", *zeros[:1]),
            [
                (
                    found.layers[k],
                    str(found.weights[k]),
                    f"{kept[i, k]:.4f}",
                    f"{std[i, k]:.4f}",
                    probability(float(empty[i, k])),
                    *zeros[k + 1 : k + 2],
                )
                for k in shown_layers(len(found.layers), every)
            ],
            note=thinned(len(found.layers), every),
        )
    say_notes(found.notes)


def zero_scores(found: PruningPrediction) -> list[str]:
    """A column, heading first: the fraction of each layer's scores that are 0. Empty if there is none."""
    zeros = np.broadcast_to(np.asarray(found.zero_scores, dtype=float), (len(found.layers),))
    if not np.nan_to_num(zeros).any():
        return []
    return ["zero scores", *(f"{zero:.4f}" for zero in zeros)]


def collapse(args: argparse.Namespace) -> int:
    """``eoc collapse``: the distribution of the critical sparsity."""
    net, data = network(args)
    asked = check_sparsities(args.sparsity) if args.sparsity else np.array([])
    with working("predicting", args.progress):
        found = predict_collapse(
            net, criterion=args.criterion, data=data, **sampling(args), **method_options(args)
        )
    chances = {"sparsity": asked, "probability": found.probability(asked)} if len(asked) else {}

    def show() -> None:
        say(describe(args, net, data))
        _print_collapse(found, asked)

    return told(args, found, show, lambda: {**found.to_dict(), **chances})


def _print_collapse(found: CollapsePrediction, asked: np.ndarray) -> None:
    low, median, high = (sparsity(float(found.quantile(p))) for p in (0.1, 0.5, 0.9))
    mean = sparsity(found.critical_sparsity)
    first = float(found.weakest_probability.max())
    facts = [
        ("method", found.method),
        ("critical sparsity", f"mean {mean}, median {median}, 80 % in {low} to {high}"),
        ("weakest layer", f"{found.weakest_layer}, the first to collapse in {first:.0%} of the networks"),
        ("paper's bound", "no theorem applies or binds" if found.bound is None else sparsity(found.bound)),
    ]
    facts += [(f"P(collapse) at {s:.15g}", probability(float(found.probability(float(s))))) for s in asked]
    wrong = f"{found.median_error:.2g}; in nine networks of ten under {found.median_error_bound:.2g}"
    facts.append(("expected error", f"{wrong} (of the median, in log10 of 1 - s)"))
    print_facts(facts)
    say_notes(found.notes)
