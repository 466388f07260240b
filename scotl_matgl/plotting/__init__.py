"""Figures, drawn from arrays: results know how to hand them over, and nothing here knows the results."""

from scotl_matgl.plotting.bonding import plot_bonding
from scotl_matgl.plotting.curves import Curve, plot_curves, plot_trade
from scotl_matgl.plotting.elements import plot_elements
from scotl_matgl.plotting.gains import note_beside, plot_gains
from scotl_matgl.plotting.predictions import plot_calibration, plot_predictions, plot_residuals
from scotl_matgl.plotting.svg import as_svg

__all__ = [
    "Curve",
    "as_svg",
    "note_beside",
    "plot_bonding",
    "plot_calibration",
    "plot_curves",
    "plot_elements",
    "plot_gains",
    "plot_predictions",
    "plot_residuals",
    "plot_trade",
]
