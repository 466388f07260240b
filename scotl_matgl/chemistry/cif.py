"""Crystallographic information files: their syntax, and the atoms that they list.

Read by our own code and strictly: parsers made for every CIF skip a site whose type or occupancy they do not know, and
take an unknown space group for P 1, so that a model gets another crystal than the file describes. Here such a file is
refused with the cause. What the symmetry makes of the sites stands in `scotl_matgl.chemistry.cif_symmetry`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.cif_symmetry import Site, expand, operations_of
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.chemistry.reading import (
    ATOM_OF,
    Formula,
    Reading,
    ReadingLimits,
    cell_matrix,
    element_of,
    isotope_notes,
    number_in,
)
from scotl_matgl.chemistry.refusals import StructureError

# Names outside these are not kept: bibliography and reflections may be many times as long as the crystal.
_KEPT = ("_cell_", "_atom_site_", "_symmetry_", "_space_group_", "_chemical_formula_sum")

# Quoted values are bounded, so that a line of a million opening quotes is not searched a million times.
_TOKEN = re.compile(
    r"""\s*(?:\#[^\n]*|(?P<one>'[^\n]{0,2048}?'(?=\s|\Z))|(?P<two>"[^\n]{0,2048}?"(?=\s|\Z))|(?P<bare>\S+))""",
    re.ASCII,
)

_CHARGE = re.compile(r"([A-Za-z]+)(?:\d*\.?\d*[+-]|[+-]\d*\.?\d*)?", re.ASCII)


@dataclass
class CifBlock:
    """One data block of a CIF: what it says of the crystal.

    Attributes
    ----------
    values : dict of str to str
        By name in lower case, with ``_`` for the ``.`` of newer dictionaries.
    loops : list of (list of str, list of str)
        Names, and values row by row.
    fault : str
        What is wrong with its syntax; empty if nothing.
    """

    values: dict[str, str] = field(default_factory=dict)
    loops: list[tuple[list[str], list[str]]] = field(default_factory=list)
    fault: str = ""

    def column(self, name: str) -> list[str]:
        """Values of a name: those of its loop, or the one outside of loops; empty if there are none."""
        for names, values in self.loops:
            if name in names:
                if len(values) % len(names):
                    raise StructureError(
                        f"the loop of {name} has {len(names)} columns and {len(values)} values: a value is missing, or "
                        "the file is cut off"
                    )
                return values[names.index(name) :: len(names)]
        return [self.values[name]] if name in self.values else []

    def first(self, *names: str) -> str:
        """Value of the first of several names that has one; empty for ``?`` and ``.``, too."""
        for name in names:
            for value in self.column(name)[:1]:
                if value not in ("?", "."):
                    return value.strip()
        return ""

    @property
    def has_atoms(self) -> bool:
        """Whether it lists atoms."""
        names = [*self.values, *(name for found, _ in self.loops for name in found)]
        return any(name.startswith("_atom_site_") for name in names)


