"""Theory of networks that attend within windows or from channels to channels, against such networks written
and pruned in plain torch."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

SPARSITIES = np.array([0.8, 0.9, 0.95])
WIDTH, HEADS, SIZE, WINDOW, INPUTS, SEEDS = 96, 3, 8, 4, 20, 8


class Windows(nn.Module):
    """Attention within shifted windows under a bias of each head and the mask of the shift."""

    def __init__(self, shift):
        super().__init__()
        self.shift, self.qkv, self.o = shift, nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Parameter(torch.randn(HEADS, WINDOW**2, WINDOW**2))
        corner = torch.zeros(SIZE, SIZE)
        corner[-2:] += 1
        corner[:, -2:] += 2
        cut = corner.view(2, WINDOW, 2, WINDOW).permute(0, 2, 1, 3).reshape(4, 1, -1)
        self.register_buffer("mask", -1e4 * (cut != cut.transpose(1, 2)).float())

    def forward(self, x):
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        cut = x.view(-1, 2, WINDOW, 2, WINDOW, WIDTH).transpose(2, 3).reshape(-1, 4, WINDOW**2, WIDTH)
        cut = self.qkv(cut).view(*cut.shape[:3], 3, HEADS, -1)
        q, k, v = cut.permute(3, 0, 1, 4, 2, 5)
        scores = q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5 + self.bias
        if self.shift:
            scores = scores + self.mask[:, None]
        out = self.o((scores.softmax(-1) @ v).transpose(2, 3).flatten(3))
        out = out.view(-1, 2, 2, WINDOW, WINDOW, WIDTH).transpose(2, 3).reshape(x.shape)
        return out.roll((self.shift, self.shift), (1, 2)) if self.shift else out


class Channels(nn.Module):
    """Attention of channels to channels by cosines."""

    def __init__(self):
        super().__init__()
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        cut = self.qkv(x.flatten(1, 2)).view(len(x), -1, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 4, 1)
        q, k, v = F.normalize(cut[0], dim=-1), F.normalize(cut[1], dim=-1), cut[2]
        out = (3.0 * q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.o(out.permute(0, 3, 1, 2).reshape(x.shape))


class Network(nn.Module):
    def __init__(self, *branches):
        super().__init__()
        self.embed, self.head = nn.Conv2d(3, WIDTH, 2, 2), nn.Linear(WIDTH, 10)
        self.branches = nn.ModuleList(branches)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(len(branches) + 1))

    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        for norm, branch in zip(self.norms, self.branches, strict=False):
            x = x + branch(norm(x))
        return self.head(self.norms[-1](x).mean((1, 2)))


def mlp():
    return nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))


NETWORKS = {
    "windows": lambda: Network(Windows(0), mlp(), Windows(2), mlp()),
    "channels": lambda: Network(Channels(), mlp(), Channels(), mlp()),
}


def batch():
    draw = torch.Generator().manual_seed(5)
    coarse = torch.randn(INPUTS, 3, 4, 4, generator=draw)
    images = F.interpolate(coarse, 2 * SIZE, mode="bilinear") + 0.3 * torch.randn(
        INPUTS, 3, 2 * SIZE, 2 * SIZE, generator=draw
    )
    return images, torch.arange(INPUTS) % 10


def kept(model, names):
    """What SNIP keeps of the layers, by the whole ranking, (n_s, L)."""
    images, targets = batch()
    weights = [model.get_submodule(name).weight for name in names]
    gradients = torch.autograd.grad(F.cross_entropy(model(images), targets), weights)
    scores = [(w * g).abs().flatten() for w, g in zip(weights, gradients, strict=True)]
    whole = torch.cat(scores)
    cuts = [whole.kthvalue(round(s * len(whole))).values for s in SPARSITIES]
    return np.array([[float((one > cut).float().mean()) for one in scores] for cut in cuts])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_what_snip_keeps_is_that_of_networks_in_plain_torch(name):
    torch.manual_seed(0)
    models = [NETWORKS[name]() for _ in range(SEEDS)]
    net = eoc.Architecture.from_torch(models[0], batch()[0])
    images, targets = batch()
    found = eoc.predict_pruning(net, SPARSITIES, data=(images.numpy(), targets.numpy()), method="theory")
    measured = np.mean([kept(model, net.weight_layers) for model in models], axis=0)
    error = np.abs(found.kept - measured).mean(axis=1)
    print(name, np.round(found.kept, 3), np.round(measured, 3), error)
    assert error.max() < 0.01
