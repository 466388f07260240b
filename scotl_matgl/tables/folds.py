"""Folds that follow what a row holds and not where it stands: permuting a table changes none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Folds = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]


def key_hashes(keys: Sequence[str], random_state: int) -> NDArray[np.uint64]:
    """Number (n,) for each key, as good as random: the first eight bytes of the sha256 of seed and key."""
    digests = b"".join(hashlib.sha256(f"{random_state}:{key}".encode()).digest()[:8] for key in keys)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def make_folds(
    y: NDArray[Any],
    *,
    classification: bool,
    n_folds: int = 5,
    random_state: int = 0,
    keys: Sequence[str] | None = None,
) -> Folds:
    """Deal rows out to folds in the order of the hashes of their keys, class by class for class labels.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Target.
    classification : bool
        Whether it holds class labels, of which each fold then has an equal number, up to one.
    n_folds : int, default=5
        Fewer are made where the rows are too few.
    random_state : int, default=0
        Seed.
    keys : sequence of str, optional
        What a row is known by, such as the key of its composition. Default: its position.

    Returns
    -------
    list of (train, test)
        Sorted row numbers. Folds differ in size by one row at most.

    Examples
    --------
    >>> [test.tolist() for _, test in make_folds(np.arange(4.0), classification=False, n_folds=2, keys="abcd")]
    [[2, 3], [0, 1]]
    """
    n = len(y)
    hashes = key_hashes([str(row) for row in range(n)] if keys is None else keys, random_state)
    label = np.unique(y, return_inverse=True)[1] if classification else np.zeros(n, dtype=np.intp)
    n_folds = max(2, min(n_folds, n))
    fold = np.empty(n, dtype=np.intp)
    fold[np.lexsort((np.arange(n), hashes, label))] = np.arange(n) % n_folds
    return [(np.flatnonzero(fold != part), np.flatnonzero(fold == part)) for part in range(n_folds)]
