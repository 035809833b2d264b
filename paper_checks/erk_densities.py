"""Erdős–Rényi-kernel densities of ResNet-50, held against what RigL's authors publish of their cost."""

from __future__ import annotations

import numpy as np

import eoc_theory as eoc
from analysis.estimates import multiplications

from .claim import PUBLISHED, Claim, Evidence, Finding, Verdict
from .picture import Picture, Series

#: Part of the dense network's multiplications at a sparsity: table in the README of google-research/rigl,
#: "1x" and "Extended Training Results", column Inference FLOPs, rows ERK.
FLOPS = {0.8: 0.42, 0.9: 0.24, 0.95: 0.12, 0.965: 0.09}
#: Of the dense network, in operations (a multiplication and an addition are two).
DENSE = 8.2e9
#: Megabytes of kept weights of four bytes, with a bit a weight for the mask: the same table, Model Size.
SIZES = {0.8: 23.683, 0.9: 13.499, 0.95: 8.399, 0.965: 6.904}


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    net = eoc.resnet(50, form="imagenet")
    cost = multiplications(net)
    evidence = [Evidence("dense: operations of one image", DENSE, 2.0 * float(cost.sum()))]
    sparsities = np.array(list(FLOPS))
    kept = eoc.predict_pruning(net, sparsities, criterion="erk").kept
    share = kept @ cost / cost.sum()
    for sparsity, part in zip(FLOPS, share, strict=True):
        evidence.append(Evidence(f"{sparsity:.1%} removed: part of the operations", FLOPS[sparsity], part))
    size = (1.0 - sparsities) * net.n_weights * 4.0 / 1e6 + net.n_weights / 8.0 / 1e6
    for sparsity, megabytes in zip(SIZES, size, strict=True):
        evidence.append(Evidence(f"{sparsity:.1%} removed: megabytes", SIZES[sparsity], float(megabytes)))
    # Published to two digits.
    near = np.abs(share - np.array(list(FLOPS.values())))
    good = near.max() <= 0.01 and abs(2.0 * cost.sum() / DENSE - 1.0) < 0.02
    full = int((kept[0] > 1.0 - 1e-9).sum())
    conclusion = (
        "ERK's densities leave "
        + ", ".join(f"{part:.3f}" for part in share)
        + " of ResNet-50's operations at "
        + ", ".join(f"{s:.1%}" for s in FLOPS)
        + f", within 0.01 of the published two digits; at 80 % {full} of {len(net)} layers are full, and the "
        "others take what these cannot."
    )
    picture = Picture(
        "Operations that ERK's densities leave of ResNet-50.",
        "weights kept",
        "operations",
        (
            Series("ours", 1.0 - sparsities, share),
            Series("published", 1.0 - sparsities, list(FLOPS.values()), points=True),
        ),
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="erk-densities",
    statement="ResNet-50 with Erdős–Rényi-kernel densities takes 0.42, 0.24, 0.12 and 0.09 of the dense "
    "network's 8.2·10⁹ operations at 80, 90, 95 and 96.5 % sparsity (Evci et al. 2020, authors' repository).",
    method="The densities that the criterion erk gives ResNet-50 in its ImageNet form, and what each layer "
    "costs on an image of 224×224. No network is sampled, and nothing is random.",
    recorded=Verdict.HOLDS,
    check=check,
    group=PUBLISHED,
    wording="the numbers are those in the authors' repository; the paper's text was not compared",
)
