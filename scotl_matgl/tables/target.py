"""The target of a table: measured numbers or class labels, and how the two are told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scotl_matgl.exceptions import InputError
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
    """

    values: NDArray[Any]
    usable: NDArray[np.bool_]
    classification: bool


def read_target(values: NDArray[Any], task: Task) -> Target:
    """Read the column of a target.

    Parameters
    ----------
    values : ndarray of shape (n,)
        As given.
    task : {"auto", "regression", "classification"}
        Kind of target. ``"auto"``: text, booleans and at most 20 different whole numbers are class labels; where
        most values are numbers, text among them is a missing measurement.

    Raises
    ------
    InputError
        If the values are of no kind that can be learned.
    """
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
    classification = is_classification(values[usable], task)
    if not classification:
        values = values.astype(np.float64)
    if values.dtype.kind == "f":
        usable &= np.isfinite(values)
    return Target(values, usable, classification)


def _number(value: Any, *, parse: bool) -> float:
    """A number as float, and with `parse` text that reads as one; NaN for all else."""
    if isinstance(value, int | float | np.number) and (parse or not isinstance(value, bool)):
        return float(value)
    try:
        return float(value) if parse and isinstance(value, str) else float("nan")
    except ValueError:
        return float("nan")


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
