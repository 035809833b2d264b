"""Predicted against measured pruning of real convolutional, VGG and residual networks.

    python -m benchmarks.networks measure                      # an hour of one core; goes on where it stopped
    python -m benchmarks.networks measure --only 'resnet32*' --seeds 20
    python -m benchmarks.networks report                       # predicts, prints the table, keeps the CSV

The images are digits enlarged and 1/f noise (benchmarks/images.py), 100 of 32×32 for residual networks, 50
for VGG, 50 of 16×16 for plain ones. Batch normalisation goes by the batch. Each configuration's measurements
are a file in benchmarks/measured/, written every few seeds; seeds are 0, 1, 2, …
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import eoc_theory as eoc
from benchmarks.images import pink_images

if TYPE_CHECKING:
    import pandas as pd

STORE = Path(__file__).parent / "measured"
TABLE = STORE.parent / "networks.csv"
SPARSITIES = (0.8, 0.9, 0.95, 0.98)
#: Seeds after which what is measured is written down.
STRIDE = 4
#: Channels of the plain networks, and (σ_w, σ_b) of their ordered phase; the critical one is the library's.
CHANNELS = 128
ORDERED = {"tanh": (1.0, 0.2), "relu": (1.2, 0.2)}
CRITICAL = {"tanh": {"sigma_b": 0.2}, "relu": {}}
#: Mean absolute error of the kept fractions that a prediction should keep to at every sparsity.
ERROR_BARS = {"magnitude": 0.003, "synflow-oneshot": 0.01, "synflow": 0.03, "grasp": 0.05}
SNIP_BAR, NARROW_BAR = 0.02, 0.04
SPEARMAN_BAR, COLLAPSE_BAR = 0.97, 0.15
ACTIONS = "measure; predict, compare and keep the table; list the configurations; print the kept table"
LEGEND = """
0.8 … 0.98: mean over the layers of |predicted − measured kept| at these sparsities; noise: standard error of
the measured means; bar: the error asked for. order: Spearman's coefficient of the layers' predicted and
measured kept, the lowest of the four sparsities (- where the inner layers keep the same within noise);
halves: the same between two halves of the seeds. spread: predicted over measured standard deviation of kept.
s_cr_gap: of the median critical sparsity, in log10(1 − s). predict: seconds of processor time to predict;
seed: seconds of measuring the fastest of the networks.
"""


@dataclass(frozen=True)
class Case:
    """A network, the images it sees and the criterion.

    Attributes:
        family: "cnn", "vgg" or "resnet".
        depth: as the builder of that name takes it.
        variant: what else is told to it, in words.
        options: the same as its arguments.
        images: "digits" or "pink".
        seeds: networks that are measured unless the command says otherwise.
    """

    family: str
    depth: int
    variant: str
    options: tuple[tuple[str, Any], ...]
    images: str
    criterion: str
    seeds: int

    @property
    def name(self) -> str:
        return f"{self.family}{self.depth}_{self.variant}_{self.images}_{self.criterion}"

    @property
    def path(self) -> Path:
        return STORE / f"{self.name}.npz"

    @property
    def network(self) -> eoc.Architecture:
        builder = {"cnn": eoc.cnn, "vgg": eoc.vgg, "resnet": eoc.resnet}[self.family]
        if self.family == "cnn":
            return builder(self.depth, CHANNELS, input_shape=(3, 16, 16), **dict(self.options))
        return builder(self.depth, **dict(self.options))

    @property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        count, size = {"cnn": (50, 16), "vgg": (50, 32), "resnet": (100, 32)}[self.family]
        if self.images == "digits":
            return eoc.digits_images(count, (3, size, size))
        return pink_images(count, (3, size, size), seed=0)

    @property
    def error_bar(self) -> float:
        """Largest mean absolute error asked for."""
        if self.criterion != "snip":
            return ERROR_BARS[self.criterion]
        return NARROW_BAR if self.variant.startswith("plain") else SNIP_BAR


def cases() -> list[Case]:
    """All configurations, the most telling ones first."""
    found = []
    for normalisation, word in (("batch", "batchnorm"), (None, "plain")):
        for depth in (20, 32):
            for images in ("digits", "pink"):
                for scaling in ("none", "stable"):
                    options = ("normalisation", normalisation), ("scaling", scaling)
                    found.append(Case("resnet", depth, f"{word}-{scaling}", options, images, "snip", 20))
        for images in ("digits", "pink"):
            options = (("normalisation", normalisation),)
            found.append(Case("vgg", 11, word, options, images, "snip", 12))
        found.append(Case("vgg", 16, word, (("normalisation", normalisation),), "pink", "snip", 8))
    found += [plain(5, activation, phase, padding, "", "snip", 20) for activation, phase, padding in plains()]
    found += [
        plain(10, activation, phase, padding, "", "snip", 10) for activation, phase, padding in plains()
    ]
    for change in ("strided", "pooled"):
        found += [
            plain(10, a, phase, "zeros", change, "snip", 10) for a, phase, p in plains() if p == "zeros"
        ]
    found += [plain(20, activation, phase, padding, "", "snip", 8) for activation, phase, padding in plains()]
    # The rounds of SynFlow are a hundred passes for each sparsity.
    for criterion, seeds in (("magnitude", 20), ("synflow-oneshot", 20), ("grasp", 8), ("synflow", 3)):
        normalised = ("normalisation", "batch")
        found.append(
            Case("resnet", 20, "batchnorm-none", (normalised, ("scaling", "none")), "pink", criterion, seeds)
        )
        found.append(plain(10, "relu", "critical", "circular", "", criterion, seeds))
        found.append(Case("vgg", 11, "batchnorm", (normalised,), "pink", criterion, min(seeds, 12)))
    return found


def plains() -> list[tuple[str, str, str]]:
    """Activation, phase and padding of the plain networks."""
    return [
        (a, phase, p) for a in CRITICAL for phase in ("critical", "ordered") for p in ("circular", "zeros")
    ]


def plain(
    depth: int, activation: str, phase: str, padding: str, change: str, criterion: str, seeds: int
) -> Case:
    """A plain convolutional network; `change` strides or pools twice on the way."""
    options: dict[str, Any] = {"activation": activation, "padding_mode": padding}
    if phase == "critical":
        options |= CRITICAL[activation]
    else:
        options["sigma_w"], options["sigma_b"] = ORDERED[activation]
    if change:
        options[{"strided": "strides", "pooled": "pool"}[change]] = (2, 5)
    variant = "-".join(filter(None, (activation, phase, padding, change)))
    return Case("cnn", depth, variant, tuple(options.items()), "pink", criterion, seeds)


def measure(case: Case, seeds: int) -> None:
    """Prune networks up to `seeds` and store kept (seeds, n_s, L), s_cr (seeds,) and seconds (seeds,)."""
    kept, critical, seconds = stored(case) if case.path.exists() else ([], [], [])
    net, data = case.network, case.data
    for seed in range(len(kept), seeds):
        started = time.perf_counter()
        result = eoc.measure_pruning(
            net.to_torch(seed), SPARSITIES, criterion=case.criterion, data=data, seed=seed, masks=False
        )
        kept.append(result.kept)
        critical.append(result.critical_sparsity)
        seconds.append(time.perf_counter() - started)
        if (seed + 1) % STRIDE == 0 or seed + 1 == seeds:
            STORE.mkdir(exist_ok=True)
            partial = case.path.with_suffix(".partial.npz")
            np.savez(partial, kept=np.array(kept), s_cr=np.array(critical), seconds=np.array(seconds))
            os.replace(partial, case.path)


def stored(case: Case) -> tuple[list[np.ndarray], list[float], list[float]]:
    """What is measured of a configuration, by seed: kept (n_s, L), s_cr, seconds."""
    with np.load(case.path, allow_pickle=False) as file:
        return list(file["kept"]), file["s_cr"].tolist(), file["seconds"].tolist()


def compare(case: Case) -> dict[str, Any]:
    """Errors of the prediction against the stored measurement."""
    by_seed, critical, seconds = stored(case)
    kept = np.array(by_seed)
    net, data = case.network, case.data
    # Of the processor, which other work on the machine does not change much.
    started = time.process_time()
    predicted = eoc.predict_pruning(net, SPARSITIES, criterion=case.criterion, data=data)
    spent = time.process_time() - started
    collapse = eoc.predict_collapse(net, criterion=case.criterion, data=data)
    mean, spread = kept.mean(axis=0), kept.std(axis=0, ddof=1)
    error = np.abs(predicted.kept - mean).mean(axis=1)
    gap = np.log10(1 - float(collapse.quantile(0.5))) - np.log10(1 - np.median(critical))
    noise = float(spread.mean() / np.sqrt(len(kept)))
    found = [orders(kept[:, at], predicted.kept[at]) for at in range(len(SPARSITIES))]
    ranks, halves = zip(*found, strict=True)
    return {
        "network": f"{case.family}{case.depth}",
        "variant": case.variant,
        "images": case.images,
        "criterion": case.criterion,
        "seeds": len(kept),
        **{f"mae_{s}": float(e) for s, e in zip(SPARSITIES, error, strict=True)},
        "noise": noise,
        "bar": case.error_bar,
        "spearman": np.nan if np.isnan(ranks).all() else float(np.nanmin(ranks)),
        "halves": float(np.min(halves)),
        "layers_std": float(mean[:, 1:-1].std(axis=1).min()),
        "spread_ratio": float(predicted.kept_std.mean() / max(spread.mean(), 1e-12)),
        "s_cr_gap": float(gap),
        "predict_seconds": spent,
        "seed_seconds": float(np.min(seconds)),
    }


def orders(kept: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Spearman's coefficient of the layers' predicted and measured kept, and of two halves of the seeds.

    The first is nan where the inner layers keep the same within noise: their standard deviation is less than
    three standard errors. The second tells how well the measurement itself knows the order.

    Args:
        kept: measured, (seeds, L).
        predicted: (L,).
    """
    from scipy.stats import rankdata

    def agreement(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])

    mean, error = kept.mean(axis=0), kept.std(axis=0, ddof=1) / np.sqrt(len(kept))
    halves = agreement(kept[::2].mean(axis=0), kept[1::2].mean(axis=0))
    if mean[1:-1].std() < 3 * error[1:-1].mean():
        return np.nan, halves
    return agreement(mean, predicted), halves


