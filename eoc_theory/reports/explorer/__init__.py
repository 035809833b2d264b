"""The explorer: one page that computes the theory of an activation in the browser."""

from __future__ import annotations

from .page import DEFAULT, explorer_page, write_explorer

__all__ = ["DEFAULT", "explorer_page", "write_explorer"]
