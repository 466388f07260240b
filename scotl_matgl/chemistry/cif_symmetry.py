"""Symmetry of a CIF: which operations a block means, and the atoms that they make of its sites."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.chemistry.reading import Formula, ReadingLimits, with_its_warnings
from scotl_matgl.chemistry.refusals import StructureError

#: Translations are multiples of one part of so many: 24 holds those of every space group, 5 and 7 those of supercells.
_PARTS = 840

#: Images of a site that are nearer, in Å, are one atom on a special position, whose coordinates were rounded.
_SAME = 0.1

#: No two whole atoms are so near, in Å.
_TOO_NEAR = 0.5

_MOST_OPERATIONS = 400

_TERM = re.compile(r"([+-]?)(?:(\d{1,3})/(\d{1,3})|(\d{0,3}\.\d{1,9}|\d{1,3}\.?))?\*?([xyz]?)", re.ASCII)


class Site(NamedTuple):
    """A site as the file lists it."""

    name: str
    number: int
    frac_coords: NDArray[np.float64]
    multiplicity: int | None


@dataclass(frozen=True, eq=False)
class Operations:
    """A group of symmetry operations and where it is from.

    Attributes
    ----------
    rotations : ndarray of int, shape (n, 3, 3)
    translations : ndarray of int, shape (n, 3)
        In parts of 840.
    origin : str
        What it is called in messages.
    named : int or None
        Number of the space group that the file names, if its count of operations is another.
    """

    rotations: NDArray[np.int64]
    translations: NDArray[np.int64]
    origin: str
    named: int | None = None


class Atoms(NamedTuple):
    """All atoms of the cell."""

    frac_coords: NDArray[np.float64]
    numbers: NDArray[np.int16]
    notes: tuple[str, ...]


def operations_of(
    column: Callable[[str], list[str]], first: Callable[..., str], lattice: NDArray[np.float64]
) -> list[Operations]:
    """Operations that a block lists, or those of the space group that it names: one for each possible setting.

    Parameters
    ----------
    column, first : callable
        Those of `scotl_matgl.chemistry.cif.CifBlock`.
    lattice : ndarray of shape (3, 3)
        Settings that it does not fit are left out.

    Raises
    ------
    StructureError
        If the operations are no group, or no known space group is named.
    """
    names = _Names(
        first("_space_group_name_hall", "_symmetry_space_group_name_hall"),
        first("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m", "_space_group_name_h-m_full"),
        first("_space_group_it_number", "_symmetry_int_tables_number"),
    )
    listed = column("_space_group_symop_operation_xyz") or column("_symmetry_equiv_pos_as_xyz")
    magnetic = column("_space_group_symop_magn_operation_xyz")
    if not listed and magnetic:
        listed = [text.rpartition(",")[0] for text in magnetic]
        centring = [t.rpartition(",")[0] for t in column("_space_group_symop_magn_centering_xyz")]
        return [_group([_parse(text) for text in listed], [_parse(text) for text in centring])]
    if listed:
        group = _group([_parse(text) for text in listed], [])
        _check_metric(group, lattice)
        known = _settings(names)
        if known and len(group.rotations) not in {len(_operations(h).rotations) for h in known}:
            return [Operations(group.rotations, group.translations, group.origin, _table()[known[0] - 1].number)]
        return [group]
    if not any(names):
        raise StructureError(
            "it gives neither symmetry operations nor a space group: add _symmetry_equiv_pos_as_xyz; if all atoms are "
            "listed, 'x,y,z'"
        )
    known = _settings(names)
    if not known:
        raise StructureError(
            f"the space group {names.shown} is not known{_suggestion(names)}; correct it, or add "
            "_symmetry_equiv_pos_as_xyz"
        )
    number = _table()[known[0] - 1].number
    if names.group not in (None, number):
        raise StructureError(f"it names the space group {names.shown}, number {number}, and the number {names.group}")
    fitting = [h for h in known if _fits(_operations(h), lattice)]
    if not fitting:
        raise StructureError(f"the cell does not have the symmetry of its space group {names.shown}: correct the file")
    return [_operations(h) for h in fitting]


# --- operations -------------------------------------------------------------------------------------------------------


def _parse(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rotation and translation of an operation such as ``-x+1/2, y, z``."""
    parts = re.sub(r"\s+", "", text[:200]).lower().split(",")
    rotation, translation = np.zeros((3, 3), dtype=np.int64), np.zeros(3, dtype=np.int64)
    wrong = StructureError(f"{text[:60]!r} is no symmetry operation such as '-x+1/2,y,z': correct the file")
    if len(parts) != 3:
        raise wrong
    for i, part in enumerate(parts):
        terms = [match for match in _TERM.finditer(part) if match[0]]
        if not terms or "".join(match[0] for match in terms) != part:
            raise wrong
        for sign, above, below, decimal, letter in (match.groups() for match in terms):
            if below is not None and int(below) == 0:
                raise wrong
            size = int(above) / int(below) if above else float(decimal) if decimal else 1.0
            size = -size if sign == "-" else size
            if letter:
                rotation[i, "xyz".index(letter)] += round(size)
            elif above or decimal:
                translation[i] += round(size * _PARTS)
            else:
                raise wrong
    if abs(round(float(np.linalg.det(rotation)))) != 1 or np.abs(rotation).max() > 1:
        raise wrong
    return rotation, translation % _PARTS


