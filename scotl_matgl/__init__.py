"""Rank pretrained crystal models by how well they transfer to a table of formulas and one measured property."""

from __future__ import annotations

__version__ = "0.1.0"
