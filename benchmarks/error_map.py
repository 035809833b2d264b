"""Fits the error map that predictions carry (eoc_theory/pruning/error_map.json) to stored measurements.

    python -m benchmarks.error_map          # fits, validates, writes the map, prints the report
    python -m benchmarks.error_map --check  # the same, and writes nothing: exit 1 if the map would change

The measurements: results of the studies `trust`, `trust-criteria`, `trust-rounds` and `trust-graphs` in
figures/results, and the tables benchmarks/accuracy.csv and benchmarks/networks.csv. For each class of
networks

    expected error = constant · predicted spread from network to network

by the quasi-likelihood of a positive number of that mean. What a measurement's own noise adds to an error is
part of the mean, so that it is not laid to the theory. The factor of the bound comes from leaving out one
configuration after the other; activations in HELD_OUT are fitted to nowhere. The report also says what powers
of width and depth would add or do instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import eoc_theory as eoc
from eoc_theory.networks.architecture import Architecture
from eoc_theory.pruning.error_model import LEVEL, kind_of, size_of

HERE = Path(__file__).parent
RESULTS = HERE.parent / "figures" / "results"
MAP = Path(eoc.__file__).parent / "pruning" / "error_map.json"
STUDIES = ("trust", "trust-criteria", "trust-rounds", "trust-graphs")
HELD_OUT = ("elu", "gelu")
GRAPHS = ("convolutional", "normalised convolutional", "residual", "normalised residual")
#: E|z| of a standard normal variable, squared.
HALF_NORMAL = 2 / np.pi
#: Smaller spreads are taken for these.
LEAST_SPREAD = {"kept": 1e-4, "collapse": 1e-2}
#: What the measurements do not tell from no error: a tenth of the spread, or 0.01 in log10(1 - s_cr).
RESOLUTION = {("kept", True): 0.1, ("collapse", True): 0.1, ("collapse", False): 0.01}
#: The factor of a bound is at least so much where fewer configurations than that say what it is.
FEW, FACTOR_OF_FEW = 10, 2.0
#: Significant digits of the map's numbers.
DIGITS = 3


@dataclass(frozen=True)
class Observation:
    """One comparison of a prediction with a measurement.

    Attributes:
        what: "kept" or "collapse".
        configuration: equal for those of one network and criterion.
        kind, width, depth: see `eoc_theory.pruning.error_model`.
        sparsities: lowest and highest that the error is a mean over; () for "collapse".
        spread: predicted from network to network.
        error: measured, absolute.
        noise: what the measurement's own error would make of it alone.
    """

    what: str
    configuration: str
    criterion: str
    activation: str
    kind: str
    width: float
    depth: int
    sparsities: tuple[float, ...]
    spread: float
    error: float
    noise: float

    @property
    def true_error(self) -> float:
        """The error less what the measurement's noise adds."""
        return float(np.sqrt(max(self.error**2 - self.noise**2, 0.0)))


@dataclass(frozen=True)
class Model:
    """Powers of the expected error: `fitted` ones, and 1 of the spread if it is `proportional`."""

    fitted: tuple[str, ...]
    proportional: bool


@dataclass(frozen=True)
class Group:
    """Observations with one entry in the map; the error is `proportional` to the spread, or one number."""

    what: str
    criterion: str
    kinds: tuple[str, ...]
    proportional: bool = True

    def chosen(self, found: Sequence[Observation]) -> list[Observation]:
        """Those of `found` that belong here."""
        here = [one for one in found if (one.what, one.criterion) == (self.what, self.criterion)]
        return [one for one in here if one.kind in self.kinds]


