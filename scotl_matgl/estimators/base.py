"""What a transferability estimator is, and the checks of targets that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from scotl_matgl.estimators.spectrum import EPS, LARGEST, SMALLEST, EmbeddingError, FloatArray, Spectra
from scotl_matgl.exceptions import DegenerateScoreWarning, warn
from scotl_matgl.tables.target import Task, is_classification


class TransferabilityEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Base class: how much an embedding says about a target, as one number, higher is better.

    A subclass stores its parameters in ``__init__`` and writes `_score`, which returns the score and sets whatever
    else it learned. `fit` checks the input and calls it.

    Attributes
    ----------
    tasks : tuple of str, class attribute
        Kinds of target it takes, of "regression" and "classification".
    takes : str, class attribute
        What it is fitted on: "embedding", or "output", the source's own prediction.
    score_ : float
        The score after `fit`; NaN, with a `DegenerateScoreWarning`, where it is a constant by construction.
    n_features_in_ : int
        Width of the embedding.
    """

    tasks: ClassVar[tuple[str, ...]] = ("regression",)
    takes: ClassVar[str] = "embedding"
    references: ClassVar[tuple[str, ...]] = ()

    score_: float
    n_features_in_: int

    def fit(self, Z: ArrayLike | Spectra, y: ArrayLike) -> Self:
        """Compute the score of an embedding for a target.

        Parameters
        ----------
        Z : array-like of shape (n, d), or Spectra
            Embedding of the n materials; never modified. `Spectra` lets several estimators share one decomposition.
        y : array-like of shape (n,)
            Measured property, or class labels; never modified.

        Returns
        -------
        self

        Raises
        ------
        EmbeddingError
            NaN, infinite or constant values, dates, complex numbers, values too many powers of ten apart for float64,
            or shapes that do not fit; the message names the place.
        """
        spectra = self._spectra(Z)
        # Sets n_features_in_ and, for a data frame, feature_names_in_.
        validate_data(self, Z if hasattr(Z, "columns") else spectra.Z, skip_check_array=True)
        self.score_ = self._checked_score(spectra, self._target(y, spectra.shape[0]))
        return self

    def _checked_score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        """Score; where arithmetic fails, an error that says so, and where it fails silently, NaN that is told of."""
        try:
            score = self._score(spectra, y)
        except (ArithmeticError, np.linalg.LinAlgError) as error:
            raise EmbeddingError(
                f"{type(self).__name__} cannot be computed in float64 ({type(error).__name__}: {error}): values of the "
                "embedding lie too many powers of ten apart; scale its columns, or leave the rows out that stand out."
            ) from error
        if not np.isfinite(score) and not isinstance(score, _Degenerate):
            score = self._degenerate(
                "values of the embedding or the target lie too many powers of ten apart for float64; scale them."
            )
        return float(score)

    def _spectra(self, Z: ArrayLike | Spectra) -> Spectra:
        if isinstance(Z, Spectra):
            return Z
        if hasattr(Z, "tocsr"):
            raise TypeError("The embedding is a sparse matrix, and embeddings are dense: pass Z.toarray().")
        return Spectra(Z)

    def _target(self, y: ArrayLike, n: int) -> NDArray[Any]:
        return numeric_target(y, n)

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        raise NotImplementedError

    @classmethod
    def citations(cls) -> list[str]:
        """Return the publications to cite when the score is used."""
        return list(cls.references)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _degenerate(self, reason: str) -> float:
        """Warn that the score means nothing for this shape of data, and return NaN."""
        warn(f"{type(self).__name__}: {reason} The score is NaN.", DegenerateScoreWarning)
        return _Degenerate("nan")


class _Degenerate(float):
    """NaN that the user was told of."""


def column(y: ArrayLike, n: int) -> NDArray[Any]:
    """Return a target as one dimension of length n, or say why it is not."""
    if y is None:
        raise EmbeddingError("A transferability estimator requires y to be passed, but the target y is None.")
    target = np.asarray(y)
    odd = target.dtype.kind in "cmM" or (
        target.dtype.kind == "O"
        and any(isinstance(value, complex | np.complexfloating | date) for value in target.flat)
    )
    if odd:
        kind = target.dtype if target.dtype.kind != "O" else "complex or date"
        raise EmbeddingError(f"The target y holds values of type {kind}: give real numbers or class labels.")
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]
    if target.ndim != 1:
        raise EmbeddingError(f"The target y has shape {target.shape}: give one value per row, shape ({n},).")
    if target.shape[0] != n:
        raise EmbeddingError(
            f"The embedding has {n} rows and the target y {target.shape[0]} values: they must be of the same length."
        )
    return target


