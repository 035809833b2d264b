"""Predicting a network (kept per layer and its spread) against measuring 40 seeds of it in torch.

usage: python -m benchmarks.predicting

Measuring is plain torch: build the network, one forward and backward pass over 100 digits, |W g| of all
    weights, the
threshold by kthvalue, the fraction of each layer above it. Both use the threads that torch and NumPy choose.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import eoc_theory as eoc

SEEDS, SPARSITY = 40, 0.7
NETWORKS = (("tanh", 100, 100), ("relu", 100, 100), ("tanh", 300, 30), ("relu", 300, 100))


def measured(net: eoc.Architecture, inputs, targets, seed: int) -> list[float]:
    """Kept per layer of one network, by the shortest torch code that does it."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for layer in net.layers:
        linear: Any = nn.utils.skip_init(nn.Linear, layer.fan_in, layer.fan_out)
        nn.init.normal_(linear.weight, std=float(layer.weight_std))
        nn.init.normal_(linear.bias, std=layer.sigma_b)
        modules.append(linear)
        if layer.activation is not None:
            modules.append({"tanh": nn.Tanh, "relu": nn.ReLU}[layer.activation.name]())
    weights = [m.weight for m in modules if isinstance(m, nn.Linear)]
    loss = nn.functional.cross_entropy(nn.Sequential(*modules)(inputs), targets)
    scores = [(w * g).abs() for w, g in zip(weights, torch.autograd.grad(loss, weights), strict=True)]
    pooled = torch.cat([s.flatten() for s in scores])
    cut = pooled.kthvalue(max(1, round(SPARSITY * len(pooled)))).values
    return [float((s > cut).float().mean()) for s in scores]


def main() -> None:
    import torch

    data = eoc.digits(100)
    inputs, targets = torch.tensor(data[0], dtype=torch.float32), torch.tensor(data[1])
    print(f"{'':16} {'predict':>9} {'40 seeds':>9} {'ratio':>7} {'mean |error|':>13} {'spread ratio':>13}")
    for activation, width, depth in NETWORKS:
        net = eoc.mlp(depth, width, activation=activation)
        eoc.predict_pruning(net, SPARSITY, data=data)
        seconds = []
        for seed in range(5):
            start = time.perf_counter()
            predicted = eoc.predict_pruning(net, SPARSITY, data=data, seed=seed)
            seconds.append(time.perf_counter() - start)
        measured(net, inputs, targets, 0)
        start = time.perf_counter()
        kept = np.array([measured(net, inputs, targets, seed) for seed in range(SEEDS)])
        peer, ours = time.perf_counter() - start, float(np.median(seconds))
        error = np.abs(predicted.kept - kept.mean(axis=0)).mean()
        spread = predicted.kept_std.mean() / kept.std(axis=0, ddof=1).mean()
        row = f"{activation} {width} x {depth:<6} {ours:8.3f}s {peer:8.2f}s {peer / ours:6.1f}x"
        print(f"{row} {error:13.4f} {spread:13.2f}", flush=True)


if __name__ == "__main__":
    main()