def report(chosen: list[Case]) -> None:
    import pandas as pd

    measured = [case for case in chosen if case.path.exists()]
    if not measured:
        print("nothing measured yet: run `python -m benchmarks.networks measure` first", file=sys.stderr)
        raise SystemExit(1)
    rows = []
    for number, case in enumerate(measured, start=1):
        if sys.stderr.isatty():
            print(f"\r{number} of {len(measured)}: {case.name:<60}", end="", file=sys.stderr)
        rows.append(compare(case))
    if sys.stderr.isatty():
        print(file=sys.stderr)
    frame = pd.DataFrame(rows)
    if len(measured) == len([case for case in cases() if case.path.exists()]):
        frame.to_csv(TABLE, index=False, float_format="%.4g")
    show(frame)


def show(frame: pd.DataFrame) -> None:
    """Print the table, what its columns are, and how many configurations hold each bar."""
    columns = ["network", "variant", "images", "criterion", "seeds", *(f"mae_{s}" for s in SPARSITIES)]
    columns += ["noise", "bar", "spearman", "halves", "spread_ratio", "s_cr_gap", "predict_seconds"]
    columns += ["seed_seconds"]
    names = {
        "spearman": "order",
        "spread_ratio": "spread",
        "predict_seconds": "predict",
        "seed_seconds": "seed",
    }
    shown = frame.filter(columns).rename(columns=names | {f"mae_{s}": f"{s}" for s in SPARSITIES})
    decimals = dict.fromkeys(("spread", "s_cr_gap", "predict", "seed"), "{:.2f}".format)
    text = shown.to_string(index=False, float_format="{:.4f}".format, formatters=decimals, na_rep="-")
    print(text, LEGEND, *held(frame), sep="\n")


