"""Validation beyond random folds: whole clusters, elements or chemical systems held out, beside random folds."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from scotl_matgl.composition import SYMBOLS, Compositions, SkippedRow, parse_compositions
from scotl_matgl.descriptors import get_descriptor
from scotl_matgl.exceptions import InputError
from scotl_matgl.fits import Fit, Loss, Metric, Rows, check_whole, fit_and_predict, loss_of, rows_left_out
from scotl_matgl.methods import named_methods
from scotl_matgl.table import Table

if TYPE_CHECKING:
    import pandas as pd

Scheme = Literal["random", "cluster", "element", "chemical system"]
Progress = Callable[[int, int], None]

SCHEMES: tuple[Scheme, ...] = ("random", "cluster", "element", "chemical system")


class FormulaSplitter(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Base of the splitters: scikit-learn cross-validators whose X holds formulas.

    X may be anything that :func:`~scotl_matgl.composition.parse_compositions` reads, and for a data frame of several
    columns `column` names the one of formulas. Rows of equal composition are on the same side of every split.
    """

    column: str | None

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Rows, Rows]]:  # noqa: ARG002
        """Yield row numbers (train, test) of each fold.

        Raises
        ------
        CompositionError
            If a formula cannot be read; the message names the row.
        InputError
            If the formulas do not allow the folds asked for.
        """
        for _, test in self.folds(X):
            yield np.flatnonzero(~test), np.flatnonzero(test)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ARG002
        """Count the folds, for which the formulas may be needed."""
        if X is None:
            raise InputError(f"{type(self).__name__} needs the formulas X to say how many folds there are")
        return len(self.folds(X))

    def folds(self, X: Any) -> list[tuple[str, NDArray[np.bool_]]]:
        """Name of what is held out in each fold, and whether each row (n,) is among it."""
        if self.column is not None:
            X = X[self.column]
        compositions = parse_compositions(X)
        if len(compositions) < 2:
            raise InputError(f"there are {len(compositions)} formulas; at least two are needed to split")
        return self._folds(compositions)

    @abstractmethod
    def _folds(self, compositions: Compositions) -> list[tuple[str, NDArray[np.bool_]]]: ...


class _Parts(FormulaSplitter):
    """Folds that take each row once, so that their number is known beforehand."""

    n_splits: int
    _rows_are: str

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ARG002
        """Count the folds."""
        return self.n_splits

    def _folds(self, compositions: Compositions) -> list[tuple[str, NDArray[np.bool_]]]:
        check_whole("n_splits", self.n_splits, 2)
        names, group = np.unique(np.array(self._groups(compositions)), return_inverse=True)
        if len(names) < self.n_splits:
            raise InputError(
                f"{self.n_splits} folds need as many {self._rows_are}, and there are {len(names)}; ask for fewer folds"
            )
        part = self._part(compositions, group)
        return [(f"part {number}", part == number) for number in range(self.n_splits)]

    @abstractmethod
    def _groups(self, compositions: Compositions) -> Sequence[str]: ...

    @abstractmethod
    def _part(self, compositions: Compositions, group: Rows) -> Rows: ...


def _balanced(group: Rows, n_splits: int, random_state: int | None) -> Rows:
    """Part (n,) of each row: groups in random order, each to the part with fewest rows so far."""
    counts = np.bincount(group)
    order = np.random.default_rng(random_state).permutation(len(counts))
    # Large groups first, or the last of them could not be evened out.
    order = order[np.argsort(-counts[order], kind="stable")]
    filled, part = np.zeros(n_splits, dtype=np.intp), np.empty(len(counts), dtype=np.intp)
    for index in order:
        part[index] = np.argmin(filled)
        filled[part[index]] += counts[index]
    return part[group]


class _RandomParts(_Parts):
    """Parts of about equal size, drawn at random."""

    def __init__(self, n_splits: int = 5, *, column: str | None = None, random_state: int = 0) -> None:
        self.n_splits = n_splits
        self.column = column
        self.random_state = random_state

    def _part(self, compositions: Compositions, group: Rows) -> Rows:  # noqa: ARG002
        return _balanced(group, self.n_splits, self.random_state)


class CompositionKFold(_RandomParts):
    """Random folds in which rows of equal composition stay together.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds.
    column : str, optional
        Column of formulas where X has several.
    random_state : int, default=0
        Seed.

    Examples
    --------
    >>> formulas = ["NaCl", "Na2Cl2", "KCl", "LiF"]
    >>> folds = CompositionKFold(n_splits=2).split(formulas)
    >>> all(({0, 1} <= set(test.tolist())) != ({0, 1} <= set(train.tolist())) for train, test in folds)
    True
    """

    _rows_are = "different compositions"

    def _groups(self, compositions: Compositions) -> Sequence[str]:
        return compositions.keys()


