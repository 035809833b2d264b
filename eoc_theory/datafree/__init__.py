"""Pruning criteria that look at no data: magnitude, random, uniform, erk and SynFlow."""

from .predict import DATA_FREE_CRITERIA, collapse_data_free, predict_data_free
from .results import CollapseSamples, DataFreeAllocation

__all__ = [
    "DATA_FREE_CRITERIA",
    "CollapseSamples",
    "DataFreeAllocation",
    "collapse_data_free",
    "predict_data_free",
]