def numeric_target(y: ArrayLike, n: int) -> FloatArray:
    """Return a measured property as float64, finite and not constant, or say where it is not."""
    raw = column(y, n)
    try:
        target = raw.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise EmbeddingError(
            f"The target y holds values that are no numbers ({error}): give a numeric property."
        ) from error
    bad = np.flatnonzero(~np.isfinite(target))
    if bad.size:
        value = "NaN" if np.isnan(target[bad[0]]) else "inf"
        raise EmbeddingError(
            f"The target y contains {value} (first at row {bad[0]}): drop the rows without a measurement."
        )
    low, high = float(target.min()), float(target.max())
    if high - low <= 8.0 * EPS * max(abs(low), abs(high)):
        raise EmbeddingError(f"The target y is {low:g} in all {n} rows: no source can be told from another.")
    if high - low < SMALLEST or max(abs(low), abs(high)) > LARGEST:
        raise EmbeddingError(
            f"The scale of the target y, from {low:g} to {high:g}, has a square that float64 cannot hold: "
            "use another unit."
        )
    return target


def label_target(y: ArrayLike, n: int) -> NDArray[np.int64]:
    """Return class labels as codes 0 … K − 1, K ≥ 2, whatever their names and gaps, or say why it cannot be."""
    raw = column(y, n)
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        bad = int(np.flatnonzero(~np.isfinite(raw))[0])
        value = "NaN" if np.isnan(raw[bad]) else "inf"
        raise EmbeddingError(f"The target y contains {value} (first at row {bad}): drop the rows without a label.")
    if raw.dtype.kind == "O":
        missing = [i for i, value in enumerate(raw) if value is None or value != value]
        if missing:
            raise EmbeddingError(
                f"The target y contains NaN or None (first at row {missing[0]}): drop the rows without a label."
            )
        if len({type(value) for value in raw}) > 1:
            raw = np.array([str(value) for value in raw])
    classes, codes = np.unique(raw, return_inverse=True)
    if classes.size < 2:
        raise EmbeddingError(f"The target y has the one class {classes[0]!r} in all {n} rows: at least two are needed.")
    return codes.astype(np.int64)


def quantile_bins(y: FloatArray, bins: int) -> NDArray[np.int64]:
    """Cut a numeric target into classes of about equal size.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Target.
    bins : int
        Number of classes, ≥ 2. Equal values share a class, so fewer may remain.

    Returns
    -------
    ndarray of shape (n,), int64
        Codes 0 … K − 1; a value at a quantile belongs to the upper class.
    """
    if bins < 2:
        raise ValueError(f"n_bins is {bins}: at least two classes are needed.")
    n = y.shape[0]
    # Position in exact integers: (n − 1)·k/bins in floating point may fall on either side of a row.
    positions = [-(-(n - 1) * k // bins) for k in range(1, bins)]
    ordered = np.sort(y)
    edges = ordered[positions]
    # A value held by most rows can swallow every quantile: it is then told from all that is larger.
    edges = edges[edges > ordered[0]] if edges[-1] > ordered[0] else ordered[ordered > ordered[0]][:1]
    return np.unique(np.searchsorted(edges, y, side="right"), return_inverse=True)[1].astype(np.int64)


def classes_of(y: ArrayLike, n: int, task: Task, bins: int) -> NDArray[np.int64]:
    """Return the codes of labels as they are, of a measured property by quantile."""
    return label_target(y, n) if is_classification(y, task) else quantile_bins(numeric_target(y, n), bins)


def one_hot(codes: NDArray[np.int64]) -> FloatArray:
    """Return label codes as columns of 0 and 1, shape (n, K)."""
    return np.eye(int(codes.max()) + 1)[codes]


def positive(name: str, values: float | Sequence[float] | FloatArray) -> FloatArray:
    """Return penalties as an array, or say which is not positive."""
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if array.ndim != 1 or array.size == 0 or not (np.isfinite(array).all() and (array > 0).all()):
        raise ValueError(f"{name} is {values!r}: it must hold finite numbers > 0.")
    return array