class ChemicalSystemKFold(_RandomParts):
    """Folds in which all formulas of the same elements stay together.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, filled evenly.
    column : str, optional
        Column of formulas where X has several.
    random_state : int, default=0
        Seed.

    Examples
    --------
    >>> formulas = ["FeO", "Fe2O3", "Fe3O4", "NaCl"]
    >>> sorted(test.tolist() for _, test in ChemicalSystemKFold(n_splits=2).split(formulas))
    [[0, 1, 2], [3]]
    """

    _rows_are = "different chemical systems"

    def _groups(self, compositions: Compositions) -> Sequence[str]:
        return chemical_systems(compositions)


class LeaveOneClusterOut(_Parts):
    """Each fold holds out one cluster of similar formulas: a test of extrapolation.

    Parameters
    ----------
    n_splits : int, default=5
        Number of clusters, hence of folds.
    descriptor : str or CompositionDescriptor, default="standard"
        Clusters are those of k-means on its standardised columns, over the different compositions.
    column : str, optional
        Column of formulas where X has several.
    random_state : int, default=0
        Seed of k-means.

    Notes
    -----
    Clusters are of unequal size. They depend on the whole table, whose targets they do not look at.

    References
    ----------
    B. Meredig et al., Can machine learning identify the next high-temperature superconductor? Examining extrapolation
    performance for materials discovery, Mol. Syst. Des. Eng. 3, 819-825 (2018), doi:10.1039/C8ME00012C.

    Examples
    --------
    >>> oxides, chlorides = ["MgO", "CaO", "SrO", "BaO"], ["LiCl", "NaCl", "KCl", "RbCl"]
    >>> folds = LeaveOneClusterOut(n_splits=2, descriptor="fractions").split(oxides + chlorides)
    >>> sorted(len(test) for _, test in folds)
    [4, 4]
    """

    _rows_are = "different compositions"

    def __init__(
        self, n_splits: int = 5, *, descriptor: Any = "standard", column: str | None = None, random_state: int = 0
    ) -> None:
        self.n_splits = n_splits
        self.descriptor = descriptor
        self.column = column
        self.random_state = random_state

    def _groups(self, compositions: Compositions) -> Sequence[str]:
        return compositions.keys()

    def _part(self, compositions: Compositions, group: Rows) -> Rows:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.preprocessing import StandardScaler

        first = np.unique(group, return_index=True)[1]
        described = get_descriptor(self.descriptor).fit(compositions).transform(compositions.take(first))
        columns = StandardScaler().fit_transform(np.nan_to_num(np.asarray(described, dtype=np.float64)))
        means = KMeans(self.n_splits, n_init=10, random_state=self.random_state)
        with warnings.catch_warnings():
            # Fewer clusters than asked for are an error below.
            warnings.simplefilter("ignore", ConvergenceWarning)
            labels = means.fit_predict(columns)
        found = len(np.unique(labels))
        if found < self.n_splits:
            raise InputError(
                f"the formulas fall into {found} clusters, not {self.n_splits}: by the descriptor {self.descriptor!r} "
                "too many of them are the same; ask for fewer clusters"
            )
        return np.asarray(labels[group], dtype=np.intp)


class LeaveOneElementOut(FormulaSplitter):
    """Each fold tests on the formulas that contain an element, and learns from those that do not.

    Parameters
    ----------
    min_formulas : int, default=10
        Elements of fewer different compositions make no fold, and those that leave fewer to learn from neither.
    column : str, optional
        Column of formulas where X has several.

    Notes
    -----
    A formula is tested once for each of its elements that makes a fold. ``folds(X)`` names the elements, in the order
    of their atomic numbers.

    Examples
    --------
    >>> formulas = ["NaCl", "NaF", "KCl", "KF"]
    >>> [(name, test.tolist()) for name, test in LeaveOneElementOut(min_formulas=2).folds(formulas)][0]
    ('F', [False, True, False, True])
    """

    def __init__(self, min_formulas: int = 10, *, column: str | None = None) -> None:
        self.min_formulas = min_formulas
        self.column = column

    def _folds(self, compositions: Compositions) -> list[tuple[str, NDArray[np.bool_]]]:
        check_whole("min_formulas", self.min_formulas, 1)
        present = compositions.dense_fractions() > 0
        first = np.unique(np.array(compositions.keys()), return_index=True)[1]
        counts = present[first].sum(axis=0)
        usable = np.flatnonzero((counts >= self.min_formulas) & (len(first) - counts >= self.min_formulas))
        if not len(usable):
            raise InputError(
                f"no element is in at least {self.min_formulas} of the {len(first)} different compositions and absent "
                f"from as many; lower min_formulas"
            )
        return [(SYMBOLS[index], present[:, index]) for index in usable]


