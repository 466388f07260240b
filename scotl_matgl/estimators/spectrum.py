"""One eigendecomposition of an embedding, primal or dual, shared by every linear transferability estimator.

With the columns of the embedding centred, ``F = U S Vᵀ``, and ``σ = s²``, every linear score needs only ``σ``,
``p = Uᵀ(y − ȳ)``, the squared residual ``r = ‖y − ȳ‖² − ‖p‖²`` and the shape; leave-one-out also needs ``U``. The
decomposition is that of the d × d Gram matrix when n ≥ d, else of the n × n one: O(nd min(n, d)) once, O(k) a score.

Precision
---------
Everything is computed in float64 whatever the input. A Gram matrix squares the condition number, so singular values
below about 1e-7 of the largest cannot be told from zero: eigenvalues below ``max(n, d) · eps · σ_max`` are taken as
zero. Embeddings come from float32 networks, whose own rounding (6e-8 of the largest value) is of that size, so nothing
that was ever resolved is lost; the ridge scores weigh such directions by σ/(σ + α), which vanishes there anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import blas, eigh
from scipy.optimize import minimize_scalar

Normalize = Literal["l2", "standard"] | None
FloatArray = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)
# Squares of values outside this range leave float64, and with them the Gram matrix.
LARGEST, SMALLEST = 1e140, 1e-140


class EmbeddingError(ValueError):
    """An embedding or a target from which no transferability score can be computed."""


def check_embedding(Z: ArrayLike) -> FloatArray:
    """Return an embedding as a finite float64 matrix, or say where it is not one.

    Parameters
    ----------
    Z : array-like of shape (n, d)
        Embedding, one row per material, two rows at least; integers, float32 and float64 are taken.

    Returns
    -------
    ndarray of shape (n, d), float64
        The input itself where it already is one: callers must not write into it.

    Raises
    ------
    EmbeddingError
        Not a matrix, too few rows, no columns, or NaN, infinite or too large values; the message names the place.
    """
    array = np.asarray(Z)
    if array.dtype.kind == "c":
        raise EmbeddingError("Complex data not supported: the embedding must hold real numbers.")
    if array.dtype.kind not in "biuf":
        problem = f"The embedding holds values of type {array.dtype} that are no numbers"
        try:
            array = array.astype(np.float64)
        except TypeError as error:
            raise TypeError(f"{problem}: {error}.") from error
        except ValueError as error:
            raise EmbeddingError(f"{problem}: {error}.") from error
    array = np.asarray(array, dtype=np.float64)
    if array.ndim != 2:
        raise EmbeddingError(
            f"The embedding has shape {array.shape}; expected 2D array of shape (n, d), one row per material. "
            "Reshape your data: Z.reshape(-1, 1) if it is a single column."
        )
    n, d = array.shape
    for size, what, minimum in ((n, "sample", 2), (d, "feature", 1)):
        if size < minimum:
            raise EmbeddingError(
                f"The embedding has {size} {what}(s) (shape={array.shape}) while a minimum of {minimum} is required."
            )
    # min and max are NaN or infinite if any value is, without a temporary of the size of the matrix.
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        row, column = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        value = "NaN" if np.isnan(array[row, column]) else "inf"
        raise EmbeddingError(
            f"The embedding contains {value} (first at row {row}, column {column}): drop that row, or look at why the "
            "encoder refused it."
        )
    largest = max(-low, high)
    if largest > LARGEST or 0 < largest < SMALLEST:
        raise EmbeddingError(
            f"The largest value of the embedding is {largest:.1e}, whose square float64 cannot hold: rescale it."
        )
    return array


@dataclass(frozen=True, eq=False)
class Projection:
    """A target on the left singular vectors of an embedding.

    Attributes
    ----------
    p : ndarray of shape (k,)
        ``Uᵀ(y − ȳ)``, in the unit of y.
    r : float
        Squared length of what no linear function of the embedding reaches, ``‖y − ȳ‖² − ‖p‖²``; 0 when k is as large
        as it can be.
    total : float
        ``‖y − ȳ‖²``.
    mean : float
        ȳ, or 0 when the spectrum is not centred.
    centred : ndarray of shape (n,)
        ``y − ȳ``.
    """

    p: FloatArray
    r: float
    total: float
    mean: float
    centred: FloatArray


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigendecomposition of a normalised and centred embedding; build it with `Spectrum.of`.

    Attributes
    ----------
    eigenvalues : ndarray of shape (k,), float64
        σ of ``FᵀF``, descending, those that are zero to rounding left out.
    matrix : ndarray of shape (n, d), float64
        F itself, after normalisation and centring.
    vectors : ndarray of shape (d, k) or (n, k)
        Right singular vectors if `primal`, else left ones.
    primal : bool
        Whether the d × d Gram matrix was decomposed (n ≥ d).
    centred : bool
        Whether the column means were taken away.
    live : int
        Number of columns that are not constant (not zero, if not centred).
    """

    eigenvalues: FloatArray
    matrix: FloatArray
    vectors: FloatArray
    primal: bool
    centred: bool
    live: int

    @classmethod
    def of(cls, Z: ArrayLike, *, normalize: Normalize = None, center: bool = True) -> Spectrum:
        """Decompose an embedding.

        Parameters
        ----------
        Z : array-like of shape (n, d)
            Embedding; never modified.
        normalize : None, "l2" or "standard"
            Nothing; rows to unit Euclidean length (a zero row stays zero); or columns to unit variance (a constant
            column becomes zero). It comes before centring.
        center : bool
            Take away the column means, which is what a free intercept amounts to.

        Returns
        -------
        Spectrum

        Raises
        ------
        EmbeddingError
            See `check_embedding`.

        Notes
        -----
        Cost: O(n d m) + O(m³), m = min(n, d); memory one copy of Z and m².

        Examples
        --------
        >>> import numpy as np
        >>> from scotl_matgl.estimators.spectrum import Spectrum
        >>> spectrum = Spectrum.of([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
        >>> spectrum.eigenvalues
        array([8., 2.])
        >>> spectrum.rank, spectrum.saturated
        (2, False)
        """
        return cls._decompose(*prepare(check_embedding(Z), normalize, center), center)

    @classmethod
    def _decompose(cls, F: FloatArray, live: int, center: bool) -> Spectrum:
        n, d = F.shape
        primal = n >= d
        # syrk does half the work of a general product; the transposed view is Fortran-ordered, so nothing is copied.
        gram = blas.dsyrk(1.0, F.T, trans=0 if primal else 1, lower=1)
        values, vectors = eigh(gram, lower=True, overwrite_a=True, check_finite=False, driver="evd")
        values, vectors = values[::-1], vectors[:, ::-1]
        possible = min(n - 1 if center else n, live)
        keep = values[:possible] > max(n, d) * EPS * max(values[0], 0.0) if live else np.zeros(0, dtype=bool)
        k = int(np.count_nonzero(keep))
        return cls(
            eigenvalues=np.ascontiguousarray(values[:k]),
            matrix=F,
            vectors=np.asfortranarray(vectors[:, :k]),
            primal=primal,
            centred=center,
            live=live,
        )

    @property
    def n(self) -> int:
        """Number of rows (materials)."""
        return int(self.matrix.shape[0])

    @property
    def d(self) -> int:
        """Number of columns (width of the embedding)."""
        return int(self.matrix.shape[1])

    @property
    def rank(self) -> int:
        """Number of eigenvalues that are not zero."""
        return int(self.eigenvalues.shape[0])

    @property
    def freedom(self) -> int:
        """Largest rank that n rows allow: n − 1 when centred, else n."""
        return self.n - 1 if self.centred else self.n

    @property
    def saturated(self) -> bool:
        """Whether a linear function of the embedding reaches every target, so that a fit says nothing."""
        return self.rank >= self.freedom

    @cached_property
    def left(self) -> FloatArray:
        """Left singular vectors U of shape (n, k); O(n d k) on first use in the primal case."""
        if not self.primal:
            return self.vectors
        return np.asarray(self.matrix @ (self.vectors / np.sqrt(self.eigenvalues)))

    @cached_property
    def squared_left(self) -> FloatArray:
        """Elementwise square of `left`, from which leverages come."""
        return np.square(self.left)

    @cached_property
    def squared_rows(self) -> FloatArray:
        """Squared Euclidean lengths of the rows of `matrix`, shape (n,)."""
        return np.asarray(np.einsum("ij,ij->i", self.matrix, self.matrix))

    def project(self, y: ArrayLike) -> Projection:
        """Project a numeric target on the left singular vectors, in O(nd).

        Parameters
        ----------
        y : array-like of shape (n,)
            Target; never modified.

        Returns
        -------
        Projection
        """
        target = np.asarray(y, dtype=np.float64)
        if target.shape != (self.n,):
            raise EmbeddingError(
                f"The target has shape {target.shape} and the embedding {self.n} rows: give one value per row."
            )
        mean = float(target.mean()) if self.centred else 0.0
        centred = target - mean
        if self.primal:
            p = (self.vectors.T @ (self.matrix.T @ centred)) / np.sqrt(self.eigenvalues)
        else:
            p = self.vectors.T @ centred
        total = float(centred @ centred)
        # What is left of a difference of equal numbers is rounding, and its logarithm would be noise.
        r = 0.0 if self.saturated else max(total - float(p @ p), EPS * total)
        return Projection(p=p, r=r, total=total, mean=mean, centred=centred)

    def components(self, number: int) -> FloatArray:
        """Leading principal components of the rows, ``F V`` cut to at most `number` columns, shape (n, m)."""
        m = min(int(number), self.rank)
        if self.primal:
            return np.asarray(self.matrix @ self.vectors[:, :m])
        return np.asarray(self.vectors[:, :m] * np.sqrt(self.eigenvalues[:m]))

    def project_features(self, rows: FloatArray) -> FloatArray:
        """Coordinates ``M V`` of vectors of the embedding space on the right singular vectors.

        Parameters
        ----------
        rows : ndarray of shape (m, n)
            Weights of the rows of the embedding: the vectors are ``rows @ F``.

        Returns
        -------
        ndarray of shape (m, k)
            O(m n d) in the primal case, O(m n k) in the dual one.
        """
        if self.primal:
            return np.asarray((rows @ self.matrix) @ self.vectors)
        return np.asarray((rows @ self.vectors) * np.sqrt(self.eigenvalues))

    def leverages(self, alpha: ArrayLike) -> FloatArray:
        """Diagonal of the ridge hat matrix, intercept included when centred.

        Parameters
        ----------
        alpha : array-like of shape (m,)
            Penalties, > 0, in the unit of the eigenvalues.

        Returns
        -------
        ndarray of shape (n, m)
            ``1/n + Σ_j u_ij² σ_j/(σ_j + α)``.
        """
        filters = self.filters(alpha)
        return np.asarray(self.squared_left @ filters + (1.0 / self.n if self.centred else 0.0))

    def filters(self, alpha: ArrayLike) -> FloatArray:
        """Ridge filter factors σ/(σ + α), shape (k, m)."""
        alphas = np.atleast_1d(np.asarray(alpha, dtype=np.float64))
        return np.asarray(self.eigenvalues[:, None] / (self.eigenvalues[:, None] + alphas))

    def squared_error(self, projection: Projection, alpha: ArrayLike) -> FloatArray:
        """Training sum of squared residuals of ridge for each α, ``Σ (α/(σ+α))² p² + r``, shape (m,)."""
        alphas = np.atleast_1d(np.asarray(alpha, dtype=np.float64))
        kept = alphas / (self.eigenvalues[:, None] + alphas)
        return np.asarray(np.square(projection.p) @ np.square(kept) + projection.r)


