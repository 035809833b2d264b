"""How evenly attention attends: the entropy of its weights, caught where they are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Array = np.ndarray

#: A score this much under its row's largest belongs to a masked key: masks add −10⁴ or less.
MASKED = 5e3

_SOFTMAX = frozenset((functional.softmax, torch.softmax, torch.Tensor.softmax, torch.special.softmax))


class Attention(TorchFunctionMode):
    """Notes the entropy of attention weights while it is entered.

    Attention is `scaled_dot_product_attention`, `multi_head_attention_forward`, or a softmax over the last
    axis of scores with four or more axes, or of square scores with three.
    """

    def __init__(self, where: Callable[[], str]) -> None:
        """`where` names the module that is running."""
        super().__init__()
        self._where = where
        self._noted: dict[str, list[float]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The modules that attended, in the order of their first time."""
        return tuple(self._noted)

    @property
    def entropies(self) -> Array:
        """The mean over each one's queries and calls, 1 for equal weights and 0 for all on one key."""
        return np.array([np.mean(values) for values in self._noted.values()])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.multi_head_attention_forward:
            return self._multi_head(func, args, kwargs)
        out = func(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            self._note(attention_scores(*args, **kwargs))
        elif func in _SOFTMAX and isinstance(args[0], torch.Tensor):
            axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if (
                isinstance(axis, int)
                and axis % max(args[0].ndim, 1) == args[0].ndim - 1
                and _are_scores(args[0])
            ):
                self._note(args[0])
        return out

    def _multi_head(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        asked = kwargs.get("need_weights", True)
        if args[0].ndim != 3 or (kwargs.get("is_causal") and kwargs.get("attn_mask") is None):
            return func(*args, **kwargs)
        out, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
        self._note(weights.detach().double().log())
        if not asked:
            return out, None
        return out, weights.mean(dim=1) if kwargs.get("average_attn_weights", True) else weights

    def _note(self, scores: Any) -> None:
        entropy = mean_entropy(scores)
        if math.isfinite(entropy):
            # Where the model itself attends, its calls are layers of their own.
            name = self._where() or f"attention {len(self._noted) + 1}"
            self._noted.setdefault(name, []).append(entropy)


def _are_scores(scores: Any) -> bool:
    if scores.ndim < 3 or min(scores.shape[-2:]) < 2:
        return False
    return scores.ndim > 3 or scores.shape[-1] == scores.shape[-2]


def attention_scores(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """The logarithms of attention weights, up to a constant of each query; −∞ where masked."""
    with torch.no_grad():
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        scores = query.double() @ key.double().transpose(-2, -1) * factor
        if is_causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        if attn_mask is not None:
            masked = attn_mask.dtype is torch.bool
            scores = scores.masked_fill(~attn_mask, -math.inf) if masked else scores + attn_mask
        return scores


def mean_entropy(scores: Any) -> float:
    """Mean over queries of the entropy of softmax(scores), over the logarithm of the number of unmasked keys.

    Queries with one key or none do not count; nan where there are no others.
    """
    with torch.no_grad():
        scores = scores.detach().double()
        top = scores.amax(dim=-1, keepdim=True)
        open_ = (scores > top - MASKED) & torch.isfinite(scores)
        keys = open_.sum(dim=-1)
        log_p = torch.log_softmax(scores.masked_fill(~open_, -math.inf), dim=-1)
        entropy = -(log_p.exp() * log_p.masked_fill(~open_, 0.0)).sum(dim=-1)
        counted = keys > 1
        if not bool(counted.any()):
            return math.nan
        return float((entropy[counted] / keys[counted].double().log()).mean())
