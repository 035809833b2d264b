"""The layer types a network's graph is made of."""

from .base import Layer, Shape
from .elementwise import Dropout, Nonlinearity
from .joining import Concatenate, Sum
from .normalising import BatchNorm, GroupNorm, LayerNorm
from .pooling import AdaptiveAveragePool, AveragePool, MaxPool
from .reshaping import Flatten, Identity, Input, PadChannels, Subsample
from .weighted import Convolution, Dense, PaddingMode, WeightLaw, WeightLayer

__all__ = [
    "AdaptiveAveragePool", "AveragePool", "BatchNorm", "Concatenate", "Convolution", "Dense", "Dropout",
    "Flatten", "GroupNorm", "Identity", "Input", "Layer", "LayerNorm", "MaxPool", "Nonlinearity",
    "PadChannels", "PaddingMode", "Shape", "Subsample", "Sum", "WeightLaw", "WeightLayer",
]  # fmt: skip
