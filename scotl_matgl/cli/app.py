"""The application and its groups of commands."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="scotl-matgl",
    help="Which pretrained crystal model is worth transferring from to a table of formulas and one measured property?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # whose packages take longer to import than all of the help
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from scotl_matgl import __version__
        from scotl_matgl.cli.console import say

        say(f"scotl-matgl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options of the program itself."""


zoo_app = typer.Typer(help="The source models that are known.", no_args_is_help=True)


bridge_app = typer.Typer(help="The bridges from formulas to source embeddings.", no_args_is_help=True)


app.add_typer(zoo_app, name="zoo")


app.add_typer(bridge_app, name="bridge")


data_app = typer.Typer(help="Data that are too large for the package.", no_args_is_help=True)


app.add_typer(data_app, name="data")
