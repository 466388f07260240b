"""Element fractions, and norms of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scotl_matgl.chemistry.compositions import Compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.descriptors.base import MAGPIE_CITATION, MATMINER_CITATION, CompositionDescriptor
from scotl_matgl.vocabulary import Floats


class StoichiometryDescriptor(CompositionDescriptor):
    """p-norms of the atomic fractions, as matminer's ``Stoichiometry``: 6 features by default.

    Parameters
    ----------
    norms : tuple of int
        Values of p; 0 counts the elements.

    References
    ----------
    L. Ward et al., npj Comput. Mater. 2, 16028 (2016).

    Examples
    --------
    >>> StoichiometryDescriptor(norms=(0, 2)).transform(["NaCl"]).round(6)
    array([[2.      , 0.707107]])
    """

    def __init__(self, norms: tuple[int, ...] = (0, 2, 3, 5, 7, 10)) -> None:
        self.norms = norms

    def _feature_names(self) -> list[str]:
        return [f"{p}-norm" for p in self.norms]

    def _describe(self, compositions: Compositions) -> Floats:
        if any(p < 0 for p in self.norms):
            raise ValueError(f"norms={self.norms!r} holds a negative p: only p >= 0 is defined")
        starts = compositions.offsets[:-1]
        if len(starts) == 0:
            return np.empty((0, len(self.norms)))
        columns = [
            np.add.reduceat(compositions.fractions**p, starts) ** (1 / p) if p else np.diff(compositions.offsets)
            for p in self.norms
        ]
        return np.stack(columns, axis=1).astype(np.float64)

    def _fingerprint_parts(self) -> Iterator[bytes]:
        yield repr(tuple(self.norms)).encode()

    def citations(self) -> list[str]:
        """Return references to the features and to matminer."""
        return [MAGPIE_CITATION, MATMINER_CITATION]


class ElementFractionDescriptor(CompositionDescriptor):
    """Atomic fraction of each of the 118 elements, as matminer's ``ElementFraction``.

    Examples
    --------
    >>> ElementFractionDescriptor().transform(["H2O"])[0, [0, 7]].round(3)
    array([0.667, 0.333])
    """

    def _feature_names(self) -> list[str]:
        return list(SYMBOLS)

    def _describe(self, compositions: Compositions) -> Floats:
        return compositions.dense_fractions()

    def citations(self) -> list[str]:
        """Return the reference to matminer."""
        return [MATMINER_CITATION]
