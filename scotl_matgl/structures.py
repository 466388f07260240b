"""Crystals as plain arrays: what may become one, how files of them are read, and a corpus with a content hash.

A crystal is checked when it is made, so that nothing behind this file meets a molecule, a disordered site or a NaN.

What is decided here
    Oxidation states and site properties are dropped: the encoders do not use them. Deuterium and tritium become
    hydrogen, because isotopes have the same electrons and so the same crystal for every model trained on
    density-functional theory. Sites keep the order and the cell in which they are given; `primitive` reduces the cell.
    Overlapping and isolated atoms are left to the encoders, whose cut-offs decide what they can handle.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.composition import SYMBOLS, Compositions, composition_key, format_formula

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["Corpus", "Crystal", "Refused", "StructureError", "as_crystal", "primitive", "read_crystals"]

_NUMBER_OF = {symbol: z for z, symbol in enumerate(SYMBOLS, start=1)} | {"D": 1, "T": 1}
# A cell flatter than this part of the box of its edges is an error of the file: the thinnest real cells are near 1e-2.
_FLATTEST = 1e-6
_FORMATS = "*.cif, POSCAR*, CONTCAR*, *.poscar, *.vasp, *.json, *.xyz, *.extxyz, each also with .gz"


class StructureError(ValueError):
    """An object or a file is no crystal that could be used; the message says why and what to do."""


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
        if not np.isfinite(lattice).all():
            raise StructureError("the lattice holds NaN or an infinite number: correct the file")
        if not np.isfinite(frac_coords).all():
            atom = int(np.flatnonzero(~np.isfinite(frac_coords).all(axis=1))[0])
            raise StructureError(f"the coordinates of atom {atom} are NaN or infinite: correct the file")
        if wide.min() < 1 or wide.max() > len(SYMBOLS):
            atom = int(np.flatnonzero((wide < 1) | (wide > len(SYMBOLS)))[0])
            raise StructureError(f"atom {atom} has the atomic number {wide[atom]}, which is no element: replace it")
        box = math.prod(math.sqrt(x * x + y * y + z * z) for x, y, z in lattice.tolist())
        if not _determinant(lattice) > _FLATTEST * box:
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
        return _determinant(self.lattice)

    @cached_property
    def key(self) -> str:
        """Canonical key of the composition, see `scotl_matgl.composition.composition_key`."""
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


def _determinant(lattice: NDArray[np.float64]) -> float:
    # Written out: numpy's determinant costs ten times as much for three vectors, and corpora hold 50,000 cells.
    (a, b, c), (d, e, f), (g, h, i) = lattice.tolist()
    return float(abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)))


# --- objects of other packages ----------------------------------------------------------------------------------------


def as_crystal(obj: Any) -> Crystal:
    """Make a crystal of whatever describes one.

    Parameters
    ----------
    obj : Crystal, pymatgen Structure or IStructure, ASE Atoms, or dict
        A dictionary is what ``Structure.as_dict`` gives. Oxidation states and site properties are dropped.

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
        return _from_pymatgen(_quietly(_structure_from_dict, obj)[0])
    raise StructureError(
        f"a {type(obj).__name__} is no crystal: pass a Crystal, a pymatgen Structure, ASE Atoms or Structure.as_dict()"
    )


def _structure_from_dict(content: Mapping[str, Any]) -> Structure:
    from pymatgen.core.structure import Structure

    if not {"lattice", "sites"} <= content.keys():
        raise StructureError("the dictionary has no 'lattice' and 'sites': pass what Structure.as_dict() gives")
    return Structure.from_dict(dict(content))


def _from_pymatgen(structure: Any) -> Crystal:
    from pymatgen.core.periodic_table import DummySpecies
    from pymatgen.core.structure import IMolecule, IStructure

    if isinstance(structure, IMolecule):
        raise StructureError("a molecule has no lattice: the models read crystals, so leave it out")
    if not isinstance(structure, IStructure):
        raise StructureError(f"a {type(structure).__name__} is no crystal: pass a pymatgen Structure")
    _check_periodic(structure.lattice.pbc)
    numbers = []
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
    return Crystal(structure.lattice.matrix, structure.frac_coords, np.array(numbers), "", dict(structure.properties))


def _from_ase(atoms: Any) -> Crystal:
    if not hasattr(atoms, "get_scaled_positions"):
        raise StructureError(f"a {type(atoms).__name__} is no crystal: pass ASE Atoms")
    _check_periodic(atoms.pbc)
    cell = np.array(atoms.cell, dtype=np.float64)
    # The check of the cell comes first: ASE completes a missing lattice vector before it divides by the cell.
    Crystal(cell, np.zeros((1, 3)), np.ones(1, dtype=np.int16))
    return Crystal(cell, atoms.get_scaled_positions(wrap=False), atoms.numbers, "", dict(atoms.info))


