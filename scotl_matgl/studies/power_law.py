"""The law of an error against the number of rows, a·n^−b + c: its fit, its uncertainty, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import least_squares

from scotl_matgl.exceptions import InputError

Floats = NDArray[np.float64]

#: Beyond so many times the largest size measured, a remark says that the law has not been tested there.
FAR = 4.0

# Exponents searched. Errors of learned models fall with 0 < b ≤ 1 as a rule; the rest is for the edge of the interval.
_LARGEST_EXPONENT = 3.0

# Largest share of the floor in the error at the largest size.
_LARGEST_SHARE = 0.995

# A lack of fit of this p-value or less is said, and takes the place of the repeats' spread.
_MISFIT = 0.01


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes
    ----------
    value, low, high : float
        Infinite where there is no limit.
    remarks : tuple of str
        Sentences that the reader of the number should know.
    """

    value: float
    low: float
    high: float
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        value, low, high = map(_number, (self.value, self.low, self.high))
        return value if value == low == high else f"{value} ({low} to {high})"


def _number(value: float) -> str:
    if math.isinf(value):
        return "no limit"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True, eq=False)
class _Means:
    """Mean error of each size, and how far it is trusted.

    `weights` are the inverse variances of log mean error without what the sizes of a repeat have in common, whose
    variance is `shared`; `dof` are the degrees of freedom of the weights, 0 if there was one repeat and the weights
    hold up to a factor only.
    """

    sizes: Floats
    means: Floats
    weights: Floats
    shared: float
    repeats: int
    dof: int

    @classmethod
    def of(cls, table: Floats, sizes: Floats, independent: int | None) -> _Means:
        """From errors (repeats, sizes), NaN where there is none."""
        counts = np.isfinite(table).sum(axis=0)
        repeats, k = table.shape
        means = np.nanmean(table, axis=0)
        if repeats < 2 or k < 2:
            return cls(sizes, means, np.ones(k), 0.0, repeats, 0)
        relative = table / means - 1.0
        level = np.nanmean(relative, axis=1)
        within = np.nansum((relative - level[:, None]) ** 2, axis=0) / np.maximum(counts - 1, 1)
        mean_variance = max(float(within.sum()) / (k - 1), 1e-16)
        # A few repeats say little of one size's spread: a trend over the sizes takes its place.
        log_within = np.log(np.maximum(within, 1e-3 * mean_variance))
        slope, start = np.polyfit(np.log(sizes), log_within, 1)
        trend = np.exp(start + slope * np.log(sizes))
        variances = trend * mean_variance / trend.mean()
        shared = max(0.0, float(level @ level) / (repeats - 1) - mean_variance / k)
        most = repeats if independent is None else min(repeats, independent)
        weights = np.minimum(counts, most) / variances
        return cls(sizes, means, weights, shared / most, repeats, (repeats - 1) * (k - 1))


@dataclass(frozen=True, eq=False)
class _Shapes:
    """Laws of different shape: exponent b and share φ of the floor in the error at the largest size, flat arrays.

    For a given shape the law is A·((1 − φ) x^−b + φ), x = n / n_max, so that the best log A is a weighted mean.
    """

    b: Floats
    share: Floats
    log_level: Floats
    chi2: Floats

    @classmethod
    def of(cls, data: _Means, b: Floats, share: Floats) -> _Shapes:
        residual = np.log(data.means) - _log_shape(data.sizes / data.sizes[-1], b[:, None], share[:, None])
        log_level = residual @ data.weights / data.weights.sum()
        chi2 = (residual - log_level[:, None]) ** 2 @ data.weights
        return cls(b, share, log_level, chi2)

    @classmethod
    def grid(cls, data: _Means, b: tuple[float, float], share: tuple[float, float], points: int) -> _Shapes:
        grids = np.meshgrid(np.linspace(*b, points), np.linspace(*share, points))
        return cls.of(data, *(grid.ravel() for grid in grids))

    def with_(self, *others: _Shapes) -> _Shapes:
        """Add others at the end."""
        fields = ("b", "share", "log_level", "chi2")
        return _Shapes(*(np.concatenate([getattr(one, name) for one in (self, *others)]) for name in fields))

    def take(self, index: Any) -> _Shapes:
        return _Shapes(self.b[index], self.share[index], self.log_level[index], self.chi2[index])

    def box(self, chosen: NDArray[np.bool_]) -> tuple[tuple[float, float], tuple[float, float]]:
        """Range of b and share over the chosen shapes, a step wider."""
        ranges = []
        for values, limit in ((self.b, _LARGEST_EXPONENT), (self.share, _LARGEST_SHARE)):
            step = float(np.diff(np.unique(values)[:2])[0])
            inside = values[chosen]
            ranges.append((max(0.0, float(inside.min()) - step), min(limit, float(inside.max()) + step)))
        return ranges[0], ranges[1]


