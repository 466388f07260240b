"""Whether oxidation states can balance, and how ionic a compound is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import cast

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.compositions import Compositions
from scotl_matgl.descriptors.base import (
    MAGPIE_CITATION,
    MATMINER_CITATION,
    MAX_ENTRIES,
    PYMATGEN_CITATION,
    CompositionDescriptor,
    UsedTable,
    formulas_of_equal_length,
)
from scotl_matgl.descriptors.element_tables import ElementTable, load_element_tables
from scotl_matgl.vocabulary import Floats


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

    def _tables(self) -> list[UsedTable]:
        return [UsedTable(self._table(), self.impute_nan)]

    def _fingerprint_parts(self) -> Iterator[bytes]:
        yield from super()._fingerprint_parts()
        yield json.dumps([states.tolist() for states in load_element_tables().oxidation_states]).encode()

    def _feature_names(self) -> list[str]:
        return ["compound possible", "max ionic char", "avg ionic char"]

    def _describe(self, compositions: Compositions) -> Floats:
        electronegativity = self._table().values(self.impute_nan)[:, 0]
        features = np.zeros((len(compositions), 3))
        features[:, 0] = 1.0
        for rows, numbers, amounts in formulas_of_equal_length(
            compositions, int(np.diff(compositions.offsets).max(initial=1))
        ):
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
        return [MAGPIE_CITATION, PYMATGEN_CITATION, MATMINER_CITATION]


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
        step = max(1, MAX_ENTRIES // sum(sizes))
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
