"""What a store holds, as tables: theory beside measurement in short, and all numbers for other programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eoc_theory.errors import ArgumentError, MissingDependencyError
from eoc_theory.errors.text import printable

from .measures_collapse import levels, median_error
from .rows import described, grouped, head, number, numbers, of_measure, ordered
from .store import Row, Store, StoreError
from .tables_error import errors_frame
from .tables_layers import kept, layers_frame
from .training import LATER

if TYPE_CHECKING:
    import pandas as pd


def summarise(store: Store) -> pd.DataFrame:
    """One line a network and criterion: critical sparsity and kept weights, predicted and measured.

    Columns beside those of `described`: `seeds`; `critical_sparsity` predicted, `measured_critical_sparsity`
    with the standard error of its mean; `kept_error`, the mean over layers and sparsities of |predicted −
    measured| fraction kept, the measured one averaged over seeds; `seconds` of all tasks.
    """
    import pandas as pd

    lines = []
    for rows in grouped(_scored(store)):
        theory = next((row for row in rows if row.measure == "theory"), None)
        measured = [row for row in rows if row.measure == "pruning"]
        line: dict[str, Any] = {**described(rows[0]), "seeds": len(measured)}
        seconds = sum(row.seconds for row in measured)
        line["critical_sparsity"] = np.nan
        if theory is not None:
            line["critical_sparsity"] = number(theory.found["critical_sparsity"])
            seconds += theory.seconds
        critical = np.array([number(row.found["critical_sparsity"]) for row in measured])
        line["measured_critical_sparsity"] = critical.mean() if len(critical) else np.nan
        spread = critical.std(ddof=1) / np.sqrt(len(critical)) if len(critical) > 1 else np.nan
        line["standard_error"] = spread
        line["kept_error"] = np.nan
        if theory is not None and measured:
            mean = np.mean([kept(row) for row in measured], axis=0)
            line["kept_error"] = float(np.abs(kept(theory) - mean).mean())
        lines.append({**line, "seconds": seconds})
    return ordered(pd.DataFrame(lines))


def _scored(store: Store) -> Iterator[Row]:
    """Predictions and measurements of pruning."""
    for row in store.rows():
        if row.measure in ("theory", "pruning"):
            yield row


def networks_frame(store: Store) -> pd.DataFrame:
    """One line a row and sparsity: what is kept in all, how many layers are empty, the critical sparsity."""
    import pandas as pd

    lines = []
    for row in _scored(store):
        found, fractions = row.found, kept(row)
        weights = np.array(found["weights"], dtype=float)
        for index, sparsity in enumerate(row.asked["sparsities"]):
            theory = row.measure == "theory"
            lines.append(
                {
                    **head(row, sparsity),
                    "kept": float(fractions[index] @ weights / weights.sum()),
                    "least_kept": float(fractions[index].min()),
                    "collapse": number(found["collapse_probability"][index])
                    if theory
                    else float((fractions[index] == 0).any()),
                    "critical_sparsity": number(found["critical_sparsity"]),
                    "weakest_layer": found["weakest_layer"],
                    "seconds": row.seconds,
                    "device": row.device,
                }
            )
    return pd.DataFrame(lines)


def training_frame(store: Store) -> pd.DataFrame:
    """One line a trained network: how it was trained, how well it does, what its weakest layer kept."""
    import pandas as pd

    lines = []
    for row in store.rows("training"):
        asked, found = row.asked, row.found
        lines.append(
            {
                **head(row, asked["sparsities"][0]),
                **{name: asked["settings"][name] for name in ("epochs", "learning_rate", "rescale")},
                "arrangement": asked["settings"].get("arrangement", LATER["arrangement"]),
                "accuracy": number(found["accuracy"]),
                "train_loss": number(found["train_loss"][-1]),
                "diverged": found["diverged"],
                "revived": found["revived"],
                "least_kept": found["least_kept"],
                "seconds": row.seconds,
                "device": row.device,
            }
        )
    return pd.DataFrame(lines)


def summarise_training(store: Store) -> pd.DataFrame:
    """One line for each kind of training: mean test accuracy over seeds, and its standard error."""
    import pandas as pd

    frame = training_frame(store)
    if frame.empty:
        return frame
    ways = [
        "kind", "activation", "depth", "width", "normalisation", "init", "criterion", "sparsity",
        "arrangement", "rescale", "learning_rate",
    ]  # fmt: skip
    # Also what is no column, such as epochs: only seeds are averaged over.
    asked = pd.Series([row.hash for row in store.rows("training")], name="hash")
    grouped = frame.groupby([asked, *ways], dropna=False, sort=False)["accuracy"]
    found = grouped.agg(seeds="size", accuracy="mean", standard_error="sem")
    return ordered(found.reset_index().drop(columns="hash"))


def collapses_frame(store: Store) -> pd.DataFrame:
    """One line a network and criterion: the law of s_cr predicted, and what was measured of it.

    Columns beside those of `described`: predicted quantiles `low` (10 %), `median` and `high` (90 %) and
    `weakest_layer`; of `seeds` real networks `measured_median`, the least and the most, and the layer that
    collapsed first most often; `gap`, predicted less measured median of log₁₀(1 − s_cr), and `gap_error`,
    the standard error of the measured one.
    """
    import pandas as pd

    measures = ("predicted-collapse", "measured-collapse")
    lines = []
    for rows in grouped(row for row in store.rows() if row.measure in measures):
        line: dict[str, Any] = described(rows[0])
        theory = next(iter(of_measure(rows, "predicted-collapse")), None)
        law = np.full(3, np.nan)
        if theory is not None:
            law = np.interp((0.1, 0.5, 0.9), levels(len(theory["quantiles"])), theory["quantiles"])
        found = of_measure(rows, "measured-collapse")
        drawn = numbers([s for one in found for s in one["critical_sparsity"]])
        middle = float(np.median(drawn)) if len(drawn) else np.nan
        # A network of one layer loses it with its last weight, at s = 1.
        both = law[1] < 1.0 and middle < 1.0
        names = Counter(name for one in found for name in one["weakest_layer"])
        lines.append(
            {
                **line,
                "low": law[0],
                "median": law[1],
                "high": law[2],
                "weakest_layer": theory["weakest_layer"] if theory else None,
                "seeds": len(drawn),
                "measured_median": middle,
                "measured_least": drawn.min() if len(drawn) else np.nan,
                "measured_most": drawn.max() if len(drawn) else np.nan,
                "measured_weakest_layer": names.most_common(1)[0][0] if names else None,
                "gap": float(np.log10((1.0 - law[1]) / (1.0 - middle))) if both else np.nan,
                "gap_error": _gap_error(drawn) if both else np.nan,
                "seconds": sum(row.seconds for row in rows),
            }
        )
    return ordered(pd.DataFrame(lines))


def _gap_error(drawn: np.ndarray) -> float:
    """Standard error of the median of log₁₀(1 − s_cr); some of them may be 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return median_error(np.log10(1.0 - drawn))


