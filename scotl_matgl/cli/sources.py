"""Commands on sources: list, show, encode, train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scotl_matgl.cli.app import app, zoo_app
from scotl_matgl.cli.console import columns_of, emit, progress_bar, rows_as, say
from scotl_matgl.cli.options import (
    DescriptorOption,
    DeviceOption,
    Format,
    FormatOption,
    JobsOption,
    LimitOption,
    OutputOption,
    SeedOption,
    SourcesOption,
    check_output,
    check_registered,
    isolated,
    list_records,
    load_encoder,
    read_corpus,
    select_cards,
    set_threads,
    structure_cards,
)

if TYPE_CHECKING:
    from scotl_matgl.sources.cards import SourceCard
    from scotl_matgl.training.source import TrainedSource


@zoo_app.command("list")
def zoo_list(
    property_: Annotated[
        str | None, typer.Option("--property", metavar="TEXT", help="Only sources trained on such a property.")
    ] = None,
    architecture: Annotated[str | None, typer.Option(metavar="NAME", help="Only this architecture.")] = None,
    modality: Annotated[str | None, typer.Option(metavar="NAME", help="Only 'structure' or 'composition'.")] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only sources trained on such a data set.")
    ] = None,
    zoo: Annotated[str | None, typer.Option(metavar="NAME", help="Only this zoo.")] = None,
    format_: FormatOption = Format.table,
    output: OutputOption = None,
) -> None:
    """List the sources, and whether each can be ranked on this machine as it is."""
    check_output(output)
    from scotl_matgl.bridges.store import list_bridges
    from scotl_matgl.sources.cards import all_cards, find

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
    if format_ is not Format.table:
        emit(rows_as(rows, format_), output)
        return
    told = [f"{len(rows)} sources, {sum(row['rankable'] for row in rows)} of them rankable as they are"]
    if rows:
        shown = [
            {
                "name": row["name"],
                "property": row["property"] + (f" [{row['unit']}]" if row["unit"] != "1" else ""),
                "reads": "formulas" if row["modality"] == "composition" else "crystals",
                "rankable": "yes" if row["rankable"] else "no bridge",
            }
            for row in rows
        ]
        told.insert(0, columns_of(shown) + "\n")
    emit("\n".join(told), output)


@zoo_app.command("show")
def zoo_show(
    name: Annotated[str, typer.Argument(metavar="SOURCE", help="Name of a source; * matches anything.")],
    format_: FormatOption = Format.table,
    output: OutputOption = None,
) -> None:
    """Show all that is known of a source; of several as a list in JSON, and one to a row in CSV."""
    import json

    check_output(output)
    cards = [card.to_dict() for card in select_cards([name])]
    told = [{key: _in_a_cell(key, value) for key, value in card.items()} for card in cards]
    if format_ is Format.json:
        emit(json.dumps(cards if "*" in name else cards[0], indent=1, ensure_ascii=False), output)
    elif format_ is Format.csv:
        emit(rows_as(told, format_), output)
    else:
        lines = [[f"{key:>14}  {value}" for key, value in card.items() if value not in ("", None)] for card in told]
        emit("\n\n".join("\n".join(card) for card in lines) + "\n", output)


def _in_a_cell(key: str, value: Any) -> Any:
    """A value of a card as one cell of a table."""
    if key == "elements":
        return f"{len(value)}: {' '.join(value)}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{inner} {content}" for inner, content in value.items())
    return value


@zoo_app.command("add")
def zoo_add(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="Folder of `model.save` of MatGL or of `scotl-matgl train`, or a checkpoint of Lightning.",
        ),
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the source.")] = "",
    property_: Annotated[str, typer.Option("--property", metavar="TEXT", help="What it was trained to predict.")] = "",
    unit: Annotated[str, typer.Option(metavar="UNIT", help="Unit of the property; 1 if there is none.")] = "",
    structures: Annotated[
        Path | None,
        typer.Option(metavar="CRYSTALS", help="Crystals to fit its bridge on, so that formulas can be ranked."),
    ] = None,
    network: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the network that a checkpoint belongs to.")
    ] = None,
    dataset: Annotated[str, typer.Option(metavar="NAME", help="What it was trained on.")] = "",
    licence: Annotated[str, typer.Option(metavar="TEXT", help="Licence of the weights.")] = "",
    citation: Annotated[str, typer.Option(metavar="TEXT", help="What to cite.")] = "",
    matgl_version: Annotated[
        int | None,
        typer.Option(metavar="N", help="Major version of MatGL that trained it, if another than the installed one."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a source of this name added before.")] = False,
    layer: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="Layers to bridge; repeat. Default: readout, final.")
    ] = None,
    limit: LimitOption = None,
    device: DeviceOption = "auto",
    jobs: JobsOption = 1,
    seed: SeedOption = 0,
) -> None:
    """Make a source of a model that you trained; with crystals its bridge too, and it is ranked with all others."""
    from scotl_matgl.exceptions import InputError
    from scotl_matgl.sources.cards import SourceCard
    from scotl_matgl.training.source import load_trained

    if (model / "report.json").is_file():  # `scotl-matgl train` writes one
        card = load_trained(model).install()
    elif not (name and property_ and unit):
        raise InputError("a model of MatGL says neither its name nor what it predicts: give --name, --property, --unit")
    else:
        stated = {"dataset": dataset, "licence": licence, "citation": citation}
        versions: dict[str, Any] = {"matgl_version": matgl_version, "network": network, "replace": replace}
        card = SourceCard.from_matgl(model, name=name, property=property_, unit=unit, **versions, **stated)
    widths = ", ".join(f"{layer} {width}" for layer, width in card.layers.items())
    say(f"{card.name}: {card.architecture}, {card.parameters} parameters, {len(card.elements)} elements")
    say(f"layers: {widths}")
    if card.modality == "structure" and structures is not None:
        _bridge(card, read_corpus(structures, limit, seed), layer or ["readout", "final"], device, jobs)
    elif card.modality == "structure":
        say(
            "formulas need its bridge: `scotl-matgl bridge build --structures FILE --sources "
            f"'{card.name}'`, or give --structures here",
            err=True,
        )


def _bridge(card: SourceCard, corpus: Any, layers: list[str], device: str, jobs: int) -> None:
    """Fit the bridges of a source, and say how good they are."""
    from scotl_matgl.bridges.build import BuildSettings, build_bridge
    from scotl_matgl.descriptors.composite import get_descriptor

    encoder = load_encoder(card, jobs)
    descriptor = get_descriptor("standard")
    settings = BuildSettings(device=device)
    with progress_bar(card.name) as progress:  # all layers in one pass; the bridges find them stored
        settings.store.encode(encoder, corpus.one_per_formula(), layers=layers, device=device, progress=progress)
    for layer in layers:
        built = build_bridge(card, corpus, descriptor, encoder=encoder, layer=layer, settings=settings)
        say(
            f"bridge to {layer}: held-out median R² {built.bridge.quality_.median_r2:.3f}; {built.n_crystals} "
            f"crystals, {len(built.refused)} refused; {built.path}"
        )


@zoo_app.command("remove")
def zoo_remove(name: Annotated[str, typer.Argument(metavar="SOURCE", help="Name of a source that was added.")]) -> None:
    """Remove a source that was added: its card, its weights, its bridges and its stored embeddings."""
    import shutil

    from scotl_matgl.bridges.store import remove_bridges
    from scotl_matgl.encoders.store import EmbeddingStore
    from scotl_matgl.sources.installed import remove

    card = remove(name)
    bridges = remove_bridges(card)
    shutil.rmtree(EmbeddingStore().folder(card), ignore_errors=True)
    say(f"removed {card.name} and {len(bridges)} files of its bridges")


@app.command()
def encode(
    structures: Annotated[
        Path, typer.Option(metavar="CRYSTALS", help="Crystals: CIF, POSCAR, JSON, extended XYZ, a folder of these.")
    ],
    sources: SourcesOption = None,
    layer: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="Layers; repeat for more. Default: readout.")
    ] = None,
    limit: LimitOption = None,
    device: DeviceOption = "auto",
    jobs: JobsOption = 1,
    seed: SeedOption = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the embeddings here: .parquet, .csv or .npz."),
    ] = None,
) -> None:
    """Encode crystals by sources into the store, and say how fast; what is stored already is not computed again."""
    import time

    from scotl_matgl.encoders.export import check_ending, write_embeddings
    from scotl_matgl.encoders.store import EmbeddingStore

    check_output(output, structures)
    if output is not None:
        check_ending(output)
    corpus = read_corpus(structures, limit, seed)
    layers = tuple(layer or ["readout"])
    store = EmbeddingStore()
    failed = 0
    found: dict[tuple[str, str], Any] = {}
    say("| source | crystals | encoded | refused | seconds | encoded/s |")
    say("| --- | ---: | ---: | ---: | ---: | ---: |")
    for card in structure_cards(sources):
        with isolated(card) as outcome, progress_bar(card.name) as progress:
            encoder = load_encoder(card, jobs)
            started = time.perf_counter()
            encoded = store.encode(encoder, corpus, layers=layers, device=device, progress=progress)
            seconds = time.perf_counter() - started
            if output is not None:
                found |= {(card.name, name): values for name, values in encoded.embeddings.items()}
            # What was read from the store says nothing of how fast the source is.
            speed = f"{encoded.n_encoded / seconds:.0f}" if encoded.n_encoded else "-"
            counts = f"{len(corpus)} | {encoded.n_encoded} | {len(encoded.refused)}"
            say(f"| {card.name} | {counts} | {seconds:.1f} | {speed} |")
            list_records(
                f"refused by {card.name}",
                [(corpus[row].identifier or f"crystal {row}", reason) for row, reason in encoded.refused.items()],
            )
        failed += outcome.failed
    say(f"stored below {store.root}", err=True)
    if output is not None and found:
        names = [crystal.identifier or f"crystal {row}" for row, crystal in enumerate(corpus)]
        write_embeddings(output, names, found)
        say(f"written to {output}", err=True)
    raise typer.Exit(1 if failed else 0)


_Alignment = Annotated[float | None, typer.Option(metavar="NUMBER", help="Weight of the alignment; SCOTL's is 0.1.")]
_Threshold = Annotated[float | None, typer.Option(metavar="NUMBER", help="Where the alignment stops; SCOTL's is 0.01.")]
_FromFormula = Annotated[
    float | None, typer.Option(metavar="NUMBER", help="Weight of the error from the formula; SCOTL's is 0.")
]


@app.command()
def train(
    structures: Annotated[
        Path, typer.Option(metavar="CRYSTALS", help="Crystals with the property: JSON or extended XYZ, as for encode.")
    ],
    property_: Annotated[str, typer.Option("--property", metavar="NAME", help="Name in the crystals' properties.")],
    unit: Annotated[str, typer.Option(metavar="UNIT", help="Unit of the property.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Folder for checkpoints, weights, report and card."),
    ],
    architecture: Annotated[str, typer.Option(metavar="NAME", help="MEGNet, M3GNet or TensorNet.")] = "MEGNet",
    descriptor: DescriptorOption = "standard",
    alignment_weight: _Alignment = None,
    threshold: _Threshold = None,
    composition_weight: _FromFormula = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Passes over the crystals.")] = None,
    seed: SeedOption = 0,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the source.")] = "",
    limit: LimitOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")] = False,
    device: DeviceOption = "auto",
    jobs: JobsOption = 1,
) -> None:
    """Train a source model with SCOTL's objective: a MatGL network on crystals, jointly with one on their formulas."""
    from scotl_matgl.training.settings import TrainingSettings
    from scotl_matgl.training.source import train_source

    check_registered("descriptors", [descriptor])
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
    corpus = read_corpus(structures, limit, seed)
    set_threads(jobs)
    with progress_bar(f"training {name or architecture}") as progress:
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
    say(f"{_in_words(trained, unit)}; {output}")


def _in_words(trained: TrainedSource, unit: str) -> str:
    """How far the training came, and how good the source is on chemical systems that it has not seen."""
    report = trained.report
    return (
        f"{trained.card.name}: {report['n_train']} crystals, best of {len(report['history'])} epochs "
        f"{report['best_epoch'] + 1}; on {report['n_held_out']} crystals of other chemical systems: error from the "
        f"formula {report['mae_composition']:.4g} {unit} (R² {report['r2_composition']:.3f}), from the crystal "
        f"{report['mae_graph']:.4g} {unit} (R² {report['r2_graph']:.3f}), cosine of the embeddings "
        f"{report['cosine']:.3f}; {len(report['refused'])} crystals refused, {report['n_without_property']} without "
        "the property"
    )
