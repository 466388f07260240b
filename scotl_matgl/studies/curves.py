"""Learning curves: how the error of several methods falls with the number of rows, and what more rows would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.exceptions import InputError
from scotl_matgl.progress import telling
from scotl_matgl.storage import write_whole
from scotl_matgl.studies.fitting import (
    Loss,
    RowNumbers,
    fingerprint_of,
    fit_and_predict,
    how_read,
    loss_of,
    named_methods,
)
from scotl_matgl.studies.power_law import Estimate, PowerLaw
from scotl_matgl.studies.records import ResultsFile
from scotl_matgl.studies.settings import StudySettings
from scotl_matgl.tables.rows import Rows
from scotl_matgl.vocabulary import check_whole, for_spreadsheets

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from scotl_matgl.plotting import Curve

#: Columns of the tidy frame, in order. The first four name a unit of work.
COLUMNS = ("fingerprint", "method", "repeat", "n", "n_test", "error", "seconds", "failure", "warned")

_KINDS = {"fingerprint": str, "method": str, "repeat": int, "n": int, "n_test": int, "failure": str, "warned": str}

# The smallest size is this part of the largest: four doublings, enough to see an exponent.
_SPAN = 16
_SMALLEST = 20


@dataclass(frozen=True, eq=False)
class LearningCurves:
    """Errors of several methods at several numbers of training rows.

    Made by :func:`learning_curves`.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row for each (method, repeat, n): `error` on `n_test` rows that were not learned from (NaN where the unit
        failed, `failure` saying why), `seconds`, and the warnings it gave (`warned`).
    methods : tuple of str
        In the order given.
    n_rows : int
        Rows of the table, of different composition.
    n_merged : int
        Rows merged into others of equal composition.
    skipped : tuple of SkippedRow
        Rows that could not be used.
    metric : str
        "mean absolute error", "root mean squared error" or "error rate".
    unit : str
        Of the error.
    folds : int
        Number of parts of which one is tested on.
    settings : dict
        Seeds and versions.
    remarks : tuple of str
        How formulas and target were understood, a sentence each.
    """

    frame: pd.DataFrame
    methods: tuple[str, ...]
    n_rows: int
    n_merged: int
    skipped: tuple[SkippedRow, ...]
    metric: str
    unit: str
    folds: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def failures(self) -> pd.DataFrame:
        """Units that failed, and why."""
        return self.frame[self.frame["failure"] != ""].reset_index(drop=True)

    def law(self, method: str, *, level: float = 0.9) -> PowerLaw:
        """Power law of a method's error.

        Raises
        ------
        InputError
            If there is no such method, or too few of its units succeeded.
        """
        if method not in self.methods:
            raise InputError(f"there is no method {method!r}; there are {', '.join(self.methods)}")
        rows = self.frame[(self.frame["method"] == method) & self.frame["error"].notna()]
        try:
            return PowerLaw.fit(rows["n"], rows["error"], rows["repeat"], level=level, independent=self.folds)
        except InputError as error:
            lost = self.failures
            lost = lost[lost["method"] == method]
            more = f"; {len(lost)} of its units failed, the first: {lost['failure'].iloc[0]}" if len(lost) else ""
            raise InputError(f"{method}: {error}{more}") from error

    def summary(self, error: float | None = None, *, level: float = 0.9) -> pd.DataFrame:
        """One row for each method: its law, the error with all rows and with twice as many, the rows needed.

        Parameters
        ----------
        error : float, optional
            Adds ``needed``, ``needed_low`` and ``needed_high``: the rows at which the error falls to this.
        level : float, default=0.9
            Of the intervals, whose ends are the columns ``..._low`` and ``..._high``.

        Returns
        -------
        pandas.DataFrame
            Indexed by method; ``remarks`` holds the sentences to be read with the numbers, or why there is no law.
        """
        import pandas as pd

        records = []
        for method in self.methods:
            try:
                law = self.law(method, level=level)
            except InputError as reason:
                records.append({"method": method, "law": "", "remarks": str(reason)})
                continue
            parts = {"exponent": law.exponent, "now": law.at(self.n_rows), "doubled": law.at(2 * self.n_rows)}
            if error is not None:
                parts["needed"] = law.needed(error)
            record: dict[str, Any] = {"method": method, "law": str(law)}
            remarks: dict[str, None] = {}
            for name, part in parts.items():
                record |= {name: part.value, f"{name}_low": part.low, f"{name}_high": part.high}
                remarks |= dict.fromkeys(part.remarks)
            records.append(record | {"remarks": " ".join(remarks)})
        return pd.DataFrame(records).set_index("method")

    def to_csv(self, path: str | Path | None = None) -> str | None:
        """Write the tidy frame, or return it as text."""
        text: str = for_spreadsheets(self.frame).to_csv(index=False)
        if path is None:
            return text
        write_whole(Path(path), text.encode())
        return None

    def plot(self, ax: Axes | None = None, *, error: float | None = None) -> Axes:
        """Draw the measured errors and the laws with their bands; see :func:`scotl_matgl.plotting.plot_curves`."""
        from scotl_matgl.plotting import plot_curves

        label = f"{self.metric}, {self.unit}" if self.unit else self.metric
        title = f"{self.n_rows} formulas (dotted), {self.frame['repeat'].nunique()} repeats, 90 % bands"
        curves = [self._drawn(method) for method in self.methods]
        return plot_curves(curves, self.n_rows, ax, label=label, title=title, error=error)

    def _drawn(self, method: str) -> Curve:
        """Means, and the law through the sizes measured and on to twice the rows of the table."""
        from scotl_matgl.plotting import Curve

        errors = self.frame[self.frame["method"] == method].groupby("n")["error"]
        means, spreads = errors.mean(), errors.sem().fillna(0.0)
        sizes, middle, reach = (np.asarray(part, dtype=np.float64) for part in (means.index, means, spreads))
        try:
            law = self.law(method)
        except InputError:  # too few points for a law, which the summary says
            none = np.empty(0)
            return Curve(method, sizes, middle, reach, none, none, (none, none), np.nan)
        last = float(law.sizes[-1])
        drawn = np.concatenate([np.geomspace(law.sizes[0], last), np.geomspace(last, max(2.0 * self.n_rows, last))])
        return Curve(method, sizes, middle, reach, drawn, law.predict(drawn), law.band(drawn), last)

    def text(self, error: float | None = None, *, level: float = 0.9) -> str:
        """Return the summary as text for the terminal, with the remarks and what went wrong below it."""
        frame = self.summary(error, level=level)
        cells = self._cells(frame, error)
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        lines.append("")
        return "\n".join([*lines, *self._remarks(frame, level)])

    def _cells(self, frame: pd.DataFrame, error: float | None) -> list[list[str]]:
        """Lines of the table of a summary, headings first."""
        headings = ["method", "exponent", f"error, {self.n_rows} rows", f"{2 * self.n_rows} rows"]
        columns = ["exponent", "now", "doubled"]
        if error is not None:
            headings.append(f"rows for {error:g}")
            columns.append("needed")
        cells = [headings]
        for method, row in frame.iterrows():
            if not row["law"]:
                cells.append([str(method), *["-"] * len(columns)])
                continue
            estimates = [Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in columns]
            cells.append([str(method), *map(str, estimates)])
        return cells

    def _remarks(self, frame: pd.DataFrame, level: float) -> list[str]:
        """What has to be said below the table of the summary."""
        unit = f" {self.unit}" if self.unit else ""
        lines = [f"{self.metric}{unit}; in brackets {level:.0%} intervals, of any law with a floor or without"]
        lines += [f"{method}: {row['remarks']}" for method, row in frame.iterrows() if row["remarks"]]
        lines += how_read(self.n_merged, self.skipped, self.remarks)
        failures = self.failures
        if len(failures):
            one = failures.iloc[0]
            lines.append(
                f"{len(failures)} of {len(self.frame)} fits failed, the first is {one['method']} with {one['n']} rows, "
                f"repeat {one['repeat']}: {one['failure']}"
            )
        return lines

    def _repr_html_(self) -> str:
        from scotl_matgl.views import Column, listed, table

        frame = self.summary()
        headings, *rows = self._cells(frame, None)
        columns = [Column(name, cells) for name, *cells in zip(headings, *rows, strict=True)]
        return table(columns, header="method", caption=self.metric) + listed(self._remarks(frame, 0.9))

    def __str__(self) -> str:
        return self.text()


@dataclass(frozen=True, eq=False)
class _Unit:
    """One fit: a method, rows to learn from, rows to test on."""

    fingerprint: str
    method: str
    repeat: int
    n: int
    train: RowNumbers
    test: RowNumbers

    @property
    def key(self) -> tuple[str, str, int, int]:
        return self.fingerprint, self.method, self.repeat, self.n


def learning_curves(
    formulas: Any,
    y: ArrayLike,
    methods: Mapping[str, Any] | str | None = None,
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = 5,
    folds: int = 5,
    settings: StudySettings | None = None,
) -> LearningCurves:
    """Measure the error of several methods at several numbers of training rows.

    Repeat r tests on one of `folds` parts of the table (each part once before any comes twice) and learns from the
    first n rows of the others in a random order, so that the rows are the same for all methods and those of a small
    size are among those of a large one. Everything happens inside the method's ``fit`` on the n rows; rows of equal
    composition are merged before, so none is tested on its double.

    Parameters
    ----------
    formulas : sequence of length m
        Formulas: all that :func:`~scotl_matgl.parse_compositions` reads; bad rows are left out and listed. In the
        place of formulas, crystals: all that :func:`~scotl_matgl.chemistry.materials.read_material` reads; polymorphs
        stay different rows, and are on the same side of every split.
    y : array-like of shape (m,)
        Measured property, or class labels.
    methods : mapping of str to estimator, or name of a head, optional
        Unfitted scikit-learn estimators whose ``fit`` takes formulas (an array of text, and of crystals in their place)
        and targets. Default: see
        :func:`~scotl_matgl.studies.fitting.named_methods`.
    sizes : sequence of int, optional
        Numbers of training rows. Default: five, from 20 or a sixteenth of the largest to all rows of the other parts.
    repeats : int, default=5
        Fits of each method at each size.
    folds : int, default=5
        Parts of the table.
    settings : StudySettings, optional
        Metric, kind and unit of the target, file of results, processes, seed of parts and orders,
        polymorphs, and progress.

    Returns
    -------
    LearningCurves

    Raises
    ------
    InputError
        If the table cannot be used (see :class:`~scotl_matgl.tables.rows.Rows`), or a parameter is wrong. A fit
        that fails is listed in ``failures`` and ends nothing.

    Examples
    --------
    >>> from scotl_matgl import load_example
    >>> table = load_example().iloc[::20]
    >>> curves = learning_curves(table["formula"], table["target"], "kernel ridge", repeats=2)
    >>> curves.methods, len(curves.frame)
    (('no transfer', 'transfer'), 20)
    """
    import pandas as pd
    from joblib import Parallel, delayed

    settings = StudySettings() if settings is None else settings
    seed = settings.random_state
    table = Rows.read(formulas, y, task=settings.task).splitting(settings.polymorphs)
    chosen = named_methods(methods, classification=table.classification, sources=settings.sources, layer=settings.layer)
    check_whole("repeats", repeats, 1)
    check_whole("folds", folds, 2)
    splits = _splits(table, repeats=repeats, folds=folds, seed=seed)
    counts = _sizes(sizes, min(len(train) for train, _ in splits), len(table.y))
    name, loss = loss_of(settings.metric, classification=table.classification)
    base = [*table.identities, *map(str, table.y.tolist()), name, str(folds), str(seed)]
    units = [
        _Unit(fingerprint_of(base, estimator), method, repeat, n, train[:n], test)
        for repeat, (train, test) in enumerate(splits)
        for n in counts
        for method, estimator in chosen.items()
    ]
    results = ResultsFile(None if settings.path is None else Path(settings.path), key=COLUMNS[:4], columns=COLUMNS)
    missing = [one for one in units if (results.get(*one.key) or {"failure": "not measured"})["failure"]]
    materials = table.materials
    known = len(units) - len(missing)
    jobs = (delayed(_measure)(one, chosen[one.method], materials, table.y, loss) for one in missing)
    with telling(settings.progress, "learning curves") as step:
        step(known, len(units))
        for record in Parallel(n_jobs=settings.n_jobs, return_as="generator_unordered")(jobs):
            results.add([record])
            known += 1
            step(known, len(units))
    from scotl_matgl.storage import installed_versions

    return LearningCurves(
        frame=pd.DataFrame(results.records(_KINDS, [one.key for one in units]), columns=list(COLUMNS)),
        methods=tuple(chosen),
        n_rows=len(table.y),
        n_merged=table.n_merged,
        skipped=table.skipped,
        metric=name,
        unit="" if table.classification else settings.unit,
        folds=folds,
        settings={"random_state": seed, "versions": installed_versions()},
        remarks=table.remarks,
    )


def _splits(table: Rows, *, repeats: int, folds: int, seed: int) -> list[tuple[RowNumbers, RowNumbers]]:
    """Rows to learn from, in random order, and rows to test on, of each repeat."""
    splits: list[tuple[RowNumbers, RowNumbers]] = []
    while len(splits) < repeats:
        cycle = table.folds(n_folds=folds, random_state=seed + len(splits))
        for train, test in cycle:
            order = np.random.default_rng([seed, len(splits)]).permutation(train)
            splits.append((order, test))
    return splits[:repeats]


def _sizes(sizes: Sequence[int] | None, largest: int, rows: int) -> list[int]:
    if sizes is None:
        smallest = min(max(_SMALLEST, largest // _SPAN), max(largest // 2, 2))
        return sorted(set(np.geomspace(smallest, largest, 5).round().astype(int).tolist()))
    for size in sizes:
        check_whole("a size", size, 2)
        if size > largest:
            raise InputError(
                f"the size {size} is more than the {largest} rows that can be learned from: the table has {rows} rows "
                "of different composition, and a part is kept for testing"
            )
    return sorted({int(size) for size in sizes})


def _measure(unit: _Unit, estimator: Any, materials: NDArray[Any], y: NDArray[Any], loss: Loss) -> dict[str, Any]:
    """Record of one fit."""
    fit = fit_and_predict(estimator, materials, y, unit.train, unit.test)
    return {
        "fingerprint": unit.fingerprint,
        "method": unit.method,
        "repeat": unit.repeat,
        "n": unit.n,
        "n_test": len(unit.test),
        "error": fit.error(y[unit.test], loss),
        "seconds": fit.seconds,
        "failure": fit.failure,
        "warned": fit.warned,
    }
