"""What each layer keeps and how large its scores are, as tables: prediction beside real networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .measures_error import kept_errors
from .rows import described, grouped, head, number, numbers, of_measure, ordered
from .store import Row, Store

if TYPE_CHECKING:
    import pandas as pd

#: Decimal logarithms: what factors are read from.
DECADES = 1.0 / np.log(10.0)


def kept(row: Row) -> np.ndarray:
    """Fraction of each layer's weights that is kept, shape (sparsities, layers)."""
    found = row.found
    if row.measure == "pruning":
        return numbers(found["kept_weights"]) / numbers(found["weights"])
    return numbers(found["kept"])


def layers_frame(store: Store) -> pd.DataFrame:
    """One line a row, sparsity and layer: the fraction kept; of theory its spread and chance to be empty.

    Of the layers' score moments what there is: `log_score_moment` of a real network, or, beside that of the
    last layer, `log_moment` with `log_moment_std` and `log_moment_limit` (at infinite width).
    """
    import pandas as pd

    lines = []
    for rows in grouped(_rows(store, "theory", "pruning", "predicted-layers", "measured-layers")):
        names = next((row.found["layers"] for row in rows if "layers" in row.found), None)
        for row in rows:
            found, fractions = row.found, kept(row)
            weights = found.get("weights")
            for index, sparsity in enumerate(row.asked["sparsities"]):
                start = head(row, sparsity)
                for layer in range(fractions.shape[1]):
                    lines.append(
                        {
                            **start,
                            "layer": layer,
                            "name": None if names is None else names[layer],
                            **({} if weights is None else {"weights": weights[layer]}),
                            "kept": float(fractions[index, layer]),
                            **_of_layer(found, index, layer),
                        }
                    )
    return pd.DataFrame(lines)


def _of_layer(found: dict[str, Any], index: int, layer: int) -> dict[str, float]:
    """What else a row says of a layer, at the sparsity of that index."""
    by_sparsity = {
        name: number(found[name][index][layer]) for name in ("kept_std", "empty_probability") if name in found
    }
    alone = {"log_score_moments": "log_score_moment"} | {
        name: name for name in ("log_moment", "log_moment_std", "log_moment_limit")
    }
    return by_sparsity | {
        column: number(found[name][layer]) for name, column in alone.items() if name in found
    }


def summarise_layers(store: Store) -> pd.DataFrame:
    """One line a network, criterion, sparsity and layer, of the measures of layers: theory and measurement.

    Columns beside those of `described`: `sparsity`; `layer`, counted from 0, and its `name`; `seeds`, how
    many real networks; `kept` and `kept_std`, fraction kept and its standard deviation from network to
    network, predicted; `measured_kept`, `measured_kept_std` and the standard error `kept_error` of the
    measured mean; the same of `log_moment`, log₁₀ of the mean squared score beside the last layer's.
    """
    import pandas as pd

    lines = []
    for what, law, seen in _pairs(store):
        of_names = law["layers"] if law is not None else [None] * len(seen[0]["log_moment"])
        for index, sparsity in enumerate(what.pop("sparsities")):
            kept_columns = _columns(
                "kept",
                None if law is None else [law["kept"][index], law["kept_std"][index]],
                [one["kept"][index] for one in seen],
                len(of_names),
            )
            moments = _columns(
                "log_moment",
                None if law is None else [law["log_moment"], law["log_moment_std"]],
                [one["log_moment"] for one in seen],
                len(of_names),
                DECADES,
            )
            for layer, name in enumerate(of_names):
                line = {**what, "sparsity": sparsity, "layer": layer, "name": name, "seeds": len(seen)}
                both = kept_columns | moments
                lines.append({**line, **{column: float(values[layer]) for column, values in both.items()}})
    return ordered(pd.DataFrame(lines))


def _columns(
    name: str, law: list[Any] | None, seen: list[Any], layers: int, unit: float = 1.0
) -> dict[str, np.ndarray]:
    """Mean and standard deviation predicted, then those measured with the mean's standard error, by layer."""
    blank = np.full(layers, np.nan)
    predicted, spread = (blank, blank) if law is None else (numbers(one) * unit for one in law)
    drawn = np.array(seen, dtype=float).reshape(len(seen), layers) * unit
    several = len(drawn) > 1
    deviation = drawn.std(axis=0, ddof=1) if several else blank
    return {
        name: predicted,
        f"{name}_std": spread,
        f"measured_{name}": drawn.mean(axis=0) if len(drawn) else blank,
        f"measured_{name}_std": deviation,
        f"{name}_error": deviation / np.sqrt(len(drawn)) if several else blank,
    }


def summarise_kept(store: Store) -> pd.DataFrame:
    """One line a network, criterion and sparsity, of the measures of layers: how far the prediction is off.

    Columns beside those of `described`: `sparsity`, `seeds`; `kept_error`, the mean over layers of
    |predicted − measured| fraction kept, with its `standard_error` (jackknife over networks);
    `worst_error`, the largest of a layer, and its name `worst_layer`; `kept_std` and `measured_kept_std`,
    standard deviations from network to network, mean over layers; `moment_error`, the mean over layers of
    |predicted − measured| log₁₀ of the mean squared score beside the last layer's.
    """
    import pandas as pd

    lines = []
    for what, law, seen in _pairs(store):
        sparsities = what.pop("sparsities")
        if law is None or len(seen) < 2:
            continue
        fractions = numbers([one["kept"] for one in seen])
        predicted = numbers(law["kept"])
        found = kept_errors(predicted, fractions)
        off = np.abs(predicted - fractions.mean(axis=0))
        moments = numbers([one["log_moment"] for one in seen]).mean(axis=0)
        for index, sparsity in enumerate(sparsities):
            worst = int(np.argmax(off[index]))
            lines.append(
                {
                    **what,
                    "sparsity": sparsity,
                    "seeds": len(seen),
                    "kept_error": found["error"][index],
                    "standard_error": found["error_deviation"][index],
                    "worst_error": off[index, worst],
                    "worst_layer": law["layers"][worst],
                    "kept_std": numbers(law["kept_std"])[index].mean(),
                    "measured_kept_std": found["measured_std"][index],
                    "moment_error": DECADES * np.abs(numbers(law["log_moment"]) - moments).mean(),
                }
            )
    return ordered(pd.DataFrame(lines))


def _pairs(store: Store) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None, list[dict[str, Any]]]]:
    """For each network, criterion and batch: its description with `sparsities`; prediction; measurements."""
    for rows in grouped(_rows(store, "predicted-layers", "measured-layers")):
        law = next(iter(of_measure(rows, "predicted-layers")), None)
        what = {**described(rows[0]), "sparsities": rows[0].asked["sparsities"]}
        yield what, law, of_measure(rows, "measured-layers")


def _rows(store: Store, *measures: str) -> Iterator[Row]:
    for row in store.rows():
        if row.measure in measures:
            yield row
