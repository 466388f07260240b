"""Commands on bridges and the corpus index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scotl_matgl.cli.app import bridge_app, data_app
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
    load_encoder,
    read_corpus,
    structure_cards,
)

if TYPE_CHECKING:
    from scotl_matgl.bridges.build import BuildSettings, BuiltBridge
    from scotl_matgl.sources.cards import SourceCard


_Kind = Annotated[str, typer.Option(metavar="NAME", help="Bridge: mlp, ridge, or another that is registered.")]
_Folder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Where to write. Default: the package's own folder."),
]

_LeftOut = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Identifiers of crystals, with * as wildcard, that no bridge is fitted on; repeat."
    ),
]


@bridge_app.command("build")
def bridge_build(
    structures: Annotated[
        Path, typer.Option(metavar="CRYSTALS", help="Crystals to fit on: CIF, POSCAR, JSON, a folder of these.")
    ],
    sources: SourcesOption = None,
    all_: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Build what the package ships: the layers readout and final of every source, as eight-bit networks, "
            "with a manifest and the corpus index. What is built already is kept.",
        ),
    ] = False,
    index: Annotated[bool, typer.Option(help="With --all: whether to write the corpus index too.")] = True,
    layer: Annotated[str, typer.Option(metavar="LAYER", help="Layer of the source.")] = "readout",
    kind: _Kind = "mlp",
    descriptor: DescriptorOption = "standard",
    output: _Folder = None,
    leave_out: _LeftOut = None,
    limit: LimitOption = None,
    device: DeviceOption = "auto",
    jobs: JobsOption = 1,
    seed: SeedOption = 0,
) -> None:
    """Encode crystals, fit a bridge for each source, measure it on held-out chemistries, and save it."""
    from scotl_matgl.bridges.build import BuildSettings, build_bridge
    from scotl_matgl.bridges.index import index_path
    from scotl_matgl.descriptors.composite import get_descriptor

    check_registered("bridges", [kind])
    check_registered("descriptors", [descriptor])
    corpus = read_corpus(structures, limit, seed)
    settings = BuildSettings(leave_out=leave_out or (), device=device)
    if output is not None:
        settings = replace(settings, folder=output)
    if all_:
        place = index_path() if output is None else output.parent / index_path().name
        _build_all(
            structure_cards(sources),
            jobs,
            corpus=corpus,
            descriptor=get_descriptor(descriptor),
            settings=settings,
            index=place if index else None,
        )
        return
    failed = 0
    for card in structure_cards(sources):
        with isolated(card) as outcome, progress_bar(card.name) as progress:
            built = build_bridge(
                card,
                corpus,
                get_descriptor(descriptor),
                encoder=load_encoder(card, jobs),
                layer=layer,
                bridge=kind,
                settings=replace(settings, progress=progress),
            )
            say(_told(built))
        failed += outcome.failed
    raise typer.Exit(1 if failed else 0)


def _told(built: BuiltBridge) -> str:
    """What one build produced, in a line."""
    quality = built.bridge.quality_
    return (
        f"{built.card.name}: held-out median R² {quality.median_r2:.3f}, cosine {quality.cosine:.3f} "
        f"({quality.n_held_out} crystals of other chemical systems); {built.n_crystals} crystals, "
        f"{len(built.refused)} refused; encoding {built.seconds_encoding:.0f} s, fitting "
        f"{built.seconds_fitting:.0f} s; {built.path}"
    )


def _build_all(cards: list[SourceCard], jobs: int, *, settings: BuildSettings, **what: Any) -> None:
    from scotl_matgl.bridges.build import build_all

    with progress_bar("encoding") as progress:
        manifest = build_all(
            cards,
            load=lambda card: load_encoder(card, jobs),
            report=say,
            settings=replace(settings, progress=progress),
            **what,
        )
    say(
        f"{len(manifest['bridges'])} bridges, {manifest['bytes'] / 1e6:.1f} MB; corpus index "
        f"{manifest.get('index', {}).get('bytes', 0) / 1e6:.1f} MB; {len(manifest['failed'])} sources failed"
    )
    raise typer.Exit(1 if manifest["failed"] else 0)


@bridge_app.command("show")
def bridge_show(
    name: Annotated[str, typer.Argument(metavar="SOURCE", help="Name of a source; * matches anything.")] = "*",
    format_: FormatOption = Format.table,
    output: OutputOption = None,
) -> None:
    """Show the bridges that are there, their quality and what they were made from."""
    check_output(output)
    import fnmatch
    import json

    from scotl_matgl.bridges.store import list_bridges
    from scotl_matgl.exceptions import InputError

    found = [file for file in list_bridges() if fnmatch.fnmatch(file.provenance["source"].lower(), name.lower())]
    if format_ is Format.json:
        emit(json.dumps([{"path": str(file.path), **file.header} for file in found], indent=1), output)
        return
    if not found:
        raise InputError(f"there is no bridge for {name!r}; `scotl-matgl bridge build` makes one")
    rows = []
    for file in found:
        quality, provenance = file.header["quality"], file.provenance
        rows.append(
            {
                "source": provenance["source"],
                "file": "shipped" if file.shipped else str(file.path),
                "layer": provenance["layer"],
                "R²": quality["median_r2"],
                "cosine": quality["cosine"],
                "crystals": provenance["n_crystals"],
            }
        )
    if format_ is Format.csv:
        emit(rows_as(rows, format_), output)
        return
    shown = [
        {name: f"{cell:.3f}" if isinstance(cell, float) else str(cell) for name, cell in row.items()} for row in rows
    ]
    note = "R² (median over the columns) and cosine: on crystals of chemical systems held out; --format json tells all"
    emit(f"{columns_of(shown, right=('R²', 'cosine', 'crystals'))}\n\n{note}", output)


@data_app.command("fetch")
def data_fetch(
    address: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="URL or path of the corpus index. Default: what SCOTL_MATGL_INDEX says."),
    ] = None,
    minutes: Annotated[
        float, typer.Option(metavar="MINUTES", min=0.0, help="Give up after so long; the next call goes on.")
    ] = 60.0,
) -> None:
    """Fetch the corpus index: with it, formulas that are known crystals take the embedding of their crystal."""
    from scotl_matgl.bridges.fetch import fetch_index
    from scotl_matgl.bridges.index import sources_in

    path = fetch_index(address, seconds=60 * minutes)
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(list(sources_in(path)))} sources")
