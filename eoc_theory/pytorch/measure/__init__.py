"""Really pruned networks: scores with gradients of torch, global ranking, masks."""
