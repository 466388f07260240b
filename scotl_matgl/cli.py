"""The command line, one function a command. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from scotl_matgl.cards import SourceCard
    from scotl_matgl.ranking import Ranking

app = typer.Typer(
    name="scotl-matgl",
    help="Which pretrained crystal model is worth transferring from to a table of formulas and one measured property?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
zoo_app = typer.Typer(help="The source models that are known.", no_args_is_help=True)
bridge_app = typer.Typer(help="The bridges from formulas to source embeddings.", no_args_is_help=True)
app.add_typer(zoo_app, name="zoo")
app.add_typer(bridge_app, name="bridge")
data_app = typer.Typer(help="Data that are too large for the package.", no_args_is_help=True)
app.add_typer(data_app, name="data")


class Format(StrEnum):
    """Forms of output."""

    table = "table"
    json = "json"
    csv = "csv"


class Switch(StrEnum):
    """Choices for --look-up."""

    auto = "auto"
    on = "on"
    off = "off"


class Combine(StrEnum):
    """Choices for --combine."""

    concat = "concat"
    embedding = "embedding"


class Method(StrEnum):
    """Procedures of transfer."""

    frozen = "frozen"
    fine_tune = "fine-tune"


class Task(StrEnum):
    """Kinds of target."""

    auto = "auto"
    regression = "regression"
    classification = "classification"


SourcesOption = Annotated[
    list[str] | None, typer.Option("--sources", "-s", help="Names, with * as wildcard; repeat for more. Default: all.")
]


@contextlib.contextmanager
def _progress(label: str, *, delay: float = 2.0) -> Iterator[Callable[[int, int], None]]:
    """Progress bar on stderr for what takes longer than `delay` seconds; silent when stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(label, total=None)
    started = time.monotonic()

    def update(done: int, total: int) -> None:
        if not bar.live.is_started and time.monotonic() - started > delay and done < total:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        bar.stop()


def _select(sources: list[str] | None) -> list[SourceCard]:
    from scotl_matgl.cards import all_cards, select

    return select(all_cards(), sources or "all")


def _check_registered(kind: str, names: Iterable[str]) -> None:
    """Tell a mistyped name, which is wrong input, from a plugin that is broken."""
    from scotl_matgl import registry
    from scotl_matgl.exceptions import InputError

    for name in names:
        if name not in registry.names(kind):
            try:
                registry.load(kind, name)
            except registry.PluginError as error:
                raise InputError(str(error)) from error


def _check_output(output: Path | None) -> None:
    """Find out before the work, not after it, that its result cannot be written."""
    from scotl_matgl.exceptions import InputError

    if output is not None and not output.parent.is_dir():
        raise InputError(f"there is no folder {output.parent} to write {output.name} into; make it first")
    if output is not None and output.is_dir():
        raise InputError(f"{output} is a folder; give the name of a file")


def _emit(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text.rstrip("\n"))
    else:
        output.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        typer.echo(f"written to {output}", err=True)


# -- zoo --------------------------------------------------------------------------------------------------------------


@zoo_app.command("list")
def zoo_list(
    property_: Annotated[
        str | None, typer.Option("--property", help="Only sources trained on such a property.")
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="Only this architecture.")] = None,
    modality: Annotated[str | None, typer.Option(help="Only 'structure' or 'composition'.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only sources trained on such a data set.")] = None,
    zoo: Annotated[str | None, typer.Option(help="Only this zoo.")] = None,
    format_: Annotated[Format, typer.Option("--format")] = Format.table,
) -> None:
    """List the sources, and whether each can be ranked on this machine as it is."""
    import json

    from scotl_matgl.bridges.store import list_bridges
    from scotl_matgl.cards import all_cards, find

    bridged = {(found.provenance["source"], found.provenance["layer"]): found for found in list_bridges()}
    cards = find(
        all_cards(), property=property_, architecture=architecture, modality=modality, dataset=dataset, zoo=zoo
    )
    rows: list[dict[str, Any]] = [
        {
            "name": card.name,
            "property": card.property,
            "unit": card.unit,
            "architecture": card.architecture,
            "modality": card.modality,
            "dataset": card.dataset,
            "zoo": card.zoo,
            "width": card.width,
            "rankable": card.modality == "composition" or (card.name, "readout") in bridged,
        }
        for card in cards
    ]
    if format_ is Format.json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    if format_ is Format.csv:
        import pandas as pd

        typer.echo(pd.DataFrame(rows).to_csv(index=False).rstrip())
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for heading in ("name", "property", "unit", "architecture", "modality", "width", "rankable"):
        table.add_column(heading, justify="right" if heading == "width" else "left", no_wrap=heading == "name")
    for row in rows:
        shown = {**row, "width": str(row["width"]), "rankable": "yes" if row["rankable"] else "needs a bridge"}
        table.add_row(*(str(shown[str(column.header)]) for column in table.columns))
    # Markup off: rich would swallow what stands in square brackets.
    Console(
        soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 160, markup=False, emoji=False
    ).print(table)
    typer.echo(f"{len(rows)} sources, {sum(row['rankable'] for row in rows)} of them rankable as they are")


