"""The target of a table: measured numbers or class labels, and how the two are told apart."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

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