def _log_shape(x: Floats, b: Floats, share: Floats) -> Floats:
    return np.asarray(np.log((1.0 - share) * x**-b + share))


def _best(data: _Means) -> _Shapes:
    """Shape of the smallest χ²: the best of a grid, polished, as the valley of b and share is narrow and oblique."""
    grid = _Shapes.grid(data, (0.0, _LARGEST_EXPONENT), (0.0, _LARGEST_SHARE), 61)
    start = grid.take([grid.chi2.argmin()])
    x, roots = data.sizes / data.sizes[-1], np.sqrt(data.weights / data.weights.max())

    def residuals(shape: Floats) -> Floats:
        gap = np.log(data.means) - _log_shape(x, shape[:1], shape[1:])
        return np.asarray(roots * (gap - np.average(gap, weights=data.weights)))

    bounds = [0.0, 0.0], [_LARGEST_EXPONENT, _LARGEST_SHARE]
    found = least_squares(
        residuals, np.concatenate([start.b, start.share]), bounds=bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12
    )
    candidates = _Shapes.of(data, found.x[:1], found.x[1:]).with_(start, _best_without_floor(data))
    return candidates.take([candidates.chi2.argmin()])


def _best_without_floor(data: _Means) -> _Shapes:
    x, y = np.log(data.sizes / data.sizes[-1]), np.log(data.means)
    centred = x - np.average(x, weights=data.weights)
    slope = float(np.sum(data.weights * centred * y) / np.sum(data.weights * centred**2))
    b = np.array([min(max(-slope, 0.0), _LARGEST_EXPONENT)])
    return _Shapes.of(data, b, np.zeros(1))


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """Mean error against the number of rows, a·n^−b + c, with the family of laws that the data do not exclude.

    Made by :meth:`fit`.

    Attributes
    ----------
    a, b, c : float
        The law; c is 0 unless zero is outside the interval of the floor.
    sizes, means : ndarray of shape (k,)
        Numbers of rows, and mean error at each.
    level : float
        Of all intervals.
    repeats : int
        Of each size.
    misfit : float
        p-value of the lack of fit; NaN where nothing tells it from spread.

    Notes
    -----
    Means are fitted by weighted least squares of logarithms. The spread of the repeats has a part that all sizes of a
    repeat share (its test rows), which moves the level and not the shape, and a part of its own, smoothed over the
    sizes, which makes the weights. Intervals are those of the profile likelihood over a, 0 ≤ b ≤ 3 *and* c ≥ 0, also
    where the law itself has c = 0: at sizes beyond the data a floor that is too low to be seen must show in the
    interval. The quantile is Student's. Cost: milliseconds.

    Examples
    --------
    >>> n = [20, 40, 80, 160, 320] * 2
    >>> law = PowerLaw.fit(n, [2.02 * size ** -0.5 for size in n[:5]] + [1.98 * size ** -0.5 for size in n[:5]])
    >>> round(law.b, 3), law.c
    (0.5, 0.0)
    """

    a: float
    b: float
    c: float
    sizes: Floats
    means: Floats
    level: float
    repeats: int
    misfit: float
    _shapes: _Shapes  # not excluded, the best of all and the law itself among them
    _slack: Floats  # largest (log A − best log A)² of each of them

    @classmethod
    def fit(
        cls,
        sizes: ArrayLike,
        errors: ArrayLike,
        repeats: ArrayLike | None = None,
        *,
        level: float = 0.9,
        independent: int | None = None,
    ) -> PowerLaw:
        """Fit the law to measured errors.

        Parameters
        ----------
        sizes : array-like of shape (m,)
            Number of rows behind each error; at least three different ones, four if each was measured once.
        errors : array-like of shape (m,)
            Positive; NaN for what is missing.
        repeats : array-like of shape (m,), optional
            Errors of the same repeat have their test rows in common. Default: the j-th error of each size belongs to
            repeat j.
        level : float, default=0.9
            Of the intervals.
        independent : int, optional
            Repeats with test rows of their own. More than these use the same rows again: they make the spread better
            known, and do not make the intervals narrower. Default: all.

        Raises
        ------
        InputError
            If errors are not positive, or too few.
        """
        n, e = np.asarray(sizes, dtype=np.float64), np.asarray(errors, dtype=np.float64)
        data = _Means.of(*_tabulated(n, e, repeats), independent)
        if not 0.0 < level < 1.0:
            raise InputError(f"level is {level!r}; it must be between 0 and 1")
        k, least = len(data.sizes), 3 if data.repeats > 1 else 4
        if k < least:
            raise InputError(
                f"a law needs errors at {least} or more different numbers of rows, and there are {k}; give more sizes"
                + ("" if data.repeats > 1 else ", or repeats")
            )
        best, without = _best(data), _best_without_floor(data)
        scale, dof, _ = _scale(data, float(best.chi2[0]), 3)
        quantile = _quantile(level, dof)
        floored = float(without.chi2[0] - best.chi2[0]) > scale * quantile
        law = best if floored else without
        scale, dof, misfit = _scale(data, float(law.chi2[0]), 3 if floored else 2)

        own = scale / float(data.weights.sum())
        both = (own + data.shared) ** 2
        dof_level = both / (own**2 / dof + data.shared**2 / max(data.repeats - 1, 1)) if data.shared else float(dof)
        quantile = _quantile(level, dof_level)

        def inside(shapes: _Shapes) -> NDArray[np.bool_]:
            return np.asarray(shapes.chi2 - best.chi2[0] <= scale * quantile)

        coarse = _Shapes.grid(data, (0.0, _LARGEST_EXPONENT), (0.0, _LARGEST_SHARE), 121)
        chosen = inside(coarse)
        if not chosen.any():
            chosen = coarse.chi2 == coarse.chi2.min()
        fine = _Shapes.grid(data, *coarse.box(chosen), 201)
        family = fine.with_(best, law)
        family = family.take(inside(family) | (family.chi2 <= law.chi2[0]))
        left = np.maximum(quantile - (family.chi2 - best.chi2[0]) / scale, 0.0)
        top = float(np.exp(law.log_level[0]))
        exponent, share = float(law.b[0]), float(law.share[0])
        return cls(
            a=top * (1.0 - share) * float(data.sizes[-1]) ** exponent,
            b=exponent,
            c=top * share,
            sizes=data.sizes,
            means=data.means,
            level=level,
            repeats=data.repeats,
            misfit=misfit,
            _shapes=family,
            _slack=np.sqrt(left * (own + data.shared)),
        )

    def predict(self, n: ArrayLike) -> Floats:
        """Error (m,) at n (m,) rows by the law."""
        return np.asarray(self.a * np.asarray(n, dtype=np.float64) ** -self.b + self.c)

    def band(self, n: ArrayLike) -> tuple[Floats, Floats]:
        """Lower and upper end (m,) of the interval of the mean error at n (m,) rows."""
        x = np.atleast_1d(np.asarray(n, dtype=np.float64)) / self.sizes[-1]
        low, high = np.empty(len(x)), np.empty(len(x))
        for index, value in enumerate(x):
            logs = self._shapes.log_level + _log_shape(value, self._shapes.b, self._shapes.share)
            low[index], high[index] = (logs - self._slack).min(), (logs + self._slack).max()
        return np.exp(low), np.exp(high)

    def at(self, n: float) -> Estimate:
        """Error at n rows, with its interval."""
        low, high = self.band([n])
        return Estimate(float(self.predict(n)), float(low[0]), float(high[0]), self._remarks(n))

    def needed(self, error: float) -> Estimate:
        """Number of rows at which the error falls to `error`, with its interval; infinite below the floor.

        Raises
        ------
        InputError
            If `error` is not positive.
        """
        if not error > 0.0:
            raise InputError(f"the error asked for is {error!r}; it must be above zero")
        n = float(self._reaching(np.array([error]), self.a, self.b, self.c)[0])
        shapes, scale = self._shapes, self.sizes[-1]
        ends = []
        for sign in (-1.0, 1.0):
            top = np.exp(shapes.log_level + sign * self._slack)
            reached = self._reaching(np.array([error]), top * (1.0 - shapes.share), shapes.b, top * shapes.share)
            ends.append(float(scale * (reached.min() if sign < 0 else reached.max())))
        remarks = list(self._remarks(n))
        if math.isinf(n):
            reason = (
                f"the floor of the law, {self.c:.3g}" if self.c > 0 else "what the law reaches, as it does not fall"
            )
            remarks.append(f"An error of {error:.3g} is below {reason}: by this law no number of rows gives it.")
        elif math.isinf(ends[1]):
            remarks.append(
                f"The data do not exclude that the error stays above {error:.3g} whatever the number of rows, so there "
                "is no upper limit."
            )
        return Estimate(n, ends[0], ends[1], tuple(remarks))

    @staticmethod
    def _reaching(error: Floats, a: Any, b: Any, c: Any) -> Floats:
        above, b = np.asarray(error - c), np.asarray(b, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            n = np.where(above > 0, (np.maximum(above, 1e-300) / a) ** (-1.0 / b), np.inf)
        # A law that does not fall has reached the error from the start, or never does.
        return np.where(b > 0, n, np.where(a + c <= error, 0.0, np.inf))

    @property
    def exponent(self) -> Estimate:
        """The exponent b, with its interval over all laws that are not excluded, with a floor or without."""
        return Estimate(self.b, float(self._shapes.b.min()), float(self._shapes.b.max()))

    @property
    def floor(self) -> Estimate:
        """The floor c, with its interval."""
        low = np.exp(self._shapes.log_level - self._slack) * self._shapes.share
        high = np.exp(self._shapes.log_level + self._slack) * self._shapes.share
        return Estimate(self.c, float(low.min()), float(high.max()))

    def _remarks(self, n: float) -> tuple[str, ...]:
        largest = self.sizes[-1]
        remarks = []
        if FAR * largest < n < math.inf:
            remarks.append(
                f"{n:.0f} rows are {n / largest:.1f} times the {largest:.0f} that were measured: the law has not been "
                "tested there."
            )
        if self.misfit <= _MISFIT:
            remarks.append(
                f"The measured errors depart from a power law by more than their spread (p = {self.misfit:.1g}); the "
                "intervals are widened."
            )
        return tuple(remarks)

    def __str__(self) -> str:
        floor = f" + {self.c:.3g}" if self.c > 0 else ""
        return f"{self.a:.3g} n^-{self.b:.3g}{floor}"


def _quantile(level: float, dof: float) -> float:
    return float(stats.t.ppf(0.5 + level / 2.0, dof)) ** 2


def _scale(data: _Means, chi2: float, parameters: int) -> tuple[float, int, float]:
    """Factor on the variances, its degrees of freedom, and the p-value of the lack of fit."""
    free = len(data.sizes) - parameters
    if not data.dof:
        return max(chi2 / free, 1e-24), free, float("nan")
    if not free:
        return 1.0, data.dof, float("nan")
    p = float(stats.f.sf(chi2 / free, free, data.dof))
    if p <= _MISFIT:
        return chi2 / free, free, p
    return (data.dof + chi2) / (data.dof + free), data.dof + free, p


def _tabulated(n: Floats, e: Floats, repeats: ArrayLike | None) -> tuple[Floats, Floats]:
    """Errors as a table (repeats, sizes), and the sizes."""
    if n.shape != e.shape or n.ndim != 1:
        raise InputError(f"sizes have the shape {n.shape} and errors {e.shape}; give one error for each size")
    known = np.isfinite(e)
    wrong = np.flatnonzero(known & ~((e > 0) & (n > 0) & np.isfinite(n)))
    if len(wrong):
        raise InputError(
            f"entry {wrong[0]} has {n[wrong[0]]:g} rows and the error {e[wrong[0]]:g}; a power law needs both above "
            "zero"
        )
    sizes, column = np.unique(n[known], return_inverse=True)
    if repeats is None:
        order = np.argsort(column, kind="stable")
        starts = np.searchsorted(column[order], np.arange(len(sizes)))
        row = np.empty(len(column), dtype=np.intp)
        row[order] = np.arange(len(column)) - starts[column[order]]
    else:
        row = np.unique(np.asarray(repeats)[known], return_inverse=True)[1]
    table = np.full((int(row.max(initial=-1)) + 1, len(sizes)), np.nan)
    table[row, column] = e[known]
    return table, sizes
