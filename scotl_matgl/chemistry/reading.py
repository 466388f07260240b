"""What the readers of crystal files share: limits, strict numbers and symbols, and the crystal as it was read."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.elements import NUMBER_OF, SYMBOL_BY_LOWER_CASE
from scotl_matgl.chemistry.refusals import StructureError
from scotl_matgl.exceptions import InputError

#: Atomic number of each symbol that a file may use: deuterium is hydrogen to every model here.
ATOM_OF = {**NUMBER_OF, "D": 1}

_VACANCIES = frozenset(("x", "xx", "va", "vac", "vc", "q", "□", "dum", "du"))

# Written out: float() takes "nan", "1_0" and the digits of every script for numbers, too.
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eEdD][+-]?\d{1,3})?", re.ASCII)


@dataclass(frozen=True)
class ReadingLimits:
    """How much a file of crystals may hold; what is larger is refused before memory is taken for it.

    Each limit is also an environment variable, whose name the refusal gives: ``SCOTL_MATGL_`` and the name of the
    attribute in capitals, such as ``SCOTL_MATGL_MAX_ATOMS``.

    Parameters
    ----------
    max_file_megabytes : float
        Of a file, after it was unpacked.
    max_record_megabytes : float
        Of the text of one crystal in a file of several.
    max_atoms : int
        Atoms in the cell of one crystal.
    max_records : int
        Crystals in one file, and files in one folder.

    Examples
    --------
    >>> ReadingLimits(max_atoms=50_000).max_atoms
    50000
    """

    max_file_megabytes: float = 512.0
    max_record_megabytes: float = 16.0
    max_atoms: int = 10_000
    max_records: int = 1_000_000

    def __post_init__(self) -> None:
        for item in fields(self):
            if not getattr(self, item.name) > 0:
                raise InputError(f"{item.name} is {getattr(self, item.name)!r}: a positive number is needed")

    @classmethod
    def from_environment(cls) -> Self:
        """Limits with what environment variables say.

        Returns
        -------
        ReadingLimits

        Raises
        ------
        ValueError
            If a variable does not hold a positive number.
        """
        given: dict[str, Any] = {}
        for item in fields(cls):
            text = os.environ.get(variable_of(item.name))
            if text:
                number = number_in(text)
                if number is None or not number > 0:
                    raise InputError(f"{variable_of(item.name)} is {text[:50]!r}: a positive number is needed")
                given[item.name] = int(number) if item.type == "int" else number
        return cls(**given)

    def check_atoms(self, count: int) -> None:
        """Raise if a cell holds too many atoms."""
        if count > self.max_atoms:
            raise StructureError(
                f"it announces {count:.6g} atoms in a cell, and at most {self.max_atoms} are read: "
                f"{how_to_raise('max_atoms')}"
            )


def variable_of(limit: str) -> str:
    """Name of the environment variable of a limit."""
    return f"SCOTL_MATGL_{limit.upper()}"


def how_to_raise(limit: str) -> str:
    """What to do where a limit is too low."""
    return f"correct the file, or set {variable_of(limit)} higher"


class Reading(NamedTuple):
    """One crystal as a reader found it, still unchecked.

    Attributes
    ----------
    lattice, frac_coords, numbers : array-like
        As those of `Crystal`.
    properties : mapping
        What the record says of it.
    notes : tuple of str
        What a user should know of how it was read.
    """

    lattice: NDArray[Any]
    frac_coords: NDArray[Any]
    numbers: NDArray[Any]
    properties: Mapping[str, Any] = {}
    notes: tuple[str, ...] = ()


def cell_matrix(parameters: Sequence[float]) -> NDArray[np.float64]:
    """Lattice vectors from three lengths and three angles in degrees: c along z, a in the plane of x and z."""
    a, b, c = parameters[:3]
    if not (min(a, b, c) > 0 and all(0 < angle < 180 for angle in parameters[3:])):
        raise StructureError(
            "lengths of a cell are positive and its angles between 0 and 180 degrees: correct the file"
        )
    alpha, beta, gamma = np.radians(parameters[3:])
    cosine = (np.cos(alpha) * np.cos(beta) - np.cos(gamma)) / (np.sin(alpha) * np.sin(beta))
    if not abs(cosine) < 1:
        angles = ", ".join(f"{angle:g}" for angle in parameters[3:])
        raise StructureError(f"no cell has the angles {angles}: correct the file")
    sine = np.sqrt(1 - cosine**2)
    return np.array(
        [
            [a * np.sin(beta), 0.0, a * np.cos(beta)],
            [-b * np.sin(alpha) * cosine, b * np.sin(alpha) * sine, b * np.cos(alpha)],
            [0.0, 0.0, c],
        ]
    )


def fractional(coords: NDArray[np.float64], lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractional coordinates of Cartesian ones."""
    try:
        return np.asarray(np.linalg.solve(lattice.T, coords.T).T)
    except np.linalg.LinAlgError as error:
        raise StructureError(
            "the cell has no volume: the lattice vectors lie in one plane; correct the file"
        ) from error


