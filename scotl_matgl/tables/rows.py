"""The user's table: formulas, crystals or numbers, further columns and a target, read and checked in one place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.validation import validate_data

from scotl_matgl.chemistry.compositions import Compositions, column_of, parse_compositions
from scotl_matgl.chemistry.crystals import Crystal, as_crystal
from scotl_matgl.chemistry.formulas import CompositionError, SkippedRow, shown
from scotl_matgl.chemistry.materials import holds_crystal, read_material
from scotl_matgl.chemistry.refusals import StructureError
from scotl_matgl.exceptions import InputError, warn
from scotl_matgl.tables.folds import Folds, key_hashes, make_folds
from scotl_matgl.tables.target import Task, group_median, group_mode, read_target
from scotl_matgl.vocabulary import Floats, counted

#: Fewest compositions that can be learned from: below, five folds leave next to nothing.
MIN_ROWS = 10


Polymorphs = Literal["together", "apart"]

# How the remark on polymorphs ends.
_SHARED = "and share a fold."


class RowError(CompositionError, InputError):
    """A row cannot be used; the message names it, its value and the remedy."""


def _no_objects() -> NDArray[np.object_]:
    return np.empty(0, dtype=object)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table that can be used, and the others with the reason why they cannot.

    Attributes
    ----------
    compositions : Compositions or None
        n formulas; None for numbers alone.
    numbers : ndarray of shape (n, q)
        The numeric columns beside the formulas, or all columns.
    names : tuple of str
        Names of these columns.
    kept : ndarray of shape (n,)
        Position of each row in the input.
    labels : sequence of hashable
        Label of each row of the input.
    skipped : tuple of SkippedRow
        The rows of the input that cannot be used, and why.
    crystals : ndarray of shape (n,), object
        The crystals whose formulas these are, None for a row that is a formula alone; of shape (0,) where all are.
    y : ndarray of shape (n,)
        Target: the property as float64, or the codes of the class labels; of shape (0,) where none was given.
    classes : ndarray of shape (k,)
        Class labels, sorted; empty for a property.
    n_merged : int
        Rows that were merged into others.
    remarks : tuple of str
        How formulas and target were understood, a sentence each.
    apart : bool
        Whether polymorphs of one formula may be on both sides of a split.
    """

    compositions: Compositions | None
    numbers: Floats
    names: tuple[str, ...]
    kept: NDArray[np.intp]
    labels: Sequence[Hashable]
    skipped: tuple[SkippedRow, ...]
    crystals: NDArray[np.object_] = field(default_factory=_no_objects)
    y: NDArray[Any] = field(default_factory=_no_objects)
    classes: NDArray[Any] = field(default_factory=_no_objects)
    n_merged: int = 0
    remarks: tuple[str, ...] = ()
    apart: bool = False

    @classmethod
    def read(
        cls,
        formulas: Any,
        y: ArrayLike,
        *,
        formula: Hashable | None = None,
        task: Task = "auto",
        strict: bool = False,
        estimator: Any = None,
    ) -> Rows:
        """Read formulas and target, with one row for each composition, or each composition and further columns.

        Parameters
        ----------
        formulas : sequence of length m
            Formulas: all that :func:`~scotl_matgl.parse_compositions` reads; with `formula` a table.
        y : array-like of shape (m,)
            Measured property, or class labels.
        formula : hashable, optional
            Column of formulas of a table whose other columns are numbers.
        task : {"auto", "regression", "classification"}, default="auto"
            Kind of target, see :func:`~scotl_matgl.tables.target.read_target`.
        strict : bool, default=False
            Whether the first row that cannot be used is an error; otherwise such rows are left out and listed.
        estimator : BaseEstimator, optional
            See :func:`read_rows`.

        Raises
        ------
        CompositionError
            If `strict`, for the first bad row.
        InputError
            If the lengths differ, fewer than 10 different compositions remain, or the target is constant or of no kind
            that can be learned.

        Examples
        --------
        >>> formulas = ["NaCl", "ClNa", *(f"Fe{i}O" for i in range(1, 10)), "FE2O3"]
        >>> rows = Rows.read(formulas, [1.0, 3.0, *range(9), 5.0])
        >>> len(rows), float(rows.y[0]), rows.n_merged, len(rows.skipped)
        (10, 2.0, 1, 1)
        """
        rows = read_rows(formulas, formula=formula, strict=strict, estimator=estimator if formula is not None else None)
        return rows.with_target(y, task=task, strict=strict).merged()

    @property
    def n_input(self) -> int:
        """Number of rows of the input."""
        return len(self.labels)

    @property
    def formulas(self) -> Compositions:
        """Formulas, where the rows are not numbers alone."""
        if self.compositions is None:
            raise InputError("the rows hold numbers alone; give formulas")
        return self.compositions

    @property
    def classification(self) -> bool:
        """Whether the target is of class labels."""
        return len(self.classes) > 0

    @property
    def composition(self) -> NDArray[np.intp]:
        """Number (n,) of each row's composition, in the order of their keys."""
        return np.unique(np.array(self.formulas.keys(), dtype=np.str_), return_inverse=True)[1].astype(np.intp)

    @property
    def witnesses(self) -> NDArray[np.intp]:
        """Number (n,) of each row's composition; of its crystal where polymorphs are split, or of one formula alone."""
        found = self.composition
        each = len(self.crystals) and (self.apart or not found.any())
        return np.unique(np.array(self.identities), return_inverse=True)[1].astype(np.intp) if each else found

    @property
    def materials(self) -> NDArray[np.object_]:
        """What each row (n,) is: its crystal, or its formula as text."""
        found = np.array(self.formulas.text, dtype=object)
        given = np.flatnonzero(np.array([one is not None for one in self.crystals], dtype=bool))
        found[given] = self.crystals[given]
        return found

    @property
    def identities(self) -> list[str]:
        """Text by which each row is known in files of results: its composition, and what its crystal holds."""
        if not len(self.crystals):
            return list(self.formulas.keys())
        pairs = zip(self.formulas.keys(), self.crystals, strict=True)
        return [key if crystal is None else f"{key} {crystal.content_hash}" for key, crystal in pairs]

    @property
    def _polymorph(self) -> list[NDArray[np.intp]]:
        """Number (n,) of each row's crystal, alike for those of equal content; nothing where there are none."""
        if not len(self.crystals):
            return []
        hashes = ["" if crystal is None else crystal.content_hash for crystal in self.crystals]
        return [np.unique(np.array(hashes), return_inverse=True)[1].astype(np.intp)]

    def __len__(self) -> int:
        return len(self.kept)

    def splitting(self, polymorphs: Polymorphs) -> Self:
        """Rows whose polymorphs of one formula share a fold ("together"), or are split like other crystals ("apart").

        Raises
        ------
        InputError
            For anything else.
        """
        if polymorphs not in ("together", "apart"):
            raise InputError(f"polymorphs is {polymorphs!r}; it must be 'together' or 'apart'")
        if polymorphs == "together" or not len(self.crystals):
            return self
        told = tuple(remark.replace(_SHARED, "and may be in different folds.") for remark in self.remarks)
        return replace(self, apart=True, remarks=told)

    # -- selecting ------------------------------------------------------------------------------------------------

    def take(self, index: NDArray[np.intp]) -> Self:
        """Rows by position."""
        return replace(
            self,
            compositions=None if self.compositions is None else self.compositions.take(index),
            numbers=self.numbers[index],
            kept=self.kept[index],
            crystals=self.crystals[index] if len(self.crystals) else self.crystals,
            y=self.y[index] if len(self.y) else self.y,
        )

    def without(self, bad: NDArray[np.bool_], value: NDArray[Any], reason: str | Sequence[str]) -> Self:
        """Leave out rows; `value` (n,) is what is wrong with each, `reason` why, for all or for each of them."""
        if not bad.any():
            return self
        reasons = [reason] * len(bad) if isinstance(reason, str) else list(reason)
        more = tuple(
            SkippedRow(int(self.kept[i]), self.labels[self.kept[i]], repr(value[i : i + 1].tolist()[0]), reasons[i])
            for i in np.flatnonzero(bad).tolist()
        )
        skipped = tuple(sorted((*self.skipped, *more), key=lambda row: row.row))
        return replace(self.take(np.flatnonzero(~bad)), skipped=skipped)

    def refuse_skipped(self) -> None:
        """Raise for the first row that was left out, if there is one."""
        if self.skipped:
            first = self.skipped[0]
            raise RowError(f"row {first.row} ({first.value}): {first.reason}", self.skipped)

    # -- the target -----------------------------------------------------------------------------------------------

    def with_target(self, y: ArrayLike, *, task: Task = "auto", strict: bool = False) -> Self:
        """Add the target, and leave out rows that have none.

        Parameters
        ----------
        y : array-like of shape (m,)
            One value for each row of the input.
        task : {"auto", "regression", "classification"}, default="auto"
            Kind of target.
        strict : bool, default=False
            Whether the first row without a target is an error.
        """
        given = self._column(y)[self.kept]
        target = read_target(given, task)
        text = ["this row"] * len(self) if self.compositions is None else self.compositions.text
        reasons = [
            f"the target of {name} {reason}" + ("" if ": " in reason else "; measure it or leave it out")
            for name, reason in zip(text, target.reasons, strict=True)
        ]
        rows = self.without(~target.usable, given, reasons)
        if strict:
            rows.refuse_skipped()
        rows = replace(rows, remarks=(*self.remarks, *target.remarks))
        values = target.values[target.usable]
        if not target.classification:
            return replace(rows, y=values)
        try:
            classes, codes = np.unique(values, return_inverse=True)
        except TypeError:  # labels of several types have no order
            classes, codes = np.unique(values.astype(str), return_inverse=True)
        plain = np.array(classes.tolist())  # a list of whole numbers or words was read as objects
        if plain.dtype.kind in "biufU" and plain.shape == classes.shape and bool(np.all(plain == classes)):
            classes = plain
        return replace(rows, y=codes, classes=classes)

    def _column(self, y: ArrayLike) -> NDArray[Any]:
        """One value for each row of the input."""
        # A list of mixed values must not become an array of text, nor a column of integers with a gap one of floats.
        plain = isinstance(getattr(y, "dtype", None), np.dtype)
        given = np.asarray(y) if plain else np.asarray(y, dtype=object)
        if given.ndim == 2 and given.shape[1] == 1:
            message = "A column-vector y was passed when a 1d array was expected; it is taken as one column."
            warn(message, DataConversionWarning)
            given = given.ravel()
        if given.ndim != 1 or len(given) != self.n_input:
            kind = "rows" if self.compositions is None or len(self.crystals) else "formulas"
            raise InputError(
                f"there are {self.n_input} {kind} and the target has shape {given.shape}; give one value for each"
            )
        return given

    def merged(self) -> Self:
        """One row for each composition, or crystal, and further columns: the median of the property, or the mode.

        Polymorphs of one formula stay different rows.

        Raises
        ------
        InputError
            If fewer than 10 rows remain, or there is nothing to learn.
        """
        return self.merged_places()[0]

    def merged_places(self) -> tuple[Self, NDArray[np.intp], NDArray[np.intp]]:
        """:meth:`merged`, sorted by composition and columns so that the order of the rows changes nothing.

        Returns
        -------
        merged : Rows
        place : ndarray of shape (n,)
            Position of each row among the merged ones.
        first : ndarray of shape (n_merged_rows,)
            Position of the row that stands for each merged one: of several spellings the shortest.
        """
        n = len(self)
        text = np.array(self.formulas.text, dtype=np.str_)  # also where there are none
        composition = self.composition
        polymorph = self._polymorph
        order = np.lexsort((text, np.char.str_len(text), *self.numbers.T[::-1], *polymorph, composition))
        what = np.column_stack([composition, *polymorph, self.numbers])[order]
        new = np.ones(n, dtype=bool)
        new[1:] = (what[1:] != what[:-1]).any(axis=1)
        first = order[new]
        code = np.empty(n, dtype=np.intp)
        code[order] = np.cumsum(new) - 1
        if len(first) < MIN_ROWS:
            bad = self.skipped[:1]
            seen = "".join(f"; row {row.row} ({row.value}) was skipped: {row.reason}" for row in bad)
            different = "different compositions" if not self.names else "rows of different compositions or columns"
            raise InputError(
                f"only {len(first)} {different} can be used of {self.n_input} rows; "
                f"at least {MIN_ROWS} are needed{seen}"
            )
        values = group_mode(self.y, code) if self.classification else group_median(self.y, code)
        rows = replace(self.take(first), y=values, n_merged=len(code) - len(first))
        if self.classification:  # a label that is never the most frequent one is gone
            present, codes = np.unique(rows.y, return_inverse=True)
            rows = replace(rows, y=codes, classes=self.classes[present])
        rows = replace(rows, remarks=(*self.remarks, *self._merging(code)))
        rows._check_learnable(self._merging(code))
        return rows, code, first

    def _merging(self, group: NDArray[np.intp]) -> tuple[str, ...]:
        """How far the rows that are merged differ, a sentence."""
        counts = np.bincount(group)
        repeated = np.flatnonzero(counts > 1)
        if not len(repeated):
            return ()
        text = self.formulas.text
        advice = "if another column tells the rows apart, such as a temperature, `rank` and `fit` take it (--column)"
        if self.names:
            advice = f"they are alike in {' and '.join(self.names)} too"
        low, high = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
        np.minimum.at(low, group, self.y)
        np.maximum.at(high, group, self.y)
        differ = repeated[low[repeated] < high[repeated]]
        if not len(differ):
            return ()
        example = text[int(np.flatnonzero(group == differ[0])[0])]
        n = counted(len(differ), "formula")
        if self.classification:
            carry = "carries" if len(differ) == 1 else "carry"
            return (f"{n} {carry} more than one label, such as {example}; the most frequent is taken; {advice}.",)
        if (low[differ] > 0).all():
            ratio = float(np.median(high[differ] / low[differ]))
            apart = f"{ratio:.3g}-fold in the median"
        else:
            share = float(np.median(high[differ] - low[differ]) / np.ptp(self.y))
            apart = f"by {100 * share:.2g} % of the range of the target in the median"
        return (f"The values of {n} that stand in several rows differ {apart}, such as {example}; {advice}.",)

    def _check_learnable(self, merging: Sequence[str]) -> None:
        """Raise if the target is constant, or has about as many labels as rows."""
        also = "".join(f". {sentence}" for sentence in merging).rstrip(".")
        if not self.classification:
            if np.ptp(self.y) == 0:
                raise InputError(f"the target is {self.y[0]:g} in every row; there is nothing to learn{also}")
            return
        n_classes = len(np.unique(self.y))
        if n_classes < 2:
            label = str(self.classes[self.y[0]])
            raise InputError(f"every formula has the class {label!r}; there is nothing to learn{also}")
        if 2 * n_classes > len(self):
            raise InputError(
                f"the target has {n_classes} different values in {len(self)} rows, such as {str(self.classes[0])!r}, "
                "which are too many for class labels; give numbers, or coarser classes"
            )

    # -- samples and folds ----------------------------------------------------------------------------------------

    def sample(self, max_rows: int, random_state: int) -> NDArray[np.intp]:
        """Sorted positions of all rows, or of `max_rows` drawn by the hashes of their compositions."""
        n = len(self)
        if n <= max_rows:
            return np.arange(n)
        # Rows of one composition have one hash: what else they hold orders them, and their place comes last.
        ties = (np.arange(n), *self.numbers.T, *([self.y] if len(self.y) else []))
        return np.sort(np.lexsort((*ties, key_hashes(self._keys(), random_state)))[:max_rows])

    def folds(self, *, n_folds: int = 5, random_state: int = 0) -> Folds:
        """Folds in which all rows of one composition are on the same side, stratified for class labels.

        Crystals of one composition too, unless they are `apart`. Folds follow what rows are: a table in another order
        has the same.
        """
        y = self.y if len(self.y) else np.zeros(len(self))
        settings: dict[str, Any] = {
            "classification": self.classification,
            "n_folds": n_folds,
            "random_state": random_state,
        }
        keys = self._keys()
        if self.compositions is None:
            return make_folds(y, keys=keys, **settings)
        names, group = np.unique(np.array(keys), return_inverse=True)
        if len(names) < 2 and len(self.crystals):  # polymorphs of one formula are different crystals
            return make_folds(y, keys=[str(value) for value in y.tolist()], **settings)
        if len(names) < 2:
            raise InputError(
                f"all {len(y)} rows have the composition {self.compositions.text[0]}: there is none to test on"
            )
        of_group: NDArray[Any] = group_mode(self.y, group) if self.classification else np.zeros(len(names))
        parts = make_folds(of_group, keys=names.tolist(), **settings)
        return [(np.flatnonzero(np.isin(group, train)), np.flatnonzero(np.isin(group, test))) for train, test in parts]

    def _keys(self) -> Sequence[str]:
        """What each row is known by: its composition, or its numbers where there is none."""
        if self.compositions is not None:
            return self.identities if self.apart else self.compositions.keys()
        return [row.tobytes().hex() for row in np.ascontiguousarray(self.numbers)]


