"""Formulas with their descriptors: made once for a table, and handed on whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    crystals : ndarray of shape (n,), object
        The crystals whose formulas these are, None for a formula alone; of shape (0,) where all are.
    """

    compositions: Compositions
    X: Floats
    descriptor: CompositionDescriptor
    _fingerprint: list[str] = field(default_factory=list, repr=False)
    crystals: NDArray[np.object_] = field(default_factory=lambda: np.empty(0, dtype=object), repr=False)
    _shared: dict[bytes, NDArray[Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        compositions: Compositions,
        descriptor: CompositionDescriptor,
        crystals: NDArray[np.object_] | None = None,
    ) -> Described:
        """Describe formulas by a fitted descriptor."""
        X = np.asarray(descriptor.transform(compositions), dtype=np.float64)
        return cls(compositions, X, descriptor) if crystals is None else cls(compositions, X, descriptor, [], crystals)

    @property
    def has_crystal(self) -> NDArray[np.bool_]:
        """Which of the n rows are crystals."""
        if not len(self.crystals):
            return np.zeros(len(self), dtype=bool)
        return np.array([crystal is not None for crystal in self.crystals], dtype=bool)

    @property
    def filled(self) -> Floats:
        """Descriptors (n, p) with 0 in place of NaN, as learners take them."""
        return np.nan_to_num(self.X)

    def fingerprint(self) -> str:
        """Fingerprint of the descriptor, computed once for these formulas and all that are taken of them."""
        if not self._fingerprint:
            self._fingerprint.append(self.descriptor.fingerprint())
        return self._fingerprint[0]

    def shared(self, key: bytes, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What many sources make of these descriptors alike, made once; nobody may write to it."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def take(self, rows: ArrayLike) -> Described:
        """Some of the formulas, by position."""
        index = np.asarray(rows, dtype=np.intp)
        crystals = self.crystals[index] if len(self.crystals) else self.crystals
        return Described(self.compositions.take(index), self.X[index], self.descriptor, self._fingerprint, crystals)

    def __len__(self) -> int:
        return len(self.X)
