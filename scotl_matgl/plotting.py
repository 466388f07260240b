"""Figures, drawn from arrays: results know how to hand them over, and nothing here knows the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# By verdict. Told apart in grey print too.
_VERDICTS = {
    "yes": ("#1f5f99", "o", "helps"),
    "likely": ("#7fb2d9", "s", "is likely to help"),
    "no": ("#d1782c", "X", "is not likely to help"),
}

# Told apart by those who do not see all colours, and by their markers in grey print.
_SERIES = (("#1f5f99", "o"), ("#d1782c", "s"), ("#3a8f5c", "^"), ("#8a5aa5", "D"), ("#5c5c5c", "v"))


def plot_gains(
    names: Sequence[str],
    gains: ArrayLike,
    intervals: ArrayLike,
    verdicts: Sequence[str],
    ax: Axes | None = None,
    *,
    label: str = "error reduced by, %",
    title: str = "",
    most: int = 20,
) -> Axes:
    """Gain of each source over no transfer, with its interval, the first on top.

    Parameters
    ----------
    names : sequence of str
        One per source, best first.
    gains : array-like of shape (n_sources,)
        What to draw, for example the error reduced by, in percent.
    intervals : array-like of shape (n_sources, 2)
        Lower and upper end of each.
    verdicts : sequence of {"yes", "likely", "no"}
        Whether each helps; it gives the colour.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure of fitting height.
    label : str
        Of the horizontal axis.
    title : str
        Of the figure; "(first 20 of 64)" follows where not all are drawn.
    most : int, default=20
        Sources drawn at most.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    drawn = list(names[:most])
    values = np.asarray(gains, dtype=np.float64)[: len(drawn)]
    ends = np.asarray(intervals, dtype=np.float64).reshape(-1, 2)[: len(drawn)]
    if ax is None:
        _, ax = plt.subplots(figsize=(8.0, 1.4 + 0.34 * max(len(drawn), 1)), layout="constrained")
    kinds = list(verdicts[: len(drawn)])
    positions = np.arange(len(drawn))[::-1]
    for kind, (colour, marker, meaning) in _VERDICTS.items():
        rows = [index for index, found in enumerate(kinds) if found == kind]
        if rows:
            reach = np.abs(ends[rows].T - values[rows])
            x, y = values[rows], positions[rows]
            ax.errorbar(x, y, xerr=reach, fmt=marker, color=colour, capsize=3, markersize=5, label=meaning)
    ax.axvline(0.0, color="black", linewidth=0.8)
    ax.set_yticks(positions, drawn)
    ax.set_ylim(-0.6, len(drawn) - 0.4)
    ax.set_xlabel(label)
    shown = f" (first {len(drawn)} of {len(names)})" if len(drawn) < len(names) else ""
    _finish(ax, title + shown)
    if len(set(kinds)) > 1:
        ax.legend(frameon=False, fontsize="small", loc="best")
    return ax


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
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(7.0, 4.8), layout="constrained")
    for index, curve in enumerate(curves):
        colour, marker = _SERIES[index % len(_SERIES)]
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
    ax.set_xlabel("rows learned from")
    ax.set_ylabel(label)
    _finish(ax, title)
    ax.legend(frameon=False, fontsize="small")
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
    import matplotlib.pyplot as plt

    t, s, surface = (np.asarray(values, dtype=np.float64) for values in (n_target, n_source, errors))
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    if levels is None:
        levels = np.geomspace(surface[-1, -1], surface[0, 0], 8)[1:-1]
    # Before the labels are set, whose gaps depend on the axes.
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(t[0], t[-1])
    ax.set_ylim(s[0], s[-1])
    wanted = np.unique(np.asarray(levels, dtype=np.float64))
    lines = ax.contour(t, s, surface, levels=wanted, colors=_SERIES[0][0], linewidths=1.2)
    ax.clabel(lines, fmt=lambda value: f"{value:.3g}", fontsize="small")
    if measured:
        (least_t, most_t), (least_s, most_s) = measured
        box = [least_t, most_t, most_t, least_t, least_t], [least_s, least_s, most_s, most_s, least_s]
        ax.plot(*box, color="black", linewidth=0.8, linestyle=":", label="measured")
    if mixes is not None:
        ax.plot(*np.asarray(mixes, dtype=np.float64).T, color=_SERIES[1][0], label=mixes_label)
    ax.set_xlabel("target rows")
    ax.set_ylabel("source rows")
    _finish(ax, "lines of equal error")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(framealpha=0.9, edgecolor="none", fontsize="small", loc="lower left")
    return ax


def _finish(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize="medium", loc="left")
    ax.spines[["top", "right"]].set_visible(False)


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
