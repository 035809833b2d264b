"""SNIP in plain torch: what it keeps of networks, for tests to hold the library's theory against."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def kept_and_moments(model, loss, sparsities):
    """Fractions kept of each Linear layer by one ranking of |W g|, (n_s, L), and E[(W g)²], (L,)."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    gradients = torch.autograd.grad(loss, weights)
    scores = [(w * g).detach().abs().numpy().ravel() for w, g in zip(weights, gradients, strict=True)]
    together = np.sort(np.concatenate(scores))
    limits = [together[round(s * len(together))] for s in sparsities]
    kept = [[float((one >= t).mean()) for one in scores] for t in limits]
    return kept, [float(np.mean(one.astype(float) ** 2)) for one in scores]
