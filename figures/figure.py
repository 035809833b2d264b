"""What a figure is: results that are computed once and stored, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
FORMATS = (".png", ".pdf")

Results = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class FigureScript:
    """A figure of the project.

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
        results = self.results(recompute)
        paths = [folder / f"{self.name}{suffix}" for suffix in FORMATS]
        for path in paths:
            self.draw(results, path)
        return paths