def _group(
    operations: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    centring: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> Operations:
    """Operations that are checked to be a group: one that is missing or wrong shows."""
    if len(operations) * max(len(centring), 1) > _MOST_OPERATIONS:
        raise StructureError(f"it lists more than {_MOST_OPERATIONS} symmetry operations: write a smaller cell")
    rotations = np.array([rotation for rotation, _ in operations])
    translations = np.array([translation for _, translation in operations])
    if centring:
        shifts = np.array([translation for _, translation in centring])
        rotations = np.tile(rotations, (len(shifts), 1, 1))
        translations = (shifts[:, None] + translations).reshape(-1, 3) % _PARTS
    keys = _keys(rotations, translations)
    keys, chosen = np.unique(keys, return_index=True)
    chosen = np.sort(chosen)
    rotations, translations = rotations[chosen], translations[chosen]
    products = np.einsum("iab,jbc->ijac", rotations, rotations).reshape(-1, 3, 3)
    shifts = (np.einsum("iab,jb->ija", rotations, translations) + translations[:, None]).reshape(-1, 3) % _PARTS
    if np.abs(products).max() > 1 or not np.isin(_keys(products, shifts), keys).all():
        raise StructureError("its symmetry operations are no group: one is missing or wrong; correct the file")
    return Operations(rotations, translations, "the operations listed")


def _keys(rotations: NDArray[np.int64], translations: NDArray[np.int64]) -> NDArray[np.int64]:
    code = ((rotations + 1).reshape(-1, 9) * 3 ** np.arange(9)).sum(axis=1)
    for axis in range(3):
        code = code * _PARTS + translations[:, axis]
    return np.asarray(code)


def _fits(group: Operations, lattice: NDArray[np.float64]) -> bool:
    """Whether the lengths and angles of a cell are those of the group, within a hundredth."""
    metric = lattice @ lattice.T
    turned = np.einsum("nab,ac,ncd->nbd", group.rotations, metric, group.rotations)
    lengths = np.sqrt(np.diagonal(metric))
    return bool((np.abs(turned - metric) <= 0.02 * np.outer(lengths, lengths)).all())


def _check_metric(group: Operations, lattice: NDArray[np.float64]) -> None:
    if not _fits(group, lattice):
        raise StructureError("the cell does not have the symmetry of the operations listed: correct the file")


# --- names of space groups --------------------------------------------------------------------------------------------


class _Names(NamedTuple):
    hall: str
    hermann_mauguin: str
    number: str

    @property
    def group(self) -> int | None:
        return int(self.number) if re.fullmatch(r"\d{1,3}", self.number, re.ASCII) else None

    @property
    def shown(self) -> str:
        return repr((self.hermann_mauguin or self.hall or self.number)[:40])


@lru_cache(maxsize=1)
def _table() -> tuple[Any, ...]:
    """The 530 settings of the space groups, by number of Hall."""
    import spglib

    return tuple(with_its_warnings(spglib.get_spacegroup_type, hall)[0] for hall in range(1, 531))


@lru_cache(maxsize=64)
def _operations(hall: int) -> Operations:
    import spglib

    found: Any = with_its_warnings(spglib.get_symmetry_from_database, hall)[0]
    kind = _table()[hall - 1]
    translations = np.rint(np.asarray(found["translations"]) * _PARTS).astype(np.int64) % _PARTS
    name = kind.international_short + (f":{kind.choice}" if kind.choice in ("1", "2", "H", "R") else "")
    return Operations(np.asarray(found["rotations"], dtype=np.int64), translations, name)


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", "", name).lower()


@lru_cache(maxsize=256)
def _settings(names: _Names) -> tuple[int, ...]:
    """Numbers of Hall of all settings that the names may mean; empty if none is known."""
    table = _table()
    found: list[int] = []
    if names.hall:
        wanted = _plain(names.hall)
        found = [h for h, kind in enumerate(table, start=1) if _plain(kind.hall_symbol) == wanted]
    if not found and names.hermann_mauguin:
        found = _by_hermann_mauguin(names.hermann_mauguin)
    if not found and names.group is not None:
        of_group = [h for h, kind in enumerate(table, start=1) if kind.number == names.group]
        # A number alone means the standard setting; with two origins or axes, either may be meant.
        found = [h for h in of_group if table[h - 1].choice in ("1", "2", "H", "R")] or of_group[:1]
    return tuple(found)


def _by_hermann_mauguin(text: str) -> list[int]:
    name, _, choice = text.partition(":")
    if not choice:
        match = re.fullmatch(r"(.*\S)\s+([HRSZ])", name.strip())
        name, choice = (match[1], {"S": "1", "Z": "2"}.get(match[2], match[2])) if match else (name, "")
    wanted, choice = _plain(name), choice.strip().upper()
    found = [
        h
        for h, kind in enumerate(_table(), start=1)
        if wanted in _forms(kind) and (not choice or kind.choice.upper() == choice)
    ]
    # P 21/c means the setting of that name, and P 21/n another one that the table files under P 21/c.
    exact = [h for h in found if wanted in {_plain(part) for part in _table()[h - 1].international.split("=")}]
    standard = [h for h in exact if h == min(h2 for h2 in exact if _table()[h2 - 1].number == _table()[h - 1].number)]
    return exact if any(_table()[h - 1].choice in ("1", "2", "H", "R") for h in exact) else standard or found


def _forms(kind: Any) -> set[str]:
    forms = {_plain(part) for part in (kind.international_full, *kind.international.split("="))}
    # P 1 21/c 1 is also written P 21/c, with the ones left out.
    return forms | {_plain(re.sub(r" 1(?= |$)", "", kind.international_full)), _plain(kind.international_short)}


def _suggestion(names: _Names) -> str:
    wanted = _plain(names.hermann_mauguin or names.hall)
    if not wanted:
        return ""
    shorts = sorted({kind.international_short for kind in _table()})
    bare = [short for short in shorts if _plain(short).replace("-", "") == wanted.replace("-", "")]
    close = bare or difflib.get_close_matches(wanted, [_plain(short) for short in shorts], n=1, cutoff=0.8)
    return f": did you mean {close[0]}?" if close else ""


# --- atoms ------------------------------------------------------------------------------------------------------------


def expand(
    sites: Sequence[Site],
    candidates: Sequence[Operations],
    lattice: NDArray[np.float64],
    limits: ReadingLimits,
    formula: Formula | None,
    units: float | None,
    stated: str,
) -> Atoms:
    """Make all atoms of the cell by the one setting that agrees with what else the file says.

    Parameters
    ----------
    sites : sequence of Site
    candidates : sequence of Operations
        The settings that may be meant.
    lattice : ndarray of shape (3, 3)
    limits : ReadingLimits
    formula : Formula or None
        What the file says that the crystal consists of.
    units : float or None
        How many of it the cell holds.
    stated : str
        The formula as the file writes it.

    Raises
    ------
    StructureError
        If no setting agrees, with the reason of the first, or more than one.
    """
    found: list[tuple[Operations, Atoms]] = []
    reasons: list[str] = []
    for group in candidates:
        try:
            atoms = _expanded(sites, group, lattice, limits)
            _check_composition(atoms, formula, units, stated)
            if group.named is not None:
                _check_named(atoms, lattice, group.named, len(group.rotations))
        except StructureError as error:
            reasons.append(str(error))
            continue
        if not any(_same_atoms(atoms, other) for _, other in found):
            found.append((group, atoms))
    if not found:
        raise StructureError(reasons[0])
    if len(found) > 1:
        raise StructureError(
            f"its space group has several settings that fit, {' and '.join(group.origin for group, _ in found)}, and "
            "they make different crystals: say which, or add _symmetry_equiv_pos_as_xyz"
        )
    group, atoms = found[0]
    if len(candidates) > 1:
        note = f"of the settings of its space group, only {group.origin} agrees with the sites and the formula"
        return atoms._replace(notes=(*atoms.notes, note))
    return atoms


def _expanded(sites: Sequence[Site], group: Operations, lattice: NDArray[np.float64], limits: ReadingLimits) -> Atoms:
    # No special position has more than 48 operations, so that a cell of too many atoms shows before it is filled.
    limits.check_atoms(-(-len(sites) * len(group.rotations) // max(48, 1)))
    coords, numbers, owners, moved = [], [], [], 0.0
    for i, site in enumerate(sites):
        images, shift = _images(site, group, lattice)
        if site.multiplicity is not None and site.multiplicity != len(images):
            raise StructureError(
                f"{site.name} has the multiplicity {site.multiplicity} in the file, and {group.origin} make "
                f"{len(images)} atoms of it: correct the symmetry or the multiplicity"
            )
        moved = max(moved, shift)
        coords.append(images)
        numbers.append(np.full(len(images), site.number, dtype=np.int16))
        owners.append(np.full(len(images), i))
        limits.check_atoms(sum(map(len, coords)))
    frac_coords = np.concatenate(coords)
    _check_distinct(frac_coords, np.concatenate(owners), lattice, sites)
    notes = (f"coordinates were moved by up to {moved:.2g} Å onto special positions",) if moved > 0.01 else ()
    return Atoms(frac_coords, np.concatenate(numbers), notes)


def _images(site: Site, group: Operations, lattice: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """All atoms of a site, and how far it was moved onto its special position, in Å."""
    if len(group.rotations) == 1:
        return site.frac_coords[None, :], 0.0
    shifts = group.translations / _PARTS
    images = group.rotations @ site.frac_coords + shifts
    difference = images - site.frac_coords
    difference -= np.rint(difference)
    distances = np.linalg.norm(difference @ lattice, axis=1)
    if ((distances > _SAME) & (distances < _TOO_NEAR)).any():
        near = distances[(distances > _SAME) & (distances < _TOO_NEAR)].min()
        raise StructureError(
            f"symmetry makes of {site.name} two atoms {near:.2f} Å apart: its coordinates are wrong or rounded too "
            "much, or the site is half empty"
        )
    # The mean over the operations that leave the site in place lies exactly on the special position.
    mean = site.frac_coords + difference[distances <= _SAME].mean(axis=0)
    moved = float(np.linalg.norm((mean - site.frac_coords) @ lattice))
    images = (group.rotations @ mean + shifts) % 1.0
    kept: list[int] = []
    left = np.arange(len(images))
    while len(left):
        kept.append(int(left[0]))
        apart = images[left] - images[left[0]]
        apart -= np.rint(apart)
        left = left[np.linalg.norm(apart @ lattice, axis=1) > _SAME]
    return images[kept], moved


def _check_distinct(
    frac_coords: NDArray[np.float64], owners: NDArray[np.int64], lattice: NDArray[np.float64], sites: Sequence[Site]
) -> None:
    from scipy.spatial import cKDTree

    if len(frac_coords) < 2:
        return
    wrapped = frac_coords % 1.0
    wrapped[wrapped >= 1.0] = 0.0  # -1e-20 % 1.0 is 1.0
    tree: Any = cKDTree(wrapped, boxsize=np.ones(3))
    nearest = np.asarray(tree.query(wrapped, k=2)[1])
    for column in nearest.T:
        apart = wrapped - wrapped[column]
        apart -= np.rint(apart)
        close = (np.linalg.norm(apart @ lattice, axis=1) < _SAME) & (column != np.arange(len(column)))
        for i in np.flatnonzero(close)[:1].tolist():
            one, two = sites[owners[i]], sites[owners[column[i]]]
            raise StructureError(
                f"{one.name} and {two.name} are at the same place: leave one out; a mixed site is no atom"
            )


def _check_composition(atoms: Atoms, formula: Formula | None, units: float | None, stated: str) -> None:
    if formula is None:
        return
    counts = Counter(atoms.numbers.tolist())
    made = " ".join(f"{SYMBOLS[z - 1]}{counts[z]}" for z in sorted(counts))
    missing = [SYMBOLS[z - 1] for z in sorted(formula.amounts.keys() - counts.keys())]
    if missing:
        raise StructureError(
            f"_chemical_formula_sum is {stated[:60]!r}, but no site holds {', '.join(missing)} (the cell is {made}): "
            "add the missing sites or correct the formula"
        )
    found = formula.units_in(counts)
    if found is None:
        raise StructureError(
            f"_chemical_formula_sum is {stated[:60]!r}, but sites and symmetry make {made}: correct the file"
        )
    if units is None or not units > 0:
        return  # pymatgen states 0 for a cell of one LiO, whose reduced formula it takes to be Li2O2
    # pymatgen states the whole cell in _chemical_formula_sum, and beside it how many reduced formulas that is.
    of_the_cell = all(abs(n / units - round(n / units)) < 1e-6 for n in formula.amounts.values())
    expected = (units, 1.0) if of_the_cell else (units,)
    if not any(abs(found / n - 1) <= 0.01 for n in expected):
        raise StructureError(
            f"the cell should hold {units:g} times {stated[:60]!r}, but sites and symmetry make {made}: correct the "
            "symmetry, or _cell_formula_units_Z"
        )


def _check_named(atoms: Atoms, lattice: NDArray[np.float64], number: int, n_operations: int) -> None:
    """A file that lists other operations than its space group has is right if the atoms have the symmetry anyway."""
    import spglib

    cell: Any = (lattice, atoms.frac_coords, atoms.numbers.astype(np.intc))
    try:
        found = with_its_warnings(spglib.get_symmetry_dataset, cell, symprec=0.05)[0]
    except Exception:  # spglib's own class exists from 2.7 on only
        found = None
    if found is None or found.number != number:
        raise StructureError(
            f"it names space group {number} but lists {n_operations} symmetry operations, with which the crystal is "
            f"of group {'?' if found is None else found.number}: correct the one that is wrong"
        )


def _same_atoms(one: Atoms, two: Atoms) -> bool:
    if len(one.numbers) != len(two.numbers):
        return False

    def key(atoms: Atoms) -> list[tuple[int, ...]]:
        rounded = np.rint(atoms.frac_coords * 1e4).astype(np.int64) % 10_000
        return sorted((int(z), *map(int, row)) for z, row in zip(atoms.numbers, rounded, strict=True))

    return key(one) == key(two)