def read_rows(
    X: Any,
    *,
    formula: Hashable | None = None,
    strict: bool = False,
    crystals: bool = False,
    numbers_alone: bool | None = None,
    estimator: Any = None,
    reset: bool = True,
) -> Rows:
    """Read formulas, crystals or numbers, also with further columns.

    Parameters
    ----------
    X : Compositions, sequence of formulas, table of one column, table with a column of formulas, or numbers
        Two-dimensional data of a numeric type, or of several columns without `formula`, count as numbers alone.
    formula : hashable, optional
        Column that holds the formulas; the others must be numbers.
    strict : bool, default=False
        Whether the first row that cannot be read is an error.
    crystals : bool, default=False
        Whether there must be crystals in the place of formulas.
    numbers_alone : bool, optional
        Whether X must be numbers alone, or must not, as in ``fit``. Default: see :func:`is_numeric`.
    estimator : BaseEstimator, optional
        Its ``n_features_in_`` and ``feature_names_in_`` are set or checked for tables of several columns.
    reset : bool, default=True
        Whether the estimator is being fitted.

    Raises
    ------
    InputError
        If there is no column `formula`, or if `crystals` and `strict`, for the first that is none.
    CompositionError
        If `strict`, for the first bad formula.
    """
    if formula is not None:
        rows = _read_table(X, formula, strict=strict, crystals=crystals)
        if estimator is not None:
            validate_data(estimator, X, skip_check_array=True, reset=reset)
        return rows
    numeric = is_numeric(X)
    if numeric and numbers_alone is False:
        raise InputError("X holds numbers or several columns, but the model was fitted on one column of formulas")
    if numeric or numbers_alone:
        if estimator is None:
            raise InputError("X holds numbers or several columns; name its column of formulas, or give that alone")
        numbers = validate_data(estimator, X, dtype=np.float64, reset=reset)
        names = getattr(estimator, "feature_names_in_", [f"x{i}" for i in range(numbers.shape[1])])
        n = len(numbers)
        return Rows(None, numbers, tuple(str(name) for name in names), np.arange(n), list(range(n)), ())
    return _read_column(X, strict=strict, crystals=crystals)