@zoo_app.command("show")
def zoo_show(
    name: Annotated[str, typer.Argument(help="Name of a source; * matches anything.")],
    format_: Annotated[Format, typer.Option("--format")] = Format.table,
) -> None:
    """Show all that is known of a source."""
    import json

    for card in _select([name]):
        values = card.to_dict()
        if format_ is Format.json:
            typer.echo(json.dumps(values, indent=1, ensure_ascii=False))
            continue
        for key, value in values.items():
            if key == "elements":
                value = f"{len(value)}: {' '.join(value)}"
            elif isinstance(value, dict):
                value = ", ".join(f"{inner} {content}" for inner, content in value.items())
            if value not in ("", None):
                typer.echo(f"{key:>14}  {value}")
        typer.echo()


# -- encode and bridge ------------------------------------------------------------------------------------------------


@app.command()
def encode(
    structures: Annotated[Path, typer.Option(help="Crystals: CIF, POSCAR, JSON, extended XYZ, a folder of these.")],
    sources: SourcesOption = None,
    layer: Annotated[list[str] | None, typer.Option(help="Layers; repeat for more. Default: readout.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many crystals, drawn at random with seed 0.")] = None,
    device: Annotated[str, typer.Option(help="Where the models run: auto, cpu, cuda, cuda:1, ...")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads of a model on a CPU; 0 leaves torch's choice.")] = 1,
) -> None:
    """Encode crystals by sources into the store, and say how fast; what is stored already is not computed again."""
    import time

    from scotl_matgl.cache import EmbeddingStore

    corpus = _read_corpus(structures, limit)
    layers = tuple(layer or ["readout"])
    store = EmbeddingStore()
    failed = 0
    typer.echo("| source | crystals | refused | seconds | crystals/s |\n| --- | ---: | ---: | ---: | ---: |")
    for card in _structure_cards(sources):
        with _isolated(card) as outcome, _progress(card.name) as progress:
            encoder = _load(card, threads)
            started = time.perf_counter()
            encoded = store.encode(encoder, corpus, layers=layers, device=device, progress=progress)
            seconds = time.perf_counter() - started
            refused, speed = len(encoded.refused), len(corpus) / seconds
            typer.echo(f"| {card.name} | {len(corpus)} | {refused} | {seconds:.1f} | {speed:.0f} |")
        failed += outcome.failed
    typer.echo(f"stored below {store.root}", err=True)
    raise typer.Exit(1 if failed else 0)


@bridge_app.command("build")
def bridge_build(
    structures: Annotated[Path, typer.Option(help="Crystals to fit on: CIF, POSCAR, JSON, a folder of these.")],
    sources: SourcesOption = None,
    all_: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Build what the package ships: the layers readout and final of every source, as eight-bit networks, "
            "with a manifest and the corpus index. What is built already is kept.",
        ),
    ] = False,
    layer: Annotated[str, typer.Option(help="Layer of the source.")] = "readout",
    kind: Annotated[str, typer.Option(help="Kind of bridge: mlp, ridge, or another that is registered.")] = "mlp",
    descriptor: Annotated[str, typer.Option(help="Descriptor that the bridge starts from.")] = "standard",
    folder: Annotated[Path | None, typer.Option(help="Where to write. Default: the package's own folder.")] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="Identifiers of crystals, with * as wildcard, that no bridge is fitted on; repeat for more."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many crystals, drawn at random with seed 0.")] = None,
    device: Annotated[str, typer.Option(help="Where the models run: auto, cpu, cuda, cuda:1, ...")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads of a model on a CPU; 0 leaves torch's choice.")] = 1,
) -> None:
    """Encode crystals, fit a bridge for each source, measure it on held-out chemistries, and save it."""
    from scotl_matgl.bridges.build import build_bridge
    from scotl_matgl.descriptors import get_descriptor

    _check_registered("bridges", [kind])
    _check_registered("descriptors", [descriptor])
    corpus = _read_corpus(structures, limit)
    if all_:
        _build_all(corpus, _structure_cards(sources), descriptor, folder, leave_out or [], device, threads)
        return
    failed = 0
    for card in _structure_cards(sources):
        with _isolated(card) as outcome, _progress(card.name) as progress:
            built = build_bridge(
                card,
                corpus,
                get_descriptor(descriptor),
                encoder=_load(card, threads),
                layer=layer,
                bridge=kind,
                folder=folder,
                device=device,
                leave_out=leave_out or (),
                progress=progress,
            )
            quality = built.bridge.quality_
            typer.echo(
                f"{card.name}: held-out median R² {quality.median_r2:.3f}, cosine {quality.cosine:.3f} "
                f"({quality.n_held_out} crystals of other chemical systems); {built.n_crystals} crystals, "
                f"{len(built.refused)} refused; encoding {built.seconds_encoding:.0f} s, fitting "
                f"{built.seconds_fitting:.0f} s; {built.path}"
            )
        failed += outcome.failed
    raise typer.Exit(1 if failed else 0)


