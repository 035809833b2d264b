"""The mask that `eoc_theory.prune_` puts on a layer: torch's own mask, but trained models can be copied.

torch is imported at module level, so this module is imported only where masks are put on.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn.utils import prune


class Mask(prune.CustomFromMask):
    """A pruning method of ``torch.nn.utils.prune`` with a given mask.

    What a forward pass makes of weight and mask belongs to autograd's graph, and torch refuses to deep-copy
    it; here it is copied without the graph, as the copy's next forward pass makes it anew.
    """

    @classmethod
    def put(cls, module: Any, mask: torch.Tensor, name: str = "weight") -> None:
        """Mask the module's parameter `name`; where one of these masks is already, what both keep stays."""
        hooks = module._forward_pre_hooks.values()
        if any(isinstance(hook, cls) and hook._tensor_name == name for hook in hooks):
            setattr(module, f"{name}_mask", getattr(module, f"{name}_mask") * mask)
        else:
            method = cls.apply(module, name, mask)
            if isinstance(method, cls):
                method.mask = None  # the module's buffer holds it
        original, kept = getattr(module, f"{name}_orig"), getattr(module, f"{name}_mask")
        setattr(module, name, original.detach() * kept)

    def apply_mask(self, module: Any) -> torch.Tensor:
        weight = super().apply_mask(module)
        if not weight.is_leaf:
            # Not the weight itself: a circle would keep the pass's memory until it is collected.
            tensors = [getattr(module, f"{self._tensor_name}_{kind}") for kind in ("orig", "mask")]
            weight.__deepcopy__ = partial(_masked, *tensors)  # type: ignore[method-assign]
        return weight


def refresh_attention(model: Any) -> None:
    """Let masks act on the output projections of attention layers.

    `MultiheadAttention` reads the weight of its `out_proj` and does not call it, so that the layer's own hook
    never runs: one of the attention layer runs it.
    """
    for module in model.modules():
        if not isinstance(module, torch.nn.MultiheadAttention) or not prune.is_pruned(module.out_proj):
            continue
        if _project not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_project)


def _project(module: Any, args: Any) -> None:
    for hook in module.out_proj._forward_pre_hooks.values():
        hook(module.out_proj, args)


def _masked(original: torch.Tensor, mask: torch.Tensor, memo: Any) -> torch.Tensor:
    return original.detach() * mask
