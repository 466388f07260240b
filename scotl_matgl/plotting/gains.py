"""Gains of sources over no transfer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from scotl_matgl.plotting.style import VERDICTS, axes_of, finish, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    verdicts : sequence of {"yes", "likely", "no", "control"}
        Whether each helps, or that it is the row without transfer; it gives the colour.
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
    drawn = list(names[:most])
    values = np.asarray(gains, dtype=np.float64)[: len(drawn)]
    ends = np.asarray(intervals, dtype=np.float64).reshape(-1, 2)[: len(drawn)]
    ax = axes_of(ax, (8.0, 1.6 + 0.34 * max(len(drawn), 1)))
    kinds = list(verdicts[: len(drawn)])
    positions = np.arange(len(drawn))[::-1]
    for kind, (colour, marker, meaning) in VERDICTS.items():
        rows = [index for index, found in enumerate(kinds) if found == kind]
        if rows:
            reach = np.abs(ends[rows].T - values[rows])
            x, y = values[rows], positions[rows]
            ax.errorbar(x, y, xerr=reach, fmt=marker, color=colour, capsize=3, markersize=5, label=meaning)
    ax.axvline(0.0, color="black", linewidth=0.8)
    ax.set_yticks(positions, drawn)
    ax.set_ylim(-0.6, len(drawn) - 0.4)
    shown = f" (first {len(drawn)} of {len(names)})" if len(drawn) < len(names) else ""
    finish(ax, title + shown, label)
    legend_above(ax)
    return ax


def note_beside(ax: Axes, notes: Sequence[str]) -> None:
    """Write a note on the right of each row of such a figure, for example the probability that it helps."""
    for note, y in zip(notes, ax.get_yticks(), strict=False):
        where = ("axes fraction", "data")
        ax.annotate(note, (1.01, float(y)), xycoords=where, va="center", fontsize="small", annotation_clip=False)
