"""A ranking as HTML: its answer and first rows for a notebook, and the report of one file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scotl_matgl import views
from scotl_matgl.ranking.cited import cited
from scotl_matgl.ranking.report import columns, plot, remarks, summary
from scotl_matgl.vocabulary import NO_TRANSFER, counted, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scotl_matgl.chemistry.compositions import Compositions
    from scotl_matgl.ranking.judge import Gain
    from scotl_matgl.ranking.result import Ranking

# Rows that a notebook shows, apart from that without transfer, which is always there.
_FIRST = 8

# Rows of what was skipped that a report lists.
_LISTED = 200

# Columns that a notebook shows, where the table has them.
_IN_NOTEBOOKS = ("", "source", "layer", "trained on", "error", "gain %", "90 % interval", "P(helps)")


def notebook(ranking: Ranking) -> str:
    """Sentence, first measured rows with bars, and remarks, which open when they are clicked."""
    wanted = [name for name in columns(ranking) if name in (*_IN_NOTEBOOKS, ranking.measure)]
    rows = views.table(table_columns(ranking, wanted, most=_FIRST), header="source")
    more = views.folded("More about this ranking", views.listed(remarks(ranking)))
    return f"<div>{views.paragraph(summary(ranking))}{rows}{more}</div>"


def table_columns(ranking: Ranking, wanted: list[str] | None = None, *, most: int | None = None) -> list[views.Column]:
    """Columns of the measured sources with bars of their gains, for :func:`scotl_matgl.views.table`.

    Parameters
    ----------
    ranking : Ranking
    wanted : list of str, optional
        Headings. Default: all.
    most : int, optional
        Rows at most; the control and the first sources together are shown in any case.
    """
    cells = columns(ranking)
    names = cells["source"]
    always = (NO_TRANSFER, ranking.together)
    shown = [i for i in range(len(names)) if most is None or i < most or names[i] in always]
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
        words = heading in ("source", "layer", "trained on")
        bars = [_bar(gains.get(names[i]), span) for i in shown] if heading == "90 % interval" else None
        values = None if words else [_number(text) for text in chosen]
        found.append(views.Column(heading or "rank", chosen, values, bars))
    return found


def gains_by_name(ranking: Ranking) -> dict[str, Gain]:
    """Gain of each row of the table but the control, by its name."""
    found = dict(zip(ranking.sources, ranking.judgement.gains, strict=True))
    return {ranking.together: ranking.judgement.together, **found} if ranking.n_together else found


def _bar(gain: Gain | None, span: tuple[float, float]) -> str:
    return "" if gain is None else views.bar(gain.gain, *gain.interval, span, gain.verdict)


def _number(text: str) -> float:
    try:
        return float(text.partition(" ")[0].rstrip("%").replace("−", "-"))
    except ValueError:
        return math.nan


def report(ranking: Ranking, *, formulas: Any = None, origin: Mapping[str, str] | None = None) -> str:
    """Page of one file: the answer, what to do next, table, figures, what was skipped, how it was made, what to cite.

    Parameters
    ----------
    ranking : Ranking
    formulas : sequence of formulas, optional
        Those of the table, for its elements, and where it lies among calculated crystals.
    origin : mapping of str to str, optional
        How the ranking came about, such as the command and the hash of the table.
    """
    origin = dict(origin or {})
    title = f"Which source model to transfer from: {origin.get('table') or ranking.target or 'a table of formulas'}"
    parts = [
        f'<div class="answer" id="answer">{views.paragraph(summary(ranking))}</div>',
        views.section("What to do next", views.listed(next_steps(ranking)), "next"),
        views.section("Sources", table_of(ranking), "sources"),
        views.section("Figures", gains_figure(ranking) + formulas_figures(formulas), "figures"),
        views.section("What was skipped", skipped_of(ranking), "skipped"),
        views.section("How it was computed", computed(ranking, origin), "computed"),
        views.section("What to cite", views.verbatim(cited(ranking, _descriptor(ranking), ranking.sources)), "cite"),
    ]
    return views.document(visible(title), visible("".join(parts)))


def next_steps(ranking: Ranking) -> list[str]:
    """What the reader of a ranking may do with it, a sentence each."""
    fit = "`scotl-matgl fit TABLE -o model.skops` makes the model; `scotl-matgl predict model.skops FORMULA` uses it."
    more = "`scotl-matgl curve TABLE` says what more measurements would give."
    if ranking.verdict == "no":
        return [
            "Learn from descriptors alone: `scotl-matgl fit TABLE -o model.skops` does, and weighs what sources add.",
            more,
        ]
    kinds = "`scotl-matgl validate TABLE` says how large the error is on elements and kinds of compounds not seen."
    return [fit, kinds, more] if ranking.verdict == "yes" else [fit, more]


def table_of(ranking: Ranking) -> str:
    """Table of the measured sources, which can be sorted, and the others, which open when they are clicked."""
    measured = views.table(table_columns(ranking), header="source", caption="Measured sources", sortable=True)
    told = views.wide(measured, "measured sources") + views.listed(remarks(ranking))
    frame = ranking.to_frame()
    rest = frame[~frame["source"].isin(columns(ranking)["source"])].dropna(axis="columns", how="all")
    if not len(rest):
        return told
    rest = rest.drop(columns=[name for name in ("seconds", "looked_up", "bridged", "refused") if name in rest])
    return told + views.folded(
        f"{counted(len(rest), 'source')} behind these", views.wide(views.frame_table(rest), "sources behind these")
    )


def drawn(name: str, alternative: str, caption: str, draw: Callable[[], Axes]) -> str:
    """Figure in a page; a sentence where matplotlib is missing."""
    try:
        from scotl_matgl.plotting import as_svg

        svg = as_svg(draw(), name, alternative)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        return views.paragraph(f"{caption}: not drawn, because matplotlib is missing: pip install 'scotl-matgl[plot]'")
    return views.figure(svg, caption)


def gains_figure(ranking: Ranking) -> str:
    """Gains with their intervals."""
    if not ranking.results:
        return ""
    told = [f"{name} {100 * gain.gain:+.1f} %" for name, gain in list(gains_by_name(ranking).items())[:6]]
    alternative = f"Gain of each source over no transfer, with 90 % intervals: {', '.join(told)}."
    caption = (
        "How far each source lowers the error on rows that nobody has seen, with 90 % intervals, and the probability "
        "that it helps, P. Colour and marker tell the verdict."
    )
    return drawn("gains", alternative, caption, lambda: plot(ranking, None, most=20))


def formulas_figures(formulas: Any) -> str:
    """Elements of a table, and where it lies among calculated crystals; nothing if there are no formulas."""
    from scotl_matgl.chemistry.compositions import Compositions, parse_compositions

    if formulas is None:
        return ""
    read = formulas if isinstance(formulas, Compositions) else parse_compositions(formulas, on_error="skip")
    read = read.take(np.unique(read.keys(), return_index=True)[1])  # rows that repeat a formula are one
    return _elements_figure(read) + _bonding_figure(read) if len(read) else ""


def _elements_figure(read: Compositions) -> str:
    from scotl_matgl.chemistry.elements import SYMBOLS

    held = (read.dense_fractions() > 0).sum(axis=0)
    counts = {SYMBOLS[z]: int(held[z]) for z in held.nonzero()[0]}
    most = sorted(counts, key=lambda symbol: -counts[symbol])[:5]
    alternative = f"Periodic table: {len(counts)} elements; most often " + ", ".join(f"{s} ({counts[s]})" for s in most)
    caption = (
        f"Elements of the {counted(len(read), 'formula')}, and how many hold each. White ones are not in the table."
    )

    def draw() -> Axes:
        from scotl_matgl.plotting import plot_elements

        return plot_elements(counts, label="formulas")

    return drawn("elements", alternative, caption, draw)


def _bonding_figure(read: Compositions) -> str:
    from scotl_matgl.descriptors.bonding import STEP, Bonding, calculated_crystals

    ground, places = calculated_crystals(), Bonding.of(read)
    near, known = places.is_near(ground), np.isfinite(places.mean)
    if not known.any():
        return ""
    told = f"near one in this plane: {int(near.sum())} of {counted(int(known.sum()), 'formula')}"
    left = int((~known).sum())
    more = (
        f" {counted(left, 'formula')} of elements without a value {'is' if left == 1 else 'are'} left out."
        if left
        else ""
    )
    caption = (
        "Formulas between metallic, covalent and ionic. Grey: the calculated crystals that the shipped bridges were "
        f"fitted on, the darker the more; {told}. It does not see how many elements a formula mixes.{more}"
    )

    def draw() -> Axes:
        from scotl_matgl.plotting import plot_bonding

        return plot_bonding(
            places.mean, places.difference, ground, STEP, near=near, title="the table among calculated crystals"
        )

    return drawn(
        "bonding",
        f"Mean and largest difference of electronegativity, on the ground of calculated crystals; {told}.",
        caption,
        draw,
    )


def skipped_of(ranking: Ranking) -> str:
    """Rows, sources and scores that were left out, and why."""
    parts = []
    if ranking.skipped:
        shown = ranking.skipped[:_LISTED]
        rows = [
            views.Column("row", [str(row.row) for row in shown], [float(row.row) for row in shown]),
            views.Column("value", [str(row.value) for row in shown]),
            views.Column("reason", [row.reason for row in shown]),
        ]
        more = f", the first {_LISTED}" if len(ranking.skipped) > _LISTED else ""
        parts.append(
            views.wide(views.table(rows, caption=f"{counted(len(ranking.skipped), 'row')}{more}"), "skipped rows")
        )
    for caption, reasons in (("sources not ranked", ranking.errors), ("scores left out", ranking.unscored)):
        if reasons:
            cells = [views.Column("name", list(reasons)), views.Column("reason", list(reasons.values()))]
            parts.append(views.wide(views.table(cells, caption=caption, header="name"), caption))
    return "".join(parts) or views.paragraph("Nothing.")


def computed(ranking: Ranking, origin: Mapping[str, str]) -> str:
    """Command, table, settings, versions, and hashes of the weights of the measured sources."""
    settings = dict(ranking.settings)
    versions = settings.pop("versions", {})
    told = {**origin, "seed": ranking.random_state, "head": ranking.head, "without transfer": ranking.control_name}
    told |= {name.replace("_", " "): value for name, value in settings.items()}
    told |= {f"version of {name}": version for name, version in versions.items()}
    rows = [views.Column("what", list(told)), views.Column("value", [str(value) for value in told.values()])]
    return views.wide(views.table(rows, header="what", caption="Settings"), "settings") + _weights(ranking.sources)


def _weights(names: Sequence[str]) -> str:
    from scotl_matgl.sources.cards import all_cards

    cards = {card.name: card for card in all_cards(lambda *_: None) if card.name in names}
    files = [(name, file, digest) for name in names if name in cards for file, digest in cards[name].weights.items()]
    if not files:
        return ""
    cells = [views.Column(heading, [row[i] for row in files]) for i, heading in enumerate(("source", "file", "sha256"))]
    return views.folded("Weights of the measured sources", views.wide(views.table(cells, header="source"), "weights"))


def _descriptor(ranking: Ranking) -> Any:
    """Descriptor whose papers are cited: that of the ranking where its name tells it."""
    from scotl_matgl.descriptors.composite import get_descriptor

    return get_descriptor("standard") if str(ranking.settings.get("descriptor", "")).startswith("Standard") else None