def chemical_systems(compositions: Compositions) -> list[str]:
    """Elements of each formula, such as ``Fe-O``, in order of atomic number."""
    present = compositions.dense_fractions() > 0
    return ["-".join(SYMBOLS[index] for index in np.flatnonzero(row)) for row in present]


def make_splitter(
    scheme: str, *, n_splits: int = 5, min_formulas: int = 10, column: str | None = None, random_state: int = 0
) -> FormulaSplitter:
    """Splitter of a scheme by name.

    Parameters
    ----------
    scheme : {"random", "cluster", "element", "chemical system"}
        See :class:`CompositionKFold`, :class:`LeaveOneClusterOut`, :class:`LeaveOneElementOut` and
        :class:`ChemicalSystemKFold`.
    n_splits : int, default=5
        Number of folds or clusters; of no meaning to "element".
    min_formulas : int, default=10
        For "element".
    column : str, optional
        Column of formulas where X has several.
    random_state : int, default=0
        Seed.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if scheme == "element":
        return LeaveOneElementOut(min_formulas, column=column)
    kinds: dict[str, Any] = {
        "random": CompositionKFold,
        "cluster": LeaveOneClusterOut,
        "chemical system": ChemicalSystemKFold,
    }
    if scheme not in kinds:
        raise InputError(f"there is no scheme {scheme!r}; choose among {', '.join(SCHEMES)}")
    splitter: FormulaSplitter = kinds[scheme](n_splits, column=column, random_state=random_state)
    return splitter


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
    """

    frame: pd.DataFrame
    metric: str
    unit: str
    n_rows: int
    n_merged: int
    skipped: tuple[SkippedRow, ...]
    left_out: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)

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

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        lines = [
            self.summary().to_string(float_format=lambda value: f"{value:.3g}", sparsify=False),
            f"\n{self.metric}{unit}: mean over the folds and its standard error; 'random' and 'constant' are the "
            "errors of the same rows in random folds, and of the mean (or most frequent label) of the training rows",
        ]
        lines += [f"{scheme}: {reason}" for scheme, reason in self.left_out.items()]
        lines += rows_left_out(self.n_merged, self.skipped)
        if len(self.failures):
            one = self.failures.iloc[0]
            lines.append(
                f"{len(self.failures)} of {len(self.frame)} fits failed, the first is {one['method']}, {one['scheme']} "
                f"{one['held_out']}: {one['failure']}"
            )
        return "\n".join(lines)


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
        :func:`~scotl_matgl.methods.named_methods`.
    formulas : sequence of length m
        Formulas: all that :func:`~scotl_matgl.composition.parse_compositions` reads; bad rows are left out and listed,
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
        As for :func:`~scotl_matgl.curves.learning_curves`.
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
    >>> from scotl_matgl.transfer import TransferRegressor
    >>> table = load_example().iloc[::20]
    >>> model = TransferRegressor(sources=[], head="kernel ridge")
    >>> found = validate(model, table["formula"], table["target"], ["random", "cluster"], n_splits=3)
    >>> found.frame["scheme"].tolist()
    ['random', 'random', 'random', 'cluster', 'cluster', 'cluster']
    """
    import pandas as pd
    from joblib import Parallel, delayed

    from scotl_matgl.bridges.build import installed_versions

    table = Table.read(formulas, y, task=task)
    methods = named_methods(estimator, classification=table.classification)
    name, loss = loss_of(metric, classification=table.classification)
    if max_folds is not None:
        check_whole("max_folds", max_folds, 1)
    units: list[tuple[str, str, NDArray[np.bool_]]] = []
    left_out: dict[str, str] = {}
    for scheme in dict.fromkeys(("random", *schemes)):
        splitter = make_splitter(scheme, n_splits=n_splits, min_formulas=min_formulas, random_state=random_state)
        try:
            folds = splitter.folds(table.compositions)
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

    text = np.array(table.compositions.text, dtype=object)
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
    )


def _records(
    method: str,
    units: Sequence[tuple[str, str, NDArray[np.bool_]]],
    fits: Sequence[Fit],
    table: Table,
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