def held(frame: pd.DataFrame) -> list[str]:
    """For each bar, how many configurations hold it, and those that do not."""
    errors = frame[[f"mae_{s}" for s in SPARSITIES]].max(axis=1)
    name = frame["network"] + " " + frame["variant"] + " " + frame["images"] + " " + frame["criterion"]
    groups = np.where(
        frame["criterion"] != "snip",
        frame["criterion"],
        "snip, "
        + frame["network"].str.rstrip("0123456789")
        + frame["variant"].str.contains("plain").map({True: " without normalisation", False: ""}),
    )
    lines = []

    def line(what: str, bar: float, good: Any, among: Any) -> None:
        missed = name[among & ~good]
        also = f"; not: {', '.join(missed)}" if len(missed) else ""
        lines.append(f"{what} {bar:g}: {(good & among).sum()} of {among.sum()}{also}")

    for group in dict.fromkeys(groups):
        among = groups == group
        bar = float(np.max(frame["bar"][among]))
        line(f"{group}: error at most", bar, errors <= bar, among)
    known = (frame["criterion"] == "snip") & frame["spearman"].notna()
    line("snip: order of the layers at least", SPEARMAN_BAR, frame["spearman"] >= SPEARMAN_BAR, known)
    searched = frame["s_cr_gap"].notna()
    line("critical sparsity within", COLLAPSE_BAR, frame["s_cr_gap"].abs() <= COLLAPSE_BAR, searched)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("measure", "report", "list", "table"), help=ACTIONS)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="configurations, such as 'vgg11*snip'")
    parser.add_argument("--seeds", type=int, help="networks each (default: 3 to 20, by their cost)")
    args = parser.parse_args()
    chosen = [case for case in cases() if fnmatchcase(case.name, args.only)]
    if not chosen:
        parser.error(f"no configuration is called {args.only!r}; `list` shows their names")
    if args.action == "report":
        report(chosen)
    elif args.action == "list":
        print(*(case.name for case in chosen), sep="\n")
    elif args.action == "table":
        table()
    for case in chosen if args.action == "measure" else ():
        before = len(stored(case)[0]) if case.path.exists() else 0
        seeds = args.seeds or case.seeds
        if before < seeds:
            started = time.perf_counter()
            measure(case, seeds)
            spent = time.perf_counter() - started
            print(f"{case.name}: {seeds - before} seeds in {spent:.0f} s", flush=True)


def table() -> None:
    """Print the kept table again."""
    import pandas as pd

    if not TABLE.exists():
        print("no table yet: run `python -m benchmarks.networks measure`, then `report`")
        return
    show(pd.read_csv(TABLE))


if __name__ == "__main__":
    main()
