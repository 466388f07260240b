"""POSCAR files of VASP, read strictly: no element is guessed, no line is left over."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.elements import NUMBER_OF, SYMBOLS
from scotl_matgl.chemistry.reading import (
    ATOM_OF,
    Reading,
    ReadingLimits,
    element_of,
    fractional,
    isotope_notes,
    numbers_in,
)
from scotl_matgl.chemistry.refusals import StructureError


def read_poscar(text: str, limits: ReadingLimits) -> Reading:
    """Read the text of one POSCAR.

    Parameters
    ----------
    text : str
        In the form of VASP 5 and later. In that of VASP 4, which does not name the elements, they are taken from
        labels behind the coordinates or from a first line that is nothing but symbols, and a note says so.
    limits : ReadingLimits
        How many atoms there may be.

    Returns
    -------
    Reading

    Raises
    ------
    StructureError
        If elements are not named, lines are missing or left over, or anything else is not as VASP reads it.
    """
    quick = _read_plain(text, limits)
    return _read_any(text, limits) if quick is None else quick


def _read_plain(text: str, limits: ReadingLimits) -> Reading | None:
    """Read the plainest POSCAR: scale 1, symbols, direct coordinates, no selective dynamics; None for any other."""
    head = text.split("\n", 8)
    if len(head) != 9 or head[7].strip().lower() != "direct" or "_" in text or not text.isascii():
        return None
    symbols, coords = head[5].split(), head[8]
    try:
        if float(head[1]) != 1.0:
            return None
        amounts = [int(count) for count in head[6].split()]
        total = sum(amounts)
        # Before the list of atoms is made: a file of a hundred bytes may announce any number of them.
        if min(amounts) < 1 or not total <= limits.max_atoms or not 5 * total <= len(coords) <= 250 * total:
            return None
        kinds = [symbol for symbol, count in zip(symbols, amounts, strict=True) for _ in range(count)]
        numbers = np.repeat(np.array([ATOM_OF[symbol] for symbol in symbols], dtype=np.int16), amounts)
        words = coords.split()
        if len(words) == 4 * total:
            if words[3::4] != kinds:
                return None
            del words[3::4]
        elif len(words) != 3 * total:
            return None
        # float() and not numpy, which takes twice as long to read numbers from text.
        frac_coords = np.array([*map(float, words)]).reshape(-1, 3)
        lattice = np.array([[*map(float, line.split())] for line in head[2:5]])
    except (KeyError, ValueError, OverflowError):
        return None
    return Reading(lattice, frac_coords, numbers, {}, isotope_notes(kinds) if "D" in symbols else ())


class _Lines:
    """Lines of a text one after the other, so that no more are cut out than are asked for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def next(self, what: str) -> str:
        if self._at >= len(self._text):
            raise StructureError(f"the file ends before {what}: is it cut off?")
        end = self._text.find("\n", self._at)
        end = len(self._text) if end < 0 else end
        line = self._text[self._at : end]
        self._at = end + 1
        return line.strip()

    def left(self) -> str:
        return self.next("its end") if self._at < len(self._text) else ""


def _read_any(text: str, limits: ReadingLimits) -> Reading:
    lines = _Lines(text)
    comment = lines.next("its first line")
    scale = numbers_in(lines.next("the scale").split(), "the scale")
    vectors = [numbers_in(lines.next("the third lattice vector").split()[:3], "the lattice") for _ in range(3)]
    if any(len(vector) != 3 for vector in vectors):
        raise StructureError("a lattice vector has not three numbers: lines 3 to 5 of a POSCAR are the lattice")
    lattice = _scaled(np.array(vectors), scale)
    symbols, words = None, lines.next("the numbers of atoms").split()
    if not words or not _is_count(words[0]):
        symbols, words = words, lines.next("the numbers of atoms").split()
    counts = _counts(words, limits)
    if symbols is not None and len(symbols) != len(counts):
        raise StructureError(
            f"it names {len(symbols)} elements ({' '.join(symbols)[:60]}) and gives {len(counts)} numbers of atoms"
        )
    mode = lines.next("the word Direct or Cartesian")
    selective = mode[:1] in ("s", "S")
    if selective:
        mode = lines.next("the word Direct or Cartesian")
    if mode[:1] not in tuple("dDcCkK"):
        raise StructureError(f"the line before the coordinates is {mode[:40]!r}: it must say Direct or Cartesian")
    rows = [lines.next(f"atom {i} of {sum(counts)}").split() for i in range(sum(counts))]
    coords = np.array([_three(row, i) for i, row in enumerate(rows)], dtype=np.float64).reshape(-1, 3)
    _check_left_over(lines.left(), len(rows))
    numbers, notes = _elements(symbols, counts, comment, _labels(rows, selective))
    if mode[:1] not in ("d", "D"):
        coords = fractional(coords * _factors(np.array(vectors), scale), lattice)
    return Reading(lattice, coords, np.array(numbers, dtype=np.int16), {}, notes)


