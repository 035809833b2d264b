"""What each command does with its parsed options; every function returns an exit code."""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.formatting import equals, probability, shown_layers, sparsity
from ..errors import ArgumentError
from .output import (
    line_width,
    method,
    print_facts,
    print_json,
    print_prose,
    print_table,
    say,
    thinned,
)
from .progress import bar, working

if TYPE_CHECKING:
    from ..mean_field.attention_phase import AttentionPhase
    from ..mean_field.edge_of_chaos import CriticalCurve, CriticalPoint
    from ..mean_field.phase_diagram import PhaseDiagram
    from ..pruning.prediction import PruningPrediction
    from ..pruning.trainability import Trainability
    from ..reports.compare import Comparison
    from ..reports.diagnosis import Diagnosis

#: Rows and columns of the phase diagram that are printed.
PRINTED_GRID = 8


# --- one neuron ---------------------------------------------------------------------------------------------


def init(args: argparse.Namespace) -> int:
    """``eoc init``: the critical point."""
    from ..mean_field.edge_of_chaos import edge_of_chaos

    point = edge_of_chaos(
        args.activation, sigma_b=args.sigma_b, sigma_w=args.sigma_w, q=args.q, dropout=args.dropout
    )
    if args.json:
        print_json({**_point(point), "others": [_point(other) for other in point.others]})
        return 0
    say(f"{point.activation.name}: {_what(point)}")
    print_facts(
        [
            ("sigma_w", f"{point.sigma_w:.12g}"),
            ("sigma_b", f"{point.sigma_b:.12g}"),
            ("q", f"{point.q:.12g}" + ("  (any: the activation is homogeneous)" if _any_q(point) else "")),
            ("chi", f"{point.chi:.12g}"),
            ("variance slope", f"{point.variance_slope:.12g}"),
            ("convergence", _law(point)),
            ("error", f"{point.error:.1e}  (absolute, of {'sigma_b' if args.sigma_w else 'sigma_w'})"),
        ]
    )
    if point.note:
        say(f"note: {point.note}")
    if point.others:
        say("\nother solutions:")
        print_table(
            ("sigma_w", "sigma_b", "q", "variance slope", "stable"),
            [
                (
                    f"{other.sigma_w:.10g}",
                    f"{other.sigma_b:.10g}",
                    f"{other.q:.10g}",
                    f"{other.variance_slope:.6g}",
                    "yes" if other.is_stable else "no",
                )
                for other in point.others
            ],
            left=0,
        )
    return 0


def gain(args: argparse.Namespace) -> int:
    """``eoc gain``: the critical σ_w and the lines that use it."""
    from ..mean_field.gain import gain as compute

    found = compute(args.activation, args.sigma_b, q=args.q, dropout=args.dropout)
    scaling = found.variance_scaling
    if args.json:
        print_json(
            {
                "activation": found.point.activation.name,
                "gain": found.sigma_w,
                "sigma_b": found.sigma_b,
                "variance_scaling": scaling,
            }
        )
        return 0
    keywords = ", ".join(f"{name}={value!r}" for name, value in scaling.items())
    print_facts(
        [
            ("gain", f"{found.sigma_w:.12g}"),
            ("sigma_b", f"{found.sigma_b:.12g}"),
            ("torch", f"torch.nn.init.orthogonal_(weight, gain={found.sigma_w!r})"),
            ("JAX, Flax", f"jax.nn.initializers.variance_scaling({keywords})"),
            ("Keras", f"keras.initializers.VarianceScaling({keywords})"),
        ]
    )
    if found.point.note:
        say(f"note: {found.point.note}")
    return 0


def explore(args: argparse.Namespace) -> int:
    """``eoc explore``: a page for a browser."""
    from ..reports.explorer import DEFAULT, write_explorer

    with working("tables of activations"):
        names = write_explorer(args.html, args.activations or DEFAULT)
    if args.json:
        print_json({"html": str(args.html), "activations": list(names)})
    else:
        say(f"wrote {args.html}, with {', '.join(names)}")
    return 0


