"""The layer types of a graph, one class each."""

from .attention import Attention, Matrix
from .channel_norm import ChannelNorm
from .channels import ChannelScale, ChannelShuffle, ChannelSlice
from .elementwise import Dropout, Nonlinearity, StochasticDepth
from .gather import Gather, JoinPositions, Scatter
from .head_product import HeadProduct
from .joins import Concatenate, Sum
from .known import ByCount, CountEmbedding, KnownTokens, OnlyKnown, PartOfInput, PickKnown
from .layer import Layer, Shape, Weighted
from .normalisation import BatchNorm, GroupNorm, LayerNorm
from .pooling import AdaptiveAveragePool, AveragePool, FixedFilter, MaxPool, Pad, Resize
from .positionwise import PositionwiseDense
from .product import Product
from .reshape import Flatten, Identity, Input, PadChannels, Subsample
from .softmax import Softmax
from .statistics import ChannelMean, Length, Reciprocal
from .tokens import (
    ClassToken,
    Embedding,
    FixedValue,
    Pick,
    PositionEmbedding,
    PositionTable,
    Rotary,
    Sinusoids,
)
from .transpose import Transpose
from .unit_length import UnitLength
from .weight_layer import PaddingMode, WeightLaw, WeightLayer
from .weighted import Convolution, Dense

__all__ = [
    "AdaptiveAveragePool", "Attention", "AveragePool", "BatchNorm", "ByCount", "ChannelMean",
    "ChannelNorm", "ChannelScale", "ChannelShuffle", "ChannelSlice", "ClassToken", "Concatenate",
    "Convolution", "CountEmbedding", "Dense", "Dropout", "Embedding", "FixedFilter", "FixedValue",
    "Flatten", "Gather", "GroupNorm", "HeadProduct", "Identity", "Input", "JoinPositions", "KnownTokens",
    "Layer", "LayerNorm", "Length", "Matrix", "MaxPool", "Nonlinearity", "OnlyKnown", "Pad",
    "PadChannels", "PaddingMode", "PartOfInput", "Pick", "PickKnown", "PositionEmbedding",
    "PositionTable", "PositionwiseDense", "Product", "Reciprocal", "Resize", "Rotary", "Scatter", "Shape",
    "Sinusoids", "Softmax", "StochasticDepth", "Subsample", "Sum", "Transpose", "UnitLength", "WeightLaw",
    "WeightLayer", "Weighted",
]  # fmt: skip
