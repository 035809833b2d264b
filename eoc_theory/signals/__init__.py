"""What flows through a network: inputs, their second moments, kernels over positions."""
