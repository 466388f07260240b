"""Heads: the learners put on descriptors and embeddings, and their errors on rows that they have not seen."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from scotl_matgl.learners.kernel import (
    LaplacianKernelClassifier,
    LaplacianKernelRidge,
    kernel_out_of_fold,
    linear_out_of_fold,
    manhattan,
)
from scotl_matgl.learners.scaling import ColumnScale, scaled_for_trees
from scotl_matgl.tables.folds import Folds
from scotl_matgl.vocabulary import Floats

HeadName = Literal["kernel ridge", "extra trees", "gradient boosting"]


HEADS: tuple[HeadName, ...] = ("kernel ridge", "extra trees", "gradient boosting")


#: What is usually trained on an embedding alone (XenonPy.MDL's learner); not among those that a ranking chooses from.
FOREST = "random forest"


# Share of the columns that extra trees try at a split: as accurate as all of them, in a third of the time
# (docs/measurements.md).
_TREE_COLUMNS = 1 / 3

# Penalties tried by ridge regression on standardised columns.
_RIDGE_ALPHAS = np.logspace(-1, 5, 19)


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
        self._scale = ColumnScale.of(rows)
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


def held_out_of_fold(X: Floats, y: Floats, folds: Folds) -> Floats:
    """Out-of-fold predictions (n,) of :class:`HeldRidge`, with one scale of the columns and one penalty for all folds.

    Predictions are held to the range of the targets that they are made from.
    """
    scaled = ColumnScale.of(X).apply(X)
    predicted = linear_out_of_fold(scaled, y[:, None], folds, _RIDGE_ALPHAS)[:, 0]
    for train, test in folds:
        predicted[test] = np.clip(predicted[test], y[train].min(), y[train].max())
    return predicted


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
        trees = ensemble.ExtraTreesClassifier if classification else ensemble.ExtraTreesRegressor
        return trees(n_estimators=100, max_features=_TREE_COLUMNS, random_state=random_state, n_jobs=n_jobs)
    if name == "gradient boosting":
        # A quarter of the bins: as accurate, in two thirds of the time (docs/measurements.md).
        if classification:  # stopping early takes rows out, of which a rare class may have one
            return ensemble.HistGradientBoostingClassifier(max_bins=63, early_stopping=False, random_state=random_state)
        return ensemble.HistGradientBoostingRegressor(max_bins=63, random_state=random_state)
    if name == "kernel ridge":
        return LaplacianKernelClassifier() if classification else LaplacianKernelRidge()
    raise ValueError(f"Unknown head {name!r}; choose one of {', '.join((*HEADS, FOREST))}")


def grown_and_read(
    X: Floats,
    y: Floats,
    X_new: Floats,
    *,
    n_trees: int,
    random_state: int,
    all_columns: bool = False,
    n_jobs: int | None = 1,
) -> Floats:
    """Predictions (t, m) for new rows (m, p) by the trees that a forest of extra trees would grow.

    They are those of ``ExtraTreesRegressor``, bit for bit. A forest copies and checks the settings of each tree, which
    takes a quarter of the time where rows are few.
    """
    from joblib import Parallel, delayed
    from sklearn import config_context
    from sklearn.tree import ExtraTreeRegressor
    from sklearn.utils import check_array, check_random_state

    seeds = check_random_state(random_state).randint(np.iinfo(np.int32).max, size=n_trees)
    rows, new = (check_array(part, dtype=np.float32, order="C") for part in (X, X_new))
    target = np.array(y, dtype=np.float64, order="C")[:, None]
    share = 1.0 if all_columns else _TREE_COLUMNS

    def read(seed: int) -> Floats:
        with config_context(skip_parameter_validation=True):
            tree = ExtraTreeRegressor(max_features=share, random_state=seed).fit(rows, target, check_input=False)
        return np.asarray(tree.tree_.predict(new)[:, 0])

    return np.array(Parallel(n_jobs=n_jobs, prefer="threads")(delayed(read)(int(seed)) for seed in seeds))


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
            predicted = kernel_out_of_fold(distances, y.astype(np.float64)[:, None], folds)[0][:, 0]
            return np.asarray(np.abs(predicted - y), dtype=np.float64)
        classes = np.unique(y)
        indicators = (y[:, None] == classes).astype(np.float64)
        predicted = classes[kernel_out_of_fold(distances, indicators, folds)[0].argmax(axis=1)]
    else:
        predicted = np.empty(len(y), dtype=y.dtype if classification else np.float64)
        y, factor = (y, 1.0) if classification else scaled_for_trees(np.asarray(y, dtype=np.float64))
        for train, test in folds:
            head = make_head(name, classification=classification, random_state=random_state, n_jobs=n_jobs)
            head.fit(X[train], y[train])
            if hasattr(head, "n_jobs"):
                head.n_jobs = 1  # threads would add the trees up in the order in which they come: never twice the same
            predicted[test] = head.predict(X[test])
    loss = predicted != y if classification else np.abs(predicted - y) / factor
    return np.asarray(loss, dtype=np.float64)


def out_of_bag(
    X: Floats,
    y: NDArray[Any],
    *,
    n_classes: int = 0,
    n_estimators: int = 100,
    max_features: float = 1 / 3,
    random_state: int = 0,
) -> Floats:
    """Predictions of each row by the trees of a random forest that have not seen it; one forest, no folds.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Embedding, descriptors or both, without NaN.
    y : ndarray of shape (n,)
        Property, or class codes from 0.
    n_classes : int, default=0
        How many classes there are; 0 for a property.
    n_estimators : int, default=100
        Trees.
    max_features : float, default=1/3
        Share of the columns tried at a split.
    random_state : int, default=0
        Seed. The rows that each tree sees depend on it and n alone, so that losses for two matrices of the same rows
        are paired.

    Returns
    -------
    ndarray of shape (n, 1), or (n, n_classes)
        The property in the unit of `y`, or the probabilities of the classes. NaN for a row that every tree has seen,
        which with 40 trees or more hardly ever happens.

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
    >>> bool(np.corrcoef(out_of_bag(X, y)[:, 0], y)[0, 1] > 0.9)
    True
    """
    rows, _ = scaled_for_trees(np.asarray(X, dtype=np.float64))
    target, factor = (y, 1.0) if n_classes else scaled_for_trees(np.asarray(y, dtype=np.float64))
    forest = make_head(FOREST, classification=n_classes > 0, random_state=random_state)
    forest.set_params(n_estimators=n_estimators, max_features=max_features).fit(rows, target)
    total, count = np.zeros((len(rows), max(n_classes, 1))), np.zeros((len(rows), 1))
    columns = np.asarray(forest.classes_ if n_classes else [0], dtype=np.intp)
    for tree, seen in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.setdiff1d(np.arange(len(rows)), seen)
        if len(unseen):
            predicted = tree.predict_proba(rows[unseen]) if n_classes else tree.predict(rows[unseen])[:, None]
            total[np.ix_(unseen, columns)] += predicted
            count[unseen] += 1
    mean: Floats = np.divide(total, count * factor, out=np.full_like(total, np.nan), where=count > 0)
    return mean