def cif_blocks(text: str, limits: ReadingLimits) -> Iterator[CifBlock]:
    """Cut a CIF into those of its data blocks that list atoms.

    Parameters
    ----------
    text : str
        Of the whole file.
    limits : ReadingLimits
        How many atoms a block may list.

    Yields
    ------
    CifBlock
        In the order of the file. A fault of syntax is kept in the block and costs no other.
    """
    block: CifBlock | None = None
    builder = _Builder(CifBlock(), limits)
    for value, quoted in _tokens(text):
        if not quoted and value[:5].lower() == "data_":
            if block is not None and (block.has_atoms or block.fault):
                yield block
            block = CifBlock()
            builder = _Builder(block, limits)
        elif block is not None and not block.fault:
            builder.add(value, quoted)
    if block is not None and (block.has_atoms or block.fault):
        yield block


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Values and key words of a CIF, and whether each was quoted."""
    at, end = 0, len(text)
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            return
        start = match.start(match.lastgroup) if match.lastgroup else -1
        if match.lastgroup == "bare" and text[start] == ";" and (start == 0 or text[start - 1] == "\n"):
            close = text.find("\n;", start)
            if close < 0:
                yield "\0", False  # no CIF holds it; the block makes a fault of it
                return
            yield text[start + 1 : close], True
            at = close + 2
            continue
        at = match.end()
        if match.lastgroup == "bare":
            yield match["bare"], False
        elif match.lastgroup:
            yield match[match.lastgroup][1:-1], True


class _Builder:
    """Puts the tokens of one block where they belong."""

    def __init__(self, block: CifBlock, limits: ReadingLimits) -> None:
        self._block = block
        self._limits = limits
        self._loop: tuple[list[str], list[str]] | None = None
        self._kept = False
        self._name = ""
        self._known: set[str] = set()

    def add(self, value: str, quoted: bool) -> None:
        lower = value[:80].lower()
        if value == "\0" and not quoted:
            self._block.fault = "a text that begins with ; at the start of a line does not end: is the file cut off?"
        elif not quoted and lower == "loop_":
            self._loop, self._kept, self._name = ([], []), False, ""
        elif not quoted and lower.startswith(("save_", "global_", "stop_")):
            self._loop, self._name = None, ""
        elif not quoted and value.startswith("_"):
            self._add_name(lower.replace(".", "_"))
        elif self._loop is not None:
            self._add_to_loop(value)
        elif self._name in self._block.values:  # a name of several words without quotes, as F m -3 m
            self._block.values[self._name] = f"{self._block.values[self._name]} {value}"[:2000].strip()
        elif self._name:
            self._block.values[self._name] = value[:2000]

    def _add_name(self, name: str) -> None:
        kept = name.startswith(_KEPT) and not name.startswith("_atom_site_aniso")
        if kept and name in self._known:
            self._block.fault = f"it gives {name} twice: is the head of a second block missing?"
        if kept:
            self._known.add(name)
        if self._loop is not None and not self._loop[1]:
            if kept and not self._kept:
                self._block.loops.append(self._loop)
            self._kept = self._kept or kept
            self._loop[0].append(name)
            return
        self._loop, self._name = None, name if kept else ""

    def _add_to_loop(self, value: str) -> None:
        assert self._loop is not None  # noqa: S101 - the caller has looked
        names, values = self._loop
        if not names:
            self._block.fault = "a loop_ has values and no names: is the file damaged?"
        elif not self._kept:
            values[:] = [""]  # only that it has begun
        else:
            values.append(value[:2000])
            if len(values) > len(names) * max(self._limits.max_atoms, 1000):
                self._block.fault = f"a loop of {names[0]} has more than {self._limits.max_atoms} rows"


def read_cif(text: str, limits: ReadingLimits) -> Reading:
    """Read a CIF of one crystal.

    Parameters
    ----------
    text : str
        With one block that lists atoms.
    limits : ReadingLimits
        How many atoms there may be.

    Returns
    -------
    Reading

    Raises
    ------
    StructureError
        If there is no such block, or more than one, and for what :func:`read_cif_block` refuses.
    """
    blocks = list(cif_blocks(text, limits))
    if len(blocks) != 1:
        raise StructureError(
            f"the text has {len(blocks)} CIF blocks with atom sites: one is needed (data_... and _atom_site_...)"
        )
    return read_cif_block(blocks[0], limits)


def read_cif_block(block: CifBlock, limits: ReadingLimits) -> Reading:
    """Make the crystal of a data block: its sites, its symmetry, and whether both agree with what else it says.

    Parameters
    ----------
    block : CifBlock
        From `cif_blocks`.
    limits : ReadingLimits
        How many atoms there may be.

    Returns
    -------
    Reading

    Raises
    ------
    StructureError
        For a site without element, of several elements, partly occupied, without coordinates or given twice; for
        unknown, incomplete or contradictory symmetry; and if the atoms are not those of the formula, of the
        multiplicities or of the number of formula units that the block states.
    """
    if block.fault:
        raise StructureError(block.fault)
    notes: list[str] = []
    stated = block.first("_chemical_formula_sum")
    formula = Formula.of(stated) if stated else None
    if stated and formula is None:
        notes.append(f"_chemical_formula_sum {stated[:60]!r} is not understood, so the atoms were not checked by it")
    lattice = _lattice(block)
    sites = _sites(block, formula)
    candidates = operations_of(block.column, block.first, lattice)
    units = number_in(block.first("_cell_formula_units_z"))
    found = expand(sites, candidates, lattice, limits, formula, units, stated)
    return Reading(lattice, found.frac_coords, found.numbers, {}, (*notes, *found.notes, *_isotopes(block, sites)))


def _lattice(block: CifBlock) -> NDArray[np.float64]:
    found = []
    for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"):
        text = block.first(f"_cell_{name}")
        value = _number_with_error(text)
        if value is None or not 0 < value < (180 if "angle" in name else 1e5):
            raise StructureError(
                f"_cell_{name} is {text[:40]!r}: a number is needed" if text else f"it gives no _cell_{name}: add it"
            )
        found.append(value)
    return cell_matrix(found)


def _number_with_error(text: str) -> float | None:
    """Number with or without its standard uncertainty in brackets."""
    return number_in(re.sub(r"\(\d{0,9}\)$", "", text[:100]))


def _sites(block: CifBlock, formula: Formula | None) -> list[Site]:
    coords = [block.column(f"_atom_site_fract_{axis}") for axis in "xyz"]
    if not all(coords):
        if block.column("_atom_site_cartn_x"):
            raise StructureError("it gives Cartesian coordinates only: write _atom_site_fract_x, _y and _z")
        raise StructureError("it gives no _atom_site_fract_x, _y and _z: a crystal needs the coordinates of its sites")
    n = len(coords[0])
    optional = {
        name: block.column(f"_atom_site_{name}") or [""] * n
        for name in (
            "label",
            "type_symbol",
            "occupancy",
            "calc_flag",
            "attached_hydrogens",
            "symmetry_multiplicity",
            "site_symmetry_multiplicity",
        )
    }
    if any(len(column) != n for column in (*coords, *optional.values())):
        raise StructureError("its loops of atom sites are not equally long: is the file cut off?")
    sites = []
    for i in range(n):
        label, kind = optional["label"][i], optional["type_symbol"][i]
        name = f"site {(label or kind or str(i))[:40]!r}"
        _check_site(name, {key: column[i] for key, column in optional.items()})
        sites.append(
            Site(
                name,
                _element_of_site(name, label, kind, formula),
                _coordinates(name, [column[i] for column in coords]),
                _multiplicity(optional["symmetry_multiplicity"][i] or optional["site_symmetry_multiplicity"][i]),
            )
        )
    return sites


def _check_site(name: str, row: dict[str, str]) -> None:
    """Refuse a site that is not one whole atom."""
    text = row["occupancy"]
    if text:
        value = _number_with_error(text)
        if value is None:
            raise StructureError(f"{name} has the occupancy {text[:40]!r}: write 1 if the site is full")
        if value < 0 or value > 1.0005:
            raise StructureError(
                f"{name} has the occupancy {text[:40]}, which is not between 0 and 1: correct the file"
            )
        if value < 0.9995:
            raise StructureError(
                f"{name} has the occupancy {text[:40]}: it is disordered or partly occupied; use an ordered "
                "approximation, for instance from pymatgen's OrderDisorderedStructureTransformation"
            )
    if row["calc_flag"].lower() == "dum":
        raise StructureError(f"{name} is marked as a dummy: leave it out")
    hydrogens = row["attached_hydrogens"]
    if hydrogens not in ("", ".", "?") and number_in(hydrogens) != 0:
        raise StructureError(f"{name} carries hydrogen atoms ({hydrogens[:10]}) that have no site: add them")


def _element_of_site(name: str, label: str, kind: str, formula: Formula | None) -> int:
    if kind not in ("", ".", "?"):
        match = _CHARGE.fullmatch(kind)
        symbol = match[1] if match else kind
        if symbol not in ATOM_OF and formula is not None and ATOM_OF.get(symbol.capitalize()) in formula.amounts:
            return ATOM_OF[symbol.capitalize()]
        return element_of(symbol, f"{name}, by its type,")
    letters = (re.match(r"[A-Za-z]*", label, re.ASCII) or [""])[0]
    if re.search(r"[,/]", label):
        return element_of(label, name)
    if formula is None:
        if letters in SYMBOLS:
            return ATOM_OF[letters]
        raise StructureError(
            f"{name} has no type, and its label begins with no element: add _atom_site_type_symbol to the loop"
        )
    read = {ATOM_OF[s] for s in (letters[:2].capitalize(), letters[:1].upper()) if s in ATOM_OF}
    fitting = read & formula.amounts.keys()
    if letters in SYMBOLS and ATOM_OF[letters] in fitting:
        return ATOM_OF[letters]
    if len(fitting) != 1:
        what = " or ".join(SYMBOLS[z - 1] for z in sorted(fitting)) or "no element of the formula"
        raise StructureError(f"{name} has no type, and its label can mean {what}: add _atom_site_type_symbol")
    return fitting.pop()


def _isotopes(block: CifBlock, sites: Sequence[Site]) -> tuple[str, ...]:
    """Notes on sites of deuterium, by their types or else their labels."""
    kinds = block.column("_atom_site_type_symbol") or block.column("_atom_site_label")
    letters = [re.match(r"[A-Za-z]*", kind, re.ASCII) for kind in kinds]
    return isotope_notes(found[0] for found, site in zip(letters, sites, strict=True) if found and site.number == 1)


def _coordinates(name: str, texts: Sequence[str]) -> NDArray[np.float64]:
    values = [_number_with_error(text) for text in texts]
    for text, value in zip(texts, values, strict=True):
        if value is None or abs(value) > 1000:
            raise StructureError(f"{name} has the coordinate {text[:40]!r}: a number is needed; correct the file")
    return np.array(values, dtype=np.float64)


def _multiplicity(text: str) -> int | None:
    value = number_in(text)
    return int(value) if value is not None and value == int(value) and value > 0 else None
