"""Laplacian kernel ridge regression, whose cross-validation is one decomposition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.linalg.lapack import dpotri
from scipy.spatial.distance import pdist, squareform
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from scotl_matgl.learners.distances import cityblock
from scotl_matgl.learners.scaling import ColumnScale
from scotl_matgl.tables.folds import Folds
from scotl_matgl.vocabulary import Floats

Floats32: TypeAlias = NDArray[np.float32]

# Penalties tried, on a kernel whose diagonal is one.
_ALPHAS = np.logspace(-4, 1, 16)


# Rows on which the penalty is chosen: an eigendecomposition costs some 25 times a Cholesky factorisation.
_PENALTY_ROWS = 2000


def manhattan(X: Floats, weights: Floats | None = None) -> Floats:
    """Pairwise distances (n, n): sum of absolute differences of the standardised columns, times weights (p,) if given.

    The distance of descriptors beside embeddings is the sum of the two, so a ranking computes that of the descriptors
    once. Cost O(n² p).
    """
    scale = ColumnScale.of(X)
    scaled = scale.apply(X) if weights is None else scale.apply(X) * weights[scale.columns]
    return _within(scaled)


def _within(scaled: Floats | Floats32) -> Floats:
    """City-block distances (n, n), each pair once: half the time of the full matrix."""
    # In another order scipy takes half as long again.
    return (
        squareform(pdist(np.ascontiguousarray(scaled), "cityblock"))
        if scaled.shape[1]
        else np.zeros((len(scaled), len(scaled)))
    )


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


def _fit_kernel(kernel: Floats, Y: Floats, alphas: Floats = _ALPHAS) -> _KernelFit:
    """Fit the columns of Y (n, m) with one penalty, the one of a grid with the smallest leave-one-out error."""
    values, vectors = eigh(kernel, driver="evd")
    values = np.maximum(values, 0.0)
    ones, projected = vectors.sum(axis=0), vectors.T @ Y
    # All penalties at once, (n, penalties): products of matrices instead of one pass over the vectors for each.
    shrunk = 1.0 / (values[:, None] + alphas)
    total = ones**2 @ shrunk
    row = vectors @ (shrunk * ones[:, None])
    diagonal = vectors**2 @ shrunk - row**2 / total
    intercepts = row.T @ Y / total[:, None]
    errors = np.zeros(len(alphas))
    for column in range(Y.shape[1]):
        coefficients = vectors @ (shrunk * projected[:, column, None]) - row * intercepts[:, column]
        errors += np.mean((coefficients / diagonal) ** 2, axis=0) / Y.shape[1]
    best = int(np.argmin(errors))
    coefficients = vectors @ (shrunk[:, best, None] * (projected - np.outer(ones, intercepts[best])))
    return _KernelFit(float(alphas[best]), coefficients, intercepts[best], vectors, shrunk[:, best])


def kernel_out_of_fold(
    distances: Floats, Y: Floats, folds: Folds, *, alpha: float | None = None
) -> tuple[Floats, float]:
    """Out-of-fold predictions of Laplacian kernel ridge, all folds from one decomposition.

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
    alpha : float, optional
        Penalty. Default: the one of a grid with the smallest leave-one-out error, for which the kernel is decomposed;
        a given one takes a third of the time.

    Returns
    -------
    ndarray of shape (n, m)
        Predictions.
    float
        Penalty.
    """
    predictions, penalty = kernel_out_of_folds(distances, Y, [folds], alpha=alpha)
    return np.asarray(predictions[0]), penalty


def kernel_out_of_folds(
    distances: Floats, Y: Floats, fold_sets: Sequence[Folds], *, alpha: float | None = None
) -> tuple[Floats, float]:
    """:func:`kernel_out_of_fold` for several sets of folds (r, n, m), which share the decomposition."""
    kernel = np.exp(-distances / _median_distance(distances))
    predictions = np.empty((len(fold_sets), *Y.shape))
    if alpha is None:
        fit = _fit_kernel(kernel, Y)
        block: Callable[[NDArray[np.intp]], Floats] = fit.block
        coefficients, alpha = fit.coefficients, fit.alpha
    else:
        block, coefficients = _solve_kernel(kernel, Y, alpha)
    for repeat, folds in enumerate(fold_sets):
        _leave_out(folds, Y, block, coefficients, predictions[repeat])
    return predictions, alpha


def _leave_out(
    folds: Folds, Y: Floats, block: Callable[[NDArray[np.intp]], Floats], coefficients: Floats, predictions: Floats
) -> None:
    for _, test in folds:
        predictions[test] = Y[test] - cho_solve(cho_factor(block(test)), coefficients[test])


def linear_out_of_fold(X: Floats, Y: Floats, folds: Folds, alphas: Floats) -> Floats:
    """Out-of-fold predictions (n, m) of ridge regression with an intercept on X (n, p), from one decomposition.

    As for :func:`kernel_out_of_fold`, with the kernel XXᵀ: no fold is fitted again, and all share the penalty of the
    smallest leave-one-out error.
    """
    # Centring changes nothing but the intercept, and keeps the small eigenvalues.
    centred = X - X.mean(axis=0)
    fit = _fit_kernel(centred @ centred.T, Y, alphas)
    predictions = np.empty_like(Y)
    _leave_out(folds, Y, fit.block, fit.coefficients, predictions)
    return predictions


def _solve_kernel(kernel: Floats, Y: Floats, alpha: float) -> tuple[Callable[[NDArray[np.intp]], Floats], Floats]:
    """Blocks of C, and CY, for one penalty, from one factorisation; see :class:`_KernelFit`."""
    kernel[np.diag_indices_from(kernel)] += alpha
    inverse, _ = dpotri(cho_factor(kernel, lower=True, overwrite_a=True)[0], lower=True, overwrite_c=True)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    total = inverse.sum(axis=0)
    projected = inverse @ Y
    coefficients = projected - np.outer(total, projected.sum(axis=0) / total.sum())

    def block(rows: NDArray[np.intp]) -> Floats:
        found: Floats = inverse[np.ix_(rows, rows)] - np.outer(total[rows], total[rows]) / total.sum()
        return found

    return block, coefficients


class BlockDistances:
    """City-block distances of new rows to training rows, block by block of columns.

    The kernels of a blend see the same descriptors, each beside other columns: the distance of these is computed once,
    as most of the time of a prediction goes into distances.
    """

    def __init__(self, columns: Mapping[str, Floats]) -> None:
        self._columns = columns
        self._known: dict[str, tuple[Floats, Floats32, Floats]] = {}

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def to(self, kernel: _LaplacianKernel, blocks: Sequence[str]) -> Floats:
        """Distances (m, n), in the columns of the blocks, to the rows that a kernel was fitted on."""
        total: Floats | None = None
        start = 0
        for block in blocks:
            X = self._columns[block]
            among = slice(*np.searchsorted(kernel._scale.columns, [start, start + X.shape[1]]))
            start += X.shape[1]
            if among.start < among.stop:
                part = self._of(block, kernel, among, kernel._scale.columns[among] - (start - X.shape[1]))
                total = part.copy() if total is None else np.add(total, part, out=total)
        if total is None or start != kernel.n_features_in_:
            raise ValueError(f"the blocks have {start} columns; the kernel was fitted on {kernel.n_features_in_}")
        return total

    def _of(self, block: str, kernel: _LaplacianKernel, among: slice, columns: NDArray[np.intp]) -> Floats:
        scaled = kernel._scale.apply(self._columns[block], among, columns) * kernel._column_weights[among]
        fitted: Floats32 = kernel.X_fit_[:, among]
        known = self._known.get(block)
        if known is None or not (np.array_equal(known[0], scaled) and np.array_equal(known[1], fitted)):
            known = self._known[block] = scaled, fitted, cityblock(scaled, fitted)
        return known[2]


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
        self._scale = ColumnScale.of(X)
        self._column_weights = weights[self._scale.columns]
        # In float32, which halves what a saved model takes; all that follows is of these very numbers.
        self.X_fit_: Floats32 = self._scaled(X).astype(np.float32)
        distances = _within(self.X_fit_)
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
        return self._outputs_at(cityblock(rows, self.X_fit_))

    def _outputs_at(self, distances: Floats) -> Floats:
        """Outputs (m, k) at distances (m, n) to the training rows, in which the kernel is made."""
        distances /= -self.length_scale_
        outputs: Floats = np.exp(distances, out=distances) @ self.dual_coef_ + self.intercept_
        return outputs

    def predict_by_blocks(self, distances: BlockDistances, blocks: Sequence[str]) -> Floats:
        """Outputs (m, k) for new rows whose columns are the blocks side by side."""
        if not len(self._scale.columns):
            return np.tile(self.intercept_, (len(distances), 1))
        return self._outputs_at(distances.to(self, blocks))


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
    """Kernel ridge regression of one indicator per class, with the kernel of :class:`LaplacianKernelRidge`.

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
