"""Commands on what the package keeps in its own folder."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scotl_matgl.cli.app import app
from scotl_matgl.cli.console import emit, rows_as, say
from scotl_matgl.cli.options import Format, FormatOption, OutputOption, check_output

cache_app = typer.Typer(help="What is kept between runs: how much it is, whether it is whole.", no_args_is_help=True)

app.add_typer(cache_app, name="cache")


@cache_app.command("info")
def cache_info(format_: FormatOption = Format.table, output: OutputOption = None) -> None:
    """Show where files are kept, how many there are and how large they are."""
    check_output(output)
    from scotl_matgl.bridges import cache
    from scotl_matgl.sources import apart
    from scotl_matgl.storage import home
    from scotl_matgl.vocabulary import counted

    found = cache.list_cache()
    rows: list[dict[str, Any]] = []
    for kind in dict.fromkeys(file.kind for file in found):
        sizes = [file.size for file in found if file.kind == kind]
        rows.append({"kind": kind, "files": len(sizes), "bytes": sum(sizes), "folder": str(home())})
    if format_ is not Format.table:
        emit(rows_as(rows, format_), output)
        return
    told = [f"{row['kind']:>12}  {counted(row['files'], 'file'):>12}  {row['bytes'] / 1e6:10.1f} MB" for row in rows]
    told.append(f"{home()}: {sum(row['bytes'] for row in rows) / 1e6:.1f} MB")
    for path in apart.ended_a_process():
        origin = path.read_text(encoding="utf-8", errors="replace")
        told.append(f"{origin} has ended a run and is listed by a process of its own; to try it again delete {path}")
    emit("\n".join(told), output)


@cache_app.command("verify")
def cache_verify() -> None:
    """Compare every file with its hash; what is damaged is listed, with what to do, and the run ends with 1."""
    from scotl_matgl.bridges import cache
    from scotl_matgl.vocabulary import counted

    found = cache.list_cache()
    damaged = 0
    for file in found:
        reason = cache.damage_of(file)
        if reason:
            damaged += 1
            say(reason)
        elif cache.is_unknown(file):
            say(f"{file.path} carries no hash, and no card that is listed has it; using its card will compare it")
    say(f"{counted(len(found), 'file')}, {damaged} of them damaged")
    raise typer.Exit(1 if damaged else 0)


@cache_app.command("prune")
def cache_prune(
    megabytes: Annotated[
        float,
        typer.Option(metavar="MB", min=0.0, help="Embeddings and look-ups that may stay; 0 deletes all of them."),
    ] = 10_000.0,
) -> None:
    """Delete what is unfinished, and of what can be made again the least recently used until the rest is small enough.

    Bridges and trained sources are never deleted.
    """
    from scotl_matgl.bridges import cache
    from scotl_matgl.vocabulary import counted

    deleted = cache.prune(int(min(megabytes, 1e12) * 1e6))
    say(f"deleted {counted(len(deleted), 'file')}, {sum(file.size for file in deleted) / 1e6:.1f} MB")
