"""Kernels forwards and backwards through a network of infinite or finite width, without torch."""
