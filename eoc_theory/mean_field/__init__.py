"""Variance and correlation maps, edge of chaos, phase diagrams."""