class Spectra:
    """The spectra of one embedding, each computed when first asked for and then shared.

    Estimators take an instance wherever they take an embedding: one source then costs one decomposition per
    normalisation, however many estimators look at it.

    Parameters
    ----------
    Z : array-like of shape (n, d)
        Embedding; never modified, and checked once, here.

    Raises
    ------
    EmbeddingError
        See `check_embedding`.

    Examples
    --------
    >>> import numpy as np
    >>> from scotl_matgl.estimators import GCV, LOORidge
    >>> from scotl_matgl.estimators.spectrum import Spectra
    >>> rng = np.random.default_rng(0)
    >>> Z = rng.normal(size=(60, 8))
    >>> shared = Spectra(Z)
    >>> [estimator.fit(shared, Z[:, 0]).score_ > -0.1 for estimator in (LOORidge(), GCV())]
    [True, True]
    """

    def __init__(self, Z: ArrayLike) -> None:
        self.Z = check_embedding(Z)
        self._prepared: dict[tuple[Normalize, bool], tuple[FloatArray, int]] = {}
        self._spectra: dict[tuple[Normalize, bool], Spectrum] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return (int(self.Z.shape[0]), int(self.Z.shape[1]))

    def __len__(self) -> int:
        return self.shape[0]

    def __call__(self, normalize: Normalize = None, *, center: bool = True) -> Spectrum:
        """Return the spectrum for one normalisation, decomposing at the first call.

        Parameters
        ----------
        normalize, center
            See `Spectrum.of`.

        Returns
        -------
        Spectrum
        """
        key = (normalize, center)
        if key not in self._spectra:
            self.matrix(normalize, center=center)
            self._spectra[key] = Spectrum._decompose(*self._prepared[key], center)
        return self._spectra[key]

    def matrix(self, normalize: Normalize = None, *, center: bool = True) -> FloatArray:
        """Return the normalised and centred embedding without decomposing it.

        Parameters
        ----------
        normalize, center
            See `Spectrum.of`.

        Returns
        -------
        ndarray of shape (n, d), float64
            Shared: callers must not write into it.
        """
        key = (normalize, center)
        if key not in self._prepared:
            self._prepared[key] = prepare(self.Z, normalize, center)
        return self._prepared[key][0]


