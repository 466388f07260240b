"""Formulas with their descriptors: made once for a table, and handed on whole."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from scotl_matgl.chemistry.compositions import Compositions
from scotl_matgl.descriptors.base import CompositionDescriptor
from scotl_matgl.vocabulary import Floats


@dataclass(frozen=True, eq=False)
class Described:
    """Formulas, their descriptors, and what these come from.

    Attributes
    ----------
    compositions : Compositions
        n formulas.
    X : ndarray of shape (n, p), float64
        Their descriptors; NaN where an element table has no value and the descriptor does not impute.
    descriptor : CompositionDescriptor
        Fitted.
    """

    compositions: Compositions
    X: Floats
    descriptor: CompositionDescriptor
    _fingerprint: list[str] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, compositions: Compositions, descriptor: CompositionDescriptor) -> Described:
        """Describe formulas by a fitted descriptor."""
        return cls(compositions, np.asarray(descriptor.transform(compositions), dtype=np.float64), descriptor)

    @property
    def filled(self) -> Floats:
        """Descriptors (n, p) with 0 in place of NaN, as learners take them."""
        return np.nan_to_num(self.X)

    def fingerprint(self) -> str:
        """Fingerprint of the descriptor, computed once for these formulas and all that are taken of them."""
        if not self._fingerprint:
            self._fingerprint.append(self.descriptor.fingerprint())
        return self._fingerprint[0]

    def take(self, rows: ArrayLike) -> Described:
        """Some of the formulas, by position."""
        index = np.asarray(rows, dtype=np.intp)
        return Described(self.compositions.take(index), self.X[index], self.descriptor, self._fingerprint)

    def __len__(self) -> int:
        return len(self.X)
