"""Cross-validated error of a random forest on each of a stream of embeddings."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold

from scotl_matgl_shotgun.errors import LibraryError
from scotl_matgl_shotgun.records import Record


@dataclass(frozen=True)
class Ranked:
    """A network and what it is worth for a target.

    Attributes
    ----------
    record : Record
    mae : float
        Cross-validated mean absolute error in the target's unit; NaN if it failed.
    reason : str
        Why it failed; empty if it did not.
    """

    record: Record
    mae: float
    reason: str = ""


#: Called with the number of networks done, and the last one's result.
Progress: TypeAlias = Callable[[int, Ranked], None]


def rank_embeddings(
    embedded: Iterable[tuple[Record, NDArray[np.float32]]],
    failures: list[Ranked],
    keys: Sequence[str],
    y: NDArray[np.float64],
    *,
    n_folds: int,
    keep: int | None,
    n_estimators: int,
    random_state: int,
    n_jobs: int | None,
    progress: Progress | None,
) -> list[Ranked]:
    """Rank a stream of embeddings; see :meth:`scotl_matgl_shotgun.Library.rank`.

    Parameters
    ----------
    embedded : iterable of (Record, ndarray)
        One embedding is held at a time.
    failures : list of Ranked
        Grows while `embedded` is iterated, by networks that gave no embedding.
    keys : sequence of str
        Rows of equal key fall into the same fold.
    """
    if y.shape != (len(keys),):
        raise LibraryError(f"y has shape {y.shape}; there are {len(keys)} formulas, and it must have one number each")
    if not np.isfinite(y).all():
        raise LibraryError(f"y is {y[~np.isfinite(y)][0]} in row {np.flatnonzero(~np.isfinite(y))[0]}; leave it out")
    if keep is not None and keep < 1:
        raise LibraryError(f"keep is {keep}; it must be at least 1")
    _, group = np.unique(np.asarray(keys), return_inverse=True)
    n_groups = int(group.max(initial=-1)) + 1
    if not 2 <= n_folds <= n_groups:
        raise LibraryError(f"n_folds is {n_folds}; it must be from 2 to the number of compositions, {n_groups}")
    split = KFold(n_folds, shuffle=True, random_state=random_state).split(np.arange(n_groups))
    tested = [np.isin(group, groups) for _, groups in split]

    best: list[tuple[float, int, Ranked]] = []  # a heap with the worst on top
    reported = 0

    def count(result: Ranked, done: int) -> None:
        if progress is not None:
            progress(done, result)

    scored = 0
    for record, embedding in embedded:
        for failure in failures[reported:]:
            reported += 1
            count(failure, scored + reported)
        if np.isfinite(embedding).all():
            result = Ranked(record, _error(embedding, y, tested, n_estimators, random_state, n_jobs))
            scored += 1
            # The first of two equals is the better one, as a stable sort would have it.
            heapq.heappush(best, (-result.mae, -scored, result))
            if keep is not None and len(best) > keep:
                heapq.heappop(best)
            count(result, scored + reported)
        else:
            row = int(np.flatnonzero(~np.isfinite(embedding).all(axis=1))[0])
            failures.append(Ranked(record, float("nan"), f"its embedding of row {row} is not finite"))
    for failure in failures[reported:]:
        reported += 1
        count(failure, scored + reported)
    return [result for *_, result in sorted(best, reverse=True)] + failures


def _error(
    embedding: NDArray[np.float32],
    y: NDArray[np.float64],
    tested: Sequence[NDArray[np.bool_]],
    n_estimators: int,
    random_state: int,
    n_jobs: int | None,
) -> float:
    """Mean absolute error over all rows, each predicted by a forest that has not seen it."""
    deviation = 0.0
    for test in tested:
        forest = RandomForestRegressor(n_estimators, random_state=random_state, n_jobs=n_jobs)
        forest.fit(embedding[~test], y[~test])
        deviation += float(np.abs(forest.predict(embedding[test]) - y[test]).sum())
    return deviation / len(y)
