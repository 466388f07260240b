"""Crystal graphs in plain numpy, shared by every encoder: neighbours, checks, batches, three-body terms."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.crystals import Crystal, as_crystal
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.chemistry.refusals import StructureError

#: Added to the squared cut-off by pymatgen's search (its `tol`), so that bonds at the cut-off survive rounding.
TOLERANCE = 1e-8

#: Atoms nearer than this are taken for an error of the input, Å.
MIN_DISTANCE = 0.5

#: Distances that differ by less are taken for equal when bonds are merged, Å. Files with eight digits make equal
#: distances differ by 1e-7, and single precision resolves 5e-7.
MERGE_TOLERANCE = 1e-6

#: Kept below the three-body cut-off, Å, so that single-precision distances of the same bonds are within it too. What is
#: lost has the weight (1e-5 / cut-off)³ ~ 1e-17 of the polynomial envelope.
THREE_BODY_MARGIN = 1e-5


@dataclass(frozen=True, eq=False)
class CrystalGraph:
    """Neighbours of every atom of a crystal within a cut-off, periodic images included.

    Attributes
    ----------
    numbers : ndarray of int16, shape (n_atoms,)
        Atomic numbers.
    positions : ndarray of float64, shape (n_atoms, 3)
        Cartesian coordinates, Å.
    lattice : ndarray of float64, shape (3, 3)
        Lattice vectors in rows, Å.
    source, destination : ndarray of int32, shape (n_bonds,)
        Atom at which a bond starts (ascending) and the atom at which it ends.
    image : ndarray of int32, shape (n_bonds, 3)
        Cell of the end, in lattice vectors.
    distance : ndarray of float64, shape (n_bonds,)
        Length, Å.
    cutoff : float
        Å.
    """

    numbers: NDArray[np.int16]
    positions: NDArray[np.float64]
    lattice: NDArray[np.float64]
    source: NDArray[np.int32]
    destination: NDArray[np.int32]
    image: NDArray[np.int32]
    distance: NDArray[np.float64]
    cutoff: float

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def n_bonds(self) -> int:
        """Number of directed bonds."""
        return len(self.source)

    @property
    def vector(self) -> NDArray[np.float64]:
        """From the start to the end of each bond, Å, shape (n_bonds, 3)."""
        ends = self.positions[self.destination] + self.image @ self.lattice
        return np.asarray(ends - self.positions[self.source], dtype=np.float64)

    def cut(self, cutoff: float) -> CrystalGraph:
        """Graph of a shorter cut-off: the same one that a new search would give, for the price of a mask.

        Parameters
        ----------
        cutoff : float
            Å, at most the cut-off of this graph.

        Raises
        ------
        ValueError
            If `cutoff` is longer than this graph's: the missing bonds are not known.
        """
        if cutoff > self.cutoff:
            raise ValueError(
                f"A graph of {self.cutoff} Å cannot be cut at {cutoff} Å: build it with the longer cut-off"
            )
        if cutoff == self.cutoff:
            return self
        kept = self.distance**2 < cutoff**2 + TOLERANCE
        return dataclasses.replace(
            self,
            source=self.source[kept],
            destination=self.destination[kept],
            image=self.image[kept],
            distance=self.distance[kept],
            cutoff=cutoff,
        )


def build_graph(crystal: Crystal, cutoff: float) -> CrystalGraph:
    """Find the neighbours of every atom, as MatGL's ``Structure2Graph`` does.

    Costs 0.1 to 0.2 ms for crystals of 8 to 30 atoms and 5 Å.

    Parameters
    ----------
    crystal : Crystal
        What :func:`check_crystal` passes.
    cutoff : float
        Å.

    Examples
    --------
    >>> import numpy as np
    >>> from scotl_matgl.chemistry.crystals import Crystal
    >>> sites, numbers = np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([55, 17], np.int16)
    >>> build_graph(Crystal(4.14 * np.eye(3), sites, numbers), 4.0).n_bonds
    16
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    positions = np.ascontiguousarray(crystal.frac_coords @ crystal.lattice)
    lattice = np.ascontiguousarray(crystal.lattice, dtype=np.float64)
    source, destination, image, distance = find_points_in_spheres(
        positions, positions, r=float(cutoff), pbc=np.ones(3, dtype=np.int64), lattice=lattice, tol=TOLERANCE
    )
    bond = (source != destination) | (distance > TOLERANCE)
    return CrystalGraph(
        numbers=np.asarray(crystal.numbers, dtype=np.int16),
        positions=positions,
        lattice=lattice,
        source=source[bond].astype(np.int32),
        destination=destination[bond].astype(np.int32),
        image=image[bond].astype(np.int32),
        distance=distance[bond],
        cutoff=float(cutoff),
    )