def rows_frame(store: Store) -> pd.DataFrame:
    """One line a row, of whatever measure: what was asked, and every single number or word that was found.

    A setting with the name of another column, such as training's `batch`, is `setting_batch`.
    """
    import pandas as pd

    lines = []
    for row in store.rows():
        asked = row.asked
        sparsities = asked["sparsities"]
        start = head(row, sparsities[0] if len(sparsities) == 1 else float("nan"))
        found = {name: value for name, value in row.found.items() if not isinstance(value, (list, dict))}
        taken = start.keys() | found.keys()
        lines.append(
            {
                **start,
                **{f"setting_{k}" if k in taken else k: v for k, v in asked["settings"].items()},
                **found,
                "seconds": row.seconds,
                "device": row.device,
            }
        )
    return pd.DataFrame(lines)


TABLES = {
    "networks": networks_frame,
    "layers": layers_frame,
    "training": training_frame,
    "collapses": collapses_frame,
    "errors": errors_frame,
    "rows": rows_frame,
}


def check_export(path: Path) -> None:
    """Whether a table can be written to `path`.

    Raises:
        ArgumentError: another suffix than .csv or .parquet. MissingDependencyError: no pyarrow for Parquet.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise ArgumentError(f"file must end in .csv or .parquet, got {str(path)!r}")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # type: ignore[import-not-found]  # noqa: F401
        except ImportError:
            raise MissingDependencyError(
                "a .parquet file needs pyarrow, which is not installed: pip install pyarrow, or write .csv"
            ) from None


def export(store: Store, path: Path, table: str | None = None) -> tuple[str, int]:
    """Write one of `TABLES` to a .csv or .parquet file; gives its name and the number of lines.

    Without `table` it is the first that the store has something for.

    Raises:
        ArgumentError, MissingDependencyError: see `check_export`. StoreError: nothing for this table.
    """
    check_export(path)
    for name in TABLES if table is None else (table,):
        frame = TABLES[name](store)
        if not frame.empty:
            break
    else:
        others = [name for name, make in TABLES.items() if not make(store).empty]
        instead = f"it has {', '.join(others)}" if others else "it is empty"
        what = "any table" if table is None else f"table {table!r}"
        raise StoreError(f"store {str(store.path)!r} holds nothing for {what}: {instead}")
    # Words as they may be shown: a file is read in a terminal, too, and no format takes lone surrogates.
    for column in frame.select_dtypes(include=["object", "string"]):
        frame[column] = [printable(cell) if isinstance(cell, str) else cell for cell in frame[column]]
    if path.suffix == ".csv":
        frame.to_csv(path, index=False, lineterminator="\n")
    else:
        frame.to_parquet(path, index=False)
    return name, len(frame)
