"""Heads: the learners put on descriptors and embeddings, and their errors on rows that they have not seen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.spatial.distance import cdist, pdist, squareform
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

Floats = NDArray[np.float64]
Folds = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]
HeadName = Literal["kernel ridge", "extra trees", "gradient boosting"]

HEADS: tuple[HeadName, ...] = ("kernel ridge", "extra trees", "gradient boosting")

#: What is usually trained on an embedding alone (XenonPy.MDL's learner); not among those that a ranking chooses from.
FOREST = "random forest"

# Penalties tried, on a kernel whose diagonal is one.
_ALPHAS = np.logspace(-4, 1, 16)

# Rows on which the penalty is chosen: an eigendecomposition costs some 25 times a Cholesky factorisation.
_PENALTY_ROWS = 2000

# Penalties tried by ridge regression on standardised columns.
_RIDGE_ALPHAS = np.logspace(-1, 5, 19)

# A column of a small table may be zero but for one row; unlimited, that row would be far from everything.
_CLIP = 6.0


@dataclass(frozen=True, eq=False)
class _Scale:
    """Mean and standard deviation of the columns that vary."""

    columns: NDArray[np.intp]
    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, X: Floats) -> _Scale:
        mean, deviation = X.mean(axis=0), X.std(axis=0)
        columns = np.flatnonzero(deviation > 1e-9 * np.maximum(np.abs(mean), 1e-12))
        return cls(columns, mean[columns], deviation[columns])

    def apply(self, X: Floats) -> Floats:
        scaled: Floats = np.clip((X[:, self.columns] - self.mean) / self.deviation, -_CLIP, _CLIP)
        return scaled


def manhattan(X: Floats, weights: Floats | None = None) -> Floats:
    """Pairwise distances (n, n): sum of absolute differences of the standardised columns, times weights (p,) if given.

    The distance of descriptors beside embeddings is the sum of the two, so a ranking computes that of the descriptors
    once. Cost O(n² p).
    """
    scale = _Scale.of(X)
    scaled = scale.apply(X) if weights is None else scale.apply(X) * weights[scale.columns]
    # Each pair once: half the time of the full matrix.
    return squareform(pdist(scaled, "cityblock")) if scaled.shape[1] else np.zeros((len(X), len(X)))


def _city_block(A: Floats, B: Floats) -> Floats:
    return cdist(A, B, "cityblock") if A.shape[1] else np.zeros((len(A), len(B)))


def _median_distance(distances: Floats) -> float:
    above = distances[np.triu_indices(len(distances), 1)]
    median = float(np.median(above)) if len(above) else 0.0
    return median if median > 0 else 1.0


@dataclass(frozen=True, eq=False)
class _KernelFit:
    """Kernel ridge regression with an intercept at the penalty of the smallest leave-one-out error.

    With A = K + αI and an unpenalised intercept, C = A⁻¹ − A⁻¹11ᵀA⁻¹ / 1ᵀA⁻¹1 is such that CY are the coefficients and
    (C_ff)⁻¹(CY)_f the residuals when the rows f are left out.
    """

    alpha: float
    coefficients: Floats
    intercept: Floats
    vectors: Floats
    shrunk: Floats

    def block(self, rows: NDArray[np.intp]) -> Floats:
        """C_ff of some rows: the whole of C would cost five times as much as the blocks of five folds."""
        total = self.vectors @ (self.shrunk * self.vectors.sum(axis=0))  # A⁻¹1
        part = self.vectors[rows]
        found: Floats = (part * self.shrunk) @ part.T - np.outer(total[rows], total[rows]) / total.sum()
        return found


def _fit_kernel(kernel: Floats, Y: Floats) -> _KernelFit:
    """Fit the columns of Y (n, m) with one penalty."""
    values, vectors = eigh(kernel, driver="evd")
    values = np.maximum(values, 0.0)
    ones, projected = vectors.sum(axis=0), vectors.T @ Y
    # All penalties at once, (n, penalties): products of matrices instead of one pass over the vectors for each.
    shrunk = 1.0 / (values[:, None] + _ALPHAS)
    total = ones**2 @ shrunk
    row = vectors @ (shrunk * ones[:, None])
    diagonal = vectors**2 @ shrunk - row**2 / total
    intercepts = row.T @ Y / total[:, None]
    errors = np.zeros(len(_ALPHAS))
    for column in range(Y.shape[1]):
        coefficients = vectors @ (shrunk * projected[:, column, None]) - row * intercepts[:, column]
        errors += np.mean((coefficients / diagonal) ** 2, axis=0) / Y.shape[1]
    best = int(np.argmin(errors))
    coefficients = vectors @ (shrunk[:, best, None] * (projected - np.outer(ones, intercepts[best])))
    return _KernelFit(float(_ALPHAS[best]), coefficients, intercepts[best], vectors, shrunk[:, best])


def kernel_out_of_fold(distances: Floats, Y: Floats, folds: Folds) -> Floats:
    """Out-of-fold predictions (n, m) of Laplacian kernel ridge, all folds from one decomposition.

    Leaving out the rows f changes the residuals to (C_ff)⁻¹ (C Y)_f exactly (the block form of the leave-one-out
    formula; C in the notation of :class:`_KernelFit`), so no fold is fitted again. The penalty and the length scale
    are the two numbers that all folds share.

    Parameters
    ----------
    distances : ndarray of shape (n, n)
        See :func:`manhattan`.
    Y : ndarray of shape (n, m)
        Targets.
    folds : sequence of (train, test) row numbers
        Every row in exactly one test part.
    """
    fit = _fit_kernel(np.exp(-distances / _median_distance(distances)), Y)
    predictions = np.empty_like(Y)
    for _, test in folds:
        block = cho_factor(fit.block(test))
        predictions[test] = Y[test] - cho_solve(block, fit.coefficients[test])
    return predictions


class _LaplacianKernel(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """What regression and classification share: scale, kernel, and the fit of several outputs with one penalty."""

    def __init__(self, weights: ArrayLike | None = None) -> None:
        self.weights = weights

    def _scaled(self, X: Floats) -> Floats:
        return self._scale.apply(X) * self._column_weights

    def _fit_outputs(self, X: Floats, Y: Floats) -> None:
        weights = np.ones(X.shape[1]) if self.weights is None else np.asarray(self.weights, dtype=np.float64)
        if weights.shape != (X.shape[1],) or not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(f"weights must be {X.shape[1]} numbers of at least 0, one a column of X")
        self._scale = _Scale.of(X)
        self._column_weights = weights[self._scale.columns]
        self.X_fit_ = self._scaled(X)
        distances = _city_block(self.X_fit_, self.X_fit_)
        self.length_scale_ = _median_distance(distances)
        kernel = np.exp(-distances / self.length_scale_)
        if len(X) <= _PENALTY_ROWS:
            fit = _fit_kernel(kernel, Y)
            self.alpha_, self.dual_coef_, self.intercept_ = fit.alpha, fit.coefficients, fit.intercept
            return
        rows = np.random.default_rng(0).choice(len(X), size=_PENALTY_ROWS, replace=False)
        self.alpha_ = _fit_kernel(kernel[np.ix_(rows, rows)], Y[rows]).alpha
        kernel[np.diag_indices_from(kernel)] += self.alpha_
        solved = cho_solve(cho_factor(kernel, overwrite_a=True), np.column_stack([Y, np.ones(len(Y))]))
        self.intercept_ = solved[:, :-1].sum(axis=0) / solved[:, -1].sum()
        self.dual_coef_ = solved[:, :-1] - np.outer(solved[:, -1], self.intercept_)

    def _outputs(self, X: ArrayLike) -> Floats:
        check_is_fitted(self, "dual_coef_")
        rows = self._scaled(validate_data(self, X, dtype=np.float64, reset=False))
        if not rows.shape[1]:
            return np.tile(self.intercept_, (len(rows), 1))
        kernel = np.exp(-cdist(rows, self.X_fit_, "cityblock") / self.length_scale_)
        outputs: Floats = kernel @ self.dual_coef_ + self.intercept_
        return outputs


class LaplacianKernelRidge(RegressorMixin, _LaplacianKernel):  # type: ignore[misc]  # scikit-learn is not typed
    """Kernel ridge regression with exp(−‖x − x′‖₁ / ℓ) on standardised columns.

    ℓ is the median distance between training rows, the penalty the one of a grid with the smallest exact leave-one-out
    error. On `standard` descriptors it is about as accurate as extra trees (docs/measurements.md) and its
    cross-validation costs a single decomposition, which is why the ranking uses it.

    Parameters
    ----------
    weights : array-like of shape (p,), optional
        Weight of each standardised column in the distance. Default: 1 for all.

    Attributes
    ----------
    alpha_ : float
        Penalty chosen.
    length_scale_ : float
        ℓ.

    Notes
    -----
    Cost O(n³ + n² p), memory O(n²): meant for tables up to a few thousand rows. Above 2,000 rows the penalty is chosen
    on 2,000 of them, drawn at random, which leaves one Cholesky factorisation of all.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(0, 1, 50)[:, None]
    >>> float(LaplacianKernelRidge().fit(X, X[:, 0] ** 2).predict([[0.5]]).round(2)[0])
    0.25
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit on X (n, p) and y (n,)."""
        rows, target = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        self._fit_outputs(rows, target.astype(np.float64)[:, None])
        return self

    def predict(self, X: ArrayLike) -> Floats:
        """Predict (m,) from X (m, p)."""
        return self._outputs(X)[:, 0]


class LaplacianKernelClassifier(ClassifierMixin, _LaplacianKernel):  # type: ignore[misc]  # scikit-learn is not typed
    """Kernel ridge regression of one indicator a class, with the kernel of :class:`LaplacianKernelRidge`.

    Parameters
    ----------
    weights : array-like of shape (p,), optional
        Weight of each standardised column in the distance. Default: 1 for all.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        Labels, sorted.
    alpha_, length_scale_ : float
        As for regression; one penalty serves all classes.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(0, 1, 50)[:, None]
    >>> LaplacianKernelClassifier().fit(X, X[:, 0] > 0.5).predict([[0.2], [0.9]])
    array([False,  True])
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit on X (n, p) and class labels y (n,)."""
        rows, target = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(target)
        self.classes_ = np.unique(target)
        if len(self.classes_) < 2:
            raise ValueError(f"the target has one class only, {self.classes_[0]!r}; there is nothing to learn")
        self._fit_outputs(rows, (target[:, None] == self.classes_).astype(np.float64))
        return self

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Estimated indicators (m, k), held to [0, 1] and scaled to the sum 1."""
        return indicators_to_probabilities(self._outputs(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels (m,) from X (m, p)."""
        largest = self._outputs(X).argmax(axis=1)
        return np.asarray(self.classes_[largest])


def indicators_to_probabilities(indicators: Floats) -> Floats:
    """Hold estimated class indicators (n, k) to [0, 1], and scale each row to the sum 1."""
    # A row whose estimates are all below zero keeps their order.
    held = np.clip(indicators, 1e-9, 1.0) + 1e-9 * np.exp(np.clip(indicators, -50.0, 0.0))
    probabilities: Floats = held / held.sum(axis=1, keepdims=True)
    return probabilities


class HeldRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Ridge regression on standardised columns, its predictions held to the range of the training target.

    What is linear extrapolates: one row far from the others can cost more than all others gain. So columns are held to
    six standard deviations, as those of the kernel are, and predictions to what was measured. The penalty is the one of
    a grid with the smallest exact leave-one-out error.

    Attributes
    ----------
    ridge_ : RidgeCV
        Fitted on the standardised columns.
    range_ : tuple of float
        Smallest and largest training target.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(0, 1, 50)[:, None]
    >>> HeldRidge().fit(X, X[:, 0]).predict([[0.5], [2.0]]).round(2)
    array([0.5, 1. ])
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit on X (n, p) and y (n,)."""
        from sklearn.linear_model import RidgeCV

        rows, target = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        self._scale = _Scale.of(rows)
        self.range_ = float(target.min()), float(target.max())
        # A table of constant columns leaves none to fit on.
        columns = self._scale.apply(rows) if len(self._scale.columns) else np.zeros((len(rows), 1))
        self.ridge_ = RidgeCV(_RIDGE_ALPHAS).fit(columns, target)
        return self

    def predict(self, X: ArrayLike) -> Floats:
        """Predict (m,) from X (m, p)."""
        check_is_fitted(self, "ridge_")
        rows = self._scale.apply(validate_data(self, X, dtype=np.float64, reset=False))
        predicted: Floats = self.ridge_.predict(rows if rows.shape[1] else np.zeros((len(rows), 1)))
        return np.clip(predicted, *self.range_)


def make_head(name: str, *, classification: bool = False, random_state: int = 0, n_jobs: int | None = 1) -> Any:
    """Unfitted scikit-learn estimator of one of :data:`HEADS`, or :data:`FOREST`.

    Only forests take `n_jobs`.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    from sklearn import ensemble

    if name == FOREST:
        forest = ensemble.RandomForestClassifier if classification else ensemble.RandomForestRegressor
        return forest(n_estimators=100, max_features=1 / 3, random_state=random_state, n_jobs=n_jobs)
    if name == "extra trees":
        # A third of the columns at a split: as accurate as all of them, in a third of the time (docs/measurements.md).
        trees = ensemble.ExtraTreesClassifier if classification else ensemble.ExtraTreesRegressor
        return trees(n_estimators=100, max_features=1 / 3, random_state=random_state, n_jobs=n_jobs)
    if name == "gradient boosting":
        if classification:  # stopping early takes rows out, of which a rare class may have one
            return ensemble.HistGradientBoostingClassifier(early_stopping=False, random_state=random_state)
        return ensemble.HistGradientBoostingRegressor(random_state=random_state)
    if name == "kernel ridge":
        return LaplacianKernelClassifier() if classification else LaplacianKernelRidge()
    raise ValueError(f"Unknown head {name!r}; choose one of {', '.join((*HEADS, FOREST))}")


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


# Trees work in float32, take columns that differ by less than 1e-7 as constant, and split no node whose variance is
# below 2e-16: an embedding or a target whose largest value is outside these bounds is brought to one.
_SMALLEST, _LARGEST = 2.0**-10, 2.0**60


def within_reach(values: Floats) -> tuple[Floats, float]:
    """Return values times a power of two, which costs no digit, and that power; unchanged where no tree needs it."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0 or _SMALLEST <= largest <= _LARGEST:
        return values, 1.0
    factor = 2.0 ** -int(np.frexp(largest)[1])
    return values * factor, factor


def out_of_fold_loss(
    name: str,
    X: Floats,
    y: NDArray[Any],
    folds: Folds,
    *,
    distances: Floats | None = None,
    classification: bool = False,
    random_state: int = 0,
    n_jobs: int | None = 1,
) -> Floats:
    """Out-of-fold loss (n,) of a head: the absolute error, or for class labels 0 where right and 1 where wrong.

    Parameters
    ----------
    name : str
        One of :data:`HEADS`.
    X : ndarray of shape (n, p)
        Descriptors, embeddings or both, without NaN.
    y : ndarray of shape (n,)
        Property, or class codes.
    folds : sequence of (train, test) row numbers
        Shared by all that is to be compared row by row.
    distances : ndarray of shape (n, n), optional
        ``manhattan(X)`` where it is known already; only kernel ridge looks at it.
    classification : bool, default=False
        Whether `y` holds class codes. Kernel ridge then learns one indicator a class.
    random_state : int, default=0
        Seed of the trees.
    n_jobs : int, optional
        Threads of extra trees.
    """
    if name == "kernel ridge":
        distances = manhattan(X) if distances is None else distances
        if not classification:
            predicted = kernel_out_of_fold(distances, y.astype(np.float64)[:, None], folds)[:, 0]
            return np.asarray(np.abs(predicted - y), dtype=np.float64)
        classes = np.unique(y)
        indicators = (y[:, None] == classes).astype(np.float64)
        predicted = classes[kernel_out_of_fold(distances, indicators, folds).argmax(axis=1)]
    else:
        predicted = np.empty(len(y), dtype=y.dtype if classification else np.float64)
        y, factor = (y, 1.0) if classification else within_reach(np.asarray(y, dtype=np.float64))
        for train, test in folds:
            head = make_head(name, classification=classification, random_state=random_state, n_jobs=n_jobs)
            head.fit(X[train], y[train])
            if hasattr(head, "n_jobs"):
                head.n_jobs = 1  # threads would add the trees up in the order in which they come: never twice the same
            predicted[test] = head.predict(X[test])
    loss = predicted != y if classification else np.abs(predicted - y) / factor
    return np.asarray(loss, dtype=np.float64)


def out_of_bag_loss(
    X: Floats,
    y: NDArray[Any],
    *,
    classification: bool = False,
    n_estimators: int = 100,
    max_features: float = 1 / 3,
    random_state: int = 0,
) -> Floats:
    """Loss (n,) of each row by the trees of a random forest that have not seen it; one forest, no folds.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Embedding, descriptors or both, without NaN.
    y : ndarray of shape (n,)
        Property, or class codes.
    classification : bool, default=False
        Whether `y` holds class codes.
    n_estimators : int, default=100
        Trees.
    max_features : float, default=1/3
        Share of the columns tried at a split.
    random_state : int, default=0
        Seed. The rows that each tree sees depend on it and n alone, so that losses for two matrices of the same rows
        are paired.

    Returns
    -------
    ndarray of shape (n,)
        Absolute error in the unit of `y`; for labels 0 where right and 1 where wrong, in part where classes share the
        most votes. NaN for a row that every tree has seen, which with 40 trees or more hardly ever happens.

    Notes
    -----
    The predictions are scikit-learn's ``oob_prediction_`` and ``oob_decision_function_``. A row is predicted by about
    e⁻¹ of the trees, each grown on about 63 % of the rows, so that the loss is a little larger than that of the whole
    forest on new rows. Cost O(n_estimators max_features p n log n). Source: Breiman, L. Random forests. Machine
    Learning 45, 5-32 (2001).

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> y = X[:, 0] + 2 * X[:, 1]
    >>> bool(out_of_bag_loss(X, y).mean() < 0.5 * out_of_bag_loss(X, y[::-1]).mean())
    True
    """
    rows, _ = within_reach(np.asarray(X, dtype=np.float64))
    target, factor = (y, 1.0) if classification else within_reach(np.asarray(y, dtype=np.float64))
    forest = make_head(FOREST, classification=classification, random_state=random_state)
    forest.set_params(n_estimators=n_estimators, max_features=max_features).fit(rows, target)
    total = np.zeros((len(rows), len(forest.classes_) if classification else 1))
    count = np.zeros((len(rows), 1))
    for tree, seen in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.setdiff1d(np.arange(len(rows)), seen)
        if len(unseen):
            predicted = tree.predict_proba(rows[unseen]) if classification else tree.predict(rows[unseen])[:, None]
            total[unseen] += predicted
            count[unseen] += 1
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    if not classification:
        return np.asarray(np.abs(mean[:, 0] - target) / factor, dtype=np.float64)
    # Votes are averages of shares: equal up to rounding means tied.
    first = mean >= mean.max(axis=1, keepdims=True) - 1e-12
    right = first[np.arange(len(rows)), np.searchsorted(forest.classes_, target)] / np.maximum(first.sum(axis=1), 1)
    return np.where(count[:, 0] > 0, 1.0 - right, np.nan)
