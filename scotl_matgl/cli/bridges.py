"""Commands on bridges and the corpus index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scotl_matgl.cli.app import bridge_app, data_app
from scotl_matgl.cli.console import columns_of, progress_bar, say
from scotl_matgl.cli.options import (
    Format,
    SourcesOption,
    check_registered,
    isolated,
    load_encoder,
    read_corpus,
    structure_cards,
)

if TYPE_CHECKING:
    from scotl_matgl.bridges.build import BuildSettings, BuiltBridge
    from scotl_matgl.sources.cards import SourceCard


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
    index: Annotated[bool, typer.Option(help="With --all: whether to write the corpus index too.")] = True,
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
    from scotl_matgl.bridges.build import BuildSettings, build_bridge
    from scotl_matgl.bridges.index import index_path
    from scotl_matgl.descriptors.composite import get_descriptor

    check_registered("bridges", [kind])
    check_registered("descriptors", [descriptor])
    corpus = read_corpus(structures, limit)
    settings = BuildSettings(leave_out=leave_out or (), device=device)
    if folder is not None:
        settings = replace(settings, folder=folder)
    if all_:
        place = index_path() if folder is None else folder.parent / index_path().name
        _build_all(
            structure_cards(sources),
            threads,
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
                encoder=load_encoder(card, threads),
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


def _build_all(cards: list[SourceCard], threads: int, *, settings: BuildSettings, **what: Any) -> None:
    from scotl_matgl.bridges.build import build_all

    with progress_bar("encoding") as progress:
        manifest = build_all(
            cards,
            load=lambda card: load_encoder(card, threads),
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
        say(json.dumps([{"path": str(file.path), **file.header} for file in found], indent=1))
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
                "R²": f"{quality['median_r2']:.3f}",
                "cosine": f"{quality['cosine']:.3f}",
                "crystals": str(provenance["n_crystals"]),
            }
        )
    say(columns_of(rows, right=("R²", "cosine", "crystals")))
    say("\nR² (median over the columns) and cosine: on crystals of chemical systems held out; --format json tells all")


@data_app.command("fetch")
def data_fetch(
    address: Annotated[
        str | None, typer.Argument(help="URL or path of the corpus index. Default: what SCOTL_MATGL_INDEX says.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.0, help="Give up after so long; the next call goes on.")] = 60.0,
) -> None:
    """Fetch the corpus index: with it, formulas that are known crystals take the embedding of their crystal."""
    from scotl_matgl.bridges.fetch import fetch_index
    from scotl_matgl.bridges.index import sources_in

    path = fetch_index(address, seconds=60 * minutes)
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(list(sources_in(path)))} sources")
