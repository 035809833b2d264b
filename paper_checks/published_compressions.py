"""VGG-16 on CIFAR-100: predicted largest compressions against published ones, in both modes of BN."""

from __future__ import annotations

import numpy as np

import eoc_theory as eoc
from benchmarks.images import photo_images
from benchmarks.published import CASES, CLASSES, DATA_FREE, MODES, Row, predict, stored
from benchmarks.published import PUBLISHED as RUNS

from .claim import PUBLISHED, Claim, Evidence, Finding, Verdict
from .picture import Picture, Series

#: How near a prediction must be, in decades.
NEAR = 0.25
#: What was published, told as it was computed.
ASKED = tuple(case for case in CASES if "temperature" not in case)


def rows(quick: bool) -> list[Row]:
    """The predictions: those of a second computed, the others as they are kept; in the full form all anew."""
    if not quick:
        return [predict(case, mode) for case in CASES for mode in MODES]
    return [predict(row.case, row.mode) if row.case in DATA_FREE else row for row in stored()]


def moment_range(mode: str, networks: int) -> float:
    """Decades between the largest and the smallest SNIP score moment of the convolutions, mean over networks.

    Of a VGG-16 of a quarter of the width.
    """
    net = eoc.vgg(16, width=16, classes=CLASSES, training=MODES[mode])
    data = photo_images(32, seed=0, classes=CLASSES)
    ranges = []
    for seed in range(networks):
        found = eoc.measure_pruning(net.to_torch(seed), 0.0, data=data, masks=False, collapse=False)
        ranges.append(float(np.ptp(found.log_score_moments[:-1])) / np.log(10.0))
    return float(np.mean(ranges))


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    found = {(row.case, row.mode): row for row in rows(quick)}
    evidence = []
    for (case, mode), row in found.items():
        what = f"{case}, {mode}: log₁₀ of the largest compression"
        known = None if np.isnan(row.published) else row.published
        evidence.append(Evidence(f"{what}, mean on the grid", known, row.on_grid))
        evidence.append(Evidence(f"    median, off the grid; {row.weakest} goes first", None, row.median))
    wide = {mode: moment_range(mode, 2 if quick else 10) for mode in MODES}
    for mode, decades in wide.items():
        what = f"VGG-16 of width 16, {mode} mode: decades between the convolutions' m^l"
        evidence.append(Evidence(what, None, decades))
    off = {
        mode: np.array([found[case, mode].on_grid - found[case, mode].published for case in ASKED])
        for mode in MODES
    }
    good = bool((np.abs(off["evaluation"]) <= NEAR).all())
    snip = [found["SNIP", mode].median for mode in MODES]
    hot = found["GraSP, temperature 200", "evaluation"]
    conclusion = (
        "In evaluation mode predictions are off by "
        + ", ".join(f"{value:+.2f} ({case})" for case, value in zip(ASKED, off["evaluation"], strict=True))
        + f" decades. In training mode SNIP loses a layer {snip[0] - snip[1]:.1f} decades earlier "
        f"({snip[1]:.1f} against {snip[0]:.1f}). With the batch's own statistics squared gradients grow "
        "backwards from layer to layer (Yang et al. 2019): the convolutions' score moments are "
        f"{wide['training']:.1f} decades apart, in evaluation mode, where batch normalisation is the "
        f"identity at initialisation, {wide['evaluation']:.1f}, and late layers lose their last weights that "
        "much earlier. GraSP's published numbers are those of code without a temperature and with the other "
        "sign (commit 384c544 of 9 June 2020; the temperature came with e7dc110 of 23 June, the sign with "
        f"e329c2e of 7 August). At a temperature of 200, of which nothing is published, {hot.median:.1f} is "
        "predicted: there the loss's own curvature, which the temperature divides twice, counts for nothing "
        "beside that of the network."
    )
    at = np.arange(1, len(ASKED) + 1)
    predicted = [
        Series(
            f"predicted, {mode} mode",
            at,
            [found[case, mode].on_grid for case in ASKED],
            dashed=mode == "training",
            colour=colour,
        )
        for colour, mode in enumerate(MODES)
    ]
    runs = np.concatenate([RUNS[CASES[case][0]] for case in ASKED])
    published = Series("published", np.repeat(at, 3), runs, points=True, colour=2)
    picture = Picture(
        "Largest compression of VGG-16 with every layer alive: published runs (points), predicted (lines).",
        ", ".join(f"{number} {case}" for number, case in enumerate(ASKED, start=1)),
        "log$_{10}$ compression",
        (*predicted, published),
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="published-compressions",
    statement="Pruned at initialisation, VGG-16 with batch normalisation on CIFAR-100 keeps a weight in "
    "every layer up to compressions of 10^3.33 (random), 10^2.75 (magnitude), 10^3.58 (SNIP), 10^3.58 "
    "(GraSP) and 10^5.92 (SynFlow in 100 rounds), means of three runs on a grid of quarters of a decade "
    "(Tanaka et al. 2020, data in the authors' repository).",
    method=f"`eoc.predict_collapse`, in both modes of batch normalisation; within {NEAR:g} in evaluation "
    "mode, that of the authors' code. Images are pieces of two photographs with 100 classes, since CIFAR-100 "
    "is not at hand. Rows that take minutes are those that `python -m benchmarks.published` keeps; the full "
    "form computes them anew.",
    recorded=Verdict.HOLDS,
    check=check,
    group=PUBLISHED,
    wording="the numbers are those in the authors' repository, read off by this project; GraSP is as in the "
    "code of that commit",
)