def _read_column(X: Any, *, strict: bool, crystals: bool) -> Rows:
    """Read a column of formulas, of crystals, or of both."""
    if not crystals:
        if not isinstance(X, Compositions):
            values, index = column_of(X)
            if any(map(holds_crystal, values)):
                return _read_materials(values, index, strict=strict)
            X = values if index is None else X  # an iterator is empty by now
        compositions = parse_compositions(X, on_error="raise" if strict else "skip")
        labels = list(X.index) if hasattr(X, "iloc") else list(range(compositions.n_input))
        n = len(compositions)
        positions, notes = compositions.rows.astype(np.intp), tuple(map(str, compositions.notes))
        return Rows(compositions, np.empty((n, 0)), (), positions, labels, compositions.skipped, remarks=notes)
    values, index = column_of(X)
    labels = list(range(len(values))) if index is None else index
    kept, skipped, found = [], [], []
    for row, value in enumerate(values):
        try:
            found.append(as_crystal(value))
            kept.append(row)
        except StructureError as error:
            skipped.append(SkippedRow(row, labels[row], shown(value), str(error)))
    column = np.empty(len(found), dtype=object)
    column[:] = found
    rows = Rows(
        parse_compositions(found),
        np.empty((len(found), 0)),
        (),
        np.array(kept, dtype=np.intp),
        labels,
        tuple(skipped),
        column,
        remarks=_remarks_of_readers(column),
    )
    if strict:
        rows.refuse_skipped()
    return rows


