"""Out-of-fold predictions of a model beside the measurements: what is told and drawn of its quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scotl_matgl.learners.uncertainty import QUANTILE
from scotl_matgl.vocabulary import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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

    def by_element(self) -> dict[str, Floats]:
        """Residuals, predicted minus measured, of the rows that hold each element, by symbol."""
        from scotl_matgl.chemistry.compositions import parse_compositions
        from scotl_matgl.chemistry.elements import SYMBOLS

        read = parse_compositions(self.formulas, on_error="skip")
        residuals = (self.predicted - self.measured)[read.rows]
        held = read.dense_fractions() > 0
        return {SYMBOLS[z]: residuals[held[:, z]] for z in np.flatnonzero(held.any(axis=0))}

    def plot(self, ax: Axes | None = None, *, unit: str = "") -> Axes:
        """Draw predicted against measured; see :func:`scotl_matgl.plotting.plot_predictions`. Needs matplotlib."""
        from scotl_matgl.plotting import plot_predictions

        return plot_predictions(self.measured, self.predicted, self.deviation, ax, unit=unit)

    def plot_residuals(self, ax: Axes | None = None, *, unit: str = "", most: int = 20) -> Axes:
        """Draw residuals by element; see :func:`scotl_matgl.plotting.plot_residuals`."""
        from scotl_matgl.plotting import plot_residuals

        found = self.by_element()
        return plot_residuals(
            list(found), [len(item) for item in found.values()], list(found.values()), ax, unit=unit, most=most
        )

    def plot_calibration(self, ax: Axes | None = None) -> Axes:
        """Draw what intervals promise and hold; see :func:`scotl_matgl.plotting.plot_calibration`."""
        from scotl_matgl.plotting import plot_calibration

        return plot_calibration(self.measured, self.predicted, self.deviation, ax)

    def coverage(self, level: float = 0.9) -> float:
        """Share of the measurements within the interval of a level, of normal errors: 0.9 is ± 1.645 deviations."""
        from scipy.special import ndtri

        width = QUANTILE if level == 0.9 else float(ndtri((1.0 + level) / 2.0))
        size = np.abs(self.measured - self.predicted)
        known = np.isfinite(size)
        return float((size[known] <= width * self.deviation[known] * (1 + 1e-12)).mean()) if known.any() else np.nan
