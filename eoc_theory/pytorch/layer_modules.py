"""Torch modules of layers that torch itself has none of, for the models made of a graph.

torch is imported at module level, so this module is imported only where a model is made.
"""

from __future__ import annotations

import torch
from torch import nn


class PositionwiseLinear(nn.Linear):
    """A Linear layer on the channels at each position, (B, C, *positions)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class LayerNormOverChannels(nn.LayerNorm):
    """LayerNorm of the channels at each position, (B, C, *positions)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class ChannelScale(nn.Module):
    """Each channel times a weight, and plus a bias where there are any."""

    def __init__(self, channels: int, axes: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, *(1,) * axes))
        self.bias = nn.Parameter(torch.zeros(channels, *(1,) * axes)) if bias else None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input * self.weight if self.bias is None else input * self.weight + self.bias


class StochasticDepth(nn.Module):
    """Whole inputs set to 0 with probability p and the others divided by 1 − p, in training mode."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return input
        kept = input.new_empty((len(input), *(1,) * (input.dim() - 1))).bernoulli_(1.0 - self.p)
        return input * kept.div_(1.0 - self.p)


def multiplied(value: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """The product entry by entry; a gate of vectors is one factor for all positions."""
    return value * gate.reshape(*gate.shape, *(1,) * (value.dim() - gate.dim()))