def _read_materials(values: list[Any], index: list[Hashable] | None, *, strict: bool) -> Rows:
    """Read a column in which some values are crystals, and others formulas."""
    labels = list(range(len(values))) if index is None else index
    kept: list[int] = []
    given: list[Any] = []
    skipped: list[SkippedRow] = []
    by_formula: list[str] = []
    for row, value in enumerate(values):
        material = value
        if holds_crystal(value):
            try:
                material = read_material(value)
            except StructureError as error:
                if not hasattr(value, "composition"):
                    skipped.append(SkippedRow(row, labels[row], shown(value), str(error)))
                    continue
                by_formula.append(str(error))  # a disordered structure still has a formula
        kept.append(row)
        given.append(material)
    read = parse_compositions(given, on_error="skip")
    skipped += [replace(item, row=kept[item.row], label=labels[kept[item.row]]) for item in read.skipped]
    crystals = _no_objects()
    if any(isinstance(given[place], Crystal) for place in read.rows.tolist()):
        crystals = np.empty(len(read), dtype=object)
        crystals[:] = [given[place] if isinstance(given[place], Crystal) else None for place in read.rows.tolist()]
    notes = tuple(map(str, read.notes))
    if by_formula:
        notes += (
            f"{counted(len(by_formula), 'row')} {'stands for its' if len(by_formula) == 1 else 'stand for their'} "
            f"formula alone: {by_formula[0]}",
        )
    if len(crystals):
        n = sum(crystal is not None for crystal in crystals)
        notes += (f"{n} of {len(read)} rows are crystals; polymorphs of one formula stay apart, {_SHARED}",)
        notes += _remarks_of_readers(crystals)
    positions = np.array(kept, dtype=np.intp)[read.rows]
    skipped.sort(key=lambda item: item.row)
    rows = Rows(read, np.empty((len(read), 0)), (), positions, labels, tuple(skipped), crystals, remarks=notes)
    if strict:
        rows.refuse_skipped()
    return rows