def log_evidence(
    log_t: ArrayLike, eigenvalues: FloatArray, squared_p: FloatArray, r: float, n: int, freedom: int
) -> FloatArray:
    """Log evidence per row of Bayesian linear regression, the noise precision β profiled out.

    Parameters
    ----------
    log_t : array-like of shape (m,)
        Logarithm of t = α/β, prior over noise precision.
    eigenvalues, squared_p : ndarray of shape (k,)
        σ and p².
    r : float
        Squared residual.
    n : int
        Number of rows.
    freedom : int
        Number over which the determinant is averaged: n, or n − 1 where a fitted intercept takes one dimension of a
        saturated fit.

    Returns
    -------
    ndarray of shape (m,)
        ``−½[Σ log(1 + σ/t)/freedom + log(q/n) + 1 + log 2π]`` with ``q = Σ p²/(1 + σ/t) + r``.
    """
    t = np.exp(np.atleast_1d(np.asarray(log_t, dtype=np.float64)))
    ratio = eigenvalues[:, None] / t
    q = squared_p @ (1.0 / (1.0 + ratio)) + r
    return np.asarray(-0.5 * (np.log1p(ratio).sum(axis=0) / freedom + np.log(q / n) + 1.0 + math.log(2.0 * math.pi)))


def maximise_evidence(
    eigenvalues: FloatArray, squared_p: FloatArray, r: float, n: int, freedom: int
) -> tuple[float, float]:
    """Maximise `log_evidence` over t ∈ (0, ∞].

    A coarse grid finds the basin, since the evidence may have several maxima, and a bounded search refines it. t = ∞,
    where the embedding explains nothing, is one of the candidates. Cost O(k).

    Parameters
    ----------
    eigenvalues, squared_p, r, n, freedom
        See `log_evidence`.

    Returns
    -------
    evidence, t : float
        The largest value and where it stands; t is infinite if the model without the embedding is best.
    """
    total = float(squared_p.sum()) + r
    null = -0.5 * (math.log(total / n) + 1.0 + math.log(2.0 * math.pi))
    if eigenvalues.size == 0:
        return null, math.inf

    def loss(log_t: float) -> float:
        return -float(log_evidence(log_t, eigenvalues, squared_p, r, n, freedom)[0])

    # Beyond these ends every factor 1 + σ/t is either 1 or σ/t to about 1e-10, so the evidence is at its limit.
    low, high = math.log(eigenvalues[-1]) - 24.0, math.log(eigenvalues[0]) + math.log(n) + 24.0
    grid = np.linspace(low, high, math.ceil(high - low) + 1)
    values = log_evidence(grid, eigenvalues, squared_p, r, n, freedom)
    best = int(np.argmax(values))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)])
    result = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    evidence, log_t = max((-float(result.fun), float(result.x)), (float(values[best]), float(grid[best])))
    # At a tie the simpler model is reported: no use of the embedding.
    if evidence <= null + 1e-13 * (1.0 + abs(null)):
        return null, math.inf
    return evidence, math.exp(log_t)