OTHERS = ("magnitude", "synflow-oneshot", "synflow")
#: SNIP of other networks, and GraSP, are sampled: theirs is the error of a mean. The tables of convolutional
#: networks do not hold the spread of s_cr.
GROUPS = (
    *(Group("kept", criterion, ("chain",)) for criterion in ("snip", *OTHERS, "random")),
    *(Group("kept", criterion, GRAPHS) for criterion in OTHERS),
    *(Group("collapse", criterion, ("chain",)) for criterion in ("snip", *OTHERS, "random")),
    *(Group("collapse", criterion, GRAPHS, proportional=False) for criterion in OTHERS),
)
#: Powers that are fitted in place of the map's, or beside them, for the report.
ALTERNATIVES = {
    "one number": Model((), False),
    "width, depth": Model(("width", "depth"), False),
    "spread (the map)": Model((), True),
    "spread to a power": Model(("spread",), True),
    "spread, width, depth": Model(("width", "depth"), True),
}


# --- what has been measured ---------------------------------------------------------------------------------


def observations() -> list[Observation]:
    """All that is stored of predictions that no network was sampled for."""
    stored = [*_of_studies(), *_of_accuracy(), *_of_networks()]
    return [one for group in GROUPS for one in group.chosen(stored)]


def _of_studies() -> Iterator[Observation]:
    from analysis import reading
    from analysis.study import Batch, Network

    for study in STUDIES:
        with reading(RESULTS / f"{study}.sqlite") as store:
            for row in store.rows("error"):
                asked, found = row.asked, row.found
                network, batch = Network(**_initialised(asked["network"])), Batch(**asked["data"])
                image = (64,) if network.kind == "mlp" else tuple(batch.shape or ())
                net = network.build(image, 10)
                common = (row.hash, asked["criterion"], network.activation, *_place(net))
                for at, sparsity in enumerate(asked["sparsities"]):
                    yield Observation(
                        "kept", *common, (sparsity,), found["predicted_std"][at], found["error"][at],
                        float(np.sqrt(HALF_NORMAL * found["noise_square"][at])),
                    )  # fmt: skip
                if found["gap"] is not None:
                    yield Observation(
                        "collapse", *common, (), found["predicted_spread"], abs(found["gap"]),
                        float(np.sqrt(HALF_NORMAL)) * found["gap_deviation"],
                    )  # fmt: skip


def _initialised(network: dict[str, Any]) -> dict[str, Any]:
    init = network["init"]
    return network | {"init": init if isinstance(init, str) else tuple(init)}


def _place(net: Architecture) -> tuple[str, float, int]:
    return kind_of(net), *size_of(net)


def _of_accuracy() -> Iterator[Observation]:
    """Fully connected networks, up to width 1000; errors are means over the sparsities."""
    import pandas as pd

    from benchmarks.accuracy import SPARSITIES

    for row in pd.read_csv(HERE / "accuracy.csv").itertuples():
        cells: Any = row
        if cells.criterion in ("uniform", "erk"):
            continue
        width, depth = (int(text) for text in cells.network.split("x"))
        yield Observation(
            "kept", f"{cells.network} {cells.activation} {cells.phase} {cells.criterion}", cells.criterion,
            cells.activation, "chain", float(width), depth, (min(SPARSITIES), max(SPARSITIES)),
            cells.spread_ratio * cells.standard_error * np.sqrt(cells.seeds), cells.mae,
            float(np.sqrt(HALF_NORMAL)) * cells.standard_error,
        )  # fmt: skip


def _of_networks() -> Iterator[Observation]:
    """Convolutional and residual networks, of the widths they have in practice."""
    import pandas as pd

    from benchmarks.networks import SPARSITIES, cases

    networks = {(f"{c.family}{c.depth}", c.variant): c for c in cases()}
    for row in pd.read_csv(HERE / "networks.csv").to_dict(orient="records"):
        net = networks[row["network"], row["variant"]].network
        name = " ".join(str(row[part]) for part in ("network", "variant", "images", "criterion"))
        common = (name, row["criterion"], "", *_place(net))
        mean = float(np.mean([row[f"mae_{sparsity}"] for sparsity in SPARSITIES]))
        spread = row["spread_ratio"] * row["noise"] * np.sqrt(row["seeds"])
        noise = float(np.sqrt(HALF_NORMAL)) * row["noise"]
        yield Observation("kept", *common, (min(SPARSITIES), max(SPARSITIES)), spread, mean, noise)
        if row["s_cr_gap"] == row["s_cr_gap"]:
            yield Observation("collapse", *common, (), 0.0, abs(row["s_cr_gap"]), 0.0)


