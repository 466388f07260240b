"""What notebooks and reports show as HTML: tables, bars, links, from plain values; every text is escaped."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# By verdict, as in the figures.
_COLOURS = {"yes": "#1f5f99", "likely": "#7fb2d9", "no": "#d1782c"}

# Words longer than this may be broken anywhere.
_LONG = 45

_BAR_WIDTH, _BAR_HEIGHT = 120, 16

#: Where the documentation is; pyproject.toml says the same.
DOCUMENTATION = "https://scotl-matgl.readthedocs.io/en/latest/"


class Documented:
    """Estimator whose box in a notebook links to its page of the reference, for scikit-learn's ``_get_doc_link``."""

    _doc_link_module = "scotl_matgl"
    _doc_link_template = DOCUMENTATION + "reference/#scotl_matgl.{estimator_name}"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    heading : str
        Above it.
    cells : sequence of str
        Text, which is escaped.
    values : sequence of float, optional
        What the cells are sorted by; cells of numbers stand on the right.
    bars : sequence of str, optional
        Drawings of :func:`bar` beside the text.
    """

    heading: str
    cells: Sequence[str]
    values: Sequence[float] | None = None
    bars: Sequence[str] | None = None

    @property
    def numeric(self) -> bool:
        """Whether the cells are numbers."""
        return self.values is not None

    def cell(self, i: int, *, header: bool = False) -> str:
        """HTML of cell `i`; of a header of its row where that is said."""
        value = None if self.values is None else self.values[i]
        key = "" if value is None else f' data-value="{"" if math.isnan(value) else repr(float(value))}"'
        long = ' class="long"' if any(len(word) > _LONG for word in self.cells[i].split()) else ""
        align = ' style="text-align:right;white-space:nowrap"' if self.numeric else ' style="text-align:left"'
        drawn = f" {self.bars[i]}" if self.bars is not None else ""
        name, scope = ("th", ' scope="row"') if header else ("td", "")
        return f"<{name}{scope}{long}{key}{align}>{html.escape(self.cells[i])}{drawn}</{name}>"


def table(columns: Sequence[Column], *, caption: str = "", header: str = "", sortable: bool = False) -> str:
    """HTML table.

    Parameters
    ----------
    columns : sequence of Column
        All of one length.
    caption : str
        Above the table, for readers of the screen too.
    header : str
        Heading of the column that names the rows.
    sortable : bool
        Whether a page lets its reader sort it (:func:`document`).

    Examples
    --------
    >>> print(table([Column("name", ["A<B"]), Column("error", ["0.1"], [0.1])]).count("A&lt;B"))
    1
    """
    headings = "".join(
        f'<th scope="col" style="text-align:{"right" if column.numeric else "left"}">{html.escape(column.heading)}</th>'
        for column in columns
    )
    length = max((len(column.cells) for column in columns), default=0)
    rows = "".join(
        f"<tr>{''.join(column.cell(i, header=column.heading == header) for column in columns)}</tr>"
        for i in range(length)
    )
    told = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    kind = ' class="sortable"' if sortable else ""
    return f"<table{kind}>{told}<thead><tr>{headings}</tr></thead><tbody>{rows}</tbody></table>"


def bar(value: float, low: float, high: float, span: tuple[float, float], kind: str) -> str:
    """Bar from zero to a value with a line for its interval, on the scale of a whole column.

    Parameters
    ----------
    value, low, high : float
        What is drawn; nothing is where one of them is NaN.
    span : tuple of float
        Ends of the scale.
    kind : {"yes", "likely", "no"}
        Verdict, which gives the colour.
    """
    first, last = min(span[0], 0.0), max(span[1], 0.0)
    if not all(map(math.isfinite, (value, low, high, first, last))) or last <= first:
        return ""

    def at(x: float) -> float:
        return (min(max(x, first), last) - first) / (last - first) * (_BAR_WIDTH - 4) + 2

    zero, end, left, right = at(0.0), at(value), at(low), at(high)
    middle = _BAR_HEIGHT / 2
    return (
        f'<svg aria-hidden="true" width="{_BAR_WIDTH}" height="{_BAR_HEIGHT}" '
        f'viewBox="0 0 {_BAR_WIDTH} {_BAR_HEIGHT}" style="vertical-align:middle">'
        f'<rect x="{min(zero, end):.1f}" y="3" width="{abs(end - zero):.1f}" height="{_BAR_HEIGHT - 6}" '
        f'fill="{_COLOURS[kind]}"/>'
        f'<path d="M{left:.1f} {middle}H{right:.1f}M{zero:.1f} 0V{_BAR_HEIGHT}" stroke="currentColor" fill="none"/>'
        "</svg>"
    )


def paragraph(text: str) -> str:
    """Text as a paragraph."""
    return f"<p>{_prose(text)}</p>"


def listed(items: Sequence[str]) -> str:
    """Texts as a list; nothing if there are none."""
    return f"<ul>{''.join(f'<li>{_prose(item)}</li>' for item in items)}</ul>" if items else ""


def _prose(text: str) -> str:
    """Escaped text, what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def folded(title: str, inside: str) -> str:
    """HTML that opens when its title is clicked; nothing if there is nothing inside."""
    return f"<details><summary>{html.escape(title)}</summary>{inside}</details>" if inside else ""


def frame_table(frame: pd.DataFrame, *, caption: str = "") -> str:
    """HTML table of a data frame: numbers with four digits, nothing where there is none.

    Parameters
    ----------
    frame : pandas.DataFrame
        Its index is not shown.
    caption : str
        Above the table.
    """
    columns = []
    for name in frame.columns:
        cells = list(frame[name])
        if frame[name].dtype.kind in "if":
            values = [float(cell) for cell in cells]
            columns.append(Column(str(name), ["" if math.isnan(x) else f"{x:.4g}" for x in values], values))
        else:
            columns.append(Column(str(name), [str(cell) for cell in cells]))
    return table(columns, caption=caption)


def section(title: str, inside: str, identifier: str) -> str:
    """Part of a page under a heading; nothing if there is nothing inside."""
    if not inside:
        return ""
    known = html.escape(identifier)
    return f'<section aria-labelledby="{known}"><h2 id="{known}">{html.escape(title)}</h2>{inside}</section>'


def wide(inside: str, label: str) -> str:
    """What may be wider than the page, which then scrolls, by keys too."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{html.escape(label)}">{inside}</div>'


def figure(svg: str, caption: str) -> str:
    """Figure that is drawn already, with its caption; nothing if there is none."""
    return f"<figure>{wide(svg, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>" if svg else ""


def verbatim(text: str) -> str:
    """Text whose lines and spaces stay."""
    return f"<pre>{html.escape(text)}</pre>" if text else ""


def document(title: str, body: str) -> str:
    """Page of one file, which asks nothing of the network.

    Parameters
    ----------
    title : str
        Escaped.
    body : str
        HTML, for example of :func:`section`.
    """
    from importlib.resources import files
    from string import Template

    template = (files("scotl_matgl") / "data" / "report.html").read_text(encoding="utf-8")
    return Template(template).substitute(title=html.escape(title), body=body)
