"""Options that several commands share, and their checks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scotl_matgl.cli.console import say

if TYPE_CHECKING:
    from scotl_matgl.sources.cards import SourceCard


class Format(StrEnum):
    """Forms of output."""

    table = "table"
    json = "json"
    csv = "csv"


SourcesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sources",
        "-s",
        metavar="SOURCE",
        help="Names, with * as wildcard, 'calculated' (none that saw measured values), or files with a card (.json); "
        "repeat for more. Default: all.",
    ),
]
HeadOption = Annotated[
    str, typer.Option("--head", metavar="HEAD", help="Head on top; 'auto' compares all, 'kernel ridge' is the fastest.")
]
LayerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="LAYER",
        help="Layer of the sources; repeat, or 'auto' for all: each source takes its best. Default: readout.",
    ),
]
UnitOption = Annotated[str, typer.Option("--unit", metavar="UNIT", help="Unit of the property, shown in the result.")]


def _not_none(jobs: int) -> int:
    if jobs == 0:
        raise typer.BadParameter("0 threads do nothing; -1 is one for each core")
    return jobs


JobsOption = Annotated[
    int, typer.Option("--jobs", metavar="N", help="Threads or processes; -1 is one for each core.", callback=_not_none)
]
SeedOption = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, max=2**32 - 1, help="Seed of all that is drawn at random.")
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to the terminal.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="Form of the output.")]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE.html", help="Write a page of one file for a colleague too.")
]
DescriptorOption = Annotated[str, typer.Option("--descriptor", metavar="NAME", help="Descriptor of the formulas.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Only so many crystals, drawn at random.")
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Where networks run: auto, cpu, cuda, cuda:1, ...")
]


def asked(sources: list[str] | None) -> list[str | SourceCard] | str:
    """Sources as an option names them: names as they are, cards read from files; all without it."""
    from scotl_matgl.sources.bound import card_of_file

    return [card_of_file(item) if item.lower().endswith(".json") else item for item in sources or ()] or "all"


def asked_layer(layers: list[str] | None) -> str | list[str]:
    """Layer as the option names it, or several."""
    return layers if layers is not None and len(layers) > 1 else (layers or ["readout"])[0]


def select_cards(sources: list[str] | None) -> list[SourceCard]:
    """Cards of the sources that an option names; of all without it."""
    from scotl_matgl.sources.cards import all_cards, select

    return select(all_cards(), asked(sources))


def check_registered(kind: str, names: Iterable[str]) -> None:
    """Tell a mistyped name, which is wrong input, from a plugin that is broken."""
    from scotl_matgl import registry
    from scotl_matgl.exceptions import InputError

    for name in names:
        if name not in registry.names(kind):
            try:
                registry.load(kind, name)
            except registry.PluginError as error:
                raise InputError(str(error)) from error


def check_output(output: Path | None, *inputs: Path | None) -> None:
    """Find out before the work, not after it, that its result cannot be written, or would replace its own input."""
    from scotl_matgl.exceptions import InputError

    if output is not None and not output.parent.is_dir():
        raise InputError(f"there is no folder {output.parent} to write {output.name} into; make it first")
    if output is not None and output.is_dir():
        raise InputError(f"{output} is a folder; give the name of a file")
    for given in inputs:
        if output is not None and given is not None and output.is_file() and given.is_file() and output.samefile(given):
            raise InputError(f"{output} is the file that is read, which the result would replace; name another")


def read_corpus(path: Path, limit: int | None, seed: int = 0) -> Any:
    """Crystals of a file or folder, or a sample of them; what was refused or noted of others is listed on stderr."""
    from scotl_matgl.chemistry.corpus import Corpus
    from scotl_matgl.exceptions import InputError

    corpus = Corpus.read(path, sample=limit, random_state=seed)
    list_records("not read", [(refused.identifier, refused.reason) for refused in corpus.refused])
    list_records("read with a note", list(corpus.warnings))
    if not len(corpus):
        raise InputError(f"no crystal of {path} could be read: see the reasons above")
    return corpus


def list_records(what: str, records: list[tuple[str, str]], *, most: int = 20) -> None:
    """List records and what is to be said of each on stderr: the first of them, and how many more there are."""
    for identifier, message in records[:most]:
        say(f"{what}: {identifier}: {message}", err=True)
    if len(records) > most:
        say(f"{what}: {len(records) - most} more", err=True)


def structure_cards(sources: list[str] | None) -> list[SourceCard]:
    """Cards of the sources named that read crystals."""
    from scotl_matgl.exceptions import InputError

    cards = [card for card in select_cards(sources) if card.modality == "structure"]
    if not cards:
        raise InputError(
            f"none of {', '.join(sources or ['all'])} reads crystals; a composition source needs no bridge"
        )
    return cards


def load_encoder(card: SourceCard, jobs: int) -> Any:
    """Encoder of a source, on so many threads of torch where it needs torch."""
    encoder = card.load()
    if "torch" in sys.modules:
        set_threads(jobs)
    return encoder


def set_threads(jobs: int) -> None:
    """Let torch run on so many threads, counted as joblib does."""
    import torch
    from joblib import effective_n_jobs

    torch.set_num_threads(effective_n_jobs(jobs))


class _Outcome:
    """Whether the work on one source failed."""

    failed = False


@contextlib.contextmanager
def isolated(card: SourceCard) -> Iterator[_Outcome]:
    """Let the failure of one source cost its own line and nothing else."""
    outcome = _Outcome()
    try:
        yield outcome
    except Exception as error:  # an encoder may raise anything
        outcome.failed = True
        say(f"{card.name} failed: {error or type(error).__name__}", err=True)
