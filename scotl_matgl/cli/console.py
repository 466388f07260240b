"""What commands print, draw and write."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer


def say(text: str = "", *, err: bool = False) -> None:
    """Print a text with control characters of whatever it quotes spelt out; all commands speak through this."""
    from scotl_matgl.vocabulary import visible

    typer.echo(visible(text), err=err)


@contextlib.contextmanager
def progress_bar(label: str, *, delay: float = 2.0) -> Iterator[Callable[[int, int], None]]:
    """Progress bar on stderr for what takes longer than `delay` seconds; silent when stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from scotl_matgl.progress import bar

    with bar(label, delay=delay) as update:
        yield update


def emit(text: str, output: Path | None) -> None:
    """Print a text, or write it to a file and say so."""
    if output is None:
        say(text.rstrip("\n"))
    else:
        from scotl_matgl.storage import write_whole

        write_whole(output, (text.rstrip("\n") + "\n").encode())
        say(f"written to {output}", err=True)


def rows_as(rows: Sequence[Mapping[str, Any]], format_: str) -> str:
    """Rows of one table as ``"json"`` or as ``"csv"``; JSON has null for what is no finite number."""
    import json
    import math

    if format_ == "json":
        known = [
            {name: None if isinstance(cell, float) and not math.isfinite(cell) else cell for name, cell in row.items()}
            for row in rows
        ]
        return json.dumps(known, indent=1, ensure_ascii=False, allow_nan=False)
    import pandas as pd

    from scotl_matgl.vocabulary import for_spreadsheets

    return for_spreadsheets(pd.DataFrame(list(rows))).to_csv(index=False).rstrip("\n")


def columns_of(rows: Sequence[Mapping[str, str]], *, right: Collection[str] = (), widths: int | None = None) -> str:
    """Table of texts by heading, no wider than the terminal: the second column gives way, the others stay whole.

    Parameters
    ----------
    rows : sequence of mapping of str to str
        All with the same headings.
    right : collection of str
        Headings of numbers.
    widths : int, optional
        Characters of a line. Default: those of the terminal, or 80 where there is none.
    """
    import shutil

    limit = shutil.get_terminal_size((80, 24)).columns if widths is None else widths
    headings = list(rows[0])
    sizes = {name: max(len(name), *(len(row[name]) for row in rows)) for name in headings}
    spare = sum(sizes.values()) + 2 * (len(headings) - 1) - limit
    if spare > 0 and len(headings) > 1:
        sizes[headings[1]] = max(8, len(headings[1]), sizes[headings[1]] - spare)

    def line(row: Mapping[str, str]) -> str:
        cells = []
        for name, size in sizes.items():
            text = row[name] if len(row[name]) <= size else row[name][: size - 1] + "…"
            cells.append(text.rjust(size) if name in right else text.ljust(size))
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(sizes.values()) + 2 * (len(headings) - 1))
    return "\n".join([line({name: name for name in headings}), rule, *map(line, rows)])


def origin_of(table: Path | None) -> dict[str, str]:
    """Command, table and its hash, for a report."""
    import shlex

    from scotl_matgl.storage import file_sha256

    told = {"command": shlex.join(["scotl-matgl", *sys.argv[1:]])}
    if table is not None and table.is_file():
        told |= {"table": table.name, "sha256 of the table": file_sha256(table)}
    return told


def save_figure(ax: Any, path: Path) -> None:
    """Write the figure of some axes to a file whose suffix names the format."""
    import io

    from scotl_matgl.exceptions import InputError
    from scotl_matgl.storage import write_whole

    figure = ax.get_figure()
    known = figure.canvas.get_supported_filetypes()
    if path.suffix.lower().lstrip(".") not in known:
        raise InputError(f"{path} must end in one of .{', .'.join(sorted(known))}")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format=path.suffix.lower().lstrip("."))
    write_whole(path, buffer.getvalue())
    say(f"drawn to {path}", err=True)