def _build_all(
    corpus: Any,
    cards: list[SourceCard],
    descriptor: str,
    folder: Path | None,
    leave_out: list[str],
    device: str,
    threads: int,
) -> None:
    from scotl_matgl.bridges.build import build_all
    from scotl_matgl.bridges.index import index_path
    from scotl_matgl.descriptors import get_descriptor

    with _progress("encoding") as progress:
        manifest = build_all(
            cards,
            corpus,
            get_descriptor(descriptor),
            folder=folder,
            index=index_path() if folder is None else folder.parent / index_path().name,
            leave_out=leave_out,
            device=device,
            load=lambda card: _load(card, threads),
            report=typer.echo,
            progress=progress,
        )
    typer.echo(
        f"{len(manifest['bridges'])} bridges, {manifest['bytes'] / 1e6:.1f} MB; corpus index "
        f"{manifest.get('index', {}).get('bytes', 0) / 1e6:.1f} MB; {len(manifest['failed'])} sources failed"
    )
    raise typer.Exit(1 if manifest["failed"] else 0)


@bridge_app.command("show")
def bridge_show(
    name: Annotated[str, typer.Argument(help="Name of a source; * matches anything.")] = "*",
    format_: Annotated[Format, typer.Option("--format")] = Format.table,
) -> None:
    """Show the bridges that are there, their quality and what they were made from."""
    import fnmatch
    import json

    from scotl_matgl.bridges.store import list_bridges
    from scotl_matgl.exceptions import InputError

    found = [file for file in list_bridges() if fnmatch.fnmatch(file.provenance["source"].lower(), name.lower())]
    if format_ is Format.json:
        typer.echo(json.dumps([{"path": str(file.path), **file.header} for file in found], indent=1))
        return
    if not found:
        raise InputError(f"there is no bridge for {name!r}; `scotl-matgl bridge build` makes one")
    for file in found:
        quality, provenance = file.header["quality"], file.provenance
        typer.echo(
            f"{provenance['source']} ({provenance['layer']}, {len(quality['r2'])} wide) from "
            f"{provenance['descriptor']}: {file.header['kind']}, held-out R² median {quality['median_r2']:.3f} mean "
            f"{quality['mean_r2']:.3f}, cosine {quality['cosine']:.3f} (centred {quality['cosine_centred']:.3f}); "
            f"{provenance['n_crystals']} crystals, {provenance['n_refused']} refused, "
            f"{provenance.get('n_left_out', 0)} left out; "
            f"{'shipped' if file.shipped else file.path}"
        )