def prepare(Z: FloatArray, normalize: Normalize, center: bool) -> tuple[FloatArray, int]:
    """Normalise and centre an embedding.

    Parameters
    ----------
    Z : ndarray of shape (n, d)
        Checked embedding; not modified.
    normalize, center
        See `Spectrum.of`.

    Returns
    -------
    F : ndarray of shape (n, d), float64
        C-ordered copy.
    live : int
        Number of columns that are not constant (not zero, if neither centred nor standardised).
    """
    if normalize not in (None, "l2", "standard"):
        raise ValueError(f"normalize is {normalize!r}: it must be None, 'l2' (rows) or 'standard' (columns).")
    F = np.array(Z, dtype=np.float64, order="C")
    if normalize == "l2":
        lengths = np.sqrt(np.einsum("ij,ij->i", F, F))
        F /= np.where(lengths > 0, lengths, 1.0)[:, None]
    if not center and normalize != "standard":
        return F, int(np.count_nonzero(F.any(axis=0)))
    size = np.maximum(F.max(axis=0), -F.min(axis=0))
    mean = F.mean(axis=0)
    deviation = F.std(axis=0, mean=mean[None, :])
    # The mean of equal numbers is off by rounding: what remains of a constant column is no information.
    constant = deviation <= 8.0 * EPS * size
    if center:
        F -= mean
    F[:, constant] = 0.0
    if normalize == "standard":
        F /= np.where(constant, 1.0, deviation)
    return F, int(np.count_nonzero(~constant))