def curve(args: argparse.Namespace) -> int:
    """``eoc curve``: the critical curve."""
    from ..mean_field.edge_of_chaos import critical_curve

    with working("critical curve", args.progress):
        found = critical_curve(args.activation, sigma_b=args.sigma_b, dropout=args.dropout)
    if args.json:
        arrays = {name: getattr(found, name) for name in ("sigma_w", "sigma_b", "q", "stable")}
        print_json({"activation": found.activation.name, "dropout": found.dropout, **arrays})
    else:
        say(f"{found.activation.name}: {_what(found)}")
        rows = zip(found.sigma_b, found.sigma_w, found.q, found.stable, strict=True)
        print_table(
            ("sigma_b", "sigma_w", "q", "stable"),
            [
                (f"{b:.6g}", f"{w:.10g}", f"{q:.10g}", "yes" if stable else "no")
                if math.isfinite(w)
                else (f"{b:.6g}", "none", "", "")
                for b, w, q, stable in rows
            ],
            left=0,
        )
    return _picture(found, args)


def phase(args: argparse.Namespace) -> int:
    """``eoc phase``: the phase diagram."""
    from ..mean_field.phase_diagram import phase_diagram

    with working("phase diagram", args.progress):
        found = phase_diagram(
            args.activation, sigma_w=args.sigma_w, sigma_b=args.sigma_b, dropout=args.dropout
        )
    if args.json:
        names = ("sigma_w", "sigma_b", "q_star", "chi", "variance_slope", "c_star", "xi_q", "xi_c", "phase")
        arrays = {name: getattr(found, name) for name in names}
        print_json({"activation": found.activation.name, "dropout": found.dropout, **arrays})
    else:
        _print_phases(found)
    return _picture(found, args)


def _print_phases(found: PhaseDiagram) -> None:
    from ..mean_field.maps import DROPOUT_PHASES, PHASES

    rows, columns = (_spread(len(axis)) for axis in (found.sigma_b, found.sigma_w))
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


def _spread(n: int) -> list[int]:
    """Up to PRINTED_GRID indices from first to last."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, PRINTED_GRID))})


def _what(found: CriticalPoint | CriticalCurve) -> str:
    if not found.dropout:
        return "edge of chaos"
    return f"variances and gradients stationary under dropout {found.dropout:g}"


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


def _any_q(point: CriticalPoint) -> bool:
    return point.activation.is_homogeneous


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


def attention(args: argparse.Namespace) -> int:
    """``eoc attention``: the phases of transformers."""
    from ..mean_field.attention_phase import attention_phase

    names = ("tokens", "depth", "norm", "gain", "mlp_gain", "skip", "similarity", "gradient_similarity")
    with working("attention phases"):
        found = attention_phase(
            args.score_scale,
            args.residual_strength,
            activation=None if args.activation == "none" else args.activation,
            **{name: getattr(args, name) for name in names},
        )
    if args.json:
        print_json(found.to_dict())
    else:
        say(f"{found.summary()}\n")
        _print_attention(found)
    return _picture(found, args)


def _print_attention(found: AttentionPhase) -> None:
    from ..mean_field.attention_phase import ATTENTION_PHASES

    rows, columns = (_spread(len(axis)) for axis in (found.residual_strength, found.score_scale))
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


# --- networks -----------------------------------------------------------------------------------------------


def predict(args: argparse.Namespace) -> int:
    """``eoc predict``: kept per layer."""
    from ..pruning.prediction import predict_pruning
    from .networks import describe, network

    net, data = network(args)
    with working("predicting", args.progress):
        found = predict_pruning(
            net,
            _sparsities(args),
            criterion=args.criterion,
            data=data,
            **_sampling(args),
            **_method(args),
        )
        _ = found.collapse_probability  # computed when it is first read: while progress is shown
    if args.json:
        print_json(found.to_dict())
    else:
        say(describe(args, net, data))
        _print_prediction(found, args.all_layers)
    return _picture(found, args)


def _print_prediction(found: PruningPrediction, every: bool) -> None:
    kept, std, empty = (np.atleast_2d(a) for a in (found.kept, found.kept_std, found.empty_probability))
    chances = np.atleast_1d(found.collapse_probability)
    errors, bounds = (np.atleast_1d(a) for a in (found.kept_error, found.kept_error_bound))
    zeros, way = _zeros(found), method(found.method, found.samples)
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
    for note in found.notes:
        say(f"note: {note}")


def _zeros(found: PruningPrediction) -> list[str]:
    """A column, heading first: the fraction of each layer's scores that are 0. Empty if there is none."""
    zeros = np.broadcast_to(np.asarray(found.zero_scores, dtype=float), (len(found.layers),))
    if not np.nan_to_num(zeros).any():
        return []
    return ["zero scores", *(f"{zero:.4f}" for zero in zeros)]


