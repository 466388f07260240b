"""The target of a table: measured numbers or class labels, and how the two are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scotl_matgl.chemistry.elements import NUMBER_OF
from scotl_matgl.exceptions import InputError
from scotl_matgl.tables.cells import Unreadable, are_names, read_numbers
from scotl_matgl.tables.strange_cells import MISSING_LABELS
from scotl_matgl.vocabulary import Floats

Task = Literal["auto", "regression", "classification"]


# Whole numbers with at most this many distinct values are taken as class labels by task="auto".
MAX_CLASSES = 20


def is_classification(y: ArrayLike, task: Task) -> bool:
    """Tell whether a target holds class labels.

    Parameters
    ----------
    y : array-like of shape (n,)
        Target.
    task : "auto", "regression" or "classification"
        "auto" takes text, booleans and categories as labels, whole numbers of an integer type with at most 20 distinct
        values too, and everything else as a measured property.

    Returns
    -------
    bool
    """
    if task not in ("auto", "regression", "classification"):
        raise ValueError(f"task is {task!r}: it must be 'auto', 'regression' or 'classification'.")
    if task != "auto":
        return task == "classification"
    values = np.asarray(y)
    if values.dtype.kind == "f":
        return False
    if values.dtype.kind in "iu":
        return np.unique(values).size <= MAX_CLASSES
    if values.dtype.kind == "O":
        return not all(
            isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in values.flat
        )
    return True


_MARKS = tuple(float(10**k - 1) for k in range(2, 8))  # 99, 999, ...: numbers by which files mark missing values


@dataclass(frozen=True, eq=False)
class Target:
    """A target that was read.

    Attributes
    ----------
    values : ndarray of shape (n,)
        Numbers or labels.
    usable : ndarray of bool, shape (n,)
        Which of them can be used.
    classification : bool
        Whether they are class labels.
    reasons : sequence of str
        Why a value cannot be used, as the end of a sentence.
    remarks : tuple of str
        How the column was understood, a sentence each.
    """

    values: NDArray[Any]
    usable: NDArray[np.bool_]
    classification: bool
    reasons: Sequence[str]
    remarks: tuple[str, ...] = ()


def read_target(values: NDArray[Any], task: Task) -> Target:
    """Read the column of a target.

    Parameters
    ----------
    values : ndarray of shape (n,)
        As given.
    task : {"auto", "regression", "classification"}
        Kind of target. ``"auto"`` looks at the values: booleans and text are class labels, and whole numbers that count
        up from -1, 0 or 1 without a gap, at most 20 of them and each twice on average; of a column of floats only two
        such numbers. Where most cells are numbers, also with a unit or an uncertainty, the column is a measured
        property, and the other cells are missing measurements.

    Raises
    ------
    InputError
        If the values are of no kind that can be learned.
    """
    if values.dtype.kind in "cmM":
        raise InputError(f"the target holds values of type {values.dtype}; give real numbers or class labels")
    if task not in ("auto", "regression", "classification"):
        raise ValueError(f"task is {task!r}: it must be 'auto', 'regression' or 'classification'.")
    remarks: tuple[str, ...] = ()
    reasons: Sequence[str] = ["is no finite number"] * len(values)
    numbers = values
    if values.dtype.kind in "OUS" and task != "classification":
        cells = _cells(values, booleans=task == "regression")
        column = read_numbers(cells)
        if task == "regression" or (2 * column.n_numbers > column.n_filled and not are_names(cells.tolist())):
            numbers, reasons, remarks = column.values, column.reasons, column.remarks
            dressed = 2 * column.n_dressed > column.n_numbers
            whole = not dressed and _are_labels(numbers[np.isfinite(numbers)], floats=_has_floats(cells))
        else:
            whole = True
    else:
        whole = values.dtype.kind in "bOUS" or _are_labels(values[np.isfinite(values)], floats=values.dtype.kind == "f")
    classification = whole if task == "auto" else task == "classification"
    if not classification:
        numbers = numbers.astype(np.float64)
        usable = np.isfinite(numbers)
        told = (*_marks_of_missing(numbers[usable]), *_told(numbers[usable], task, classification=False))
        return Target(numbers, usable, False, reasons, (*remarks, *told))
    labels, usable = _labels(values if numbers.dtype.kind != "f" else numbers)
    marks = _missing_labels(labels[usable])
    reasons = [
        cell.reason
        if isinstance(cell, Unreadable)
        else f"is {cell!r}, which marks a missing label: name the class, or empty the cell"
        if isinstance(cell, str) and cell in marks
        else "is no class label"
        for cell in labels.tolist()
    ]
    usable &= ~np.array([isinstance(cell, str) and cell in marks for cell in labels.tolist()], dtype=bool)
    told = (*_spellings(labels[usable]), *_told(labels[usable], task, classification=True))
    return Target(labels, usable, True, reasons, (*remarks, *told))


def _cells(values: NDArray[Any], *, booleans: bool) -> NDArray[np.object_]:
    """Cells as objects, missing ones as None; booleans as numbers, if that is wanted."""
    import pandas as pd

    cells = values.astype(object)
    cells[np.asarray(pd.isna(cells), dtype=bool)] = None
    if booleans:
        cells[:] = [float(cell) if isinstance(cell, bool | np.bool_) else cell for cell in cells]
    return cells


def _has_floats(cells: NDArray[np.object_]) -> bool:
    """Whether some number is a float, or is written as one."""
    return any(isinstance(cell, float | np.floating) or (isinstance(cell, str) and "." in cell) for cell in cells)


def _are_labels(numbers: NDArray[Any], *, floats: bool) -> bool:
    """Whether numbers look like codes of classes: they count up from -1, 0 or 1, and repeat."""
    found = np.unique(numbers)
    most = 2 if floats else MAX_CLASSES
    if not 2 <= len(found) <= most or 2 * len(found) > len(numbers):
        return False
    if set(found.tolist()) == {-1, 1}:
        return True
    return bool(found[0] in (-1, 0, 1) and np.array_equal(found, found[0] + np.arange(len(found))))


def _labels(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Labels, whole ones as integers, and which of them there are."""
    import pandas as pd

    usable = ~np.asarray(pd.isna(values), dtype=bool)
    if values.dtype.kind in "OUS":
        usable &= np.array(
            [not isinstance(value, Unreadable) and bool(str(value).strip()) for value in values], dtype=bool
        )
    if values.dtype.kind == "f":
        usable &= np.isfinite(values)
        if np.array_equal(values[usable], np.rint(values[usable])) and np.abs(values[usable]).max(initial=0) < 2**53:
            values = np.where(usable, values, 0).astype(np.int64)
    return values, usable


