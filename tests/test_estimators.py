from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import BayesianRidge, Ridge, RidgeCV

from scotl_matgl.estimators import GCV, SCOTL, LinMSE, LogME, LOORidge

SHAPES = {"n>d": (60, 9), "n<d": (20, 50), "n=d": (25, 25), "n=d+1": (26, 25)}


def fixture() -> tuple[np.ndarray, np.ndarray]:
    """The portable fixture: 40 rows, 12 columns, in closed form."""
    i, j = np.arange(1, 41)[:, None], np.arange(1, 13)[None, :]
    F = np.sin(0.7 * i * j + 0.3 * j) + 0.1 * np.cos(0.37 * i + j)
    y = (np.sin(0.9 * i) + 0.3 * np.cos(2.1 * i)).ravel()
    return F, y


def data(shape: tuple[int, int], seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=shape) * rng.uniform(0.3, 3.0, size=shape[1]) + rng.normal(size=shape[1])
    return Z, Z @ rng.normal(size=shape[1]) / np.sqrt(shape[1]) + noise * rng.normal(size=shape[0]) + 5.0


@pytest.mark.parametrize(
    ("estimator", "value"),
    [
        (SCOTL(normalize=None), 1.4173932383393326),
        (LogME(fit_intercept=False), -1.1217236303393663),
        (LogME(), -1.1215916641000632),
        (LOORidge(alphas=1.0, normalize=None), -0.877873492896052),
        (GCV(alphas=1.0, normalize=None), -0.7781460489565313),
        (LinMSE(lam=1), -0.5326980159653687),
        (LinMSE(lam=0), -0.46332225988492637),
    ],
    ids=repr,
)
def test_portable_fixture(estimator, value):
    F, y = fixture()
    assert estimator.fit(F, y).score_ == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_scotl_is_the_training_error_of_ridge_on_unit_rows(shape):
    Z, y = data(shape)
    unit = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    for alpha in (0.1, 1.0, 30.0):
        error = y - Ridge(alpha=alpha, solver="svd").fit(unit, y).predict(unit)
        assert SCOTL(alpha=alpha).fit(Z, y).score_ == pytest.approx(1 / np.sqrt(np.mean(error**2)), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("alpha", [0.01, 1.0, 100.0])
def test_leave_one_out_equals_refitting_without_each_row(shape, alpha):
    Z, y = data(shape)
    fitted = LOORidge(alphas=alpha, normalize=None).fit(Z, y)
    oracle = RidgeCV(alphas=[alpha], store_cv_results=True).fit(Z, y)
    assert fitted.score_ == pytest.approx(-np.sqrt(np.mean(oracle.cv_results_)), rel=1e-9)
    refit = [
        Ridge(alpha=alpha, solver="svd").fit(np.delete(Z, i, 0), np.delete(y, i)).predict(Z[i : i + 1])[0]
        for i in range(shape[0])
    ]
    assert_allclose(fitted.predictions_, refit, rtol=1e-8)
    assert fitted.mae_ == pytest.approx(np.mean(np.abs(y - refit)), rel=1e-8)
    assert fitted.alpha_ == alpha


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_leave_one_out_keeps_the_best_penalty(shape):
    Z, y = data(shape)
    alphas = np.geomspace(1e-3, 1e4, 15)
    standard = (Z - Z.mean(axis=0)) / Z.std(axis=0)
    oracle = RidgeCV(alphas=alphas, store_cv_results=True).fit(standard, y)
    fitted = LOORidge(alphas=alphas).fit(Z, y)
    assert fitted.alpha_ == oracle.alpha_
    assert fitted.score_ == pytest.approx(-np.sqrt(-oracle.best_score_), rel=1e-9)


@pytest.mark.parametrize("shape", [SHAPES["n>d"], SHAPES["n=d"], SHAPES["n<d"]])
def test_logme_without_intercept_is_the_evidence_of_bayesian_ridge(shape):
    Z, y = data(shape, noise=2.0)
    oracle = BayesianRidge(
        alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, fit_intercept=False, compute_score=True, max_iter=20000, tol=1e-13
    ).fit(Z, y)
    assert LogME(fit_intercept=False).fit(Z, y).score_ == pytest.approx(oracle.scores_[-1] / shape[0], abs=1e-7)


def test_logme_with_intercept_is_the_evidence_of_bayesian_ridge():
    Z, y = data(SHAPES["n>d"], noise=2.0)
    oracle = BayesianRidge(
        alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, compute_score=True, max_iter=20000, tol=1e-13
    ).fit(Z, y)
    fitted = LogME().fit(Z, y)
    assert fitted.score_ == pytest.approx(oracle.scores_[-1] / 60, abs=1e-9)
    assert fitted.t_ == pytest.approx(oracle.lambda_ / oracle.alpha_, rel=1e-4)
