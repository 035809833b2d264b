"""What a figure is: results that are computed once and stored, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eoc_theory.errors import EOCError

if TYPE_CHECKING:
    from analysis import Store, Study

HERE = Path(__file__).parent
FORMATS = (".png", ".pdf")

Results = Mapping[str, np.ndarray]


class FigureError(EOCError):
    """A figure's results cannot be had; the reason in one line."""


@dataclass(frozen=True)
class FigureScript:
    """A figure of the project, drawn from arrays that it computes itself and keeps in figures/data.

    Attributes:
        name: what the command line and the files call it.
        caption: what it shows, in one sentence.
        compute: makes the results; the same bits on every run.
        draw: draws them into the file it is given.
    """

    name: str
    caption: str
    compute: Callable[[], Results]
    draw: Callable[[Results, Path], object]

    @property
    def data(self) -> Path:
        """Where the results are stored."""
        return HERE / "data" / f"{self.name}.npz"

    def results(self, recompute: bool = False) -> Results:
        """The stored results; computed and stored first where they are missing or asked for anew."""
        if recompute or not self.data.exists():
            self.data.parent.mkdir(exist_ok=True)
            arrays: dict[str, Any] = dict(self.compute())
            np.savez_compressed(self.data, **arrays)
        with np.load(self.data, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    def render(self, folder: Path = HERE, *, recompute: bool = False) -> list[Path]:
        """Writes the figure in every format of FORMATS, and says where."""
        return _rendered(self.name, self.draw, self.results(recompute), folder)


@dataclass(frozen=True)
class StudyFigure:
    """A figure drawn from what a study found; the study's results file is kept in figures/results.

    Attributes:
        name, caption, draw: as of `FigureScript`.
        study: the study, as it was run for the figure.
        reduce: the arrays to draw, from the study's results.
    """

    name: str
    caption: str
    study: Study
    reduce: Callable[[Store], Results]
    draw: Callable[[Results, Path], object]

    @property
    def data(self) -> Path:
        """The study's results file."""
        return HERE / "results" / f"{self.study.name}.sqlite"

    def results(self, recompute: bool = False) -> Results:
        """What the stored results say; the study is run first where they are missing or asked for anew.

        A study that is stopped loses nothing it had finished: the next call goes on with it.

        Raises:
            FigureError: a task of the study failed, or the results are not those that the study asks for.
            StoreError: the results file cannot be used.
        """
        from analysis import reading

        if recompute or not self.data.exists():
            self._run()
        with reading(self.data) as store:
            missing, others = len(self._keys() - store.keys()), len(store.keys() - self._keys())
            if missing or others:
                raise FigureError(
                    f"{str(self.data)!r} lacks {missing} results of study {self.study.name!r} and holds "
                    f"{others} of another form of it: {self.name} is not drawn; --recompute runs the study"
                )
            return self.reduce(store)

    def _keys(self) -> set[tuple[str, int]]:
        return {task.key for task in self.study.tasks()}

    def _run(self) -> None:
        import os

        from analysis import reading, run
        from analysis.executors import processes

        # Beside the stored ones, which stay until all is there.
        new = self.data.with_suffix(".new.sqlite")
        if new.exists():
            with reading(new) as begun:
                foreign = not begun.keys() <= self._keys()
            if foreign:
                # Begun when the study was another one; what a kill left beside it belongs to it.
                for suffix in ("", "-wal", "-shm"):
                    new.with_name(new.name + suffix).unlink(missing_ok=True)
        with processes(os.cpu_count() or 1) as executor:
            outcome = run(self.study, new, executor=executor, resume=True)
        if outcome.failures:
            task, reason = outcome.failures[0]
            raise FigureError(
                f"{len(outcome.failures)} tasks of study {self.study.name!r} failed, the first with {reason} "
                f"({task.criterion}, seed {task.seed}, {task.network}); {self.name} is as it was"
            )
        new.replace(self.data)

    def render(self, folder: Path = HERE, *, recompute: bool = False) -> list[Path]:
        """Writes the figure in every format of FORMATS, and says where."""
        return _rendered(self.name, self.draw, self.results(recompute), folder)


def _rendered(
    name: str, draw: Callable[[Results, Path], object], results: Results, folder: Path
) -> list[Path]:
    paths = [folder / f"{name}{suffix}" for suffix in FORMATS]
    for path in paths:
        draw(results, path)
    return paths