def check_crystal(crystal: Any, elements: Collection[str] = (), min_distance: float = MIN_DISTANCE) -> str | None:
    """Say why a model must not be given this crystal, judged before neighbours are searched.

    Models do not refuse by themselves: NaN coordinates (which a :class:`~scotl_matgl.chemistry.crystals.Crystal` cannot
    hold) give finite numbers in every one of them, and overlapping atoms do in MEGNet.

    Parameters
    ----------
    crystal : object
        Anything; what :func:`~scotl_matgl.chemistry.crystals.as_crystal` understands may pass.
    elements : collection of str
        Symbols that the model knows; empty if it takes all.
    min_distance : float
        Å.

    Returns
    -------
    str or None
        The reason, a sentence without a full stop; None if nothing speaks against it.
    """
    try:
        crystal = as_crystal(crystal)
    except StructureError as error:
        return str(error)
    if elements:
        symbols = sorted({SYMBOLS[number - 1] for number in crystal.numbers.tolist()} - set(elements))
        if symbols:
            return f"the model does not know {', '.join(symbols)} (it knows {len(elements)} elements)"
    # Spheres of diameter d that do not overlap leave at least d³/√2 to each; a smaller cell would also make the search
    # for neighbours explode.
    volume = abs(float(np.linalg.det(crystal.lattice))) / len(crystal)
    shortest = float(np.linalg.norm(crystal.lattice, axis=1).min())
    if volume < min_distance**3 / np.sqrt(2) or shortest < min_distance:
        return (
            f"its cell is too small for its atoms: {volume:.3g} Å³ per atom, shortest lattice vector {shortest:.3g} Å"
        )
    return None


def check_graph(graph: CrystalGraph, min_distance: float = MIN_DISTANCE) -> str | None:
    """Say why a model must not be given this graph: overlapping atoms, or an atom without neighbours.

    Returns
    -------
    str or None
        The reason; None if there is none.
    """
    if graph.n_bonds:
        nearest = int(np.argmin(graph.distance))
        if graph.distance[nearest] < min_distance:
            return (
                f"its atoms overlap: {_site(graph, graph.source[nearest])} and "
                f"{_site(graph, graph.destination[nearest])} are {graph.distance[nearest]:.3g} Å apart"
            )
    lonely = np.flatnonzero(np.bincount(graph.source, minlength=graph.n_atoms) == 0)
    if len(lonely):
        return f"{_site(graph, lonely[0])} has no neighbour within {graph.cutoff:g} Å"
    return None


def _site(graph: CrystalGraph, index: int) -> str:
    return f"{SYMBOLS[graph.numbers[index] - 1]} (site {int(index)})"


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Several crystal graphs as one graph without bonds between them.

    Attributes
    ----------
    numbers, source, destination, image, distance : ndarray
        As in :class:`CrystalGraph`; atoms are counted through.
    vector : ndarray of float64, shape (n_bonds, 3)
        From the start to the end of each bond, Å.
    n_atoms, n_bonds : ndarray of int64, shape (n_crystals,)
        How many of each a crystal has in this batch.
    atom_count, bond_count : ndarray of int32, shapes (n_atoms,) and (n_bonds,)
        For how many equal ones each stands; 1 unless they were merged.
    """

    numbers: NDArray[np.int16]
    source: NDArray[np.int32]
    destination: NDArray[np.int32]
    image: NDArray[np.int32]
    vector: NDArray[np.float64]
    distance: NDArray[np.float64]
    n_atoms: NDArray[np.int64]
    n_bonds: NDArray[np.int64]
    atom_count: NDArray[np.int32]
    bond_count: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.n_atoms)

    def reordered(self, order: NDArray[np.int64]) -> GraphBatch:
        """Batch with its bonds in another order; they are then no longer sorted by crystal."""
        names = ("source", "destination", "image", "vector", "distance", "bond_count")
        return dataclasses.replace(self, **{name: getattr(self, name)[order] for name in names})

    def take(self, rows: NDArray[np.int64]) -> GraphBatch:
        """Batch of some of the crystals, in the order of `rows`; the bonds must be sorted by crystal."""
        atoms, bonds = _ranges(self.n_atoms, rows), _ranges(self.n_bonds, rows)
        n_atoms, n_bonds = self.n_atoms[rows], self.n_bonds[rows]
        # From where the atoms of each crystal begin here to where they begin in the result.
        shift = (np.cumsum(n_atoms) - n_atoms) - (np.cumsum(self.n_atoms) - self.n_atoms)[rows]
        moved = np.repeat(shift, n_bonds).astype(np.int32)
        return GraphBatch(
            numbers=self.numbers[atoms],
            source=self.source[bonds] + moved,
            destination=self.destination[bonds] + moved,
            image=self.image[bonds],
            vector=self.vector[bonds],
            distance=self.distance[bonds],
            n_atoms=n_atoms,
            n_bonds=n_bonds,
            atom_count=self.atom_count[atoms],
            bond_count=self.bond_count[bonds],
        )

    @classmethod
    def join(cls, batches: Sequence[GraphBatch]) -> GraphBatch:
        """All crystals of several batches, in order."""
        joined = {
            field.name: np.concatenate([getattr(batch, field.name) for batch in batches])
            for field in dataclasses.fields(cls)
        }
        sizes = np.array([len(batch.numbers) for batch in batches])
        first = np.repeat(np.cumsum(sizes) - sizes, [len(batch.source) for batch in batches]).astype(np.int32)
        return cls(**{**joined, "source": joined["source"] + first, "destination": joined["destination"] + first})


def _ranges(sizes: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the members of some groups, where the members of all groups lie one after the other."""
    chosen = sizes[rows]
    begin = (np.cumsum(sizes) - sizes)[rows]
    return np.repeat(begin - (np.cumsum(chosen) - chosen), chosen) + np.arange(chosen.sum())


