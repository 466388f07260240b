"""One record of JSON as a crystal: pymatgen's dictionaries, and the documents of public data bases.

Lattice, species and coordinates are taken from a record by the code below, and nothing else of it is looked at but
plain numbers and words. pymatgen's own decoder is not used: it imports the modules that a file names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.poscar import read_poscar
from scotl_matgl.chemistry.reading import (
    Reading,
    ReadingLimits,
    cell_matrix,
    check_periodic,
    element_of,
    fractional,
    isotope_notes,
    numbers_in,
)
from scotl_matgl.chemistry.refusals import StructureError

_IDENTIFIERS = ("id", "identifier", "material_id", "jid", "entry_id", "name", "_id")

#: Where a record keeps its crystal, in the order in which it is looked for.
_PLACES = ("structure", "final_structure", "atoms", "cif", "poscar", "initial_structure")

_LONGEST_WORD = 200

_NUMBERS = (int, float, np.integer, np.floating)


def identifier_of(record: Any, default: str) -> str:
    """Name that a record gives itself, else the default."""
    if isinstance(record, Mapping):
        for name in _IDENTIFIERS:
            value = record.get(name)
            if isinstance(value, str) and 0 < len(value) <= _LONGEST_WORD:
                return value
            if isinstance(value, int) and not isinstance(value, bool) and len(str(value)) <= _LONGEST_WORD:
                return str(value)
    return default


def properties_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Its ``properties``, else all numbers, words and truth values beside the crystal."""
    properties = record.get("properties")
    if isinstance(properties, Mapping):
        return properties
    known = record.get("attributes") if isinstance(record.get("attributes"), Mapping) else record
    assert isinstance(known, Mapping)  # noqa: S101 - for the type checker
    if "lattice" in known and "sites" in known:  # pymatgen's own, in which these are no properties
        return {}
    return {
        key: value
        for key, value in known.items()
        if key not in (*_IDENTIFIERS, *_PLACES, "fmt")
        and not key.startswith("@")
        and isinstance(value, int | float | str)
        and not (isinstance(value, str) and len(value) > _LONGEST_WORD)
    }


def read_record(record: Mapping[str, Any], limits: ReadingLimits) -> Reading:
    """Read the crystal of a record.

    Parameters
    ----------
    record : mapping
        ``Structure.as_dict()`` of pymatgen; a document of JARVIS (``atoms``), OQMD (``unit_cell`` and ``sites`` such as
        ``"Na @ 0 0 0"``), OPTIMADE (``attributes``) or the Materials Project (``structure``); or a record with such a
        dictionary, or the text of a CIF or POSCAR, under ``structure``, ``final_structure``, ``atoms``, ``cif``,
        ``poscar`` or ``initial_structure``.
    limits : ReadingLimits
        How many atoms there may be.

    Returns
    -------
    Reading

    Raises
    ------
    StructureError
        If there is no crystal in it that could be read.
    """
    content = _crystal_in(record)
    if isinstance(content, str):
        return _read_text(content, str(record.get("fmt", ""))[:20], limits)
    if not isinstance(content, Mapping):
        raise StructureError(f"its crystal is a {type(content).__name__}: a dictionary or text is needed")
    if "lattice_mat" in content:
        return _read_jarvis(content, limits)
    if "unit_cell" in content and "sites" in content:
        return _read_oqmd(content, limits)
    if "lattice_vectors" in content:
        return _read_optimade(content, limits)
    return _read_pymatgen(content, limits)


def _crystal_in(record: Mapping[str, Any]) -> Any:
    if isinstance(record.get("attributes"), Mapping):
        return record["attributes"]
    if "lattice" in record and "sites" in record:
        return record
    for place in _PLACES:
        if record.get(place) is not None:
            content = record[place]
            if not isinstance(content, str) and not isinstance(content, Mapping):
                raise StructureError(f"its {place!r} is a {type(content).__name__}: a dictionary or text is needed")
            return content
    return record


def _read_text(text: str, kind: str, limits: ReadingLimits) -> Reading:
    if kind not in ("", "poscar", "cif"):
        raise StructureError(f"its 'fmt' is {kind!r}: 'poscar' and 'cif' are read")
    if kind == "cif" or (not kind and re.search(r"_cell_length_a|_cell\.length_a", text)):
        from scotl_matgl.chemistry.cif import read_cif  # its grammar costs 15 ms

        return read_cif(text, limits)
    return read_poscar(text, limits)


