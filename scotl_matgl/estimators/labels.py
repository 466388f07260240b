"""Estimators from joint frequencies of target labels and what a source assigns: LEEP, N-LEEP, NCE."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scotl_matgl.estimators.base import TransferabilityEstimator, label_target, one_hot
from scotl_matgl.estimators.spectrum import EmbeddingError, FloatArray, Spectra


class LEEP(TransferabilityEstimator):
    """Log likelihood of the labels given the source's class probabilities.

    ``score = Σ_i log(Σ_z P(y_i|z) θ_iz)/n`` with the joint frequencies ``P(y, z) = Σ_{i: y_i = y} θ_iz/n``.

    Attributes
    ----------
    score_ : float
        ≤ 0, nats per row; 0 where the source's classes determine the labels.

    Notes
    -----
    `fit` takes the output of the source as Z: class probabilities of shape (n, S), rows summing to 1, or, for a source
    of two classes, the probability of the second, shape (n,) or (n, 1). Cost O(nSK).

    References
    ----------
    Nguyen et al. (2020), eq. 2.

    Examples
    --------
    >>> from scotl_matgl.estimators import LEEP
    >>> round(LEEP().fit([0.9, 0.8, 0.2, 0.1], ["metal", "metal", "insulator", "insulator"]).score_, 6)
    -0.295476
    """

    tasks = ("classification",)
    takes = "output"
    references = (
        "Nguyen, C. V., Hassner, T., Seeger, M. & Archambeau, C. LEEP: a new measure to evaluate transferability of "
        "learned representations. ICML 2020, PMLR 119, 7294-7305.",
    )

    def _spectra(self, Z: ArrayLike | Spectra) -> Spectra:
        return super()._spectra(Z if isinstance(Z, Spectra) or np.ndim(Z) != 1 else np.asarray(Z)[:, None])

    def _target(self, y: ArrayLike, n: int) -> NDArray[Any]:
        return label_target(y, n)

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        theta = spectra.Z
        if theta.shape[1] == 1:
            theta = np.hstack([1.0 - theta, theta])
        wrong = np.flatnonzero((theta < 0).any(axis=1) | (np.abs(theta.sum(axis=1) - 1.0) > 1e-3))
        if wrong.size:
            row = theta[wrong[0]]
            raise EmbeddingError(
                f"Row {wrong[0]} of the source's output is no set of class probabilities (values from "
                f"{row.min():g} to {row.max():g}, sum {row.sum():g}): LEEP is fitted "
                "on probabilities, shape (n, classes); for an embedding use NLEEP."
            )
        return log_expected_probability(theta, y)


class NLEEP(TransferabilityEstimator):
    """LEEP with the clusters of the embedding in place of the source's classes.

    The embedding is reduced to its leading principal components, a Gaussian mixture is fitted, and LEEP takes the
    posterior probabilities of its components.

    Parameters
    ----------
    n_components : "auto" or int
        Number of Gaussians; "auto": five for each class, fewer than rows.
    variance : float
        Share of the variance that the principal components keep, 0 … 1.
    covariance : "full" or "diag"
        Form of the covariance of each Gaussian.
    random_state : int
        Seed of the start of the mixture.

    Attributes
    ----------
    score_ : float
        ≤ 0, nats per row.

    Notes
    -----
    Cost: one spectrum and the mixture, O(n k² n_components) a step for k principal components. The start is random, so
    the score depends slightly on seed and order of rows. With few rows a Gaussian for each of them makes it too good:
    compare sources at one size of table.

    References
    ----------
    Li et al. (2021).

    Examples
    --------
    >>> from scotl_matgl.estimators import NLEEP
    >>> Z = [[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]]
    >>> NLEEP(n_components=2).fit(Z, list("aaabbb")).score_ > -1e-6
    True
    """

    tasks = ("classification",)
    references = ("Li, Y. et al. Ranking neural checkpoints. CVPR 2021, 2663-2673.", *LEEP.references)

    def __init__(
        self,
        n_components: Literal["auto"] | int = "auto",
        variance: float = 0.8,
        covariance: Literal["full", "diag"] = "full",
        random_state: int = 0,
    ) -> None:
        self.n_components = n_components
        self.variance = variance
        self.covariance = covariance
        self.random_state = random_state

    def _target(self, y: ArrayLike, n: int) -> NDArray[Any]:
        return label_target(y, n)

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        if not 0 < self.variance <= 1:
            raise ValueError(f"variance is {self.variance!r}: it must lie above 0 and at most at 1.")
        spectrum = spectra(None)
        n = spectrum.n
        if spectrum.rank == 0:
            return log_expected_probability(np.ones((n, 1)), y)
        share = np.cumsum(spectrum.eigenvalues) / spectrum.eigenvalues.sum()
        kept = min(int(np.searchsorted(share, self.variance * (1 - 1e-12))) + 1, spectrum.rank)
        # In units of the whole spread the mixture's fixed regularisation means the same for every source.
        components = spectrum.components(kept) / np.sqrt(spectrum.eigenvalues.sum() / n)
        number = min(5 * (int(y.max()) + 1), n - 1) if self.n_components == "auto" else int(self.n_components)
        if not 1 <= number <= n:
            raise EmbeddingError(f"n_components is {number} and there are {n} rows: it must lie from 1 to n.")
        mixture = GaussianMixture(number, covariance_type=self.covariance, random_state=self.random_state)
        with warnings.catch_warnings():
            # An unconverged mixture is still a clustering, which is all that is needed of it; fewer distinct rows than
            # Gaussians only leave some of them empty.
            warnings.simplefilter("ignore", ConvergenceWarning)
            theta = mixture.fit(components).predict_proba(components)
        return log_expected_probability(np.asarray(theta, dtype=np.float64), y)


class NCE(TransferabilityEstimator):
    """Negative conditional entropy of the labels given the source's labels.

    ``score = Σ_{y,z} P(y, z) log P(y|z)`` with the joint frequencies P(y, z).

    Attributes
    ----------
    score_ : float
        ≤ 0, nats per row; 0 where the source's labels determine the target's.

    Notes
    -----
    `fit` takes the output of the source as Z: one label per row of any kind, shape (n,) or (n, 1), or class
    probabilities of shape (n, S), of which the largest is taken. Cost O(n).

    References
    ----------
    Tran et al. (2019).

    Examples
    --------
    >>> from scotl_matgl.estimators import NCE
    >>> NCE().fit(["metal", "metal", "insulator", "insulator"], [1, 1, 0, 0]).score_
    0.0
    """

    tasks = ("classification",)
    takes = "output"
    references = (
        "Tran, A. T., Nguyen, C. V. & Hassner, T. Transferability and hardness of supervised classification tasks. "
        "ICCV 2019, 1395-1405.",
    )

    def _spectra(self, Z: ArrayLike | Spectra) -> Spectra:
        if isinstance(Z, Spectra):
            return Z
        values = np.asarray(Z)
        if values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1 and values.dtype.kind not in "fiu"):
            labels = values.reshape(-1)
            if labels.dtype.kind not in "fc":
                return Spectra(np.unique(labels.astype(str), return_inverse=True)[1][:, None].astype(np.float64))
            return super()._spectra(labels[:, None])
        return super()._spectra(Z)

    def _target(self, y: ArrayLike, n: int) -> NDArray[Any]:
        return label_target(y, n)

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        source = spectra.Z[:, 0] if spectra.shape[1] == 1 else np.argmax(spectra.Z, axis=1)
        codes = np.unique(source, return_inverse=True)[1]
        joint = np.zeros((int(y.max()) + 1, int(codes.max()) + 1))
        np.add.at(joint, (y, codes), 1.0 / y.size)
        present = joint > 0
        conditional = joint / joint.sum(axis=0)
        return float(np.sum(joint[present] * np.log(conditional[present])))


def log_expected_probability(theta: FloatArray, y: NDArray[np.int64]) -> float:
    """LEEP of probabilities θ (n, S) and label codes (n,)."""
    joint = one_hot(y).T @ theta
    used = joint.sum(axis=0) > 0
    conditional = joint[:, used] / joint[:, used].sum(axis=0)
    expected = np.einsum("ij,ij->i", theta[:, used], conditional[y])
    return float(np.log(expected).mean())
