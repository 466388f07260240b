"""Commands on transferred models: fit, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scotl_matgl.cli.app import app
from scotl_matgl.cli.console import emit
from scotl_matgl.cli.options import (
    Amounts,
    AmountsOption,
    Method,
    SourcesOption,
    Task,
    check_columns,
    check_output,
    formulas_of,
    refuse_weights,
)


@app.command()
def fit(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, Excel or JSON table.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the model, such as model.skops.")],
    formula: Annotated[str, typer.Option(help="Column of chemical formulas.")] = "formula",
    target: Annotated[str, typer.Option(help="Column of the measured property or class.")] = "target",
    amounts: AmountsOption = Amounts.atoms,
    column: Annotated[
        list[str] | None, typer.Option(help="Further numeric column, such as a temperature; repeat for more.")
    ] = None,
    sources: SourcesOption = None,
    task: Annotated[Task, typer.Option(help="Kind of target.")] = Task.auto,
    classes: Annotated[bool, typer.Option("--classes", hidden=True)] = False,
    method: Annotated[Method, typer.Option(help="Sources as they are, or trained on.")] = Method.frozen,
    n_sources: Annotated[int, typer.Option(help="How many of the best sources to use together.")] = 3,
    guard: Annotated[bool, typer.Option(help="Fall back on descriptors where transfer does not help.")] = True,
    jobs: Annotated[int, typer.Option(help="Threads; -1 is one for each core.")] = -1,
    seed: Annotated[int, typer.Option(help="Seed of folds, heads and networks.")] = 0,
) -> None:
    """Fit the transferred model to a table and save it; sources are ranked, and used only where that helps."""
    from scotl_matgl.tables.files import read_table
    from scotl_matgl.tables.target import read_target
    from scotl_matgl.transfer.estimators import TransferClassifier, TransferRegressor

    check_output(output)
    frame = read_table(table, formula=formula, target=target)
    further = list(column or [])
    check_columns(frame, further, table)
    if further:
        refuse_weights(amounts)
    classes = classes or task is Task.classification
    if task is Task.auto and not classes:
        target_read = read_target(frame[target].to_numpy(), "auto")
        classes = target_read.classification
        for remark in target_read.remarks:
            typer.echo(remark, err=True)
    kind = TransferClassifier if classes else TransferRegressor
    model = kind(
        sources or "all",
        method=method.value,
        n_sources=n_sources,
        guard=guard,
        formula=formula if further else None,
        n_jobs=jobs,
        random_state=seed,
        on_error="skip",
    ).fit(frame[[formula, *further]] if further else formulas_of(frame, formula, amounts), frame[target])
    model.save(output)
    _tell(model, "error rate" if classes else "mean absolute error", guard=guard)
    typer.echo(f"written to {output}", err=True)


def _tell(model: Any, measure: str, *, guard: bool) -> None:
    """Say what a fitted model left out, uses and gains."""
    for row in model.skipped_:
        typer.echo(f"skipped: row {row.row} ({row.value}): {row.reason}", err=True)
    for remark in model.remarks_:
        typer.echo(remark, err=True)
    used = ", ".join(source.name for source in model.sources_) if model.transfers_ else "no source"
    share = f", whose heads count for {model.share_:.0%}" if model.transfers_ else ""
    typer.echo(f"out-of-fold {measure} {model.error_:.3g} with {used}{share}")
    if guard:
        typer.echo(
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
        typer.echo(f"{words[model.ranking_.verdict]} ({chance})")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="File that `scotl-matgl fit` wrote.")],
    formulas: Annotated[list[str] | None, typer.Argument(help="Formulas.")] = None,
    table: Annotated[Path | None, typer.Option(help="Table of formulas instead, with the columns of the fit.")] = None,
    formula: Annotated[str, typer.Option(help="Its column of chemical formulas.")] = "formula",
    amounts: AmountsOption = Amounts.atoms,
    output: Annotated[Path | None, typer.Option(help="Write here instead of to the terminal.")] = None,
) -> None:
    """Predict by a saved model, as CSV: value, standard deviation (or class and its probability), and the domain."""
    import pandas as pd

    from scotl_matgl.exceptions import InputError
    from scotl_matgl.tables.files import read_table
    from scotl_matgl.transfer.estimators import TransferClassifier, load_transferred
    from scotl_matgl.vocabulary import counted, for_spreadsheets

    if bool(formulas) == (table is not None):
        raise InputError("give formulas, or a table of them with --table")
    check_output(output)
    fitted = load_transferred(model)
    frame = pd.DataFrame({formula: formulas}) if table is None else read_table(table, formula=formula, target=formula)
    if fitted.formula is None:
        rows = frame[[formula]]
        given = rows if amounts is Amounts.atoms else formulas_of(frame, formula, amounts)
    else:
        refuse_weights(amounts)
        frame = frame.rename(columns={formula: fitted.formula})
        check_columns(frame, list(fitted.feature_names_in_), table)
        given = rows = frame[list(fitted.feature_names_in_)]
    fitted.on_error = "skip"
    if isinstance(fitted, TransferClassifier):
        found = pd.DataFrame(
            {"predicted": fitted.predict(given), "probability": fitted.predict_proba(given).max(axis=1)}
        )
    else:
        found = pd.DataFrame(dict(zip(("predicted", "deviation"), fitted.predict(given, return_std=True), strict=True)))
    domain = fitted.domain(given).reset_index(drop=True)
    result = pd.concat([rows.reset_index(drop=True), found, domain], axis=1)
    emit(for_spreadsheets(result).to_csv(index=False), output)
    lost = int(result["predicted"].isna().sum())
    if lost:
        typer.echo(f"{counted(lost, 'row')} not predicted", err=True)
        skipped = fitted._read(rows).skipped
        for row in skipped[:5]:
            typer.echo(f"row {row.row} ({row.value}): {row.reason}", err=True)
        if len(skipped) > 5:
            typer.echo(f"... and {len(skipped) - 5} more", err=True)
    if lost == len(result):
        raise typer.Exit(2)
