"""The table that a command is given: one set of options, and one way to read it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scotl_matgl.cli.console import say

if TYPE_CHECKING:
    import pandas as pd


class Task(StrEnum):
    """Kinds of target."""

    auto = "auto"
    regression = "regression"
    classification = "classification"


class Amounts(StrEnum):
    """What the amounts of formulas count."""

    atoms = "atoms"
    weight = "weight"


class Polymorphs(StrEnum):
    """Choices for --polymorphs."""

    together = "together"
    apart = "apart"


@dataclass(frozen=True, kw_only=True)
class GivenTable:
    """A table as the options name it.

    Attributes
    ----------
    table : Path or None
        File; ``-`` is standard input.
    formula, target : str, optional
        Columns; by default they are found.
    sheet : str, optional
        Of a workbook.
    amounts : Amounts
        What amounts count.
    task : Task
        Kind of target.
    column : list of str, optional
        Further columns.
    structures : Path, optional
        Folder with the crystals that the column of formulas names.
    polymorphs : Polymorphs
        Whether crystals of one formula share a fold.
    """

    table: Path | None
    formula: str | None = None
    target: str | None = None
    sheet: str | None = None
    amounts: Amounts = Amounts.atoms
    task: Task = Task.auto
    column: list[str] | None = None
    structures: Path | None = None
    polymorphs: Polymorphs = Polymorphs.together

    @property
    def name(self) -> str:
        """What results call the table."""
        return "table" if self.table is None or str(self.table) == "-" else self.table.stem

    def as_options(self) -> dict[str, Any]:
        """Options that name this table again, by their names; those left at their defaults are not among them."""
        options = {item: getattr(self, item.name) for item in fields(self) if item.name != "table"}
        return {item.name: value for item, value in options.items() if value != item.default}

    def read(self) -> ReadTable:
        """Read formulas, further columns and target, and say which columns were found."""
        return self._read(with_target=True, columns=self.column or ())

    def read_formulas(self, columns: Sequence[str] = ()) -> ReadTable:
        """Read formulas and further columns alone."""
        return self._read(with_target=False, columns=columns)

    def of(self, formulas: Sequence[str]) -> ReadTable:
        """Table of formulas that are given themselves."""
        import pandas as pd

        frame = pd.DataFrame({"formula": list(formulas)})
        frame.attrs["columns"] = {"formula": "formula"}
        return ReadTable(frame, (), self.amounts, frame["formula"])

    def _read(self, *, with_target: bool, columns: Sequence[str]) -> ReadTable:
        from scotl_matgl.exceptions import InputError
        from scotl_matgl.tables.crystal_cells import crystals_of
        from scotl_matgl.tables.files import read_table

        if self.amounts is Amounts.weight and columns:
            raise InputError("--amounts weight is for tables of formulas without further columns; write atoms there")
        frame = read_table(
            self.table or "-",
            formula=self.formula,
            target=self.target,
            columns=columns,
            sheet=self.sheet,
            with_target=with_target,
        )
        if self.sheet is None and "sheet" in frame.attrs:
            say(f"sheet {frame.attrs['sheet']!r} is taken (--sheet)", err=True)
        for role, found in frame.attrs["columns"].items():
            if getattr(self, role) is None and found != role:
                say(f"column {found!r} is taken as the {role} (--{role})", err=True)
        materials = crystals_of(frame[frame.attrs["columns"]["formula"]], self.table, self.structures)
        return ReadTable(frame, tuple(columns), self.amounts, materials)


@dataclass(frozen=True, eq=False)
class ReadTable:
    """A table that was read.

    Attributes
    ----------
    frame : DataFrame
        As it stands in the file.
    columns : tuple of str
        Further columns that were asked for.
    amounts : Amounts
        What amounts count.
    materials : Series
        The column of formulas, in which names of files lead to the files.
    """

    frame: pd.DataFrame
    columns: tuple[str, ...]
    amounts: Amounts
    materials: pd.Series

    @property
    def formula(self) -> str:
        """Column of formulas."""
        return str(self.frame.attrs["columns"]["formula"])

    @property
    def y(self) -> Any:
        """Column of the target."""
        return self.frame[self.frame.attrs["columns"]["target"]]

    @property
    def formulas(self) -> Any:
        """Formulas, or the table of them with the further columns."""
        if self.columns:
            return self.frame[[self.formula, *self.columns]].assign(**{self.formula: self.materials})
        if self.amounts is Amounts.atoms:
            return self.materials
        from scotl_matgl.chemistry.compositions import parse_compositions

        return parse_compositions(self.materials, on_error="skip", amounts="weight")


_FILE = "CSV, TSV, Excel, JSON or Parquet table; - is standard input."
_Formula = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of chemical formulas. Default: found by what it holds.")
]
_Target = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column of the measured property or class. Default: found likewise."),
]
_Sheet = Annotated[str | None, typer.Option(metavar="SHEET", help="Sheet of a workbook.")]
_Amounts = Annotated[Amounts, typer.Option(help="What amounts count: atoms, or percent by weight, as in Ti-6Al-4V.")]
_Column = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="Further numeric column, such as a temperature; repeat for more."),
]
_Structures = Annotated[
    Path | None,
    typer.Option(
        metavar="CRYSTALS", help="Folder with a file for each crystal; the column of formulas then holds their names."
    ),
]
_Task = Annotated[Task, typer.Option(help="Kind of target.")]


def _table_and_target(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help=_FILE)],
    formula: _Formula = None,
    target: _Target = None,
    sheet: _Sheet = None,
    amounts: _Amounts = Amounts.atoms,
    task: _Task = Task.auto,
    structures: _Structures = None,
) -> None:
    """Options of commands that learn from a table."""


def _with_polymorphs(
    polymorphs: Annotated[
        Polymorphs, typer.Option(help="Crystals of one formula share a fold, or are split like all others.")
    ] = Polymorphs.together,
) -> None:
    """Option of commands that split the table themselves."""


def _with_columns(column: _Column = None) -> None:
    """Option of commands that take further columns."""


def _formulas_alone(
    table: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Table of formulas instead, with the columns of the fit.")
    ] = None,
    formula: _Formula = None,
    sheet: _Sheet = None,
    amounts: _Amounts = Amounts.atoms,
    structures: _Structures = None,
) -> None:
    """Options of commands that predict for a table."""


def _adds(*options: Callable[..., None]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that puts the options of functions in the place of the parameter `given` of a command."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        shared = {
            name: parameter
            for function in options
            for name, parameter in inspect.signature(function, eval_str=True).parameters.items()
        }
        own = inspect.signature(command, eval_str=True).parameters

        @functools.wraps(command)
        def run(**values: Any) -> None:
            command(
                **{name: values[name] for name in own if name != "given"},
                given=GivenTable(**{name: values[name] for name in shared}),
            )

        parameters: list[inspect.Parameter] = []
        for name, parameter in own.items():
            parameters += shared.values() if name == "given" else [parameter]
        ordered = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in ordered}
        return run

    return decorate


#: Gives a command the options of a table with a target, as one parameter `given`.
takes_table = _adds(_table_and_target)
#: The same with ``--column``.
takes_columns = _adds(_table_and_target, _with_columns, _with_polymorphs)
#: The same without ``--column``, for studies that split the table.
takes_split_table = _adds(_table_and_target, _with_polymorphs)
#: The same without a target, and the table itself an option.
takes_formulas = _adds(_formulas_alone)