# --- the fit ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """log of the expected error = constant + Σ powers · logs."""

    constant: float
    powers: dict[str, float]

    def expected(self, chosen: Sequence[Observation]) -> np.ndarray:
        """Expected errors, shape (n,)."""
        logs = _logs(chosen)
        return np.exp(self.constant + sum(power * logs[name] for name, power in self.powers.items()))


def _logs(chosen: Sequence[Observation]) -> dict[str, np.ndarray]:
    return {
        "spread": np.log([max(one.spread, LEAST_SPREAD[one.what]) for one in chosen]),
        "width": np.log([one.width for one in chosen]),
        "depth": np.log([one.depth for one in chosen]),
    }


def fit(model: Model, chosen: Sequence[Observation]) -> Fit:
    """Minimises Σ w (e/m + log m), m² = f² + noise²; each configuration has the same weight in all."""
    from scipy.optimize import minimize

    logs = _logs(chosen)
    error, noise = (np.array([getattr(one, name) for one in chosen]) for name in ("error", "noise"))
    weight = weights(chosen)
    fixed = {"spread": float(model.proportional), "width": 0.0, "depth": 0.0}
    free = [name for name in fixed if name in model.fitted]
    offset = sum((fixed[name] * logs[name] for name in fixed if name not in free), np.zeros(len(chosen)))
    # Centred, for the sake of the search.
    centres = {name: float(weight @ logs[name]) for name in free}
    columns = np.column_stack([np.ones(len(chosen)), *(logs[name] - centres[name] for name in free)])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        squares = np.exp(2 * (columns @ parameters + offset))
        # SynFlow's median is exact, and so is its measurement.
        mean = np.sqrt(squares + noise**2 + 1e-20)
        slope = weight * (1 - error / mean) * squares / mean**2
        return float(weight @ (error / mean + np.log(mean))), slope @ columns

    start = np.zeros(columns.shape[1])
    start[0] = float(np.log(max(weight @ error, 1e-12)) - np.log(weight @ np.exp(offset)))
    found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 500}).x
    powers = fixed | {name: float(power) for name, power in zip(free, found[1:], strict=True)}
    constant = float(found[0]) - sum(powers[name] * centres[name] for name in free)
    if not free:
        constant = max(constant, float(np.log(RESOLUTION.get((chosen[0].what, model.proportional), 1e-9))))
    return Fit(constant, powers)


def left_out(model: Model, chosen: Sequence[Observation]) -> np.ndarray:
    """Expected errors, shape (n,): each configuration's by a fit to all others; an only one's by its own."""
    expected = fit(model, chosen).expected(chosen)
    names = dict.fromkeys(one.configuration for one in chosen)
    for name in names if len(names) > 1 else ():
        others = fit(model, [one for one in chosen if one.configuration != name])
        here = [one.configuration == name for one in chosen]
        expected[here] = others.expected([one for one in chosen if one.configuration == name])
    return expected


def weights(chosen: Sequence[Observation]) -> np.ndarray:
    """Of the observations, equal for all configurations, of sum 1."""
    names = [one.configuration for one in chosen]
    counts = {name: names.count(name) for name in set(names)}
    return np.array([1 / counts[name] for name in names]) / len(counts)