def _missing_labels(labels: NDArray[Any]) -> set[str]:
    """Labels that stand for a missing one, if at least two classes are left."""
    given = {label for label in labels.tolist() if isinstance(label, str)}
    # Na and Nd may be labels: dopants, cations.
    marks = {label for label in given if label.strip().casefold() in MISSING_LABELS and label.strip() not in NUMBER_OF}
    if any(label.strip() == "+" for label in given):
        marks = {label for label in marks if label.strip() not in ("-", "–", "—", "−")}
    return marks if len(set(labels.tolist()) - marks) > 1 else set()


def _marks_of_missing(numbers: Floats) -> tuple[str, ...]:
    """What to say of values such as -999 and 9999, far from all others, by which files mark missing measurements."""
    marked = np.isin(np.abs(numbers), _MARKS)
    if not marked.any() or marked.all():
        return ()
    most = np.abs(numbers[~marked]).max()
    far = marked & ((np.abs(numbers) > 10 * most) | ((numbers < 0) & bool(np.all(numbers[~marked] >= 0))))
    if not far.any():
        return ()
    count, verb = ("1 value", "is") if far.sum() == 1 else (f"{int(far.sum())} values", "are")
    found = ", ".join(f"{value:.0f}" for value in np.unique(numbers[far]).tolist())
    return (
        f"{count} of the target {verb} {found}, far from all others, and were read as measured: if that "
        "marks a missing value, empty the cells.",
    )


def _spellings(labels: NDArray[Any]) -> tuple[str, ...]:
    """What to say of classes whose names differ in capitals or blanks only."""
    spelled: dict[str, set[str]] = {}
    for label in set(labels.tolist()):
        if isinstance(label, str):
            spelled.setdefault(" ".join(label.split()).casefold(), set()).add(label)
    twice = sorted(min(names) for names in spelled.values() if len(names) > 1)
    if not twice:
        return ()
    names = sorted(next(names for names in spelled.values() if twice[0] in names))
    return (
        f"Classes differ in capitals or blanks only and were kept apart, such as {', '.join(map(repr, names))}: write "
        "them alike if they are one.",
    )


def _told(values: NDArray[Any], task: Task, *, classification: bool) -> tuple[str, ...]:
    """Which task was taken, and how to force the other."""
    if task != "auto" or not len(values):
        return ()
    n = len(set(values.tolist()))
    if classification:
        return (f"The target was taken as {n} classes (classification); task='regression' (--task) takes numbers.",)
    return (
        f"The target was taken as a measured property (regression, {n} different values); "
        "task='classification' (--task) takes class labels.",
    )


def group_mode(codes: NDArray[np.intp], group: NDArray[np.intp]) -> NDArray[np.intp]:
    """Most frequent code of each group, the smallest where several are."""
    counts = np.zeros((int(group.max()) + 1, int(codes.max()) + 1), dtype=np.int64)
    np.add.at(counts, (group, codes), 1)
    return np.asarray(counts.argmax(axis=1), dtype=np.intp)


def group_median(values: Floats, code: NDArray[np.intp]) -> Floats:
    """Median of the values of each group."""
    order = np.lexsort((values, code))
    starts = np.searchsorted(code[order], np.arange(code.max() + 1))
    counts = np.diff(np.append(starts, len(code)))
    low, high = starts + (counts - 1) // 2, starts + counts // 2
    median: Floats = (values[order][low] + values[order][high]) / 2
    return median