def _check_periodic(periodic: Iterable[bool]) -> None:
    flags = [bool(p) for p in periodic]
    if not all(flags):
        open_ones = ", ".join(name for name, flag in zip("abc", flags, strict=True) if not flag)
        raise StructureError(f"it is not periodic along {open_ones}: the models read crystals, so leave it out")


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
        found = _quietly(spglib.standardize_cell, cell, to_primitive=True, no_idealize=True, symprec=symprec)[0]
    except Exception as error:  # spglib's own class exists from 2.7 on only
        found, problem = None, str(error)
    if found is None:
        raise StructureError(f"spglib finds no primitive cell at symprec {symprec} ({problem}): do atoms overlap?")
    lattice, frac_coords, numbers = found
    return Crystal(lattice, frac_coords, numbers, crystal.identifier, crystal.properties)


# --- files ------------------------------------------------------------------------------------------------------------


def read_crystals(path: str | Path) -> Iterator[Crystal | Refused]:
    """Read the crystals of a file or folder one by one; a bad record does not end the reading.

    Parameters
    ----------
    path : str or pathlib.Path
        CIF (one or more blocks), POSCAR, extended XYZ (needs ASE), or JSON: one record or a list of them, each either
        ``Structure.as_dict()`` or ``{"id": ..., "structure": <as_dict or text>, "fmt": "poscar" | "cif",
        "properties": {...}}``. All may be compressed with gzip. Of a folder, all such files in order of name.

    Yields
    ------
    Crystal or Refused
        In the order of the file. Identifiers are those of the file, else its name, with ``#1``, ``#2``, ... where it
        holds several. What pymatgen warned of while it read a record is in ``properties["reader_warnings"]``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    StructureError
        If the format is not known or the file as a whole cannot be read; in a folder such a file is `Refused`.

    Notes
    -----
    Cost: 30 µs per crystal of a corpus of plain POSCAR records; a few milliseconds per CIF.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}: check the path")
    if not path.is_dir():
        if not _format(path):
            raise StructureError(f"{path} is of no known format: {_FORMATS} are read")
        return _READERS[_format(path)](path)
    files = [entry for entry in sorted(path.iterdir()) if entry.is_file() and _format(entry)]
    if not files:
        raise StructureError(f"the folder {path} holds no file of crystals: {_FORMATS} are read")
    return _read_folder(files)


def _read_folder(files: Iterable[Path]) -> Iterator[Crystal | Refused]:
    for file in files:
        try:
            yield from _READERS[_format(file)](file)
        except StructureError as error:
            yield Refused(file.name, str(error))


def _format(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    if name.startswith(("poscar", "contcar")) or name.endswith((".poscar", ".vasp")):
        return "poscar"
    suffix = name.rpartition(".")[2] if "." in name else ""
    return {"cif": "cif", "json": "json", "xyz": "xyz", "extxyz": "xyz"}.get(suffix, "")


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return re.sub(r"\.(cif|poscar|vasp|json|xyz|extxyz)$", "", name, flags=re.IGNORECASE)


def _text_of(path: Path) -> str:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.name.lower().endswith(".gz") else path.read_bytes()
        return raw.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise StructureError(f"{path} cannot be read ({error}): is it complete, and text in UTF-8?") from error


def _read_poscar_file(path: Path) -> Iterator[Crystal | Refused]:
    yield _attempt(_stem(path), {}, _crystal_from_poscar, _text_of(path))


def _read_cif_file(path: Path) -> Iterator[Crystal | Refused]:
    # Blocks are cut apart so that one bad block does not cost the others; blocks without atoms hold bibliography.
    blocks = [block for block in re.split(r"(?m)^(?=data_)", _text_of(path)) if "_atom_site_" in block]
    if not blocks:
        yield Refused(_stem(path), "the file has no block with atom sites: is it a CIF of a crystal?")
    for i, block in enumerate(blocks, start=1):
        yield _attempt(_stem(path) if len(blocks) == 1 else f"{_stem(path)}#{i}", {}, _crystal_from_cif, block)


def _read_xyz_file(path: Path) -> Iterator[Crystal | Refused]:
    try:
        import ase.io
    except ImportError as error:
        raise StructureError(f"{path} is extended XYZ, which ASE reads: pip install ase") from error
    name, done = _stem(path), 0
    frames = ase.io.iread(str(path), index=":", format="extxyz")
    while True:
        try:
            frame = next(frames, None)
        except Exception as error:  # whatever ASE raises for a bad frame; the generator cannot go on after it
            yield Refused(f"{name}#{done + 1}", f"ASE cannot read this frame and those behind it: {_first_line(error)}")
            return
        if frame is None:
            return
        done += 1
        identifier = str(frame.info.get("id", frame.info.get("identifier", f"{name}#{done}")))
        yield _attempt(identifier, {}, as_crystal, frame)


def _read_json_file(path: Path) -> Iterator[Crystal | Refused]:
    try:
        content = json.loads(_text_of(path))
    except json.JSONDecodeError as error:
        raise StructureError(f"{path} is not valid JSON ({error}): is it complete?") from error
    records = content if isinstance(content, list) else [content]
    for i, record in enumerate(records, start=1):
        identifier = _stem(path) if len(records) == 1 else f"{_stem(path)}#{i}"
        if not isinstance(record, dict):
            yield Refused(identifier, f"the record is a {type(record).__name__}, not a dictionary")
            continue
        for name in ("id", "identifier", "material_id"):
            if isinstance(record.get(name), str | int):
                identifier = str(record[name])
                break
        properties = record.get("properties")
        yield _attempt(identifier, properties if isinstance(properties, dict) else {}, _crystal_from_record, record)


_READERS = {"poscar": _read_poscar_file, "cif": _read_cif_file, "xyz": _read_xyz_file, "json": _read_json_file}


def _attempt(
    identifier: str, properties: Mapping[str, Any], reader: Callable[[Any], Crystal], source: Any
) -> Crystal | Refused:
    """Crystal of one record, or why there is none."""
    try:
        crystal = reader(source)
    except StructureError as error:
        return Refused(identifier, str(error))
    except Exception as error:  # the parsers of other packages raise anything; Ctrl-C is not an Exception
        return Refused(
            identifier, f"it cannot be read: {_first_line(error)} ({type(error).__name__}); correct the file"
        )
    # Filled in and not rebuilt with `replace`, which would check every array a second time.
    object.__setattr__(crystal, "identifier", identifier)
    object.__setattr__(crystal, "properties", {**crystal.properties, **properties})
    return crystal


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


def _quietly(function: Any, *args: Any, **kwargs: Any) -> tuple[Any, list[str]]:
    """Result of a call into another package, and the warnings that it gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*args, **kwargs)
    return result, [str(warning.message) for warning in caught]


