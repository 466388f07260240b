"""Crystals as plain arrays: what may become one, how files of them are read, and a corpus with a content hash.

A crystal is checked when it is made, so that nothing behind this file meets a molecule, a disordered site or a NaN.

What is decided here
    Oxidation states and site properties are dropped: the encoders do not use them. Deuterium and tritium become
    hydrogen, because isotopes have the same electrons and so the same crystal for every model trained on
    density-functional theory. Sites keep the order and the cell in which they are given; `primitive` reduces the cell.
    Overlapping and isolated atoms are left to the encoders, whose cut-offs decide what they can handle.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.compositions import composition_key
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.chemistry.reading import Reading, ReadingLimits, check_periodic, isotope_notes, with_its_warnings
from scotl_matgl.chemistry.refusals import StructureError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure


# A cell flatter than this part of the box of its edges is an error of the file: the thinnest real cells are near 1e-2.
_FLATTEST = 1e-6
_NUMBERS = frozenset(range(1, len(SYMBOLS) + 1))


@dataclass(frozen=True)
class Refused:
    """A record of a file that is no usable crystal.

    Attributes
    ----------
    identifier : str
        Identifier of the record, or the name of the file.
    reason : str
        Why it was refused and what to do.
    """

    identifier: str
    reason: str


@dataclass(frozen=True, eq=False)
class Crystal:
    """A periodic, ordered, finite arrangement of atoms; its arrays cannot be written to.

    Parameters
    ----------
    lattice : ndarray of float64, shape (3, 3)
        Lattice vectors as rows, in Å.
    frac_coords : ndarray of float64, shape (n, 3)
        Fractional coordinates, not necessarily inside the cell.
    numbers : ndarray of int16, shape (n,)
        Atomic numbers, 1 to 118.
    identifier : str
        Name of the crystal in its source.
    properties : mapping
        Whatever is known of it, by name (with the unit at the end, as in ``formation_energy_eV_atom``).

    Raises
    ------
    StructureError
        If shapes do not match, there is no atom, a number is not finite, the cell has no volume or an atomic number
        is not that of an element.

    Examples
    --------
    >>> import numpy as np
    >>> cscl = Crystal(4.14 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17], "CsCl")
    >>> cscl.key, cscl.chemical_system, round(cscl.volume, 2)
    ('Cl5000Cs5000', 'Cl-Cs', 70.96)
    """

    lattice: NDArray[np.float64]
    frac_coords: NDArray[np.float64]
    numbers: NDArray[np.int16]
    identifier: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lattice = np.array(self.lattice, dtype=np.float64)
        frac_coords = np.array(self.frac_coords, dtype=np.float64)
        wide = np.asarray(self.numbers)
        if lattice.shape != (3, 3):
            raise StructureError(f"the lattice has the shape {lattice.shape}: three vectors as rows are needed")
        if wide.size == 0:
            raise StructureError("it holds no atom: leave it out")
        if wide.ndim != 1 or frac_coords.shape != (len(wide), 3):
            raise StructureError(
                f"numbers of shape {wide.shape} and coordinates of shape {frac_coords.shape} do not match: "
                "one atomic number and three coordinates for each atom are needed"
            )
        vectors = lattice.tolist()  # nine numbers of Python are checked faster than an array, and corpora hold 50,000
        if not all(map(math.isfinite, itertools.chain(*vectors))):
            raise StructureError("the lattice holds NaN or an infinite number: correct the file")
        # A finite sum of squares is seen four times as quickly; vdot does not warn where it overflows.
        if not math.isfinite(np.vdot(frac_coords, frac_coords)) and not np.isfinite(frac_coords).all():
            atom = int(np.flatnonzero(~np.isfinite(frac_coords).all(axis=1))[0])
            raise StructureError(f"the coordinates of atom {atom} are NaN or infinite: correct the file")
        if not _NUMBERS.issuperset(wide.tolist()):
            atom = next(atom for atom, number in enumerate(wide.tolist()) if number not in _NUMBERS)
            raise StructureError(f"atom {atom} has the atomic number {wide[atom]}, which is no element: replace it")
        box = math.prod([math.sqrt(x * x + y * y + z * z) for x, y, z in vectors])
        if not _determinant(vectors) > _FLATTEST * box:
            raise StructureError("the cell has no volume: the lattice vectors lie in one plane; correct the file")
        for name, array in (("lattice", lattice), ("frac_coords", frac_coords), ("numbers", wide.astype(np.int16))):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        """Number of atoms in the cell."""
        return len(self.numbers)

    @property
    def volume(self) -> float:
        """Volume of the cell in Å³."""
        return _determinant(self.lattice.tolist())

    @cached_property
    def key(self) -> str:
        """Canonical key of the composition, see `scotl_matgl.chemistry.compositions.composition_key`."""
        return composition_key(self.numbers, np.ones(len(self)))

    @property
    def chemical_system(self) -> str:
        """Symbols of its elements in alphabetical order, joined by hyphens."""
        return "-".join(sorted(SYMBOLS[z - 1] for z in set(self.numbers.tolist())))

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hexadecimal) of lattice, atomic numbers and coordinates, in their order.

        The same on every machine and in every process; a negative zero counts as zero; identifier and properties do
        not enter. Any other difference, of the order of sites too, gives another hash: equal hashes mean equal
        input of an encoder.
        """
        digest = hashlib.sha256(b"scotl_matgl crystal 1\0")
        for array, kind in ((self.numbers, "<i2"), (self.lattice + 0.0, "<f8"), (self.frac_coords + 0.0, "<f8")):
            digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
        return digest.hexdigest()

    @classmethod
    def from_structure(cls, structure: Any, *, identifier: str = "") -> Crystal:
        """Make a crystal of a pymatgen structure, see `as_crystal`.

        Parameters
        ----------
        structure : pymatgen.core.Structure
            An ordered, periodic structure.
        identifier : str
            Name to give it.

        Returns
        -------
        Crystal
        """
        return replace(as_crystal(structure), identifier=identifier)

    def to_structure(self) -> Structure:
        """Make a pymatgen structure with the same cell and order of sites.

        Returns
        -------
        pymatgen.core.Structure
        """
        from pymatgen.core.structure import Structure

        species = [SYMBOLS[z - 1] for z in self.numbers.tolist()]
        return Structure(self.lattice, species, self.frac_coords, properties=dict(self.properties))


