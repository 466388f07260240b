"""Errors when whole clusters, elements or chemical systems are held out, beside random folds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.exceptions import InputError
from scotl_matgl.progress import telling
from scotl_matgl.studies.fitting import (
    Fit,
    Loss,
    fingerprint_of,
    fit_and_predict,
    how_read,
    loss_of,
    named_methods,
)
from scotl_matgl.studies.records import ResultsFile, number
from scotl_matgl.studies.settings import StudySettings
from scotl_matgl.studies.splitters import SCHEMES, make_splitter
from scotl_matgl.tables.rows import Rows
from scotl_matgl.vocabulary import Progress, check_whole

if TYPE_CHECKING:
    import pandas as pd


#: Columns of the file of a validation. The first two name a fit.
COLUMNS = (
    "fingerprint", "method", "scheme", "fold", "held_out", "n_train", "n_test", "error", "random", "constant",
    "seconds", "failure", "warned", "predicted",
)  # fmt: skip

# More characters than this are not read back from a cell of a CSV file.
_LONGEST = 100_000


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
    settings: StudySettings | None = None,
) -> Validation:
    """Measure methods under several schemes, each beside random folds on the same rows.

    Parameters
    ----------
    estimator : estimator, mapping of str to estimator, name of a head, or None
        Unfitted; ``fit`` takes formulas (an array of text, and of crystals in their place) and targets. A name or
        None: see :func:`~scotl_matgl.studies.fitting.named_methods`.
    formulas : sequence of length m
        Formulas: all that :func:`~scotl_matgl.parse_compositions` reads; bad rows are left out and listed,
        rows of equal composition merged. In the place of formulas, crystals: all that
        :func:`~scotl_matgl.chemistry.materials.read_material` reads; polymorphs stay different rows, and share a fold.
    y : array-like of shape (m,)
        Measured property, or class labels.
    schemes : sequence of str
        See :func:`make_splitter`. Random folds are measured in any case.
    n_splits, min_formulas
        See :func:`make_splitter`.
    max_folds : int, optional
        Of each scheme at most so many folds, drawn at random, are measured; the rest is said in ``left_out``.
    settings : StudySettings, optional
        Metric, kind and unit of the target, file of results, processes, seed of the folds, polymorphs, and progress.
        The file holds what each fit `predicted` too; fits of more than 5,000 test rows are measured again.

    Returns
    -------
    Validation

    Raises
    ------
    InputError
        If the table cannot be used, a parameter is wrong, or `settings.path` is no file of an earlier run. A fit that
        fails is listed and ends nothing.

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

    settings = StudySettings() if settings is None else settings
    seed = settings.random_state
    table = Rows.read(formulas, y, task=settings.task).splitting(settings.polymorphs)
    methods = named_methods(
        estimator, classification=table.classification, sources=settings.sources, layer=settings.layer
    )
    name, loss = loss_of(settings.metric, classification=table.classification)
    if max_folds is not None:
        check_whole("max_folds", max_folds, 1)
    left_out: dict[str, str] = {}
    units: list[_Unit] = []
    for scheme in dict.fromkeys(("random", *schemes)):
        splitter = make_splitter(scheme, n_splits=n_splits, min_formulas=min_formulas, random_state=seed)
        # Random folds are whole: the other schemes are compared with them row by row.
        most = None if scheme == "random" else max_folds
        units += _units(scheme, splitter, table, most, left_out, seed)

    measured = _Measured(settings.path, methods, units, table, name, loss)
    with telling(settings.progress, "validation") as step:
        measured.run(settings.n_jobs, step)
    return Validation(
        frame=pd.DataFrame(measured.finish()),
        metric=name,
        unit="" if table.classification else settings.unit,
        n_rows=len(table.y),
        n_merged=table.n_merged,
        skipped=table.skipped,
        left_out=left_out,
        settings={"random_state": seed, "versions": installed_versions()},
        remarks=table.remarks,
    )


@dataclass(frozen=True, eq=False)
class _Unit:
    """One fold of a scheme."""

    scheme: str
    fold: int
    held_out: str
    test: NDArray[np.bool_]


def _units(
    scheme: str, splitter: Any, table: Rows, max_folds: int | None, left_out: dict[str, str], seed: int
) -> list[_Unit]:
    """Folds of a scheme; none if the table does not allow it, which is told in `left_out`."""
    try:
        if scheme == "random" and table.apart:  # the splitters know formulas alone
            parts = table.folds(n_folds=splitter.n_splits, random_state=seed)
            masks = [np.isin(np.arange(len(table)), test) for _, test in parts]
            folds = [(f"part {number}", mask) for number, mask in enumerate(masks)]
        else:
            folds = splitter.folds(table.formulas)
    except InputError as error:
        if scheme == "random":
            raise
        left_out[scheme] = str(error)
        return []
    if max_folds is not None and len(folds) > max_folds:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(folds))[:max_folds])
        left_out[scheme] = f"{max_folds} of {len(folds)} folds, drawn at random, were measured"
        folds = [folds[index] for index in chosen]
    return [_Unit(scheme, fold, held_out, test) for fold, (held_out, test) in enumerate(folds)]