def batch_graphs(graphs: Sequence[CrystalGraph]) -> GraphBatch:
    """Concatenate graphs; indices stay 32-bit, which costs TensorNet 25 to 40 % less than 64-bit ones."""
    n_atoms = np.array([graph.n_atoms for graph in graphs], dtype=np.int64)
    n_bonds = np.array([graph.n_bonds for graph in graphs], dtype=np.int64)
    first_atom = np.repeat(np.cumsum(n_atoms) - n_atoms, n_bonds).astype(np.int32)
    return GraphBatch(
        numbers=np.concatenate([graph.numbers for graph in graphs]),
        source=np.concatenate([graph.source for graph in graphs]) + first_atom,
        destination=np.concatenate([graph.destination for graph in graphs]) + first_atom,
        image=np.concatenate([graph.image for graph in graphs]),
        vector=np.concatenate([graph.vector for graph in graphs]),
        distance=np.concatenate([graph.distance for graph in graphs]),
        n_atoms=n_atoms,
        n_bonds=n_bonds,
        atom_count=np.ones(n_atoms.sum(), dtype=np.int32),
        bond_count=np.ones(n_bonds.sum(), dtype=np.int32),
    )


def merge_equal(batch: GraphBatch, rounds: int) -> GraphBatch:
    """Merge atoms and bonds that a model of distances alone cannot tell apart, as symmetry makes them.

    Atoms of one crystal start equal if they are the same element. In each round they stay equal if they have the same
    neighbours at the same distances (Weisfeiler-Leman refinement); `rounds` convolutions cannot tell them apart then.
    Bonds are merged if they join equal atoms at equal distance. Crystals of the Materials Project are left with about a
    third of their bonds. Not for models that look at angles or vectors.

    Parameters
    ----------
    batch : GraphBatch
        Every atom must have a neighbour (:func:`check_graph`).
    rounds : int
        Number of convolutions of the model.

    Returns
    -------
    GraphBatch
        With multiplicities in ``atom_count`` and ``bond_count``, which are the weights of every mean.
    """
    kind = _equal_distances(batch.distance)
    first_bond = np.searchsorted(batch.source, np.arange(len(batch.numbers)))
    crystal = np.repeat(np.arange(len(batch), dtype=np.uint64), batch.n_atoms)
    classes = np.unique(_hash(crystal, batch.numbers.astype(np.uint64)), return_inverse=True)[1]
    n_classes = 0
    for _ in range(rounds):
        if classes.max() + 1 == n_classes:
            break
        n_classes = classes.max() + 1
        # The sum over neighbours of random 64-bit numbers: equal for equal neighbours in any order.
        surroundings = np.add.reduceat(_hash(classes[batch.destination].astype(np.uint64), kind), first_bond)
        classes = np.unique(_hash(classes.astype(np.uint64), surroundings), return_inverse=True)[1]

    _, first_atom, atom_count = np.unique(classes, return_index=True, return_counts=True)
    order = np.argsort(first_atom)  # crystals stay together
    atoms = first_atom[order]
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    merged = rank[classes]

    chosen = np.zeros(len(batch.numbers), dtype=bool)
    chosen[atoms] = True
    bonds = np.flatnonzero(chosen[batch.destination])
    source, destination = merged[batch.source[bonds]], merged[batch.destination[bonds]]
    key = (destination.astype(np.int64) * len(atoms) + source) * (int(kind.max()) + 1) + kind[bonds].astype(np.int64)
    _, first, bond_count = np.unique(key, return_index=True, return_counts=True)
    n_atoms = np.bincount(crystal[atoms].astype(np.int64), minlength=len(batch))
    owner = np.repeat(np.arange(len(batch)), n_atoms)[destination[first]]
    return GraphBatch(
        numbers=batch.numbers[atoms],
        source=source[first],
        destination=destination[first],
        image=batch.image[bonds[first]],
        vector=batch.vector[bonds[first]],
        distance=batch.distance[bonds[first]],
        n_atoms=n_atoms,
        n_bonds=np.bincount(owner, minlength=len(batch)),
        atom_count=atom_count[order].astype(np.int32),
        bond_count=(bond_count * atom_count[order][destination[first]]).astype(np.int32),
    )


