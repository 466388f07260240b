"""Commands on studies: evaluate, curve, validate, trade."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scotl_matgl.cli.app import app
from scotl_matgl.cli.console import emit, progress_bar, rows_as, save_figure, say
from scotl_matgl.cli.options import (
    Format,
    FormatOption,
    HeadOption,
    JobsOption,
    LayerOption,
    OutputOption,
    SeedOption,
    SourcesOption,
    UnitOption,
    asked,
    asked_layer,
    check_output,
    list_records,
    select_cards,
)
from scotl_matgl.cli.tables import GivenTable, takes_split_table, takes_table

if TYPE_CHECKING:
    from scotl_matgl.studies.settings import StudySettings


ResumedOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="CSV of all measured; a run goes on where it was.")
]


@app.command()
@takes_table
def evaluate(
    given: GivenTable,
    sources: SourcesOption = None,
    unit: UnitOption = "",
    head: HeadOption = "kernel ridge",
    layer: LayerOption = None,
    repeats: Annotated[int, typer.Option(metavar="N", help="Random subsets of 50, 100, 200 and 400 rows.")] = 3,
    jobs: JobsOption = -1,
    seed: SeedOption = 0,
    output: ResumedOption = None,
) -> None:
    """Measure how good rankings of your table are: what they say beside what transfer really gives on other rows."""
    check_output(output, given.table)
    table = given.read()  # before scikit-learn is imported: a wrong column costs no second
    from scotl_matgl.studies.judging import errors_without_transfer, judge_rankings, orders, summarise
    from scotl_matgl.studies.measuring import EvaluationSettings
    from scotl_matgl.studies.measuring import evaluate as measure

    records = measure(
        table.formulas,
        table.y,
        asked(sources),
        table=given.name,
        path=output,
        settings=EvaluationSettings(
            head=head, layer=asked_layer(layer), task=given.task.value, repeats=repeats, n_jobs=jobs, random_state=seed
        ),
        progress=lambda line: say(line, err=True),
    )
    for line in records.attrs["read"]:
        say(line, err=True)
    for size, error in errors_without_transfer(records).items():
        rows = "of the whole table" if size == "whole" else f"of {size} rows"
        say(f"error without transfer, {rows}: {error:.3g} {unit}".rstrip())
    say()
    for title, found in (
        (
            "What rankings said, and what transfer gave, as shares of the error without transfer:",
            judge_rankings(records),
        ),
        ("In all:", summarise(judge_rankings(records)).reset_index()),
        ("Ways to order the sources (pairs: share of certain pairs ordered rightly):", orders(records)),
    ):
        say(f"{title}\n{found.to_string(index=False, float_format=lambda value: f'{value:.3f}')}\n")


def _settings(given: GivenTable, sources: list[str] | None, layer: list[str] | None, **run: Any) -> StudySettings:
    """What the user says of the table and of the sources, and how the fits are run."""
    from scotl_matgl.ranking.layers import check_layer
    from scotl_matgl.studies.settings import StudySettings

    # A source or a layer that is none is wrong input, not the failure of each fit.
    if sources or layer:
        check_layer(asked_layer(layer), select_cards(sources))
    asked_of: dict[str, Any] = {"sources": asked(sources), "layer": asked_layer(layer)}
    return StudySettings(task=given.task.value, polymorphs=given.polymorphs.value, **asked_of, **run)


@app.command()
@takes_split_table
def curve(
    given: GivenTable,
    sources: SourcesOption = None,
    unit: UnitOption = "",
    sizes: Annotated[str, typer.Option(metavar="N,...", help="Numbers of training rows, separated by commas.")] = "",
    repeats: Annotated[int, typer.Option(metavar="N", help="Fits at each size.")] = 5,
    error: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Say how many rows bring the error down to this.")
    ] = None,
    head: HeadOption = "auto",
    layer: LayerOption = None,
    jobs: JobsOption = -1,
    seed: SeedOption = 0,
    output: ResumedOption = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curves into this file (.png, .svg, .pdf).")
    ] = None,
) -> None:
    """Learning curves: how the error falls with more rows, at twice as many, and how many an error needs."""
    check_output(output, given.table)
    check_output(plot, given.table)
    if error is not None and not error > 0:
        raise typer.BadParameter(f"{error} is no error to be reached; give a number above zero")
    table = given.read()
    from scotl_matgl.studies.curves import learning_curves

    with progress_bar("fits") as progress:
        settings = _settings(
            given, sources, layer, unit=unit, path=output, n_jobs=jobs, random_state=seed, progress=progress
        )
        curves = learning_curves(
            table.formulas,
            table.y,
            head,
            sizes=_whole_numbers(sizes),
            repeats=repeats,
            settings=settings,
        )
    say(curves.text(error))
    if plot is not None:
        save_figure(curves.plot(error=error), plot)
    if not curves.frame["error"].notna().any():
        raise typer.Exit(1)


@app.command("validate")
@takes_split_table
def validate_command(
    given: GivenTable,
    sources: SourcesOption = None,
    unit: UnitOption = "",
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="cluster, element, chemical system or random; repeat for more. Default: all."
        ),
    ] = None,
    folds: Annotated[int, typer.Option(metavar="N", help="Folds or clusters; elements make as many as there are.")] = 5,
    min_formulas: Annotated[int, typer.Option(metavar="N", help="An element of fewer formulas makes no fold.")] = 10,
    max_folds: Annotated[
        int, typer.Option(metavar="N", help="Of the elements, measure so many, drawn at random.")
    ] = 10,
    head: HeadOption = "auto",
    layer: LayerOption = None,
    jobs: JobsOption = -1,
    seed: SeedOption = 0,
    output: ResumedOption = None,
) -> None:
    """Errors when whole clusters, elements or chemical systems are held out, beside random folds."""
    check_output(output, given.table)
    table = given.read()
    from scotl_matgl.studies.splitters import SCHEMES
    from scotl_matgl.studies.validation import validate

    with progress_bar("fits") as progress:
        settings = _settings(
            given, sources, layer, unit=unit, path=output, n_jobs=jobs, random_state=seed, progress=progress
        )
        found = validate(
            head,
            table.formulas,
            table.y,
            scheme or SCHEMES,
            n_splits=folds,
            min_formulas=min_formulas,
            max_folds=max_folds,
            settings=settings,
        )
    say(str(found))
    if not found.frame["error"].notna().any():
        raise typer.Exit(1)


@app.command()
def trade(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Measured errors, a row for each pair of sizes.")],
    price_target: Annotated[float, typer.Option(metavar="NUMBER", help="Price of one more target row.")],
    price_source: Annotated[float, typer.Option(metavar="NUMBER", help="Price of one more source row.")],
    error: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Error to be reached at the least cost.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Money to be spent for the least error.")
    ] = None,
    n_target: Annotated[str, typer.Option(metavar="COLUMN", help="Number of target rows.")] = "n_target",
    n_source: Annotated[str, typer.Option(metavar="COLUMN", help="Number of source rows.")] = "n_source",
    measured: Annotated[str, typer.Option(metavar="COLUMN", help="Error measured with these.")] = "error",
    unit: Annotated[str, typer.Option(metavar="UNIT", help="Unit of the error, shown in the result.")] = "",
    have_target: Annotated[float, typer.Option(metavar="NUMBER", help="Target rows that are there already.")] = 0.0,
    have_source: Annotated[float, typer.Option(metavar="NUMBER", help="Source rows that are there already.")] = 0.0,
    seed: SeedOption = 0,
    format_: FormatOption = Format.table,
    output: OutputOption = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw lines of equal error into this file.")] = None,
) -> None:
    """More target measurements or more source data: the cheapest mix for an error, or the best one for a budget."""
    from scotl_matgl.studies.trade import TradeLaw
    from scotl_matgl.tables.files import read_columns

    if (error is None) == (budget is None):
        raise typer.BadParameter("give one of --error and --budget")
    check_output(output, table)
    check_output(plot, table)
    frame = read_columns(table, [n_target, n_source, measured])
    list_records("left out", [(f"row {row} ({cell})", reason) for row, cell, reason in frame.attrs["skipped"]])
    law = TradeLaw.fit(*frame.to_numpy().T, random_state=seed)
    have, prices = (have_target, have_source), {"price_target": price_target, "price_source": price_source}
    mix = (
        law.cheapest(error, **prices, have=have) if error is not None else law.best(budget or 0.0, **prices, have=have)
    )
    found = {"target rows": mix.n_target, "source rows": mix.n_source, "cost": mix.cost, "error": mix.error}
    units = {"error": unit}
    if format_ is Format.table:
        shown = [f"{name:>11}  {value} {units.get(name, '')}".rstrip() for name, value in found.items()]
        emit("\n".join([f"error = {law}, relative spread {law.spread:.2g}", *shown, *mix.remarks]), output)
    else:
        rows = [
            {"quantity": name, "value": value.value, "low": value.low, "high": value.high, "unit": units.get(name, "")}
            for name, value in found.items()
        ]
        emit(rows_as(rows, format_), output)
        for remark in mix.remarks:
            say(remark, err=True)
    if plot is not None:
        save_figure(law.plot(prices=(price_target, price_source)), plot)


def _whole_numbers(text: str) -> list[int] | None:
    """Numbers separated by commas; None if there are none."""
    try:
        return [int(part) for part in text.split(",") if part.strip()] or None
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of whole numbers such as 25,50,100") from error