def _crystal_from_record(record: dict[str, Any]) -> Crystal:
    structure = record.get("structure", record)
    if isinstance(structure, dict):
        return as_crystal(structure)
    if not isinstance(structure, str):
        raise StructureError(f"its 'structure' is a {type(structure).__name__}: a dictionary or text is needed")
    kind = record.get("fmt", "poscar")
    if kind not in ("poscar", "cif"):
        raise StructureError(f"its 'fmt' is {kind!r}: 'poscar' and 'cif' are read")
    return _crystal_from_poscar(structure) if kind == "poscar" else _crystal_from_cif(structure)


def _crystal_from_cif(text: str) -> Crystal:
    from pymatgen.io.cif import CifParser

    def parse() -> Any:
        return CifParser.from_str(text).parse_structures(primitive=False, on_error="raise")[0]

    return _with_warnings(*_quietly(parse))


def _crystal_from_poscar(text: str) -> Crystal:
    quick = _quick_poscar(text)
    if quick is not None:
        return quick
    from pymatgen.io.vasp.inputs import Poscar

    def parse() -> Any:
        return Poscar.from_str(text).structure

    return _with_warnings(*_quietly(parse))


def _with_warnings(structure: Any, messages: list[str]) -> Crystal:
    crystal = as_crystal(structure)
    return replace(crystal, properties={**crystal.properties, "reader_warnings": messages}) if messages else crystal


def _quick_poscar(text: str) -> Crystal | None:
    """Read the plainest POSCAR: scale 1, symbols, direct coordinates, no selective dynamics; None for any other."""
    head = text.split("\n", 8)
    if len(head) != 9 or head[7].strip().lower() != "direct":
        return None
    symbols, counts, body = head[5].split(), head[6].split(), head[8].split()
    try:
        if float(head[1]) != 1.0:
            return None
        numbers = [_NUMBER_OF[s] for s, n in zip(symbols, map(int, counts), strict=True) for _ in range(n)]
        width = len(body) // len(numbers)
        if width * len(numbers) != len(body) or width not in (3, 4):
            return None
        if width == 4 and [_NUMBER_OF[s] for s in body[3::4]] != numbers:
            return None
        frac_coords = np.array([body[0::width], body[1::width], body[2::width]], dtype=np.float64).T
        lattice = np.array([line.split() for line in head[2:5]], dtype=np.float64)
    except (KeyError, ValueError, ZeroDivisionError):
        return None
    return Crystal(lattice, np.ascontiguousarray(frac_coords), np.array(numbers, dtype=np.int16))