class _Measured:
    """Fits of all methods on all folds, in memory and in a file from which a killed run goes on."""

    def __init__(
        self,
        path: str | Path | None,
        methods: Mapping[str, Any],
        units: Sequence[_Unit],
        table: Rows,
        metric: str,
        loss: Loss,
    ) -> None:
        self.methods, self.units, self.table, self.loss = methods, units, table, loss
        self.file = ResultsFile(None if path is None else Path(path), key=COLUMNS[:2], columns=COLUMNS)
        base = [*table.identities, *map(str, table.y.tolist()), metric]
        self.keys = {
            (method, index): fingerprint_of([*base, unit.scheme, unit.test.tobytes().hex()], estimator)
            for method, estimator in methods.items()
            for index, unit in enumerate(units)
        }
        self.fits = {place: fit for place in self.keys if (fit := self._known(*place)) is not None}

    def _known(self, method: str, index: int) -> Fit | None:
        """The fit of an earlier run, if it is in the file and did not fail."""
        row = self.file.get(self.keys[method, index], method)
        if row is None or row["failure"] or not row["predicted"]:
            return None
        try:
            predicted = np.asarray(json.loads(row["predicted"]))
        except ValueError:
            return None
        if predicted.shape != (np.count_nonzero(self.units[index].test),):
            return None
        return Fit(predicted, "", row["warned"], number(row["seconds"]))

    def run(self, n_jobs: int | None, progress: Progress) -> None:
        """Measure what is not known yet, and add each fit to the file at once."""
        from joblib import Parallel, delayed

        materials = self.table.materials
        missing = [place for place in self.keys if place not in self.fits]
        progress(len(self.fits), len(self.keys))
        jobs = (
            delayed(_measure)(place, self.methods[place[0]], materials, self.table.y, self.units[place[1]].test)
            for place in missing
        )
        for place, fit in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(jobs):
            self.fits[place] = fit
            self._write({place: self._record(*place)})
            progress(len(self.fits), len(self.keys))

    def finish(self) -> list[dict[str, Any]]:
        """Rows of the frame, which the file gets too: only now are the errors in random folds known."""
        records = {}
        for method in self.methods:
            out_of_fold = self._out_of_fold(method)
            for index, unit in enumerate(self.units):
                true, random = self.table.y[unit.test], out_of_fold[unit.test]
                known = all(value is not None for value in random)
                error = self.loss(true, random.astype(true.dtype)) if known else math.nan
                records[method, index] = self._record(method, index) | {"random": error}
        self._write(records)
        return list(records.values())

    def _out_of_fold(self, method: str) -> NDArray[Any]:
        """What random folds predict for each row; None where that fit failed."""
        found = np.full(len(self.table.y), None, dtype=object)
        for index, unit in enumerate(self.units):
            predicted = self.fits[method, index].predicted
            if unit.scheme == "random" and predicted is not None:
                found[unit.test] = predicted
        return found

    def _record(self, method: str, index: int) -> dict[str, Any]:
        unit, fit = self.units[index], self.fits[method, index]
        y, test = self.table.y, unit.test
        constant = _constant(y[~test], self.table.classification)
        return {
            "method": method,
            "scheme": unit.scheme,
            "fold": unit.fold,
            "held_out": unit.held_out,
            "n_train": int((~test).sum()),
            "n_test": int(test.sum()),
            "error": fit.error(y[test], self.loss),
            "random": math.nan,
            "constant": self.loss(y[test], np.full(int(test.sum()), constant)),
            "seconds": fit.seconds,
            "failure": fit.failure,
            "warned": fit.warned,
        }

    def _write(self, records: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
        rows = []
        for place, record in records.items():
            predicted = self.fits[place].predicted
            cell = "" if predicted is None else json.dumps(predicted.tolist())
            rows.append({"fingerprint": self.keys[place], **record, "predicted": cell if len(cell) < _LONGEST else ""})
        self.file.add(rows)


def _measure(
    place: tuple[str, int], estimator: Any, materials: NDArray[Any], y: NDArray[Any], test: NDArray[np.bool_]
) -> tuple[tuple[str, int], Fit]:
    """One fit, and what it is."""
    return place, fit_and_predict(estimator, materials, y, np.flatnonzero(~test), np.flatnonzero(test))


def _constant(y: NDArray[Any], classification: bool) -> Any:
    if not classification:
        return float(np.mean(y))
    labels, counts = np.unique(y, return_counts=True)
    return labels[counts.argmax()]
