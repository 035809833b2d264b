"""The rescaling trick in convolutional networks."""

from __future__ import annotations

from typing import Any

import numpy as np

import eoc_theory as eoc
from eoc_theory.pytorch.lazy import require_torch

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import mean_and_error
from .picture import Picture, Series
from .pruned_networks import Batch, masks_of, middle
from .rescaling import BLIND

Array = np.ndarray
DEPTH, CHANNELS, INPUTS, SHAPE, SPARSITY = 20, 24, 10, (1, 8, 8), 0.9
CRITERIA = (*BLIND, "snip")
WAYS = ("pruned", "ρ with σ_w", "ρ without σ_w")


def log_gradients(model: Any, data: Batch) -> Array:
    """log of the mean squared gradient by the outputs of each convolution, less that of the last one."""
    torch = require_torch()
    outputs: list[Any] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        output.retain_grad()
        outputs.append(output)

    convolutions = [one for one in model.modules() if isinstance(one, torch.nn.Conv2d)]
    hooks = [one.register_forward_hook(keep) for one in convolutions]
    model.double()
    logits = model(torch.as_tensor(data[0], dtype=torch.float64))
    torch.nn.functional.cross_entropy(logits, torch.as_tensor(data[1])).backward()
    for hook in hooks:
        hook.remove()
    squares = np.log([float(output.grad.square().mean()) for output in outputs])
    return squares - squares[-1]


def exponent(line: Array) -> float:
    """log χ over the middle layers of `log_gradients`."""
    first, last = middle(len(line))
    return float(line[first] - line[last]) / (last - first)


def gradients(activation: str, criterion: str, seed: int, data: Batch) -> list[Array]:
    """`log_gradients` of one network as it is pruned, and after each rescaling; by the signal last, for "
    "SNIP."""
    net = eoc.cnn(DEPTH, CHANNELS, activation=activation, input_shape=SHAPE)
    masks = masks_of(net.to_torch(seed), SPARSITY, criterion, data, seed)
    named = dict(zip(net.weight_layers, masks, strict=True))
    model = eoc.prune_(net.to_torch(seed), named)
    lines = [log_gradients(model, data)]
    eoc.rescale_(model)
    lines.append(log_gradients(model, data))
    with require_torch().no_grad():
        # What σ_w adds is one factor for all layers.
        for layer in net.layers:
            model.get_submodule(layer.name).weight_orig.div_(layer.sigma_w)
    lines.append(log_gradients(model, data))
    if criterion == "snip":
        model = eoc.prune_(net.to_torch(seed), named)
        eoc.rescale_(model, by="signal", data=data[0])
        lines.append(log_gradients(model, data))
    return lines


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    seeds = 2 if quick else 30
    data = eoc.digits_images(INPUTS, SHAPE)
    evidence: list[Evidence] = []
    series: list[Series] = []
    table: dict[tuple[str, str], Array] = {}
    for name in ("tanh", "relu"):
        for criterion in CRITERIA:
            rows = []
            for seed in range(seeds):
                lines = gradients(name, criterion, seed, data)
                rows.append([exponent(line) for line in lines])
                if not seed and (name, criterion) == ("tanh", "magnitude"):
                    series = [
                        Series(
                            way.replace("σ_w", "σ$_w$"),
                            np.arange(1, len(line) + 1),
                            line / np.log(10.0),
                            colour=colour,
                        )
                        for colour, (way, line) in enumerate(zip(WAYS, lines, strict=True))
                    ]
            table[name, criterion] = np.array(rows)
            ways = (*WAYS, "by the signal")[: len(rows[0])]
            for column, way in enumerate(ways):
                claimed = {"pruned": "< 0", "by the signal": None}.get(way, 0.0)
                mean, error = mean_and_error(table[name, criterion][:, column])
                evidence.append(Evidence(f"{name}, {criterion}: log χ, {way}", claimed, mean, error))
    blind = np.array([table[name, c].mean(axis=0) for name in ("tanh", "relu") for c in BLIND])
    snip = np.array([table[name, "snip"].mean(axis=0) for name in ("tanh", "relu")])
    good = np.abs(blind[:, 1]).max() < 0.12 and blind[:, 0].max() < -0.25
    verdict = Verdict.FAILS
    if good:
        verdict = Verdict.REFINED if blind[:, 2].max() < -0.12 else Verdict.HOLDS
    conclusion = (
        f"With {SPARSITY:.0%} of the weights gone by magnitude or at random mean squared gradients fall by "
        f"e^{blind[:, 0].min():.2f} to e^{blind[:, 0].max():.2f} a layer. ρ^l = σ_w/√(fan_in · mean(W² "
        f"mask)), fan_in with the kernel's positions, brings the exponent to {blind[:, 1].min():.3f} to "
        f"{blind[:, 1].max():.3f}; ρ^l as printed, without σ_w, leaves {blind[:, 2].min():.2f} to "
        f"{blind[:, 2].max():.2f}. After SNIP, whose masks follow the signal, ρ^l leaves {snip[0, 1]:.2f} "
        f"(tanh) and {snip[1, 1]:.2f} (ReLU), and factors set by the signal {snip[0, 3]:.2f} and "
        f"{snip[1, 3]:.2f}: as in fully connected networks."
    )
    picture = Picture(
        f"Gradients of one critical tanh network of {DEPTH} convolutions with {SPARSITY:.0%} of its weights "
        "removed by magnitude.",
        "layer l",
        "log$_{10}$ E[(δ$^l$)²] / E[(δ$^{L-1}$)²]",
        tuple(series),
    )
    return Finding(tuple(evidence), verdict, conclusion, picture)


CLAIM = Claim(
    name="rescaling-cnn",
    statement="Convolutional networks: multiplying the kept weights of layer l by ρ^l = 1/√(E[N (W^l)² "
    "δ^l]), δ^l the mask and N the fan-in, puts a network pruned on the edge of chaos back on it (Hayou et "
    "al. 2021, proposition on the rescaling trick).",
    method=f"Real networks of {DEPTH} convolutions of {CHANNELS} channels with periodic boundary (torch, "
    f"{INPUTS} digits of 8×8, several seeds) pruned by magnitude, at random and by SNIP; log χ as the slope "
    "of the logarithm of the mean squared gradient over the middle layers, before and after each "
    "normalisation.",
    recorded=Verdict.REFINED,
    check=check,
)