def _read_pymatgen(content: Mapping[str, Any], limits: ReadingLimits) -> Reading:
    lattice, sites = content.get("lattice"), content.get("sites")
    if content.get("@class") == "Molecule" or ("sites" in content and "lattice" not in content):
        raise StructureError(
            "it has no 'lattice' and 'sites' but sites alone: a molecule has no lattice, so leave it out"
        )
    if not isinstance(lattice, Mapping) or not isinstance(sites, Sequence) or isinstance(sites, str):
        raise StructureError(
            "the dictionary has no 'lattice' and 'sites' as Structure.as_dict() of pymatgen gives them, and is of no "
            "other form that is read"
        )
    limits.check_atoms(len(sites))
    periodic = lattice.get("pbc", (True, True, True))
    if not isinstance(periodic, Sequence) or len(periodic) != 3:
        raise StructureError("its 'pbc' is not three truth values: correct the file")
    check_periodic(periodic)
    vectors = _lattice(lattice)
    numbers = [_species_of(site, i) for i, site in enumerate(sites)]
    properties = content.get("properties")
    return Reading(
        vectors,
        _site_coords(sites, vectors),
        np.array(numbers, dtype=np.int16),
        properties if isinstance(properties, Mapping) else {},
        isotope_notes(site["species"][0]["element"] for site in sites),
    )


def _lattice(lattice: Mapping[str, Any]) -> NDArray[np.float64]:
    if lattice.get("matrix") is not None:
        return _rows(lattice["matrix"], 3, "the lattice")
    names = ("a", "b", "c", "alpha", "beta", "gamma")
    return cell_matrix(
        _rows([[lattice.get(name) for name in names]], 6, "lengths and angles of the lattice")[0].tolist()
    )


def _species_of(site: Any, i: int) -> int:
    species = site.get("species") if isinstance(site, Mapping) else None
    if not isinstance(species, Sequence) or isinstance(species, str) or not species:
        raise StructureError(f"site {i} has no 'species': correct the file")
    if not all(isinstance(kind, Mapping) and isinstance(kind.get("element"), str) for kind in species):
        raise StructureError(f"site {i} has a species without 'element': correct the file")
    shares = [kind.get("occu", 1) for kind in species]
    if not all(isinstance(share, int | float) and 0 < share <= 1 for share in shares):
        raise StructureError(f"site {i} has an occupancy that is not between 0 and 1: correct the file")
    if len(species) != 1 or abs(shares[0] - 1) > 1e-8:
        shown = ", ".join(f"{kind['element'][:10]}:{float(n):g}" for kind, n in zip(species[:5], shares, strict=False))
        raise StructureError(
            f"site {i} ({shown}) is disordered or partly occupied: use an ordered approximation, for instance from "
            "pymatgen's OrderDisorderedStructureTransformation"
        )
    return element_of(species[0]["element"], f"site {i}")


