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
    def put(cls, module: Any, mask: torch.Tensor) -> None:
        """Mask the module's weight; where one of these masks is already, what both keep stays."""
        hooks = module._forward_pre_hooks.values()
        if any(isinstance(hook, cls) and hook._tensor_name == "weight" for hook in hooks):
            module.weight_mask = module.weight_mask * mask
        else:
            method = cls.apply(module, "weight", mask)
            if isinstance(method, cls):
                method.mask = None  # the module's buffer holds it
        module.weight = module.weight_orig.detach() * module.weight_mask

    def apply_mask(self, module: Any) -> torch.Tensor:
        weight = super().apply_mask(module)
        if not weight.is_leaf:
            # Not the weight itself: a circle would keep the pass's memory until it is collected.
            tensors = [getattr(module, f"{self._tensor_name}_{kind}") for kind in ("orig", "mask")]
            weight.__deepcopy__ = partial(_masked, *tensors)  # type: ignore[method-assign]
        return weight


def _masked(original: torch.Tensor, mask: torch.Tensor, memo: Any) -> torch.Tensor:
    return original.detach() * mask
