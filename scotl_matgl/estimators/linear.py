"""Estimators that are ridge regression in one form or another, all computed from the spectrum of the embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scotl_matgl.estimators.base import TransferabilityEstimator, label_target, numeric_target, one_hot, positive
from scotl_matgl.estimators.spectrum import FloatArray, Normalize, Projection, Spectra, Spectrum, maximise_evidence
from scotl_matgl.tables.target import Task, is_classification

# Smallest and largest automatic penalty per mean squared row length of the embedding, which on d standardised columns
# is d: the floor is 1.6e-3 at d = 32 and 8e-3 at d = 160. Below it leave-one-out interpolates when n ≤ d and picks
# penalties that do not hold on new rows.
ALPHA_FLOOR = 5e-5
ALPHA_POINTS = 31

Alphas = Literal["auto", "evidence"] | float | Sequence[float] | FloatArray


class SCOTL(TransferabilityEstimator):
    """Reciprocal training error of ridge on unit rows, the score of the SCOTL paper.

    ``score = 1 / RMSE_train`` with ``RMSE² = [Σ (α/(σ+α))² p² + r]/n``, ridge with an intercept.

    Parameters
    ----------
    alpha : float
        Penalty, > 0.
    normalize : "l2", None or "standard"
        The score compares sources only when all rows have length one, as the paper's embeddings have: without it the
        score grows with the scale and the width of the embedding.

    Attributes
    ----------
    score_ : float
        In the reciprocal unit of y.

    Notes
    -----
    Cost: one spectrum of the row-normalised embedding. It is a training error: it rewards width, so read it beside a
    cross-validated score.

    References
    ----------
    The SCOTL paper; see `citations`.

    Examples
    --------
    >>> import numpy as np
    >>> from scotl_matgl.estimators import SCOTL
    >>> Z = np.eye(4)
    >>> round(SCOTL().fit(Z, [0.0, 1.0, 2.0, 3.0]).score_, 6)
    1.788854
    """

    references = (
        "SCOTL: structure-composition alignment for one-shot heterogeneous transfer learning of materials properties; "
        "the score is 1/RMSE of ridge regression on the composition embedding.",
        "Hoerl, A. E. & Kennard, R. W. Ridge regression: biased estimation for nonorthogonal problems. "
        "Technometrics 12, 55-67 (1970).",
    )

    def __init__(self, alpha: float = 1.0, normalize: Normalize = "l2") -> None:
        self.alpha = alpha
        self.normalize = normalize

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        alpha = positive("alpha", self.alpha)
        spectrum = spectra(self.normalize)
        error = float(spectrum.squared_error(spectrum.project(y), alpha)[0])
        return math.sqrt(spectrum.n / error)


class LogME(TransferabilityEstimator):
    """Largest log evidence per row of Bayesian linear regression on the embedding.

    With t the ratio of prior to noise precision and the noise profiled out,
    ``score = max_t −½[Σ log(1 + σ/t)/n + log(q/n) + 1 + log 2π]``, ``q = Σ p²/(1 + σ/t) + r``.
    For class labels it is the mean over the one-hot columns, as published.

    Parameters
    ----------
    fit_intercept : bool
        Centre embedding and target. Where a centred embedding reaches every target (rank n − 1) the intercept leaves
        no residual at all and the evidence has no maximum; the determinant is then averaged over the n − 1 dimensions
        left, which keeps the value for an uninformative embedding the same.
    normalize : None, "l2" or "standard"
        Of the embedding, before all else; published without.
    task : "auto", "regression" or "classification"
        See `scotl_matgl.tables.target.is_classification`.

    Attributes
    ----------
    score_ : float
        Nats per row.
    t_ : float
        Best ratio of precisions (infinite: the embedding explains nothing); the equivalent ridge penalty, in the unit
        of the eigenvalues. For labels, the geometric mean over classes.

    Notes
    -----
    Cost: one spectrum and O(k) a step of a one-dimensional search. Equal to scikit-learn's ``BayesianRidge`` with all
    hyperprior parameters 0, divided by n. The scale of the embedding does not matter; a target times c loses log c.

    References
    ----------
    You et al. (2021), eq. 4; MacKay (1992) for the evidence.

    Examples
    --------
    >>> import numpy as np
    >>> from scotl_matgl.estimators import LogME
    >>> rng = np.random.default_rng(0)
    >>> Z = rng.normal(size=(50, 5))
    >>> informative = LogME().fit(Z, Z @ np.arange(5.0) + rng.normal(size=50)).score_
    >>> informative > LogME().fit(rng.normal(size=(50, 5)), Z @ np.arange(5.0)).score_
    True
    """

    tasks = ("regression", "classification")
    references = (
        "You, K., Liu, Y., Wang, J. & Long, M. LogME: practical assessment of pre-trained models for transfer "
        "learning. ICML 2021, PMLR 139, 12133-12143.",
        "MacKay, D. J. C. Bayesian interpolation. Neural Computation 4, 415-447 (1992).",
    )

    def __init__(self, fit_intercept: bool = True, normalize: Normalize = None, task: Task = "auto") -> None:
        self.fit_intercept = fit_intercept
        self.normalize = normalize
        self.task = task

    def _target(self, y: ArrayLike, n: int) -> NDArray[Any]:
        if is_classification(y, self.task):
            return one_hot(label_target(y, n))
        return numeric_target(y, n)[:, None]

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        spectrum = spectra(self.normalize, center=self.fit_intercept)
        pairs = [evidence(spectrum, spectrum.project(target)) for target in y.T]
        self.t_ = math.exp(math.fsum(math.log(t) for _, t in pairs) / len(pairs))
        return math.fsum(value for value, _ in pairs) / len(pairs)


class _Cross(TransferabilityEstimator):
    """Ridge with a penalty that is given, picked from a grid, or taken from the evidence."""

    def __init__(self, alphas: Alphas = "auto", normalize: Normalize = "standard") -> None:
        self.alphas = alphas
        self.normalize = normalize

    def _penalties(self, spectrum: Spectrum, projection: Projection) -> FloatArray:
        if not isinstance(self.alphas, str):
            return positive("alphas", self.alphas)
        # tr FᵀF/n makes the grid follow the width and scale of the embedding, and not the number of rows.
        unit = float(spectrum.eigenvalues.sum()) / spectrum.n or 1.0
        floor, ceiling = ALPHA_FLOOR * unit, 100.0 * spectrum.n * unit
        if self.alphas == "auto":
            return np.geomspace(floor, ceiling, ALPHA_POINTS)
        if self.alphas == "evidence":
            return np.clip([evidence(spectrum, projection)[1]], floor, ceiling)
        raise ValueError(f"alphas is {self.alphas!r}: it must be 'auto', 'evidence', a number > 0 or several.")


class LOORidge(_Cross):
    """Exact leave-one-out error of ridge regression, in the unit of the target.

    ``e_i = (y_i − ŷ_i)/(1 − h_i)``, ``h_i = 1/n + Σ_j u_ij² σ_j/(σ_j + α)``; ``score = −√(Σ e²/n)``.

    Parameters
    ----------
    alphas : "auto", "evidence", float or sequence of float
        Penalties, the one with the least error is kept. "auto": 31 values from 5e-5 to 100 n times the mean squared row
        length (d, for standardised columns); the floor, 2e-3 to 8e-3 for usual widths, keeps wide embeddings from
        interpolating. "evidence": the one of `LogME`, within the same bounds, so that nothing is picked by the error
        that is reported.
    normalize : "standard", None or "l2"
        "standard" scales columns to unit variance by all n rows.

    Attributes
    ----------
    score_ : float
        −RMSE of the leave-one-out predictions, in the unit of y.
    mae_ : float
        Their mean absolute error, in the unit of y.
    predictions_ : ndarray of shape (n,)
        Leave-one-out predictions, in the unit of y.
    alpha_ : float
        Penalty kept.

    Notes
    -----
    Cost: one spectrum, the left vectors (O(ndk)), and O(nk) a penalty.

    References
    ----------
    Allen (1974), PRESS.

    Examples
    --------
    >>> import numpy as np
    >>> from scotl_matgl.estimators import LOORidge
    >>> Z = np.arange(10.0)[:, None]
    >>> loo = LOORidge().fit(Z, 2.0 * Z[:, 0])
    >>> loo.mae_ < 0.01
    True
    """

    references = (
        "Allen, D. M. The relationship between variable selection and data augmentation and a method for prediction. "
        "Technometrics 16, 125-127 (1974).",
    )

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        spectrum = spectra(self.normalize)
        projection = spectrum.project(y)
        alphas = self._penalties(spectrum, projection)
        fitted = spectrum.left @ (projection.p[:, None] * spectrum.filters(alphas))
        errors = (projection.centred[:, None] - fitted) / (1.0 - spectrum.leverages(alphas))
        best = int(np.argmin(np.einsum("ij,ij->j", errors, errors)))
        error = errors[:, best]
        self.alpha_ = float(alphas[best])
        self.predictions_ = y - error
        self.mae_ = float(np.abs(error).mean())
        return -math.sqrt(float(error @ error) / spectrum.n)


class GCV(_Cross):
    """Generalised cross-validation of ridge regression.

    ``GCV = (SSE/n)/(1 − tr H/n)²``, the trace with the intercept's 1; ``score = −GCV``.

    Parameters
    ----------
    alphas, normalize
        See `LOORidge`.

    Attributes
    ----------
    score_ : float
        −GCV, in the squared unit of y.
    alpha_ : float
        Penalty kept.

    Notes
    -----
    Cost: one spectrum and O(k) a penalty. For n ≤ d both factors vanish with α and the criterion is unreliable: prefer
    `LOORidge`.

    References
    ----------
    Golub, Heath & Wahba (1979).

    Examples
    --------
    >>> import numpy as np
    >>> from scotl_matgl.estimators import GCV
    >>> Z = np.arange(10.0)[:, None]
    >>> GCV().fit(Z, 2.0 * Z[:, 0]).score_ > -1e-4
    True
    """

    references = (
        "Golub, G. H., Heath, M. & Wahba, G. Generalized cross-validation as a method for choosing a good ridge "
        "parameter. Technometrics 21, 215-223 (1979).",
    )

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        spectrum = spectra(self.normalize)
        projection = spectrum.project(y)
        alphas = self._penalties(spectrum, projection)
        n = spectrum.n
        # 1 − tr H/n, written without the cancellation of a saturated fit at a small penalty.
        free = (n - 1 - spectrum.rank + (1.0 - spectrum.filters(alphas)).sum(axis=0)) / n
        values = spectrum.squared_error(projection, alphas) / n / np.square(free)
        best = int(np.argmin(values))
        self.alpha_ = float(alphas[best])
        return -float(values[best])


class LinMSE(TransferabilityEstimator):
    """Smallest penalised training error of a linear function of the embedding.

    ``score = −min_w {‖y − ȳ − F w‖²/n + λ‖w‖²}``, which is ``−[Σ p² λn/(σ + λn) + r]/n``.

    Parameters
    ----------
    lam : float
        λ ≥ 0. With 0 it is the least-squares training error, 0 for every embedding of at least n − 1 columns:
        such a score is NaN with a `DegenerateScoreWarning`.
    normalize : None, "l2" or "standard"
        Of the embedding; published without.

    Attributes
    ----------
    score_ : float
        In the squared unit of y.

    Notes
    -----
    Cost: one spectrum.

    References
    ----------
    Nguyen et al. (2023), linear MSE.

    Examples
    --------
    >>> from scotl_matgl.estimators import LinMSE
    >>> round(LinMSE().fit([[-1.0], [0.0], [1.0]], [-1.0, 0.0, 1.0]).score_, 12)
    -0.4
    """

    references: ClassVar[tuple[str, ...]] = (
        "Nguyen, C. N. et al. Simple transferability estimation for regression tasks. UAI 2023, PMLR 216, 1510-1521.",
    )

    def __init__(self, lam: float = 1.0, normalize: Normalize = None) -> None:
        self.lam = lam
        self.normalize = normalize

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        if not (math.isfinite(self.lam) and self.lam >= 0):
            raise ValueError(f"lam is {self.lam!r}: it must be a finite number ≥ 0.")
        return self._penalised(spectra(self.normalize), y, float(self.lam))

    def _penalised(self, spectrum: Spectrum, y: NDArray[Any], lam: float) -> float:
        if lam == 0 and spectrum.live >= spectrum.n - 1:
            return self._degenerate(
                f"the embedding has {spectrum.live} varying columns for {spectrum.n} rows, so that least squares fits "
                "any target exactly and the training error is 0 whatever the source; use lam > 0 or LOORidge."
            )
        projection = spectrum.project(y)
        alpha = lam * spectrum.n
        residual = float(np.square(projection.p) @ (alpha / (spectrum.eigenvalues + alpha)))
        return -(residual + projection.r) / spectrum.n


class LabMSE(LinMSE):
    """Linear MSE on the source's own scalar output instead of its embedding.

    ``score = −min_{w,b} {Σ (y − w s − b)²/n + λw²}`` with s the source's prediction.

    Parameters
    ----------
    penalised : bool
        λ = 1 if true, else 0.

    Attributes
    ----------
    score_ : float
        In the squared unit of y.

    Notes
    -----
    `fit` takes the output of the source, shape (n,) or (n, 1), as Z. Cost O(n).

    References
    ----------
    Nguyen et al. (2023), label MSE.

    Examples
    --------
    >>> from scotl_matgl.estimators import LabMSE
    >>> round(LabMSE().fit([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]).score_, 12)
    -0.4
    """

    takes = "output"

    def __init__(self, penalised: bool = True) -> None:
        self.penalised = penalised

    def _spectra(self, Z: ArrayLike | Spectra) -> Spectra:
        if isinstance(Z, Spectra):
            return Z
        values = np.asarray(Z)
        return super()._spectra(values[:, None] if values.ndim == 1 else Z)

    def _score(self, spectra: Spectra, y: NDArray[Any]) -> float:
        return self._penalised(spectra(None), y, 1.0 if self.penalised else 0.0)


def evidence(spectrum: Spectrum, projection: Projection) -> tuple[float, float]:
    """Largest log evidence per row of a linear model on a spectrum, and the ratio of precisions that gives it."""
    # A centred fit of rank n − 1 leaves the mean's dimension without residual; see LogME.
    freedom = spectrum.freedom if spectrum.saturated else spectrum.n
    return maximise_evidence(spectrum.eigenvalues, np.square(projection.p), projection.r, spectrum.n, freedom)


__all__ = ["GCV", "SCOTL", "LOORidge", "LabMSE", "LinMSE", "LogME"]
