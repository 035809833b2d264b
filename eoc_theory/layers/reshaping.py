"""Layers that move entries and change none."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Layer, Shape


@dataclass(frozen=True)
class Input(Layer):
    """The network's input."""

    shape: Shape

    def output_shape(self, *inputs: Shape) -> Shape:
        if inputs:
            raise self.refuse("no input", len(inputs))
        return self.shape


@dataclass(frozen=True)
class Flatten(Layer):
    """All entries as one vector."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return Shape(self.one(inputs).size)


@dataclass(frozen=True)
class Identity(Layer):
    """Nothing."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)


@dataclass(frozen=True)
class Subsample(Layer):
    """Every `stride`-th position along each axis, from the first (``x[:, :, ::2, ::2]``)."""

    stride: tuple[int, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if len(shape.space) != len(self.stride):
            raise self.refuse(f"images over {len(self.stride)} axes", shape)
        return Shape(shape.channels, tuple(-(-n // s) for n, s in zip(shape.space, self.stride, strict=True)))


@dataclass(frozen=True)
class PadChannels(Layer):
    """Channels of zeros before and after (the shortcut without parameters)."""

    before: int
    after: int

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        return Shape(shape.channels + self.before + self.after, shape.space)