def collapse(args: argparse.Namespace) -> int:
    """``eoc collapse``: the distribution of the critical sparsity."""
    from ..pruning.collapse import predict_collapse
    from ..pruning.prediction import check_sparsities
    from .networks import describe, network

    net, data = network(args)
    asked = check_sparsities(args.sparsity) if args.sparsity else np.array([])
    with working("predicting", args.progress):
        found = predict_collapse(
            net,
            criterion=args.criterion,
            data=data,
            **_sampling(args),
            **_method(args),
        )
    if args.json:
        chances = {"sparsity": asked, "probability": found.probability(asked)} if len(asked) else {}
        print_json({**found.to_dict(), **chances})
        return _picture(found, args)
    say(describe(args, net, data))
    low, median, high = (sparsity(float(found.quantile(p))) for p in (0.1, 0.5, 0.9))
    first = float(found.weakest_probability.max())
    facts = [
        ("method", found.method),
        (
            "critical sparsity",
            f"mean {sparsity(found.critical_sparsity)}, median {median}, 80 % in {low} to {high}",
        ),
        ("weakest layer", f"{found.weakest_layer}, the first to collapse in {first:.0%} of the networks"),
        ("paper's bound", "no theorem applies or binds" if found.bound is None else sparsity(found.bound)),
    ]
    facts += [(f"P(collapse) at {s:.15g}", probability(float(found.probability(float(s))))) for s in asked]
    wrong = f"{found.median_error:.2g}; in nine networks of ten under {found.median_error_bound:.2g}"
    facts.append(("expected error", f"{wrong} (of the median, in log10 of 1 - s)"))
    print_facts(facts)
    for note in found.notes:
        say(f"note: {note}")
    return _picture(found, args)


def compare(args: argparse.Namespace) -> int:
    """``eoc compare``: theory beside experiment."""
    from ..base import checks
    from ..reports.compare import MOST_SEEDS
    from ..reports.compare import compare as run
    from .networks import describe, network

    net, data = network(args)
    first = checks.integer("seed", args.seed, minimum=0)
    seeds = range(first, first + checks.integer("seeds", args.seeds, 1, MOST_SEEDS))
    with bar("pruning networks:", "predicting", args.progress) as progress:
        found = run(
            net,
            _sparsities(args),
            criterion=args.criterion,
            data=data,
            seeds=seeds,
            **_method(args),
            progress=progress,
        )
    if args.json:
        print_json(found.to_dict())
    else:
        say(describe(args, net, data))
        _print_comparison(found, args.all_layers)
    code = _picture(found, args)
    if not found.complete:
        say(f"eoc compare: interrupted after {len(found.seeds)} of {len(seeds)} seeds", file=sys.stderr)
        return 1
    return code


def _print_comparison(found: Comparison, every: bool) -> None:
    predicted, spread = (np.atleast_2d(a) for a in (found.prediction.kept, found.prediction.kept_std))
    measured, measured_spread = (np.atleast_2d(a) for a in (found.measured_kept, found.measured_std))
    zeros = _zeros(found.prediction)
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
    for note in found.prediction.notes:
        say(f"note: {note}")


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


