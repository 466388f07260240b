"""Figures of a ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from scotl_matgl.ranking.result import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scotl_matgl.studies.curves import LearningCurves
    from scotl_matgl.studies.trade import TradeLaw

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


# Told apart by those who do not see all colours, and by their markers in grey print.
_SERIES = (("#1f5f99", "o"), ("#d1782c", "s"), ("#3a8f5c", "^"), ("#8a5aa5", "D"), ("#5c5c5c", "v"))


def plot_curves(curves: LearningCurves, ax: Axes | None = None, *, error: float | None = None) -> Axes:
    """Measured errors against the number of training rows, with the laws and their bands, on logarithmic axes.

    Parameters
    ----------
    curves : LearningCurves
        What to show.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    error : float, optional
        Draws a line at this error.

    Returns
    -------
    matplotlib.axes.Axes
        Points are means over the repeats with their standard errors; laws are drawn through the sizes measured, and
        dashed beyond them to twice the rows of the table, marked by a vertical line.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

    from scotl_matgl.exceptions import InputError

    if ax is None:
        _, ax = plt.subplots(figsize=(7.0, 4.8), layout="constrained")
    for index, method in enumerate(curves.methods):
        colour, marker = _SERIES[index % len(_SERIES)]
        errors = curves.frame[curves.frame["method"] == method].groupby("n")["error"]
        means, spread = errors.mean(), errors.sem().fillna(0.0)
        ax.errorbar(means.index, means, yerr=spread, fmt=marker, color=colour, markersize=5, capsize=3, label=method)
        try:
            law = curves.law(method)
        except InputError:
            continue  # too few points for a law, which the summary says
        last = law.sizes[-1]
        inside, beyond = np.geomspace(law.sizes[0], last), np.geomspace(last, max(2.0 * curves.n_rows, last))
        ax.plot(inside, law.predict(inside), color=colour)
        ax.plot(beyond, law.predict(beyond), color=colour, linestyle="--")
        both = np.concatenate([inside, beyond])
        ax.fill_between(both, *law.band(both), color=colour, alpha=0.15, linewidth=0)
    ax.axvline(curves.n_rows, color="black", linewidth=0.8, linestyle=":")
    if error is not None:
        ax.axhline(error, color="black", linewidth=0.8)
        ax.annotate(
            f"{error:g} wanted", (0.01, error), xycoords=("axes fraction", "data"), va="bottom", fontsize="small"
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())
    sizes = sorted({int(size) for size in curves.frame["n"]})
    ax.set_xticks([*sizes, 2 * curves.n_rows])
    low, high = ax.get_ylim()
    factors = (1, 2, 3, 5) if high > 8.0 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    steps = [factor * 10.0**power for power in range(-6, 7) for factor in factors]
    ticks = [step for step in steps if low <= step <= high]
    if len(ticks) < 3:
        ticks = list(MaxNLocator(4).tick_values(low, high))
    ax.set_yticks(ticks)
    ax.set_ylim(low, high)
    ax.set_xlabel("rows learned from")
    ax.set_ylabel(f"{curves.metric}, {curves.unit}" if curves.unit else curves.metric)
    title = f"{curves.n_rows} formulas (dotted), {curves.frame['repeat'].nunique()} repeats, 90 % bands"
    ax.set_title(title, fontsize="medium", loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_trade(
    law: TradeLaw,
    ax: Axes | None = None,
    *,
    errors: ArrayLike | None = None,
    prices: tuple[float, float] | None = None,
) -> Axes:
    """Lines of equal error in the plane of target and source rows, and the cheapest mix for each error.

    Parameters
    ----------
    law : TradeLaw
        What to show, within four times the sizes it was fitted to.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    errors : array-like of float, optional
        One line each. Default: six between the errors of the two corners.
    prices : tuple of two floats, optional
        Of a target row and a source row; adds the line of the cheapest mixes.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    (least_t, most_t), (least_s, most_s) = law.measured or ((10.0, 1e4), (10.0, 1e6))
    t, s = np.geomspace(least_t / 4, most_t * 4, 200), np.geomspace(least_s / 4, most_s * 4, 200)
    surface = law.predict(t[None, :], s[:, None])
    if errors is None:
        levels = np.geomspace(float(surface[-1, -1]), float(surface[0, 0]), 8)[1:-1]
    else:
        levels = np.unique(np.asarray(errors, dtype=np.float64))
    # Before the labels are set, whose gaps depend on the axes.
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(t[0], t[-1])
    ax.set_ylim(s[0], s[-1])
    lines = ax.contour(t, s, surface, levels=levels, colors=_SERIES[0][0], linewidths=1.2)
    ax.clabel(lines, fmt=lambda value: f"{value:.3g}", fontsize="small")
    if law.measured:
        ax.plot(
            [least_t, most_t, most_t, least_t, least_t],
            [least_s, least_s, most_s, most_s, least_s],
            color="black",
            linewidth=0.8,
            linestyle=":",
            label="measured",
        )
    if prices is not None:
        reached = np.geomspace(float(surface[-1, -1]), float(surface[0, 0]), 60)
        mixes = [law.cheapest(value, price_target=prices[0], price_source=prices[1]) for value in reached]
        label = f"cheapest at {prices[0]:g} and {prices[1]:g} a row"
        path = np.array([(mix.n_target.value, mix.n_source.value) for mix in mixes])
        ax.plot(*path.T, color=_SERIES[1][0], label=label)
    ax.set_xlabel("target rows")
    ax.set_ylabel("source rows")
    ax.set_title("lines of equal error", fontsize="medium", loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(framealpha=0.9, edgecolor="none", fontsize="small", loc="lower left")
    return ax


def _draw(ax: Axes, positions: Any, gains: Any, intervals: Any, colour: str, label: str) -> None:
    reach = np.abs(intervals.T - gains)
    ax.errorbar(gains, positions, xerr=reach, fmt="o", color=colour, capsize=3, markersize=5, label=label)
