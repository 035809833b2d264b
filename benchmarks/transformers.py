"""What SNIP keeps in transformers of 12 blocks and when they collapse: theory and sampled, beside measured.

    python -m benchmarks.transformers measure     # 20 minutes of one core; goes on where it stopped
    python -m benchmarks.transformers report

Twelve networks of each kind are pruned in plain torch (`benchmarks.theory.pruned`). None of them was used to
fit an error model.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import eoc_theory as eoc
from benchmarks.theory import LLAMA, SPARSITIES, Case, pruned
from eoc_theory.base.typing import Method

TABLE = Path(__file__).parent / "transformers.csv"
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


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transformers", description=__doc__)
    parser.add_argument("action", choices=("measure", "report"))
    {"measure": measure, "report": report}[parser.parse_args().action]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
