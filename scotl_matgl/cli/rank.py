"""The command that ranks, and the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scotl_matgl.cli.app import app
from scotl_matgl.cli.console import emit, progress_bar
from scotl_matgl.cli.options import (
    Amounts,
    AmountsOption,
    Combine,
    Format,
    SourcesOption,
    Switch,
    Task,
    check_output,
    check_registered,
    formulas_of,
)

if TYPE_CHECKING:
    from scotl_matgl.ranking.result import Ranking


@app.command()
def rank(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, Excel or JSON table.")],
    formula: Annotated[str, typer.Option(help="Column of chemical formulas.")] = "formula",
    target: Annotated[str, typer.Option(help="Column of the measured property or class.")] = "target",
    sheet: Annotated[str | None, typer.Option(help="Sheet of a workbook.")] = None,
    amounts: AmountsOption = Amounts.atoms,
    unit: Annotated[str, typer.Option(help="Unit of the property, shown in the result.")] = "",
    sources: SourcesOption = None,
    descriptor: Annotated[str, typer.Option(help="Descriptor of the formulas.")] = "standard",
    estimators: Annotated[str, typer.Option(help="Estimators, separated by commas.")] = "loo,logme,scotl",
    layer: Annotated[str, typer.Option(help="Layer of the sources.")] = "readout",
    look_up: Annotated[Switch, typer.Option(help="Take embeddings of known crystals where that helps.")] = Switch.auto,
    combine: Annotated[
        Combine, typer.Option(help="What you will train on: descriptors beside the embedding, or the embedding alone.")
    ] = Combine.concat,
    task: Annotated[Task, typer.Option(help="Kind of target.")] = Task.auto,
    max_rows: Annotated[int, typer.Option(help="Rows at most for error and gain.")] = 1000,
    jobs: Annotated[int, typer.Option(help="Threads; -1 is one for each core.")] = -1,
    seed: Annotated[int, typer.Option(help="Seed of folds, heads and bootstrap.")] = 0,
    format_: Annotated[Format, typer.Option("--format")] = Format.table,
    output: Annotated[Path | None, typer.Option(help="Write here instead of to the terminal.")] = None,
) -> None:
    """Rank the sources for a table: which is worth transferring from, by how much, how sure, or none."""
    from scotl_matgl.ranking.ranker import TransferabilityRanker
    from scotl_matgl.tables.files import TableError, read_table

    wanted = [name.strip() for name in estimators.split(",") if name.strip()]
    check_registered("estimators", wanted)
    check_registered("descriptors", [descriptor])
    check_output(output)
    try:
        frame = read_table(table, formula=formula, target=target, sheet=sheet)
    except TableError:
        # Columns that were not named are known by what they hold; standard input cannot be read again.
        if (formula, target) != ("formula", "target") or str(table) == "-":
            raise
        frame = read_table(table, sheet=sheet)
        for role, found in frame.attrs["columns"].items():
            typer.echo(f"column {found!r} is taken as the {role} (--{role})", err=True)
    formula, target = frame.attrs["columns"].values()
    look_ups: dict[Switch, Any] = {Switch.auto: "auto", Switch.on: True, Switch.off: False}
    ranker = TransferabilityRanker(
        sources or "all",
        descriptor=descriptor,
        estimators=wanted,
        layer=layer,
        look_up=look_ups[look_up],
        combine=combine.value,
        task=task.value,
        max_rows=max_rows,
        n_jobs=jobs,
        on_error="skip",
        target_unit=unit,
        random_state=seed,
    )
    with progress_bar("ranking") as progress:
        ranking = ranker.fit(formulas_of(frame, formula, amounts), frame[target], progress=progress).ranking_
    emit(_formatted(ranking, format_), output)
    if not ranking.results:
        raise typer.Exit(1)


@app.command()
def demo() -> None:
    """Rank the sources for the bundled table of measured formation enthalpies."""
    from scotl_matgl.ranking.ranker import TransferabilityRanker
    from scotl_matgl.tables.files import EXAMPLE_UNIT, load_example

    table = load_example()
    typer.echo(f"{len(table)} measured formation enthalpies of inorganic compounds ({EXAMPLE_UNIT})\n")
    ranker = TransferabilityRanker(on_error="skip", target_unit=EXAMPLE_UNIT)
    with progress_bar("ranking") as progress:
        typer.echo(str(ranker.fit(table["formula"], table["target"], progress=progress).ranking_))


def _formatted(ranking: Ranking, format_: Format) -> str:
    if format_ is Format.json:
        return ranking.to_json() or ""
    if format_ is Format.csv:
        return ranking.to_csv() or ""
    return str(ranking)
