"""The 12 nearest neighbours of every atom, chosen so that the order in which a crystal lists its sites does not matter.

The published code takes the first 12 of a list sorted by distance, so the order of sites decides between neighbours at
equal distance, and which atom fills the places of neighbours that are missing (site 0). Here both are decided by the
crystal: by distance, then atomic number, then surroundings, and by the index of the site only between atoms that have
equal surroundings, which a network of distances cannot tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.plugin import GraphBatch

#: Distances of one crystal that differ by less are taken for equal, Å. In files with six digits, equal distances differ
#: by 1e-5; with a tolerance below that, their last digits would choose the neighbours.
TIE_TOLERANCE = 1e-4

#: Bonds that are longer than the last neighbour by less than this are looked at for ties, Å.
_MARGIN = 10 * TIE_TOLERANCE


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Neighbours of the atoms of a batch.

    Attributes
    ----------
    index : ndarray of int64, shape (n_atoms, n_neighbours)
        Atoms of the batch, from the nearest on.
    distance : ndarray of float64, shape (n_atoms, n_neighbours)
        Å.
    tied, padded : ndarray of bool, shape (n_crystals,)
        Whether an atom of the crystal has more neighbours at the distance of its last one than there is room for, and
        these are not all alike; whether an atom has too few, and the atoms of the crystal are not all alike. In both
        cases the published code gives different values for different orders of the sites.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]
    tied: NDArray[np.bool_]
    padded: NDArray[np.bool_]


def nearest(batch: GraphBatch, count: int, padding: float) -> Neighbours:
    """Choose the nearest neighbours of every atom.

    Parameters
    ----------
    batch : GraphBatch
        Every atom must have a neighbour (:func:`scotl_matgl.encoders.graphs.check_graph`).
    count : int
        Neighbours per atom.
    padding : float
        Distance of the missing ones, Å. In their place stands the atom of the crystal that comes first by atomic
        number, surroundings and index.

    Notes
    -----
    Atoms have equal surroundings if they are the same element and have neighbours with equal surroundings at the same
    distances (colour refinement, B. Weisfeiler and A. Leman, 1968), judged on complete shells of neighbours. What is
    chosen among atoms with equal surroundings changes no feature of any atom, so that the features of a crystal do not
    depend on the order of its sites, nor on the cell that describes it, as far as its equal distances are equal.
    """
    n_atoms = len(batch.numbers)
    crystal = np.repeat(np.arange(len(batch)), batch.n_atoms)
    near = _near(batch, count)
    source, target = batch.source[near].astype(np.int64), batch.destination[near].astype(np.int64)
    distance = batch.distance[near]
    kind = _kinds(crystal[source], distance)

    # Keep complete shells: up to the last bond as long as the one that comes at place `count`.
    order = np.lexsort((kind, source))
    source, target, distance, kind = source[order], target[order], distance[order], kind[order]
    degree = np.bincount(source, minlength=n_atoms)
    start = np.cumsum(degree) - degree
    last = kind[start + np.minimum(degree, count) - 1]
    whole = kind <= last[source]
    source, target, distance, kind = source[whole], target[whole], distance[whole], kind[whole]
    degree = np.bincount(source, minlength=n_atoms)

    classes = np.unique(batch.numbers, return_inverse=True)[1].astype(np.int64)
    if (degree != count).any():
        classes = _refine(classes, source, target, kind)

    order = np.lexsort((target, distance, classes[target], kind, source))
    source, target, distance, kind = source[order], target[order], distance[order], kind[order]
    place = _places(source, degree)
    first_atom = np.lexsort((classes, crystal))[np.cumsum(batch.n_atoms) - batch.n_atoms]
    index = np.repeat(first_atom[crystal][:, None], count, axis=1)
    lengths = np.full((n_atoms, count), padding)
    chosen = place < count
    index[source[chosen], place[chosen]] = target[chosen]
    lengths[source[chosen], place[chosen]] = distance[chosen]

    in_last_shell = kind == last[source]
    unlike = _varies(classes[target[in_last_shell]], source[in_last_shell], n_atoms) & (degree > count)
    short = degree < count
    several = _varies(classes, crystal, len(batch))
    return Neighbours(
        index=index,
        distance=lengths,
        tied=np.bincount(crystal[unlike], minlength=len(batch)) > 0,
        padded=(np.bincount(crystal[short], minlength=len(batch)) > 0) & several,
    )


def _near(batch: GraphBatch, count: int) -> NDArray[np.int64]:
    """Bonds that are not much longer than the last neighbour of their atom."""
    degree = np.bincount(batch.source, minlength=len(batch.numbers))
    table = np.full((len(degree), max(count, int(degree.max()))), np.inf)
    table[batch.source, _places(batch.source, degree)] = batch.distance
    reach = np.partition(table, count - 1, axis=1)[:, count - 1] + _MARGIN
    return np.flatnonzero(batch.distance <= reach[batch.source])


def _places(source: NDArray[np.integer], degree: NDArray[np.integer]) -> NDArray[np.int64]:
    """Place of each bond among those of its atom; `source` is sorted."""
    places: NDArray[np.int64] = np.arange(len(source)) - np.repeat(np.cumsum(degree) - degree, degree)
    return places


def _kinds(crystal: NDArray[np.int64], distance: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number the different distances of each crystal in ascending order.

    Two are equal if no gap of :data:`TIE_TOLERANCE` lies between them. Not by one list for the whole batch: distances
    of another crystal could fill a gap.
    """
    order = np.lexsort((distance, crystal))
    new = np.diff(distance[order], prepend=-1.0) > TIE_TOLERANCE
    new |= np.diff(crystal[order], prepend=-1) > 0
    kind = np.empty(len(order), dtype=np.int64)
    kind[order] = np.cumsum(new)
    return kind


def _refine(
    classes: NDArray[np.int64], source: NDArray[np.int64], target: NDArray[np.int64], kind: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Split classes of atoms until those of one class have equal neighbours; the order of the classes is kept.

    Labels follow from the sorted lists of neighbours themselves, not from hashes or indices, so that they rank the
    atoms of a crystal in the same way however it is written, and whatever it shares the batch with.
    """
    degree = np.bincount(source, minlength=len(classes))
    place = _places(source, degree)
    n_classes = classes.max() + 1
    while True:
        code = kind * n_classes + classes[target]
        order = np.lexsort((code, source))
        rows = np.full((len(classes), 1 + int(degree.max())), -1, dtype=np.int64)
        rows[:, 0] = classes
        rows[source, 1 + place] = code[order]
        classes = _ranks(rows)
        if classes.max() + 1 == n_classes:
            return classes
        n_classes = classes.max() + 1


def _ranks(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of each row in lexicographic order; equal rows share theirs."""
    order = np.lexsort(rows.T[::-1])
    new = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    ranks = np.empty(len(rows), dtype=np.int64)
    ranks[order] = np.concatenate([[0], np.cumsum(new)])
    return ranks


def _varies(values: NDArray[np.int64], group: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Whether the values of each group are not all equal."""
    low = np.full(size, np.iinfo(np.int64).max)
    high = np.full(size, -1)
    np.minimum.at(low, group, values)
    np.maximum.at(high, group, values)
    return high > low
