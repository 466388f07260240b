"""The periodic table as a figure: a number for each element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from scotl_matgl.chemistry.elements import NUMBER_OF, SYMBOLS
from scotl_matgl.exceptions import InputError
from scotl_matgl.plotting.style import axes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Atomic numbers of the noble gases end the periods; lanthanides and actinides stand below.
_PERIODS = (0, 2, 10, 18, 36, 54, 86, 118)

# Not needed for what anybody measures: elements after lawrencium.
_LAST = 103


def place_of(z: int) -> tuple[int, int]:
    """Row and column of an element, from 0: lanthanides and actinides have the rows 8 and 9.

    Examples
    --------
    >>> place_of(1), place_of(26), place_of(57), place_of(72)
    ((0, 0), (3, 7), (8, 2), (5, 3))
    """
    period = next(i for i in range(7) if z <= _PERIODS[i + 1])
    within, length = z - _PERIODS[period] - 1, _PERIODS[period + 1] - _PERIODS[period]
    if length == 32 and 2 <= within < 17:  # the f block, lanthanum and actinium to lutetium and lawrencium
        return period + 3, within
    from_end = length - within
    return period, within if within < 2 and z != 2 else 18 - from_end


def _ink(colour: tuple[float, float, float]) -> str:
    """Black or white, whichever has the higher contrast with a colour (WCAG 2.1)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"


def plot_elements(counts: Mapping[str, float], ax: Axes | None = None, *, label: str = "rows", title: str = "") -> Axes:
    """Periodic table whose squares are the darker, the larger the number of their element; it is written in them.

    Parameters
    ----------
    counts : mapping of str to number
        By symbol; elements without a number stay white.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    label : str
        What the numbers count.
    title : str
        Of the figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        If a symbol is none of an element.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    wrong = [symbol for symbol in counts if symbol not in NUMBER_OF]
    if wrong:
        raise InputError(f"{wrong[0]!r} is no symbol of an element")
    ax = axes_of(ax, (9.0, 5.4))
    largest = max(counts.values(), default=1.0)
    colours = colormaps["Blues"]
    for z in range(1, max([_LAST, *(NUMBER_OF[symbol] for symbol in counts)]) + 1):
        row, column = place_of(z)
        symbol = SYMBOLS[z - 1]
        count = counts.get(symbol, 0)
        # On a logarithmic scale: oxygen is in most rows of most tables.
        dark = np.log1p(count) / np.log1p(largest) if largest > 0 else 0.0
        face = colours(0.08 + 0.82 * dark) if count else "white"
        ink = _ink(to_rgb(face)) if count else "#767676"
        ax.add_patch(Rectangle((column, row), 0.94, 0.94, facecolor=face, edgecolor="#8a8a8a", linewidth=0.6))
        ax.text(column + 0.47, row + 0.36, symbol, ha="center", va="center", color=ink, fontsize="medium")
        if count:
            ax.text(column + 0.47, row + 0.74, f"{count:g}", ha="center", va="center", color=ink, fontsize="x-small")
    ax.set_xlim(-0.1, 18.1)
    ax.set_ylim(10.1, -0.1)
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_title(
        f"{title} ({label} of each element)" if title else f"{label} of each element", loc="left", fontsize="medium"
    )
    return ax