def number_in(text: str) -> float | None:
    """Finite decimal number that a text is; None if it is none."""
    if _NUMBER.fullmatch(text) is None:
        return None
    value = float(text.replace("d", "e").replace("D", "e"))
    return value if math.isfinite(value) else None


def numbers_in(words: list[str], what: str) -> list[float]:
    """Numbers of a line; the refusal says which word is none."""
    found = []
    for word in words:
        value = number_in(word)
        if value is None:
            raise StructureError(f"{word[:40]!r} in {what} is no finite number: correct the file")
        found.append(value)
    return found


def isotope_notes(symbols: Iterable[str]) -> tuple[str, ...]:
    """What to tell of sites of deuterium and tritium, by the symbols of all sites."""
    count = Counter(symbols)
    return tuple(
        f"{count[symbol]} site{'s' if count[symbol] > 1 else ''} of {symbol} ({name}) read as H"
        for symbol, name in (("D", "deuterium"), ("T", "tritium"))
        if count[symbol]
    )


def element_of(text: str, where: str) -> int:
    """Atomic number of a symbol, or a refusal that says what the text may mean."""
    if text in ATOM_OF:
        return ATOM_OF[text]
    if text.lower() in _VACANCIES:
        raise StructureError(
            f"{where} holds {text!r}, a dummy species or a vacancy: replace it by an element, or leave the site out"
        )
    if text == "T":
        raise StructureError(f"{where} holds 'T', tritium or any tetrahedral atom: write the element")
    isotope = re.fullmatch(r"\d{1,3}-?([A-Z][a-z]?)|([A-Z][a-z]?)-\d{1,3}", text, re.ASCII)
    symbol = (isotope[1] or isotope[2]) if isotope else ""
    if symbol in NUMBER_OF:
        raise StructureError(f"{where} holds {text!r}, an isotope: write {symbol}, for isotopes are not told apart")
    close = SYMBOL_BY_LOWER_CASE.get(text.lower())
    if close:
        raise StructureError(f"{where} holds {text[:40]!r}: write {close} if that is the element, for case matters")
    if re.search(r"[,/]", text):
        raise StructureError(f"{where} holds {text[:40]!r}, several elements: use an ordered approximation")
    raise StructureError(f"{where} holds {text[:40]!r}, which is no element: correct the file")


@dataclass(frozen=True)
class Formula:
    """Amounts of elements in a formula that a file states.

    Attributes
    ----------
    amounts : dict of int to float
        By atomic number.
    """

    amounts: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Formula | None:
        """Read a formula of plain symbols and amounts, such as ``Na1 Cl1``; None for any other."""
        amounts: dict[int, float] = {}
        words = re.findall(r"([A-Z][a-z]?)([0-9.]*)", text[:2000], re.ASCII)
        if not words or "".join(a + b for a, b in words) != re.sub(r"\s+", "", text):
            return None
        for symbol, amount in words:
            value = number_in(amount or "1")
            if symbol not in ATOM_OF or value is None or value <= 0:
                return None
            z = ATOM_OF[symbol]
            amounts[z] = amounts.get(z, 0.0) + value
        return cls(amounts)

    def units_in(self, counts: Mapping[int, int]) -> float | None:
        """How many of this formula the counted atoms are; None if they are another composition."""
        if self.amounts.keys() != counts.keys():
            return None
        ratios = [counts[z] / amount for z, amount in self.amounts.items()]
        return ratios[0] if max(ratios) <= 1.01 * min(ratios) else None


def check_periodic(periodic: Iterable[Any]) -> None:
    """Raise if a direction is not periodic."""
    flags = [bool(p) for p in periodic]
    if not all(flags):
        open_ones = ", ".join(name for name, flag in zip("abc", flags, strict=True) if not flag)
        raise StructureError(f"it is not periodic along {open_ones}: the models read crystals, so leave it out")


def with_its_warnings(function: Any, *args: Any, **kwargs: Any) -> tuple[Any, list[str]]:
    """Result of a call into another package, and the warnings that it gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*args, **kwargs)
    return result, [str(warning.message) for warning in caught]