def _three(row: list[str], atom: int) -> list[float]:
    if len(row) < 3:
        raise StructureError(f"the line of atom {atom} is {' '.join(row)[:40]!r}: three coordinates are needed")
    return numbers_in(row[:3], f"the coordinates of atom {atom}")


def _is_count(word: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", word, re.ASCII) is not None


def _counts(words: list[str], limits: ReadingLimits) -> list[int]:
    whole = [word for word in words if _is_count(word)]
    if not whole or words[: len(whole)] != whole or (len(words) > len(whole) and words[len(whole)][0] not in "!#"):
        raise StructureError(f"the numbers of atoms are {' '.join(words)[:60]!r}: whole numbers are needed")
    for word in whole:
        if len(word) > 15:
            raise StructureError(f"it announces a number of atoms of {len(word)} digits: correct the file")
    counts = [int(word) for word in whole]
    if min(counts) < 1:
        raise StructureError(f"the numbers of atoms are {' '.join(words)[:60]!r}: each must be 1 or more")
    limits.check_atoms(sum(counts))
    return counts


def _factors(vectors: NDArray[np.float64], scale: Sequence[float]) -> NDArray[np.float64]:
    """Factors of x, y and z: one number scales all, a negative one is the volume, three are one each."""
    if len(scale) == 3 and min(scale) > 0:
        return np.array(scale, dtype=np.float64)
    if len(scale) != 1 or scale[0] == 0:
        raise StructureError(
            f"the scale is {' '.join(map(str, scale))[:40]!r}: one number but 0, or three positive ones"
        )
    if scale[0] > 0:
        return np.full(3, scale[0])
    volume = abs(float(np.linalg.det(vectors)))
    if volume == 0:
        raise StructureError("the cell has no volume: the lattice vectors lie in one plane; correct the file")
    return np.full(3, (-scale[0] / volume) ** (1 / 3))


def _scaled(vectors: NDArray[np.float64], scale: Sequence[float]) -> NDArray[np.float64]:
    return vectors * _factors(vectors, scale)


def _check_left_over(line: str, n_atoms: int) -> None:
    """A line of numbers right behind the last atom is one atom more; velocities come after a blank line."""
    words = line.split()
    if len(words) >= 3 and all(re.fullmatch(r"[+-]?[\d.]+(?:[eEdD][+-]?\d+)?", word, re.ASCII) for word in words[:3]):
        raise StructureError(f"it announces {n_atoms} atoms, but more lines of coordinates follow: correct the numbers")


def _labels(rows: list[list[str]], selective: bool) -> list[str]:
    """Symbols behind the coordinates, if every line has one; flags of selective dynamics are none."""
    first = 6 if selective else 3
    if not rows or any(len(row) <= first for row in rows):
        return []
    if all(set(row[first : first + 3]) <= {"T", "F"} and len(row) >= first + 3 for row in rows):
        return []
    found = [re.match(r"[A-Z][a-z]?(?![a-z])", row[first], re.ASCII) for row in rows]
    labels = [match[0] for match in found if match is not None and match[0] in ATOM_OF]
    return labels if len(labels) == len(rows) else []


def _elements(
    symbols: list[str] | None, counts: list[int], comment: str, labels: list[str]
) -> tuple[list[int], tuple[str, ...]]:
    """Atomic number of each atom, and what to tell of where it is from."""
    by_label = [ATOM_OF[label] for label in labels]
    if symbols is not None:
        # VASP writes Fe_pv for a potential and Fe/1a2b3c for its hash.
        kinds = [element_of(re.split(r"[_/]", s)[0], "the line of elements") for s in symbols]
        numbers = [z for z, count in zip(kinds, counts, strict=True) for _ in range(count)]
        for i, (head, label) in enumerate(zip(numbers, by_label, strict=False)):
            if head != label:
                raise StructureError(
                    f"atom {i} is {SYMBOLS[head - 1]} by the line of elements and {labels[i]} by the label behind its "
                    "coordinates: correct the one that is wrong"
                )
        named = [re.split(r"[_/]", s)[0] for s in symbols]
        return numbers, isotope_notes(s for s, count in zip(named, counts, strict=True) for _ in range(count))
    words = comment.split()
    by_name = [NUMBER_OF[w] for w in words] if len(words) == len(counts) and all(w in NUMBER_OF for w in words) else []
    by_comment = [z for z, count in zip(by_name, counts, strict=False) for _ in range(count)]
    if by_label and by_comment and by_label != by_comment:
        raise StructureError(
            "its first line and the labels behind the coordinates name different elements: write a line of elements "
            "above the numbers of atoms"
        )
    if by_label:
        told = "it has no line of elements; they are those of the labels behind the coordinates"
        return by_label, (told, *isotope_notes(labels))
    if by_comment:
        return by_comment, (f"it has no line of elements; they are those of its first line, {' '.join(words)}",)
    raise StructureError(
        "it names no elements (the form of VASP 4): write a line with a symbol for each number of atoms above these "
        "numbers"
    )
