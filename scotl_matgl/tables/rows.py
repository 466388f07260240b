"""Rows as scikit-learn hands them over: formulas or crystals, also beside numeric columns, or numbers alone."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

from scotl_matgl.chemistry.compositions import Compositions, column_of, parse_compositions
from scotl_matgl.chemistry.crystals import StructureError, as_crystal
from scotl_matgl.chemistry.formulas import SkippedRow, shown
from scotl_matgl.exceptions import InputError
from scotl_matgl.tables.folds import Folds, make_folds
from scotl_matgl.vocabulary import Floats


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that could be read.

    Attributes
    ----------
    compositions : Compositions or None
        n formulas; None for numbers alone.
    numbers : ndarray of shape (n, q)
        The numeric columns beside the formulas, or all columns.
    names : tuple of str
        Names of these columns.
    kept : ndarray of shape (n,)
        Position of each row in the input.
    labels : sequence of hashable
        Label of each row of the input.
    skipped : tuple of SkippedRow
        The other rows of the input, and why.
    crystals : ndarray of shape (n,), object
        The crystals whose formulas these are, if they were asked for; else of shape (0,).
    """

    compositions: Compositions | None
    numbers: Floats
    names: tuple[str, ...]
    kept: NDArray[np.intp]
    labels: list[Hashable]
    skipped: tuple[SkippedRow, ...]
    crystals: NDArray[np.object_] = field(default_factory=lambda: np.empty(0, dtype=object))

    @property
    def n_input(self) -> int:
        """Number of rows of the input."""
        return len(self.labels)

    def __len__(self) -> int:
        return len(self.kept)

    def without(self, bad: NDArray[np.bool_], value: NDArray[Any], reason: str) -> Self:
        """Leave out rows, for the `reason`; `value` (n,) is what is wrong with each."""
        if not bad.any():
            return self
        more = tuple(
            SkippedRow(int(self.kept[i]), self.labels[self.kept[i]], repr(value[i : i + 1].tolist()[0]), reason)
            for i in np.flatnonzero(bad)
        )
        skipped = tuple(sorted((*self.skipped, *more), key=lambda row: row.row))
        return self._take(np.flatnonzero(~bad), skipped)

    def refuse_skipped(self) -> None:
        """Raise for the first row that was left out, if there is one."""
        if self.skipped:
            first = self.skipped[0]
            raise InputError(f"row {first.row} ({first.value}): {first.reason}")

    def take(self, index: NDArray[np.intp]) -> Self:
        """Rows by position."""
        return self._take(index, self.skipped)

    def _take(self, index: NDArray[np.intp], skipped: tuple[SkippedRow, ...]) -> Self:
        compositions = None if self.compositions is None else self.compositions.take(index)
        crystals = self.crystals[index] if len(self.crystals) else self.crystals
        return type(self)(
            compositions, self.numbers[index], self.names, self.kept[index], self.labels, skipped, crystals
        )

    def folds(self, y: NDArray[Any], *, classification: bool, random_state: int) -> Folds:
        """Shuffled folds in which all rows of one composition are on the same side."""
        if self.compositions is None:
            return make_folds(y, classification=classification, random_state=random_state)
        _, first, group = np.unique(np.array(self.compositions.keys()), return_index=True, return_inverse=True)
        if len(first) < 2 and len(self.crystals):  # polymorphs of one formula are different crystals
            return make_folds(y, classification=classification, random_state=random_state)
        if len(first) < 2:
            raise InputError(
                f"all {len(y)} rows have the composition {self.compositions.text[0]}: there is none to test on"
            )
        # In the order of the rows, so that a table without repeats has the folds of a ranking.
        order = np.argsort(first)
        number = np.argsort(order)[group]
        parts = make_folds(y[first[order]], classification=classification, random_state=random_state)
        return [
            (np.flatnonzero(np.isin(number, train)), np.flatnonzero(np.isin(number, test))) for train, test in parts
        ]


