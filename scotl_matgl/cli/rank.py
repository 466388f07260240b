"""The command that ranks, and the demonstration."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scotl_matgl.cli.app import app
from scotl_matgl.cli.console import emit, origin_of, progress_bar, say
from scotl_matgl.cli.options import (
    DescriptorOption,
    Format,
    FormatOption,
    HeadOption,
    JobsOption,
    LayerOption,
    OutputOption,
    ReportOption,
    SeedOption,
    SourcesOption,
    UnitOption,
    asked,
    asked_layer,
    check_output,
    check_registered,
)
from scotl_matgl.cli.tables import GivenTable, takes_columns

if TYPE_CHECKING:
    from scotl_matgl.ranking.result import Ranking


class Switch(StrEnum):
    """Choices for --look-up."""

    auto = "auto"
    on = "on"
    off = "off"


class Combine(StrEnum):
    """Choices for --combine."""

    concat = "concat"
    embedding = "embedding"


@app.command()
@takes_columns
def rank(
    given: GivenTable,
    unit: UnitOption = "",
    sources: SourcesOption = None,
    descriptor: DescriptorOption = "standard",
    estimators: Annotated[
        str, typer.Option(metavar="NAME,...", help="Estimators, separated by commas.")
    ] = "loo,logme,scotl",
    layer: LayerOption = None,
    look_up: Annotated[Switch, typer.Option(help="Take embeddings of known crystals where that helps.")] = Switch.auto,
    combine: Annotated[
        Combine, typer.Option(help="What you will train on: descriptors beside the embedding, or the embedding alone.")
    ] = Combine.concat,
    head: HeadOption = "auto",
    max_rows: Annotated[int, typer.Option(metavar="N", help="Rows at most for error and gain.")] = 1000,
    jobs: JobsOption = -1,
    seed: SeedOption = 0,
    format_: FormatOption = Format.table,
    output: OutputOption = None,
    report: ReportOption = None,
) -> None:
    """Rank the sources for a table: which is worth transferring from, by how much, how sure, or none."""
    wanted = [name.strip() for name in estimators.split(",") if name.strip()]
    check_registered("estimators", wanted)
    check_registered("descriptors", [descriptor])
    check_output(output, given.table)
    check_output(report, given.table)
    table = given.read()  # before scikit-learn is imported: a wrong column costs no second
    from scotl_matgl.ranking.ranker import TransferabilityRanker

    look_ups: dict[Switch, Any] = {Switch.auto: "auto", Switch.on: True, Switch.off: False}
    ranker = TransferabilityRanker(
        asked(sources),
        descriptor=descriptor,
        estimators=wanted,
        layer=asked_layer(layer),
        look_up=look_ups[look_up],
        formula=table.formula if table.columns else None,
        combine=combine.value,
        task=given.task.value,
        head=head,
        max_rows=max_rows,
        n_jobs=jobs,
        on_error="skip",
        target_unit=unit,
        random_state=seed,
        polymorphs=given.polymorphs.value,
    )
    with progress_bar("ranking") as progress:
        ranking = ranker.fit(table.formulas, table.y, progress=progress).ranking_
    emit(_formatted(ranking, format_), output)
    if format_ is Format.table and output is None and ranking.results:
        own = {"unit": unit, "sources": sources, "head": head if head != "auto" else "", "layer": layer, "seed": seed}
        options = given.as_options() | {name: value for name, value in own.items() if value}
        say(f"\nnext: {_next_command(given.table, options)}", err=True)
    if report is not None:
        ranking.report(report, formulas=ranker.compositions_, origin=origin_of(given.table))
        say(f"reported in {report}", err=True)
    if not ranking.results:
        raise typer.Exit(1)


def _next_command(table: Path | None, options: dict[str, Any]) -> str:
    """Command that makes the model of the same rows, as they were read, from the same sources."""
    import shlex

    # Standard input is used up, and a path loses the ./ that keeps a name with a dash from being an option.
    file = "TABLE" if str(table) == "-" else f"./{table}" if str(table).startswith("-") else str(table)
    words = ["scotl-matgl", "fit", file]
    for name, value in options.items():
        for item in value if isinstance(value, list) else [value]:
            words += [f"--{name}", str(item)]
    return shlex.join([*words, "-o", "model.skops"])


@app.command()
def demo(jobs: JobsOption = -1, format_: FormatOption = Format.table, output: OutputOption = None) -> None:
    """Rank the sources for the bundled table of measured formation enthalpies."""
    check_output(output)
    from scotl_matgl.ranking.ranker import TransferabilityRanker
    from scotl_matgl.tables.files import EXAMPLE_UNIT, load_example

    table = load_example()
    if format_ is Format.table:
        told = f"{len(table)} measured formation enthalpies of inorganic compounds ({EXAMPLE_UNIT})\n"
        say(told, err=output is not None)
    ranker = TransferabilityRanker(on_error="skip", target_unit=EXAMPLE_UNIT, n_jobs=jobs)
    with progress_bar("ranking") as progress:
        ranking = ranker.fit(table["formula"], table["target"], progress=progress).ranking_
    emit(_formatted(ranking, format_), output)


def _formatted(ranking: Ranking, format_: Format) -> str:
    if format_ is Format.json:
        return ranking.to_json() or ""
    if format_ is Format.csv:
        return ranking.to_csv() or ""
    return str(ranking)