def _site_coords(sites: Sequence[Mapping[str, Any]], lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractional coordinates; if Cartesian ones are given, too, both must agree."""
    if not sites:
        return np.empty((0, 3))
    both = ["abc" in site for site in sites], ["xyz" in site for site in sites]
    if not all(both[0]) and not all(both[1]):
        raise StructureError(f"site {both[0].index(False)} has no coordinates 'abc': correct the file")
    if not all(both[0]):
        return fractional(_rows([site["xyz"] for site in sites], 3, "the coordinates 'xyz'"), lattice)
    coords = _rows([site["abc"] for site in sites], 3, "the coordinates 'abc'")
    if all(both[1]):
        apart = np.abs(coords @ lattice - _rows([site["xyz"] for site in sites], 3, "the coordinates 'xyz'")).max(
            axis=1
        )
        if not apart.max() < 0.01:
            site = int(np.argmax(~(apart < 0.01)))
            raise StructureError(f"'abc' and 'xyz' of site {site} are {apart[site]:.2g} Å apart: correct the file")
    return coords


def _read_jarvis(content: Mapping[str, Any], limits: ReadingLimits) -> Reading:
    elements, coords = content.get("elements"), content.get("coords")
    if not isinstance(elements, Sequence) or isinstance(elements, str) or not isinstance(coords, Sequence):
        raise StructureError("its atoms have no 'elements' and 'coords' as documents of JARVIS have: correct the file")
    limits.check_atoms(len(elements))
    if len(coords) != len(elements):
        raise StructureError(f"its atoms have {len(elements)} 'elements' and {len(coords)} 'coords': correct the file")
    lattice = _rows(content["lattice_mat"], 3, "the lattice")
    numbers = [element_of(str(name)[:50].strip(), f"atom {i}") for i, name in enumerate(elements)]
    positions = _rows(coords, 3, "the coordinates")
    cartesian = content.get("cartesian", False)
    if not isinstance(cartesian, bool):
        raise StructureError("its 'cartesian' is neither true nor false: correct the file")
    return Reading(
        lattice,
        fractional(positions, lattice) if cartesian else positions,
        np.array(numbers, dtype=np.int16),
        notes=isotope_notes(str(name)[:50].strip() for name in elements),
    )


def _read_oqmd(content: Mapping[str, Any], limits: ReadingLimits) -> Reading:
    sites = content["sites"]
    if not isinstance(sites, Sequence) or isinstance(sites, str):
        raise StructureError("its 'sites' are no list such as ['Na @ 0 0 0', ...]: correct the file")
    limits.check_atoms(len(sites))
    numbers, coords, symbols = [], [], []
    for i, site in enumerate(sites):
        symbol, mark, place = str(site)[:200].partition("@")
        words = place.split()
        if not mark or len(words) != 3:
            raise StructureError(f"site {i} is {str(site)[:40]!r} and not such as 'Na @ 0 0 0': correct the file")
        symbols.append(symbol.strip())
        numbers.append(element_of(symbols[-1], f"site {i}"))
        coords.append(numbers_in(words, f"site {i}"))
    positions = np.array(coords, dtype=np.float64).reshape(-1, 3)
    lattice = _rows(content["unit_cell"], 3, "the lattice")
    return Reading(lattice, positions, np.array(numbers, dtype=np.int16), notes=isotope_notes(symbols))


def _read_optimade(content: Mapping[str, Any], limits: ReadingLimits) -> Reading:
    names, positions = content.get("species_at_sites"), content.get("cartesian_site_positions")
    if not isinstance(names, Sequence) or isinstance(names, str) or not isinstance(positions, Sequence):
        raise StructureError("it has no 'species_at_sites' and 'cartesian_site_positions': correct the file")
    limits.check_atoms(len(names))
    if len(names) != len(positions):
        raise StructureError(f"it has {len(names)} species at sites and {len(positions)} positions: correct the file")
    dimensions = content.get("dimension_types", (1, 1, 1))
    if not isinstance(dimensions, Sequence) or len(dimensions) != 3:
        raise StructureError("its 'dimension_types' are not three numbers: correct the file")
    check_periodic(dimensions)
    kinds: dict[str, Any] = {}
    for kind in content.get("species") or ():
        if isinstance(kind, Mapping) and isinstance(kind.get("name"), str):
            kinds[kind["name"]] = kind.get("chemical_symbols")
    numbers, atoms = [], []
    for i, name in enumerate(names):
        symbols = kinds.get(name, [name]) if isinstance(name, str) else None
        if not isinstance(symbols, Sequence) or len(symbols) != 1 or not isinstance(symbols[0], str):
            raise StructureError(f"site {i} ({str(name)[:40]}) is disordered: use an ordered approximation")
        atoms.append(symbols[0])
        numbers.append(element_of(atoms[-1], f"site {i}"))
    lattice = _rows(content["lattice_vectors"], 3, "the lattice")
    coords = fractional(_rows(positions, 3, "the positions"), lattice)
    return Reading(lattice, coords, np.array(numbers, dtype=np.int16), notes=isotope_notes(atoms))


def _rows(value: Any, width: int, what: str) -> NDArray[np.float64]:
    """Rows of numbers of a JSON list; texts, truth values and nothing are not taken for numbers."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise StructureError(f"{what} is a {type(value).__name__}: rows of {width} numbers are needed")
    found = []
    for row in value:
        row = row.tolist() if isinstance(row, np.ndarray) else row
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != width:
            raise StructureError(f"{what}: rows of {width} numbers are needed; correct the file")
        for number in row:
            if type(number) is not float and (isinstance(number, bool) or not isinstance(number, _NUMBERS)):
                raise StructureError(f"{what} holds {str(number)[:40]!r}, which is no number: correct the file")
            if not -1e300 < number < 1e300:
                raise StructureError(f"{what} holds {str(number)[:40]!r}, which is no finite number: correct the file")
        found.append([float(number) for number in row])
    return np.array(found, dtype=np.float64).reshape(-1, width)
