"""Composition descriptors: formulas to a table of numbers, equal to matminer's and about a hundred times faster.

The statistics over element properties are taken for all formulas of one element count at once, from element tables
that were exported from matminer (`scotl_matgl.element_tables`); matminer itself is imported by
`MatminerDescriptor` only.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from scotl_matgl import registry
from scotl_matgl.composition import SYMBOLS, Compositions, SkippedRow, parse_compositions
from scotl_matgl.element_tables import ElementTable, load_element_tables, load_scotl_table
from scotl_matgl.exceptions import ScotlMatglWarning

Floats = NDArray[np.float64]

# Array entries that one vectorised step may hold (16 MB): wide tables are worked through in slices of the rows.
_ENTRIES = 2_000_000

_MATMINER = (
    "L. Ward, A. Dunn, A. Faghaninia et al., Matminer: An open source toolkit for materials data mining, "
    "Comput. Mater. Sci. 152, 60-69 (2018), doi:10.1016/j.commatsci.2018.05.018"
)
_MAGPIE = (
    "L. Ward, A. Agrawal, A. Choudhary, C. Wolverton, A general-purpose machine learning framework for predicting "
    "properties of inorganic materials, npj Comput. Mater. 2, 16028 (2016), doi:10.1038/npjcompumats.2016.28"
)
_DEML = (
    "A. M. Deml, R. O'Hayre, C. Wolverton, V. Stevanovic, Predicting density functional theory total energies and "
    "enthalpies of formation of metal-nonmetal compounds by linear regression, Phys. Rev. B 93, 085142 (2016), "
    "doi:10.1103/PhysRevB.93.085142"
)
_PYMATGEN = (
    "S. P. Ong, W. D. Richards, A. Jain et al., Python Materials Genomics (pymatgen): A robust, open-source python "
    "library for materials analysis, Comput. Mater. Sci. 68, 314-319 (2013), doi:10.1016/j.commatsci.2012.10.028"
)
_PRESET_CITATIONS = {
    "magpie": (_MAGPIE,),
    "deml": (_DEML,),
    "matscholar_el": (
        "L. Weston, V. Tshitoyan, J. Dagdelen et al., Named entity recognition and normalization applied to "
        "large-scale information extraction from the materials science literature, J. Chem. Inf. Model. 59, "
        "3692-3702 (2019), doi:10.1021/acs.jcim.9b00470",
    ),
    "megnet_el": (
        "C. Chen, W. Ye, Y. Zuo, C. Zheng, S. P. Ong, Graph networks as a universal machine learning framework for "
        "molecules and crystals, Chem. Mater. 31, 3564-3572 (2019), doi:10.1021/acs.chemmater.9b01294",
    ),
    "matminer": (_PYMATGEN,),
}


@dataclass(frozen=True, eq=False)
class _UsedTable:
    """Part of an element table that a descriptor looks up with or without imputation."""

    table: ElementTable
    impute_nan: bool

    @property
    def values(self) -> Floats:
        return self.table.values(self.impute_nan)


class CompositionDescriptor(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base of all descriptors: a scikit-learn transformer from formulas to an array of float64.

    A subclass gives `_feature_names`, `_describe` and `citations`; where it looks values up in element tables also
    `_tables`, from which `coverage`, `imputed_elements` and `fingerprint` follow. Unless it overrides `fit`, it learns
    nothing and `transform` works without `fit`.
    """

    def fit(self, formulas: Any, y: Any = None) -> Self:  # noqa: ARG002  (scikit-learn's signature)
        """Learn nothing: the features depend on the formula alone.

        Parameters
        ----------
        formulas : Compositions, iterable, pandas Series or table of one column
            Not looked at; `transform` reports formulas that cannot be read.
        y : ignored

        Returns
        -------
        self
        """
        return self

    def transform(self, formulas: Any) -> Floats:
        """Compute the features.

        Parameters
        ----------
        formulas : Compositions, iterable, pandas Series or table of one column
            All that `scotl_matgl.composition.parse_compositions` reads. To leave out rows that cannot be read, parse
            them with ``on_error="skip"`` and pass the result.

        Returns
        -------
        ndarray of float64, shape (n, p)
            Or a data frame after ``set_output(transform="pandas")``.

        Raises
        ------
        scotl_matgl.composition.CompositionError
            If a formula cannot be read; the message names the row.
        """
        return self._describe(parse_compositions(formulas))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:  # noqa: ARG002  (scikit-learn's signature)
        """Names of the features.

        Parameters
        ----------
        input_features : ignored
            The name of the column of formulas has no bearing on them.

        Returns
        -------
        ndarray of object, shape (p,)
        """
        return np.array(self._feature_names(), dtype=object)

    @abstractmethod
    def _feature_names(self) -> list[str]:
        """Return the p names."""

    @abstractmethod
    def _describe(self, compositions: Compositions) -> Floats:
        """Compute the features, shape (n, p)."""

    @abstractmethod
    def citations(self) -> list[str]:
        """Return short references to what the features are and where their values come from."""

    def _tables(self) -> list[_UsedTable]:
        """Return the element tables that are looked up."""
        return []

    def _fingerprint_parts(self) -> Iterator[bytes]:
        """Yield everything but the names that the features depend on."""
        for used in self._tables():
            yield "\n".join(used.table.properties).encode()
            yield np.ascontiguousarray(used.values, dtype="<f8").tobytes()

    def fingerprint(self) -> str:
        """Identify the features: equal fingerprints mean the same columns from the same element tables.

        Returns
        -------
        str
            SHA-256 over names and tables, 64 hexadecimal digits, the same in every process and on every machine.
        """
        digest = hashlib.sha256(type(self).__name__.encode())
        for part in ("\n".join(self._feature_names()).encode(), *self._fingerprint_parts()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.hexdigest()

    def coverage(self, formulas: Any) -> Floats:
        """Share of the element data behind each row that the tables know.

        Parameters
        ----------
        formulas : Compositions, iterable, pandas Series or table of one column
            As for `transform`.

        Returns
        -------
        ndarray of float64, shape (n,)
            Of all (element of the formula, property) entries that are looked up, the share that is not imputed (not
            missing, where the descriptor does not impute); elements count equally, whatever their amounts. 1 where
            nothing is looked up.
        """
        compositions = parse_compositions(formulas)
        known = np.zeros(len(SYMBOLS))
        width = 0
        for used in self._tables():
            known += used.table.known.sum(axis=1)
            width += used.table.known.shape[1]
        if width == 0 or len(compositions) == 0:
            return np.ones(len(compositions))
        found = np.add.reduceat(known[compositions.numbers - 1], compositions.offsets[:-1])
        return cast("Floats", found / (width * np.diff(compositions.offsets)))

    def imputed_elements(self, formulas: Any) -> dict[str, tuple[str, ...]]:
        """List what the tables do not know about the elements of some formulas.

        Parameters
        ----------
        formulas : Compositions, iterable, pandas Series or table of one column
            As for `transform`.

        Returns
        -------
        dict of str to tuple of str
            Symbol of each element with an imputed (missing, where the descriptor does not impute) property, in order
            of atomic number, and those properties as "source property".
        """
        numbers = np.unique(parse_compositions(formulas).numbers)
        listing: dict[str, dict[str, None]] = {}
        for z in numbers.tolist():
            for used in self._tables():
                table = used.table
                for column in np.flatnonzero(~table.known[z - 1]):
                    listing.setdefault(SYMBOLS[z - 1], {})[f"{table.source} {table.properties[column]}"] = None
        return {symbol: tuple(names) for symbol, names in listing.items()}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.requires_fit = False
        tags.no_validation = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _same_length(compositions: Compositions, width: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], Floats]]:
    """Yield (rows (m,), atomic numbers (m, k), amounts (m, k)) of formulas of k elements, m·k·width being bounded."""
    counts = np.diff(compositions.offsets)
    for k in np.unique(counts).tolist():
        rows = np.flatnonzero(counts == k)
        step = max(1, _ENTRIES // (k * width))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            entries = compositions.offsets[part][:, None] + np.arange(k)
            yield part, compositions.numbers[entries].astype(np.intp), compositions.amounts[entries]


def _mean(values: Floats, weights: Floats) -> Floats:
    return cast("Floats", (values * weights).sum(axis=1) / weights.sum(axis=1))


def _property_statistics(values: Floats, amounts: Floats, statistics: Sequence[str]) -> Floats:
    """Statistics over the elements of formulas of equal length, as matminer's ``PropertyStats`` defines them.

    Parameters
    ----------
    values : ndarray of float64, shape (m, k, p)
        Properties of the k elements.
    amounts : ndarray of float64, shape (m, k)
        Raw amounts: `mode` depends on their size.
    statistics : sequence of str
        Names.

    Returns
    -------
    ndarray of float64, shape (m, p, len(statistics))
    """
    weights = amounts[:, :, None]
    found: dict[str, Floats] = {"minimum": values.min(axis=1), "maximum": values.max(axis=1)}
    mean = _mean(values, weights)
    for name in statistics:
        if name == "range":
            found[name] = found["maximum"] - found["minimum"]
        elif name == "mean":
            found[name] = mean
        elif name == "avg_dev":
            found[name] = _mean(np.abs(values - mean[:, None]), weights)
        elif name == "std_dev":
            found[name] = _unbiased_deviation(values, mean, weights)
        elif name == "mode":
            # The largest amount is the reference of the tolerance, and infinity keeps the others (and their NaN) out.
            most = np.isclose(amounts, amounts.max(axis=1, keepdims=True))
            found[name] = np.where(most[:, :, None], values, np.inf).min(axis=1)
    return np.stack([found[name] for name in statistics], axis=2)


def _unbiased_deviation(values: Floats, mean: Floats, weights: Floats) -> Floats:
    if values.shape[1] == 1:
        return np.zeros_like(mean)  # by definition, even where the value is missing
    total = weights.sum(axis=1)
    scale = total / (total**2 - (weights**2).sum(axis=1))
    return cast("Floats", np.sqrt(scale * ((values - mean[:, None]) ** 2 * weights).sum(axis=1)))


class ElementPropertyDescriptor(CompositionDescriptor):
    """Statistics of element properties weighted by composition, as matminer's ``ElementProperty`` presets.

    Parameters
    ----------
    preset : {"magpie", "deml", "matscholar_el", "megnet_el", "matminer"}
        Element table with its properties and statistics: 132, 80, 1000, 80 and 65 features.
    impute_nan : bool
        Fill values that the table does not have, mostly by the mean over all elements: the features are then finite,
        and `coverage` says how much of them is invented. Otherwise they are NaN, and a formula with an element for
        which matminer raises an error (from Rf on in matscholar_el, 30 elements in deml) is a row of NaN.

    Notes
    -----
    Minimum, maximum, range and mode equal matminer 0.10.1's exactly, the others to 1e-12 of the column's largest
    value; NaN stand in the same places. The mode is the smallest value among the elements whose raw amounts tie with
    the largest one by ``numpy.isclose``, so it may depend on the multiple in which a formula is written. Cost: about
    5 µs per formula for magpie, 40 µs for matscholar_el.

    References
    ----------
    L. Ward et al., npj Comput. Mater. 2, 16028 (2016), for the statistics; `citations` for the tables.

    Examples
    --------
    >>> magpie = ElementPropertyDescriptor("magpie").set_output(transform="pandas")
    >>> float(magpie.transform(["Fe2O3"]).loc[0, "MagpieData mean Number"])
    15.2
    """

    def __init__(self, preset: str = "magpie", *, impute_nan: bool = True) -> None:
        self.preset = preset
        self.impute_nan = impute_nan

    def _table(self) -> ElementTable:
        presets = load_element_tables().presets
        if self.preset not in presets:
            raise ValueError(f"Unknown preset={self.preset!r}; choose one of {', '.join(presets)}")
        return presets[self.preset]

    def _tables(self) -> list[_UsedTable]:
        return [_UsedTable(self._table(), self.impute_nan)]

    def _feature_names(self) -> list[str]:
        table = self._table()
        return [f"{table.source} {stat} {name}" for name in table.properties for stat in table.statistics]

    def _describe(self, compositions: Compositions) -> Floats:
        table = self._table()
        lookup = table.values(self.impute_nan)
        features = np.empty((len(compositions), lookup.shape[1] * len(table.statistics)))
        for rows, numbers, amounts in _same_length(compositions, lookup.shape[1]):
            found = _property_statistics(lookup[numbers - 1], amounts, table.statistics)
            features[rows] = found.reshape(len(rows), -1)
            if not self.impute_nan:
                features[rows[table.undefined[numbers - 1].any(axis=1)]] = np.nan
        return features

    def citations(self) -> list[str]:
        """Return references to the element table, the statistics and matminer."""
        self._table()
        return list(dict.fromkeys((*_PRESET_CITATIONS[self.preset], _MAGPIE, _MATMINER)))


def magpie() -> ElementPropertyDescriptor:
    """Return the 132 features of matminer's preset ``magpie`` (22 properties, 6 statistics)."""
    return ElementPropertyDescriptor("magpie")


def deml() -> ElementPropertyDescriptor:
    """Return the 80 features of matminer's preset ``deml`` (16 properties, 5 statistics)."""
    return ElementPropertyDescriptor("deml")


def matscholar_el() -> ElementPropertyDescriptor:
    """Return the 1000 features of matminer's preset ``matscholar_el`` (200-wide word embeddings, 5 statistics)."""
    return ElementPropertyDescriptor("matscholar_el")


def megnet_el() -> ElementPropertyDescriptor:
    """Return the 80 features of matminer's preset ``megnet_el`` (16-wide MEGNet embeddings, 5 statistics)."""
    return ElementPropertyDescriptor("megnet_el")


class StoichiometryDescriptor(CompositionDescriptor):
    """p-norms of the atomic fractions, as matminer's ``Stoichiometry``: 6 features by default.

    Parameters
    ----------
    norms : tuple of int
        Values of p; 0 counts the elements.

    References
    ----------
    L. Ward et al., npj Comput. Mater. 2, 16028 (2016).

    Examples
    --------
    >>> StoichiometryDescriptor(norms=(0, 2)).transform(["NaCl"]).round(6)
    array([[2.      , 0.707107]])
    """

    def __init__(self, norms: tuple[int, ...] = (0, 2, 3, 5, 7, 10)) -> None:
        self.norms = norms

    def _feature_names(self) -> list[str]:
        return [f"{p}-norm" for p in self.norms]

    def _describe(self, compositions: Compositions) -> Floats:
        if any(p < 0 for p in self.norms):
            raise ValueError(f"norms={self.norms!r} holds a negative p: only p >= 0 is defined")
        starts = compositions.offsets[:-1]
        if len(starts) == 0:
            return np.empty((0, len(self.norms)))
        columns = [
            np.add.reduceat(compositions.fractions**p, starts) ** (1 / p) if p else np.diff(compositions.offsets)
            for p in self.norms
        ]
        return np.stack(columns, axis=1).astype(np.float64)

    def _fingerprint_parts(self) -> Iterator[bytes]:
        yield repr(tuple(self.norms)).encode()

    def citations(self) -> list[str]:
        """Return references to the features and to matminer."""
        return [_MAGPIE, _MATMINER]


class ValenceOrbitalDescriptor(CompositionDescriptor):
    """Mean number and share of s, p, d and f valence electrons, as matminer's ``ValenceOrbital``: 8 features.

    Parameters
    ----------
    impute_nan : bool
        Fill values that the magpie table does not have by the mean over all elements, else give NaN.

    References
    ----------
    L. Ward et al., npj Comput. Mater. 2, 16028 (2016); A. M. Deml et al., Phys. Rev. B 93, 085142 (2016).

    Examples
    --------
    >>> ValenceOrbitalDescriptor().transform(["NaCl"])[0, :4]
    array([1.5, 2.5, 0. , 0. ])
    """

    def __init__(self, *, impute_nan: bool = True) -> None:
        self.impute_nan = impute_nan

    def _table(self) -> ElementTable:
        columns = ("NsValence", "NpValence", "NdValence", "NfValence", "NValence")
        return load_element_tables().presets["magpie"].select(columns)

    def _tables(self) -> list[_UsedTable]:
        return [_UsedTable(self._table(), self.impute_nan)]

    def _feature_names(self) -> list[str]:
        return [f"{kind} {orbital} valence electrons" for kind in ("avg", "frac") for orbital in "spdf"]

    def _describe(self, compositions: Compositions) -> Floats:
        lookup = self._table().values(self.impute_nan)
        features = np.empty((len(compositions), 8))
        for rows, numbers, amounts in _same_length(compositions, lookup.shape[1]):
            mean = _mean(lookup[numbers - 1], amounts[:, :, None])
            features[rows, :4] = mean[:, :4]
            features[rows, 4:] = mean[:, :4] / mean[:, 4:]
        return features

    def citations(self) -> list[str]:
        """Return references to the features and to matminer."""
        return [_MAGPIE, _DEML, _MATMINER]


class IonPropertyDescriptor(CompositionDescriptor):
    """Whether an ionic compound is possible, and its ionic character, as matminer's ``IonProperty(fast=True)``.

    Three features. "compound possible" is 1 where every element can be given *one* of pymatgen's common oxidation
    states such that the charges, weighted by the amounts as written, add up to zero within 1e-8, and where there is
    only one element. So Fe3O4 is not possible, nor is a formula whose amounts are rounded ("Fe0.67O"), nor one with
    an element that has no common oxidation state. "max ionic char" and "avg ionic char" are 1 − exp(−(X_a − X_b)²/4)
    over the pairs of elements, at most and on average (weighted by the product of the fractions).

    Parameters
    ----------
    impute_nan : bool
        Use the mean electronegativity for elements that have none (He, Ne, Ar and some heavy ones), else give NaN.

    Notes
    -----
    Oxidation states that a pymatgen ``Composition`` carries are not used, unlike in matminer. Cost: about 3 µs per
    formula. It grows with the square root of the number of combinations of oxidation states, where matminer tries
    them one by one.

    References
    ----------
    L. Ward et al., npj Comput. Mater. 2, 16028 (2016).

    Examples
    --------
    >>> IonPropertyDescriptor().transform(["Fe2O3", "Fe3O4"])[:, 0]
    array([1., 0.])
    """

    def __init__(self, *, impute_nan: bool = True) -> None:
        self.impute_nan = impute_nan

    def _table(self) -> ElementTable:
        return load_element_tables().presets["matminer"].select(("X",))

    def _tables(self) -> list[_UsedTable]:
        return [_UsedTable(self._table(), self.impute_nan)]

    def _fingerprint_parts(self) -> Iterator[bytes]:
        yield from super()._fingerprint_parts()
        yield json.dumps([states.tolist() for states in load_element_tables().oxidation_states]).encode()

    def _feature_names(self) -> list[str]:
        return ["compound possible", "max ionic char", "avg ionic char"]

    def _describe(self, compositions: Compositions) -> Floats:
        electronegativity = self._table().values(self.impute_nan)[:, 0]
        features = np.zeros((len(compositions), 3))
        features[:, 0] = 1.0
        for rows, numbers, amounts in _same_length(compositions, int(np.diff(compositions.offsets).max(initial=1))):
            if numbers.shape[1] == 1:
                continue
            features[rows, 0] = _charges_can_balance(numbers, amounts)
            first, second = np.triu_indices(numbers.shape[1], k=1)
            x = electronegativity[numbers - 1]
            fractions = amounts / amounts.sum(axis=1, keepdims=True)
            character = 1.0 - np.exp(-0.25 * (x[:, first] - x[:, second]) ** 2)
            features[rows, 1] = character.max(axis=1)
            features[rows, 2] = (fractions[:, first] * fractions[:, second] * character).sum(axis=1)
        return features

    def citations(self) -> list[str]:
        """Return references to the features, to pymatgen's oxidation states and to matminer."""
        return [_MAGPIE, _PYMATGEN, _MATMINER]


def _charges_can_balance(numbers: NDArray[np.intp], amounts: Floats) -> NDArray[np.bool_]:
    """Whether one oxidation state per element can add up to zero charge, for m formulas of k elements: shape (m,)."""
    states = load_element_tables().oxidation_states
    n_states = np.array([len(element) for element in states])
    padded = np.zeros((len(states), n_states.max()))
    for row, element in enumerate(states):
        padded[row, : len(element)] = element

    # Formulas with the same numbers of oxidation states (element by element, sorted) make one rectangular array.
    order = np.argsort(-n_states[numbers - 1], axis=1, kind="stable")
    numbers = np.take_along_axis(numbers, order, axis=1)
    amounts = np.take_along_axis(amounts, order, axis=1)
    shapes, shape_of = np.unique(n_states[numbers - 1], axis=0, return_inverse=True)
    possible = np.zeros(len(numbers), dtype=bool)
    for i, shape in enumerate(shapes.tolist()):
        if shape[-1] == 0:
            continue
        # Meet in the middle: the sums of one half against the negated sums of the other.
        halves: tuple[list[int], list[int]] = ([], [])
        sizes = [1, 1]
        for column, size in enumerate(shape):
            smaller = int(sizes[1] < sizes[0])
            halves[smaller].append(column)
            sizes[smaller] *= size
        members = np.flatnonzero(shape_of.ravel() == i)
        step = max(1, _ENTRIES // sum(sizes))
        for start in range(0, len(members), step):
            rows = members[start : start + step]
            sums = []
            for columns in halves:
                total = np.zeros((len(rows), 1))
                for column in columns:
                    charge = padded[numbers[rows, column] - 1, : shape[column]] * amounts[rows, column, None]
                    total = (total[:, :, None] + charge[:, None, :]).reshape(len(rows), -1)
                sums.append(total)
            possible[rows] = _closest_pair(sums[0], -sums[1]) <= 1e-8  # the tolerance of numpy.isclose to zero
    return possible


def _closest_pair(a: Floats, b: Floats) -> Floats:
    """Smallest distance between a member of a (m, p) and one of b (m, q), row by row: neighbours after sorting."""
    both = np.concatenate([a, b], axis=1)
    order = np.argsort(both, axis=1)
    both = np.take_along_axis(both, order, axis=1)
    crosses = np.diff(order < a.shape[1], axis=1)
    return cast("Floats", np.where(crosses, np.diff(both, axis=1), np.inf).min(axis=1))


class ElementFractionDescriptor(CompositionDescriptor):
    """Atomic fraction of each of the 118 elements, as matminer's ``ElementFraction``.

    Examples
    --------
    >>> ElementFractionDescriptor().transform(["H2O"])[0, [0, 7]].round(3)
    array([0.667, 0.333])
    """

    def _feature_names(self) -> list[str]:
        return list(SYMBOLS)

    def _describe(self, compositions: Compositions) -> Floats:
        return compositions.dense_fractions()

    def citations(self) -> list[str]:
        """Return the reference to matminer."""
        return [_MATMINER]


class ScotlVectorDescriptor(CompositionDescriptor):
    """SCOTL's 60-long composition vector: weighted mean, minimum and maximum of 20 scaled element attributes.

    Parameters
    ----------
    table : path-like, optional
        ``scotl_element_table.json``; by default ``reference/scotl_element_table.json`` in the folder that the
        environment variable ``SCOTL_MATGL_ASSETS`` names. The table is not part of this package.

    Notes
    -----
    float64 from the float64 table, where the published code works in float32. Attributes unknown for an element count
    as 0 before scaling, as published; `coverage` counts them as imputed. The attribute ``atomic_weight`` stands twice
    in the table, the second one under the name ``atomic_weight (4)``.

    Examples
    --------
    >>> vector = ScotlVectorDescriptor("scotl_element_table.json").transform(["Fe2O3"])  # doctest: +SKIP
    """

    def __init__(self, table: str | os.PathLike[str] | None = None) -> None:
        self.table = table

    def _tables(self) -> list[_UsedTable]:
        return [_UsedTable(load_scotl_table(self.table), impute_nan=True)]

    def _feature_names(self) -> list[str]:
        table = load_scotl_table(self.table)
        return [f"{table.source} {stat} {name}" for stat in table.statistics for name in table.properties]

    def _describe(self, compositions: Compositions) -> Floats:
        table = load_scotl_table(self.table)
        features = np.empty((len(compositions), len(table.statistics) * len(table.properties)))
        for rows, numbers, amounts in _same_length(compositions, len(table.properties)):
            found = _property_statistics(table.imputed[numbers - 1], amounts, table.statistics)
            features[rows] = found.transpose(0, 2, 1).reshape(len(rows), -1)
        return features

    def citations(self) -> list[str]:
        """Return the reference to the source of the element attributes."""
        return [
            "SCOTL: element attributes of the package mendeleev, L. M. Mentel, https://github.com/lmmentel/mendeleev"
        ]


class MatminerDescriptor(CompositionDescriptor):
    """Any composition featurizer of matminer, by the name of its class.

    Parameters
    ----------
    featurizer : str
        Class in ``matminer.featurizers.composition``, for example ``"WenAlloys"``.
    parameters : mapping of str to object, optional
        Arguments of the class, or of its ``from_preset`` where ``"preset_name"`` is among them. ``impute_nan`` is
        True unless given: matminer's own default differs between versions.

    Attributes
    ----------
    featurizer_ : object
        matminer's featurizer.
    left_out_ : tuple of str
        Features that are text (``AtomicOrbitals`` has four), found on the formula Fe2O3; they are not among the
        features, and a warning names them.
    failed_rows_ : tuple of SkippedRow
        Rows of the last `transform` for which matminer raised an error, with that error; they are rows of NaN.

    Notes
    -----
    Formulas are converted to pymatgen's ``Composition`` without oxidation states, so featurizers that need them
    (``CationProperty``, ``OxidationStates``, ...) fail on every row. Rows are featurized one by one in this process:
    matminer's own pool starts a process for every ten rows. Cost: matminer's import, some seconds, and 0.1 to
    260 ms per formula.

    Examples
    --------
    >>> miedema = MatminerDescriptor("Miedema").fit(["TiZr"])
    >>> miedema.get_feature_names_out()[0]
    'Miedema_deltaH_inter'
    """

    def __init__(self, featurizer: str, parameters: Mapping[str, Any] | None = None) -> None:
        self.featurizer = featurizer
        self.parameters = parameters

    def fit(self, formulas: Any, y: Any = None) -> Self:  # noqa: ARG002  (scikit-learn's signature)
        """Build matminer's featurizer.

        Parameters
        ----------
        formulas : ignored
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is no such featurizer, or it does not take the parameters.
        """
        from matminer.featurizers import composition as module
        from matminer.featurizers.base import BaseFeaturizer

        known: dict[str, Any] = {
            name: cls for name, cls in vars(module).items() if inspect.isclass(cls) and issubclass(cls, BaseFeaturizer)
        }
        if self.featurizer not in known:
            close = get_close_matches(str(self.featurizer), known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"matminer has no composition featurizer {self.featurizer!r}; {hint}It has {', '.join(sorted(known))}"
            )
        cls = known[self.featurizer]
        parameters = dict(self.parameters or {})
        build = cls.from_preset if "preset_name" in parameters else cls
        if "impute_nan" in inspect.signature(build).parameters:
            parameters.setdefault("impute_nan", True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of matminer's own pandas calls, for example
                self.featurizer_: Any = build(**parameters)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"matminer's {self.featurizer} cannot be built with parameters={self.parameters!r}: {error}; it takes "
                f"{inspect.signature(build)}"
            ) from error
        self._labels = [str(label) for label in self.featurizer_.feature_labels()]
        self._numeric = self._find_numeric()
        self.left_out_ = tuple(np.array(self._labels)[~self._numeric].tolist())
        if self.left_out_:
            warnings.warn(
                f"matminer's {self.featurizer} gives text in {', '.join(self.left_out_)}: these features are left out",
                ScotlMatglWarning,
                stacklevel=2,
            )
        self.failed_rows_: tuple[SkippedRow, ...] = ()
        return self

    def _find_numeric(self) -> NDArray[np.bool_]:
        try:
            values = self._featurize({"Fe": 2.0, "O": 3.0})
        except Exception:  # whatever a featurizer raises here, transform will meet again and report row by row
            return np.ones(len(self._labels), dtype=bool)
        return np.array([not isinstance(value, str) for value in values])

    def _featurize(self, amounts: dict[str, float]) -> list[Any]:
        from pymatgen.core.composition import Composition

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(self.featurizer_.featurize(Composition(amounts)))

    def _feature_names(self) -> list[str]:
        check_is_fitted(self)
        return [label for label, numeric in zip(self._labels, self._numeric, strict=True) if numeric]

    def _describe(self, compositions: Compositions) -> Floats:
        check_is_fitted(self)
        features = np.full((len(compositions), int(self._numeric.sum())), np.nan)
        failed = []
        for i in range(len(compositions)):
            numbers, amounts = compositions[i]
            formula = {SYMBOLS[z - 1]: amount for z, amount in zip(numbers.tolist(), amounts.tolist(), strict=True)}
            try:
                values = self._featurize(formula)
                features[i] = [float(value) for value, keep in zip(values, self._numeric, strict=True) if keep]
            except Exception as error:  # matminer raises anything: the row stays NaN and is listed
                row = int(compositions.rows[i])
                reason = f"matminer's {self.featurizer} failed: {type(error).__name__}: {error}"
                failed.append(SkippedRow(row, row, compositions.text[i], reason))
        self.failed_rows_ = tuple(failed)
        return features

    def _fingerprint_parts(self) -> Iterator[bytes]:
        parameters = json.dumps(dict(self.parameters or {}), sort_keys=True, default=repr)
        yield f"{self.featurizer} {parameters} {version('matminer')} {version('pymatgen')}".encode()

    def citations(self) -> list[str]:
        """Return the references that matminer's featurizer names, and matminer's own."""
        check_is_fitted(self)
        return [*map(str, self.featurizer_.citations()), _MATMINER]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        return tags


class CompositeDescriptor(CompositionDescriptor):
    """Several descriptors side by side.

    Parameters
    ----------
    descriptors : sequence of str or CompositionDescriptor
        Registered names or objects, in the order of their columns.

    Attributes
    ----------
    descriptors_ : list of CompositionDescriptor
        The fitted copies.

    Examples
    --------
    >>> both = CompositeDescriptor([StoichiometryDescriptor(), ElementFractionDescriptor()])
    >>> both.transform(["Fe2O3"]).shape
    (1, 124)
    """

    def __init__(self, descriptors: Sequence[Any]) -> None:
        self.descriptors = descriptors

    def _build(self) -> list[CompositionDescriptor]:
        """Return new, unfitted descriptors."""
        if isinstance(self.descriptors, str) or len(self.descriptors) == 0:
            raise ValueError(f"descriptors={self.descriptors!r} must be a list of at least one name or descriptor")
        return [get_descriptor(descriptor) for descriptor in self.descriptors]

    def fit(self, formulas: Any, y: Any = None) -> Self:
        """Fit a copy of every descriptor.

        Parameters
        ----------
        formulas : Compositions, iterable, pandas Series or table of one column
            Read where one of the descriptors needs them.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If two descriptors give a feature of the same name.
        """
        self.descriptors_ = [descriptor.fit(formulas, y) for descriptor in self._build()]
        self._feature_names()
        return self

    def _parts(self) -> list[CompositionDescriptor]:
        return getattr(self, "descriptors_", None) or self._build()

    def _feature_names(self) -> list[str]:
        names = [name for part in self._parts() for name in part.get_feature_names_out().tolist()]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(
                f"Two of the descriptors give the feature {twice[0]!r} ({len(twice)} such features in all): leave one "
                "of the descriptors out"
            )
        return names

    def _describe(self, compositions: Compositions) -> Floats:
        return np.hstack([np.asarray(part.transform(compositions)) for part in self._parts()])

    def _tables(self) -> list[_UsedTable]:
        return [used for part in self._parts() for used in part._tables()]

    def _fingerprint_parts(self) -> Iterator[bytes]:
        for part in self._parts():
            yield part.fingerprint().encode()

    def citations(self) -> list[str]:
        """Return the references of all descriptors, each once."""
        return list(dict.fromkeys(reference for part in self._parts() for reference in part.citations()))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        return tags


class StandardDescriptor(CompositeDescriptor):
    """The default: magpie, stoichiometry, valence orbitals, ion property and element fractions; 267 features.

    Parameters
    ----------
    impute_nan : bool
        Fill values that the element tables do not have, see `ElementPropertyDescriptor`.

    Notes
    -----
    With extra trees on Matbench's five folds the mean absolute error falls from magpie's 0.4145 to 0.3396 eV (band
    gap), and from 93.2 to 85.3 MPa (yield strength of steels). Cost: about 12 µs per formula, parsing included.

    Examples
    --------
    >>> StandardDescriptor().transform(["Fe2O3", "NaCl"]).shape
    (2, 267)
    """

    def __init__(self, *, impute_nan: bool = True) -> None:
        self.impute_nan = impute_nan

    def _build(self) -> list[CompositionDescriptor]:
        return [
            ElementPropertyDescriptor("magpie", impute_nan=self.impute_nan),
            StoichiometryDescriptor(),
            ValenceOrbitalDescriptor(impute_nan=self.impute_nan),
            IonPropertyDescriptor(impute_nan=self.impute_nan),
            ElementFractionDescriptor(),
        ]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


def get_descriptor(descriptor: Any) -> CompositionDescriptor:
    """Turn what a user names as descriptor into a new, unfitted one.

    Parameters
    ----------
    descriptor : str, descriptor, class or sequence of these
        A registered name (entry-point group ``scotl_matgl.descriptors``), an object with `fit`, `transform` and
        `get_feature_names_out`, the class of such objects, or several of these to be put side by side.

    Returns
    -------
    CompositionDescriptor
        A copy where an object was given.

    Raises
    ------
    scotl_matgl.registry.PluginError
        If no descriptor of that name is registered.
    TypeError
        If `descriptor` is none of these.

    Examples
    --------
    >>> get_descriptor("standard").get_feature_names_out()[0]
    'MagpieData minimum Number'
    >>> get_descriptor(["magpie", "fractions"]).transform(["NaCl"]).shape
    (1, 250)
    """
    if isinstance(descriptor, str):
        return cast("CompositionDescriptor", registry.load("descriptors", descriptor)())
    if isinstance(descriptor, Sequence):
        return CompositeDescriptor(list(descriptor))
    if isinstance(descriptor, type):
        descriptor = descriptor()
    if not all(hasattr(descriptor, name) for name in ("fit", "transform", "get_feature_names_out", "get_params")):
        raise TypeError(
            f"{descriptor!r} is not a descriptor: give a registered name ({', '.join(registry.names('descriptors'))}), "
            "a CompositionDescriptor, or a list of these"
        )
    return cast("CompositionDescriptor", clone(descriptor))
