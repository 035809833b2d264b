"""VGG-16 on CIFAR-100: predicted largest compressions beside those that SynFlow's authors published.

    python -m benchmarks.published            # ten minutes of one core; keeps published.csv
    python -m benchmarks.published report     # prints the kept table

The published numbers are facts from the data in the authors' repository (Tanaka et al. 2020, ganguli-lab/
Synaptic-Flow, Results/data/0520_2020_cifar100_lottery_vgg16_bn and its second and third run): the largest
of the compressions 10⁰, 10^0.25, … at which every layer kept a weight. There batch normalisation is in
evaluation mode. CIFAR-100 is not at hand: images are pieces of two photographs, standardised as CIFAR-100 is,
a hundred classes in turn, and fewer than the thousand that were scored there.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import eoc_theory as eoc
from benchmarks.images import photo_images

TABLE = Path(__file__).parent / "published.csv"
#: log₁₀ of the largest compression with every layer alive, three runs each.
PUBLISHED = {
    "random": (2.75, 3.75, 3.5),
    "magnitude": (2.75, 2.75, 2.75),
    "snip": (3.75, 3.5, 3.5),
    "grasp": (3.5, 3.75, 3.5),
    "synflow": (6.0, 6.0, 5.75),
}
#: The compressions that were tried: a quarter of a decade apart.
STEP = 0.25
CLASSES = 100


class FirstGrasp:
    """GraSP as the published results were computed: no temperature, and the smallest W ∘ (Hess·g) are kept.

    The results are of May 2020 and in the repository since commit 384c544 of 9 June 2020. There GraSP scores
    −W ∘ (Hess·g), summed over batches of 256, and keeps the largest. The temperature of 200 came with commit
    e7dc110 of 23 June 2020, the sign of Wang et al. 2020 with e329c2e of 7 August 2020: no published number
    of this network is of GraSP at temperature 200.
    """

    name = "grasp-of-the-data"
    needs = "hessian_gradient"
    signed = True

    def score(self, weight: Any, derivative: Any) -> Any:
        return -(weight * derivative)


#: What is predicted: the published row that it stands for ("": none), the criterion, images and networks
#: sampled.
CASES: dict[str, tuple[str, Callable[[], Any], int, int]] = {
    "random": ("random", lambda: "random", CLASSES, 16),
    "magnitude": ("magnitude", lambda: "magnitude", CLASSES, 16),
    "SNIP": ("snip", lambda: "snip", 200, 3),
    "GraSP as the data": ("grasp", FirstGrasp, CLASSES, 3),
    # What the later code computes; there is no published number of it.
    "GraSP, temperature 200": ("", lambda: eoc.criterion("grasp", temperature=200), CLASSES, 3),
    "SynFlow": ("synflow", lambda: "synflow", CLASSES, 2),
}
MODES = {"evaluation": False, "training": True}
#: What looks at no data, and takes a second.
DATA_FREE = ("random", "magnitude")


@dataclass(frozen=True)
class Row:
    """A prediction.

    Attributes:
        case: one of `CASES`. mode: one of `MODES`, of batch normalisation.
        images, networks: that it rests on.
        median: of log₁₀ 1/(1 − s_cr).
        on_grid: mean of the largest of the compressions that were tried at which no layer has collapsed.
        weakest: the layer that collapses first.
        seconds: of processor time.
    """

    case: str
    mode: str
    images: int
    networks: int
    median: float
    on_grid: float
    weakest: str
    seconds: float

    @property
    def published(self) -> float:
        """Mean of the published runs; nan where there are none."""
        runs = PUBLISHED.get(CASES[self.case][0], ())
        return float(np.mean(runs)) if runs else np.nan


def predict(case: str, mode: str) -> Row:
    """One row of the table."""
    _, make, images, networks = CASES[case]
    net = eoc.vgg(16, classes=CLASSES, training=MODES[mode])
    data = photo_images(images, seed=0, classes=CLASSES)
    start = time.process_time()
    found = eoc.predict_collapse(net, criterion=make(), data=data, samples=networks)
    compression = -np.log10(1.0 - np.asarray(found.samples))
    return Row(
        case,
        mode,
        images,
        networks,
        round(float(np.median(compression)), 3),
        round(float(np.mean(np.floor(compression / STEP) * STEP)), 3),
        found.weakest_layer,
        round(time.process_time() - start, 1),
    )


def stored() -> list[Row]:
    """The kept table."""
    with open(TABLE, newline="", encoding="utf-8") as file:
        return [
            Row(
                line["case"],
                line["mode"],
                int(line["images"]),
                int(line["networks"]),
                float(line["median"]),
                float(line["on_grid"]),
                line["weakest"],
                float(line["seconds"]),
            )
            for line in csv.DictReader(file)
        ]


def main() -> None:
    """Predict, keep and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.published", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "action", nargs="?", choices=("measure", "report"), default="measure",
        help="measure: predict for ten minutes, keep and print (the default); report: print what is kept",
    )  # fmt: skip
    if parser.parse_args().action == "measure":
        rows = []
        for case in CASES:
            for mode in MODES:
                rows.append(predict(case, mode))
                print(rows[-1], file=sys.stderr, flush=True)
        with open(TABLE, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(Row.__dataclass_fields__), lineterminator="\n")
            writer.writeheader()
            writer.writerows(map(asdict, rows))
    print("| | BN's mode | published | predicted | on the grid | weakest layer |\n|---|---|---|---|---|---|")
    for row in stored():
        print(
            f"| {row.case} | {row.mode} | {'–' if np.isnan(row.published) else f'{row.published:.2f}'} "
            f"| {row.median:.2f} | {row.on_grid:.2f} | {row.weakest} |"
        )


if __name__ == "__main__":
    main()
