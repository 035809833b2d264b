"""Distributions of scores inside a layer, and densities that criteria fix."""