def _determinant(vectors: list[list[float]]) -> float:
    # Written out: numpy's determinant costs ten times as much for three vectors.
    (a, b, c), (d, e, f), (g, h, i) = vectors
    return float(abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)))


def as_crystal(obj: Any) -> Crystal:
    """Make a crystal of whatever describes one.

    Parameters
    ----------
    obj : Crystal, pymatgen Structure or IStructure, ASE Atoms, or dict
        A dictionary is what ``Structure.as_dict`` gives, or a document of a data base, see
        `scotl_matgl.chemistry.crystal_records.read_record`; nothing that it names is imported. Oxidation states and
        site properties are dropped.

    Returns
    -------
    Crystal
        A `Crystal` is returned as it is.

    Raises
    ------
    StructureError
        For a molecule, a disordered or partly occupied site, a dummy species, a direction that is not periodic,
        numbers that are not finite, a cell without volume or without atoms, or another type.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> as_crystal(Structure(Lattice.cubic(4.14), ["Cs+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.5]])).numbers
    array([55, 17], dtype=int16)
    """
    if isinstance(obj, Crystal):
        return obj
    modules = {base.__module__.partition(".")[0] for base in type(obj).__mro__}
    if "pymatgen" in modules:
        return _from_pymatgen(obj)
    if "ase" in modules:
        return _from_ase(obj)
    if isinstance(obj, Mapping):
        from scotl_matgl.chemistry.crystal_records import read_record

        return crystal_of(read_record(obj, ReadingLimits.from_environment()))
    raise StructureError(
        f"a {type(obj).__name__} is no crystal: pass a Crystal, a pymatgen Structure, ASE Atoms or Structure.as_dict()"
    )


def crystal_of(reading: Reading, identifier: str = "", properties: Mapping[str, Any] | None = None) -> Crystal:
    """Check what was read and make a crystal of it; notes become the property ``reader_warnings``."""
    known = {**reading.properties, **(properties or {})} if reading.properties else dict(properties or {})
    if reading.notes:
        known["reader_warnings"] = list(reading.notes)
    return Crystal(reading.lattice, reading.frac_coords, reading.numbers, identifier, known)


