"""Tables: the bundled example, and reading a user's own without losing a formula or a row."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_READERS = {".csv": ",", ".tsv": "\t", ".txt": None}

EXAMPLE_UNIT = "eV/atom"


class TableError(ValueError):
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
        ``.csv``, ``.tsv``, ``.txt`` (separator found by itself), ``.xlsx`` or ``.json``, each text form also with
        ``.gz``.
    formula, target : str
        Columns. The target becomes a number where all its values are numbers, empty ones becoming NaN.

    Raises
    ------
    TableError
        If the file is missing, cannot be read, or lacks a column.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise TableError(f"there is no file {path}; give the path of a CSV, TSV, Excel or JSON table")
    ending = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    ending = ending.removesuffix(".gz").lower()
    try:
        # Without keep_default_na=False pandas turns the formula "NaN" (and "NA", "None") into a missing value.
        if ending == ".xlsx":
            frame = pd.read_excel(path, keep_default_na=False, dtype={formula: str})
        elif ending == ".json":
            frame = pd.read_json(path, orient="records", dtype={formula: str}, convert_dates=False)
        elif ending in _READERS:
            separator = _READERS[ending]
            frame = pd.read_csv(
                path,
                sep=separator,
                engine="python" if separator is None else "c",
                keep_default_na=False,
                dtype={formula: str},
            )
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
    if values.dtype == object:
        text = values.map(lambda value: value.strip() if isinstance(value, str) else value)
        numbers = pd.to_numeric(text.replace("", np.nan), errors="coerce")
        # Mostly numbers: the rest are rows to be skipped and listed, not a sign of class labels.
        if numbers.notna().sum() > 0.5 * len(numbers):
            frame[target] = numbers.astype(float)
    return frame
