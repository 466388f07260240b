"""Crystals in a table: cells that hold the text of a CIF, and cells that name files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotl_matgl.exceptions import InputError

if TYPE_CHECKING:
    import pandas as pd

#: By it the text of a CIF is known.
CIF_SIGN = "_cell_length_a"

# A quoted cell with a CIF spans at most so many lines.
_MOST_LINES = 5_000


def rows_of(text: str) -> list[str]:
    r"""Lines of a table; where cells hold CIFs, those that a quoted cell spans are one, with all that is in it.

    Examples
    --------
    >>> rows_of('structure,gap\n"data_x\n# made\n\n_cell_length_a 4",1\n')
    ['structure,gap', '"data_x\n# made\n\n_cell_length_a 4",1']
    """
    lines = text.splitlines()
    return list(_joined(lines)) if CIF_SIGN in text else lines


def _joined(lines: Sequence[str]) -> Iterator[str]:
    position = 0
    while position < len(lines):
        end = position + 1
        if lines[position].count('"') % 2:
            last = min(position + _MOST_LINES, len(lines))
            closing = (at + 1 for at in range(end, last) if lines[at].count('"') % 2)
            end = next(closing, end)
        yield "\n".join(lines[position:end])
        position = end


def crystals_of(column: pd.Series, table: Path | None, structures: Path | None = None) -> pd.Series:
    """Column of formulas in which the names of files of crystals lead to the files, wherever the program runs.

    Parameters
    ----------
    column : Series
        Cells; all but names of files stay as they are.
    table : path or None
        File of the table, beside which files are looked for; None or ``-``: it is none.
    structures : path, optional
        Folder with one file for each crystal. The cells are then identifiers: names of files in it, with or without
        their ending. One that no file has is told when it is read.

    Raises
    ------
    InputError
        If there is no such folder, or no identifier is that of a file in it.
    """
    from scotl_matgl.chemistry.materials import ENDINGS  # slow to import: a wrong column is told without it

    if structures is not None:
        cells = _from_folder(column, structures, ENDINGS)
    elif table is None or str(table) == "-" or not any(_is_name(cell, ENDINGS) for cell in column):
        return column
    else:
        cells = [_beside(cell, table.parent, ENDINGS) for cell in column]
    found = column.astype(object).copy()
    found[:] = cells
    return found


def _is_name(cell: Any, endings: tuple[str, ...]) -> bool:
    return isinstance(cell, str) and "\n" not in cell and cell.lower().endswith(endings)


def _beside(cell: Any, folder: Path, endings: tuple[str, ...]) -> Any:
    return str(folder / cell) if _is_name(cell, endings) and (folder / cell).is_file() else cell


def _from_folder(column: pd.Series, folder: Path, endings: tuple[str, ...]) -> list[str]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the one with the files of the crystals (--structures)")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.lower().endswith(endings):
            files |= {path.name: path, _stem(path.name, endings): path}
    names = [str(cell).strip() for cell in column]
    if not files.keys() & set(names):
        example = names[0] if names else ""
        raise InputError(
            f"no file in {folder} is called as a cell of the column {column.name!r}, such as {example!r} "
            f"(with or without an ending such as .cif); name the column of identifiers (--formula)"
        )
    # An identifier without a file must not be read as a formula.
    return [str(files.get(name, folder / f"{name}.cif")) for name in names]


def _stem(name: str, endings: tuple[str, ...]) -> str:
    """Name of a file of a crystal without its endings, also ``.cif.gz``."""
    while name.lower().endswith(endings):
        name = name.rpartition(".")[0]
    return name
