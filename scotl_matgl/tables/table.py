"""The user's table: formulas and one measured property, read, checked, and with one row a composition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scotl_matgl.chemistry.compositions import Compositions, parse_compositions
from scotl_matgl.chemistry.formulas import CompositionError, SkippedRow
from scotl_matgl.exceptions import InputError
from scotl_matgl.tables.folds import sample_rows
from scotl_matgl.tables.target import is_classification

Floats = NDArray[np.float64]

#: Fewest compositions that can be learned from: below, five folds leave next to nothing.
MIN_ROWS = 10


@dataclass(frozen=True, eq=False)
class Table:
    """A table of formulas and one measured property, with one row a composition.

    Attributes
    ----------
    compositions : Compositions
        n different compositions, in the order in which they first appear.
    y : ndarray of shape (n,)
        Property as float64, or codes of the class labels in the order of their names. Rows of equal composition are
        merged: the median of the property, the most frequent label.
    classification : bool
        Whether `y` holds class labels.
    skipped : tuple of SkippedRow
        Rows that could not be used, and why.
    n_merged : int
        Rows merged into others.
    """

    compositions: Compositions
    y: NDArray[Any]
    classification: bool
    skipped: tuple[SkippedRow, ...]
    n_merged: int

    @classmethod
    def read(
        cls,
        formulas: Any,
        y: ArrayLike,
        *,
        task: Literal["auto", "regression", "classification"] = "auto",
        strict: bool = False,
    ) -> Self:
        """Read and check formulas and target.

        Parameters
        ----------
        formulas : sequence of length m
            Formulas: all that :func:`~scotl_matgl.parse_compositions` reads.
        y : array-like of shape (m,)
            Measured property, or class labels.
        task : {"auto", "regression", "classification"}, default="auto"
            Kind of target. ``"auto"``: text, booleans and at most 20 different whole numbers are class labels; where
            most values are numbers, text among them is a missing measurement.
        strict : bool, default=False
            Whether the first row that cannot be used is an error; otherwise such rows are left out and listed.

        Raises
        ------
        CompositionError
            If `strict`, for the first bad row.
        InputError
            If the lengths differ, fewer than 10 different compositions remain, or the target is constant or of no kind
            that can be learned.

        Examples
        --------
        >>> formulas = ["NaCl", "ClNa", *(f"Fe{i}O" for i in range(1, 10)), "FE2O3"]
        >>> table = Table.read(formulas, [1.0, 3.0, *range(9), 5.0])
        >>> len(table.compositions), float(table.y[0]), table.n_merged, len(table.skipped)
        (10, 2.0, 1, 1)
        """
        compositions = parse_compositions(formulas, on_error="raise" if strict else "skip")
        # A list of mixed values must not become an array of text, nor a column of integers with a gap one of floats.
        plain = isinstance(getattr(y, "dtype", None), np.dtype)
        given = np.asarray(y) if plain else np.asarray(y, dtype=object)
        if given.ndim != 1 or len(given) != compositions.n_input:
            raise InputError(
                f"there are {compositions.n_input} formulas and the target has shape {given.shape}; "
                "give one value for each formula"
            )
        given = given[compositions.rows]
        target, usable, classification = _read_target(given, task)
        labels = formulas.index if hasattr(formulas, "iloc") else range(compositions.n_input)
        want = "no class label" if classification else "no finite number"
        bad = tuple(
            SkippedRow(
                row=int(compositions.rows[index]),
                label=labels[compositions.rows[index]],
                value=repr(given[index : index + 1].tolist()[0]),
                reason=f"the target of {compositions.text[index]} is {want}; measure it or leave it out",
            )
            for index in np.flatnonzero(~usable)
        )
        if strict and bad:
            raise CompositionError(f"row {bad[0].row} ({bad[0].value}): {bad[0].reason}", bad)
        skipped = tuple(sorted((*compositions.skipped, *bad), key=lambda row: row.row))
        compositions, target = compositions.take(usable), target[usable]
        _, first, code = np.unique(np.array(compositions.keys()), return_index=True, return_inverse=True)
        if len(first) < MIN_ROWS:
            seen = f"; row {skipped[0].row} ({skipped[0].value}) was skipped: {skipped[0].reason}" if skipped else ""
            raise InputError(
                f"only {len(first)} different compositions can be used of {compositions.n_input} rows; at least "
                f"{MIN_ROWS} are needed{seen}"
            )
        if classification:
            classes, codes = np.unique(target.astype(str) if target.dtype.kind == "O" else target, return_inverse=True)
            merged = np.array([np.bincount(codes[code == index]).argmax() for index in range(len(first))])
            n_classes = len(np.unique(merged))
            if n_classes < 2:
                raise InputError(f"every row has the class {str(classes[merged[0]])!r}; there is nothing to learn")
            if 2 * n_classes > len(merged):
                raise InputError(
                    f"the target has {n_classes} different values in {len(merged)} rows, such as "
                    f"{str(classes[0])!r}, which are too many for class labels; give numbers, or coarser classes"
                )
        else:
            values = target.astype(np.float64)
            merged = _group_median(values, code)
            if np.ptp(merged) == 0:
                raise InputError(f"the target is {merged[0]:g} in every row; there is nothing to learn")
        order = np.argsort(first)
        return cls(compositions.take(first[order]), merged[order], classification, skipped, len(code) - len(first))

    def sample(self, max_rows: int, random_state: int) -> NDArray[np.intp]:
        """Sorted numbers of all rows, or of `max_rows` drawn at random where there are more."""
        return sample_rows(len(self.compositions), max_rows, random_state)


def _read_target(values: NDArray[Any], task: str) -> tuple[NDArray[Any], NDArray[np.bool_], bool]:
    """Numbers or labels (n,), which of them can be used (n,), and whether they are class labels."""
    import pandas as pd

    if values.dtype.kind in "cmM":
        raise InputError(f"the target holds values of type {values.dtype}; give real numbers or class labels")
    usable: NDArray[np.bool_] = ~np.asarray(pd.isna(values), dtype=bool)
    if values.dtype.kind in "OUS":
        usable &= np.array([not (isinstance(value, str) and not value.strip()) for value in values], dtype=bool)
        numbers = np.array([_number(value, parse=task == "regression") for value in values], dtype=np.float64)
        counted = usable & ~np.isnan(numbers)
        if task == "regression" or (task == "auto" and 2 * counted.sum() > usable.sum()):
            whole = all(isinstance(value, int | np.integer) for value in values[counted])
            usable, values = counted, np.where(counted, numbers, 0.0)
            values = values.astype(np.int64) if whole and np.abs(values).max(initial=0.0) < 2**53 else values
    classification = is_classification(values[usable], task)  # type: ignore[arg-type]
    if not classification:
        values = values.astype(np.float64)
    if values.dtype.kind == "f":
        usable &= np.isfinite(values)
    return values, usable, classification


def _number(value: Any, *, parse: bool) -> float:
    """A number as float, and with `parse` text that reads as one; NaN for all else."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return float(value)
    try:
        return float(value) if parse and isinstance(value, str) else float("nan")
    except ValueError:
        return float("nan")


def _group_median(values: Floats, code: NDArray[np.intp]) -> Floats:
    order = np.lexsort((values, code))
    starts = np.searchsorted(code[order], np.arange(code.max() + 1))
    counts = np.diff(np.append(starts, len(code)))
    low, high = starts + (counts - 1) // 2, starts + counts // 2
    median: Floats = (values[order][low] + values[order][high]) / 2
    return median
