"""Pruning criteria, one file each, and the distributions of their scores."""
