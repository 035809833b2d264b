"""Scoring and masking 25 million weights, against torch.nn.utils.prune and against cat + kthvalue.

usage: python -m benchmarks.ranking

The network is a ResNet-50 (25.5 million weights). Each method runs in a process of its own, which makes the
model, then scores and masks it; time and the growth of the process's peak resident memory are those of the
second part alone, the median of `REPEATS` processes. For snip all include the same forward and backward
pass, which is shown by itself too.

- ours: `eoc_theory.measure_pruning`, masks as boolean arrays, the critical sparsity included;
- cat + kthvalue: scores of all layers joined, the threshold by `torch.kthvalue`, boolean masks;
- global_unstructured: `torch.nn.utils.prune.global_unstructured` with the scores as `importance_scores`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

SPARSITY = 0.9
METHODS = ("forward and backward", "ours", "cat + kthvalue", "global_unstructured")
CRITERIA = ("magnitude", "snip")
REPEATS = 3
#: Few and small images: the pass over the network is the same for all, and is not what is compared.
BATCH, EXTENT = 8, 64


def peak() -> int:
    """Peak resident memory of this process since it was last reset, in bytes (Linux)."""
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")


def snip_scores(model: Any, weights: list[Any], data: tuple[Any, Any]) -> list[Any]:
    import torch

    gradients = torch.autograd.grad(torch.nn.functional.cross_entropy(model(data[0]), data[1]), weights)
    with torch.no_grad():
        return [g.mul_(w).abs_() for g, w in zip(gradients, weights, strict=True)]


def one(method: str, criterion: str) -> dict[str, Any]:
    """Run one method; seconds, growth of the peak in bytes, and what shows that the masks are the same."""
    import torch
    from torch.nn.utils import prune

    import eoc_theory as eoc
    from eoc_theory.pytorch.measure import measure as measuring  # noqa: F401  (imported before the clock starts)

    torch.manual_seed(0)
    model = eoc.resnet(50, form="imagenet", input_shape=(3, EXTENT, EXTENT)).to_torch(0)
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    weights: list[Any] = [m.weight for m in layers]
    data = (torch.randn(BATCH, 3, EXTENT, EXTENT), torch.arange(BATCH))
    with torch.no_grad():
        model(data[0])  # torch's own first-call costs

    def scores() -> list[Any]:
        return (
            [w.detach().abs() for w in weights]
            if criterion == "magnitude"
            else snip_scores(model, weights, data)
        )

    reset_peak()
    before, start = peak(), time.perf_counter()
    masks: list[Any] = []
    if method == "ours":
        found = eoc.measure_pruning(model, SPARSITY, criterion=criterion, data=data)
        assert isinstance(found.masks, dict)
        masks = list(found.masks.values())
    elif method == "cat + kthvalue":
        pieces = scores()
        joined = torch.cat([s.flatten() for s in pieces])
        cut = torch.kthvalue(joined, round(SPARSITY * len(joined))).values
        masks = [s > cut for s in pieces]
    elif method == "global_unstructured":
        pairs = [(m, "weight") for m in layers]
        importance = dict(zip(pairs, scores(), strict=True))
        prune.global_unstructured(pairs, prune.L1Unstructured, importance_scores=importance, amount=SPARSITY)
        masks = [m.weight_mask for m in layers]
    else:
        scores()
    seconds, grown = time.perf_counter() - start, peak() - before
    digest = hashlib.sha256()
    for mask in masks:
        digest.update(np.packbits(np.asarray(mask).astype(bool)).tobytes())
    kept = sum(int(np.asarray(mask).sum(dtype=np.int64)) for mask in masks)
    n = sum(w.numel() for w in weights)
    return {"seconds": seconds, "bytes": grown, "digest": digest.hexdigest(), "kept": kept, "weights": n}


def main() -> None:
    for criterion in CRITERIA:
        results: dict[str, list[dict[str, Any]]] = {}
        for _ in range(REPEATS):
            for method in METHODS[1 if criterion == "magnitude" else 0 :]:
                command = [sys.executable, "-m", "benchmarks.ranking", method, criterion]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                results.setdefault(method, []).append(json.loads(done.stdout))
        ours = results["ours"]
        n = ours[0]["weights"]
        print(
            f"{criterion}, {n:,} weights".rjust(34),
            f"{'time':>9} {'ratio':>7} {'peak memory':>12} {'kept':>10}",
        )
        seconds = {m: float(np.median([r["seconds"] for r in rs])) for m, rs in results.items()}
        for method, found in results.items():
            same = "" if method not in METHODS[2:] else " same masks"
            if same and any(r["digest"] != ours[0]["digest"] for r in found):
                same = " OTHER MASKS"
            grown = float(np.median([r["bytes"] for r in found])) / 1e6
            print(
                f"{method:>34} {seconds[method]:8.3f}s {seconds[method] / seconds['ours']:6.2f}x "
                f"{grown:9.0f} MB {found[0]['kept']:>10,}{same}",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(one(*sys.argv[1:])))
    else:
        main()
