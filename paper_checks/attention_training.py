"""Training of pruned transformers: does rank collapse at initialisation show in what they learn?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import eoc_theory as eoc

from .claim import ATTENTION, Claim, Evidence, Finding, Verdict
from .transformers import gelu_second_moment

WIDTH, HEADS, DEPTH, TOKENS = 32, 4, 12, 16
SPARSITY, BATCH, RATE = 0.9, 32, 3e-3
#: Images that are trained on; the others are the test.
TRAINED = 1400
#: Images that SNIP sees.
SEEN = 128
#: The strengths of the residual branches: as published, and of Stable ResNets.
STRENGTHS = {"α = 1": 1.0, "α = 1/√L": DEPTH**-0.5}
#: Accuracy of guessing, with room for chance on some 300 images; and what counts as learning.
GUESSED, LEARNT = 0.2, 0.7


@dataclass(frozen=True)
class Outcome:
    """What became of one network: its accuracy on test images, and the share kept of W_q and W_k."""

    accuracy: float
    kept: float


@cache
def images() -> tuple[Any, Any]:
    """The digits, inputs (1740, 64) and targets, in an order of their own."""
    import torch

    inputs, targets = eoc.digits(1740)
    order = np.random.default_rng(0).permutation(len(targets))
    return torch.tensor(inputs[order], dtype=torch.float32), torch.tensor(targets[order])


@cache
def vit_class() -> Any:
    """A post-LN vision transformer on 8 × 8 images, 16 patches of four pixels, mean readout."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, alpha: float) -> None:
            super().__init__()
            self.alpha = alpha
            self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
            self.w1, self.w2 = (
                nn.Linear(WIDTH, 4 * WIDTH, bias=False),
                nn.Linear(4 * WIDTH, WIDTH, bias=False),
            )
            self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            for layer in (self.q, self.k, self.v, self.o, self.w1):
                nn.init.normal_(layer.weight, 0.0, 1.0 / math.sqrt(WIDTH))
            nn.init.normal_(self.w2.weight, 0.0, 1.0 / math.sqrt(4 * WIDTH * gelu_second_moment()))

        def attention(self, x: Any) -> Any:
            split = (len(x), TOKENS, HEADS, WIDTH // HEADS)
            q, k, v = (layer(x).view(split).transpose(1, 2) for layer in (self.q, self.k, self.v))
            mixed = functional.scaled_dot_product_attention(q, k, v)
            return self.o(mixed.transpose(1, 2).reshape(x.shape))

        def forward(self, x: Any) -> Any:
            x = self.first(x + self.alpha * self.attention(x))
            return self.second(x + self.alpha * self.w2(functional.gelu(self.w1(x))))

    class ViT(nn.Module):
        def __init__(self, alpha: float) -> None:
            super().__init__()
            self.embed, self.norm = nn.Linear(4, WIDTH), nn.LayerNorm(WIDTH)
            self.position = nn.Parameter(0.5 * torch.randn(TOKENS, WIDTH))
            self.blocks = nn.ModuleList(Block(alpha) for _ in range(DEPTH))
            self.head = nn.Linear(WIDTH, 10)

        def forward(self, x: Any) -> Any:
            patches = x.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, TOKENS, 4)
            x = self.norm(self.embed(patches) + self.position)
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(dim=1))

    return ViT


def trained(alpha: float, seed: int, *, steps: int, pruned: bool) -> Outcome:
    """A network from its seed, pruned by SNIP where asked for, then trained by Adam."""
    import torch
    from torch.nn import functional

    inputs, targets = images()
    torch.manual_seed(seed)
    model = vit_class()(alpha)
    kept = 1.0
    if pruned:
        data = inputs[:SEEN].numpy(), targets[:SEEN].numpy()
        found = eoc.measure_pruning(model, SPARSITY, criterion="snip", data=data, device="cpu")
        of_scores = [name.endswith((".q", ".k")) for name in found.layers]
        kept = float(np.ravel(found.kept)[of_scores].mean())
        assert isinstance(found.masks, dict)
        eoc.prune_(model, found.masks)
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(0, TRAINED, (BATCH,), generator=generator)
        loss = functional.cross_entropy(model(inputs[chosen]), targets[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        right = model(inputs[TRAINED:]).argmax(dim=1) == targets[TRAINED:]
    return Outcome(float(right.float().mean()), kept)


def _range(values: np.ndarray) -> str:
    low, high = f"{values.min():.0%}", f"{values.max():.0%}"
    return low if low == high else f"{low} to {high}"


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    steps, seeds = (100, 1) if quick else (150, 3)
    evidence: list[Evidence] = []
    phases: list[str] = []
    accuracies: dict[tuple[str, bool], np.ndarray] = {}
    for name, alpha in STRENGTHS.items():
        diagram = eoc.attention_phase([1.0], [alpha], tokens=TOKENS, depth=DEPTH, norm="post")
        phases.append(str(diagram.phase[0, 0]))
        evidence.append(Evidence(f"{name}: phase of the blocks at initialisation", None, phases[-1]))
        for pruned in (False, True):
            found = [trained(alpha, seed, steps=steps, pruned=pruned) for seed in range(seeds)]
            accuracy = accuracies[name, pruned] = np.array([one.accuracy for one in found])
            error = float(accuracy.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else None
            what = f"{SPARSITY:.0%} pruned" if pruned else "dense"
            mean = float(accuracy.mean())
            evidence.append(Evidence(f"  {what}: accuracy after {steps} steps", None, mean, error))
            if pruned:
                share = float(np.mean([one.kept for one in found]))
                evidence.append(Evidence("  kept of W_q and W_k, mean over blocks", None, share))
    plain, cured = STRENGTHS
    dense = accuracies[plain, False].max() < GUESSED and accuracies[cured, False].min() > LEARNT
    good = phases == ["rank-collapsed", "trainable"] and bool(dense)
    old, new = accuracies[plain, True], accuracies[cured, True]
    conclusion = (
        "Dense, the networks that the theory calls rank-collapsed do not get beyond guessing "
        f"({accuracies[plain, False].mean():.0%}), and those with branches times 1/√L reach "
        f"{accuracies[cured, False].mean():.0%}. Pruned by {SPARSITY:.0%}, they reach {_range(old)} against "
        f"{_range(new)}: no verdict on those is drawn from so few seeds, and SNIP itself takes most of their "
        "strength from the branches."
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion)


CLAIM = Claim(
    name="transformer-training",
    statement="Rank collapse at initialisation keeps deep post-LN transformers from learning, and scaling "
    "the residual branches by 1/√L avoids it (Noci et al. 2022).",
    method=f"Vision transformers of {DEPTH} post-LN blocks of width {WIDTH} on the digits, dense and "
    f"{SPARSITY:.0%} pruned by SNIP, trained by Adam with α = 1 and α = 1/√L.",
    recorded=Verdict.HOLDS,
    check=check,
    group=ATTENTION,
)
