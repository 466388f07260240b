"""SCOTL's alignment: the loss that pulls two embeddings of the same rows together, and a bridge fitted by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def alignment_loss(first: torch.Tensor, second: torch.Tensor, threshold: float = 0.0) -> torch.Tensor:
    """Mean of the squared elementwise differences, those below `threshold` set to 0.

    Parameters
    ----------
    first, second : Tensor of shape (n, d)
    threshold : float
        Published: 0.01, on rows of length one.
    """
    squares = (first - second) ** 2
    if threshold:
        squares = squares * (squares >= threshold)
    return squares.mean()
