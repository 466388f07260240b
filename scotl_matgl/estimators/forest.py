"""Out-of-bag error of a small random forest: the estimator that resembles the learner most used on embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scotl_matgl.estimators.base import TransferabilityEstimator, label_target, numeric_target
from scotl_matgl.estimators.spectrum import Spectra
from scotl_matgl.learners.heads import out_of_bag
from scotl_matgl.tables.target import Task, is_classification
from scotl_matgl.vocabulary import Floats


class Forest(TransferabilityEstimator):
    """Out-of-bag error of a small random forest on the embedding.

    With T_i the trees whose bootstrap sample lacks row i, ``score = −Σ_i |y_i − Σ_{t ∈ T_i} f_t(z_i)/|T_i||/n``; for
    labels ``−Σ_i wrong_i/n``, where a row whose class shares the most votes with others is wrong in part.

    Parameters
    ----------
    n_estimators : int
        Number of trees, ≥ 1.
    max_features : float
        Share of the columns tried at a split, above 0 and at most 1.
    max_rows : int
        Larger tables are cut to this many rows drawn at random, ≥ 2.
    task : "auto", "regression" or "classification"
        See `scotl_matgl.tables.target.is_classification`.
    random_state : int
        Seed of the draw and of the forest.

    Attributes
    ----------
    score_ : float
        −MAE in the unit of y, or −error rate.
    rows_ : ndarray of shape (min(n, max_rows),)
        Rows drawn, in the order in which the forest saw them.
    losses_ : ndarray of shape (min(n, max_rows),)
        Loss of each of them; NaN for one that every tree has seen.

    Notes
    -----
    Cost: O(n_estimators max_features d m log m) for m = min(n, max_rows); 0.2 s for m = 500 and d = 160. Of all scores
    that were measured it orders sources best for those who train a forest on the embedding (docs/ranking_quality.md).
    Where y is merely put in another unit the score follows it, up to the rounding of ties between splits. The forest is
    random: another seed or order of rows moves the score by a few percent of itself.

    References
    ----------
    Breiman (2001); Yamada et al. (2019) for forests on frozen embeddings.

    Examples
    --------
    >>> import numpy as np
    >>> from scotl_matgl.estimators import Forest
    >>> Z = np.random.default_rng(0).normal(size=(60, 3))
    >>> Forest().fit(Z, Z[:, 0]).score_ > Forest().fit(Z, Z[::-1, 0]).score_
    True
    """

    tasks = ("regression", "classification")
    references = (
        "Breiman, L. Random forests. Machine Learning 45, 5-32 (2001).",
        "Yamada, H. et al. Predicting materials properties with little data using shotgun transfer learning. "
        "ACS Central Science 5, 1717-1730 (2019).",
    )

    def __init__(
        self,
        n_estimators: int = 40,
        max_features: float = 1 / 3,
        max_rows: int = 500,
        task: Task = "auto",
        random_state: int = 0,
    ) -> None:
        self.n_estimators = n_estimators
        self.max_features = max_features
        self.max_rows = max_rows
        self.task = task
        self.random_state = random_state

    def _target(self, y: ArrayLike, n: int) -> NDArray[Any]:
        return label_target(y, n) if is_classification(y, self.task) else numeric_target(y, n)

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        for name, least in (("n_estimators", 1), ("max_rows", 2)):
            value = getattr(self, name)
            if not (isinstance(value, (int, np.integer)) and value >= least):
                raise ValueError(f"{name} is {value!r}: it must be a whole number ≥ {least}.")
        if not 0 < self.max_features <= 1:
            raise ValueError(f"max_features is {self.max_features!r}: it must lie above 0 and at most at 1.")
        classification = y.dtype.kind == "i"
        self.rows_ = np.random.default_rng(self.random_state).permutation(y.shape[0])[: self.max_rows]
        # The draw may have lost what varies, which is refused as in a whole table.
        drawn = (label_target if classification else numeric_target)(y[self.rows_], self.rows_.size)
        classes, codes = np.unique(drawn, return_inverse=True) if classification else ((), drawn)
        predicted = out_of_bag(
            spectra.Z[self.rows_],
            codes,
            n_classes=len(classes),
            n_estimators=self.n_estimators,
            max_features=float(self.max_features),
            random_state=self.random_state,
        )
        self.losses_ = _wrong_votes(predicted, codes) if classification else np.abs(predicted[:, 0] - drawn)
        if np.isnan(self.losses_).all():
            return self._degenerate(f"every one of the {self.n_estimators} trees has seen every row; take more trees.")
        return -float(np.nanmean(self.losses_))


def _wrong_votes(votes: Floats, codes: NDArray[Any]) -> Floats:
    """Loss (n,): 0 where the class has most votes, else 1, in part where classes share them; NaN without votes."""
    # Votes are averages of shares: equal up to rounding means tied.
    first = votes >= votes.max(axis=1, keepdims=True) - 1e-12
    right = first[np.arange(len(codes)), codes] / np.maximum(first.sum(axis=1), 1)
    return np.where(np.isfinite(votes[:, 0]), 1.0 - right, np.nan)
