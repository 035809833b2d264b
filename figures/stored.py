"""What a study's results file says, by network and criterion, for the figures drawn from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from analysis import Network, Store

Array = np.ndarray


def by_network(store: Store, measure: str) -> dict[tuple[Network, str], list[dict[str, Any]]]:
    """Results of a measure, in the order of the seeds, by network and criterion."""
    from analysis import Network

    found: dict[tuple[Network, str], list[dict[str, Any]]] = {}
    for row in store.rows(measure):
        asked = row.asked
        init = asked["network"].pop("init")
        network = Network(**asked["network"], init=init if isinstance(init, str) else tuple(init))
        found.setdefault((network, asked["criterion"]), []).append(row.found)
    return found


def collapses(store: Store, names: dict[str, tuple[Network, str]]) -> dict[str, Array]:
    """Arrays for each name's network and criterion, without those that the store does not hold.

    `NAME_predicted`: quantiles of s_cr, evenly spaced in probability (`analysis.measures_collapse.levels`);
    `NAME_measured`: s_cr of real networks in increasing order; `NAME_bound`: the paper's, nan if void.
    """
    predicted, measured = (by_network(store, f"{kind}-collapse") for kind in ("predicted", "measured"))
    arrays: dict[str, Array] = {}
    for name, key in names.items():
        if key in predicted:
            (law,) = predicted[key]
            arrays[f"{name}_predicted"] = np.array(law["quantiles"], dtype=float)
            arrays[f"{name}_bound"] = np.array(np.nan if law["bound"] is None else law["bound"])
        if key in measured:
            drawn = [float(s) for one in measured[key] for s in one["critical_sparsity"]]
            arrays[f"{name}_measured"] = np.sort(np.array(drawn))
    return arrays
