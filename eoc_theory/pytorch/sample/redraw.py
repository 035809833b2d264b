"""Drawing a model's parameters anew from their laws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ..weights import fan_in, fill_
from .laws import ParameterLaw


def redraw_(model: Any, laws: Mapping[str, ParameterLaw], stream: list[int]) -> None:
    """Draw every parameter of `model` anew, in place.

    Drawn on the CPU, in single precision or the parameter's own if that is double, each parameter from a
    stream of its own: the values depend on neither the device nor the other parameters.

    Args:
        laws: by the parameters' names.
        stream: whole numbers that name the network.
    """
    with torch.no_grad():
        for (name, parameter), generator in zip(model.named_parameters(), generators(stream), strict=False):
            law = laws[name]
            if law.law != "fixed":
                parameter.copy_(_drawn(parameter, law, generator, name))


def generators(stream: list[int]) -> Iterator[torch.Generator]:
    """Generators on the CPU without end, the n-th the same whatever the others are used for."""
    number = 0
    while True:
        (state,) = np.random.SeedSequence([*stream, number]).generate_state(1, np.uint64)
        # torch takes 64 bits with a sign.
        yield torch.Generator().manual_seed(int(state) >> 1)
        number += 1


def _drawn(parameter: Any, law: ParameterLaw, generator: torch.Generator, name: str) -> torch.Tensor:
    kind = torch.float64 if parameter.dtype is torch.float64 else torch.float32
    if law.law == "shuffled":
        rows = parameter.detach().cpu().reshape(len(parameter), -1) if parameter.ndim else parameter
        order = torch.rand(rows.shape, generator=generator).argsort(dim=-1)
        return rows.gather(-1, order).reshape(parameter.shape)
    if law.law == "parts":
        drawn = torch.empty(parameter.shape, dtype=kind)
        for start, stop, own in law.parts:
            part = parameter.narrow(law.axis, start, stop - start)
            drawn.narrow(law.axis, start, stop - start).copy_(_drawn(part, own, generator, name))
        return drawn
    drawn = torch.empty(parameter.shape, dtype=kind)
    if drawn.ndim < 2:
        matrix = drawn.reshape(1, -1)
        fill_(matrix, None, law.std * math.sqrt(fan_in(matrix)), 0.0, law.law, generator)
    else:
        fill_(drawn, None, law.std * math.sqrt(fan_in(drawn)), 0.0, law.law, generator, name=name)
    drawn += law.mean
    return drawn * (parameter.detach().cpu() != 0) if law.zeros else drawn
