"""Errors of predictions for models that no theory reads, and their cost beside measuring 40 seeds.

Plain torch draws, scores and ranks twelve networks of each kind; the prediction is made from one more, whose
weights are drawn anew. Times are of the same run, one thread each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import eoc_theory as eoc

SPARSITIES = (0.8, 0.9, 0.95, 0.98)
SEEDS = range(100, 112)


def block(width: int, heads: int) -> Any:
    """A pre-LN block's layers."""
    from torch import nn

    norms = nn.LayerNorm(width), nn.LayerNorm(width)
    inner = nn.Linear(width, 3 * width), nn.Linear(width, width)
    return nn.ModuleList([*norms, *inner, nn.Linear(width, 4 * width), nn.Linear(4 * width, width)])


def run_block(layers: Any, x: Any, heads: int, causal: bool) -> Any:
    """The block applied to tokens x (B, T, width)."""
    from torch.nn import functional

    first, second, inwards, outwards, up, down = layers
    batch, tokens, width = x.shape
    shape = (batch, tokens, 3, heads, width // heads)
    q, k, v = inwards(first(x)).reshape(shape).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2)
    x = x + outwards(mixed.reshape(batch, tokens, width))
    return x + down(functional.gelu(up(second(x))))


def vision_transformer() -> Any:
    """Six blocks of width 96 on patches of 4×4, weights of 0.02."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 96, 4, 4)
            self.positions = nn.Parameter(torch.zeros(1, 16, 96))
            self.blocks = nn.ModuleList([block(96, 4) for _ in range(6)])
            self.norm, self.head = nn.LayerNorm(96), nn.Linear(96, 10)
            for parameter in (*self.parameters(),):
                if parameter.ndim == 2 or parameter is self.positions:
                    nn.init.trunc_normal_(parameter, std=0.02)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
            for layers in self.blocks:
                x = run_block(layers, x, 4, causal=False)
            return self.head(self.norm(x).mean(1))

    return Model()


def language_model() -> Any:
    """Four causal blocks of width 64, a tied head, weights of 0.02 and 0.02/√8 at the branches' ends."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(65, 64), nn.Embedding(32, 64)
            self.blocks = nn.ModuleList([block(64, 4) for _ in range(4)])
            self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 65, bias=False)
            for parameter in self.parameters():
                if parameter.ndim == 2:
                    nn.init.normal_(parameter, std=0.02)
            for layers in self.blocks:
                for layer in (layers[3], layers[5]):  # type: ignore[index]
                    nn.init.normal_(layer.weight, std=0.02 / 8**0.5)
            self.head.weight = self.tokens.weight

        def forward(self, ids: Any) -> Any:
            x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
            for layers in self.blocks:
                x = run_block(layers, x, 4, causal=True)
            return self.head(self.norm(x))

    return Model()


def recurrent() -> Any:
    """Two LSTM layers of 96 units on embeddings, read out at the last token."""
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.lstm = nn.Embedding(50, 32), nn.LSTM(32, 96, 2, batch_first=True)
            self.head = nn.Linear(96, 10)

        def forward(self, ids: Any) -> Any:
            return self.head(self.lstm(self.embedding(ids))[0][:, -1])

    return Model()


def dense_net() -> Any:
    """DenseNet-40 with growth 12, batch normalisation in training mode."""
    import torch
    from torch import nn
    from torch.nn import functional

    def step(channels: int, out: int, kernel: int, *end: Any) -> Any:
        convolution = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(convolution.weight)
        return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), convolution, *end)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, channels = nn.Conv2d(3, 16, 3, padding=1, bias=False), 16
            self.stages, self.transitions = nn.ModuleList(), nn.ModuleList()
            for stage in range(3):
                self.stages.append(nn.ModuleList([step(channels + 12 * i, 12, 3) for i in range(12)]))
                channels += 144
                if stage < 2:
                    self.transitions.append(step(channels, channels, 1, nn.AvgPool2d(2)))
            self.norm, self.head = nn.BatchNorm2d(channels), nn.Linear(channels, 10)

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            for number, stage in enumerate(self.stages):
                for layer in stage:  # type: ignore[attr-defined]
                    x = torch.cat([x, layer(x)], 1)
                x = self.transitions[number](x) if number < 2 else x
            return self.head(functional.relu(self.norm(x)).mean((2, 3)))

    return Model()


