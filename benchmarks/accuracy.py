"""Predicted against measured pruning of real MLPs on digits: kept, its spread, the critical sparsity.

    python -m benchmarks.accuracy measure --width 100 --seeds 100     # hours for width 1000; goes on where it
    stopped python -m benchmarks.accuracy report                              # predicts and prints the tables

Measurements are kept one file a configuration in benchmarks/measured/, written when the configuration is
done.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import eoc_theory as eoc
from eoc_theory.networks.architecture import mlp

if TYPE_CHECKING:
    import pandas as pd

STORE = Path(__file__).parent / "measured"
SPARSITIES = (0.5, 0.7, 0.9, 0.98)
#: Bias scale, and σ_w over its edge-of-chaos value in the three phases. GELU has no stable critical point at
#: σ_b = 0.2 and at 1.15 its variance explodes; ReLU off its single critical point is given biases.
SIGMA_B = {"tanh": 0.2, "elu": 0.2, "gelu": 0.5, "relu": 0.0}
FACTORS = {"ordered": 0.85, "critical": 1.0, "chaotic": 1.15}
CRITERIA = ("snip", "grasp", "magnitude", "synflow-oneshot", "synflow", "random", "uniform", "erk")


@dataclass(frozen=True)
class Case:
    activation: str
    phase: str
    width: int
    depth: int
    criterion: str = "snip"

    @property
    def path(self) -> Path:
        return STORE / f"{self.activation}_{self.phase}_{self.width}x{self.depth}_{self.criterion}.npz"

    @property
    def scales(self) -> tuple[float, float]:
        """(σ_w, σ_b)."""
        sigma_b = SIGMA_B[self.activation]
        critical = eoc.edge_of_chaos(self.activation, sigma_b=sigma_b).sigma_w
        factor = 1.05 if (self.activation, self.phase) == ("gelu", "chaotic") else FACTORS[self.phase]
        if self.activation == "relu" and self.phase != "critical":
            sigma_b = 0.2
        return critical * factor, sigma_b

    @property
    def network(self) -> eoc.Architecture:
        return mlp(self.depth, self.width, activation=self.activation, init=self.scales)


def measure(case: Case, seeds: int, data: tuple[np.ndarray, np.ndarray]) -> None:
    """Prune `seeds` networks and store kept (seeds, n_s, L) and s_cr (seeds,)."""
    net = case.network
    kept, critical = [], []
    started = time.perf_counter()
    for seed in range(seeds):
        result = eoc.measure_pruning(
            net.to_torch(seed), SPARSITIES, criterion=case.criterion, data=data, seed=seed, masks=False
        )
        kept.append(result.kept)
        critical.append(result.critical_sparsity)
    seconds = (time.perf_counter() - started) / seeds
    STORE.mkdir(exist_ok=True)
    partial = case.path.with_suffix(".partial.npz")
    np.savez(partial, kept=np.array(kept, dtype=np.float32), s_cr=np.array(critical), seconds=seconds)
    os.replace(partial, case.path)


def compare(case: Case, data: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Errors of the prediction against the stored measurement."""
    with np.load(case.path, allow_pickle=False) as stored:
        kept, critical, seconds = stored["kept"].astype(float), stored["s_cr"], float(stored["seconds"])
    net = case.network
    started = time.perf_counter()
    predicted = eoc.predict_pruning(net, SPARSITIES, criterion=case.criterion, data=data)
    spent = time.perf_counter() - started
    collapse = eoc.predict_collapse(net, criterion=case.criterion, data=data)
    error = np.abs(predicted.kept - kept.mean(axis=0)).mean(axis=1)
    measured_std = kept.std(axis=0, ddof=1)
    low, median, high = (float(collapse.quantile(p)) for p in (0.1, 0.5, 0.9))
    return {
        "seeds": len(kept),
        "mae": float(error.mean()),
        "worst_sparsity_mae": float(error.max()),
        "standard_error": float(measured_std.mean() / np.sqrt(len(kept))),
        "spread_ratio": float(predicted.kept_std.mean() / max(measured_std.mean(), 1e-12)),
        "s_cr_error": float(np.log10(1 - median) - np.log10(1 - np.median(critical))),
        "s_cr_in_band": float(np.mean((critical >= low) & (critical <= high))),
        "measure_seconds": seconds,
        "predict_seconds": spent,
    }


def cases(args: argparse.Namespace) -> list[Case]:
    return [
        Case(activation, phase, width, depth, criterion)
        for width in args.width
        for depth in args.depth
        for criterion in args.criterion
        for activation in args.activation
        for phase in args.phase
    ]


def report(chosen: list[Case], data: tuple[np.ndarray, np.ndarray]) -> None:
    import pandas as pd

    rows = []
    for case in chosen:
        if case.path.exists():
            rows.append(
                {
                    "criterion": case.criterion,
                    "network": f"{case.width}x{case.depth}",
                    "activation": case.activation,
                    "phase": case.phase,
                    **compare(case, data),
                }
            )
            if sys.stderr.isatty():
                print(f"\r{len(rows)} configurations", end="", file=sys.stderr)
    if not rows:
        print("nothing measured yet: run `python -m benchmarks.accuracy measure` first", file=sys.stderr)
        raise SystemExit(1)
    frame = pd.DataFrame(rows)
    frame.to_csv(STORE.parent / "accuracy.csv", index=False, float_format="%.5g")
    with pd.option_context("display.width", 200, "display.max_rows", None, "display.max_columns", None):
        print(frame.to_string(index=False, float_format=lambda v: f"{v:.4f}"))
        print()
        print(summary(frame).to_string())


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a criterion and network size."""
    grouped = frame.groupby(["criterion", "network"], sort=False)
    return grouped.agg(
        configurations=("mae", "size"),
        mae_mean=("mae", "mean"),
        mae_worst=("mae", "max"),
        spread_low=("spread_ratio", "min"),
        spread_median=("spread_ratio", "median"),
        spread_high=("spread_ratio", "max"),
        s_cr_worst=("s_cr_error", lambda v: v.abs().max()),
        s_cr_median=("s_cr_error", lambda v: v.abs().median()),
        in_band_low=("s_cr_in_band", "min"),
        in_band_median=("s_cr_in_band", "median"),
        in_band_high=("s_cr_in_band", "max"),
    ).round(4)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("measure", "report"))
    parser.add_argument(
        "--activation", nargs="+", default=["tanh", "relu", "gelu", "elu"], choices=list(SIGMA_B)
    )
    parser.add_argument("--phase", nargs="+", default=list(FACTORS), choices=list(FACTORS))
    parser.add_argument("--width", nargs="+", type=int, default=[100, 300, 1000])
    parser.add_argument("--depth", nargs="+", type=int, default=[10, 30, 100])
    parser.add_argument("--criterion", nargs="+", default=list(CRITERIA), choices=CRITERIA)
    parser.add_argument("--seeds", type=int, default=100)
    args = parser.parse_args()
    data = eoc.digits(100)
    if args.action == "report":
        report(cases(args), data)
        return
    for case in cases(args):
        if not case.path.exists():
            started = time.perf_counter()
            measure(case, args.seeds, data)
            print(
                f"{case.path.stem}: {args.seeds} seeds in {time.perf_counter() - started:.0f} s", flush=True
            )


if __name__ == "__main__":
    main()
