"""Commands on transferred models: fit, predict."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scotl_matgl.cli.app import app
from scotl_matgl.cli.console import emit, origin_of, progress_bar, say
from scotl_matgl.cli.options import (
    HeadOption,
    JobsOption,
    LayerOption,
    ReportOption,
    SeedOption,
    SourcesOption,
    UnitOption,
    asked,
    asked_layer,
    check_output,
)
from scotl_matgl.cli.tables import Amounts, GivenTable, Task, takes_columns, takes_formulas

if TYPE_CHECKING:
    import pandas as pd


class Method(StrEnum):
    """Procedures of transfer."""

    frozen = "frozen"
    fine_tune = "fine-tune"


@app.command()
@takes_columns
def fit(
    given: GivenTable,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="File for the model, such as model.skops.")
    ],
    sources: SourcesOption = None,
    head: HeadOption = "auto",
    layer: LayerOption = None,
    method: Annotated[Method, typer.Option(help="Sources as they are, or trained on.")] = Method.frozen,
    n_sources: Annotated[
        int | None,
        typer.Option(metavar="N", help="How many of the best sources to use together, by default the first five."),
    ] = None,
    guard: Annotated[bool, typer.Option(help="Fall back on descriptors where transfer does not help.")] = True,
    jobs: JobsOption = -1,
    seed: SeedOption = 0,
    unit: UnitOption = "",
    report: ReportOption = None,
) -> None:
    """Fit the transferred model to a table and save it; sources are ranked, and used only where that helps."""
    check_output(output, given.table)
    check_output(report, given.table)
    table = given.read()  # before scikit-learn is imported: a wrong column costs no second
    from scotl_matgl.tables.target import read_target
    from scotl_matgl.transfer.estimators import TransferClassifier, TransferRegressor
    from scotl_matgl.vocabulary import TOGETHER

    classes = given.task is Task.classification
    if given.task is Task.auto:
        target = read_target(table.y.to_numpy(), "auto")
        classes = target.classification
        for remark in target.remarks:
            say(remark, err=True)
    kind = TransferClassifier if classes else TransferRegressor
    model = kind(
        asked(sources),
        method=method.value,
        head=head,
        n_sources=TOGETHER if n_sources is None else n_sources,
        guard=guard,
        layer=asked_layer(layer),
        formula=table.formula if table.columns else None,
        n_jobs=jobs,
        random_state=seed,
        target_unit=unit,
        on_error="skip",
        polymorphs=given.polymorphs.value,
    ).fit(table.formulas, table.y)
    model.save(output)
    _tell(model, "error rate" if classes else "mean absolute error", guard=guard)
    say(f"written to {output}", err=True)
    if report is not None:
        model.report(report, origin=origin_of(given.table))
        say(f"reported in {report}", err=True)


def _tell(model: Any, measure: str, *, guard: bool) -> None:
    """Say what a fitted model left out, uses and gains."""
    for row in model.skipped_:
        say(f"skipped: row {row.row} ({row.value}): {row.reason}", err=True)
    for remark in model.remarks_:
        say(remark, err=True)
    used = ", ".join(source.name for source in model.sources_) if model.transfers_ else "no source"
    share = f", whose heads count for {model.share_:.0%}" if model.transfers_ else ""
    say(f"out-of-fold {measure} {model.error_:.3g} with {used}{share}")
    if guard:
        say(
            f"without transfer {model.no_transfer_error_:.3g}; the best single head on descriptors "
            f"{model.control_error_:.3g}"
        )
    if model.ranking_ is not None:
        chance = f"probability that transfer helps {model.ranking_.probability:.2f}"
        words = {
            "yes": "Transfer helps",
            "likely": "Transfer is likely to help",
            "no": "Transfer is not likely to help",
        }
        say(f"{words[model.ranking_.verdict]} ({chance})")


@app.command()
@takes_formulas
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="File that `scotl-matgl fit` wrote.")],
    given: GivenTable,
    formulas: Annotated[list[str] | None, typer.Argument(metavar="FORMULA", help="Formulas.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write here: CSV, or Parquet; a run goes on where it was."),
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", min=0, help="Write so many rows alone, the best first.")] = 0,
    maximise: Annotated[
        bool, typer.Option("--maximise/--minimise", help="Whether the largest or the smallest are the best.")
    ] = True,
    jobs: JobsOption = -1,
) -> None:
    """Predict by a saved model, as CSV: value, standard deviation (or class and its probability), and the domain."""
    from scotl_matgl.exceptions import InputError

    if bool(formulas) == (given.table is not None):
        raise InputError("give formulas, or a table of them with --table")
    check_output(output, given.table, model)
    whole = given.table is None or str(given.table) == "-" or given.sheet or given.amounts is Amounts.weight
    if output is None or whole:
        if top:
            raise InputError("--top is for a table that is a file, of atoms, and with --output")
        n, reasons, lost = _predict_at_once(model, formulas, given, output)
    else:
        from scotl_matgl.transfer.screening import Screening

        screening = Screening(
            model=model,
            table=given.table,  # type: ignore[arg-type]
            output=output,
            formula=given.formula,
            structures=given.structures,
            top=top,
            maximise=maximise,
            n_jobs=jobs,
        )
        with progress_bar("formulas") as progress:
            n, reasons, lost = screening.run(progress)
        say(f"written to {output}", err=True)
    _tell_lost(lost, reasons)
    if lost == n:
        raise typer.Exit(2)


def _predict_at_once(
    model: Path, formulas: list[str] | None, given: GivenTable, output: Path | None
) -> tuple[int, tuple[tuple[int, str], ...], int]:
    """Predict and print or write; number of rows, those that cannot be read, and number of those not predicted."""
    from scotl_matgl.exceptions import InputError
    from scotl_matgl.transfer.estimators import load_transferred
    from scotl_matgl.transfer.screening import beside
    from scotl_matgl.vocabulary import for_spreadsheets

    fitted = load_transferred(model)
    names = [] if fitted.formula is None else list(fitted.feature_names_in_)
    further = [name for name in names if name != fitted.formula]
    if formulas and further:
        raise InputError(f"the model takes {', '.join(further)} beside formulas; give a table of them with --table")
    table = given.of(formulas) if formulas else given.read_formulas(further)
    rows = table.frame[[table.formula]]
    X = table.formulas
    if names:
        rows = table.frame.rename(columns={table.formula: fitted.formula})[names]
        X = rows.assign(**{str(fitted.formula): table.materials})
    fitted.on_error = "skip"
    found = fitted.predict_table(X)
    result = beside(fitted, rows, found)
    shown = result if output is not None else _rounded(result)
    emit(for_spreadsheets(shown).to_csv(index=False), output)
    reasons = tuple((row.row, f"({row.value}): {row.reason}") for row in found.attrs["skipped"])
    return len(result), reasons, int(result["predicted"].isna().sum())


def _tell_lost(lost: int, reasons: Sequence[tuple[int, str]]) -> None:
    """Say how many rows were not predicted, and why the first of them."""
    from scotl_matgl.vocabulary import counted

    if lost:
        say(f"{counted(lost, 'row')} not predicted", err=True)
        for row, reason in reasons[:5]:
            say(f"row {row} {reason}", err=True)
        if lost > len(reasons[:5]):
            say(f"... and {lost - len(reasons[:5])} more", err=True)


def _rounded(result: pd.DataFrame) -> pd.DataFrame:
    """Predictions to the digits that their deviation leaves, for the terminal; a file has all of them."""
    import math

    shown = result.copy()
    for name in ("probability", "distance"):
        if name in shown:  # of objects where no row was predicted
            shown[name] = shown[name].astype(float).round(3)
    if "deviation" not in shown:
        return shown
    least = shown["deviation"].where(shown["deviation"] > 0).min()
    if least > 0:
        digits = max(0, 2 - math.floor(math.log10(least)))  # three of the deviation
        shown[["predicted", "deviation"]] = shown[["predicted", "deviation"]].round(digits)
    return shown
