"""One fit of a method on some rows of a table, tested on others: timed, and isolated so that it cannot end a run."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.chemistry.materials import named
from scotl_matgl.exceptions import InputError
from scotl_matgl.studies.workers import end_with_parent
from scotl_matgl.vocabulary import NO_TRANSFER

RowNumbers = NDArray[np.intp]


Loss = Callable[[NDArray[Any], NDArray[Any]], float]


Metric = Literal["auto", "rmse"] | Loss


@dataclass(frozen=True, eq=False)
class Fit:
    """What came of a fit.

    Attributes
    ----------
    predicted : ndarray of shape (m,), or None
        For the test rows; None if the fit failed.
    failure : str
        Why it failed; empty otherwise.
    warned : str
        The different warnings that it gave.
    seconds : float
        Wall time of fit and prediction.
    """

    predicted: NDArray[Any] | None
    failure: str
    warned: str
    seconds: float

    def error(self, true: NDArray[Any], loss: Loss) -> float:
        """Error by a loss; NaN if the fit failed."""
        return float("nan") if self.predicted is None else float(loss(true, self.predicted))


def fit_and_predict(
    estimator: Any, materials: NDArray[Any], y: NDArray[Any], train: RowNumbers, test: RowNumbers
) -> Fit:
    """Fit a clone of an estimator on the training rows, and predict the test rows.

    Parameters
    ----------
    estimator : estimator
        Its ``fit`` takes formulas or crystals and targets. It is cloned, so that no fit knows of another.
    materials : ndarray of shape (n,), object
        Formulas as text, or crystals.
    y : ndarray of shape (n,)
        Targets.
    train, test : ndarray of int
        Row numbers.
    """
    from threadpoolctl import threadpool_limits

    end_with_parent()
    started = time.perf_counter()
    predicted, failure = None, ""
    # One thread to a fit: small matrices gain nothing from more, and callers spread the fits over processes instead.
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
        warnings.simplefilter("default")
        try:
            found = np.asarray(clone(estimator).fit(materials[train], y[train]).predict(materials[test]))
            if found.shape != test.shape:
                failure = f"it predicts values of the shape {found.shape} for {len(test)} rows"
            elif found.dtype.kind == "f" and not np.isfinite(found).all():
                bad = np.flatnonzero(~np.isfinite(found))[0]
                failure = f"it predicts {found[bad]} for {named(materials[test][bad])}"
            else:
                predicted = found
        except Exception as reason:  # whatever an estimator raises costs its own line only
            failure = f"{type(reason).__name__}: {reason}"
    warned = " | ".join(dict.fromkeys(str(item.message) for item in caught))
    return Fit(predicted, failure, warned, round(time.perf_counter() - started, 3))


def fingerprint_of(settings: Iterable[str], estimator: Any) -> str:
    """Name of table, settings and method, so that a file of other measurements is not taken for these."""
    described = estimator.__repr__(N_CHAR_MAX=10**9) if hasattr(estimator, "get_params") else repr(estimator)
    return hashlib.sha256("\n".join([*settings, described]).encode()).hexdigest()[:16]


def mean_absolute_error(true: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Mean of |predicted − true|."""
    return float(np.mean(np.abs(predicted - true)))


def root_mean_squared_error(true: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Root of the mean of (predicted − true)²."""
    return float(np.sqrt(np.mean((predicted - true) ** 2)))


def error_rate(true: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Share of wrong labels."""
    return float(np.mean(predicted != true))


def loss_of(metric: Metric, *, classification: bool) -> tuple[str, Loss]:
    """Name and function of a metric.

    Parameters
    ----------
    metric : {"auto", "rmse"} or callable
        ``"auto"``: mean absolute error, or for class labels the share that is wrong. A callable takes true and
        predicted values and returns an error, lower being better.
    classification : bool
        Whether the target is of class labels.

    Raises
    ------
    InputError
        For a name that is not known for this kind of target.
    """
    if callable(metric):
        return getattr(metric, "__name__", "error").replace("_", " "), metric
    chosen: dict[str, Loss] = (
        {"auto": error_rate} if classification else {"auto": mean_absolute_error, "rmse": root_mean_squared_error}
    )
    if metric not in chosen:
        names = ", ".join(map(repr, chosen))
        kind = "class labels" if classification else "a measured property"
        raise InputError(f"metric is {metric!r}; for {kind} it must be {names} or a callable")
    return chosen[metric].__name__.replace("_", " "), chosen[metric]


def how_read(n_merged: int, skipped: Sequence[SkippedRow], remarks: Sequence[str]) -> list[str]:
    """Sentences on how a table was read: which rows were merged or skipped, and how cells were understood."""
    lines = list(remarks)
    if n_merged:
        lines.append(f"{n_merged} rows of equal composition were merged into others")
    if skipped:
        first = skipped[0]
        lines.append(f"{len(skipped)} rows were skipped, the first is row {first.row} ({first.value}): {first.reason}")
    return lines


def named_methods(
    methods: Any, *, classification: bool, sources: Any = "all", layer: str | Sequence[str] = "readout"
) -> dict[str, Any]:
    """Estimators by name.

    Parameters
    ----------
    methods : None, str, estimator, or mapping of str to estimator
        None: heads on descriptors alone, and the same with transfer from the sources that are ranked best inside
        ``fit`` (:class:`~scotl_matgl.TransferRegressor` or ``TransferClassifier``). A text: these two with the
        head of that name, of which ``"kernel ridge"`` is the fastest. A single estimator is named by its class.
    classification : bool
        Whether the target is of class labels.
    sources, layer : default="all", "readout"
        Of the method with transfer, where `methods` does not hold estimators.

    Raises
    ------
    InputError
        If there is none, or one has no ``fit`` and ``predict``.
    """
    if methods is None or isinstance(methods, str):
        from scotl_matgl.transfer.estimators import TransferClassifier, TransferRegressor

        kind = TransferClassifier if classification else TransferRegressor
        # A source without a bridge is no news in each of many fits.
        common: dict[str, Any] = {"head": methods or "auto", "on_error": "skip"}
        return {NO_TRANSFER: kind(sources=[], **common), "transfer": kind(sources=sources, layer=layer, **common)}
    chosen = dict(methods) if isinstance(methods, Mapping) else {type(methods).__name__: methods}
    if not chosen:
        raise InputError("there is no method to measure; give at least one estimator")
    for name, method in chosen.items():
        if isinstance(method, type) or not (hasattr(method, "fit") and hasattr(method, "predict")):
            raise InputError(f"{name} is {method!r}; give an unfitted estimator with fit and predict")
    return chosen
