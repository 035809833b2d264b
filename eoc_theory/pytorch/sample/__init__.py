"""Networks sampled in torch: drawn from the distributions of a model's weights, or made by a factory."""