def as_list(crystals: Iterable[Any]) -> list[Any]:
    """List of what is to become crystals; one crystal alone, text and paths are refused.

    Parameters
    ----------
    crystals : iterable
        Whatever `as_crystal` takes.

    Returns
    -------
    list

    Raises
    ------
    StructureError
        If it is one crystal, whose atoms would be taken for crystals, or no list at all.

    Examples
    --------
    >>> as_list("NaCl.cif")
    Traceback (most recent call last):
    ...
    scotl_matgl.chemistry.refusals.StructureError: a list of crystals is needed, not a str: read files by Corpus.read
    """
    name = type(crystals).__name__
    if isinstance(crystals, str | bytes | PathLike):
        raise StructureError(f"a list of crystals is needed, not a {name}: read files by Corpus.read")
    modules = {base.__module__.partition(".")[0] for base in type(crystals).__mro__}
    of_pymatgen = "pymatgen" in modules and hasattr(crystals, "cart_coords")
    of_ase = "ase" in modules and hasattr(crystals, "get_scaled_positions")
    if isinstance(crystals, Crystal | Mapping) or of_pymatgen or of_ase:
        raise StructureError(f"a list of crystals is needed, not one {name}: pass [crystal]")
    if not isinstance(crystals, Iterable):
        raise StructureError(f"a list of crystals is needed, not a {name}")
    return list(crystals)


def _from_pymatgen(structure: Any) -> Crystal:
    from pymatgen.core.periodic_table import DummySpecies
    from pymatgen.core.structure import IMolecule, IStructure

    if isinstance(structure, IMolecule):
        raise StructureError("a molecule has no lattice: the models read crystals, so leave it out")
    if not isinstance(structure, IStructure):
        raise StructureError(f"a {type(structure).__name__} is no crystal: pass a pymatgen Structure")
    check_periodic(structure.lattice.pbc)
    numbers, names = [], []
    for i, site in enumerate(structure):
        species = list(site.species)
        if len(species) == 1 and isinstance(species[0], DummySpecies):
            raise StructureError(f"site {i} holds {species[0]}, a dummy species: replace it by an element")
        if not site.is_ordered:
            raise StructureError(
                f"site {i} ({site.species_string}) is disordered or partly occupied: use an ordered "
                "approximation, for instance from pymatgen's OrderDisorderedStructureTransformation"
            )
        numbers.append(species[0].Z)
        # Of an isotope pymatgen gives the symbol H; only the name of the enumeration member tells it.
        names.append(getattr(species[0], "element", species[0]).name)
    lattice, frac_coords = structure.lattice.matrix, structure.frac_coords
    reading = Reading(lattice, frac_coords, np.array(numbers), dict(structure.properties), isotope_notes(names))
    return crystal_of(reading)


def _from_ase(atoms: Any) -> Crystal:
    if not hasattr(atoms, "get_scaled_positions"):
        raise StructureError(f"a {type(atoms).__name__} is no crystal: pass ASE Atoms")
    check_periodic(atoms.pbc)
    cell = np.array(atoms.cell, dtype=np.float64)
    # The check of the cell comes first: ASE completes a missing lattice vector before it divides by the cell.
    Crystal(cell, np.zeros((1, 3)), np.ones(1, dtype=np.int16))
    return Crystal(cell, atoms.get_scaled_positions(wrap=False), atoms.numbers, "", dict(atoms.info))


def primitive(crystal: Crystal, *, symprec: float = 0.01) -> Crystal:
    """Reduce a crystal to its primitive cell, without idealising or rotating it.

    Parameters
    ----------
    crystal : Crystal
        Any cell.
    symprec : float
        Distance in Å within which two positions are the same.

    Returns
    -------
    Crystal
        With the same identifier and properties; the sites may come in another order.

    Raises
    ------
    StructureError
        If no symmetry is found, as when atoms overlap.

    Notes
    -----
    By spglib (Togo, Shinohara and Tanaka, Sci. Technol. Adv. Mater. Meth. 4 (2024) 2384822). Cost: about 1 ms.

    Examples
    --------
    >>> import numpy as np
    >>> bcc = Crystal(2.87 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [26, 26])
    >>> len(primitive(bcc))
    1
    """
    import spglib

    cell = (crystal.lattice, crystal.frac_coords, crystal.numbers.astype(np.intc))
    problem = "no symmetry was found"
    try:
        found = with_its_warnings(spglib.standardize_cell, cell, to_primitive=True, no_idealize=True, symprec=symprec)[
            0
        ]
    except Exception as error:  # spglib's own class exists from 2.7 on only
        found, problem = None, str(error)
    if found is None:
        raise StructureError(f"spglib finds no primitive cell at symprec {symprec} ({problem}): do atoms overlap?")
    lattice, frac_coords, numbers = found
    return Crystal(lattice, frac_coords, numbers, crystal.identifier, crystal.properties)
