"""The layer types of a graph, one class each."""

from .elementwise import Dropout, Nonlinearity
from .joins import Concatenate, Sum
from .layer import Layer, Shape, Weighted
from .normalisation import BatchNorm, GroupNorm, LayerNorm
from .pooling import AdaptiveAveragePool, AveragePool, MaxPool
from .reshape import Flatten, Identity, Input, PadChannels, Subsample
from .weight_layer import PaddingMode, WeightLaw, WeightLayer
from .weighted import Convolution, Dense

__all__ = [
    "AdaptiveAveragePool", "AveragePool", "BatchNorm", "Concatenate", "Convolution", "Dense", "Dropout",
    "Flatten", "GroupNorm", "Identity", "Input", "Layer", "LayerNorm", "MaxPool", "Nonlinearity",
    "PadChannels", "PaddingMode", "Shape", "Subsample", "Sum", "WeightLaw", "WeightLayer", "Weighted",
]  # fmt: skip
