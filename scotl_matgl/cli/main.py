"""The entry point: all commands, and how a run ends."""

from __future__ import annotations

import os
import sys

import typer

from scotl_matgl.cli import bridges, cache, models, rank, sources, studies  # noqa: F401 - their commands join the application
from scotl_matgl.cli.app import app


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
    return isinstance(error, ValueError) and type(error).__module__.partition(".")[0] == __package__.partition(".")[0]


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
