"""The layer types of a graph, one class each."""

from .channel_norm import ChannelNorm
from .channels import ChannelScale, ChannelShuffle, ChannelSlice
from .elementwise import Dropout, Nonlinearity, StochasticDepth
from .joins import Concatenate, Sum
from .layer import Layer, Shape, Weighted
from .normalisation import BatchNorm, GroupNorm, LayerNorm
from .pooling import AdaptiveAveragePool, AveragePool, MaxPool, Pad, Resize
from .positionwise import PositionwiseDense
from .product import Product
from .reshape import Flatten, Identity, Input, PadChannels, Subsample
from .transpose import Transpose
from .weight_layer import PaddingMode, WeightLaw, WeightLayer
from .weighted import Convolution, Dense

__all__ = [
    "AdaptiveAveragePool", "AveragePool", "BatchNorm", "ChannelNorm", "ChannelScale", "ChannelShuffle",
    "ChannelSlice", "Concatenate", "Convolution", "Dense", "Dropout", "Flatten", "GroupNorm", "Identity",
    "Input", "Layer", "LayerNorm", "MaxPool", "Nonlinearity", "Pad", "PadChannels", "PaddingMode",
    "PositionwiseDense", "Product", "Resize", "Shape", "StochasticDepth", "Subsample", "Sum", "Transpose",
    "WeightLaw", "WeightLayer", "Weighted",
]  # fmt: skip
