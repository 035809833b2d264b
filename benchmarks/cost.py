"""What a prediction costs beside a measurement, by width and depth.

    python -m benchmarks.cost measure     # some minutes of one core; keeps benchmarks/cost.csv
    python -m benchmarks.cost table       # prints what is kept

Predicting is `eoc_theory.predict_pruning` (kept and its spread, SNIP, 100 digits) and `predict_collapse`;
measuring is plain torch as in `benchmarks.predicting`: build a network, one forward and backward pass over
the digits, threshold. Everything on one thread; of `REPEATS` runs the fastest, in seconds of the processor.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import eoc_theory as eoc
from benchmarks.predicting import SPARSITY, measured

if TYPE_CHECKING:
    import pandas as pd

TABLE = Path(__file__).parent / "cost.csv"
#: (width, depth): by depth at width 100, by width at depth 30.
SIZES = (
    *((100, depth) for depth in (5, 10, 20, 30, 50, 100, 200)),
    *((width, 30) for width in (10, 30, 300, 1000)),
)
ACTIVATION = "tanh"
REPEATS = 2


def fastest(work: Callable[[int], object], repeats: int = REPEATS) -> float:
    """Seconds of the fastest of so many runs, of different seeds; one more comes first and does not count."""
    spent = []
    for seed in range(repeats + 1):
        # Of the processor, which other work on the machine does not change much.
        started = time.process_time()
        work(seed)
        spent.append(time.process_time() - started)
    return min(spent[1:])


def measure() -> pd.DataFrame:
    """Seconds for every size: columns width, depth, predict, predict_collapse, measure_seed."""
    import pandas as pd
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    data = eoc.digits(100)
    inputs, targets = torch.tensor(data[0], dtype=torch.float32), torch.tensor(data[1])
    rows = []
    with threadpool_limits(1):
        for width, depth in SIZES:
            net = eoc.mlp(depth, width, activation=ACTIVATION)
            times = {
                "predict": fastest(
                    lambda seed, n=net: eoc.predict_pruning(n, SPARSITY, data=data, seed=seed)
                ),
                "predict_collapse": fastest(
                    lambda seed, n=net: eoc.predict_collapse(n, data=data, seed=seed)
                ),
                "measure_seed": fastest(lambda seed, n=net: measured(n, inputs, targets, seed)),
            }
            rows.append({"width": width, "depth": depth, **times})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def table() -> None:
    """Print the kept table, with the ratio of measuring 40 networks to predicting."""
    import pandas as pd

    if not TABLE.exists():
        print("no table yet: run `python -m benchmarks.cost measure`")
        return
    frame = pd.read_csv(TABLE)
    frame["ratio_40_seeds"] = 40 * frame["measure_seed"] / frame["predict"]
    print(frame.to_string(index=False, float_format="{:.3g}".format))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("measure", "table"), help="measure and keep; print what is kept")
    if parser.parse_args().action == "measure":
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        measure().to_csv(TABLE, index=False, float_format="%.3g", lineterminator="\n")
    table()


if __name__ == "__main__":
    main()
