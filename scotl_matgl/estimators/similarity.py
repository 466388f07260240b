"""Estimators from distances and inner products of materials: nearest neighbours, kernel alignment, Gaussian process."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize_scalar

from scotl_matgl.estimators.base import TransferabilityEstimator, label_target, numeric_target, one_hot
from scotl_matgl.estimators.spectrum import EPS, EmbeddingError, FloatArray, Normalize, Spectra, maximise_evidence
from scotl_matgl.tables.target import Task, is_classification

# Rows of a distance matrix computed at a time: 32 MB of float64 whatever n.
BLOCK_VALUES = 4_000_000


class KNN(TransferabilityEstimator):
    """Leave-one-out error of the mean of the nearest neighbours in the embedding.

    Regression: ``score = −√(Σ (y_i − ȳ_{N(i)})²/n)``. Classification: share of rows whose class wins the vote of their
    neighbours; a row whose class shares the first place with others counts in part.

    Parameters
    ----------
    k : int
        Number of neighbours, ≥ 1; n − 1 if the table is smaller. All rows as near as the k-th count, so that repeated
        formulas do not make the score depend on the order of rows.
    normalize : None, "l2" or "standard"
        Of the embedding, before Euclidean distances.
    task : "auto", "regression" or "classification"
        See `scotl_matgl.tables.target.is_classification`.

    Attributes
    ----------
    score_ : float
        −RMSE in the unit of y, or accuracy.
    predictions_ : ndarray of shape (n,)
        Leave-one-out predictions in the unit of y (regression only).
    mae_ : float
        Mean absolute error in the unit of y (regression only).

    Notes
    -----
    Cost: O(n²d) time, 32 MB beside the embedding. It needs one copy of the embedding and no decomposition.

    References
    ----------
    Renggli et al. (2022) for nearest neighbours as a proxy of transfer.

    Examples
    --------
    >>> from scotl_matgl.estimators import KNN
    >>> KNN(k=1).fit([[0.0], [0.1], [5.0], [5.1]], [1.0, 1.0, 3.0, 3.5]).predictions_
    array([1. , 1. , 3.5, 3. ])
    """

    tasks = ("regression", "classification")
    references = (
        "Renggli, C. et al. Which model to transfer? Finding the needle in the growing haystack. CVPR 2022, 9205-9214.",
    )

    def __init__(self, k: int = 3, normalize: Normalize = None, task: Task = "auto") -> None:
        self.k = k
        self.normalize = normalize
        self.task = task

    def _target(self, y: ArrayLike, n: int) -> NDArray[Any]:
        return one_hot(label_target(y, n)) if is_classification(y, self.task) else numeric_target(y, n)

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        if not (isinstance(self.k, (int, np.integer)) and self.k >= 1):
            raise ValueError(f"k is {self.k!r}: it must be a whole number ≥ 1.")
        F = spectra.matrix(self.normalize)
        means = _neighbour_means(F, y if y.ndim == 2 else y[:, None], min(int(self.k), F.shape[0] - 1))
        if y.ndim == 2:
            # Votes are averages of 0 and 1: equal up to rounding means tied.
            first = means >= means.max(axis=1, keepdims=True) - 1e-12
            return float(((first * y).sum(axis=1) / first.sum(axis=1)).mean())
        self.predictions_ = means[:, 0]
        error = y - self.predictions_
        self.mae_ = float(np.abs(error).mean())
        return -math.sqrt(float(error @ error) / y.size)


class CKA(TransferabilityEstimator):
    """Linear centred kernel alignment of embedding and target.

    ``score = ⟨K, L⟩/(‖K‖‖L‖)`` with ``K = F Fᵀ``, ``L = (y − ȳ)(y − ȳ)ᵀ``, one-hot columns for labels. The unbiased
    form replaces each product by its U-statistic, so that an uninformative embedding scores 0 on average at any width.

    Parameters
    ----------
    unbiased : "auto", True or False
        "auto": unbiased where n < d and n ≥ 4, since the plain form grows with the width there.
    normalize : None, "l2" or "standard"
        Of the embedding.
    task : "auto", "regression" or "classification"
        See `scotl_matgl.tables.target.is_classification`.

    Attributes
    ----------
    score_ : float
        0 … 1, slightly below 0 possible if unbiased; 0 for a constant embedding.
    unbiased_ : bool
        Which form was used.

    Notes
    -----
    Cost: one spectrum, O(nd) more. Comparisons across sources are fair only within one form: give `unbiased` where
    widths lie on both sides of n.

    References
    ----------
    Kornblith et al. (2019); Song et al. (2012), eq. 5 for the U-statistic.

    Examples
    --------
    >>> from scotl_matgl.estimators import CKA
    >>> round(CKA().fit([[1.0], [2.0], [3.0]], [10.0, 20.0, 30.0]).score_, 12)
    1.0
    """

    tasks = ("regression", "classification")
    references = (
        "Kornblith, S., Norouzi, M., Lee, H. & Hinton, G. Similarity of neural network representations revisited. "
        "ICML 2019, PMLR 97, 3519-3529.",
        "Song, L., Smola, A., Gretton, A., Bedo, J. & Borgwardt, K. Feature selection via dependence maximization. "
        "JMLR 13, 1393-1434 (2012).",
    )

    def __init__(
        self, unbiased: Literal["auto"] | bool = "auto", normalize: Normalize = None, task: Task = "auto"
    ) -> None:
        self.unbiased = unbiased
        self.normalize = normalize
        self.task = task

    def _target(self, y: ArrayLike, n: int) -> NDArray[Any]:
        return one_hot(label_target(y, n)) if is_classification(y, self.task) else numeric_target(y, n)[:, None]

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        spectrum = spectra(self.normalize)
        n = spectrum.n
        if self.unbiased not in ("auto", True, False):
            raise ValueError(f"unbiased is {self.unbiased!r}: it must be 'auto', True or False.")
        self.unbiased_ = bool(n >= 4 and n < spectrum.d if self.unbiased == "auto" else self.unbiased)
        if self.unbiased_ and n < 4:
            raise EmbeddingError(
                f"The unbiased alignment needs at least 4 rows, and there are {n}: give unbiased=False."
            )
        if spectrum.rank == 0:
            return 0.0
        Y = y - y.mean(axis=0)
        between = math.fsum(float(spectrum.eigenvalues @ np.square(spectrum.project(t).p)) for t in y.T)
        embedding, target = float(np.sum(spectrum.eigenvalues**2)), float(np.sum((Y.T @ Y) ** 2))
        if self.unbiased_:
            k, t = spectrum.squared_rows, np.einsum("ij,ij->i", Y, Y)
            between = _without_diagonal(between, k, t)
            floors = 1e-12 * embedding, 1e-12 * target
            embedding, target = _without_diagonal(embedding, k, k), _without_diagonal(target, t, t)
            if embedding <= floors[0] or target <= floors[1]:
                return self._degenerate(
                    "the unbiased similarity of embedding or target with itself is not positive, as single rows make "
                    "up all of the variance; use unbiased=False."
                )
        return between / math.sqrt(embedding * target)


class GPEvidence(TransferabilityEstimator):
    """Largest log evidence per row of a Gaussian process on the embedding.

    Covariance ``s² k(‖z − z'‖/ℓ) + s² t δ`` for the centred target; s² is profiled out, t and ℓ are searched:
    ``score = max_{ℓ,t} −½[Σ log(1 + λ_i/t)/n + log(q/n) + 1 + log 2π]`` with λ the eigenvalues of the kernel matrix.

    Parameters
    ----------
    kernel : "rbf" or "matern"
        ``exp(−u²/2)``, or ``(1 + √3u) exp(−√3u)`` (ν = 3/2).
    normalize : "standard", None or "l2"
        Of the embedding, before Euclidean distances.
    max_rows : int
        Larger tables are cut to this many rows drawn at random, since the cost is cubic.
    random_state : int
        Seed of the draw.

    Attributes
    ----------
    score_ : float
        Nats per row.
    length_scale_ : float
        Best ℓ, in the unit of the normalised embedding.
    t_ : float
        Best ratio of noise to signal variance.

    Notes
    -----
    Cost: about 17 eigendecompositions of a matrix of min(n, max_rows) rows. ℓ is searched from 1/8 to 32 times the
    median distance. Equal to scikit-learn's ``GaussianProcessRegressor`` with ``ConstantKernel * RBF + WhiteKernel``.

    References
    ----------
    Rasmussen & Williams (2006), section 5.4.

    Examples
    --------
    >>> import numpy as np
    >>> from scotl_matgl.estimators import GPEvidence
    >>> Z = np.linspace(0, 6, 30)[:, None]
    >>> GPEvidence().fit(Z, np.sin(Z[:, 0])).score_ > GPEvidence().fit(Z, np.cos(40 * Z[:, 0])).score_
    True
    """

    references = ("Rasmussen, C. E. & Williams, C. K. I. Gaussian processes for machine learning. MIT Press (2006).",)

    def __init__(
        self,
        kernel: Literal["rbf", "matern"] = "rbf",
        normalize: Normalize = "standard",
        max_rows: int = 500,
        random_state: int = 0,
    ) -> None:
        self.kernel = kernel
        self.normalize = normalize
        self.max_rows = max_rows
        self.random_state = random_state

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        if self.kernel not in ("rbf", "matern"):
            raise ValueError(f"kernel is {self.kernel!r}: it must be 'rbf' or 'matern'.")
        n = y.shape[0]
        if n > self.max_rows:
            rows = np.sort(np.random.default_rng(self.random_state).permutation(n)[: self.max_rows])
            y = numeric_target(y[rows], rows.size)
            spectra = Spectra(spectra.Z[rows])
        F = spectra.matrix(self.normalize)
        squared = _squared_distances(F, F)
        np.fill_diagonal(squared, 0.0)
        target = y - y.mean()
        median = math.sqrt(float(np.median(squared[np.triu_indices_from(squared, 1)])))
        # More than half of the rows may be equal; the mean is then the scale that is left.
        unit = median or math.sqrt(float(squared.mean()))
        if unit == 0:
            self.length_scale_, self.t_ = math.inf, math.inf
            return maximise_evidence(np.zeros(0), np.zeros(0), float(target @ target), y.size, y.size)[0]

        tried: list[tuple[float, float, float]] = []

        def loss(log_scale: float) -> float:
            value, t = self._evidence(squared, target, unit * math.exp(log_scale))
            tried.append((value, float(log_scale), t))
            return -value

        grid = np.log(2.0) * np.arange(-3.0, 6.0)
        best = int(np.argmin([loss(point) for point in grid]))
        bounds = (grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)])
        # Around the maximum 1 % of the length scale changes the evidence by about 1e-5.
        minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-2})
        score, log_scale, self.t_ = max(tried)
        self.length_scale_ = unit * math.exp(log_scale)
        return score

    def _evidence(self, squared: FloatArray, target: FloatArray, scale: float) -> tuple[float, float]:
        if self.kernel == "rbf":
            K = np.exp(squared * (-0.5 / scale**2))
        else:
            distance = np.sqrt(3.0 * squared) / scale
            K = (1.0 + distance) * np.exp(-distance)
        values, vectors = eigh(K, overwrite_a=True, check_finite=False, driver="evd")
        keep = values > target.size * EPS * values[-1]
        p = np.square(vectors.T @ target)
        # Directions that the kernel cannot tell from rounding carry noise only.
        return maximise_evidence(values[keep][::-1], p[keep][::-1], float(p[~keep].sum()), target.size, target.size)


def _squared_distances(A: FloatArray, B: FloatArray) -> FloatArray:
    """Squared Euclidean distances of all rows of A to all rows of B, at least 0."""
    squared = np.einsum("ij,ij->i", A, A)[:, None] + np.einsum("ij,ij->i", B, B) - 2.0 * (A @ B.T)
    return np.asarray(np.maximum(squared, 0.0, out=squared))


def _neighbour_means(F: FloatArray, Y: FloatArray, k: int) -> FloatArray:
    """Mean of Y over the k nearest other rows, those tied with the k-th included."""
    n = F.shape[0]
    # Differences of squared lengths leave rounding of their own size; nearer than that is equally near.
    rounding = 64.0 * EPS * float(np.einsum("ij,ij->i", F, F).max())
    means = np.empty_like(Y, dtype=np.float64)
    block = max(1, BLOCK_VALUES // n)
    for start in range(0, n, block):
        rows = slice(start, min(start + block, n))
        squared = _squared_distances(F[rows], F)
        squared[np.arange(squared.shape[0]), np.arange(rows.start, rows.stop)] = np.inf
        reach = np.partition(squared, k - 1, axis=1)[:, k - 1 : k] + rounding
        near = (squared <= reach).astype(np.float64)
        means[rows] = (near @ Y) / near.sum(axis=1, keepdims=True)
    return means


def _without_diagonal(product: float, k: FloatArray, t: FloatArray) -> float:
    """U-statistic of ⟨K, L⟩ from the plain product of centred kernels and their diagonals, up to n(n − 3)."""
    n = k.size
    crossed = float(k @ t)
    return product - crossed + float(k.sum()) * float(t.sum()) / ((n - 1) * (n - 2)) - 2.0 * crossed / (n - 2)
