"""City-block distances between rows, with less work in columns that hold one value almost everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from scotl_matgl.vocabulary import Floats

# Share of the rows that hold the smallest value of a column, from which on the column counts as sparse; and the number
# of such columns from which on they are worth a way of their own.
_SPARSE, _ENOUGH = 0.8, 16


def cityblock(X: NDArray[np.floating[Any]], Y: NDArray[np.floating[Any]]) -> Floats:
    """Distances (m, n) of rows X (m, p) to rows Y (n, p): sums of absolute differences.

    Shares of elements are zero in most rows, and make up a third of the descriptors. Of a column whose smallest value
    is μ in most rows of Y, with u = x − μ and v = y − μ, |x − y| = |u| + v − 2 min(u, v) where u and v are positive,
    and |u| + v elsewhere: only columns in which a row of X differs from μ cost something.

    Notes
    -----
    As :func:`scipy.spatial.distance.cdist` up to rounding. A row has the same distances alone and among others.

    Examples
    --------
    >>> cityblock(np.array([[0.0, 1.0]]), np.array([[0.0, 0.0], [2.0, 1.0]]))
    array([[1., 2.]])
    """
    least = Y.min(axis=0)
    sparse = np.equal(Y, least).mean(axis=0) > _SPARSE
    if sparse.sum() < _ENOUGH:
        return _dense(X, Y)
    # In the order of rows, so that numpy adds up one row as it does many.
    u = np.ascontiguousarray(X[:, sparse] - least[sparse], dtype=np.float64)
    v = np.ascontiguousarray((Y[:, sparse] - least[sparse]).T, dtype=np.float64)
    distances: Floats = np.add.outer(np.abs(u).sum(axis=1), v.sum(axis=0))
    for row, values in zip(distances, u, strict=True):
        columns = np.flatnonzero(values > 0)
        if len(columns):
            row -= 2 * np.minimum(values[columns, None], v[columns]).sum(axis=0)
    np.maximum(distances, 0.0, out=distances)
    if not sparse.all():
        distances += _dense(X[:, ~sparse], Y[:, ~sparse])
    return distances


def _dense(X: NDArray[np.floating[Any]], Y: NDArray[np.floating[Any]]) -> Floats:
    # Of arrays in another order, which is what choosing columns makes, scipy takes twice as long.
    found: Floats = cdist(np.ascontiguousarray(X), np.ascontiguousarray(Y), "cityblock")
    return found