def quantile(values: np.ndarray, weight: np.ndarray, level: float, count: int) -> float:
    """Weighted quantile at the level that holds for one more than `count`; at most the largest value."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order])
    at = int(np.searchsorted(reached, min(level * (count + 1) / count, 1.0) - 1e-12))
    return float(values[order[min(at, len(values) - 1)]])


def entry(group: Group, found: Sequence[Observation]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The map's entry of a group, and what the report says of it."""
    inside = group.chosen(found)
    chosen = [one for one in inside if one.activation not in HELD_OUT]
    held = [one for one in inside if one.activation in HELD_OUT]
    model = Model((), group.proportional)
    count = len({one.configuration for one in chosen})
    ratios = np.array([one.true_error for one in chosen]) / left_out(model, chosen)
    weight = weights(chosen)
    factor = max(quantile(ratios, weight, LEVEL, count), FACTOR_OF_FEW if count < FEW else 1.0)
    whole = fit(model, chosen)
    made = {
        "criterion": group.criterion,
        "kinds": list(group.kinds),
        "proportional": group.proportional,
        "constant": short(float(np.exp(whole.constant))),
        "least_spread": LEAST_SPREAD[group.what],
        "bound_factor": short(factor, up=True),
        "width": [short(pick(one.width for one in chosen)) for pick in (min, max)],
        "depth": [pick(one.depth for one in chosen) for pick in (min, max)],
        "configurations": count,
    }
    if group.what == "kept":
        made["sparsity"] = [pick(s for one in chosen for s in one.sparsities) for pick in (min, max)]
    report = {
        "what": group.what,
        "criterion": group.criterion,
        "kinds": group.kinds[0] if len(group.kinds) == 1 else "all with positions",
        "n": count,
        "constant": made["constant"],
        "factor": made["bound_factor"],
        "typical": float(weight @ [one.true_error for one in chosen]),
        "covered": float(weight @ (ratios <= made["bound_factor"])),
    }
    if held:
        off = np.array([one.true_error for one in held]) / whole.expected(held)
        report["held_out"] = len({one.configuration for one in held})
        report["held_out_covered"] = float(weights(held) @ (off <= made["bound_factor"]))
    return made, report


def alternatives(found: Sequence[Observation]) -> list[dict[str, Any]]:
    """How well other models do for SNIP in fully connected networks, each configuration left out in turn.

    `loss` is the quasi-likelihood's, less that of one number for all; `factor` that of the bound.
    """
    lines = []
    for what in ("kept", "collapse"):
        chosen = [
            one for one in Group(what, "snip", ("chain",)).chosen(found) if one.activation not in HELD_OUT
        ]
        weight = weights(chosen)
        error, noise, true = (
            np.array([getattr(one, name) for one in chosen]) for name in ("error", "noise", "true_error")
        )
        first = None
        for name, model in ALTERNATIVES.items():
            expected = left_out(model, chosen)
            mean = np.sqrt(expected**2 + noise**2)
            loss = float(weight @ (error / mean + np.log(mean)))
            first = loss if first is None else first
            factor = quantile(true / expected, weight, LEVEL, len({one.configuration for one in chosen}))
            lines.append({"what": what, "error by": name, "loss": loss - first, "factor": factor})
    return lines


def short(value: float, up: bool = False) -> float:
    """`value` to DIGITS significant digits, so that the map is the same bytes everywhere; `up`: not less."""
    rounded = float(f"{value:.{DIGITS}g}")
    if up and rounded < value:
        rounded = float(f"{value * (1 + 10.0 ** (1 - DIGITS) / 2):.{DIGITS}g}")
    return rounded


def build(found: Sequence[Observation]) -> tuple[str, list[dict[str, Any]]]:
    """The map as the text of its file, and the report's lines."""
    result: dict[str, Any] = {"level": LEVEL, "kept": [], "collapse": []}
    lines = []
    for group in GROUPS:
        made, line = entry(group, found)
        result[group.what].append(made)
        lines.append(line)
    return json.dumps(result, indent=1) + "\n", lines


def main() -> int:
    import pandas as pd

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the map would change")
    check = parser.parse_args().check
    found = observations()
    text, lines = build(found)
    for table in (lines, alternatives(found)):
        print(
            pd.DataFrame(table).to_string(index=False, float_format="{:.3g}".format, na_rep="-"), end="\n\n"
        )
    same = MAP.exists() and MAP.read_text(encoding="utf-8") == text
    if check:
        print("the map is as stored" if same else "the stored map differs")
        return int(not same)
    MAP.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
