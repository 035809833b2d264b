"""``eoc diagnose``, ``eoc design`` and ``eoc trainability``: of a torch model or a described network."""

from __future__ import annotations

import argparse
import math
from typing import Any

from ...base import checks
from ...base.formatting import shown_layers
from ...errors import ArgumentError
from ...pruning.trainability import Trainability
from ...pytorch.measure.measure import measure_pruning
from ...pytorch.trainability import trainability as run_trainability
from ...reports.design import Design
from ...reports.design import design as run_design
from ...reports.design.summary_text import (
    CANDIDATE_HEADINGS,
    CANDIDATE_NOTE,
    LAYER_HEADINGS,
    candidate_rows,
    layer_rows,
)
from ...reports.diagnosis import Diagnosis
from ...reports.diagnosis import diagnose as run_diagnose
from ...reports.diagnosis.table import columns
from ...reports.plots.interactive import require_plotly
from ..loading import load_model
from ..networks import batch_of, describe, described_only, load_data, network
from ..output import line_width, print_facts, print_json, print_prose, print_table, say, thinned
from ..progress import working
from .results import drawn, told


def diagnose(args: argparse.Namespace) -> int:
    """``eoc diagnose``: what is wrong with a torch model's initialisation."""
    seed = checks.integer("seed", args.seed, minimum=0)
    if args.interactive and args.html is None:
        raise ArgumentError("interactive goes with a page: --html FILE")
    if args.interactive:
        require_plotly()  # before the minutes of work, not after them
    model, shape, data = _own_model(args, seed)
    with working("diagnosing", args.progress):
        found = run_diagnose(
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
    return drawn(args, found)


def _print_diagnosis(found: Diagnosis, args: argparse.Namespace) -> None:

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
    net, shape, data = _own_or_described(args)
    with working("designing", args.progress) as said:
        found = run_design(
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

    def show() -> None:
        args.criterion = found.criterion
        say(f"{_heading(args, net, data)}\n")
        _print_design(found, args.all_layers)

    return told(args, found, show)


def _print_design(found: Design, every: bool) -> None:
    print_prose("Design", found.verdict, min(line_width(), 100))
    if found.feasible:
        say("In Python, with a torch model, data and this design:")
        say("\n".join(f"  {step}" for step in found.steps), end="\n\n")
    print_table(CANDIDATE_HEADINGS, candidate_rows(found), note=CANDIDATE_NOTE)
    say()
    depth = len(found.layers)
    print_table(LAYER_HEADINGS, layer_rows(found, shown_layers(depth, every)), note=thinned(depth, every))


def trainability(args: argparse.Namespace) -> int:
    """``eoc trainability``: Jacobian and neural tangent kernel."""
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
        found = run_trainability(
            net, **asked, data=data, method=args.method, inputs=args.inputs, seed=args.seed
        )

    def show() -> None:
        say(f"{_heading(args, net, data)}\n")
        _print_trainability(found, args)

    return told(args, found, show)


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


def _own_model(args: argparse.Namespace, seed: int) -> tuple[Any, tuple[int, ...] | None, Any]:
    """The model of MODULE:FACTORY, the shape of a batch for it, and its data; None for what is not given."""
    shape = None if args.input_shape is None else tuple(args.input_shape)
    # Images are digits enlarged; vectors are digits as they are.
    kind = "mlp" if shape is None or len(shape) == 1 else "cnn"
    data = load_data(
        argparse.Namespace(
            data=args.data, data_folder=args.data_folder, batch=args.batch, kind=kind, image=shape
        )
    )
    return load_model(args.model, seed), None if shape is None else (2, *shape), data


def _own_or_described(args: argparse.Namespace) -> tuple[Any, tuple[int, ...] | None, Any]:
    """The model of MODULE:FACTORY or the network of the options, the shape of a batch, and the data."""
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
    if args.model is None:
        return describe(args, net, data)
    return f"{args.model}; {args.criterion}, {batch_of(args, data)}"