def diagnose(args: argparse.Namespace) -> int:
    """``eoc diagnose``: what is wrong with a torch model's initialisation."""
    from ..base import checks
    from ..reports.diagnosis import diagnose as run
    from ..reports.plots.interactive import require_plotly

    seed = checks.integer("seed", args.seed, minimum=0)
    if args.interactive and args.html is None:
        raise ArgumentError("interactive goes with a page: --html FILE")
    if args.interactive:
        require_plotly()  # before the minutes of work, not after them
    model, shape, data = _own_model(args, seed)
    with working("diagnosing", args.progress):
        found = run(
            model,
            shape,
            sparsity=args.sparsity,
            criterion=args.criterion,
            data=data,
            method=args.method,
            seed=seed,
            loss=args.loss,
            exclude=args.exclude or (),
            device=args.device,
        )
    if args.json:
        print_json(found.to_dict())
    else:
        _print_diagnosis(found, args)
    if args.html is not None:
        found.to_html(args.html, title=args.model, interactive=args.interactive)
        if not args.json:
            say(f"\npage: {args.html}")
    return _picture(found, args)


def _own_model(args: argparse.Namespace, seed: int) -> tuple[Any, tuple[int, ...] | None, Any]:
    """The model of MODULE:FACTORY, the shape of a batch for it, and its data; None for what is not given."""
    from .loading import load_model
    from .networks import load_data

    shape = None if args.input_shape is None else tuple(args.input_shape)
    # Images are digits enlarged; vectors are digits as they are.
    kind = "mlp" if shape is None or len(shape) == 1 else "cnn"
    data = load_data(
        argparse.Namespace(
            data=args.data, data_folder=args.data_folder, batch=args.batch, kind=kind, image=shape
        )
    )
    return load_model(args.model, seed), None if shape is None else (2, *shape), data


def _print_diagnosis(found: Diagnosis, args: argparse.Namespace) -> None:
    from ..reports.diagnosis.table import columns

    width = line_width()
    say(f"{args.model}: {len(found.layers)} weight layers, {int(found.weights.sum())} weights\n")
    for heading, text in found.paragraphs:
        print_prose(heading, text, min(width, 100))
    positions = shown_layers(len(found.layers), args.all_layers)
    made = columns(found, positions)
    left = next((i for i, column in enumerate(made) if not column.left), len(made))
    print_table(
        [column.heading for column in made],
        list(zip(*(column.cells for column in made), strict=True)),
        left=left,
        note=thinned(len(found.layers), args.all_layers),
    )


def design(args: argparse.Namespace) -> int:
    """``eoc design``: the inverse problem."""
    from ..reports.design import design as run
    from ..reports.design.summary_text import (
        CANDIDATE_HEADINGS,
        CANDIDATE_NOTE,
        LAYER_HEADINGS,
        candidate_rows,
        layer_rows,
    )

    net, shape, data = _own_or_described(args)
    with working("designing", args.progress) as said:
        found = run(
            net,
            args.sparsity,
            criterion=args.criterion,
            data=data,
            goal=args.goal,
            method=args.method,
            example_input=shape,
            max_collapse_probability=args.max_collapse_probability,
            networks=args.networks,
            seed=args.seed,
            progress=said,
        )
    if args.json:
        print_json(found.to_dict())
        return _picture(found, args)
    args.criterion = found.criterion
    say(f"{_heading(args, net, data)}\n")
    print_prose("Design", found.verdict, min(line_width(), 100))
    if found.feasible:
        say("In Python, with a torch model, data and this design:")
        say("\n".join(f"  {step}" for step in found.steps), end="\n\n")
    print_table(CANDIDATE_HEADINGS, candidate_rows(found), note=CANDIDATE_NOTE)
    say()
    print_table(
        LAYER_HEADINGS,
        layer_rows(found, shown_layers(len(found.layers), args.all_layers)),
        note=thinned(len(found.layers), args.all_layers),
    )
    return _picture(found, args)