@data_app.command("fetch")
def data_fetch(
    address: Annotated[
        str | None, typer.Argument(help="URL or path of the corpus index. Default: what SCOTL_MATGL_INDEX says.")
    ] = None,
) -> None:
    """Fetch the corpus index: with it, formulas that are known crystals take the embedding of their crystal."""
    from scotl_matgl.bridges.fetch import fetch_index
    from scotl_matgl.bridges.index import sources_in

    path = fetch_index(address)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(list(sources_in(path)))} sources")


def _read_corpus(path: Path, limit: int | None) -> Any:
    from scotl_matgl.structures import Corpus

    corpus = Corpus.read(path)
    for refused in corpus.refused[:5]:
        typer.echo(f"not read: {refused.identifier}: {refused.reason}", err=True)
    if len(corpus.refused) > 5:
        typer.echo(f"... and {len(corpus.refused) - 5} more records not read", err=True)
    if limit is not None and limit < len(corpus):
        import numpy as np

        chosen = np.sort(np.random.default_rng(0).choice(len(corpus), size=limit, replace=False))
        corpus = Corpus((corpus[int(index)] for index in chosen), corpus.refused)
    return corpus


def _structure_cards(sources: list[str] | None) -> list[SourceCard]:
    from scotl_matgl.exceptions import InputError

    cards = [card for card in _select(sources) if card.modality == "structure"]
    if not cards:
        raise InputError(
            f"none of {', '.join(sources or ['all'])} reads crystals; a composition source needs no bridge"
        )
    return cards


def _load(card: SourceCard, threads: int) -> Any:
    encoder = card.load()
    torch = sys.modules.get("torch")
    if threads and torch is not None:
        torch.set_num_threads(threads)
    return encoder


class _Outcome:
    """Whether the work on one source failed."""

    failed = False


@contextlib.contextmanager
def _isolated(card: SourceCard) -> Iterator[_Outcome]:
    """Let the failure of one source cost its own line and nothing else."""
    outcome = _Outcome()
    try:
        yield outcome
    except Exception as error:  # an encoder may raise anything
        outcome.failed = True
        typer.echo(f"{card.name} failed: {error or type(error).__name__}", err=True)


# -- train ------------------------------------------------------------------------------------------------------------


