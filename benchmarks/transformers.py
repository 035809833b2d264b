"""What SNIP keeps in transformers of 12 blocks and when they collapse: theory and sampled, beside measured.

    python -m benchmarks.transformers measure     # 20 minutes of one core; goes on where it stopped
    python -m benchmarks.transformers moments     # the score moments of every matrix, as long
    python -m benchmarks.transformers report

Twelve networks of each kind are pruned in plain torch (`benchmarks.theory.pruned`). None of them was used to
fit an error model. Score moments are those of wider networks: the mean over networks of log mean (W g)² of
each matrix, less its mean over the matrices, in plain torch and by theory.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import eoc_theory as eoc
from benchmarks.theory import LLAMA, SPARSITIES, Case, pruned
from eoc_theory.base.typing import Method
from eoc_theory.pruning.graph_theory import theory_laws

TABLE = Path(__file__).parent / "transformers.csv"
MOMENTS = Path(__file__).parent / "transformer_moments.csv"
#: Of the score moments: width, networks that are run, and predictions with draws of their own.
MOMENT_WIDTH, MOMENT_NETWORKS, MOMENT_SEEDS = 512, 24, 8
METHODS: tuple[Method, ...] = ("theory", "sampled")


def _case(family: str, *arguments: int, on: str = "tokens", **options: Any) -> Case:
    return Case(family, arguments, 32, 32, on, 12, tuple(options.items()))


CASES = {
    "pre-LN": _case("transformer", 12, 256),
    "pre-LN, stable scaling": _case("transformer", 12, 256, residual="stable"),
    "post-LN": _case("transformer", 12, 256, placement="post"),
    "causal, RMSNorm, SwiGLU, rotary": _case("transformer", 12, 256, **LLAMA),
    "ViT": _case("vit", 12, 256, on="pink"),
}


def compared(name: str, case: Case) -> list[dict[str, Any]]:
    """A row for each method."""
    found = [pruned(case, 1000 + seed) for seed in range(case.seeds)]
    kept, critical = (np.array(part) for part in zip(*found, strict=True))
    noise = kept.std(axis=0, ddof=1).mean(axis=1) / np.sqrt(case.seeds)
    rows = []
    for method in METHODS:
        started = time.process_time()
        prediction = eoc.predict_pruning(case.network, SPARSITIES, data=case.data, method=method)
        collapse = eoc.predict_collapse(case.network, data=case.data, method=method)
        spent = time.process_time() - started
        error = np.abs(prediction.kept - kept.mean(axis=0)).mean(axis=1)
        gap = np.log10(1 - collapse.quantile(0.5)) - np.log10(1 - np.median(critical))
        rows.append(
            {
                "network": name, "method": method, "seeds": len(kept),
                **{f"mae_{s}": float(e) for s, e in zip(SPARSITIES, error, strict=True)},
                **{f"noise_{s}": float(e) for s, e in zip(SPARSITIES, noise, strict=True)},
                "under_bound": bool((error <= prediction.kept_error_bound).all()),
                "s_cr": float(np.median(critical)), "s_cr_gap": float(gap), "seconds": spent,
            }
        )  # fmt: skip
    return rows


def measure() -> None:
    """Fills the table."""
    import pandas as pd

    rows = pd.read_csv(TABLE).to_dict("records") if TABLE.exists() else []
    for name, case in CASES.items():
        if any(row["network"] == name for row in rows):
            continue
        rows += compared(name, case)
        pd.DataFrame(rows).to_csv(TABLE, index=False, float_format="%.4g")
        print(name, "done", flush=True)


def log_moments(case: Case, seed: int) -> np.ndarray:
    """log mean (W g)² of every matrix of one network in plain torch, (L,)."""
    import torch
    from torch import nn

    inputs, targets = case.data
    model = case.network.to_torch(seed)
    x = torch.as_tensor(inputs, dtype=torch.float32)
    x = x if case.images == "tokens" else x.reshape(len(inputs), 3, case.size, case.size)
    loss = nn.functional.cross_entropy(model(x), torch.as_tensor(targets))
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    gradients = torch.autograd.grad(loss, weights)
    squares = [(w.detach() * g).double().square().mean() for w, g in zip(weights, gradients, strict=True)]
    return np.log([float(one) for one in squares])


def moments_by_theory(case: Case, seed: int) -> np.ndarray:
    """The mean of the same over the networks that a prediction rests on, (L,)."""
    laws = theory_laws(case.network, "snip", case.data, seed=seed).laws[0]
    # Each network's law is the mean one, moved by half the logarithm.
    return 2.0 * (laws.t - laws.u)[:, :, laws.u.shape[1] // 2].mean(axis=0)


def measure_moments() -> None:
    """Fills the table of score moments."""
    import pandas as pd

    rows = pd.read_csv(MOMENTS).to_dict("records") if MOMENTS.exists() else []
    for name in ("pre-LN", "post-LN", "causal, RMSNorm, SwiGLU, rotary", "ViT"):
        case = replace(CASES[name], arguments=(12, MOMENT_WIDTH))
        if any(row["network"] == name for row in rows):
            continue
        measured = _centred([log_moments(case, 1000 + seed) for seed in range(MOMENT_NETWORKS)])
        theory = _centred([moments_by_theory(case, seed) for seed in range(MOMENT_SEEDS)])
        for number, matrix in enumerate(case.network.weight_layers):
            ours, theirs = theory[:, number], measured[:, number]
            rows.append(
                {
                    "network": name, "matrix": matrix, "theory": ours.mean(), "draw_std": ours.std(ddof=1),
                    "measured": theirs.mean(), "measured_se": theirs.std(ddof=1) / np.sqrt(len(theirs)),
                }
            )  # fmt: skip
        pd.DataFrame(rows).to_csv(MOMENTS, index=False, float_format="%.4f")
        print(name, "done", flush=True)


def _centred(logs: list[np.ndarray]) -> np.ndarray:
    """Less the mean over matrices, (networks, L)."""
    found = np.array(logs)
    return found - found.mean(axis=1, keepdims=True)


def report() -> None:
    """Prints the table."""
    import pandas as pd

    table = pd.read_csv(TABLE)
    kept = "kept, mean absolute error at .8, .9, .95, .98"
    print(f"| network | method | {kept} | under the bound | s_cr | error |")
    print("|---|---|---|---|---|---|")
    for row in table.to_dict("records"):
        errors = ", ".join(f"{row[f'mae_{s}']:.4f}" for s in SPARSITIES)
        under = "yes" if row["under_bound"] else "no"
        shown = f"{row['network']} | {row['method']} | {errors} | {under} | {row['s_cr']:.4f}"
        print(f"| {shown} | {row['s_cr_gap']:+.2f} |")
    _report_moments()


def _report_moments() -> None:
    import pandas as pd

    print(
        "\n| network | r.m.s. error | worst | its standard error | within .15 | of one prediction's draws |"
    )
    print("|---|---|---|---|---|---|")
    table = pd.read_csv(MOMENTS)
    for name, rows in table.groupby("network", sort=False):
        error = np.asarray(rows["theory"] - rows["measured"])
        noise = np.asarray(np.hypot(rows["measured_se"], rows["draw_std"] / np.sqrt(MOMENT_SEEDS)))
        worst = int(np.abs(error).argmax())
        print(
            f"| {name} | {np.sqrt(np.mean(error**2)):.3f} | {rows['matrix'].iloc[worst]} {error[worst]:+.2f} "
            f"| {noise[worst]:.2f} | {(np.abs(error) <= 0.15).sum()} of {len(error)} "
            f"| {rows['draw_std'].mean():.2f} |"
        )


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transformers", description=__doc__)
    parser.add_argument("action", choices=("measure", "moments", "report"))
    {"measure": measure, "moments": measure_moments, "report": report}[parser.parse_args().action]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
