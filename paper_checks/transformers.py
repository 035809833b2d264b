"""Sampled transformers in plain torch, for the claims on attention: no layer of the library is in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np

import eoc_theory as eoc
from eoc_theory.mean_field.attention_blocks import Norm, Stack, Trajectory, propagate_stack

Array = np.ndarray


@dataclass(frozen=True)
class Blocks:
    """Transformer blocks at initialisation: attention, then an MLP of four times the width.

    Attributes:
        width, heads, tokens, depth: of the network.
        score_scale: σ_qσ_k. alpha: factor of every branch.
        norm: "pre" or "post". skip: factor of what branches are added to.
        activation: of the MLP, "gelu", "relu", "tanh"; None: no MLP. Its output has variance `mlp_gain`².
        gain: σ_vσ_o.
        similarity: correlation of two tokens at the input.
        alike: True for one gradient at all outputs, False for independent ones.
    """

    width: int
    heads: int
    tokens: int
    depth: int
    score_scale: float
    alpha: float
    norm: str = "pre"
    skip: float = 1.0
    activation: str | None = "gelu"
    gain: float = 1.0
    mlp_gain: float = 1.0
    similarity: float = 0.0
    alike: bool = False

    def theory(self) -> Trajectory:
        """The kernels of such blocks, at one point."""
        act = None if self.activation is None else eoc.activation(self.activation)
        stack = Stack(
            self.tokens, self.depth, cast("Norm", self.norm), act, self.gain, self.mlp_gain, self.skip
        )
        point = np.array([self.score_scale]), np.array([self.alpha])
        alike = float(self.alike)
        return propagate_stack(stack, *point, similarity=self.similarity, gradient_similarity=alike)


@dataclass(frozen=True)
class Seen:
    """What was measured in one network; see `eoc_theory.mean_field.attention_blocks.Trajectory`.

    Attributes:
        variance, gap: of the tokens before each block and after the last, (depth + 1,).
        entropy: mean over rows and heads, (depth,).
        log_gradient: log of the mean squared gradient, (depth + 1,), 0 after the last block; empty without.
        log_moments: log Σ W²g² of each matrix, by its name, (depth,); empty without gradients.
    """

    variance: Array
    gap: Array
    entropy: Array
    log_gradient: Array
    log_moments: dict[str, Array]


def sample(net: Blocks, seed: int, *, gradients: bool = True, double: bool = False) -> Seen:
    """One network from its seed, on one sequence of Gaussian tokens, in single or double precision."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator, dtype=torch.float64 if double else torch.float32)

    own, common = normal(net.tokens, net.width), normal(1, net.width)
    x = math.sqrt(1.0 - net.similarity) * own + math.sqrt(net.similarity) * common
    x.requires_grad_(gradients)
    places, weights, entropies = [x], [], []

    def weight(name: str, fan_in: int, fan_out: int, scale: float) -> Any:
        made = (normal(fan_in, fan_out) * (scale / math.sqrt(fan_in))).requires_grad_(gradients)
        weights.append((name, made))
        return made

    with torch.set_grad_enabled(gradients):
        for _ in range(net.depth):
            x = _added(net, x, lambda h: _attention(net, h, weight, entropies))
            if net.activation is not None:
                x = _added(net, x, lambda h: _mlp(net, h, weight))
            places.append(x)
    variance, gap = np.array([_moments(place.detach()) for place in places]).T
    if not gradients:
        return Seen(variance, gap, np.array(entropies), np.array([]), {})
    back = (normal(1, net.width) if net.alike else normal(net.tokens, net.width)).expand(*x.shape)
    found = torch.autograd.grad((x * back).sum(), [*places, *(w for _, w in weights)])
    squares = np.array([float((g**2).mean()) for g in found[: len(places)]])
    moments: dict[str, list[float]] = {}
    for (name, w), g in zip(weights, found[len(places) :], strict=True):
        moments.setdefault(name, []).append(math.log(float(((w.detach() * g) ** 2).sum())))
    log_gradient = np.log(squares / squares[-1])
    return Seen(
        variance, gap, np.array(entropies), log_gradient, {k: np.array(v) for k, v in moments.items()}
    )


def _attention(net: Blocks, h: Any, weight: Callable[..., Any], entropies: list[float]) -> Any:
    import torch

    T, d = h.shape
    scale, gain = math.sqrt(net.score_scale), math.sqrt(net.gain)
    q, k, v = (
        (h @ weight(name, d, d, sd)).reshape(T, net.heads, -1).transpose(0, 1)
        for name, sd in (("q", scale), ("k", scale), ("v", gain))
    )
    log_a = torch.log_softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), dim=-1)
    a = log_a.exp()
    entropies.append(float(-(a * log_a).sum(-1).mean().detach()))
    return (a @ v).transpose(0, 1).reshape(T, d) @ weight("o", d, d, gain)


def _mlp(net: Blocks, h: Any, weight: Callable[..., Any]) -> Any:
    assert net.activation is not None
    function, second = _activation(net.activation)
    hidden = function(h @ weight("w1", net.width, 4 * net.width, 1.0))
    return hidden @ weight("w2", 4 * net.width, net.width, net.mlp_gain / math.sqrt(second))


def _added(net: Blocks, x: Any, branch: Callable[[Any], Any]) -> Any:
    from torch.nn.functional import layer_norm

    if net.norm == "pre":
        return net.skip * x + net.alpha * branch(layer_norm(x, x.shape[-1:], eps=0.0))
    return layer_norm(net.skip * x + net.alpha * branch(x), x.shape[-1:], eps=0.0)


@cache
def _activation(name: str) -> tuple[Any, float]:
    """The function, and its second moment under N(0, 1) by Gauss's rule."""
    import torch

    function = getattr(torch.nn.functional, name)
    nodes, rule = np.polynomial.hermite_e.hermegauss(200)
    values = function(torch.tensor(nodes)).numpy()
    return function, float((values**2 * rule).sum() / rule.sum())


def _moments(x: Any) -> tuple[float, float]:
    """Mean variance of a token, and 1 less the mean correlation of two."""
    import torch

    kernel = (x @ x.T / x.shape[1]).double()
    size = kernel.diagonal()
    correlation = kernel / torch.sqrt(size[:, None] * size)
    T = len(size)
    return float(size.mean()), float((T * T - correlation.sum()) / (T * (T - 1)))


def gelu_second_moment() -> float:
    """E φ(Z)² of GELU for Z ~ N(0, 1)."""
    return _activation("gelu")[1]
