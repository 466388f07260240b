"""Standard deviation of a prediction, learned from out-of-fold residuals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from scotl_matgl.vocabulary import Floats

# Distances count up to so many times those among the training rows: beyond, nothing was measured.
_FARTHEST = 3.0

# The interval of ± 1.645 standard deviations holds this share of a normal distribution, and is what is calibrated.
_SHARE = 0.9

#: Half the width of that interval, in standard deviations.
QUANTILE = 1.6448536269514722


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Standard deviation s = a + b · distance + c · spread, with a, b and c of at least 0.

    Attributes
    ----------
    coefficients : ndarray of shape (3,)
        a, b and c, in the unit of the target; c has none.

    Notes
    -----
    a, b and c are the non-negative least-squares fit of the absolute out-of-fold residuals, then scaled together so
    that 90 % of the residuals lie within ± 1.645 s. So s is calibrated at the interval that is most used, which for
    normal residuals makes it their standard deviation; for heavy tails it is smaller than that.
    """

    coefficients: Floats

    @classmethod
    def of(cls, residuals: Floats, distance: Floats, spread: Floats) -> Uncertainty:
        """Learn from out-of-fold residuals (n,), distances to the other rows (n,), and spreads of heads (n,)."""
        size = np.abs(residuals)
        if not size.any():
            return cls(np.zeros(3))
        terms = _terms(distance, spread)
        scale = np.maximum(terms.max(axis=0), 1e-300)
        coefficients = nnls(terms / scale, size)[0] / scale
        # A deviation near 0 where heads happen to agree would be a promise that few rows cannot keep.
        coefficients[0] = max(float(coefficients[0]), 0.1 * float(size.mean()))
        # Of n residuals the next one exceeds the k-th largest with probability k / (n + 1).
        ratio = np.sort(size / (terms @ coefficients))
        at = min(int(np.ceil(_SHARE * (len(ratio) + 1))) - 1, len(ratio) - 1)
        return cls(coefficients * ratio[at] / QUANTILE)

    def deviation(self, distance: Floats, spread: Floats) -> Floats:
        """Standard deviation (n,) of predictions, in the unit of the target."""
        return np.asarray(_terms(distance, spread) @ self.coefficients)


def _terms(distance: Floats, spread: Floats) -> Floats:
    return np.column_stack([np.ones(len(distance)), np.minimum(distance, _FARTHEST), spread])
