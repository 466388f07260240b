"""The control as a scikit-learn estimator: descriptors of the formulas and the best head, without transfer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from scotl_matgl.composition import parse_compositions
from scotl_matgl.descriptors import get_descriptor
from scotl_matgl.heads import make_folds, make_head, out_of_fold_loss


class _NoTransfer(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """What regression and classification share."""

    _classification: bool

    def __init__(
        self,
        *,
        descriptor: Any = "standard",
        heads: Sequence[Literal["kernel ridge", "extra trees", "gradient boosting"]] = ("kernel ridge", "extra trees"),
        random_state: int = 0,
    ) -> None:
        self.descriptor = descriptor
        self.heads = heads
        self.random_state = random_state

    def fit(self, formulas: Any, y: ArrayLike) -> Self:
        """Choose the head of the smallest out-of-fold loss, and fit it.

        Parameters
        ----------
        formulas : sequence of length n
            All that :func:`~scotl_matgl.composition.parse_compositions` reads.
        y : array-like of shape (n,)
            Measured property, or class labels.

        Returns
        -------
        self

        Raises
        ------
        CompositionError
            If a formula cannot be read; the message names the row.
        """
        target = np.asarray(y)
        if not self._classification:
            target = target.astype(np.float64)
        X = self._features(formulas)
        # Kernel ridge on class labels exists as out-of-fold predictions only.
        names = [name for name in self.heads if not (self._classification and name == "kernel ridge")]
        losses: dict[str, float] = {}
        if len(names) > 1:
            folds = make_folds(target, classification=self._classification, random_state=self.random_state)
            for name in names:
                loss = out_of_fold_loss(
                    name, X, target, folds, classification=self._classification, random_state=self.random_state
                )
                losses[name] = float(loss.mean())
        self.head_name_ = min(losses, key=losses.__getitem__) if losses else names[0]
        head = make_head(self.head_name_, classification=self._classification, random_state=self.random_state)
        self.head_ = head.fit(X, target)
        if self._classification:
            self.classes_ = self.head_.classes_
        return self

    def predict(self, formulas: Any) -> NDArray[Any]:
        """Predict (m,) from m formulas."""
        check_is_fitted(self, "head_")
        return np.asarray(self.head_.predict(self._features(formulas)))

    def _features(self, formulas: Any) -> NDArray[np.float64]:
        compositions = parse_compositions(formulas)
        described = get_descriptor(self.descriptor).fit(compositions).transform(compositions)
        return np.nan_to_num(np.asarray(described, dtype=np.float64))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.no_validation = True
        return tags


class NoTransferRegressor(RegressorMixin, _NoTransfer):  # type: ignore[misc]  # scikit-learn is not typed
    """Predict a property from formulas by descriptors and the best head alone: what transfer is measured against.

    Parameters
    ----------
    descriptor : str or CompositionDescriptor, default="standard"
        Describes the formulas.
    heads : sequence of str, default=("kernel ridge", "extra trees")
        Of :data:`~scotl_matgl.heads.HEADS`; the one with the smallest five-fold error on the training rows is taken.
        Gradient boosting is not among the defaults: the costliest, and on none of eight tables the best
        (docs/measurements.md).
    random_state : int, default=0
        Seed of folds and trees.

    Attributes
    ----------
    head_name_ : str
        The head chosen.
    head_ : estimator
        It, fitted.

    Examples
    --------
    >>> from scotl_matgl import load_example
    >>> table = load_example().iloc[:60]
    >>> NoTransferRegressor().fit(table["formula"], table["target"]).predict(["Fe2O3"]).shape
    (1,)
    """

    _classification = False


class NoTransferClassifier(ClassifierMixin, _NoTransfer):  # type: ignore[misc]  # scikit-learn is not typed
    """Predict class labels from formulas by descriptors and a head alone; see :class:`NoTransferRegressor`.

    Kernel ridge is left out of `heads`.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        Labels.
    head_name_, head_
        As for the regressor.

    Examples
    --------
    >>> model = NoTransferClassifier().fit(["NaCl", "KCl", "Fe", "Cu"], ["salt", "salt", "metal", "metal"])
    >>> model.predict(["LiCl"]).tolist()
    ['salt']
    """

    _classification = True
