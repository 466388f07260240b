"""City-block distances with sparse columns, against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from scotl_matgl.learners.distances import cityblock


@pytest.mark.parametrize("dense", [0, 5])
def test_distances_with_sparse_columns_are_those_of_scipy(dense):
    rng = np.random.default_rng(0)

    def rows(n):
        # Elsewhere than in most rows: above, and for new rows below, what these hold.
        shares = np.where(rng.random((n, 40)) < 0.1, rng.normal(size=(n, 40)) + 1.0, -0.3)
        return np.hstack([shares, rng.normal(size=(n, dense))])

    Y, X = np.maximum(rows(200), -0.3), rows(50)
    X[0] = Y[3]
    found = cityblock(X, Y)
    np.testing.assert_allclose(found, cdist(X, Y, "cityblock"), rtol=1e-12, atol=1e-12)
    assert (found >= 0).all()
    assert found[0, 3] < 1e-12


def test_a_row_has_the_same_distances_alone_and_among_others():
    rng = np.random.default_rng(1)
    Y = np.where(rng.random((300, 60)) < 0.1, rng.random((300, 60)), 0.0)
    X = np.where(rng.random((40, 60)) < 0.1, rng.random((40, 60)), 0.0)
    together = cityblock(X, Y)
    for row, distances in zip(X, together, strict=True):
        assert np.array_equal(cityblock(row[None], Y)[0], distances)
