"""The rescaling trick: which normalisation puts a pruned network back on the edge of chaos."""

from __future__ import annotations

from typing import Any

import numpy as np

import eoc_theory as eoc
from eoc_theory.networks.architecture import Architecture

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import mean_and_error
from .picture import Series
from .pruned_networks import Array, Chain, gradient_picture, gradient_series, masks_of

DEPTH, WIDTH, SPARSITY = 60, 100, 0.9
#: Criteria whose masks know nothing of signals and gradients.
BLIND = ("magnitude", "random")


def by_library(net: Architecture, model: Any, masks: list[Array]) -> Chain:
    """What `prune_` and `rescale_` make of a model of the network, in place."""
    activation = net.layers[0].activation
    assert activation is not None
    eoc.prune_(model, dict(zip(net.weight_layers, masks, strict=True)))
    eoc.rescale_(model)
    return Chain.of_model(model, activation)


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    seeds, apart = 8 if quick else 40, 0.0
    data = eoc.digits(100)
    evidence: list[Evidence] = []
    series: list[Series] = []
    restored, printed, pruned_far = [], {}, []
    for name in ("tanh", "relu"):
        net = eoc.mlp(DEPTH, WIDTH, activation=name)
        layer = net.layers[0]
        assert layer.activation is not None
        field = eoc.MeanField(name, 1.0, layer.sigma_b)
        # Without biases σ_w = 1 sends ReLU's variance to 0; its χ is the same at any.
        one = float(np.log(field.chi() if float(field.q_star) > 0 else field.chi(1.0)))
        for criterion in BLIND:
            rows = []
            for seed in range(seeds):
                model = net.to_torch(seed)
                full = Chain.of_model(model, layer.activation)
                masks = masks_of(model, SPARSITY, criterion, data, seed)
                pruned = full.masked(masks)
                chains = [pruned, pruned.with_scale_of(full), pruned.with_scale(1.0)]
                if seed == 0 and criterion == BLIND[0]:
                    apart = max(apart, by_library(net, model, masks).distance(chains[1]))
                rows.append([chain.gradient_exponent(data) for chain in chains])
                if seed == 0 and (name, criterion) == ("tanh", "magnitude"):
                    titles = ("pruned", "ρ with σ_w", "ρ without σ_w")
                    series = gradient_series(titles, chains, data)
            table = np.array(rows)
            what = f"{name} (σ_w = {layer.sigma_w:.3f}), {criterion}, {SPARSITY:.0%} removed: log χ"
            for title, claimed, column in (
                ("pruned", "< 0", 0),
                ("ρ with σ_w", 0.0, 1),
                ("ρ as printed, without σ_w", 0.0, 2),
            ):
                mean, error = mean_and_error(table[:, column])
                evidence.append(Evidence(f"{what}, {title}", claimed, mean, error))
            restored.append(float(np.mean(table[:, 1])))
            pruned_far.append(float(np.mean(table[:, 0])))
            printed[name] = float(np.mean(table[:, 2]))
        evidence.append(Evidence(f"{name}: log χ at σ_w = 1, what ρ without σ_w leads to", None, one))
    evidence.append(Evidence("weights after `rescale_`, relative difference from ρ with σ_w", 0.0, apart))
    good = max(map(abs, restored)) < 0.06 and max(pruned_far) < -0.3 and apart < 1e-6
    wrong = max(printed.values()) < -0.15
    verdict = Verdict.FAILS
    if good:
        verdict = Verdict.REFINED if wrong else Verdict.HOLDS
    conclusion = (
        f"With {SPARSITY:.0%} of the weights gone mean squared gradients fall by e^{min(pruned_far):.2f} to "
        f"e^{max(pruned_far):.2f} a layer. ρ^l = σ_w/√(fan_in · mean(W² mask)) brings the exponent back to "
        f"{min(restored):.3f} to {max(restored):.3f}; ρ^l as printed, without σ_w, sets the effective σ_w to "
        f"1 and leaves {printed['tanh']:.2f} (tanh, critical at σ_w = 1.304) and {printed['relu']:.2f} "
        "(ReLU, critical at √2: log ½ = −0.69). The two agree only where the edge of chaos is at σ_w = 1, as "
        "for tanh without biases. It takes a mask that knows nothing of the signals: for SNIP's see "
        "rescaling-after-snip."
    )
    caption = (
        f"Gradients of one critical tanh network of {DEPTH} layers with {SPARSITY:.0%} of its weights "
        "removed by magnitude."
    )
    return Finding(tuple(evidence), verdict, conclusion, gradient_picture(caption, series))


CLAIM = Claim(
    name="rescaling",
    statement="A network pruned on the edge of chaos is off it; multiplying the kept weights of layer l by "
    "ρ^l = 1/√(E[N (W^l)² δ^l]), δ^l the mask, puts it back on it (Hayou et al. 2021, proposition on the "
    "rescaling trick).",
    method=f"Real networks of {DEPTH} layers of width {WIDTH} (torch, 100 digits, several seeds) pruned by "
    "magnitude and at random; log χ as the slope of the logarithm of the mean squared gradient over the "
    "middle layers, before and after each normalisation; the library's `rescale_` beside it.",
    recorded=Verdict.REFINED,
    check=check,
)