def trainability(args: argparse.Namespace) -> int:
    """``eoc trainability``: Jacobian and neural tangent kernel."""
    from ..pytorch.measure.measure import measure_pruning
    from ..pytorch.trainability import trainability as run

    net, shape, data = _own_or_described(args)
    with working("measuring" if args.model else "predicting", args.progress):
        asked: dict[str, Any] = {"sparsity": args.sparsity, "criterion": args.criterion}
        if args.model is not None:
            masks = None
            if args.sparsity > 0.0:
                masks = measure_pruning(
                    net, **asked, data=data, example_input=shape, seed=args.seed, collapse=False
                ).masks
            asked = {"masks": masks, "example_input": shape}
        found = run(net, **asked, data=data, method=args.method, inputs=args.inputs, seed=args.seed)
    if args.json:
        print_json(found.to_dict())
        return _picture(found, args)
    say(f"{_heading(args, net, data)}\n")
    _print_trainability(found, args)
    return _picture(found, args)


def _print_trainability(found: Trainability, args: argparse.Namespace) -> None:
    facts = [
        ("method", found.method),
        ("Jacobian, mean s²", f"{found.jacobian_mean:.4g}"),
        ("Jacobian, variance of s²", f"{found.jacobian_variance:.4g}"),
        ("NTK, condition number", f"{found.kernel_condition:.4g}"),
        ("NTK, effective rank", f"{found.effective_rank:.4g} of {len(found.kernel)}"),
        ("NTK, log of its scale", f"{found.kernel_log_scale:.4g}"),
    ]
    print_facts(facts)
    say()
    rows = [
        (
            found.layers[i],
            f"{found.kept[i]:.4f}",
            f"{found.layer_gain[i]:.4g}",
            f"{found.layer_variance[i]:.4g}",
            "–" if math.isnan(found.chi[i]) else f"{found.chi[i]:.4g}",
        )
        for i in shown_layers(len(found.layers), args.all_layers)
    ]
    headings = ("layer", "kept", "mean s²", "variance", "χ")
    print_table(headings, rows, note=thinned(len(found.layers), args.all_layers))
    for note in found.notes:
        print_prose("Note", f"{note}.", min(line_width(), 100))


def _own_or_described(args: argparse.Namespace) -> tuple[Any, tuple[int, ...] | None, Any]:
    """The model of MODULE:FACTORY or the network of the options, the shape of a batch, and the data."""
    from ..base import checks
    from .networks import described_only, network

    seed = checks.integer("seed", args.seed, minimum=0)
    if args.model is not None:
        described_only(args)
        return _own_model(args, seed)
    if args.input_shape is not None:
        raise ArgumentError("input_shape goes with MODULE:FACTORY only; other networks have --image")
    if args.depth is None:
        raise ArgumentError("depth must be given, --depth L, or a model of your own, MODULE:FACTORY")
    net, data = network(args)
    return net, None, data


def _heading(args: argparse.Namespace, net: Any, data: Any) -> str:
    """The network, the criterion and the batch in one line."""
    from .networks import batch_of, describe

    if args.model is None:
        return describe(args, net, data)
    return f"{args.model}; {args.criterion}, {batch_of(args, data)}"


def _sparsities(args: argparse.Namespace) -> Any:
    """One number where one was given, so that results have no sparsity axis."""
    return args.sparsity[0] if len(args.sparsity) == 1 else args.sparsity


def _sampling(args: argparse.Namespace) -> dict[str, int]:
    """The seed, and the number of samples where one was given; else the library's own default."""
    return {"seed": args.seed} | ({} if args.samples is None else {"samples": args.samples})


def _method(args: argparse.Namespace) -> dict[str, Any]:
    """The way to the prediction."""
    return {"method": args.method, "exclude": args.exclude, "device": args.device}


def _picture(found: Any, args: argparse.Namespace) -> int:
    if args.plot is not None:
        found.plot(args.plot)
        if not args.json:
            say(f"\npicture: {args.plot}")
    return 0
