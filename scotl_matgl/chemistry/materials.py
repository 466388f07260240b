"""What a row of a table may hold in the place of a formula: a crystal, as an object, a record, CIF text or a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.chemistry.crystals import Crystal, as_crystal, crystal_of
from scotl_matgl.chemistry.reading import ReadingLimits
from scotl_matgl.chemistry.refusals import StructureError

#: Endings of files of one crystal, which no formula has.
ENDINGS = (".cif", ".mcif", ".vasp", ".poscar", ".contcar", ".xyz", ".extxyz", ".json", ".gz")
# Keys of which every record of a crystal has one; formulas have none.
_KEYS = frozenset({"lattice", "sites", "structure", "atoms", "cell", "lattice_vectors", "lattice_mat", "cif"})


def holds_crystal(value: Any) -> bool:
    """Whether a value describes a crystal and not a formula alone; it may still be refused.

    Examples
    --------
    >>> [holds_crystal(value) for value in ("NaCl", {"Na": 1, "Cl": 1}, "NaCl.cif", {"lattice": {}, "sites": []})]
    [False, False, True, True]
    """
    if isinstance(value, str):
        return ("\n" in value and "_cell_length_a" in value) or ("\n" not in value and value.lower().endswith(ENDINGS))
    if isinstance(value, Mapping):
        return not _KEYS.isdisjoint(value)
    of_pymatgen = hasattr(value, "frac_coords") and hasattr(value, "lattice")
    return isinstance(value, Crystal | Path) or of_pymatgen or hasattr(value, "get_scaled_positions")


def read_material(value: Any) -> Crystal:
    """Crystal that a value describes.

    Parameters
    ----------
    value : Crystal, pymatgen Structure, ASE Atoms, mapping, str or path
        What :func:`~scotl_matgl.chemistry.crystals.as_crystal` takes; the text of a CIF; or the name of a file of one
        crystal.

    Raises
    ------
    StructureError
        If it is no usable crystal; the message says why.
    """
    if isinstance(value, str) and "\n" in value:
        from scotl_matgl.chemistry.cif import read_cif  # its grammar costs 15 ms

        return crystal_of(read_cif(value, ReadingLimits.from_environment()))
    if not isinstance(value, str | Path):
        return as_crystal(value)
    try:
        found = list(read_crystals(value))
    except OSError as error:
        raise StructureError(f"{error}") from error
    if len(found) != 1:
        raise StructureError(f"the file {value} holds {len(found)} crystals; give one for each row")
    if not isinstance(found[0], Crystal):
        raise StructureError(found[0].reason)
    return found[0]


def named(material: Crystal | str) -> str:
    """Formula of a material, with the identifier of its crystal where it has one."""
    if not isinstance(material, Crystal):
        return material
    formula = parse_compositions([material]).text[0]
    return f"{material.identifier} ({formula})" if material.identifier else formula
