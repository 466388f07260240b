"""Warnings point at the user's line, however many frames of ours and of scikit-learn lie between."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from scotl_matgl import TransferabilityRanker, TransferFeaturizer, TransferRegressor, load_example
from scotl_matgl.estimators import HScore
from scotl_matgl.exceptions import ScotlMatglWarning, StoredFileWarning, warn

EXAMPLE = load_example().iloc[::25]
FORMULAS, TARGET = [*EXAMPLE["formula"], "no formula"], [*EXAMPLE["target"], 1.0]
MODEL = TransferRegressor(sources=[], head="kernel ridge")


def _fit_in_a_pipeline() -> None:
    make_pipeline(FunctionTransformer(), MODEL).fit(np.array(FORMULAS, dtype=object), TARGET)


CALLS: dict[str, Callable[[], Any]] = {
    "rank": lambda: TransferabilityRanker([], estimators=[], head="kernel ridge").fit(FORMULAS, TARGET),
    "fit": lambda: MODEL.fit(FORMULAS, TARGET),
    "predict": lambda: MODEL.fit(FORMULAS[:-1], TARGET[:-1]).predict(FORMULAS),
    "fit of features": lambda: TransferFeaturizer(sources=[]).fit(FORMULAS),
    "features": lambda: TransferFeaturizer(sources=[]).fit(FORMULAS[:-1]).transform(FORMULAS),
    "features at once": lambda: TransferFeaturizer(sources=[]).fit_transform(FORMULAS),
    "score": lambda: HScore(regularized=False).fit(np.random.default_rng(0).normal(size=(5, 8)), np.arange(5)),
    "in a pipeline": _fit_in_a_pipeline,
    "in folds": lambda: cross_val_predict(MODEL, np.array(FORMULAS, dtype=object), TARGET, cv=3),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_warning_names_the_line_of_the_user(call: Callable[[], Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    ours = [warning for warning in caught if issubclass(warning.category, ScotlMatglWarning)]
    assert ours
    assert {warning.filename for warning in ours} == {__file__}


def test_once_a_line() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for text in ("one", "one", "two"):
            warn(text, StoredFileWarning)
    assert [str(warning.message) for warning in caught] == ["one", "two"]


def test_a_worker_thread_has_a_line_as_well() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Parallel(n_jobs=2, prefer="threads")(delayed(warn)("x", StoredFileWarning) for _ in range(2))
    assert len(caught) == 2
