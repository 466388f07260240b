"""Two kinds of data, two prices: the error against the rows of target and of source data, and the cheapest mix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize, nnls

from scotl_matgl.exceptions import InputError
from scotl_matgl.studies.power_law import FAR, Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Pair = tuple[float, float]

# Exponents searched; see power_law.
_EXPONENTS = (0.01, 3.0)

# Range of log n in which optima are looked for.
_LARGEST_LOG = 300.0


@dataclass(frozen=True)
class Mix:
    """Numbers of rows to have, what they cost, and the error that they give.

    Attributes
    ----------
    n_target, n_source : Estimate
        In all, with those that were there already.
    cost : Estimate
        Of the rows that were not there.
    error : Estimate
        By the law.
    remarks : tuple of str
        Sentences to be read with the numbers.

    Notes
    -----
    Intervals hold 90 % of what the resampled laws give; without these they are the number itself.
    """

    n_target: Estimate
    n_source: Estimate
    cost: Estimate
    error: Estimate
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class TradeLaw:
    """Error against two numbers of rows: a·n_target^−b + d·n_source^−e + c.

    Give the numbers of a known law, or fit one to measured errors with :meth:`fit`.

    Attributes
    ----------
    a, b : float
        Scale and exponent of the target data.
    d, e : float
        Of the source data.
    c : float
        What no amount of either removes.
    measured : tuple of two pairs of float, optional
        Smallest and largest n_target, and n_source, that the law was fitted to.
    spread : float
        Root mean squared relative residual of the fit; NaN where nothing was fitted.
    resamples : tuple of TradeLaw
        Laws fitted to resampled errors.

    Notes
    -----
    N. Hoffmann, J. Schmidt, S. Botti, M. A. L. Marques, Transfer learning on large datasets for the accurate prediction
    of material properties, Digital Discovery 2023, doi:10.1039/D3DD00030C, find errors that fall as powers of both
    sizes, and compare what it takes of each to reach an error. Where each row has a price, the cheapest mix for an
    error, and the best error for a budget, have the same gain per price at the margin,
    a b n_target^−(b+1) / p_target = d e n_source^−(e+1) / p_source, which leaves one unknown, found by bisection. Rows
    that are there already cost nothing.

    Examples
    --------
    >>> law = TradeLaw(a=1.0, b=0.5, d=1.0, e=0.5, c=0.0)
    >>> mix = law.cheapest(0.2, price_target=1.0, price_source=1.0)
    >>> str(mix.n_target), str(mix.n_source), round(mix.cost.value)
    ('100', '100', 200)
    """

    a: float
    b: float
    d: float
    e: float
    c: float = 0.0
    measured: tuple[tuple[float, float], tuple[float, float]] | None = None
    spread: float = float("nan")
    resamples: tuple[TradeLaw, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("a", "b", "d", "e", "c"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise InputError(f"{name} of the law is {value!r}; it must be a number that is not below zero")

    @classmethod
    def fit(
        cls,
        n_target: ArrayLike,
        n_source: ArrayLike,
        error: ArrayLike,
        *,
        resamples: int = 100,
        random_state: int = 0,
    ) -> TradeLaw:
        """Fit the law to measured errors by least squares of relative residuals.

        For given exponents the rest is a linear problem without negative coefficients, so that only the exponents are
        searched: on a grid, then from its best points.

        Parameters
        ----------
        n_target, n_source : array-like of shape (m,)
            Rows behind each error, above zero; repeats are welcome.
        error : array-like of shape (m,)
            Above zero.
        resamples : int, default=100
            Laws fitted to the fitted errors with resampled residuals, from which intervals come; a second's work.
        random_state : int, default=0
            Seed of the resampling.

        Raises
        ------
        InputError
            If there are fewer than six errors, or fewer than three different sizes of either kind.
        """
        t, s, y = (np.asarray(values, dtype=np.float64) for values in (n_target, n_source, error))
        if not (t.ndim == 1 and t.shape == s.shape == y.shape):
            raise InputError(
                f"the columns have the shapes {t.shape}, {s.shape} and {y.shape}; they must be equally long"
            )
        wrong = np.flatnonzero(~(np.isfinite(t * s * y) & (t > 0) & (s > 0) & (y > 0)))
        if len(wrong):
            row = wrong[0]
            raise InputError(
                f"row {row} has {t[row]:g} target rows, {s[row]:g} source rows and the error {y[row]:g}; a power law "
                "needs all three above zero (an error without any source data belongs to a law of its own)"
            )
        kinds = len(np.unique(t)), len(np.unique(s))
        if len(y) < 6 or min(kinds) < 3:
            raise InputError(
                f"there are {len(y)} errors, of {kinds[0]} different numbers of target rows and {kinds[1]} of source "
                "rows; five unknowns need at least six errors and three numbers of each"
            )
        design = _Design.of(t, s)
        exponents = design.search(y)
        law = design.law(y, exponents)
        # Of logarithms, so that no resampled error is negative; widened by the five numbers fitted.
        residuals = np.log(y / law.predict(t, s)) * math.sqrt(len(y) / (len(y) - 5))
        rng = np.random.default_rng(random_state)
        again = []
        for _ in range(resamples):
            other = law.predict(t, s) * np.exp(rng.choice(residuals, len(y)))
            again.append(design.law(other, design.descend(other, exponents)))
        spread = float(np.sqrt(np.mean((law.predict(t, s) / y - 1.0) ** 2)))
        measured = (float(t.min()), float(t.max())), (float(s.min()), float(s.max()))
        return replace(law, measured=measured, spread=spread, resamples=tuple(again))

    def predict(self, n_target: ArrayLike, n_source: ArrayLike) -> Floats:
        """Error at numbers of rows, which broadcast."""
        return _power(self.a, n_target, self.b) + _power(self.d, n_source, self.e) + self.c

    def contour(self, error: float, n_target: ArrayLike) -> Floats:
        """Source rows (m,) that give the same error with each number of target rows (m,); infinite where none do."""
        left = error - self.c - _power(self.a, n_target, self.b)
        with np.errstate(divide="ignore", over="ignore"):
            reached = (np.maximum(left, 0.0) / self.d) ** (-1.0 / self.e) if self.d > 0 else np.zeros_like(left)
        return np.asarray(np.where(left > 0, reached, np.inf))

    def cheapest(self, error: float, *, price_target: float, price_source: float, have: Pair = (0.0, 0.0)) -> Mix:
        """Find the mix of least cost that reaches an error.

        Parameters
        ----------
        error : float
            To be reached.
        price_target, price_source : float
            Of one row, above zero.
        have : tuple of two floats, default=(0, 0)
            Target and source rows that are there already.

        Raises
        ------
        InputError
            If the error is not above the floor c, or a price not above zero.
        """
        self._check(price_target, price_source, have)
        if not error > self.c:
            raise InputError(
                f"an error of {error:g} is not above {self.c:.3g}, which by this law no number of rows gets below"
            )
        prices = price_target, price_source
        return self._mix(lambda law: law._reaching(error, *prices, have), prices, have)

    def best(self, budget: float, *, price_target: float, price_source: float, have: Pair = (0.0, 0.0)) -> Mix:
        """Find the mix of least error for a budget.

        Parameters
        ----------
        budget : float
            Not below zero; above zero if rows of a kind are missing altogether.
        price_target, price_source, have
            As for :meth:`cheapest`.

        Raises
        ------
        InputError
            If the budget is negative, buys nothing where nothing is there, or a price is not above zero.
        """
        self._check(price_target, price_source, have)
        if not (math.isfinite(budget) and budget >= 0.0) or (budget == 0.0 and min(have) == 0.0):
            raise InputError(
                f"the budget is {budget!r}; it must be above zero, or zero where rows of both kinds are there"
            )
        prices = price_target, price_source
        return self._mix(lambda law: law._for(budget, *prices, have), prices, have)

    def _reaching(self, error: float, price_target: float, price_source: float, have: Pair) -> Pair:
        if error <= self.c:
            return math.inf, math.inf
        return self._along(lambda t, s: error - float(self.predict(t, s)), price_target, price_source, have)

    def _for(self, budget: float, price_target: float, price_source: float, have: Pair) -> Pair:
        def excess(t: float, s: float) -> float:
            return price_target * (t - have[0]) + price_source * (s - have[1]) - budget

        return self._along(excess, price_target, price_source, have)

    def _along(
        self,
        excess: Callable[[float, float], float],
        price_target: float,
        price_source: float,
        have: Pair,
    ) -> tuple[float, float]:
        """Mix of equal gain per price for which `excess`, which rises with the rows, is zero."""

        def mix(log_worth: float) -> tuple[float, float]:
            sides = []
            for scale, exponent, price, there in (
                (self.a, self.b, price_target, have[0]),
                (self.d, self.e, price_source, have[1]),
            ):
                useful = scale * exponent > 0
                wanted = (log_worth + math.log(scale * exponent / price)) / (exponent + 1.0) if useful else -math.inf
                sides.append(max(math.exp(min(wanted, _LARGEST_LOG)), there))
            return sides[0], sides[1]

        low, high = -_LARGEST_LOG, _LARGEST_LOG
        if excess(*mix(low)) >= 0.0:
            return mix(low)
        if excess(*mix(high)) <= 0.0:
            raise InputError("no number of rows that can be written down reaches it: the exponents are too small")
        return mix(float(brentq(lambda worth: excess(*mix(worth)), low, high, xtol=1e-12, rtol=1e-14)))

    @staticmethod
    def _check(price_target: float, price_source: float, have: Pair) -> None:
        for name, value in (("price_target", price_target), ("price_source", price_source)):
            if not (math.isfinite(value) and value > 0.0):
                raise InputError(f"{name} is {value!r}; it must be above zero")
        if not all(math.isfinite(value) and value >= 0.0 for value in have):
            raise InputError(f"have is {have!r}; give two numbers of rows that are not below zero")

    def _mix(self, solve: Callable[[TradeLaw], Pair], prices: Pair, have: Pair) -> Mix:
        """Numbers of the solution by this law, with the intervals of those by the resampled ones."""

        def numbers(law: TradeLaw) -> tuple[float, float, float, float]:
            t, s = solve(law)
            cost = prices[0] * (t - have[0]) + prices[1] * (s - have[1])
            return t, s, cost, law.c if math.isinf(t) else float(law.predict(t, s))

        found = numbers(self)
        others = np.array([numbers(law) for law in self.resamples] or [found])
        ends = np.quantile(others, [0.05, 0.95], axis=0, method="nearest")
        target, source, cost, error = (
            Estimate(value, min(low, value), max(high, value)) for value, low, high in zip(found, *ends, strict=True)
        )
        remarks = []
        for kind, n, (low, high) in zip(("target", "source"), found, self.measured or (), strict=False):
            if not low / FAR <= n <= high * FAR:
                remarks.append(
                    f"{n:.3g} {kind} rows are far from the {low:.3g} to {high:.3g} that the law was fitted to."
                )
        lost = float(np.isinf(others[:, 0]).mean())
        if lost:
            remarks.append(f"By {lost:.0%} of the resampled laws no number of rows reaches this error.")
        return Mix(target, source, cost, error, tuple(remarks))

    def plot(
        self,
        ax: Axes | None = None,
        *,
        errors: ArrayLike | None = None,
        prices: tuple[float, float] | None = None,
    ) -> Axes:
        """Draw lines of equal error, within four times the sizes that the law was fitted to.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. Default: a new figure.
        errors : array-like of float, optional
            One line each. Default: six between the errors of the two corners.
        prices : tuple of two floats, optional
            Of a target row and a source row; adds the line of the cheapest mixes.

        Returns
        -------
        matplotlib.axes.Axes
        """
        from scotl_matgl.plotting import plot_trade

        (least_t, most_t), (least_s, most_s) = self.measured or ((10.0, 1e4), (10.0, 1e6))
        t, s = np.geomspace(least_t / 4, most_t * 4, 200), np.geomspace(least_s / 4, most_s * 4, 200)
        surface = self.predict(t[None, :], s[:, None])
        path, label = None, ""
        if prices is not None:
            reached = np.geomspace(float(surface[-1, -1]), float(surface[0, 0]), 60)
            mixes = [self.cheapest(value, price_target=prices[0], price_source=prices[1]) for value in reached]
            path = np.array([(mix.n_target.value, mix.n_source.value) for mix in mixes])
            label = f"cheapest at {prices[0]:g} and {prices[1]:g} a row"
        box = self.measured
        return plot_trade(t, s, surface, ax, levels=errors, measured=box, mixes=path, mixes_label=label)

    def _repr_html_(self) -> str:
        from scotl_matgl.views import Column, paragraph, table

        rows = {
            "target data: scale": self.a,
            "target data: exponent": self.b,
            "source data: scale": self.d,
            "source data: exponent": self.e,
            "floor": self.c,
            "relative spread of the fit": self.spread,
        }
        told = {name: f"{value:.3g}" for name, value in rows.items() if math.isfinite(value)}
        if self.measured:
            names = "target rows measured", "source rows measured"
            told |= {name: f"{low:g} to {high:g}" for name, (low, high) in zip(names, self.measured, strict=True)}
        columns = [Column("part", list(told)), Column("value", list(told.values()))]
        return paragraph(f"error = {self}") + table(columns, header="part")

    def __str__(self) -> str:
        floor = f" + {self.c:.3g}" if self.c > 0 else ""
        return f"{self.a:.3g} n_target^-{self.b:.3g} + {self.d:.3g} n_source^-{self.e:.3g}{floor}"


def _power(scale: float, n: ArrayLike, exponent: float) -> Floats:
    """Scale·n^−exponent; zero for a scale of zero, also where there are no rows."""
    if scale == 0.0:
        return np.zeros(np.shape(n))
    with np.errstate(divide="ignore"):
        return np.asarray(scale * np.asarray(n, dtype=np.float64) ** -exponent)


@dataclass(frozen=True, eq=False)
class _Design:
    """Sizes behind the errors of a fit, scaled so that the columns are of comparable size."""

    t: Floats
    s: Floats
    scale_t: float
    scale_s: float

    @classmethod
    def of(cls, t: Floats, s: Floats) -> _Design:
        scale_t, scale_s = float(np.exp(np.log(t).mean())), float(np.exp(np.log(s).mean()))
        return cls(t / scale_t, s / scale_s, scale_t, scale_s)

    def solve(self, y: Floats, exponents: Floats) -> tuple[Floats, float]:
        """Coefficients for given exponents, and the norm of the relative residuals."""
        columns = np.stack([self.t ** -exponents[0], self.s ** -exponents[1], np.ones(len(y))], axis=1)
        coefficients, residual = nnls(columns / y[:, None], np.ones(len(y)))
        return coefficients, float(residual)

    def search(self, y: Floats) -> Floats:
        """Exponents of the smallest residuals."""
        grid = [np.array([b, e]) for b in np.geomspace(0.03, 2.0, 20) for e in np.geomspace(0.03, 2.0, 20)]
        grid.sort(key=lambda exponents: self.solve(y, exponents)[1])
        ends = [self.descend(y, start) for start in grid[:3]]
        return min(ends, key=lambda exponents: self.solve(y, exponents)[1])

    def descend(self, y: Floats, start: Floats) -> Floats:
        """Exponents of a minimum near a start."""

        def objective(exponents: Floats) -> float:
            return self.solve(y, exponents)[1] ** 2

        found = minimize(
            objective,
            start,
            bounds=[_EXPONENTS] * 2,
            method="Nelder-Mead",
            options={"xatol": 1e-5, "fatol": 1e-12, "maxiter": 1000},
        )
        return np.asarray(found.x, dtype=np.float64)

    def law(self, y: Floats, exponents: Floats) -> TradeLaw:
        (a, d, c), _ = self.solve(y, exponents)
        b, e = map(float, exponents)
        return TradeLaw(a=float(a) * self.scale_t**b, b=b, d=float(d) * self.scale_s**e, e=e, c=float(c))
