"""A ranking as HTML: its answer and first rows for a notebook."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scotl_matgl.ranking.report import columns, remarks, summary
from scotl_matgl.views import Column, bar, folded, listed, paragraph, table
from scotl_matgl.vocabulary import NO_TRANSFER

if TYPE_CHECKING:
    from scotl_matgl.ranking.judge import Gain
    from scotl_matgl.ranking.result import Ranking

# Rows that a notebook shows, apart from that without transfer, which is always there.
_FIRST = 8

# Columns that a notebook shows, where the table has them.
_IN_NOTEBOOKS = ("", "source", "trained on", "error", "gain %", "90 % interval", "P(helps)")


def notebook(ranking: Ranking) -> str:
    """Sentence, first measured rows with bars, and remarks, which open when they are clicked."""
    wanted = [name for name in columns(ranking) if name in (*_IN_NOTEBOOKS, ranking.measure)]
    rows = table(table_columns(ranking, wanted, most=_FIRST), header="source")
    return (
        f"<div>{paragraph(summary(ranking))}{rows}{folded('More about this ranking', listed(remarks(ranking)))}</div>"
    )


def table_columns(ranking: Ranking, wanted: list[str] | None = None, *, most: int | None = None) -> list[Column]:
    """Columns of the measured sources with bars of their gains, for :func:`scotl_matgl.views.table`.

    Parameters
    ----------
    ranking : Ranking
    wanted : list of str, optional
        Headings. Default: all.
    most : int, optional
        Rows at most; the control is shown in any case.
    """
    cells = columns(ranking)
    names = cells["source"]
    shown = [i for i in range(len(names)) if most is None or i < most or names[i] == NO_TRANSFER]
    gains = gains_by_name(ranking)
    drawn = [gains[names[i]] for i in shown if names[i] in gains]
    span = (
        min((gain.interval[0] for gain in drawn), default=0.0),
        max((gain.interval[1] for gain in drawn), default=0.0),
    )
    found = []
    for heading, texts in cells.items():
        if wanted is not None and heading not in wanted:
            continue
        chosen = [texts[i] for i in shown]
        words = heading in ("source", "trained on")
        bars = [_bar(gains.get(names[i]), span) for i in shown] if heading == "90 % interval" else None
        values = None if words else [_number(text) for text in chosen]
        found.append(Column(heading or "rank", chosen, values, bars))
    return found


def gains_by_name(ranking: Ranking) -> dict[str, Gain]:
    """Gain of each row of the table but the control, by its name."""
    found = dict(zip(ranking.sources, ranking.judgement.gains, strict=True))
    return {ranking.together: ranking.judgement.together, **found} if ranking.n_together else found


def _bar(gain: Gain | None, span: tuple[float, float]) -> str:
    return "" if gain is None else bar(gain.gain, *gain.interval, span, gain.verdict)


def _number(text: str) -> float:
    try:
        return float(text.partition(" ")[0].rstrip("%").replace("−", "-"))
    except ValueError:
        return math.nan
