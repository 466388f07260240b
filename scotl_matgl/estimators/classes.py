"""Estimators from classes of the target in the embedding: H-score, TransRate, Bhattacharyya coefficient."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import blas, cholesky

from scotl_matgl.estimators.base import TransferabilityEstimator, classes_of, label_target, one_hot, positive
from scotl_matgl.estimators.spectrum import EPS, FloatArray, Normalize, Spectra, Spectrum
from scotl_matgl.tables.target import Task


class _Binned(TransferabilityEstimator):
    """Takes labels as they are and a measured property in quantile classes."""

    tasks = ("regression", "classification")
    n_bins: int
    task: Task

    def _target(self, y: ArrayLike, n: int) -> NDArray[Any]:
        return classes_of(y, n, self.task, self.n_bins)


class HScore(_Binned):
    """Share of the variance of the embedding that lies between the classes of the target, whitened.

    ``H = tr(cov(F)⁻¹ cov(E[f|y]))``. Regularised: ``H = (1 − δ) tr(C⁻¹ cov(E[f|y]))`` with the Ledoit-Wolf covariance
    ``C = (1 − δ) S + δ (tr S/d) 1``, ``S = FᵀF/n``; as published, only cov(E[f|y]) then has n − 1 as denominator.

    Parameters
    ----------
    regularized : bool
        Shrink the covariance. Without, the score is K − 1 for every embedding of at least n − 1 columns, and is NaN
        then, with a `DegenerateScoreWarning`.
    n_bins : int
        Number of quantile classes of a measured property.
    task : "auto", "regression" or "classification"
        See `scotl_matgl.tables.target.is_classification`.

    Attributes
    ----------
    score_ : float
        0 … K − 1 for K classes, without unit.
    shrinkage_ : float
        Ledoit-Wolf δ (0 if not regularised).

    Notes
    -----
    Cost: one spectrum and O(nd) more: δ needs Σ‖f‖⁴ only. Without regularisation the score does not change under any
    invertible linear map of the embedding; with it, under rotation and scale.

    References
    ----------
    Bao et al. (2019); Ibrahim et al. (2022) for the regularised form; Ledoit & Wolf (2004).

    Examples
    --------
    >>> from scotl_matgl.estimators import HScore
    >>> Z = [[0.0], [1.0], [4.0], [5.0]]
    >>> round(HScore(regularized=False).fit(Z, ["insulator", "insulator", "metal", "metal"]).score_, 6)
    0.941176
    """

    references = (
        "Bao, Y. et al. An information-theoretic approach to transferability in task transfer learning. "
        "ICIP 2019, 2309-2313.",
        "Ibrahim, S., Ponomareva, N. & Mazumder, R. Newer is not always better: rethinking transferability metrics, "
        "their peculiarities, stability and performance. ECML PKDD 2022.",
        "Ledoit, O. & Wolf, M. A well-conditioned estimator for large-dimensional covariance matrices. "
        "J. Multivariate Analysis 88, 365-411 (2004).",
    )

    def __init__(self, regularized: bool = True, n_bins: int = 5, task: Task = "auto") -> None:
        self.regularized = regularized
        self.n_bins = n_bins
        self.task = task

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        spectrum = spectra(None)
        n = spectrum.n
        if not self.regularized and spectrum.live >= n - 1:
            return self._degenerate(
                f"the embedding has {spectrum.live} varying columns for {n} rows, so that the whitened classes are "
                "always fully apart; use regularized=True."
            )
        self.shrinkage_ = ledoit_wolf_shrinkage(spectrum) if self.regularized else 0.0
        if spectrum.rank == 0:
            return 0.0
        counts = np.bincount(y)
        means = spectrum.project_features(one_hot(y).T / counts[:, None])
        mean_variance = float(spectrum.eigenvalues.sum()) / (n * spectrum.d)
        variances = (1.0 - self.shrinkage_) * spectrum.eigenvalues / n + self.shrinkage_ * mean_variance
        score = (1.0 - self.shrinkage_) * float((counts / n) @ (np.square(means) @ (1.0 / variances)))
        # The unregularised form is a ratio of two covariances with one denominator, which cancels.
        return score * n / (n - 1) if self.regularized else score


class TransRate(_Binned):
    """Rate of coding the embedding less the mean rate of coding its classes.

    ``score = R(F) − Σ_c w_c R(F_c)``, ``R(F) = ½ log det(1 + FᵀF/(nε))``, F centred over all rows.

    Parameters
    ----------
    weights : "uniform" or "count"
        w_c = 1/K as in the released code, or n_c/n, which makes it an information.
    eps : float
        Squared distortion ε > 0.
    n_bins : int
        Number of quantile classes of a measured property.
    normalize : None, "l2" or "standard"
        Of the embedding; published without, and then it grows with scale and width: compare sources of unlike width
        only with "l2".
    task : "auto", "regression" or "classification"
        See `scotl_matgl.tables.target.is_classification`.

    Attributes
    ----------
    score_ : float
        Nats.

    Notes
    -----
    Cost: one spectrum, and for each class of n_c rows a Cholesky factorisation of a matrix of min(n_c, d) rows.

    References
    ----------
    Huang et al. (2022), eq. 4.

    Examples
    --------
    >>> from scotl_matgl.estimators import TransRate
    >>> Z = [[-1.0], [-1.0], [1.0], [1.0]]
    >>> round(abs(TransRate(eps=1.0).fit(Z, ["a", "b", "a", "b"]).score_), 12)
    0.0
    >>> Z = [[-1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    >>> round(TransRate(eps=1.0).fit(Z, ["a", "a", "a", "a", "b", "b"]).score_, 6)
    0.05268
    """

    references = (
        "Huang, L.-K., Huang, J., Rong, Y., Yang, Q. & Wei, Y. Frustratingly easy transferability estimation. "
        "ICML 2022, PMLR 162, 9201-9225.",
    )

    def __init__(
        self,
        weights: Literal["uniform", "count"] = "uniform",
        eps: float = 1e-4,
        n_bins: int = 5,
        normalize: Normalize = None,
        task: Task = "auto",
    ) -> None:
        self.weights = weights
        self.eps = eps
        self.n_bins = n_bins
        self.normalize = normalize
        self.task = task

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        if self.weights not in ("uniform", "count"):
            raise ValueError(f"weights is {self.weights!r}: it must be 'uniform' or 'count'.")
        eps = float(positive("eps", self.eps)[0])
        spectrum = spectra(self.normalize)
        counts = np.bincount(y)
        rates = np.array([_coding_rate(spectrum.matrix[y == c], eps) for c in range(counts.size)])
        whole = 0.5 * float(np.log1p(spectrum.eigenvalues / (spectrum.n * eps)).sum())
        weights = counts / spectrum.n if self.weights == "count" else np.full(counts.size, 1.0 / counts.size)
        return whole - float(weights @ rates)


class GBC(TransferabilityEstimator):
    """Negative overlap of the classes in the embedding, each taken as a Gaussian.

    ``score = −Σ_{c≠c'} exp(−D(c, c'))`` with the Bhattacharyya distance
    ``D = ⅛ Δμᵀ Σ⁻¹ Δμ + ½ log(|Σ|/√(|Σ_c||Σ_c'|))``, ``Σ = (Σ_c + Σ_c')/2``, on the leading principal components.

    Parameters
    ----------
    covariance : "spherical" or "diagonal"
        Form of each class covariance.
    n_components : int
        Number of principal components kept at most.

    Attributes
    ----------
    score_ : float
        −K(K − 1) … 0 for K classes: 0 where no two classes overlap.

    Notes
    -----
    Cost: one spectrum, the leading left vectors, O(K²·n_components). Class variances have a floor of 1e-4 times the
    mean variance of the components kept, so that the scale of the embedding does not matter (the released code has an
    absolute floor). The spherical determinant counts every dimension, as the formula asks.

    References
    ----------
    Pándy et al. (2022), eq. 3 and 4.

    Examples
    --------
    >>> from scotl_matgl.estimators import GBC
    >>> round(GBC().fit([[0.0], [1.0], [0.0], [1.0]], ["a", "a", "b", "b"]).score_, 12)
    -2.0
    """

    tasks = ("classification",)
    references = (
        "Pándy, M., Agostinelli, A., Uijlings, J., Ferrari, V. & Mensink, T. Transferability estimation using "
        "Bhattacharyya class separability. CVPR 2022, 9172-9182.",
    )

    def __init__(self, covariance: Literal["spherical", "diagonal"] = "spherical", n_components: int = 64) -> None:
        self.covariance = covariance
        self.n_components = n_components

    def _target(self, y: ArrayLike, n: int) -> NDArray[Any]:
        return label_target(y, n)

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        if self.covariance not in ("spherical", "diagonal"):
            raise ValueError(f"covariance is {self.covariance!r}: it must be 'spherical' or 'diagonal'.")
        spectrum = spectra(None)
        counts = np.bincount(y)
        if spectrum.rank == 0:
            return -float(counts.size * (counts.size - 1))
        components = spectrum.components(self.n_components)
        weights = one_hot(y).T / counts[:, None]
        means = weights @ components
        variances = np.stack([components[y == c].var(axis=0) for c in range(counts.size)])
        if self.covariance == "spherical":
            variances = np.broadcast_to(variances.mean(axis=1, keepdims=True), means.shape)
        variances = np.maximum(variances, 1e-4 * components.var(axis=0).mean())
        logs = np.log(variances).sum(axis=1)
        overlap = 0.0
        for c in range(1, counts.size):
            middle = 0.5 * (variances[c] + variances[:c])
            distance = 0.125 * (np.square(means[c] - means[:c]) / middle).sum(axis=1)
            distance += 0.5 * np.log(middle).sum(axis=1) - 0.25 * (logs[c] + logs[:c])
            overlap += 2.0 * float(np.exp(-distance).sum())
        return -overlap


def ledoit_wolf_shrinkage(spectrum: Spectrum) -> float:
    """Ledoit-Wolf shrinkage of the covariance of an embedding, 0 … 1, in O(nd) after the spectrum."""
    n, d = spectrum.n, spectrum.d
    if d == 1 or spectrum.rank == 0:
        return 0.0
    squared_norm = float(np.sum(np.square(spectrum.eigenvalues / n)))
    mean = float(spectrum.eigenvalues.sum()) / (n * d)
    dispersion = squared_norm - d * mean**2
    if dispersion <= EPS * squared_norm:
        # All variances are equal: the target of the shrinkage is the covariance itself.
        return 0.0
    noise = (float(np.sum(np.square(spectrum.squared_rows))) / n - squared_norm) / n
    return min(noise, dispersion) / dispersion


def _coding_rate(F: FloatArray, eps: float) -> float:
    """½ log det(1 + FᵀF/(nε)) through the smaller Gram matrix."""
    n, d = F.shape
    gram = blas.dsyrk(1.0 / (n * eps), F.T, trans=0 if n >= d else 1, lower=1)
    gram[np.diag_indices_from(gram)] += 1.0
    # log det is twice the sum of logarithms of the factor's diagonal.
    return float(np.log(np.diag(cholesky(gram, lower=True, overwrite_a=True, check_finite=False))).sum())
