"""Errors when whole clusters, elements or chemical systems are held out, beside random folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.exceptions import InputError
from scotl_matgl.studies.fitting import Fit, Loss, Metric, fit_and_predict, how_read, loss_of, named_methods
from scotl_matgl.studies.splitters import SCHEMES, make_splitter
from scotl_matgl.tables.rows import Rows
from scotl_matgl.vocabulary import check_whole

if TYPE_CHECKING:
    import pandas as pd


Progress = Callable[[int, int], None]

#: One fold: scheme, what is held out, mask of its test rows.
Unit = tuple[str, str, NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Validation:
    """Errors of methods under several schemes, fold by fold.

    Made by :func:`validate`.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row for each (method, scheme, fold): what was `held_out`, `n_train`, `n_test`, the `error`, the error of the
        same rows in random folds (`random`), that of predicting the mean or the most frequent label of the training
        rows (`constant`), `seconds`, `failure` and `warned`.
    metric, unit : str
        Of the errors.
    n_rows, n_merged : int
        Rows of different composition, and rows merged into them.
    skipped : tuple of SkippedRow
        Rows that could not be used.
    left_out : dict of str to str
        Schemes that the table does not allow, and folds that were not measured; why.
    settings : dict
        Seed and versions.
    remarks : tuple of str
        How formulas and target were understood, a sentence each.
    """

    frame: pd.DataFrame
    metric: str
    unit: str
    n_rows: int
    n_merged: int
    skipped: tuple[SkippedRow, ...]
    left_out: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def failures(self) -> pd.DataFrame:
        """Folds that failed, and why."""
        return self.frame[self.frame["failure"] != ""].reset_index(drop=True)

    def summary(self) -> pd.DataFrame:
        """Means over the folds by method and scheme.

        Returns
        -------
        pandas.DataFrame
            ``error`` and its standard error over the folds ``se``, ``random`` and ``constant`` on the same rows,
            ``ratio`` of error to random, number of ``folds`` and of those ``failed``.
        """
        groups = self.frame.groupby(["method", "scheme"], sort=False)
        result = groups[["error", "random", "constant"]].mean()
        result.insert(1, "se", groups["error"].sem())
        measured = self.frame[self.frame["error"].notna() & self.frame["random"].notna()]
        same = measured.groupby(["method", "scheme"], sort=False)[["error", "random"]].mean()
        result.insert(3, "ratio", same["error"] / same["random"])
        result["folds"] = groups.size()
        result["failed"] = groups["failure"].agg(lambda reasons: int((reasons != "").sum()))
        return result

    def _repr_html_(self) -> str:
        from scotl_matgl.views import frame_table, listed

        unit = f", {self.unit}" if self.unit else ""
        rows = frame_table(self.summary().reset_index(), caption=f"{self.metric}{unit}, mean over the folds")
        return rows + listed(self._remarks())

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        lines = [
            self.summary().to_string(float_format=lambda value: f"{value:.3g}", sparsify=False),
            f"\n{self.metric}{unit}: mean over the folds and its standard error; 'random' and 'constant' are the "
            "errors of the same rows in random folds, and of the mean (or most frequent label) of the training rows",
        ]
        return "\n".join([*lines, *self._remarks()])

    def _remarks(self) -> list[str]:
        """What has to be said below the table."""
        lines = [f"{scheme}: {reason}" for scheme, reason in self.left_out.items()]
        lines += how_read(self.n_merged, self.skipped, self.remarks)
        if len(self.failures):
            one = self.failures.iloc[0]
            lines.append(
                f"{len(self.failures)} of {len(self.frame)} fits failed, the first is {one['method']}, {one['scheme']} "
                f"{one['held_out']}: {one['failure']}"
            )
        return lines


def validate(
    estimator: Any,
    formulas: Any,
    y: ArrayLike,
    schemes: Sequence[str] = SCHEMES,
    *,
    n_splits: int = 5,
    min_formulas: int = 10,
    max_folds: int | None = None,
    metric: Metric = "auto",
    task: Literal["auto", "regression", "classification"] = "auto",
    unit: str = "",
    n_jobs: int | None = None,
    random_state: int = 0,
    progress: Progress | None = None,
) -> Validation:
    """Measure methods under several schemes, each beside random folds on the same rows.

    Parameters
    ----------
    estimator : estimator, mapping of str to estimator, name of a head, or None
        Unfitted; ``fit`` takes formulas (an array of text) and targets. A name or None: see
        :func:`~scotl_matgl.studies.fitting.named_methods`.
    formulas : sequence of length m
        Formulas: all that :func:`~scotl_matgl.parse_compositions` reads; bad rows are left out and listed,
        rows of equal composition merged.
    y : array-like of shape (m,)
        Measured property, or class labels.
    schemes : sequence of str
        See :func:`make_splitter`. Random folds are measured in any case.
    n_splits, min_formulas
        See :func:`make_splitter`.
    max_folds : int, optional
        Of each scheme at most so many folds, drawn at random, are measured; the rest is said in ``left_out``.
    metric, task, unit, n_jobs
        As for :func:`~scotl_matgl.learning_curves`.
    random_state : int, default=0
        Seed of the folds. Methods keep the seeds they were given.
    progress : callable, optional
        Called with (done, total) fits.

    Returns
    -------
    Validation

    Raises
    ------
    InputError
        If the table cannot be used, or a parameter is wrong. A fit that fails is listed and ends nothing.

    Examples
    --------
    >>> from scotl_matgl import load_example
    >>> from scotl_matgl.transfer.estimators import TransferRegressor
    >>> table = load_example().iloc[::20]
    >>> model = TransferRegressor(sources=[], head="kernel ridge")
    >>> found = validate(model, table["formula"], table["target"], ["random", "cluster"], n_splits=3)
    >>> found.frame["scheme"].tolist()
    ['random', 'random', 'random', 'cluster', 'cluster', 'cluster']
    """
    import pandas as pd

    from scotl_matgl.storage import installed_versions

    table = Rows.read(formulas, y, task=task)
    methods = named_methods(estimator, classification=table.classification)
    name, loss = loss_of(metric, classification=table.classification)
    if max_folds is not None:
        check_whole("max_folds", max_folds, 1)
    splitters = {
        scheme: make_splitter(scheme, n_splits=n_splits, min_formulas=min_formulas, random_state=random_state)
        for scheme in dict.fromkeys(("random", *schemes))
    }
    units, left_out = _units(splitters, table, max_folds, random_state)
    fits = _fits(methods, units, table, n_jobs, progress)
    records = []
    for index, method in enumerate(methods):
        own = fits[index * len(units) : (index + 1) * len(units)]
        records += _records(method, units, own, table, loss)
    return Validation(
        frame=pd.DataFrame(records),
        metric=name,
        unit="" if table.classification else unit,
        n_rows=len(table.y),
        n_merged=table.n_merged,
        skipped=table.skipped,
        left_out=left_out,
        settings={"random_state": random_state, "versions": installed_versions()},
        remarks=table.remarks,
    )


def _units(
    splitters: Mapping[str, Any], table: Rows, max_folds: int | None, random_state: int
) -> tuple[list[Unit], dict[str, str]]:
    """The folds to measure, and which schemes and folds are left out and why."""
    units: list[Unit] = []
    left_out: dict[str, str] = {}
    for scheme, splitter in splitters.items():
        try:
            folds = splitter.folds(table.formulas)
        except InputError as error:
            if scheme == "random":
                raise
            left_out[scheme] = str(error)
            continue
        # Random folds are whole: the other schemes are compared with them row by row.
        if max_folds is not None and len(folds) > max_folds and scheme != "random":
            chosen = np.sort(np.random.default_rng(random_state).permutation(len(folds))[:max_folds])
            left_out[scheme] = f"{max_folds} of {len(folds)} folds, drawn at random, were measured"
            folds = [folds[index] for index in chosen]
        units += [(scheme, held_out, test) for held_out, test in folds]
    return units, left_out


def _fits(
    methods: Mapping[str, Any], units: Sequence[Unit], table: Rows, n_jobs: int | None, progress: Progress | None
) -> list[Fit]:
    """Each method on each fold, method by method."""
    from joblib import Parallel, delayed

    text = np.array(table.formulas.text, dtype=object)
    jobs = (
        delayed(fit_and_predict)(model, text, table.y, np.flatnonzero(~test), np.flatnonzero(test))
        for model in methods.values()
        for _, _, test in units
    )
    fits: list[Fit] = []
    for fit in Parallel(n_jobs=n_jobs, return_as="generator")(jobs):
        fits.append(fit)
        if progress is not None:
            progress(len(fits), len(methods) * len(units))
    return fits


def _records(
    method: str,
    units: Sequence[Unit],
    fits: Sequence[Fit],
    table: Rows,
    loss: Loss,
) -> list[dict[str, Any]]:
    """Rows of the frame for one method."""
    out_of_fold = np.empty(len(table.y), dtype=table.y.dtype)
    known = np.zeros(len(table.y), dtype=bool)
    for (scheme, _, test), fit in zip(units, fits, strict=True):
        if scheme == "random" and fit.predicted is not None:
            out_of_fold[test], known[test] = fit.predicted, True
    records: list[dict[str, Any]] = []
    for (scheme, held_out, test), fit in zip(units, fits, strict=True):
        true = table.y[test]
        records.append(
            {
                "method": method,
                "scheme": scheme,
                "fold": sum(record["scheme"] == scheme for record in records),
                "held_out": held_out,
                "n_train": int((~test).sum()),
                "n_test": int(test.sum()),
                "error": fit.error(true, loss),
                "random": loss(true, out_of_fold[test]) if known[test].all() else float("nan"),
                "constant": loss(true, np.full(len(true), _constant(table.y[~test], table.classification))),
                "seconds": fit.seconds,
                "failure": fit.failure,
                "warned": fit.warned,
            }
        )
    return records


def _constant(y: NDArray[Any], classification: bool) -> Any:
    if not classification:
        return float(np.mean(y))
    labels, counts = np.unique(y, return_counts=True)
    return labels[counts.argmax()]
