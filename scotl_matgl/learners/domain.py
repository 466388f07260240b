"""How far rows lie from those that a model was fitted on, in units of the distances among these."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from scotl_matgl.learners.distances import cityblock
from scotl_matgl.tables.folds import Folds
from scotl_matgl.vocabulary import Floats

# Share of the training rows that count as near another one: the unit is the distance that so many do not exceed.
_NEAR = 0.95


@dataclass(frozen=True, eq=False)
class TrainingDomain:
    """Training rows in standardised columns, and the unit of distance among them.

    Attributes
    ----------
    mean, scale : ndarray of shape (p,)
        Of the training columns; constant ones have the scale 1.
    rows : ndarray of shape (m, p)
        Training rows, standardised.
    unit : float
        Distance to the nearest other row that 95 % of the rows do not exceed; rows that are equal count as one.
    """

    mean: Floats
    scale: Floats
    rows: Floats
    unit: float

    @classmethod
    def of(cls, X: Floats, weights: Floats) -> TrainingDomain:
        """Learn from X (m, p), with the weights (p,) of the columns."""
        mean, deviation = X.mean(axis=0), X.std(axis=0)
        varies = deviation > 1e-9 * np.maximum(np.abs(mean), 1e-12)
        scale = np.where(varies, deviation, 1.0) / np.where(weights > 0, weights, 1.0)
        rows = (X - mean) / scale
        distances = cdist(rows, rows, "cityblock")
        equal = distances <= 1e-9 * max(float(distances.max()), 1e-300)
        distances[equal] = np.inf
        nearest = distances.min(axis=1)
        nearest = nearest[np.isfinite(nearest)]
        return cls(mean, scale, rows, float(np.quantile(nearest, _NEAR)) if len(nearest) else 1.0)

    def distance(self, X: Floats) -> Floats:
        """Distance (n,) of X (n, p) to the nearest training row; above 1 it is more than 95 % of these have."""
        standard = (X - self.mean) / self.scale
        nearest: Floats = cityblock(standard, self.rows).min(axis=1)
        return nearest / self.unit

    def out_of_fold_distance(self, folds: Folds) -> Floats:
        """The same (m,) for the training rows, each to the rows that it is predicted from out of fold."""
        nearest = np.empty(len(self.rows))
        for train, test in folds:
            nearest[test] = cityblock(self.rows[test], self.rows[train]).min(axis=1)
        return nearest / self.unit
