"""``python -m analysis run|list|summary|export``: run studies, and see what they found."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

from eoc_theory.cli.output import INTERRUPTED, drop_output, prepare_streams, say
from eoc_theory.cli.parser import OneLineParser, whole
from eoc_theory.errors import EOCError, MissingDependencyError

from .engine import WorkerError
from .store import Store, StoreError, reading
from .studies import STUDIES
from .study import Place, Study
from .tables import TABLES

#: Processes that one run may start.
MOST_WORKERS = 1024
#: The stores that the project's figures are drawn from.
DRAWN = Path(__file__).resolve().parent.parent / "figures" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; exit status 0 done, 1 a failure while running, 2 unusable arguments."""
    prepare_streams()
    try:
        options = _parser().parse_args(arguments)
        status = options.do(options)
        sys.stdout.flush()
        return status
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except EOCError as error:
        say(f"analysis: {error}", file=sys.stderr)
        return 1 if isinstance(error, (StoreError, MissingDependencyError, WorkerError)) else 2
    except KeyboardInterrupt:
        say("analysis: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        drop_output()
        return 1


def _run(options: argparse.Namespace) -> int:
    import analysis

    from .executors import cluster, processes

    study = _study(options)
    store = _store(options)
    if options.dry_run:
        return _dry_run(options, study, store)
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
        say(f"analysis: interrupted; {_progress(study, store)}. To go on: {_again(options)}", file=sys.stderr)
        return INTERRUPTED
    with suppress(OSError):
        work.rmdir()  # where trainings that failed have left nothing
    anew = f", {outcome.damaged} of them in place of damaged rows" if outcome.damaged else ""
    say(f"{outcome.done} results written to {store}{anew}, {outcome.before} were there")
    if outcome.failures:
        task, reason = outcome.failures[0]
        say(
            f"analysis: {len(outcome.failures)} of {outcome.tasks} tasks failed; the first: {reason} "
            f"({task.measure.name}, {task.criterion}, seed {task.seed}, {task.network})",
            file=sys.stderr,
        )
        return 1
    return 0


def _dry_run(options: argparse.Namespace, study: Study, store: Path) -> int:
    """Say what a run would do, and do nothing."""
    from eoc_theory.cli.output import print_table

    from .estimates import LAUNCHES, SUSTAINED, estimates

    tasks, kept = list(study.tasks()), set()
    if store.exists():
        with reading(store) as found:
            kept = found.keys() & {task.key for task in tasks}
    say(f"study {study.name}: {len(tasks)} tasks, {len(kept)} of them kept in {store}")
    trained = estimates(study, kept)
    if trained:
        rows = [
            (
                f"{one.network.kind} {one.network.depth} × {one.network.width}", one.data, str(one.trainings),
                f"{one.weights / 1e6:.2f}", f"{one.operations:.1e}", f"{one.hours:,.1f}",
            )
            for one in trained
        ]  # fmt: skip
        columns = ("network", "data", "trainings", "weights / 10⁶", "operations", "GPU hours")
        print_table(columns, rows, left=2)
        hours, count = sum(one.hours for one in trained), sum(one.trainings for one in trained)
        say(
            f"{count} trainings, about {hours:,.0f} hours of one GPU that sustains {SUSTAINED:.0e} "
            "operations a second in bfloat16 (half of that in float32) and takes "
            f"{1e6 * LAUNCHES:.0f} µs a layer and step at least: a guess, no measurement. Three passes a "
            "step, dense; reading data, pruning and testing come on top"
        )
    say(
        f"A run that is stopped goes on where it was: results are kept one by one, a training every "
        f"{Place().checkpoint_seconds:g} seconds. To go on: {_again(options)}"
    )
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
    from .summaries import SUMMARIES, show

    with _results(options) as results:
        frames = {one.name: one.lines(results) for one in SUMMARIES}
        digest, count, study = results.digest(), len(results), results.study
    if options.json:
        from eoc_theory.cli.output import print_json

        lines = {name: frame.to_dict(orient="records") for name, frame in frames.items()}
        print_json({"study": study, "results": count, "digest": digest, **lines})
        return 0
    for one in SUMMARIES:
        show(one, frames[one.name])
    say(f"{count} results of study {study}; digest {digest[:16]}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from .tables import check_export, export

    check_export(options.file)
    with _results(options) as results:
        try:
            table, lines = export(results, options.file, options.table)
        except OSError as error:
            say(f"analysis: {options.file} cannot be written: {error.strerror or error}", file=sys.stderr)
            return 1
    say(f"{lines} lines of table {table} written to {options.file}")
    return 0


def _study(options: argparse.Namespace) -> Study:
    study = STUDIES[options.study]
    return study.quick() if options.quick else study


def _store(options: argparse.Namespace) -> Path:
    store = Path("results", f"{options.study}.sqlite") if options.store is None else options.store
    if not store.name:
        raise StoreError(f"store must be a file, got {str(store)!r}")
    return store


def _results(options: argparse.Namespace) -> AbstractContextManager[Store]:
    """The study's store, to read.

    Raises:
        StoreError: there is none, with what to do, or it cannot be used.
    """
    path = _store(options)
    if options.store is None and not path.exists():
        kept = DRAWN / path.name
        instead = f"; --store {shlex.quote(os.path.relpath(kept))} has what the figures show"
        raise StoreError(
            f"store {str(path)!r} does not exist: python -m analysis run {options.study} makes it"
            + (instead if kept.is_file() else "")
        )
    return reading(path)


# --- options ------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m analysis",
        description="Runs studies: grids of networks, predicted and really pruned, one results file each.",
        epilog="example: python -m analysis run phases --quick --workers 2",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    made = commands.add_parser("run", help="run a study, or continue one", allow_abbrev=False)
    _of_study(made)
    made.add_argument(
        "--resume", action="store_true", help="continue a run: keep the results that the store holds"
    )
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="number of processes, of one thread each (default: only this one)",
    )
    where.add_argument("--scheduler", metavar="tcp://…", help="address of a dask.distributed scheduler")
    made.add_argument(
        "--quick", action="store_true", help="a part of the study: fewer seeds, no deep networks"
    )
    made.add_argument(
        "--dry-run",
        action="store_true",
        help="only say what there is to do: tasks, sizes, hours of one GPU, how to go on after a stop",
    )
    made.add_argument("--device", default="auto", help="auto, cpu, cuda … (default: auto)")
    made.add_argument(
        "--data-folder",
        type=Path,
        metavar="DIR",
        help="folder with the files of mnist, cifar10 …, if they are not cached",
    )
    made.set_defaults(do=_run)
    made = commands.add_parser("list", help="list the studies", allow_abbrev=False)
    made.set_defaults(do=_list)
    made = commands.add_parser(
        "summary", help="show theory beside measurement, by network", allow_abbrev=False
    )
    _of_study(made)
    made.add_argument("--json", action="store_true", help="print only JSON")
    made.set_defaults(do=_summary)
    made = commands.add_parser("export", help="write all numbers as CSV or Parquet", allow_abbrev=False)
    _of_study(made)
    made.add_argument("file", type=Path, metavar="FILE", help="file to write, .csv or .parquet")
    made.add_argument(
        "--table",
        choices=TABLES,
        help="one line for each network and sparsity, each of their layers, each trained network, each "
        "distribution of the critical sparsity, each error of a prediction, or each row of the store as it "
        "is (default: the first for which the store has results)",
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
    if count > MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"must be at most {MOST_WORKERS}, got {count}")
    return count


if __name__ == "__main__":
    sys.exit(main())
