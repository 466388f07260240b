"""Conformance of estimators."""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from scotl_matgl.estimators.spectrum import Spectra
from scotl_matgl.exceptions import DegenerateScoreWarning
from scotl_matgl.testing.samples import (
    name_of,
    require,
    require_citations,
    require_equal,
    require_error,
    require_parameters,
    require_pickle,
)


def check_estimator(estimator: Any) -> None:
    """Check a transferability estimator against the contract of ``scotl_matgl.estimators``.

    It must follow scikit-learn's conventions; give a finite score that is higher for an embedding that tells of the
    target than for the same in another order of rows; be deterministic, the same for an array and a shared
    decomposition, and for labels of other names; leave its input alone; and refuse NaN, infinite values, lengths that
    do not match and constant targets with a ValueError.

    Parameters
    ----------
    estimator : TransferabilityEstimator
        Unfitted.

    Raises
    ------
    AssertionError
        At the first rule that is broken.

    Examples
    --------
    >>> from scotl_matgl.estimators import LogME
    >>> check_estimator(LogME())
    """
    who = name_of(estimator)
    require_parameters(estimator, who)
    tasks = getattr(estimator, "tasks", None)
    require(
        isinstance(tasks, tuple) and tasks and set(tasks) <= {"regression", "classification"},
        f"{who}.tasks is {tasks!r}; it must be a tuple of 'regression' and 'classification', one or both",
    )
    takes = getattr(estimator, "takes", None)
    require(takes in ("embedding", "output"), f"{who}.takes is {takes!r}; it must be 'embedding' or 'output'")
    require_citations(estimator, who)
    for task in tasks or ():
        Z, y = _target_and_embedding(takes == "output", task == "classification")
        _check_scores(estimator, Z, y, f"{who} ({task})")
        _check_bad_input(estimator, Z, y, f"{who} ({task})")
    if "classification" in (tasks or ()):
        Z, y = _target_and_embedding(takes == "output", True)
        names = np.array(["metal", "insulator", "semiconductor"])[y]
        require_equal(
            _score(estimator, Z, names, who),
            _score(estimator, Z, y, who),
            1e-9,
            f"{who}: names of labels change the score; they must not",
        )


def _target_and_embedding(output: bool, classification: bool) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """An embedding (or output) that tells of its target, 90 rows."""
    rng = np.random.default_rng(0)
    # Directions of different variance, as embeddings have: what shrinks covariances would find nothing in equal ones.
    Z = rng.normal(size=(90, 6)) * [4.0, 2.0, 1.0, 1.0, 0.5, 0.5] @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    y = Z @ np.array([2.0, -1.0, 0.5, 0.0, 0.0, 0.0]) + 0.2 * rng.normal(size=90)
    if classification:
        labels = np.digitize(y, np.quantile(y, [1 / 3, 2 / 3]))
        if not output:
            return Z, labels
        logits = 3.0 * np.eye(3)[labels] + rng.normal(size=(90, 3))
        probabilities = np.exp(logits)
        return probabilities / probabilities.sum(axis=1, keepdims=True), labels
    return ((y + 0.3 * rng.normal(size=90))[:, None], y) if output else (Z, y)


def _score(estimator: Any, Z: Any, y: Any, who: str) -> float:
    fitted = clone(estimator)
    try:
        with warnings.catch_warnings():
            # What the warning tells, the score shows: NaN is judged by the caller.
            warnings.simplefilter("ignore", DegenerateScoreWarning)
            returned = fitted.fit(Z, y)
    except Exception as error:
        raise AssertionError(f"{who}.fit raises {type(error).__name__}: {error}; the data are good") from error
    require(returned is fitted, f"{who}.fit must return self")
    score = getattr(fitted, "score_", None)
    if not isinstance(score, float):
        raise AssertionError(f"{who}.score_ is {score!r} after fit; it must be a float")
    return score


def _check_scores(estimator: Any, Z: NDArray[np.float64], y: NDArray[Any], who: str) -> None:
    before = Z.copy(), y.copy()
    score = _score(estimator, Z, y, who)
    require(np.array_equal(Z, before[0]) and np.array_equal(y, before[1]), f"{who}.fit changes its input; it must not")
    require(math.isfinite(score), f"{who}.score_ is {score} for 90 rows; it must be finite where it is defined")
    shuffled = _score(estimator, np.random.default_rng(1).permutation(Z), y, who)
    require(
        score > shuffled,
        f"{who}.score_ is {score:.6g}, and {shuffled:.6g} with the rows in random order; higher must be better",
    )
    require_equal(_score(estimator, Z, y, who), score, 1e-12, f"{who}: two fits give two scores; it is deterministic")
    shared = _score(estimator, Spectra(Z), y, who)
    require_equal(shared, score, 1e-9, f"{who}: an array and its Spectra give two scores; they must not")
    again = require_pickle(clone(estimator).fit(Z, y), who)
    require(again.score_ == score, f"{who}: its score is another after pickling")


def _check_bad_input(estimator: Any, Z: NDArray[np.float64], y: NDArray[Any], who: str) -> None:
    bad = {}
    for value in (np.nan, np.inf):
        spoiled = Z.copy()
        spoiled[3, 0] = value
        bad[f"{value} in the embedding"] = (spoiled, y)
    bad["a target of another length"] = (Z, y[:-1])
    bad["a constant target"] = (Z, np.zeros_like(y))
    for what, (embedding, target) in bad.items():
        require_error(
            partial(clone(estimator).fit, embedding, target),
            ValueError,
            f"{who}: {what} must be a ValueError that says so",
        )