@app.command()
def train(
    structures: Annotated[Path, typer.Option(help="Crystals with the property: JSON or extended XYZ, as for encode.")],
    property_: Annotated[str, typer.Option("--property", help="Name in the crystals' properties.")],
    unit: Annotated[str, typer.Option(help="Unit of the property.")],
    output: Annotated[Path, typer.Option(help="Folder for checkpoints, weights, report and card.")],
    architecture: Annotated[str, typer.Option(help="MEGNet, M3GNet or TensorNet.")] = "MEGNet",
    descriptor: Annotated[str, typer.Option(help="What the composition branch reads.")] = "standard",
    alignment_weight: Annotated[float | None, typer.Option(help="Weight of the alignment; SCOTL's is 0.1.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Where the alignment stops; SCOTL's is 0.01.")] = None,
    composition_weight: Annotated[
        float | None, typer.Option(help="Weight of the error from the formula; SCOTL's is 0.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the crystals.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of splits, weights and batches.")] = 0,
    name: Annotated[str, typer.Option(help="Name of the source.")] = "",
    limit: Annotated[int | None, typer.Option(help="Only so many crystals, drawn at random with seed 0.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")] = False,
    device: Annotated[str, typer.Option(help="Where to train: auto, cpu, cuda, cuda:1, ...")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads on a CPU; 0 leaves torch's choice.")] = 1,
) -> None:
    """Train a source model with SCOTL's objective: a MatGL network on crystals, jointly with one on their formulas."""
    from scotl_matgl.training import train_source
    from scotl_matgl.training_settings import TrainingSettings

    _check_registered("descriptors", [descriptor])
    given = {
        "alignment_weight": alignment_weight,
        "threshold": threshold,
        "composition_weight": composition_weight,
        "epochs": epochs,
    }
    settings = TrainingSettings(
        property=property_,
        unit=unit,
        architecture=architecture,
        descriptor=descriptor,
        random_state=seed,
        **{key: value for key, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    corpus = _read_corpus(structures, limit)
    if threads:
        import torch

        torch.set_num_threads(threads)
    with _progress(f"training {name or architecture}") as progress:
        trained = train_source(
            corpus,
            settings,
            output,
            name=name,
            dataset=structures.name,
            resume=resume,
            device=device,
            progress=progress,
        )
    report = trained.report
    typer.echo(
        f"{trained.card.name}: {report['n_train']} crystals, best of {len(report['history'])} epochs "
        f"{report['best_epoch'] + 1}; on {report['n_held_out']} crystals of other chemical systems: error from the "
        f"formula {report['mae_composition']:.4g} {unit} (R² {report['r2_composition']:.3f}), from the crystal "
        f"{report['mae_graph']:.4g} {unit} (R² {report['r2_graph']:.3f}), cosine of the embeddings "
        f"{report['cosine']:.3f}; {len(report['refused'])} crystals refused, {report['n_without_property']} without "
        f"the property; {output}"
    )


# -- rank -------------------------------------------------------------------------------------------------------------


@app.command()
def rank(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, Excel or JSON table.")],
    formula: Annotated[str, typer.Option(help="Column of chemical formulas.")] = "formula",
    target: Annotated[str, typer.Option(help="Column of the measured property or class.")] = "target",
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
    from scotl_matgl.datasets import read_table
    from scotl_matgl.ranker import TransferabilityRanker

    wanted = [name.strip() for name in estimators.split(",") if name.strip()]
    _check_registered("estimators", wanted)
    _check_registered("descriptors", [descriptor])
    _check_output(output)
    frame = read_table(table, formula=formula, target=target)
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
    with _progress("ranking") as progress:
        ranking = ranker.fit(frame[formula], frame[target], progress=progress).ranking_
    _emit(_formatted(ranking, format_), output)
    if not ranking.results:
        raise typer.Exit(1)


@app.command()
def evaluate(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, Excel or JSON table.")],
    formula: Annotated[str, typer.Option(help="Column of chemical formulas.")] = "formula",
    target: Annotated[str, typer.Option(help="Column of the measured property or class.")] = "target",
    sources: SourcesOption = None,
    task: Annotated[Task, typer.Option(help="Kind of target.")] = Task.auto,
    repeats: Annotated[int, typer.Option(help="Random subsets of 50, 100 and 200 rows.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of subsets, folds and heads.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="CSV of all that is measured; a run goes on where it was.")
    ] = None,
) -> None:
    """Measure how good the scores are: each beside what transfer from each source really gives."""
    from scotl_matgl.datasets import read_table
    from scotl_matgl.evaluation import evaluate as measure
    from scotl_matgl.evaluation import summarise

    frame = read_table(table, formula=formula, target=target)
    records = measure(
        frame[formula],
        frame[target],
        sources or "all",
        table=table.stem,
        path=output,
        task=task.value,
        repeats=repeats,
        random_state=seed,
        progress=lambda line: typer.echo(line, err=True),
    )
    typer.echo(summarise(records).to_string(float_format=lambda value: f"{value:.3f}"))


@app.command()
def curve(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, Excel or JSON table.")],
    formula: Annotated[str, typer.Option(help="Column of chemical formulas.")] = "formula",
    target: Annotated[str, typer.Option(help="Column of the measured property or class.")] = "target",
    unit: Annotated[str, typer.Option(help="Unit of the property, shown in the result.")] = "",
    task: Annotated[Task, typer.Option(help="Kind of target.")] = Task.auto,
    sizes: Annotated[str, typer.Option(help="Numbers of training rows, separated by commas.")] = "",
    repeats: Annotated[int, typer.Option(help="Fits at each size.")] = 5,
    error: Annotated[float | None, typer.Option(help="Say how many rows bring the error down to this.")] = None,
    head: Annotated[str, typer.Option(help="Head of both methods; 'kernel ridge' is the fastest.")] = "auto",
    jobs: Annotated[int, typer.Option(help="Processes; -1 is one for each core.")] = -1,
    seed: Annotated[int, typer.Option(help="Seed of parts and orders.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="CSV of all that is measured; a run goes on where it was.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this file (.png, .svg, .pdf).")] = None,
) -> None:
    """Learning curves: how the error falls with more rows, at twice as many, and how many an error needs."""
    from scotl_matgl.curves import learning_curves
    from scotl_matgl.datasets import read_table

    _check_output(output)
    _check_output(plot)
    if error is not None and not error > 0:
        raise typer.BadParameter(f"{error} is no error to be reached; give a number above zero")
    frame = read_table(table, formula=formula, target=target)
    with _progress("fits") as progress:
        curves = learning_curves(
            frame[formula],
            frame[target],
            head,
            sizes=_whole_numbers(sizes),
            repeats=repeats,
            task=task.value,
            unit=unit,
            path=output,
            n_jobs=jobs,
            random_state=seed,
            progress=progress,
        )
    typer.echo(curves.text(error))
    if plot is not None:
        _save_figure(curves.plot(error=error), plot)
    if not curves.frame["error"].notna().any():
        raise typer.Exit(1)


@app.command("validate")
def validate_command(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, Excel or JSON table.")],
    formula: Annotated[str, typer.Option(help="Column of chemical formulas.")] = "formula",
    target: Annotated[str, typer.Option(help="Column of the measured property or class.")] = "target",
    unit: Annotated[str, typer.Option(help="Unit of the property, shown in the result.")] = "",
    task: Annotated[Task, typer.Option(help="Kind of target.")] = Task.auto,
    scheme: Annotated[
        list[str] | None,
        typer.Option(help="cluster, element, chemical system or random; repeat for more. Default: all."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds or clusters; elements make as many as there are.")] = 5,
    min_formulas: Annotated[int, typer.Option(help="An element of fewer formulas makes no fold.")] = 10,
    max_folds: Annotated[int, typer.Option(help="Of the elements, measure so many, drawn at random.")] = 10,
    head: Annotated[str, typer.Option(help="Head of both methods; 'kernel ridge' is the fastest.")] = "auto",
    jobs: Annotated[int, typer.Option(help="Processes; -1 is one for each core.")] = -1,
    seed: Annotated[int, typer.Option(help="Seed of the folds.")] = 0,
    output: Annotated[Path | None, typer.Option(help="CSV of the errors fold by fold.")] = None,
) -> None:
    """Errors when whole clusters, elements or chemical systems are held out, beside random folds."""
    from scotl_matgl.datasets import read_table
    from scotl_matgl.validation import SCHEMES, validate

    _check_output(output)
    frame = read_table(table, formula=formula, target=target)
    with _progress("fits") as progress:
        found = validate(
            head,
            frame[formula],
            frame[target],
            scheme or SCHEMES,
            n_splits=folds,
            min_formulas=min_formulas,
            max_folds=max_folds,
            task=task.value,
            unit=unit,
            n_jobs=jobs,
            random_state=seed,
            progress=progress,
        )
    typer.echo(str(found))
    if output is not None:
        _emit(found.frame.to_csv(index=False), output)
    if not found.frame["error"].notna().any():
        raise typer.Exit(1)


@app.command()
def trade(
    table: Annotated[Path, typer.Argument(help="CSV table of measured errors, one row for each pair of sizes.")],
    price_target: Annotated[float, typer.Option(help="Price of one more target row.")],
    price_source: Annotated[float, typer.Option(help="Price of one more source row.")],
    error: Annotated[float | None, typer.Option(help="Error to be reached at the least cost.")] = None,
    budget: Annotated[float | None, typer.Option(help="Money to be spent for the least error.")] = None,
    n_target: Annotated[str, typer.Option(help="Column: number of target rows.")] = "n_target",
    n_source: Annotated[str, typer.Option(help="Column: number of source rows.")] = "n_source",
    measured: Annotated[str, typer.Option(help="Column: error measured with these.")] = "error",
    have_target: Annotated[float, typer.Option(help="Target rows that are there already.")] = 0.0,
    have_source: Annotated[float, typer.Option(help="Source rows that are there already.")] = 0.0,
    plot: Annotated[Path | None, typer.Option(help="Draw lines of equal error into this file.")] = None,
) -> None:
    """More target measurements or more source data: the cheapest mix for an error, or the best one for a budget."""
    import pandas as pd

    from scotl_matgl.exceptions import InputError
    from scotl_matgl.trade import TradeLaw

    if (error is None) == (budget is None):
        raise typer.BadParameter("give one of --error and --budget")
    _check_output(plot)
    frame = pd.read_csv(table)
    lacking = [column for column in (n_target, n_source, measured) if column not in frame.columns]
    if lacking:
        raise InputError(f"{table} has no column {lacking[0]!r}; it has: {', '.join(map(str, frame.columns))}")
    numbers = [pd.to_numeric(frame[column], errors="coerce") for column in (n_target, n_source, measured)]
    law = TradeLaw.fit(*numbers)
    have, prices = (have_target, have_source), {"price_target": price_target, "price_source": price_source}
    mix = (
        law.cheapest(error, **prices, have=have) if error is not None else law.best(budget or 0.0, **prices, have=have)
    )
    typer.echo(f"error = {law}, relative spread {law.spread:.2g}")
    for name, value in (("target rows", mix.n_target), ("source rows", mix.n_source), ("cost", mix.cost)):
        typer.echo(f"{name:>11}  {value}")
    typer.echo(f"{'error':>11}  {mix.error}")
    for remark in mix.remarks:
        typer.echo(remark)
    if plot is not None:
        _save_figure(law.plot(prices=(price_target, price_source)), plot)


def _whole_numbers(text: str) -> list[int] | None:
    """Numbers separated by commas; None if there are none."""
    try:
        return [int(part) for part in text.split(",") if part.strip()] or None
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of whole numbers such as 25,50,100") from error


def _save_figure(ax: Any, path: Path) -> None:
    from scotl_matgl.exceptions import InputError

    figure = ax.get_figure()
    known = figure.canvas.get_supported_filetypes()
    if path.suffix.lower().lstrip(".") not in known:
        raise InputError(f"{path} must end in one of .{', .'.join(sorted(known))}")
    figure.savefig(path, dpi=150)
    typer.echo(f"drawn to {path}", err=True)


@app.command()
def fit(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, Excel or JSON table.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the model, such as model.skops.")],
    formula: Annotated[str, typer.Option(help="Column of chemical formulas.")] = "formula",
    target: Annotated[str, typer.Option(help="Column of the measured property or class.")] = "target",
    column: Annotated[
        list[str] | None, typer.Option(help="Further numeric column, such as a temperature; repeat for more.")
    ] = None,
    sources: SourcesOption = None,
    classes: Annotated[bool, typer.Option("--classes", help="The target holds class labels.")] = False,
    method: Annotated[Method, typer.Option(help="Sources as they are, or trained on.")] = Method.frozen,
    n_sources: Annotated[int, typer.Option(help="How many of the best sources to use together.")] = 3,
    guard: Annotated[bool, typer.Option(help="Fall back on descriptors where transfer does not help.")] = True,
    jobs: Annotated[int, typer.Option(help="Threads; -1 is one for each core.")] = -1,
    seed: Annotated[int, typer.Option(help="Seed of folds, heads and networks.")] = 0,
) -> None:
    """Fit the transferred model to a table and save it; sources are ranked, and used only where that helps."""
    from scotl_matgl.datasets import read_table
    from scotl_matgl.transfer import TransferClassifier, TransferRegressor

    _check_output(output)
    frame = read_table(table, formula=formula, target=target)
    further = list(column or [])
    _check_columns(frame, further, table)
    kind = TransferClassifier if classes else TransferRegressor
    model = kind(
        sources or "auto",
        method=method.value,
        n_sources=n_sources,
        guard=guard,
        formula=formula if further else None,
        n_jobs=jobs,
        random_state=seed,
        on_error="skip",
    ).fit(frame[[formula, *further]], frame[target])
    for row in model.skipped_:
        typer.echo(f"skipped: row {row.row} ({row.value}): {row.reason}", err=True)
    model.save(output)
    measure = "error rate" if classes else "mean absolute error"
    used = ", ".join(source.name for source in model.sources_) if model.transfers_ else "no source"
    share = f", whose heads count for {model.share_:.0%}" if model.transfers_ else ""
    typer.echo(f"out-of-fold {measure} {model.error_:.3g} with {used}{share}")
    if guard:
        typer.echo(
            f"without transfer {model.no_transfer_error_:.3g}; the best single head on descriptors "
            f"{model.control_error_:.3g}"
        )
    if model.transfers_ and model.ranking_ is not None and not model.ranking_.helps:
        typer.echo("not proven: sources were picked on the same rows, and one may seem to help by chance")
    typer.echo(f"written to {output}", err=True)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="File that `scotl-matgl fit` wrote.")],
    formulas: Annotated[list[str] | None, typer.Argument(help="Formulas.")] = None,
    table: Annotated[Path | None, typer.Option(help="Table of formulas instead, with the columns of the fit.")] = None,
    formula: Annotated[str, typer.Option(help="Its column of chemical formulas.")] = "formula",
    output: Annotated[Path | None, typer.Option(help="Write here instead of to the terminal.")] = None,
) -> None:
    """Predict by a saved model, as CSV: value, standard deviation (or class and its probability), and the domain."""
    import pandas as pd

    from scotl_matgl.datasets import read_table
    from scotl_matgl.exceptions import InputError, counted
    from scotl_matgl.transfer import TransferClassifier, load_transferred

    if bool(formulas) == (table is not None):
        raise InputError("give formulas, or a table of them with --table")
    _check_output(output)
    fitted = load_transferred(model)
    frame = pd.DataFrame({formula: formulas}) if table is None else read_table(table, formula=formula, target=formula)
    if fitted.formula is None:
        rows = frame[[formula]]
    else:
        frame = frame.rename(columns={formula: fitted.formula})
        _check_columns(frame, list(fitted.feature_names_in_), table)
        rows = frame[list(fitted.feature_names_in_)]
    fitted.on_error = "skip"
    if isinstance(fitted, TransferClassifier):
        found = pd.DataFrame({"predicted": fitted.predict(rows), "probability": fitted.predict_proba(rows).max(axis=1)})
    else:
        found = pd.DataFrame(dict(zip(("predicted", "deviation"), fitted.predict(rows, return_std=True), strict=True)))
    domain = fitted.domain(rows).reset_index(drop=True)
    result = pd.concat([rows.reset_index(drop=True), found, domain], axis=1)
    _emit(result.to_csv(index=False), output)
    lost = int(result["predicted"].isna().sum())
    if lost:
        typer.echo(f"{counted(lost, 'row')} not predicted", err=True)


def _check_columns(frame: Any, columns: list[str], table: Path | None) -> None:
    from scotl_matgl.exceptions import InputError

    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(f"{table or 'the list of formulas'} has no column {', '.join(missing)}")


@app.command()
def demo() -> None:
    """Rank the sources for the bundled table of measured formation enthalpies."""
    from scotl_matgl.datasets import EXAMPLE_UNIT, load_example
    from scotl_matgl.ranker import TransferabilityRanker

    table = load_example()
    typer.echo(f"{len(table)} measured formation enthalpies of inorganic compounds ({EXAMPLE_UNIT})\n")
    ranker = TransferabilityRanker(on_error="skip", target_unit=EXAMPLE_UNIT)
    with _progress("ranking") as progress:
        typer.echo(str(ranker.fit(table["formula"], table["target"], progress=progress).ranking_))


def _formatted(ranking: Ranking, format_: Format) -> str:
    if format_ is Format.json:
        return ranking.to_json() or ""
    if format_ is Format.csv:
        return ranking.to_csv() or ""
    return str(ranking)


def main() -> None:
    """Run the command line: 0 when all went well, 2 for bad input, 1 for anything else that failed."""
    try:
        app()
    except Exception as error:  # shown as a sentence; the traceback is there for who wants it
        _fail(error, 2 if _is_bad_input(error) else 1)


def _is_bad_input(error: Exception) -> bool:
    """Whether what the user gave is at fault: a file, or what our own checks refuse.

    A ValueError or KeyError of another package is not: those are what a fault of this one looks like.
    """
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError):
        return True
    return isinstance(error, ValueError) and type(error).__module__.partition(".")[0] == __package__


def _fail(error: Exception, code: int) -> None:
    if os.environ.get("SCOTL_MATGL_TRACEBACK"):
        raise error
    message = str(error) or type(error).__name__
    if code == 1:
        message = f"{type(error).__name__}: {message}"
    typer.echo(f"error: {message}", err=True)
    if code == 1:
        typer.echo("SCOTL_MATGL_TRACEBACK=1 shows where it happened", err=True)
    sys.exit(code)
