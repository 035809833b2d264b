"""Networks that are sampled and scored in a second, on a GPU against the CPU of the same machine.

SNIP on a ResNet of 50 layers at 224×224, on a transformer of GPT-2 small's shapes, and on a deep fully
connected network. Without a GPU it says so and measures nothing.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import eoc_theory as eoc

#: Networks that are timed, after one that is not.
NETWORKS = 4


def gpt2_small(vocabulary: int = 50_257, width: int = 768, layers: int = 12, tokens: int = 256) -> Any:
    """A causal language model of GPT-2 small's shapes, in plain torch."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
            layer = nn.TransformerEncoderLayer(
                width, width // 64, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            self.body = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
            self.head = nn.Linear(width, vocabulary, bias=False)
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    nn.init.normal_(parameter, std=0.02)
            self.head.weight = self.tokens.weight

        def forward(self, ids: Any) -> Any:
            places = torch.arange(ids.shape[1], device=ids.device)
            mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], device=ids.device)
            x = self.tokens(ids) + self.positions(places)
            return self.head(self.body(x, mask=mask.to(x.dtype), is_causal=True))

    return Model()


def networks_a_second(model: Any, data: Any, device: str) -> float:
    """Of the sampled networks that predict SNIP's kept fractions."""
    from eoc_theory.networks.resolve import Options
    from eoc_theory.pytorch.sample.door import sampled_network

    sampler = sampled_network(model, data, Options(method="sampled", device=device)).sampler
    rule = eoc.criterion("snip")
    sampler.sample(rule, 1, 0, 1, 1)
    start = time.perf_counter()
    sampler.sample(rule, NETWORKS, 1, NETWORKS, NETWORKS)
    return NETWORKS / (time.perf_counter() - start)


def main() -> None:
    """Print networks a second on both, and their ratio."""
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device here: nothing is measured")
        return
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(50_257, size=(8, 256)))
    images = torch.from_numpy(rng.standard_normal((16, 3, 224, 224))).float()
    problems = {
        "ResNet of 50 layers, 16 images of 224×224": (
            eoc.resnet(50, width=64, input_shape=(3, 224, 224), classes=1000).to_torch(),
            (images, torch.arange(16)),
        ),
        "GPT-2 small, 8 texts of 256 tokens": (gpt2_small(), (ids, ids.roll(-1, 1))),
        "fully connected, 100 × 1,000, 256 inputs": (
            eoc.mlp(100, 1000).to_torch(),
            (torch.from_numpy(rng.standard_normal((256, 64))).float(), torch.arange(256) % 10),
        ),
    }
    print(torch.cuda.get_device_name())
    for name, (model, data) in problems.items():
        gpu, cpu = (networks_a_second(model, data, device) for device in ("cuda", "cpu"))
        print(f"{name:44} GPU {gpu:8.2f}/s   CPU {cpu:8.3f}/s   {gpu / cpu:6.0f} ×")


if __name__ == "__main__":
    main()
