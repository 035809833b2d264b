"""What flows through a network: inputs, kernels, shapes."""
