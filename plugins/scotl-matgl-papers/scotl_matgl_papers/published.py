"""The two tables that SCOTL's published scores belong to, with their published folds; read from the project's data."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scotl_matgl_papers.weights import ASSETS_VARIABLE


@dataclass(frozen=True, eq=False)
class PublishedTable:
    """A table of formulas and one measured property.

    Attributes
    ----------
    formulas : tuple of str
        As published: formulas may repeat.
    y : ndarray of float64, shape (n,)
    folds : list of (train, test) row numbers
        The published five.
    """

    formulas: tuple[str, ...]
    y: NDArray[np.float64]
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]]


def read_table(name: Literal["efe", "steels"], folder: str | Path | None = None) -> PublishedTable:
    """Read a table.

    Parameters
    ----------
    name : {"efe", "steels"}
        Experimental formation enthalpies (eV/atom, 1,196 rows; needs openpyxl), or yield strengths of steels (MPa, 312
        rows).
    folder : path-like, optional
        Folder with ``scotl_efe.xlsx``, ``scotl_steels_yield.csv`` and ``scotl_splits_*.json``; by default
        ``$SCOTL_MATGL_ASSETS/reference``.
    """
    import pandas as pd

    if folder is None:
        if not os.environ.get(ASSETS_VARIABLE):
            raise FileNotFoundError(
                f"SCOTL's tables are not part of this package: set {ASSETS_VARIABLE} to the folder with reference/"
            )
        folder = Path(os.environ[ASSETS_VARIABLE]).expanduser() / "reference"
    folder = Path(folder)
    if name == "efe":
        # The fourth column is the experimental value; the two before it are calculated ones.
        frame = pd.read_excel(folder / "scotl_efe.xlsx", usecols=[0, 3], keep_default_na=False)
    else:
        # pandas would read some formulas as missing values.
        frame = pd.read_csv(folder / "scotl_steels_yield.csv", keep_default_na=False)
    splits = json.loads((folder / f"scotl_splits_{name}.json").read_text(encoding="utf-8"))
    frame = frame.iloc[splits["rows_in_source_file"]]
    rows = np.arange(len(frame))
    tests = [np.asarray(test, dtype=np.int64) for test in splits["test_folds_seed0"]]
    return PublishedTable(
        tuple(frame.iloc[:, 0].astype(str)),
        frame.iloc[:, 1].to_numpy(dtype=np.float64),
        [(np.setdiff1d(rows, test), test) for test in tests],
    )
