"""How far predictions are off, as tables: what the measure `error` found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .rows import described, head, number, numbers, ordered
from .store import Store

if TYPE_CHECKING:
    import pandas as pd


def errors_frame(store: Store) -> pd.DataFrame:
    """One line a network, criterion and sparsity: see `analysis.measures_error.error` for the numbers.

    `kept_error` with its standard error `kept_error_deviation` (there `error` and `error_deviation`);
    `root_mean_square` and `noise`, roots of `square` and `noise_square`; the spreads of kept; and of
    log₁₀(1 − s_cr), which is the same on all lines of a network, the gap and the spreads. `networks` is the
    number of real ones.
    """
    import pandas as pd

    lines = []
    for row in store.rows("error"):
        found = row.found
        for index, sparsity in enumerate(row.asked["sparsities"]):
            lines.append(
                {
                    **head(row, sparsity),
                    "networks": found["seeds"],
                    "layers": found["layers"],
                    "weights": found["weights"],
                    "kept_error": number(found["error"][index]),
                    "kept_error_deviation": number(found["error_deviation"][index]),
                    "root_mean_square": float(np.sqrt(number(found["square"][index]))),
                    "noise": float(np.sqrt(number(found["noise_square"][index]))),
                    "predicted_std": number(found["predicted_std"][index]),
                    "measured_std": number(found["measured_std"][index]),
                    **{
                        name: number(found[name])
                        for name in ("gap", "gap_deviation", "predicted_spread", "measured_spread")
                    },
                    "seconds": row.seconds,
                    "device": row.device,
                }
            )
    return pd.DataFrame(lines)


def summarise_errors(store: Store) -> pd.DataFrame:
    """One line a network and criterion: errors of the predictions, and the spreads over networks.

    Columns beside those of `described`: `networks`, how many were pruned; `kept_error`, the mean over layers
    and sparsities of |predicted − measured| fraction kept; `worst_error`, that of the sparsity `worst_at`,
    where it is largest, with its `standard_error`; `predicted_std` and `measured_std`, the standard
    deviation of kept from network to network, mean over layers and sparsities; `gap`, predicted less measured
    median of log₁₀(1 − s_cr), with the measured one's standard error `gap_error`; `predicted_spread` and
    `measured_spread`, standard deviations of log₁₀(1 − s_cr).
    """
    import pandas as pd

    lines = []
    for row in store.rows("error"):
        found, sparsities = row.found, row.asked["sparsities"]
        error, deviation = numbers(found["error"]), numbers(found["error_deviation"])
        worst = int(np.argmax(error))
        line: dict[str, Any] = {
            **described(row),
            "networks": found["seeds"],
            "kept_error": error.mean(),
            "worst_error": error[worst],
            "standard_error": deviation[worst],
            "worst_at": sparsities[worst],
            "predicted_std": numbers(found["predicted_std"]).mean(),
            "measured_std": numbers(found["measured_std"]).mean(),
            "gap": number(found["gap"]),
            "gap_error": number(found["gap_deviation"]),
            "predicted_spread": number(found["predicted_spread"]),
            "measured_spread": number(found["measured_spread"]),
            "seconds": row.seconds,
        }
        lines.append(line)
    return ordered(pd.DataFrame(lines))
