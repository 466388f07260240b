"""SCOTL's alignment: the loss that pulls two embeddings of the same rows together, and a bridge fitted by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scotl_matgl.bridges.base import Array
from scotl_matgl.bridges.mlp import MLPBridge

if TYPE_CHECKING:
    import torch


def alignment_loss(first: torch.Tensor, second: torch.Tensor, threshold: float = 0.0) -> torch.Tensor:
    """Mean of the squared elementwise differences, those below `threshold` set to 0.

    Parameters
    ----------
    first, second : Tensor of shape (n, d)
        SCOTL's have rows of length one.
    threshold : float, default=0.0
        Published: 0.01. An element of a row of length one is about d^(−1/2), 0.09 for d = 128, so that with 0.01 hardly
        anything is pulled once the two embeddings have the same order of magnitude.

    Examples
    --------
    >>> import torch
    >>> first, second = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.05, 0.8]])
    >>> [round(float(alignment_loss(first, second, threshold)), 6) for threshold in (0.0, 0.01)]
    [0.02125, 0.02]
    """
    squares = (first - second) ** 2
    if threshold:
        squares = squares * (squares >= threshold)
    return squares.mean()


class AlignmentBridge(MLPBridge):
    """Multilayer perceptron whose output is aligned with the source embedding as SCOTL aligns its two branches.

    Estimate and embedding (standardised) are divided by their lengths, and the loss is the mean of their squared
    elementwise differences, those below `threshold` set to 0. Directions alone make no embedding in the source's own
    scale: one more output of the network estimates how far the embedding reaches along the estimated direction.

    Parameters
    ----------
    threshold : float, default=0.0
        Published: 0.01.
    hidden, epochs, batch_size, learning_rate, weight_decay, held_out, random_state
        As for :class:`~scotl_matgl.bridges.mlp.MLPBridge`.

    Notes
    -----
    Needs torch for :meth:`fit`; :meth:`transform` does not. Without threshold it is as good as the mlp bridge, at the
    same cost; with SCOTL's it is worse than many (``docs/measurements.md``).

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(400, 3))
    >>> bridge = AlignmentBridge(hidden=(32,), epochs=60, batch_size=64, weight_decay=0.0)
    >>> bridge.fit(X, X @ np.eye(3, 5)).quality_.median_r2 > 0.9
    True
    """

    kind = "alignment"

    def __init__(
        self,
        *,
        threshold: float = 0.0,
        hidden: tuple[int, ...] = (256, 256, 256),
        epochs: int = 30,
        batch_size: int = 256,
        learning_rate: float = 4e-3,
        weight_decay: float = 0.3,
        held_out: float = 0.1,
        random_state: int = 0,
    ) -> None:
        super().__init__(
            hidden=hidden,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            held_out=held_out,
            random_state=random_state,
        )
        self.threshold = threshold

    def citations(self) -> list[str]:
        """Where the loss comes from."""
        return [
            "SCOTL: One-Shot Heterogeneous Transfer Learning from Calculated Crystal Structures to Experimentally "
            "Observed Materials"
        ]

    def _n_outputs(self, width: int) -> int:
        return width + 1

    def _loss(self, outputs: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import normalize

        width = Z.shape[1]
        direction, reach = normalize(outputs[:, :-1]), outputs[:, -1]
        along = (direction.detach() * Z).sum(dim=1) / width**0.5
        # The mean over elements of rows of length one is of the order 1/d: d times it weighs as much as the reach.
        return width * alignment_loss(direction, normalize(Z), self.threshold) + ((reach - along) ** 2).mean()

    def _predict_standardised(self, X: Array) -> Array:
        outputs = super()._predict_standardised(X)
        length = np.maximum(np.linalg.norm(outputs[:, :-1], axis=1, keepdims=True), np.float32(1e-12))
        width = outputs.shape[1] - 1
        estimate: Array = outputs[:, :-1] / length * outputs[:, -1:] * np.float32(width**0.5)
        return estimate
