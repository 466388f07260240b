"""How good predictions are: against measurements, by element, and by the intervals that were promised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from scotl_matgl.exceptions import InputError
from scotl_matgl.plotting.style import SERIES, axes_of, finish, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE = SERIES[0][0], SERIES[1][0]

# Half the width of the 90 % interval of a normal distribution, in deviations.
_WIDTH = 1.6448536269514722

# Levels of the intervals whose coverage is drawn.
_LEVELS = np.linspace(0.05, 0.95, 19)


def plot_predictions(
    measured: ArrayLike,
    predicted: ArrayLike,
    deviation: ArrayLike | None = None,
    ax: Axes | None = None,
    *,
    unit: str = "",
    title: str = "",
) -> Axes:
    """Predicted against measured values, with 90 % intervals, on equal scales.

    Parameters
    ----------
    measured, predicted : array-like of shape (n,)
        In one unit; rows without a prediction (NaN) are left out.
    deviation : array-like of shape (n,), optional
        Standard deviations of the predictions; points whose interval misses the measurement are crosses.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    unit : str
        Of both axes.
    title : str
        Of the figure; the mean absolute error follows.

    Returns
    -------
    matplotlib.axes.Axes
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (measured, predicted))
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        raise InputError("no row has a measurement and a prediction; there is nothing to draw")
    ax = axes_of(ax, (5.6, 5.6))
    ends = [min(x[known].min(), y[known].min()), max(x[known].max(), y[known].max())]
    ax.axline((ends[0], ends[0]), slope=1.0, color="black", linewidth=0.8, label="perfect", zorder=1)
    if deviation is None:
        ax.plot(x[known], y[known], ".", color=_BLUE, label="held out", markersize=5)
    else:
        reach = _WIDTH * np.asarray(deviation, dtype=np.float64)
        holds = known & (np.abs(x - y) <= reach * (1.0 + 1e-12))
        for rows, marker, colour, label in (
            (holds, ".", _BLUE, "90 % interval holds the measurement"),
            (known & ~holds, "x", _ORANGE, "interval misses it"),
        ):
            if rows.any():
                ax.errorbar(
                    x[rows], y[rows], yerr=reach[rows], fmt=marker, color=colour, elinewidth=0.5, alpha=0.7,
                    markersize=5, label=label,
                )  # fmt: skip
    margin = 0.05 * (ends[1] - ends[0]) or 1.0
    ax.set_xlim(ends[0] - margin, ends[1] + margin)
    ax.set_ylim(ends[0] - margin, ends[1] + margin)
    ax.set_aspect("equal")
    shown = f", {unit}" if unit else ""
    error = f"mean absolute error {np.abs(x - y)[known].mean():.3g} {unit}".rstrip()
    finish(ax, f"{title}; {error}" if title else error, f"measured{shown}", f"predicted, out of fold{shown}")
    legend_above(ax, columns=1)
    return ax


def plot_residuals(
    elements: Sequence[str],
    counts: ArrayLike,
    residuals: Sequence[ArrayLike],
    ax: Axes | None = None,
    *,
    unit: str = "",
    title: str = "residuals by element",
    most: int = 20,
    least: int = 5,
) -> Axes:
    """Residuals of the rows that hold an element, by element: each row, the mean, and how many rows there are.

    Parameters
    ----------
    elements : sequence of str
        Symbols.
    counts : array-like of shape (n_elements,)
        Rows of each.
    residuals : sequence of array-like
        Predicted minus measured of the rows of each.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    unit : str
        Of the residuals.
    title : str
        Of the figure; "(20 of 60 elements)" follows where not all are drawn.
    most : int, default=20
        Elements drawn at most: those of the largest mean absolute residual.
    least : int, default=5
        An element of fewer rows is left out, unless all have fewer.

    Returns
    -------
    matplotlib.axes.Axes
        Elements stand in the order of their mean absolute residual, the largest first.
    """
    values = [np.asarray(item, dtype=np.float64) for item in residuals]
    values = [item[np.isfinite(item)] for item in values]
    numbers = np.asarray(counts, dtype=np.int64)
    usable = [i for i, item in enumerate(values) if len(item) >= least] or [i for i, v in enumerate(values) if len(v)]
    order = sorted(usable, key=lambda i: -float(np.abs(values[i]).mean()))[:most]
    ax = axes_of(ax, (max(4.0, 0.42 * len(order) + 1.4), 4.2))
    for place, i in enumerate(order):
        spread = np.linspace(-0.25, 0.25, len(values[i])) if len(values[i]) > 1 else np.zeros(1)
        ax.plot(
            place + spread, np.sort(values[i]), ".", color=_BLUE, alpha=0.5, markersize=4,
            label="" if place else "a row",
        )  # fmt: skip
        mean = float(values[i].mean())
        ax.plot([place - 0.35, place + 0.35], [mean] * 2, color=_ORANGE, linewidth=2, label="" if place else "mean")
    ax.axhline(0.0, color="black", linewidth=0.8)
    ax.set_xticks(range(len(order)), [f"{elements[i]}\n{numbers[i]}" for i in order], fontsize="small")
    ax.set_xlim(-0.6, max(len(order), 1) - 0.4)
    shown = f" ({len(order)} of {len(usable)} elements of {least} rows or more)" if len(order) < len(usable) else ""
    label = f"predicted − measured, {unit}" if unit else "predicted − measured"
    finish(ax, title + shown, "element, and rows that hold it", label)
    legend_above(ax)
    return ax


def plot_calibration(
    measured: ArrayLike, predicted: ArrayLike, deviation: ArrayLike, ax: Axes | None = None, *, title: str = ""
) -> Axes:
    """Share of the measurements that lie within an interval, against the share that it promises.

    Parameters
    ----------
    measured, predicted, deviation : array-like of shape (n,)
        Measurements, predictions and their standard deviations.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    title : str
        Of the figure.

    Returns
    -------
    matplotlib.axes.Axes
        Above the diagonal intervals are wider than they need be, below it they promise too much. The band holds 90 % of
        what the number of rows lets shares vary by.
    """
    from scipy.special import ndtri

    size = np.abs(np.asarray(measured, dtype=np.float64) - np.asarray(predicted, dtype=np.float64))
    width = np.asarray(deviation, dtype=np.float64)
    known = np.isfinite(size) & np.isfinite(width)
    if not known.any():
        raise InputError("no row has a measurement, a prediction and a deviation; there is nothing to draw")
    reach = ndtri((1.0 + _LEVELS) / 2.0)
    shares = (size[known][:, None] <= reach * width[known][:, None] * (1.0 + 1e-12)).mean(axis=0)
    noise = _WIDTH * np.sqrt(_LEVELS * (1.0 - _LEVELS) / known.sum())
    ax = axes_of(ax, (4.8, 4.8))
    ax.plot([0, 100], [0, 100], color="black", linewidth=0.8, label="as promised")
    ax.fill_between(
        100 * _LEVELS, 100 * (_LEVELS - noise), 100 * (_LEVELS + noise), color="black", alpha=0.12, linewidth=0,
        label=f"chance, {known.sum()} rows",
    )  # fmt: skip
    ax.plot(100 * _LEVELS, 100 * shares, "o-", color=_BLUE, markersize=4, label="found")
    ax.set_xlim(0, 100)
    ax.set_ylim(0, 100)
    ax.set_aspect("equal")
    finish(ax, title, "interval, % promised", "measurements inside, %")
    legend_above(ax, columns=3)
    return ax
