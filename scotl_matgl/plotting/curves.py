"""Learning curves with their laws, and lines of equal error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scotl_matgl.plotting.style import SERIES, axes_of, finish, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Curve:
    """One learning curve: what was measured, and the law through it where there is one.

    Attributes
    ----------
    name : str
        For the legend.
    sizes, means, spreads : ndarray of shape (n_sizes,)
        Numbers of rows, mean errors and their standard errors.
    law_sizes, law_errors : ndarray of shape (n_points,)
        The law. Empty: none is drawn.
    law_band : tuple of two ndarrays of shape (n_points,)
        Its lower and upper end.
    measured_to : float
        The law is dashed beyond this number of rows.
    """

    name: str
    sizes: NDArray[np.float64]
    means: NDArray[np.float64]
    spreads: NDArray[np.float64]
    law_sizes: NDArray[np.float64]
    law_errors: NDArray[np.float64]
    law_band: tuple[NDArray[np.float64], NDArray[np.float64]]
    measured_to: float


def plot_curves(
    curves: Sequence[Curve],
    n_rows: int,
    ax: Axes | None = None,
    *,
    label: str = "error",
    title: str = "",
    error: float | None = None,
) -> Axes:
    """Measured errors against the number of training rows, with the laws and their bands, on logarithmic axes.

    Parameters
    ----------
    curves : sequence of Curve
        What to draw.
    n_rows : int
        Rows of the table, marked by a vertical line.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    label : str
        Of the vertical axis.
    title : str
        Of the figure.
    error : float, optional
        Draws a line at this error.

    Returns
    -------
    matplotlib.axes.Axes
        Points are means with their standard errors; laws are drawn through the sizes measured, and dashed beyond.
    """
    ax = axes_of(ax, (7.0, 4.8))
    for index, curve in enumerate(curves):
        colour, marker = SERIES[index % len(SERIES)]
        ax.errorbar(
            curve.sizes,
            curve.means,
            yerr=curve.spreads,
            fmt=marker,
            color=colour,
            markersize=5,
            capsize=3,
            label=curve.name,
        )
        if len(curve.law_sizes):
            inside, beyond = curve.law_sizes <= curve.measured_to, curve.law_sizes >= curve.measured_to
            ax.plot(curve.law_sizes[inside], curve.law_errors[inside], color=colour)
            ax.plot(curve.law_sizes[beyond], curve.law_errors[beyond], color=colour, linestyle="--")
            ax.fill_between(curve.law_sizes, *curve.law_band, color=colour, alpha=0.15, linewidth=0)
    ax.axvline(n_rows, color="black", linewidth=0.8, linestyle=":")
    if error is not None:
        ax.axhline(error, color="black", linewidth=0.8)
        place = (0.01, error)
        ax.annotate(f"{error:g} wanted", place, xycoords=("axes fraction", "data"), va="bottom", fontsize="small")
    _logarithmic_ticks(ax, sorted({int(size) for curve in curves for size in curve.sizes}), 2 * n_rows)
    finish(ax, title, "rows learned from", label)
    legend_above(ax)
    return ax


def plot_trade(
    n_target: ArrayLike,
    n_source: ArrayLike,
    errors: ArrayLike,
    ax: Axes | None = None,
    *,
    levels: ArrayLike | None = None,
    measured: tuple[tuple[float, float], tuple[float, float]] | None = None,
    mixes: ArrayLike | None = None,
    mixes_label: str = "cheapest",
) -> Axes:
    """Lines of equal error in the plane of target and source rows, and a path through it.

    Parameters
    ----------
    n_target : array-like of shape (n_columns,)
        Numbers of target rows, ascending.
    n_source : array-like of shape (n_rows,)
        Numbers of source rows, ascending.
    errors : array-like of shape (n_rows, n_columns)
        The error with that many of each.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    levels : array-like of float, optional
        Errors to draw a line for. Default: six between the errors of the two corners.
    measured : pair of pairs of float, optional
        Smallest and largest `n_target`, and `n_source`, that were measured; drawn as a box.
    mixes : array-like of shape (n_mixes, 2), optional
        Target and source rows of a path, for example the cheapest mix for each error.
    mixes_label : str
        Of that path.

    Returns
    -------
    matplotlib.axes.Axes
    """
    t, s, surface = (np.asarray(values, dtype=np.float64) for values in (n_target, n_source, errors))
    ax = axes_of(ax, (6.4, 4.8))
    if levels is None:
        levels = np.geomspace(surface[-1, -1], surface[0, 0], 8)[1:-1]
    # Before the labels are set, whose gaps depend on the axes.
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(t[0], t[-1])
    ax.set_ylim(s[0], s[-1])
    wanted = np.unique(np.asarray(levels, dtype=np.float64))
    lines = ax.contour(t, s, surface, levels=wanted, colors=SERIES[0][0], linewidths=1.2)
    ax.clabel(lines, fmt=lambda value: f"{value:.3g}", fontsize="small")
    if measured:
        (least_t, most_t), (least_s, most_s) = measured
        box = [least_t, most_t, most_t, least_t, least_t], [least_s, least_s, most_s, most_s, least_s]
        ax.plot(*box, color="black", linewidth=0.8, linestyle=":", label="measured")
    if mixes is not None:
        ax.plot(*np.asarray(mixes, dtype=np.float64).T, color=SERIES[1][0], label=mixes_label)
    finish(ax, "lines of equal error", "target rows", "source rows")
    legend_above(ax)
    return ax


def _logarithmic_ticks(ax: Axes, sizes: Sequence[int], last: int) -> None:
    """Both axes logarithmic, with ticks at the sizes, at `last` and at round errors, written as plain numbers."""
    from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())
    ax.set_xticks([*sizes, last])
    low, high = ax.get_ylim()
    factors = (1, 2, 3, 5) if high > 8.0 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    steps = [factor * 10.0**power for power in range(-6, 7) for factor in factors]
    ticks = [step for step in steps if low <= step <= high]
    if len(ticks) < 3:
        ticks = list(MaxNLocator(4).tick_values(low, high))
    ax.set_yticks(ticks)
    ax.set_ylim(low, high)
