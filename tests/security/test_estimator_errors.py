"""Scores of odd embeddings and targets: a number, NaN with its warning, or the documented error; nothing else."""

from __future__ import annotations

import datetime as dt
import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from scotl_matgl import registry
from scotl_matgl.estimators.base import TransferabilityEstimator
from scotl_matgl.estimators.spectrum import EmbeddingError, Spectra
from scotl_matgl.exceptions import DegenerateScoreWarning

NAMES = registry.names("estimators")


def embeddings() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for n, d in ((6, 3), (12, 20), (30, 5)):
        Z = rng.normal(size=(n, d))
        yield from (Z * scale for scale in (1e-320, 1e-200, 1e-150, 1e-100, 1e100, 1e150, 1e152, 1e300))
        for rows, columns, factor in ((0, slice(None), 1e150), (slice(None), 0, 1e-150), (slice(None), 0, 1e150)):
            other = Z.copy()
            other[rows, columns] *= factor
            yield other
        single = np.zeros((n, d))
        single[0, 0] = 1e-160
        yield single
        yield np.repeat(Z[:1], n, axis=0) + 1e-15 * Z


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_odd_embeddings_give_a_score_or_a_documented_end(name: str) -> None:
    rng = np.random.default_rng(1)
    for Z in embeddings():
        n = len(Z)
        y = rng.normal(size=n)
        for target in (y, 1e150 * y, 1e-150 * y, 1e-310 * y, np.r_[1e150, y[1:]], np.arange(n) % 3, np.eye(n)[0]):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                try:
                    score = registry.load("estimators", name)().fit(Z, target).score_
                except EmbeddingError:
                    continue
            told = any(issubclass(item.category, DegenerateScoreWarning) for item in said)
            assert math.isfinite(score) or (math.isnan(score) and told)


class _Failing(TransferabilityEstimator):
    def __init__(self, error: type[Exception] | None = None) -> None:
        self.error = error

    def _score(self, spectra: Spectra, y: np.ndarray) -> float:
        if self.error:
            raise self.error("so")
        return math.inf


@pytest.mark.parametrize("error", [np.linalg.LinAlgError, OverflowError, ZeroDivisionError, FloatingPointError])
def test_failed_arithmetic_is_the_documented_error(error: type[Exception]) -> None:
    with pytest.raises(EmbeddingError, match=f"_Failing cannot be computed in float64 .{error.__name__}: so"):
        _Failing(error).fit([[1.0], [2.0]], [1.0, 2.0])
    with pytest.warns(DegenerateScoreWarning, match="too many powers of ten apart"):
        assert math.isnan(_Failing().fit([[1.0], [2.0]], [1.0, 2.0]).score_)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "target",
    [
        np.arange(6).astype("datetime64[D]"),
        np.arange(6).astype("timedelta64[s]"),
        np.arange(6) + 1j,
        np.array([dt.date(2026, 1, day) for day in range(1, 7)], dtype=object),
        np.array([complex(0, day) for day in range(6)], dtype=object),
    ],
    ids=["date", "duration", "complex", "date objects", "complex objects"],
)
def test_targets_that_the_ranker_refuses_are_refused(name: str, target: np.ndarray) -> None:
    with pytest.raises(EmbeddingError, match="give real numbers or class labels"):
        registry.load("estimators", name)().fit(np.random.default_rng(0).normal(size=(6, 2)), target)


@pytest.mark.parametrize("name", NAMES)
def test_a_column_is_read_as_its_values(name: str) -> None:
    rng = np.random.default_rng(0)
    Z, y = rng.normal(size=(20, 1)), rng.normal(size=20)
    kind = registry.load("estimators", name)
    if "regression" in kind.tasks and kind.takes == "embedding":
        assert kind().fit(Z, y[:, None]).score_ == kind().fit(Z, y).score_
