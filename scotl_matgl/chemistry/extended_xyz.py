"""Extended XYZ files, read frame by frame, so that a bad frame does not cost the others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.chemistry.reading import (
    Reading,
    ReadingLimits,
    check_periodic,
    element_of,
    fractional,
    isotope_notes,
    number_in,
    numbers_in,
)
from scotl_matgl.chemistry.refusals import StructureError

_LONGEST_COMMENT = 100_000

_PAIR = re.compile(r"""([A-Za-z_][\w.:-]{0,100})\s?=\s?("[^"]*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|[^\s"']+)""", re.ASCII)


def xyz_frames(text: str) -> Iterator[str | None]:
    """Cut extended XYZ into frames.

    Parameters
    ----------
    text : str
        Of the whole file.

    Yields
    ------
    str or None
        A frame each, which may be cut off; None, and nothing after it, where a frame should begin and does not.
    """
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at : min(end, at + 100)].strip()
        if not line:
            at = end + 1
            continue
        if re.fullmatch(r"\d{1,15}", line, re.ASCII) is None:
            yield None
            return
        start = at
        for _ in range(int(line) + 2):
            end = text.find("\n", at)
            if end < 0:
                at = len(text)
                break
            at = end + 1
        yield text[start:at]


def read_xyz_frame(frame: str, limits: ReadingLimits) -> Reading:
    """Read one frame of extended XYZ.

    Parameters
    ----------
    frame : str
        From `xyz_frames`.
    limits : ReadingLimits
        How many atoms there may be.

    Returns
    -------
    Reading
        Numbers, words and truth values of the comment line are its properties.

    Raises
    ------
    StructureError
        If it is cut off, has no lattice, is not periodic, or a line is not as its ``Properties`` say.
    """
    announced, _, rest = frame.lstrip().partition("\n")
    count = int(announced)
    limits.check_atoms(count)
    comment, _, body = rest.partition("\n")
    if len(comment) > _LONGEST_COMMENT:
        raise StructureError(f"its comment line has {len(comment)} characters, and {_LONGEST_COMMENT} are read")
    known = {key: value.strip("\"'{}[]") for key, value in _PAIR.findall(comment)}
    by_lower = {key.lower(): value for key, value in known.items()}
    if "lattice" not in by_lower:
        raise StructureError(
            'its comment line has no Lattice="...": a frame without one is a molecule, so leave it out'
        )
    flags = re.split(r"[\s,]+", by_lower.get("pbc", "T T T").strip())
    if len(flags) != 3 or not all(re.fullmatch("T|F|true|false|1|0", flag, re.IGNORECASE) for flag in flags):
        raise StructureError(f"pbc is {by_lower['pbc'][:40]!r}: three of T and F are needed")
    check_periodic([flag.lower() in ("t", "true", "1") for flag in flags])
    vectors = numbers_in(re.split(r"[\s,]+", by_lower["lattice"].strip()), "the lattice")
    if len(vectors) != 9:
        raise StructureError(f"its Lattice has {len(vectors)} numbers: nine are needed")
    lattice = np.array(vectors).reshape(3, 3)
    rows = [line.split() for line in body.splitlines()[:count]]
    if len(rows) < count:
        raise StructureError(f"it announces {count} atoms and {len(rows)} follow: is the file cut off?")
    species, number, position, width = _columns(by_lower.get("properties", "species:S:1:pos:R:3"))
    for i, row in enumerate(rows):
        if len(row) != width:
            raise StructureError(f"the line of atom {i} has {len(row)} columns, and Properties say {width}")
    numbers = [
        element_of(row[species], f"atom {i}") if species is not None else _atomic_number(row[number], i)
        for i, row in enumerate(rows)
    ]
    coords = [numbers_in(row[position : position + 3], f"the coordinates of atom {i}") for i, row in enumerate(rows)]
    cartesian: NDArray[np.float64] = np.array(coords, dtype=np.float64).reshape(-1, 3)
    properties = {
        key: _value(text) for key, text in known.items() if key.lower() not in ("lattice", "pbc", "properties")
    }
    notes = isotope_notes(row[species] for row in rows) if species is not None else ()
    return Reading(lattice, fractional(cartesian, lattice), np.array(numbers, dtype=np.int16), properties, notes)


def _columns(text: str) -> tuple[int | None, int, int, int]:
    """Columns of symbol and atomic number, first column of the position, and number of columns."""
    parts = text.split(":")
    found: dict[str, tuple[int, int]] = {}
    at = 0
    for name, kind, width in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        if kind not in ("S", "R", "I", "L") or not re.fullmatch(r"[1-9]\d{0,3}", width, re.ASCII):
            raise StructureError(f"its Properties {text[:60]!r} are not name:kind:columns")
        found[name.lower()] = (at, int(width))
        at += int(width)
    position = found.get("pos", found.get("positions", (0, 0)))
    symbol = found.get("species", found.get("symbols", found.get("element")))
    number = found.get("z", found.get("numbers"))
    if len(parts) % 3 or position[1] != 3 or (symbol is None and number is None):
        raise StructureError(f"its Properties {text[:60]!r} name no species:S:1 and pos:R:3")
    return (symbol[0] if symbol is not None else None), (number[0] if number is not None else 0), position[0], at


def _atomic_number(text: str, atom: int) -> int:
    if re.fullmatch(r"\d{1,3}", text, re.ASCII) is None or not 1 <= int(text) <= len(SYMBOLS):
        raise StructureError(f"atom {atom} has the atomic number {text[:20]!r}, which is no element: replace it")
    return int(text)


def _value(text: str) -> Any:
    number = number_in(text)
    if number is not None:
        return int(text) if re.fullmatch(r"[+-]?\d{1,15}", text, re.ASCII) else number
    return {"T": True, "F": False}.get(text, text)