def _remarks_of_readers(crystals: Iterable[Crystal | None]) -> tuple[str, ...]:
    """What the readers noted of crystals: each remark once, with the number of crystals that it is of."""
    remarks = Counter(
        str(remark)
        for crystal in crystals
        if crystal is not None
        for remark in dict.fromkeys(crystal.properties.get("reader_warnings", ()))
    )
    return tuple(f"{counted(n, 'crystal')}: {remark}" for remark, n in remarks.most_common())


def is_numeric(X: Any) -> bool:
    """Whether X is a table of numbers instead of a column of formulas."""
    if hasattr(X, "toarray"):
        return True  # sparse: refused with scikit-learn's own words
    if not hasattr(X, "shape") and hasattr(X, "__array__"):
        X = np.asarray(X)
    shape = getattr(X, "shape", None)
    if shape is None:
        return isinstance(X, list | tuple) and len(X) > 0 and isinstance(X[0], list | tuple | np.ndarray)
    if len(shape) != 2:
        return False
    if shape[1] != 1:
        return True
    kinds = [dtype.kind for dtype in X.dtypes] if hasattr(X, "dtypes") else [np.asarray(X).dtype.kind]
    return all(kind in "biufc" for kind in kinds)


def _read_table(X: Any, formula: Hashable, *, strict: bool, crystals: bool) -> Rows:
    import pandas as pd

    frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X)
    if formula not in frame.columns:
        columns = ", ".join(map(str, frame.columns[:10]))
        raise InputError(f"there is no column {formula!r} of formulas; the columns are: {columns}")
    others = frame.drop(columns=[formula])
    read = _read_column(frame[formula], strict=strict, crystals=crystals)
    given = others.to_numpy(dtype=object)[read.kept]
    numbers = np.column_stack(
        [np.empty((len(given), 0)), *(pd.to_numeric(pd.Series(column), errors="coerce") for column in given.T)]
    ).astype(np.float64)
    rows = replace(read, numbers=numbers, names=tuple(str(name) for name in others.columns))
    for column, name in enumerate(rows.names):
        bad = ~np.isfinite(rows.numbers[:, column])
        values = others.iloc[rows.kept, column].to_numpy(dtype=object)
        rows = rows.without(bad, values, f"the column {name!r} holds no finite number; give one or leave the row out")
        large = np.abs(rows.numbers[:, column]) > np.finfo(np.float32).max
        values = others.iloc[rows.kept, column].to_numpy(dtype=object)
        rows = rows.without(large, values, f"the column {name!r} holds a number beyond 3e38; give it in another unit")
    if strict:
        rows.refuse_skipped()
    return rows
