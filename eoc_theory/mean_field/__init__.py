"""Variance and correlation maps of an activation, its edge of chaos, phase diagrams. NumPy only."""
