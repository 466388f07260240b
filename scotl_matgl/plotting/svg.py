"""Figures as SVG inside a page: text stays text, ids are the figure's own, and there is an alternative text."""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def as_svg(ax: Axes, name: str, alternative: str) -> str:
    """SVG of the figure of some axes, to be put into a page as it is; the figure is closed.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Of the figure.
    name : str
        Begins the ids inside, so that figures of one page do not mix.
    alternative : str
        What the figure shows, for those who do not see it.

    Returns
    -------
    str
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    figure: Any = ax.get_figure()
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    for attribute in (r'\bid="', r'xlink:href="#', r"url\(#"):
        text = re.sub(f"({attribute})", rf"\g<1>{name}-", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    width = figure.get_figwidth() * 72
    told = f' role="img" aria-label="{html.escape(alternative)}" style="width:100%;max-width:{width:.0f}pt;height:auto"'
    return text.replace("<svg", f"<svg{told}", 1)
