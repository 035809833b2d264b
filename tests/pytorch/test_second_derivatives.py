"""Models that gradients of gradients, or whole numbers, have to pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import eoc_theory as eoc


class Transformer(nn.Module):
    """Token ids, attention by torch's fused function, a head that is the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding, self.qkv = nn.Embedding(7, 8), nn.Linear(8, 24)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        q, k, v = self.qkv(self.embedding(ids)).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q, k, v).mean(1))


def wanted(model, data, criterion):
    """|W g| and W (H g) by plain torch."""
    model = model.double()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = F.cross_entropy(model(data[0]), data[1])
    weights = [model.qkv.weight, model.head.weight]
    g = torch.autograd.grad(loss, weights, create_graph=True)
    if criterion == "snip":
        return [(w * d).detach().abs() for w, d in zip(weights, g, strict=True)]
    h = torch.autograd.grad(sum((d * d.detach()).sum() for d in g), weights)
    return [(w * d).detach() for w, d in zip(weights, h, strict=True)]


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_token_ids_attention_and_a_tied_head(criterion):
    torch.manual_seed(0)
    model = Transformer()
    data = torch.randint(0, 7, (12, 5)), torch.arange(12) % 7
    found = eoc.measure_pruning(model, 0.5, criterion=criterion, data=data)
    scores = wanted(model, data, criterion)
    flat = torch.cat([score.reshape(-1) for score in scores]).sort().values
    limit = flat[round(0.5 * len(flat)) - 1]
    assert np.allclose(found.kept, [float((s > limit).double().mean()) for s in scores], atol=1e-12)


def test_the_ends_of_what_was_measured_are_not_extrapolated():
    assert "width" not in " ".join(eoc.predict_pruning(eoc.resnet(20), 0.9, criterion="magnitude").notes)
