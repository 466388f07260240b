"""Formulas between metal, covalent and ionic, on a grey ground that shows where calculated crystals lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.plotting.style import SERIES, axes_of, finish, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Corners of the plane of van Arkel and Ketelaar: words, where they stand, and on which side of that.
_CORNERS = (("metallic", 0.72, 0.03, "left"), ("covalent", 3.98, 0.03, "right"), ("ionic", 2.35, 3.22, "center"))


def plot_bonding(
    mean: NDArray[np.floating],
    difference: NDArray[np.floating],
    ground: NDArray[np.integer],
    step: float,
    ax: Axes | None = None,
    *,
    near: NDArray[np.bool_] | None = None,
    title: str = "",
) -> Axes:
    """Draw formulas by mean and difference of electronegativity.

    Parameters
    ----------
    mean, difference : ndarray of shape (n,)
        Pauling's; rows that are not finite are left out.
    ground : ndarray of shape (p, q)
        Calculated crystals in each square, by mean and by difference; on a logarithmic scale of greys.
    step : float
        Width of a square.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    near : ndarray of bool, shape (n,), optional
        Whether calculated crystals are near; the others have a marker of their own.
    title : str
        Of the figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = axes_of(ax, (7.0, 4.6))
    p, q = ground.shape
    shown = np.ma.masked_equal(np.log1p(ground.T), 0.0)
    edges = np.arange(p + 1) * step, np.arange(q + 1) * step
    ax.pcolormesh(*edges, shown, cmap="Greys", vmin=0.0, vmax=2.2 * float(shown.max()), rasterized=True)
    known = np.isfinite(mean)
    near = np.ones(len(mean), bool) if near is None else near
    size = float(np.clip(6000 / max(len(mean), 1), 8, 28))
    groups = ((known & near, "rows of the table", 0), (known & ~near, "rows far from calculated crystals", 1))
    for rows, label, series in groups:
        if rows.any():
            colour, marker = SERIES[series]
            ax.scatter(
                mean[rows],
                difference[rows],
                size,
                color=colour,
                marker=marker,
                label=label,
                linewidths=0.4,
                edgecolors="white",
            )
    for word, x, y, side in _CORNERS:
        ax.text(x, y, word, ha=side, va="bottom", color="#595959", fontsize="small", style="italic")
    ax.set_xlim(0.65, 4.05)
    ax.set_ylim(-0.08, 3.5)
    finish(ax, title, "mean electronegativity (Pauling)", "largest difference of electronegativity")
    legend_above(ax)
    return ax
