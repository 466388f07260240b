"""Heads: kernel ridge and its exact out-of-fold predictions against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.utils.estimator_checks import parametrize_with_checks

import scotl_matgl.learners.kernel
from scotl_matgl.learners.heads import HeldRidge, grown_and_read, make_head, out_of_fold_loss
from scotl_matgl.learners.kernel import (
    LaplacianKernelClassifier,
    LaplacianKernelRidge,
    _fit_kernel,
    _median_distance,
    kernel_out_of_fold,
    linear_out_of_fold,
    manhattan,
)
from scotl_matgl.learners.scaling import scaled_for_trees
from scotl_matgl.tables.folds import make_folds


@pytest.fixture
def table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(90, 7))
    X[:, 3] = 2.5  # a constant column
    return X, np.sin(X[:, 0]) + X[:, 1] ** 2 + 0.1 * rng.normal(size=90) + 5.0


@pytest.mark.slow
@parametrize_with_checks([LaplacianKernelRidge(), LaplacianKernelClassifier(), HeldRidge()])
def test_follows_scikit_learn(estimator, check) -> None:
    check(estimator)


def test_out_of_fold_equals_fitting_each_fold(table) -> None:
    X, y = table
    distances = manhattan(X)
    kernel = np.exp(-distances / _median_distance(distances))
    alpha = _fit_kernel(kernel, y[:, None]).alpha
    folds = make_folds(y, classification=False)
    predictions, chosen = kernel_out_of_fold(distances, y[:, None], folds)
    assert chosen == alpha
    found = predictions[:, 0]
    for train, test in folds:
        # Kernel ridge with an unpenalised intercept is kernel ridge on the system bordered by a row of ones.
        system = np.block(
            [
                [kernel[np.ix_(train, train)] + alpha * np.eye(len(train)), np.ones((len(train), 1))],
                [np.ones((1, len(train))), np.zeros((1, 1))],
            ]
        )
        solution = np.linalg.solve(system, np.append(y[train], 0.0))
        expected = kernel[np.ix_(test, train)] @ solution[:-1] + solution[-1]
        np.testing.assert_allclose(found[test], expected, rtol=1e-8)


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 10.0])
def test_with_a_given_penalty_out_of_fold_equals_fitting_each_fold(alpha, table) -> None:
    X, y = table
    Y = np.column_stack([y, np.cos(y)])
    distances = manhattan(X)
    kernel = np.exp(-distances / _median_distance(distances))
    folds = make_folds(y, classification=False)
    found, given = kernel_out_of_fold(distances, Y, folds, alpha=alpha)
    assert given == alpha
    for train, test in folds:
        ones = np.ones((len(train), 1))
        system = np.block(
            [[kernel[np.ix_(train, train)] + alpha * np.eye(len(train)), ones], [ones.T, np.zeros((1, 1))]]
        )
        solution = np.linalg.solve(system, np.vstack([Y[train], np.zeros((1, 2))]))
        np.testing.assert_allclose(found[test], kernel[np.ix_(test, train)] @ solution[:-1] + solution[-1], rtol=1e-8)


def test_the_chosen_penalty_given_changes_nothing(table) -> None:
    X, y = table
    distances, folds = manhattan(X), make_folds(y, classification=False)
    found, alpha = kernel_out_of_fold(distances, y[:, None], folds)
    again, _ = kernel_out_of_fold(distances, y[:, None], folds, alpha=alpha)
    np.testing.assert_allclose(again, found, rtol=1e-8)


def test_penalty_has_the_smallest_leave_one_out_error(table) -> None:
    X, y = table
    distances = manhattan(X)
    kernel = np.exp(-distances / _median_distance(distances))
    single = [(np.delete(np.arange(90), i), np.array([i])) for i in range(90)]
    chosen = _fit_kernel(kernel, y[:, None]).alpha
    errors = {}
    for alpha in np.logspace(-4, 1, 16):
        inverse = np.linalg.inv(kernel + alpha * np.eye(90))
        row = inverse.sum(axis=0)
        inverse -= np.outer(row, row) / row.sum()
        errors[alpha] = np.mean((inverse @ y / np.diag(inverse)) ** 2)
    assert chosen == pytest.approx(min(errors, key=errors.get))
    residuals = kernel_out_of_fold(distances, y[:, None], single)[0][:, 0] - y
    assert np.mean(residuals**2) == pytest.approx(min(errors.values()), rel=1e-9)


def test_matches_kernel_ridge_of_scikit_learn_on_a_centred_target(table) -> None:
    X, y = table
    head = LaplacianKernelRidge().fit(X, y)
    scaled = head.X_fit_
    oracle = KernelRidge(alpha=head.alpha_, kernel="laplacian", gamma=1 / head.length_scale_)
    oracle.fit(scaled, y - head.intercept_)
    # The training rows are kept in float32, the new ones are not.
    np.testing.assert_allclose(head.predict(X), oracle.predict(scaled) + head.intercept_, rtol=1e-5)


def test_a_weight_counts_a_column_as_often(table) -> None:
    X, y = table
    doubled = np.hstack([X, X[:, [0]]])
    weights = np.where(np.arange(7) == 0, 2.0, 1.0)
    expected = LaplacianKernelRidge().fit(doubled, y).predict(doubled)
    np.testing.assert_allclose(LaplacianKernelRidge(weights=weights).fit(X, y).predict(X), expected, rtol=1e-9)


@pytest.mark.parametrize("weights", [[1.0], [-1.0] * 7, [np.nan] * 7])
def test_weights_must_be_numbers_for_all_columns(weights, table) -> None:
    with pytest.raises(ValueError, match="7 numbers of at least 0"):
        LaplacianKernelRidge(weights=weights).fit(*table)


def test_many_rows_take_the_penalty_of_some_and_solve_the_same_system(table, monkeypatch) -> None:
    X, y = table
    monkeypatch.setattr(scotl_matgl.learners.kernel, "_PENALTY_ROWS", 89)
    head = LaplacianKernelRidge().fit(X, y)
    kernel = np.exp(-manhattan(X) / head.length_scale_) + head.alpha_ * np.eye(90)
    system = np.block([[kernel, np.ones((90, 1))], [np.ones((1, 90)), np.zeros((1, 1))]])
    solution = np.linalg.solve(system, np.append(y, 0.0))
    np.testing.assert_allclose(head.dual_coef_[:, 0], solution[:-1], rtol=1e-4, atol=1e-9)
    assert head.intercept_ == pytest.approx(solution[-1])


def test_classes_are_those_of_regression_on_indicators(table) -> None:
    X, y = table
    labels = np.array(["low", "middle", "high"])[np.digitize(y, np.quantile(y, [0.3, 0.7]))]
    head = LaplacianKernelClassifier().fit(X, labels)
    classes = np.unique(labels)
    kernel = np.exp(-manhattan(X) / head.length_scale_) + head.alpha_ * np.eye(90)
    system = np.block([[kernel, np.ones((90, 1))], [np.ones((1, 90)), np.zeros((1, 1))]])
    solution = np.linalg.solve(system, np.vstack([labels[:, None] == classes, np.zeros((1, 3))]))
    margins = (kernel - head.alpha_ * np.eye(90)) @ solution[:-1] + solution[-1]
    np.testing.assert_array_equal(head.predict(X), classes[margins.argmax(axis=1)])
    probabilities = head.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), margins.argmax(axis=1))


def test_held_ridge_is_ridge_on_standardised_columns_within_the_range_of_the_target(table) -> None:
    X, y = table
    head = HeldRidge().fit(X, y)
    varies = np.arange(7) != 3
    far = np.vstack([X, 3 * X.mean(axis=0) + 5])[:, varies]
    standard = np.clip((far - X[:, varies].mean(axis=0)) / X[:, varies].std(axis=0), -6, 6)
    oracle = Ridge(alpha=head.ridge_.alpha_).fit(standard[:90], y).predict(standard)
    found = head.predict(np.vstack([X, 3 * X.mean(axis=0) + 5]))
    np.testing.assert_allclose(found, np.clip(oracle, y.min(), y.max()), rtol=1e-9)


def test_linear_out_of_fold_equals_fitting_each_fold(table) -> None:
    X, y = table
    folds = make_folds(y, classification=False)
    found = linear_out_of_fold(X, y[:, None], folds, np.array([0.3]))[:, 0]
    for train, test in folds:
        expected = Ridge(alpha=0.3).fit(X[train], y[train]).predict(X[test])
        np.testing.assert_allclose(found[test], expected, rtol=1e-8)
    # The penalty is that of scikit-learn's leave-one-out.
    alphas = np.logspace(-3, 4, 15)
    chosen = RidgeCV(alphas).fit(X, y).alpha_
    np.testing.assert_allclose(
        linear_out_of_fold(X, y[:, None], folds, alphas),
        linear_out_of_fold(X, y[:, None], folds, np.array([chosen])),
        rtol=1e-8,
    )


def test_distances_of_columns_side_by_side_add_up(table) -> None:
    X, _ = table
    np.testing.assert_allclose(manhattan(X), manhattan(X[:, :3]) + manhattan(X[:, 3:]), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extra trees", "gradient boosting"])
def test_loss_of_trees_is_that_of_cross_val_predict(name, table) -> None:
    from sklearn.model_selection import cross_val_predict

    X, y = table
    folds = make_folds(y, classification=False)
    expected = np.abs(cross_val_predict(make_head(name), X, y, cv=folds) - y)
    np.testing.assert_allclose(out_of_fold_loss(name, X, y, folds), expected)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_trees_of_a_fold_are_those_of_a_forest(n_jobs, table) -> None:
    X, y = table
    forest = make_head("extra trees", random_state=4).set_params(n_estimators=7).fit(X[:60], y[:60])
    expected = [tree.predict(X[60:].astype(np.float32)) for tree in forest.estimators_]
    grown = grown_and_read(X[:60], y[:60], X[60:], n_trees=7, random_state=4, n_jobs=n_jobs)
    assert np.array_equal(grown, expected)


@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e-12, 1e30, 1e300])
def test_values_of_any_size_are_brought_within_reach_of_trees(size: float) -> None:
    values = size * np.array([1.0, -0.5, 0.0])
    scaled, factor = scaled_for_trees(values)
    assert np.array_equal(scaled / factor, values)
    assert factor == 1.0 or np.abs(scaled).max() < 2.0
    assert np.abs(scaled).max() > 1e-16


def test_classification_loss_is_zero_or_one_and_better_than_chance(table) -> None:
    X, y = table
    labels = (y > np.median(y)).astype(np.int64)
    folds = make_folds(labels, classification=True)
    for name in ("kernel ridge", "extra trees"):
        loss = out_of_fold_loss(name, X, labels, folds, classification=True)
        assert set(np.unique(loss)) <= {0.0, 1.0}
        assert loss.mean() < 0.3
