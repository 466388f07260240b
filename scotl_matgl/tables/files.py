"""Tables: the bundled example, and reading a user's own without losing a formula or a row."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotl_matgl.exceptions import InputError

if TYPE_CHECKING:
    import pandas as pd

# Separators tried in a text table, until one gives the columns asked for.
_SEPARATORS = {".csv": (",", ";", "\t"), ".tsv": ("\t",), ".txt": ("\t", ",", ";", r"\s+")}

EXAMPLE_UNIT = "eV/atom"


class TableError(InputError):
    """A table cannot be read, or has not the columns asked for; the message says what it has."""


def load_example() -> pd.DataFrame:
    """Measured formation enthalpies of 1,736 inorganic compounds at 298 K.

    Returns
    -------
    pandas.DataFrame
        Columns ``formula``, ``target`` (eV/atom) and ``uncertainty`` (eV/atom).

    Notes
    -----
    Values and uncertainties as collected in pymatgen (MIT licence, ``pymatgen/analysis/compatibility``) for the energy
    corrections of A. Wang et al., Scientific Reports 2021, 11, 15496, doi:10.1038/s41598-021-94550-5, which names the
    primary sources; kept where the uncertainty is at most 0.05 eV/atom. Written by ``tools/make_example_table.py``.

    Examples
    --------
    >>> load_example().shape
    (1736, 3)
    """
    path = Path(str(resources.files("scotl_matgl") / "data" / "tables" / "formation_enthalpy.csv"))
    return read_table(path, formula="formula", target="target")


def read_table(path: str | Path, *, formula: str, target: str) -> pd.DataFrame:
    """Read a table from CSV, TSV, Excel or JSON (records), keeping formulas as text.

    Parameters
    ----------
    path : path
        ``.csv`` (separated by commas, semicolons or tabs), ``.tsv``, ``.txt`` (by any of these, or spaces), ``.xlsx``
        or ``.json``, each text form also with ``.gz``.
    formula, target : str
        Columns. Where most cells of the target are numbers they become int or float, other text stays as it is, and
        empty cells become None, so that :class:`~scotl_matgl.TransferabilityRanker` can list them. Between
        semicolons a decimal comma is understood.

    Raises
    ------
    TableError
        If the file is missing, cannot be read, or lacks a column.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise TableError(f"there is no file {path}; give the path of a CSV, TSV, Excel or JSON table")
    ending = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix
    ending = ending.lower().removesuffix(".gz")
    comma = False
    try:
        # Without keep_default_na=False pandas turns the formula "NaN" (and "NA", "None") into a missing value.
        if ending == ".xlsx":
            frame = pd.read_excel(path, keep_default_na=False, dtype={formula: str})
        elif ending == ".json":
            frame = pd.read_json(path, orient="records", dtype={formula: str}, convert_dates=False)
        elif ending in _SEPARATORS:
            frame, comma = read_text(path, _SEPARATORS[ending], formula, target)
        else:
            raise TableError(f"{path} ends in {ending!r}; a table must be .csv, .tsv, .txt, .xlsx or .json")
    except TableError:
        raise
    except Exception as error:  # readers raise whatever their libraries do
        raise TableError(f"{path} cannot be read as a table: {error}") from error
    for role, column in (("formula", formula), ("target", target)):
        if column not in frame.columns:
            raise TableError(
                f"{path} has no column {column!r} for the {role}; it has: {', '.join(map(str, frame.columns))}"
            )
    values = frame[target]
    if values.dtype == object and formula != target:
        cells = [_cell(value, comma=comma) for value in values]
        filled = [value for value in cells if value is not None]
        # Mostly numbers: the rest are rows to be skipped and listed, not a sign of class labels.
        if 2 * sum(isinstance(value, int | float) and not isinstance(value, bool) for value in filled) <= len(filled):
            cells = [value.strip() or None if isinstance(value, str) else value for value in values]
        frame[target] = pd.Series(cells, index=frame.index, dtype=object).infer_objects()
    return frame


def read_text(path: Path, separators: tuple[str, ...], formula: str, target: str) -> tuple[pd.DataFrame, bool]:
    """Table with the first separator that gives both columns, else with the first; whether it was a semicolon."""
    import pandas as pd

    options: dict[str, Any] = {"keep_default_na": False, "encoding": "utf-8-sig"}
    chosen = separators[0]
    for separator in separators:
        columns = pd.read_csv(path, sep=separator, nrows=0, **options).columns
        if formula in columns and target in columns:
            chosen = separator
            break
    # index_col=False: a separator at the end of each row would otherwise shift all columns by one.
    frame = pd.read_csv(path, sep=chosen, index_col=False, dtype={formula: str}, **options)
    return frame, chosen == ";"


def _cell(value: Any, *, comma: bool) -> Any:
    """A number where the text of a cell is one, None where it is empty, else the cell as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    for number in (int, float):
        try:
            return number(text.replace(",", ".") if comma else text)
        except ValueError:
            continue
    return text or None
