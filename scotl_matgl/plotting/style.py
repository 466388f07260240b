"""What all figures share: colours, axes, titles, and legends that stand where no data are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colour, marker and meaning by verdict. Told apart in grey print too.
VERDICTS = {
    "yes": ("#1f5f99", "o", "helps"),
    "likely": ("#7fb2d9", "s", "is likely to help"),
    "no": ("#d1782c", "X", "is not likely to help"),
    "control": ("#000000", "D", "no transfer"),
}

#: Told apart by those who do not see all colours, and by their markers in grey print.
SERIES = (("#1f5f99", "o"), ("#d1782c", "s"), ("#3a8f5c", "^"), ("#8a5aa5", "D"), ("#5c5c5c", "v"))


def axes_of(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the axes that were given, or those of a new figure of a size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    _, new = plt.subplots(figsize=size, layout="constrained")
    return new


def finish(ax: Axes, title: str, x: str, y: str = "") -> None:
    """Write title and labels where the user has none, and leave out the frame where nothing is read."""
    if not any(ax.get_title(loc=side) for side in ("left", "center", "right")):
        ax.set_title(title, fontsize="medium", loc="left")
    if not ax.get_xlabel():
        ax.set_xlabel(x)
    if not ax.get_ylabel():
        ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)


def legend_above(ax: Axes, *, columns: int = 4) -> None:
    """Put the legend between title and axes, where it covers no data; none where it would tell one thing."""
    handles = ax.get_legend_handles_labels()[0]
    if len(handles) < 2:
        return
    columns = min(columns, len(handles))
    ax.legend(
        frameon=False,
        fontsize="small",
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.2,
        ncols=columns,
        columnspacing=1.2,
    )
    sides: tuple[Literal["left", "center", "right"], ...] = ("left", "center", "right")
    lines = -(-len(handles) // columns)
    for side in sides:
        if title := ax.get_title(loc=side):
            ax.set_title(title, fontsize="medium", loc=side, pad=8.0 + 15.0 * lines)
