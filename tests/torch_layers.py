"""Every layer in torch's own functions, with normal weights: what the library's layers are held against.

Values come batch first, as torch has them; the library's arrays have the batch last.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from eoc_theory.layers import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Concatenate,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    GroupNorm,
    Identity,
    LayerNorm,
    MaxPool,
    Nonlinearity,
    PadChannels,
    PositionwiseDense,
    Subsample,
    Sum,
    WeightLayer,
)

torch = pytest.importorskip("torch")
F = torch.nn.functional
ROOT_2 = math.sqrt(2)


def convolution(
    name, channels, outputs, kernel=(3, 3), *, stride=None, padding=None, dilation=None, groups=1,
    mode="zeros", sigma_w=ROOT_2, sigma_b=0.0, law="normal",
):  # fmt: skip
    axes = len(kernel)
    fan_in = channels // groups * math.prod(kernel)
    return Convolution(
        name,
        WeightLayer(name, fan_in, outputs, sigma_w, sigma_b, None, law, kernel),
        stride or (1,) * axes,
        padding or tuple(((k - 1) // 2,) * 2 for k in kernel),
        dilation or (1,) * axes,
        groups,
        mode,
    )


def dense(name, fan_in, fan_out, *, sigma_w=ROOT_2, sigma_b=0.0, law="normal"):
    return Dense(name, WeightLayer(name, fan_in, fan_out, sigma_w, sigma_b, None, law))


def _normalised(layer, x, draw):
    """What a normalisation makes of x; its shifts are drawn."""
    channels = x.shape[1]
    own = tuple(x.shape[1:]) if isinstance(layer, LayerNorm) else (channels,)
    drawn_as = (*own, 1) if isinstance(layer, LayerNorm) else (channels, *(1,) * (x.ndim - 1))
    beta = draw.normal(drawn_as, layer.shift).reshape(own) if layer.shift > 0 else np.zeros(own)
    beta = torch.tensor(beta).to(x.dtype)
    gamma = torch.full(own, layer.gain, dtype=x.dtype)
    if isinstance(layer, LayerNorm):
        return F.layer_norm(x, own, gamma, beta, layer.eps)
    if isinstance(layer, GroupNorm):
        return F.group_norm(x, layer.groups, gamma, beta, layer.eps)
    mean, var = (
        torch.zeros(channels, dtype=x.dtype),
        torch.full((channels,), layer.variance, dtype=x.dtype),
    )
    return F.batch_norm(x, mean, var, gamma, beta, training=layer.training, eps=layer.eps)


def torch_layer(layer, inputs, draw, weights):
    """The layer's value by torch's functions; the weights it draws are put into `weights`."""
    x = inputs[0]
    axes = x.ndim - 2
    if isinstance(layer, (Dense, Convolution, PositionwiseDense)):
        w = torch.tensor(draw.normal(layer.weight.weight_shape, layer.weight.weight_std), requires_grad=True)
        weights.append(w)
        sigma_b = layer.weight.sigma_b
        b = torch.tensor(draw.normal((layer.weight.fan_out,), sigma_b)) if sigma_b > 0 else None
        if isinstance(layer, Dense):
            return F.linear(x, w, b)
        if isinstance(layer, PositionwiseDense):
            return F.linear(x.movedim(1, -1), w, b).movedim(-1, 1)
        pads = [side for pair in reversed(layer.padding) for side in pair]
        mode = {"zeros": "constant"}.get(layer.padding_mode, layer.padding_mode)
        convolve = {1: F.conv1d, 2: F.conv2d}[axes]
        wide = F.pad(x, pads, mode=mode)
        return convolve(wide, w, b, stride=layer.stride, dilation=layer.dilation, groups=layer.groups)
    if isinstance(layer, Nonlinearity):
        return layer.activation.to_torch()(x)
    if isinstance(layer, Dropout):
        if not layer.training:
            return x
        batch, channels, *space = x.shape
        shape = (channels, *(1 for _ in space), batch) if layer.channelwise else (channels, *space, batch)
        mask = np.moveaxis(draw.uniform(shape) >= layer.p, -1, 0)
        return x * torch.tensor(mask) / (1 - layer.p)
    if isinstance(layer, (BatchNorm, LayerNorm, GroupNorm)):
        return _normalised(layer, x, draw)
    if isinstance(layer, AveragePool):
        pool = {1: F.avg_pool1d, 2: F.avg_pool2d}[axes]
        return pool(x, layer.kernel, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad)
    if isinstance(layer, AdaptiveAveragePool):
        return {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d}[axes](x, layer.output)
    if isinstance(layer, MaxPool):
        pool = {1: F.max_pool1d, 2: F.max_pool2d}[axes]
        return pool(x, layer.kernel, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
    if isinstance(layer, Sum):
        return sum(c * value for c, value in zip(layer.coefficients, inputs, strict=True))
    if isinstance(layer, Concatenate):
        return torch.cat(inputs, dim=1)
    if isinstance(layer, Flatten):
        return torch.flatten(x, 1)
    if isinstance(layer, Subsample):
        return x[(..., *(slice(None, None, s) for s in layer.stride))]
    if isinstance(layer, PadChannels):
        return F.pad(x, [0, 0] * axes + [layer.before, layer.after])
    assert isinstance(layer, Identity)
    return x


def batch_first(values):
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


def largest_error(found, wanted):
    """Largest difference, relative to the largest entry."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


class WeightedInTorch:
    """A weight layer with weights that are drawn: its value, and what autograd sends back.

    Attributes:
        value: (channels, *space, batch).
    """

    def __init__(self, layer, x, draw):
        self._weights = []
        self._input = torch.tensor(batch_first(x), requires_grad=True)
        self._output = torch_layer(layer, [self._input], draw, self._weights)
        self.value = batch_last(self._output)

    def backwards(self, gradient):
        """The gradient by the input, batch last, and W times that of the weights, (fan_out, fan_in)."""
        (weights,) = self._weights
        sent = torch.tensor(batch_first(gradient))
        back, own = torch.autograd.grad(self._output, (self._input, weights), sent)
        scores = (weights * own).detach().numpy()
        return batch_last(back), scores.reshape(len(scores), -1)


def batch_last(values):
    return np.ascontiguousarray(np.moveaxis(values.detach().numpy(), 0, -1))
