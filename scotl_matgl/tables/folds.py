"""Folds and samples of rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Folds = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]


def sample_rows(n: int, max_rows: int, random_state: int) -> NDArray[np.intp]:
    """Sorted numbers of all n rows, or of `max_rows` drawn at random where there are more."""
    if n <= max_rows:
        return np.arange(n)
    return np.sort(np.random.default_rng(random_state).choice(n, size=max_rows, replace=False))


def make_folds(y: NDArray[Any], *, classification: bool, n_folds: int = 5, random_state: int = 0) -> Folds:
    """Shuffled folds, stratified for classification; fewer than `n_folds` where the rows are too few."""
    from sklearn.model_selection import KFold, StratifiedKFold

    if classification:
        largest = int(np.unique(y, return_counts=True)[1].max())
        if largest >= 2:
            stratified = StratifiedKFold(min(n_folds, largest), shuffle=True, random_state=random_state)
            with warnings.catch_warnings():
                # A class rarer than the folds is in only some of them: no reason for fewer folds for all the others.
                warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
                return list(stratified.split(y, y))
    return list(KFold(max(2, min(n_folds, len(y))), shuffle=True, random_state=random_state).split(y))
