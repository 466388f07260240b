"""The report of a fitted model as a page of one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scotl_matgl import views
from scotl_matgl.learners.held_out import HeldOut
from scotl_matgl.ranking import pages
from scotl_matgl.ranking.cited import cited
from scotl_matgl.transfer.summary import summarise
from scotl_matgl.vocabulary import counted, visible

_NEXT = (
    "`scotl-matgl predict MODEL FORMULA` predicts; the columns `inside`, `unseen` and `distance` say which rows are "
    "like those learned from.",
    "`scotl-matgl validate TABLE` says how large the error is on elements and kinds of compounds not seen.",
    "`scotl-matgl curve TABLE` says what more measurements would give.",
)


def report(model: Any, *, origin: Mapping[str, str] | None = None) -> str:
    """Page of a fitted :class:`~scotl_matgl.transfer.model.TransferModel`."""
    origin, told, held = dict(origin or {}), summarise(model), model.held_out_
    title = f"Transferred model: {origin.get('table') or 'a table of formulas'}"
    ranking = model.ranking_
    figures = ""
    if held is not None and np.isfinite(held.predicted).any():
        figures = _figures(held, model.target_unit) + (pages.formulas_figures(held.formulas) if held.formulas else "")
    parts = [
        f'<div class="answer" id="answer">{"".join(map(views.paragraph, told.sentences))}</div>',
        views.section("What to do next", views.listed(_NEXT), "next"),
        views.section("Errors and heads", views.wide(told.tables(), "errors and heads"), "errors"),
        views.section("Figures", figures, "figures"),
    ]
    if ranking is not None:
        parts.append(views.section("Sources", pages.table_of(ranking) + pages.gains_figure(ranking), "sources"))
    sources = [source.name for source in (*model.sources_, *model.predictors_)]
    parts += [
        views.section("What was skipped", _skipped(model), "skipped"),
        views.section("How it was computed", _computed(model, origin), "computed"),
        views.section("What to cite", views.verbatim(cited(ranking, model._descriptor, sources)), "cite"),
    ]
    return views.document(visible(title), visible("".join(parts)))


def _figures(held: HeldOut, unit: str) -> str:
    known = np.isfinite(held.predicted)
    error = float(np.abs(held.predicted - held.measured)[known].mean())
    covered = f"{held.coverage():.0%}"
    rows = counted(int(known.sum()), "row")
    parts = [
        pages.drawn(
            "predictions",
            f"Predicted against measured values of {rows}; mean absolute error {error:.3g} {unit}".strip() + ".",
            "Out-of-fold predictions against measurements with 90 % intervals; crosses are rows whose interval misses.",
            lambda: held.plot(unit=unit),
        ),
        pages.drawn(
            "calibration",
            f"Share of measurements inside intervals against the share promised; of 90 % intervals {covered}.",
            "What intervals promise and what they hold. On the diagonal they do what they say.",
            held.plot_calibration,
        ),
    ]
    if held.formulas:
        found = held.by_element()
        worst = sorted((s for s in found if len(found[s]) >= 5), key=lambda s: -float(np.nanmean(np.abs(found[s]))))[:3]
        largest = f" The largest are those of {', '.join(worst)}." if worst else ""
        parts.append(
            pages.drawn(
                "residuals",
                f"Residuals by element.{largest}",
                "Residuals of the rows that hold an element, and their mean: where the model is off.",
                lambda: held.plot_residuals(unit=unit),
            )
        )
    return "".join(parts)


def _skipped(model: Any) -> str:
    if model.ranking_ is not None and not model.skipped_:
        return pages.skipped_of(model.ranking_)
    reasons = [*model.skipped_, *model.refused_]
    rows = [
        views.Column("row", [str(row.row) for row in reasons], [float(row.row) for row in reasons]),
        views.Column("value", [str(row.value) for row in reasons]),
        views.Column("reason", [row.reason for row in reasons]),
    ]
    found = views.wide(views.table(rows, caption="rows"), "skipped rows") if reasons else ""
    found += views.listed([f"{name}: {reason}" for name, reason in model.errors_.items()])
    return found or views.paragraph("Nothing.")


def _computed(model: Any, origin: Mapping[str, str]) -> str:
    if model.ranking_ is not None:
        return pages.computed(model.ranking_, origin)
    from scotl_matgl.storage import installed_versions

    told = {**origin, "seed": str(model.random_state)}
    told |= {f"version of {name}": version for name, version in installed_versions().items()}
    return views.wide(
        views.table([views.Column("what", list(told)), views.Column("value", list(told.values()))], header="what"),
        "settings",
    )
