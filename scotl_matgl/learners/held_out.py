"""Out-of-fold predictions of a model beside the measurements: what is told and drawn of its quality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scotl_matgl.learners.uncertainty import QUANTILE
from scotl_matgl.vocabulary import Floats


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a model predicted of rows that it had not learned from.

    Attributes
    ----------
    formulas : tuple of str
        The rows, as they were given; empty for numbers alone.
    measured, predicted, deviation : ndarray of shape (n,)
        Targets, out-of-fold predictions and their standard deviations, in the unit of the target. Predictions are NaN
        where no head had one.
    """

    formulas: tuple[str, ...]
    measured: Floats
    predicted: Floats
    deviation: Floats

    def coverage(self, level: float = 0.9) -> float:
        """Share of the measurements within the interval of a level, of normal errors: 0.9 is ± 1.645 deviations."""
        from scipy.special import ndtri

        width = QUANTILE if level == 0.9 else float(ndtri((1.0 + level) / 2.0))
        size = np.abs(self.measured - self.predicted)
        known = np.isfinite(size)
        return float((size[known] <= width * self.deviation[known] * (1 + 1e-12)).mean()) if known.any() else np.nan
