"""Several estimators read together by rank, over the sources that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, clone

from scotl_matgl.estimators.base import TransferabilityEstimator
from scotl_matgl.estimators.linear import LogME, LOORidge
from scotl_matgl.estimators.similarity import GPEvidence
from scotl_matgl.estimators.spectrum import EmbeddingError, FloatArray, Spectra


def rank_average(scores: ArrayLike, weights: ArrayLike | None = None) -> FloatArray:
    """Combine several scores of the same sources by rank.

    Ranks make scores of unlike units and scales count alike.

    Parameters
    ----------
    scores : array-like of shape (n_sources, n_estimators)
        Higher is better; NaN where an estimator says nothing.
    weights : array-like of shape (n_estimators,), optional
        ≥ 0; equal by default.

    Returns
    -------
    ndarray of shape (n_sources,)
        Weighted mean, over the estimators that are not NaN, of the share of the other sources that a source beats (half
        of those tied with it): 1 is best, 0 is worst, 0.5 with a single source. NaN where all are NaN.

    Examples
    --------
    >>> from scotl_matgl.estimators import rank_average
    >>> rank_average([[-0.1, 3.0], [-0.2, 2.0], [-0.3, 9.0]])
    array([0.75, 0.25, 0.5 ])
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"The scores have shape {table.shape}: give one row per source, one column per estimator.")
    weight = np.ones(table.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.shape != (table.shape[1],) or not (weight >= 0).all() or weight.sum() == 0:
        raise ValueError(f"weights is {weights!r}: give one number ≥ 0 for each of {table.shape[1]} estimators.")
    shares = np.full(table.shape, np.nan)
    for j, scored in enumerate(~np.isnan(table.T)):
        m = int(scored.sum())
        if m:
            shares[scored, j] = (rankdata(table[scored, j]) - 1.0) / (m - 1) if m > 1 else 0.5
    known = ~np.isnan(shares)
    total = known @ weight
    return np.asarray(np.where(known, shares, 0.0) @ weight / np.where(total > 0, total, np.nan))


class Ensemble(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Rank sources by several estimators together.

    A rank exists only among sources, so this one is fitted on all of them: `fit` takes a mapping of embeddings.

    Parameters
    ----------
    estimators : sequence of (str, TransferabilityEstimator), optional
        Members and their names; leave-one-out ridge, LogME and the Gaussian-process evidence by default.
    weights : sequence of float, optional
        Weight of each member, equal by default.

    Attributes
    ----------
    names_ : tuple of str
        Sources, in the order given.
    scores_ : ndarray of shape (n_sources, n_estimators)
        Score of each member.
    score_ : ndarray of shape (n_sources,)
        See `rank_average`.

    Notes
    -----
    Cost: that of the members; each embedding is decomposed once per normalisation.

    Examples
    --------
    >>> import numpy as np
    >>> from scotl_matgl.estimators import Ensemble
    >>> rng = np.random.default_rng(0)
    >>> Z = rng.normal(size=(40, 4))
    >>> Ensemble().fit({"noise": rng.normal(size=(40, 4)), "informative": Z}, Z.sum(axis=1)).score_
    array([0., 1.])
    """

    def __init__(
        self,
        estimators: Sequence[tuple[str, TransferabilityEstimator]] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.estimators = estimators
        self.weights = weights

    @property
    def members(self) -> tuple[tuple[str, TransferabilityEstimator], ...]:
        """Names and unfitted members."""
        if self.estimators is None:
            return (("loo", LOORidge()), ("logme", LogME()), ("gp", GPEvidence()))
        return tuple(self.estimators)

    def fit(self, embeddings: Mapping[str, ArrayLike | Spectra], y: ArrayLike) -> Self:
        """Score every source by every member.

        Parameters
        ----------
        embeddings : mapping of str to array-like of shape (n, d) or Spectra
            Embedding of the same n materials by each source; widths may differ.
        y : array-like of shape (n,)
            Target.

        Returns
        -------
        self
        """
        if not embeddings:
            raise EmbeddingError("There is no source to rank: give a mapping of names to embeddings.")
        rows = []
        for name, Z in embeddings.items():
            try:
                shared = Z if isinstance(Z, Spectra) else Spectra(Z)
                rows.append([clone(member).fit(shared, y).score_ for _, member in self.members])
            except EmbeddingError as error:
                raise EmbeddingError(f"Source {name!r}: {error}") from error
        self.names_ = tuple(embeddings)
        self.scores_ = np.array(rows)
        self.score_ = rank_average(self.scores_, self.weights)
        return self

    def citations(self) -> list[str]:
        """Return the publications of all members."""
        return list(dict.fromkeys(text for _, member in self.members for text in member.citations()))