def read_rows(
    estimator: Any,
    X: Any,
    *,
    formula: Hashable | None,
    strict: bool,
    reset: bool,
    numbers_alone: bool | None = None,
    crystals: bool = False,
) -> Rows:
    """Read the X of an estimator.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set or checked for tables of several columns.
    X : Compositions, sequence of formulas, table of one column, table with a column of formulas, or numbers
        Two-dimensional data of a numeric type, or of several columns without `formula`, count as numbers alone.
    formula : hashable, optional
        Column that holds the formulas; the others must be numbers.
    strict : bool
        Whether the first row that cannot be read is an error.
    reset : bool
        Whether the estimator is being fitted.
    numbers_alone : bool, optional
        Whether X must be numbers alone, or must not, as in ``fit``. Default: see :func:`is_numeric`.
    crystals : bool, default=False
        Whether there must be crystals in the place of formulas.

    Raises
    ------
    InputError
        If there is no column `formula`, or if `crystals` and `strict`, for the first that is none.
    CompositionError
        If `strict`, for the first bad formula.
    """
    if formula is not None:
        return _read_table(estimator, X, formula, strict=strict, reset=reset, crystals=crystals)
    numeric = is_numeric(X)
    if numeric and numbers_alone is False:
        raise InputError("X holds numbers or several columns, but the model was fitted on one column of formulas")
    if numeric or numbers_alone:
        numbers = validate_data(estimator, X, dtype=np.float64, reset=reset)
        names = getattr(estimator, "feature_names_in_", [f"x{i}" for i in range(numbers.shape[1])])
        n = len(numbers)
        return Rows(None, numbers, tuple(str(name) for name in names), np.arange(n), list(range(n)), ())
    return _read_column(X, strict=strict, crystals=crystals)


def _read_column(X: Any, *, strict: bool, crystals: bool) -> Rows:
    """Read a column of formulas, or of crystals."""
    if not crystals:
        compositions = parse_compositions(X, on_error="raise" if strict else "skip")
        labels = list(X.index) if hasattr(X, "iloc") else list(range(compositions.n_input))
        n = len(compositions)
        return Rows(compositions, np.empty((n, 0)), (), compositions.rows.astype(np.intp), labels, compositions.skipped)
    values, index = column_of(X)
    labels = list(range(len(values))) if index is None else index
    kept, skipped, found = [], [], []
    for row, value in enumerate(values):
        try:
            found.append(as_crystal(value))
            kept.append(row)
        except StructureError as error:
            skipped.append(SkippedRow(row, labels[row], shown(value), str(error)))
    column = np.empty(len(found), dtype=object)
    column[:] = found
    rows = Rows(
        parse_compositions(found),
        np.empty((len(found), 0)),
        (),
        np.array(kept, dtype=np.intp),
        labels,
        tuple(skipped),
        column,
    )
    if strict:
        rows.refuse_skipped()
    return rows


def is_numeric(X: Any) -> bool:
    """Whether X is a table of numbers instead of a column of formulas."""
    if hasattr(X, "toarray"):
        return True  # sparse: refused with scikit-learn's own words
    if not hasattr(X, "shape") and hasattr(X, "__array__"):
        X = np.asarray(X)
    shape = getattr(X, "shape", None)
    if shape is None:
        return isinstance(X, list | tuple) and len(X) > 0 and isinstance(X[0], list | tuple | np.ndarray)
    if len(shape) != 2:
        return False
    if shape[1] != 1:
        return True
    kinds = [dtype.kind for dtype in X.dtypes] if hasattr(X, "dtypes") else [np.asarray(X).dtype.kind]
    return all(kind in "biufc" for kind in kinds)


def _read_table(estimator: Any, X: Any, formula: Hashable, *, strict: bool, reset: bool, crystals: bool) -> Rows:
    import pandas as pd

    frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X)
    if formula not in frame.columns:
        columns = ", ".join(map(str, frame.columns[:10]))
        raise InputError(f"there is no column {formula!r} of formulas; the columns are: {columns}")
    validate_data(estimator, X, skip_check_array=True, reset=reset)
    others = frame.drop(columns=[formula])
    read = _read_column(frame[formula], strict=strict, crystals=crystals)
    given = others.to_numpy(dtype=object)[read.kept]
    numbers = np.column_stack(
        [np.empty((len(given), 0)), *(pd.to_numeric(pd.Series(column), errors="coerce") for column in given.T)]
    ).astype(np.float64)
    rows = replace(read, numbers=numbers, names=tuple(str(name) for name in others.columns))
    for column, name in enumerate(rows.names):
        bad = ~np.isfinite(rows.numbers[:, column])
        values = others.iloc[rows.kept, column].to_numpy(dtype=object)
        rows = rows.without(bad, values, f"the column {name!r} holds no finite number; give one or leave the row out")
    if strict:
        rows.refuse_skipped()
    return rows
