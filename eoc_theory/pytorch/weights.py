"""Weights of torch tensors sampled in place from the initialisation."""

from __future__ import annotations

import copy
import math
from functools import lru_cache
from typing import Any

from ..base import checks
from ..errors import ModelError
from ..layers.weight_layer import CUT, CUT_STD
from .lazy import torch

LAWS = ("normal", "uniform", "truncated", "orthogonal", "delta-orthogonal")


def fan_in(weight: Any) -> int:
    """Inputs of one output unit: features, or channels/groups × kernel size of a convolution."""
    return math.prod(weight.shape[1:])


def unfilled(kind: Any, *arguments: Any, dtype: Any = None, **options: Any) -> Any:
    """A module of torch on the CPU whose parameters hold anything: they are drawn afterwards.

    torch's own initialisation would draw every weight for nothing. ``torch.nn.utils.skip_init`` spares that
    too, but the first call imports torch's symbolic shapes and SymPy, most of a second.
    """
    dtype = dtype or torch.get_default_dtype()
    module = copy.deepcopy(_without_memory(kind, arguments, dtype, tuple(sorted(options.items()))))
    for name, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, name, torch.nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype)))
    return module


@lru_cache(maxsize=256)
def _without_memory(kind: Any, arguments: tuple[Any, ...], dtype: Any, options: tuple[Any, ...]) -> Any:
    """A module on the ``meta`` device, where even an initialisation that does nothing takes ten copies' time.

    At most 256 of them are remembered; they hold shapes alone.
    """
    return kind(*arguments, device="meta", dtype=dtype, **dict(options))


def fill_(
    weight: Any,
    bias: Any,
    sigma_w: float,
    sigma_b: float,
    law: str,
    generator: Any = None,
    groups: int = 1,
    name: str = "weight",
) -> None:
    """Draw a weight tensor and its bias (or None) in place.

    Every law gives the weights the mean square σ_w²/fan_in; biases are N(0, σ_b²), or 0.

    - "normal", "uniform" on ±√3 standard deviations;
    - "truncated": normal, cut at two standard deviations of the uncut law, which is widened by 1/0.87963 so
      that the variance left is exact;
    - "orthogonal": the weights as a matrix of fan_out rows and fan_in columns, of orthogonal rows, or columns
      where there are more rows (Saxe et al. 2014); of a grouped convolution each group's;
    - "delta-orthogonal": a convolution's kernel is 0 but for its centre, which is an orthogonal matrix with
      orthogonal columns (Xiao et al. 2018); a fully connected layer's as "orthogonal".

    Raises:
        ModelError: "delta-orthogonal" for a convolution of fewer output than input channels, named `name`.
    """
    checks.one_of("law", law, LAWS)
    scale = sigma_w / math.sqrt(fan_in(weight))
    with torch.no_grad():
        if law == "normal":
            weight.normal_(0.0, scale, generator=generator)
        elif law == "uniform":
            weight.uniform_(-math.sqrt(3.0) * scale, math.sqrt(3.0) * scale, generator=generator)
        elif law == "truncated":
            std = scale / CUT_STD
            # Half precision has no inverse error function.
            drawn = torch.empty(weight.shape, dtype=_working(weight.dtype), device=weight.device)
            torch.nn.init.trunc_normal_(drawn, 0.0, std, -CUT * std, CUT * std, generator=generator)
            weight.copy_(drawn)
        elif law == "orthogonal" or weight.ndim == 2:
            weight.copy_(_orthogonal(weight, fan_in(weight), groups, scale, generator).view(weight.shape))
        else:
            check_delta(weight, groups, name)
            # One entry of each kernel holds the mean square of all.
            spread = scale * math.sqrt(weight[0, 0].numel())
            centre = _orthogonal(weight, weight.shape[1], groups, spread, generator)
            weight.zero_()
            weight[(..., *((k - 1) // 2 for k in weight.shape[2:]))] = centre.to(weight.dtype)
        if bias is not None and sigma_b > 0:
            bias.normal_(0.0, sigma_b, generator=generator)
        elif bias is not None:
            bias.zero_()


def check_delta(weight: Any, groups: int, name: str) -> None:
    """Refuse a delta-orthogonal convolution that loses channels.

    Raises:
        ModelError: fewer output than input channels (in one group).
    """
    out, channels = len(weight) // groups, weight.shape[1]
    if weight.ndim > 2 and out < channels:
        raise ModelError(
            f"law 'delta-orthogonal' needs as many output as input channels in each convolution, "
            f"got {channels} -> {out} in layer {name!r}"
        )


def _orthogonal(weight: Any, columns: int, groups: int, scale: float, generator: Any) -> Any:
    """A matrix of the weight's rows and so many columns, each of `groups` blocks of rows orthogonal, with
    entries of mean square scale²."""
    # Half precision has no QR decomposition.
    drawn = torch.empty((len(weight), columns), dtype=_working(weight.dtype), device=weight.device)
    for block in drawn.chunk(groups):
        # torch's has entries of mean square 1/max(rows, columns).
        torch.nn.init.orthogonal_(block, gain=scale * math.sqrt(max(block.shape)), generator=generator)
    return drawn


def _working(dtype: Any) -> Any:
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32
