"""How evenly attention attends: the entropy of its weights, caught where they are made."""

from __future__ import annotations

import inspect
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

    #: Whether what is noted keeps its graph.
    follows = False

    def __init__(self, where: Callable[[], str]) -> None:
        """`where` names the module that is running."""
        super().__init__()
        self._where = where
        self._noted: dict[str, list[float]] = {}
        #: Which tokens of each input some query sees, (B, T) of booleans; None where all are.
        self.seen: Any = None

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
            with torch.set_grad_enabled(self.follows):
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
        given = _MULTI_HEAD.bind(*args, **kwargs)
        given.apply_defaults()
        with torch.set_grad_enabled(self.follows):
            scores = _multi_head_scores(**given.arguments)
        if scores is not None:
            self._note(scores)
        return func(*args, **kwargs)

    def _note(self, scores: Any) -> None:
        """Take the scores of one call, or the logarithms of its weights, (…, queries, keys)."""
        self._look_for_padding(scores)
        entropy = mean_entropy(scores)
        if math.isfinite(entropy):
            # Where the model itself attends, its calls are layers of their own.
            name = self._where() or f"attention {len(self._noted) + 1}"
            self._noted.setdefault(name, []).append(entropy)

    def _look_for_padding(self, scores: Any) -> None:
        """Keys that no query of their input sees, where queries and keys are the same tokens."""
        if scores.ndim != 4 or scores.shape[-1] != scores.shape[-2] or self.seen is not None:
            return
        seen = open_keys(scores.detach()).any(dim=-2).any(dim=1)
        self.seen = None if bool(seen.all()) else seen


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


#: How `multi_head_attention_forward` is called.
_MULTI_HEAD = inspect.signature(functional.multi_head_attention_forward)


def _multi_head_scores(
    query: Any,
    key: Any,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    add_zero_attn: bool,
    key_padding_mask: Any,
    attn_mask: Any,
    use_separate_proj_weight: bool,
    q_proj_weight: Any,
    k_proj_weight: Any,
    static_k: Any,
    **_others: Any,
) -> Any:
    """The scores of `multi_head_attention_forward`, (B, heads, queries, keys), −∞ where masked.

    None where keys of its own are added, or given as they are.
    """
    if bias_k is not None or add_zero_attn or static_k is not None:
        return None
    if query.ndim == 2:
        query, key = query[:, None], key[:, None]
    features = query.shape[-1]
    weights = (
        (q_proj_weight, k_proj_weight)
        if use_separate_proj_weight
        else (in_proj_weight[:features], in_proj_weight[features : 2 * features])
    )
    biases = (None, None) if in_proj_bias is None else in_proj_bias.split(features)[:2]
    sides = [
        functional.linear(x, w, b).unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)
        for x, w, b in zip((query, key), weights, biases, strict=True)
    ]
    scores = sides[0].double() @ sides[1].double().transpose(-2, -1) / math.sqrt(features // num_heads)
    size, _, queries, keys = scores.shape
    if attn_mask is not None:
        shape = (queries, keys) if attn_mask.ndim == 2 else (size, num_heads, queries, keys)
        scores = _closed(scores, attn_mask.reshape(shape))
    if key_padding_mask is not None:
        scores = _closed(scores, key_padding_mask.reshape(size, 1, 1, keys))
    return scores


def _closed(scores: Any, mask: Any) -> Any:
    """Scores under a mask that is added, or of booleans that are true where it closes."""
    return scores.masked_fill(mask, -math.inf) if mask.dtype is torch.bool else scores + mask


def open_keys(scores: Any) -> Any:
    """Which keys each query sees, as `scores`; a row's largest score is always one."""
    top = scores.amax(dim=-1, keepdim=True)
    return (scores > top - MASKED) & torch.isfinite(scores)


def mean_entropy(scores: Any) -> float:
    """Mean over queries of the entropy of softmax(scores), over the logarithm of the number of unmasked keys.

    Queries with one key or none do not count; nan where there are no others.
    """
    with torch.no_grad():
        scores = scores.detach().double()
        open_ = open_keys(scores)
        keys = open_.sum(dim=-1)
        log_p = torch.log_softmax(scores.masked_fill(~open_, -math.inf), dim=-1)
        entropy = -(log_p.exp() * log_p.masked_fill(~open_, 0.0)).sum(dim=-1)
        counted = keys > 1
        if not bool(counted.any()):
            return math.nan
        return float((entropy[counted] / keys[counted].double().log()).mean())