def vgg16() -> Any:
    """VGG-16 with batch normalisation in evaluation mode."""
    return eoc.vgg(16, training=False).to_torch(int(np.random.default_rng().integers(2**31)))


def images(count: int) -> tuple[Any, Any]:
    """Digits enlarged to 16×16 or, for VGG and DenseNet, 32×32."""
    import torch

    inputs, labels = eoc.digits_images(count, (3, 32, 32))
    return torch.from_numpy(inputs).float(), torch.from_numpy(labels)


def ids(count: int, tokens: int, vocabulary: int) -> Any:
    """Random tokens."""
    import torch

    return torch.randint(0, vocabulary, (count, tokens), generator=torch.Generator().manual_seed(1))


def problems() -> dict[str, tuple[Callable[[], Any], Any]]:
    """Models, and the data that they are scored on."""
    import torch

    text = ids(16, 33, 65)
    small = images(64)[0][:, :, ::2, ::2].contiguous(), images(64)[1]
    return {
        "ViT, 6 blocks of 96, 64 images": (vision_transformer, small),
        "GPT, 4 blocks of 64, 16 texts of 32 tokens": (language_model, (text[:, :-1], text[:, 1:])),
        "LSTM, 2 layers of 96, 64 texts of 20 tokens": (recurrent, (ids(64, 20, 50), torch.arange(64) % 10)),
        "DenseNet-40, 64 images": (dense_net, images(64)),
        "VGG-16, BN in evaluation mode, 128 images": (vgg16, images(128)),
    }


def measured(model: Any, data: Any, names: tuple[str, ...]) -> tuple[list[Any], float]:
    """Fractions kept (sparsities, layers) and the critical sparsity, by plain torch."""
    import torch

    parameters: dict[str, Any] = dict(model.named_parameters(remove_duplicate=False))
    weights: list[Any] = [parameters.get(f"{name}.weight", parameters.get(name)) for name in names]
    outputs = model(data[0])
    loss = torch.nn.functional.cross_entropy(outputs.flatten(0, -2), data[1].flatten())
    gradients = torch.autograd.grad(loss, weights)
    scores = [(w * g).abs().detach() for w, g in zip(weights, gradients, strict=True)]
    flat = torch.cat([score.flatten() for score in scores]).sort().values
    cuts = [flat[round(s * len(flat)) - 1] for s in SPARSITIES]
    kept = [[float((score > cut).float().mean()) for score in scores] for cut in cuts]
    lowest = min(float(score.max()) for score in scores)
    return kept, float((flat <= lowest).double().mean())


def row(name: str, make: Callable[[], Any], data: Any) -> str:
    """One line of the table."""
    import torch

    torch.manual_seed(0)
    model = make()
    # What torch and the library load once is no part of either.
    eoc.predict_pruning(model, 0.9, data=data, samples=2)
    start = time.perf_counter()
    found = eoc.predict_pruning(model, SPARSITIES, data=data)
    predicting = time.perf_counter() - start
    law = eoc.predict_collapse(model, data=data)
    start, seeds = time.perf_counter(), []
    for seed in SEEDS:
        torch.manual_seed(seed)
        seeds.append(measured(make(), data, found.layers))
    measuring = (time.perf_counter() - start) / len(SEEDS)
    kept = np.array([one[0] for one in seeds])
    error = np.abs(found.kept - kept.mean(axis=0)).mean(axis=1)
    median = np.median(np.log10(1.0 - np.array([one[1] for one in seeds])))
    apart = abs(float(np.median(np.log10(1.0 - law.samples)) - median))
    errors = ", ".join(f"{value:.4f}" for value in error)
    bounds = ", ".join(f"{value:.4f}" for value in np.atleast_1d(found.kept_error_bound))
    ratio = 40.0 * measuring / predicting
    return f"| {name} | {errors} | {bounds} | {apart:.2f} | {found.samples} | {ratio:.1f} |"


def main() -> None:
    """Print the table."""
    import torch

    torch.set_num_threads(1)
    print("| model | error of kept at s = .8, .9, .95, .98 | bound | error of s_cr | networks | × 40 seeds |")
    print("|---|---|---|---|---|---|")
    for name, (make, data) in problems().items():
        print(row(name, make, data), flush=True)


if __name__ == "__main__":
    main()
