"""Dropout in its spellings, and the masks that are drawn for it by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...layers import Dropout, StochasticDepth
from . import layout as lay
from .constants import number
from .layout import CHANNELS
from .readers import reads
from .recorder import Recorder
from .values import Mask, Signal


@reads("dropout", "native_dropout")
def _dropout(recorder: Recorder, input: Any, p: float = 0.5, train: bool = True) -> Any:
    return dropout(recorder, input, p, train)


@reads("feature_dropout")
def _feature_dropout(recorder: Recorder, input: Any, p: float = 0.5, train: bool = True) -> Any:
    return dropout(recorder, input, p, train, channelwise=True)


@reads("alpha_dropout", "feature_alpha_dropout")
def _alpha_dropout(recorder: Recorder, input: Any, p: float = 0.5, train: bool = False) -> Any:
    if train and p > 0:
        raise recorder.refuse("alpha dropout cannot be read in training mode")
    return recorder.check(input)


def dropout(recorder: Recorder, input: Any, p: float, training: bool, channelwise: bool = False) -> Signal:
    """Dropout, which is nothing in evaluation mode."""
    signal, p = recorder.check(input), float(p)
    if not training or p == 0:
        return signal.sharing(signal)
    if p >= 1:
        raise recorder.refuse("drops everything (p = 1)")
    if channelwise and not signal.shape.space:
        raise recorder.refuse("drops whole channels of images, got vectors")
    made = recorder.add(Dropout(recorder.label(), p, True, channelwise), recorder.position(signal))
    return replace(made, layout=signal.layout)


@reads("bernoulli")
def _bernoulli(recorder: Recorder, input: Any, p: Any = None) -> Any:
    kept = number(p if p is not None else input)
    if not isinstance(kept, float):
        raise recorder.refuse("draws random numbers of unequal probability, which cannot be read")
    return Mask(tuple(input.sizes), kept)


@reads("rand")
def _rand(recorder: Recorder, size: Any) -> Any:
    return Mask(tuple(size), 0.0, uniform=True)


@reads("rand_like")
def _rand_like(recorder: Recorder, input: Any) -> Any:
    return Mask(tuple(input.sizes), 0.0, uniform=True)


@reads("floor")
def _floor(recorder: Recorder, input: Any) -> Any:
    if isinstance(input, Mask) and input.uniform:
        return replace(input, uniform=False)
    return recorder.elementwise(input)


def masked(recorder: Recorder, signal: Signal, mask: Mask) -> Signal:
    """A tensor times a random mask: dropout of entries, of channels, or of whole inputs."""
    if mask.uniform or not 0.0 < mask.kept <= 1.0:
        raise recorder.refuse("draws random numbers, which cannot be read")
    signal = recorder.settled(signal)
    position, p = recorder.position(signal), 1.0 - mask.kept
    sizes = (1,) * (len(signal.sizes) - len(mask.sizes)) + mask.sizes
    own = {d for d, (n, of) in enumerate(zip(sizes, signal.sizes, strict=False)) if n == of and of > 1}
    channels = {d for d, dim in enumerate(signal.layout) if dim == lay.whole(CHANNELS, signal.shape.channels)}
    whole = {d for d, n in enumerate(signal.sizes) if n > 1}
    name = recorder.label()
    if p == 0.0:
        made = signal
    elif own == {0}:
        made = recorder.add(StochasticDepth(name, p, True), position)
    elif own == whole or own == {0} | channels:
        made = recorder.add(Dropout(name, p, True, own != whole), position)
    else:
        raise recorder.refuse("draws random numbers for several inputs at once, which cannot be read")
    made = replace(made, layout=signal.layout)
    factor = mask.scale * mask.kept
    return made if abs(factor - 1.0) < 1e-6 else recorder.scaled(made, factor)
