"""Figures of a ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scotl_matgl.ranking import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Blue for gains that are proven, grey for those that are not, orange for losses: told apart in grey print too.
_COLOURS = {"helps": "#1f5f99", "unclear": "#9a9a9a", "hurts": "#d1782c"}


def plot_gains(ranking: Ranking, ax: Axes | None = None, *, most: int = 20) -> Axes:
    """Gain of each source over no transfer, with its 90 % interval, best on top.

    Parameters
    ----------
    ranking : Ranking
        What to show.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure of fitting height.
    most : int, default=20
        Sources shown at most; the title says how many there are.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    names = ranking.sources[:most]
    percent = 100.0 / ranking.error_of_control
    gains = ranking.gains[: len(names)] * percent
    intervals = np.array([ranking.gain_interval(name) for name in names]).reshape(-1, 2) * percent
    if ax is None:
        _, ax = plt.subplots(figsize=(8.0, 1.4 + 0.34 * max(len(names), 1)), layout="constrained")
    kinds = ["helps" if low > 0 else "hurts" if high < 0 else "unclear" for low, high in intervals]
    positions = np.arange(len(names))[::-1]
    for kind, label in (
        ("helps", "better than no transfer"),
        ("unclear", "not told apart from it"),
        ("hurts", "worse than no transfer"),
    ):
        rows = [index for index, found in enumerate(kinds) if found == kind]
        if rows:
            _draw(ax, positions[rows], gains[rows], intervals[rows], _COLOURS[kind], label)
    ax.axvline(0.0, color="black", linewidth=0.8)
    ax.set_yticks(positions, names)
    ax.set_ylim(-0.6, len(names) - 0.4)
    unit = f" {ranking.target_unit}" if ranking.target_unit and not ranking.classification else ""
    control = f"{ranking.error_of_control:.3g}{unit}"
    ax.set_xlabel(f"error reduced by, % of {control} without transfer")
    shown = f" (first {len(names)} of {len(ranking.sources)})" if len(names) < len(ranking.sources) else ""
    title = f"{ranking.n_rows} formulas, {ranking.head} head, 90 % intervals{shown}"
    ax.set_title(title, fontsize="medium", loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    if len(set(kinds)) > 1:
        ax.legend(frameon=False, fontsize="small", loc="best")
    return ax


def _draw(ax: Axes, positions: Any, gains: Any, intervals: Any, colour: str, label: str) -> None:
    reach = np.abs(intervals.T - gains)
    ax.errorbar(gains, positions, xerr=reach, fmt="o", color=colour, capsize=3, markersize=5, label=label)
