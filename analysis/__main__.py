"""``python -m analysis run|list|summary|export``: run studies, and see what they found."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from eoc_theory.cli.parser import OneLineParser, whole
from eoc_theory.errors import EOCError, MissingDependencyError

from .engine import WorkerError
from .store import StoreError, reading
from .studies import STUDIES
from .study import Place, Study
from .tables import TABLES

#: What the shell says of a command that Ctrl-C ended.
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; exit status 0 done, 1 a failure while running, 2 unusable arguments."""
    try:
        options = _parser().parse_args(arguments)
        return options.do(options)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except EOCError as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 1 if isinstance(error, (StoreError, MissingDependencyError, WorkerError)) else 2
    except KeyboardInterrupt:
        print("analysis: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    import analysis

    from .executors import cluster, processes

    study = _study(options)
    store = _store(options)
    folder, work = options.data_folder, store.with_name(store.name + ".work").absolute()
    place = Place(options.device, None if folder is None else str(folder.absolute()), str(work))
    try:
        with ExitStack() as opened:
            executor = None
            if options.scheduler is not None:
                executor = opened.enter_context(cluster(options.scheduler))
            elif options.workers is not None:
                executor = opened.enter_context(processes(options.workers))
            progress = opened.enter_context(_bar(study.name))
            outcome = analysis.run(
                study, store, executor=executor, resume=options.resume, place=place, progress=progress
            )
    except KeyboardInterrupt:
        print(
            f"analysis: interrupted; {_progress(study, store)}. To go on: {_again(options)}", file=sys.stderr
        )
        return INTERRUPTED
    with suppress(OSError):
        work.rmdir()  # where trainings that failed have left nothing
    print(f"{outcome.done} results written to {store}, {outcome.before} were there")
    if outcome.failures:
        task, reason = outcome.failures[0]
        print(
            f"analysis: {len(outcome.failures)} of {outcome.tasks} tasks failed; the first: {reason} "
            f"({task.measure.name}, {task.criterion}, seed {task.seed}, {task.network})",
            file=sys.stderr,
        )
        return 1
    return 0


def _progress(study: Study, store: Path) -> str:
    try:
        with reading(store) as found:
            count = len(found)
    except StoreError:
        count = 0  # not even begun
    return f"{count} of {len(list(study.tasks()))} results are kept in {store}"


def _bar(name: str) -> Any:
    from eoc_theory.cli.progress import bar

    return bar(f"study {name}", f"study {name}")


def _again(options: argparse.Namespace) -> str:
    """The command that goes on from here."""
    words = ["python", "-m", "analysis", "run", options.study]
    words += ["--quick"] if options.quick else []
    words += ["--workers", str(options.workers)] if options.workers is not None else []
    words += ["--scheduler", options.scheduler] if options.scheduler is not None else []
    words += ["--store", str(options.store)] if options.store is not None else []
    words += ["--data-folder", str(options.data_folder)] if options.data_folder is not None else []
    words += ["--device", options.device] if options.device != "auto" else []
    return shlex.join([*words, "--resume"])


def _list(options: argparse.Namespace) -> int:
    from eoc_theory.cli.output import print_table

    rows = [
        (study.name, study.about, str(len(list(study.tasks()))), str(len(list(study.quick().tasks()))))
        for study in STUDIES.values()
    ]
    print_table(("study", "what for", "tasks", "--quick"), rows, left=2)
    return 0


def _summary(options: argparse.Namespace) -> int:
    from .tables import collapses_frame, summarise, summarise_training

    with reading(_store(options)) as results:
        frame, trained = summarise(results), summarise_training(results)
        collapses = collapses_frame(results)
        digest, count, study = results.digest(), len(results), results.study
    if options.json:
        from eoc_theory.cli.output import print_json

        print_json(
            {
                "study": study,
                "results": count,
                "digest": digest,
                "networks": frame.to_dict(orient="records"),
                "trained": trained.to_dict(orient="records"),
                "collapses": collapses.to_dict(orient="records"),
            }
        )
        return 0
    from eoc_theory.cli.output import print_table

    lines: Any = frame.itertuples()
    rows = [
        (
            _network(one),
            str(one.init),
            str(one.criterion),
            str(one.seeds),
            _shown(one.critical_sparsity),
            _shown(one.measured_critical_sparsity),
            _shown(one.standard_error),
            _shown(one.kept_error),
            f"{one.seconds:.1f}",
        )
        for one in lines
    ]
    heads = (
        "network", "init", "criterion", "seeds", "s_cr", "measured", "±", "kept error", "seconds",
    )  # fmt: skip
    if rows:
        print_table(heads, rows, left=3)
    lines = trained.itertuples()
    rows = [
        (
            _network(one),
            str(one.init),
            str(one.criterion),
            f"{one.sparsity:g}",
            str(one.rescale),
            str(one.seeds),
            _shown(one.accuracy),
            _shown(one.standard_error),
        )
        for one in lines
    ]
    heads = ("network", "init", "criterion", "sparsity", "rescaled", "seeds", "test accuracy", "±")
    if rows:
        print_table(heads, rows, left=3)
    if len(collapses):
        _print_collapses(collapses)
    print(f"{count} results of study {study}; digest {digest[:16]}")
    return 0


def _print_collapses(frame: Any) -> None:
    """Networks one after the other, each with its criteria."""
    from eoc_theory.cli.output import print_table

    rows, before = [], None
    for one in frame.itertuples():
        network = _network(one), str(one.init)
        rows.append(
            (
                *(network if network != before else ("", "")),
                str(one.criterion),
                *(_left(value) for value in (one.low, one.median, one.high)),
                _left(one.measured_median),
                str(one.seeds),
                "–" if one.gap != one.gap else f"{one.gap:+.2f}",
                "–" if one.gap_error != one.gap_error else f"{one.gap_error:.2f}",
                *(n if isinstance(n, str) else "–" for n in (one.weakest_layer, one.measured_weakest_layer)),
            )
        )
        before = network
    heads = (
        "network", "init", "criterion", "s_cr 10 %", "median", "90 %", "measured", "seeds", "Δ log₁₀(1−s)",
        "±", "first to go", "measured",
    )  # fmt: skip
    print_table(heads, rows, left=3)


def _network(one: Any) -> str:
    """A network in a few letters."""
    normalised = f" {one.normalisation}" if isinstance(one.normalisation, str) else ""
    return f"{one.kind} {one.activation} {one.depth}x{one.width}{normalised}"


def _shown(value: float) -> str:
    return "–" if value != value else f"{value:.4f}"


def _left(sparsity: float) -> str:
    """Four decimals, or two digits of 1 − s where these are more."""
    if sparsity == 1.0:
        return "1"
    digits = 4
    while digits < 15 and round(1.0 - sparsity, digits) < 10.0 ** (1 - digits):
        digits += 1
    return "–" if sparsity != sparsity else f"{sparsity:.{digits}f}"


def _export(options: argparse.Namespace) -> int:
    from .tables import check_export, export

    check_export(options.file)
    with reading(_store(options)) as results:
        try:
            lines = export(results, options.file, options.table)
        except OSError as error:
            print(f"analysis: {options.file} cannot be written: {error.strerror or error}", file=sys.stderr)
            return 1
    print(f"{lines} lines written to {options.file}")
    return 0


def _study(options: argparse.Namespace) -> Study:
    study = STUDIES[options.study]
    return study.quick() if options.quick else study


def _store(options: argparse.Namespace) -> Path:
    return Path("results", f"{options.study}.sqlite") if options.store is None else options.store


# --- options ------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m analysis",
        description="Studies: grids of networks, predicted and really pruned, with results in one file each.",
        epilog="example: python -m analysis run phases --quick --workers 2",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    made = commands.add_parser("run", help="run a study, or go on with one", allow_abbrev=False)
    _of_study(made)
    made.add_argument("--resume", action="store_true", help="go on where the store holds results already")
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=_workers, metavar="N", help="processes of one thread each (default: this one alone)"
    )
    where.add_argument("--scheduler", metavar="tcp://…", help="address of a dask.distributed scheduler")
    made.add_argument("--quick", action="store_true", help="fewer seeds, no deep networks; part of the whole")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda … (default: auto)")
    made.add_argument(
        "--data-folder",
        type=Path,
        metavar="DIR",
        help="where the files of mnist, cifar10 … are, if not cached",
    )
    made.set_defaults(do=_run)
    made = commands.add_parser("list", help="the studies there are", allow_abbrev=False)
    made.set_defaults(do=_list)
    made = commands.add_parser("summary", help="theory beside measurement, by network", allow_abbrev=False)
    _of_study(made)
    made.add_argument("--json", action="store_true", help="print JSON alone")
    made.set_defaults(do=_summary)
    made = commands.add_parser("export", help="all numbers as CSV or Parquet", allow_abbrev=False)
    _of_study(made)
    made.add_argument("file", type=Path, metavar="FILE", help="ends in .csv or .parquet")
    made.add_argument(
        "--table",
        choices=TABLES,
        default="networks",
        help="a line for each network and sparsity, each layer of these, each trained network, or each row "
        "of the store as it is (default: networks)",
    )
    made.set_defaults(do=_export)
    return parser


def _of_study(made: argparse.ArgumentParser) -> None:
    made.add_argument("study", metavar="STUDY", choices=tuple(STUDIES), help=", ".join(STUDIES))
    made.add_argument(
        "--store", type=Path, metavar="FILE", help="the results file (default: results/STUDY.sqlite)"
    )


def _workers(text: str) -> int:
    count = whole(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {count}")
    return count


if __name__ == "__main__":
    sys.exit(main())
