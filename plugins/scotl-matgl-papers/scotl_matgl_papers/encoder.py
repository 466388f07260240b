"""What the composition encoders of both papers share: formulas in, one array per layer out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scotl_matgl.plugin import SYMBOLS, Compositions, SourceCard, parse_compositions

Floats = NDArray[np.float64]


class FormulaEncoder:
    """A network over a composition vector.

    A subclass describes compositions (`_describe`) and runs its network (`_forward`).

    Attributes
    ----------
    card : SourceCard
    layers : tuple of str
        ``"readout"`` first.
    """

    def __init__(self, card: SourceCard) -> None:
        self.card = card
        self.layers = tuple(card.layers)

    def encode(self, formulas: Iterable[Any], *, layer: str = "readout", dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Embeddings of formulas.

        Parameters
        ----------
        formulas : iterable
            All that :func:`~scotl_matgl.parse_compositions` reads.
        layer : str, default="readout"
            One of :attr:`layers`.
        dtype : dtype, default=float32
            Of the result. All is computed in float64, which published scores are compared in.

        Returns
        -------
        ndarray of shape (n_formulas, width)
            Rows of formulas with an element that the model does not know are NaN.

        Raises
        ------
        ValueError
            If the model has no such layer.
        CompositionError
            If a formula cannot be read.
        """
        if layer not in self.layers:
            close = difflib.get_close_matches(layer, self.layers, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"{self.card.name} has no layer {layer!r}; {hint}it has {', '.join(self.layers)}")
        compositions = parse_compositions(formulas)
        values = np.full((len(compositions), self.card.layers[layer]), np.nan, dtype=dtype)
        rows = np.flatnonzero(self.knows(compositions))
        if len(rows):
            values[rows] = self._forward(self._describe(compositions.take(rows)))[layer]
        return values

    def knows(self, compositions: Compositions) -> NDArray[np.bool_]:
        """Tell for each composition whether the model knows all its elements, shape (n,)."""
        known = np.isin(SYMBOLS, self.card.elements) | (not self.card.elements)
        count = np.add.reduceat(known[compositions.numbers - 1].astype(np.int64), compositions.offsets[:-1])
        return np.asarray(count == np.diff(compositions.offsets))

    def _describe(self, compositions: Compositions) -> Floats:
        """Composition vectors (n, p)."""
        raise NotImplementedError

    def _forward(self, vectors: Floats) -> Mapping[str, Floats]:
        """Every layer, from composition vectors."""
        raise NotImplementedError


def dense(inputs: Floats, tensors: Mapping[str, Floats], name: str) -> Floats:
    """Affine layer with torch's names and orientation: inputs (n, p) → (n, q)."""
    return inputs @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def leaky(values: Floats, slope: float = 0.01) -> Floats:
    """Leaky rectifier; the default slope is torch's."""
    return np.where(values > 0, values, slope * values)
