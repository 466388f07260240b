"""Columns and targets brought to a scale on which learners work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.vocabulary import Floats

# A column of a small table may be zero but for one row; unlimited, that row would be far from everything.
_CLIP = 6.0


@dataclass(frozen=True, eq=False)
class ColumnScale:
    """Mean and standard deviation of the columns that vary."""

    columns: NDArray[np.intp]
    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, X: Floats) -> ColumnScale:
        """Learn from X (n, p); columns that do not vary are left out."""
        mean, deviation = X.mean(axis=0), X.std(axis=0)
        columns = np.flatnonzero(deviation > 1e-9 * np.maximum(np.abs(mean), 1e-12))
        return cls(columns, mean[columns], deviation[columns])

    def apply(self, X: Floats, among: slice = slice(None), columns: NDArray[np.intp] | None = None) -> Floats:
        """Standardised columns (n, k) that vary, held to six standard deviations.

        Of some `among` them alone, if X holds these only, as its `columns`.
        """
        taken = X[:, self.columns if columns is None else columns]
        scaled: Floats = np.clip((taken - self.mean[among]) / self.deviation[among], -_CLIP, _CLIP)
        return scaled


# Trees work in float32, take columns that differ by less than 1e-7 as constant, and split no node whose variance is
# below 2e-16: an embedding or a target whose largest value is outside these bounds is brought to one.
_SMALLEST, _LARGEST = 2.0**-10, 2.0**60


def scaled_for_trees(values: Floats) -> tuple[Floats, float]:
    """Return values times a power of two, which costs no digit, and that power; unchanged where no tree needs it."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0 or _SMALLEST <= largest <= _LARGEST:
        return values, 1.0
    factor = 2.0 ** min(-int(np.frexp(largest)[1]), 1023)  # a larger power is none that float64 holds
    return values * factor, factor
