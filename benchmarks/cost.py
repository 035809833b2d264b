"""What a prediction costs beside a measurement, by width and depth.

    python -m benchmarks.cost measure     # some minutes of one core; keeps benchmarks/cost.csv
    python -m benchmarks.cost table       # prints what is kept

Predicting is `eoc_theory.predict_pruning` (kept and its spread, SNIP, 100 digits) and `predict_collapse`;
measuring is plain torch as in `benchmarks.predicting`: build a network, one forward and backward pass over
the digits, threshold. Everything on one thread, in seconds of the processor, after a run that does not count.
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


def seconds(work: Callable[[int], object], runs: int = 3) -> float:
    """Mean of so many runs with seeds of their own, after one that compiles and caches what can be."""
    work(0)
    # Of the processor, which other work on the machine does not change much.
    started = time.process_time()
    for seed in range(1, runs + 1):
        work(seed)
    return (time.process_time() - started) / runs


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

            def predict(seed: int, net: eoc.Architecture = net) -> object:
                return eoc.predict_pruning(net, SPARSITY, data=data, seed=seed)

            def predict_collapse(seed: int, net: eoc.Architecture = net) -> object:
                return eoc.predict_collapse(net, data=data, seed=seed)

            def measure_seed(seed: int, net: eoc.Architecture = net) -> object:
                return measured(net, inputs, targets, seed)

            times = {
                "predict": seconds(predict),
                "predict_collapse": seconds(predict_collapse, runs=1),
                "measure_seed": seconds(measure_seed),
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