# --- corpus -----------------------------------------------------------------------------------------------------------


class Corpus(Sequence[Crystal]):
    """Crystals in a fixed order, with a hash of their content and the records that were refused.

    Parameters
    ----------
    crystals : iterable
        Whatever `as_crystal` takes.
    refused : iterable of Refused
        Records of the source that are not among them.

    Attributes
    ----------
    refused : tuple of Refused
        As given.

    Examples
    --------
    >>> import numpy as np
    >>> corpus = Corpus([Crystal(4.14 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])])
    >>> len(corpus), corpus.compositions.text
    (1, ('ClCs',))
    """

    def __init__(self, crystals: Iterable[Any], refused: Iterable[Refused] = ()) -> None:
        self._crystals = tuple(as_crystal(crystal) for crystal in crystals)
        self.refused = tuple(refused)

    @classmethod
    def read(cls, path: str | Path) -> Corpus:
        """Read all crystals of a file or folder.

        Parameters
        ----------
        path : str or pathlib.Path
            See `read_crystals`.

        Returns
        -------
        Corpus
            What could not be read is listed in ``refused``.
        """
        crystals: list[Crystal] = []
        refused: list[Refused] = []
        for record in read_crystals(path):
            if isinstance(record, Crystal):
                crystals.append(record)
            else:
                refused.append(record)
        return cls(crystals, refused)

    def __len__(self) -> int:
        return len(self._crystals)

    @overload
    def __getitem__(self, index: int) -> Crystal: ...
    @overload
    def __getitem__(self, index: slice) -> Corpus: ...
    def __getitem__(self, index: int | slice) -> Crystal | Corpus:
        """Crystal at a position, or the corpus of a slice (without the list of refused records)."""
        return Corpus(self._crystals[index]) if isinstance(index, slice) else self._crystals[index]

    def __repr__(self) -> str:
        return f"Corpus({len(self)} crystals, {len(self.refused)} refused)"

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hexadecimal) over the content hashes in their order."""
        digest = hashlib.sha256(b"scotl_matgl corpus 1\0")
        for crystal in self._crystals:
            digest.update(bytes.fromhex(crystal.content_hash))
        return digest.hexdigest()

    @cached_property
    def compositions(self) -> Compositions:
        """Composition of each crystal, amounts being atoms per cell and elements in order of atomic number."""
        lengths = np.array([len(crystal) for crystal in self._crystals], dtype=np.int64)
        numbers = np.concatenate([crystal.numbers for crystal in self._crystals] or [np.empty(0, np.int16)])
        owner = np.repeat(np.arange(len(self)), lengths)
        code, amounts = np.unique(owner * 128 + numbers, return_counts=True)
        elements = (code % 128).astype(np.int16)
        offsets = np.searchsorted(code, np.arange(len(self) + 1) * 128)
        return Compositions(
            text=tuple(format_formula(elements[a:b], amounts[a:b]) for a, b in pairwise(offsets)),
            numbers=elements,
            amounts=amounts.astype(np.float64),
            offsets=offsets.astype(np.int64),
            rows=np.arange(len(self), dtype=np.int64),
            skipped=(),
            n_input=len(self),
        )

    def values(self, name: str) -> NDArray[np.float64]:
        """Property `name` of each crystal.

        Parameters
        ----------
        name : str
            Name in the crystals' properties.

        Returns
        -------
        ndarray of float64, shape (n,)
            In the property's own unit; NaN where it is not known or is no number.
        """
        found = (crystal.properties.get(name) for crystal in self._crystals)
        return np.array(
            [float(v) if isinstance(v, int | float | np.number) else np.nan for v in found], dtype=np.float64
        )

    def one_per_formula(self) -> Corpus:
        """Keep one crystal per composition: the lowest ``formation_energy_eV_atom`` where known, else the first.

        Returns
        -------
        Corpus
            In the order of this corpus, with the same list of refused records.
        """
        energies = self.values("formation_energy_eV_atom")
        energies[~np.isfinite(energies)] = np.inf
        chosen: dict[str, int] = {}
        for i, key in enumerate(self.compositions.keys()):
            if energies[i] < energies[chosen.setdefault(key, i)]:
                chosen[key] = i
        return Corpus((self._crystals[i] for i in sorted(chosen.values())), self.refused)