def _equal_distances(distance: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Number the different distances: two are equal if no gap of 1e-6 Å lies between them."""
    order = np.argsort(distance)
    kind = np.empty(len(distance), dtype=np.uint64)
    kind[order] = np.cumsum(np.diff(distance[order], prepend=-1.0) > MERGE_TOLERANCE)
    return kind


def _hash(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix pairs of numbers into one (the finaliser of splitmix64, public domain): 64-bit collisions are ignored."""
    value = left * np.uint64(0x9E3779B97F4A7C15) + right
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
    return value ^ (value >> np.uint64(31))


def plan_batches(n_bonds: Sequence[int], batch_edges: int) -> Iterator[NDArray[np.int64]]:
    """Cut crystals, sorted by size, into batches of at most `batch_edges` bonds (a larger crystal stands alone).

    Parameters
    ----------
    n_bonds : sequence of int
        Bonds of each crystal.
    batch_edges : int
        At least 1.

    Yields
    ------
    ndarray of int64
        Positions in `n_bonds`.
    """
    if batch_edges < 1:
        raise ValueError(f"batch_edges is {batch_edges}; it must be at least 1")
    sizes = np.asarray(n_bonds, dtype=np.int64)
    order = np.argsort(sizes, kind="stable")
    start, total = 0, 0
    for stop, size in enumerate(sizes[order].tolist()):
        if total + size > batch_edges and stop > start:
            yield order[start:stop]
            start, total = stop, 0
        total += size
    if start < len(order):
        yield order[start:]


@dataclass(frozen=True, eq=False)
class ThreeBody:
    """Pairs of bonds that start at one atom, for the three-body terms of M3GNet.

    Attributes
    ----------
    bonds : ndarray of int64, shape (n_bonds_in_pairs,)
        Bonds of the parent graph that are in a pair, sorted by the atom at which they start.
    first, second : ndarray of int32, shape (n_pairs,)
        Positions in `bonds`, sorted by `first`; `first` is the bond that receives the message.
    partners : ndarray of int32, shape (n_bonds_in_pairs,)
        With how many others each of `bonds` is paired; never zero.
    """

    bonds: NDArray[np.int64]
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    partners: NDArray[np.int32]


def three_body(source: NDArray[np.int32], distance: NDArray[np.float64], cutoff: float) -> ThreeBody:
    """Pair every bond within a cut-off with every other one of the same atom.

    Parameters
    ----------
    source : ndarray of int32, shape (n_bonds,)
        Atom at which each bond starts, in any order.
    distance : ndarray of float64, shape (n_bonds,)
        Å.
    cutoff : float
        Three-body cut-off, Å.

    References
    ----------
    C. Chen, S. P. Ong, Nature Computational Science 2, 718 (2022), eqs. 2 and 3.

    Examples
    --------
    >>> import numpy as np
    >>> pairs = three_body(np.array([0, 1, 0], np.int32), np.array([1.0, 1.0, 2.0]), cutoff=4.0)
    >>> pairs.bonds, pairs.first, pairs.second
    (array([0, 2]), array([0, 1], dtype=int32), array([1, 0], dtype=int32))
    """
    within = np.flatnonzero(distance <= cutoff - THREE_BODY_MARGIN)
    within = within[np.argsort(source[within], kind="stable")]
    per_atom = np.bincount(source[within])
    within = within[per_atom[source[within]] > 1]
    partners = per_atom[source[within]] - 1

    # Bond b of an atom whose bonds are [start, start + partners] is paired with all of these but itself.
    ends = np.cumsum(partners)
    first = np.repeat(np.arange(len(within)), partners)
    rank = np.arange(len(first)) - np.repeat(ends - partners, partners)
    atoms = source[within]
    start = np.searchsorted(atoms, atoms, side="left")
    second = start[first] + rank
    second += second >= first
    return ThreeBody(
        bonds=within.astype(np.int64),
        first=first.astype(np.int32),
        second=second.astype(np.int32),
        partners=partners.astype(np.int32),
    )
