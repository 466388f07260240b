"""A column of formulas as flat arrays, with what could not be read listed beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scotl_matgl.chemistry.elements import NUMBER_OF, SYMBOL_BY_LOWER_CASE, SYMBOLS
from scotl_matgl.chemistry.formulas import (
    Amounts,
    CompositionError,
    SkippedRow,
    atoms_of_weights,
    checked_amounts,
    checked_meaning,
    format_formula,
    read_text,
    reduced_formula,
    shown,
)
from scotl_matgl.chemistry.grammar import AMOUNT
from scotl_matgl.chemistry.refusals import RefusalError, isotope_message, missing_message

# Fractions that differ by less than this are one composition (the rounding of the published target tables).
_KEY_STEPS = 10_000

# Formulas and skipped rows that a notebook shows.
_SHOWN = 8


@dataclass(frozen=True)
class ReadingNote:
    """How many formulas of a column were read in a way that their authors should know of.

    Attributes
    ----------
    reading : str
        Such as "read as shares".
    count : int
        Number of formulas.
    example : str
        The first of them, as it was given.
    meaning : str
        The same, as it was read.
    """

    reading: str
    count: int
    example: str
    meaning: str

    def __str__(self) -> str:
        """Sentence that a result shows."""
        noun = "formula" if self.count == 1 else "formulas"
        return f"{self.count} {noun} {self.reading}, such as {self.example} as {self.meaning}"


@dataclass(frozen=True, eq=False)
class Compositions:
    """Parsed formulas in flat arrays: formula ``i`` owns the entries ``offsets[i]:offsets[i + 1]``.

    Attributes
    ----------
    text : tuple of str
        The formulas as they were given.
    numbers : ndarray of int16, shape (nnz,)
        Atomic numbers, each once per formula, in order of first appearance.
    amounts : ndarray of float64, shape (nnz,)
        Amounts as written (not normalised), all positive.
    offsets : ndarray of int64, shape (n + 1,)
        Start of each formula in the flat arrays.
    rows : ndarray of int64, shape (n,)
        Position of each formula in the input, so that ``y[rows]`` are the matching targets.
    skipped : tuple of SkippedRow
        What could not be read; empty with ``on_error="raise"``.
    n_input : int
        Number of rows in the input: ``len(self) + len(self.skipped)`` until `take` selects among them.
    notes : tuple of ReadingNote
        What the readers of a result should know of how the input was read: brackets read as shares, percent by weight.

    Examples
    --------
    >>> table = parse_compositions(["Fe2O3", "FE2O3"], on_error="skip")
    >>> table[0]
    (array([26,  8], dtype=int16), array([2., 3.]))
    >>> table.skipped[0].row
    1
    """

    text: tuple[str, ...]
    numbers: NDArray[np.int16]
    amounts: NDArray[np.float64]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    skipped: tuple[SkippedRow, ...]
    n_input: int
    notes: tuple[ReadingNote, ...] = ()

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, i: int) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
        """Atomic numbers and amounts of formula `i`."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"formula {i} does not exist: there are {len(self)}")
        i %= len(self)
        part = slice(self.offsets[i], self.offsets[i + 1])
        return self.numbers[part], self.amounts[part]

    def _repr_html_(self) -> str:
        from scotl_matgl.views import Column, listed, paragraph, table

        def share(i: int) -> str:
            numbers, amounts = self[i]
            parts = zip(numbers.tolist(), (amounts / amounts.sum()).tolist(), strict=True)
            return ", ".join(f"{SYMBOLS[z - 1]} {amount:.4g}" for z, amount in parts)

        shown = range(min(len(self), _SHOWN))
        rows = [Column("row", [str(self.rows[i]) for i in shown]), Column("formula", [self.text[i] for i in shown])]
        bad = [f"row {row.row} ({row.value}): {row.reason}" for row in self.skipped[:_SHOWN]]
        bad += [f"and {len(self.skipped) - _SHOWN} more"] if len(self.skipped) > _SHOWN else []
        told = f"{len(self)} of {self.n_input} formulas" if self.skipped else f"{len(self)} formulas"
        more = f"; the first {_SHOWN}" if len(self) > _SHOWN else ""
        skipped = paragraph("Skipped:") + listed(bad) if bad else ""
        notes = listed([str(note) for note in self.notes])
        return (
            table([*rows, Column("atomic fractions", [share(i) for i in shown])], caption=told + more) + notes + skipped
        )

    def _formula_of_entry(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def fractions(self) -> NDArray[np.float64]:
        """Atomic fractions, shape (nnz,), which add up to 1 in each formula."""
        owner = self._formula_of_entry()
        totals = np.bincount(owner, weights=self.amounts, minlength=len(self))
        return np.asarray(self.amounts / totals[owner], dtype=np.float64)

    def dense_fractions(self) -> NDArray[np.float64]:
        """Atomic fractions as a table, shape (n, 118): column ``Z - 1`` is element ``Z``."""
        table = np.zeros((len(self), len(SYMBOLS)))
        table[self._formula_of_entry(), self.numbers.astype(np.intp) - 1] = self.fractions
        return table

    def keys(self) -> tuple[str, ...]:
        """Canonical key of each formula, see `composition_key`."""
        owner = self._formula_of_entry()
        steps = _key_steps(self.fractions)
        order = np.lexsort((self.numbers, owner))
        order = order[steps[order] > 0]
        parts = [
            f"{SYMBOLS[z - 1]}{s}" for z, s in zip(self.numbers[order].tolist(), steps[order].tolist(), strict=True)
        ]
        ends = np.cumsum(np.bincount(owner[order], minlength=len(self))).tolist()
        return tuple("".join(parts[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)) if ends else ()

    def take(self, index: ArrayLike | slice) -> Compositions:
        """Select formulas by position, boolean mask or slice.

        Parameters
        ----------
        index : array_like of int or bool, or slice
            Which formulas, in which order; repeats are allowed.

        Returns
        -------
        Compositions
            ``rows``, ``skipped``, ``n_input`` and ``notes`` still speak of the original input.
        """
        chosen = np.arange(len(self))[index if isinstance(index, slice) else _as_index(index)]
        lengths = np.diff(self.offsets)[chosen]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        entries = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], lengths)
        return Compositions(
            text=tuple(self.text[i] for i in chosen.tolist()),
            numbers=_frozen(self.numbers[entries]),
            amounts=_frozen(self.amounts[entries]),
            offsets=_frozen(offsets),
            rows=_frozen(self.rows[chosen]),
            skipped=self.skipped,
            n_input=self.n_input,
            notes=self.notes,
        )


def _as_index(index: ArrayLike) -> NDArray[Any]:
    array = np.asarray(index)
    return array.astype(np.intp) if array.size == 0 else array


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _key_steps(fractions: NDArray[np.float64]) -> NDArray[np.int64]:
    # 1e-6 of a step: exact halves (1/8 = 1250 steps, 0.00005 = half a step) must not hang on the last bit of a sum.
    return np.floor(fractions * _KEY_STEPS + 0.5 + 1e-6).astype(np.int64)


def composition_key(numbers: ArrayLike, amounts: ArrayLike) -> str:
    """Name a composition so that equal compositions have equal names.

    Parameters
    ----------
    numbers : array_like of int, shape (k,)
        Atomic numbers; repeats are added up.
    amounts : array_like of float, shape (k,)
        Positive amounts in any unit that counts atoms.

    Returns
    -------
    str
        Symbols in order of atomic number, each with its atomic fraction in steps of 1e-4, rounded half up; elements
        below half a step are absent.

    Examples
    --------
    >>> composition_key([26, 8], [2, 3])
    'O6000Fe4000'
    """
    elements, position = np.unique(np.asarray(numbers), return_inverse=True)
    totals = np.bincount(position, weights=np.asarray(amounts, dtype=np.float64))
    steps = _key_steps(totals / totals.sum())
    return "".join(f"{SYMBOLS[z - 1]}{s}" for z, s in zip(elements.tolist(), steps.tolist(), strict=True) if s > 0)


def column_of(inputs: Any) -> tuple[list[Any], list[Hashable] | None]:
    """Values of a column in order, and their labels where it has an index.

    Parameters
    ----------
    inputs : iterable
        Such as a list, a pandas Series, or an array or table of one column.

    Returns
    -------
    values : list
    labels : list of hashable, or None

    Raises
    ------
    TypeError
        If it is one formula or crystal, has no order, or is a table of several columns.
    """
    if isinstance(inputs, str | bytes):
        raise TypeError(f"{inputs!r} is one formula where a column of formulas is expected: write [{inputs!r}]")
    if isinstance(inputs, Mapping) or _is_pymatgen(inputs) or _is_crystal(inputs):
        raise TypeError(f"one {type(inputs).__name__} was given where a column of them is expected: put it into a list")
    if isinstance(inputs, set | frozenset):
        raise TypeError("a set has no order, so its rows could not be matched with targets: pass a list")
    if not isinstance(inputs, Iterable):
        raise TypeError(f"a column of formulas is expected, not {shown(inputs)} ({type(inputs).__name__})")
    # pandas objects are recognised by what they offer: importing pandas here would cost more than the parsing.
    shape = getattr(inputs, "shape", None)
    if shape is not None and len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        raise TypeError(f"a column of formulas is expected, not a table of shape {tuple(shape)}: choose the one column")
    index = getattr(inputs, "index", None)
    labels = list(index) if hasattr(inputs, "to_numpy") and index is not None and not callable(index) else None
    if hasattr(inputs, "to_numpy"):
        return list(inputs.to_numpy().ravel()), labels
    return list(inputs.ravel()) if isinstance(inputs, np.ndarray) else list(inputs), None


def parse_compositions(
    inputs: Any, *, on_error: Literal["raise", "skip"] = "raise", amounts: Amounts = "atoms"
) -> Compositions:
    """Read a column of formulas.

    Parameters
    ----------
    inputs : Compositions, pandas Series, numpy array or iterable
        Of formulas (str), pymatgen ``Composition`` or ``Structure`` objects, `Crystal` objects, or mappings from symbol
        to amount. The index of a Series gives the labels. `Compositions` are returned as they are. A table or array
        of one column is taken as that column.
    on_error : {"raise", "skip"}
        What to do with rows that cannot be read.
    amounts : {"atoms", "weight"}, default="atoms"
        What the amounts of texts and mappings count; with "weight" they are percent by weight (``Ti-6Al-4V``). Objects
        of pymatgen and crystals always count atoms.

    Returns
    -------
    Compositions
        With "skip", the rows left out are listed in its ``skipped``.

    Raises
    ------
    CompositionError
        At the first row that cannot be read, with the number of further ones.
    TypeError
        If `inputs` is one formula instead of a column.
    ValueError
        If `on_error` or `amounts` is not one of its values.

    Notes
    -----
    Cost: about 5 µs per formula. Oxidation states are dropped; deuterium and tritium count as hydrogen in structures
    and are refused in formulas.

    Examples
    --------
    >>> parse_compositions(["NaCl", "Ca(OH)2"]).amounts
    array([1., 1., 1., 2., 2.])
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is {on_error!r}; choose 'raise' or 'skip'")
    meaning = checked_meaning(amounts)
    if isinstance(inputs, Compositions):
        return inputs
    values, labels = column_of(inputs)
    text: list[str] = []
    numbers: list[int] = []
    counts: list[float] = []
    offsets: list[int] = [0]
    rows: list[int] = []
    skipped: list[SkippedRow] = []
    noted: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        try:
            content, note = read_text(value, meaning) if isinstance(value, str) else _read_object(value, meaning)
        except Exception as error:  # one bad value must not end a run
            label = row if labels is None else labels[row]
            skipped.append(SkippedRow(row, label, shown(value), _reason(error)))
            continue
        if note:
            noted.setdefault(note, []).append(len(rows))
        numbers.extend(content)
        counts.extend(content.values())
        offsets.append(len(numbers))
        rows.append(row)
        text.append(str(value) if isinstance(value, str) else format_formula(list(content), list(content.values())))
    if skipped and on_error == "raise":
        raise CompositionError(_table_message(skipped), tuple(skipped))
    table = Compositions(
        text=tuple(text),
        numbers=_frozen(np.array(numbers, dtype=np.int16)),
        amounts=_frozen(np.array(counts, dtype=np.float64)),
        offsets=_frozen(np.array(offsets, dtype=np.int64)),
        rows=_frozen(np.array(rows, dtype=np.int64)),
        skipped=tuple(skipped),
        n_input=len(values),
    )
    if not noted:
        return table
    notes = (
        ReadingNote(reading, len(which), table.text[which[0]], reduced_formula(*table[which[0]]))
        for reading, which in noted.items()
    )
    return replace(table, notes=tuple(notes))


def _reason(error: Exception) -> str:
    if isinstance(error, RefusalError):
        return str(error)
    return f"reading it failed with {type(error).__name__}: correct the value or leave the row out"


def _table_message(skipped: list[SkippedRow]) -> str:
    first = skipped[0]
    label = "" if type(first.label) is int and first.label == first.row else f" (label {first.label!r})"
    message = f"row {first.row}{label}: {first.value} cannot be read: {first.reason}"
    others = [str(s.row) for s in skipped[1:]]
    if others:
        listed = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        count = f"{len(others)} further row{'s' if len(others) > 1 else ''}"
        message += f"\n{count} cannot be read either ({listed})."
    return message + "\nCorrect the table, or pass on_error='skip' to leave such rows out; they are then listed."


def _is_pymatgen(value: Any) -> bool:
    return any(base.__module__.startswith("pymatgen.") for base in type(value).__mro__)


def _is_crystal(value: Any) -> bool:
    return hasattr(value, "numbers") and hasattr(value, "frac_coords")


def _read_object(value: Any, meaning: Amounts) -> tuple[dict[int, float], str]:
    """Read what is no text; amounts by weight come as mappings alone."""
    if isinstance(value, Mapping) and not _is_pymatgen(value):
        content = checked_amounts([(_symbol_number(key), _number(amount, key)) for key, amount in value.items()])
        return atoms_of_weights(content) if meaning == "weight" else (content, "")
    return _read_atoms(value), ""


def _read_atoms(value: Any) -> dict[int, float]:
    if _is_pymatgen(value):
        return _read_pymatgen(value)
    if _is_crystal(value):
        elements, counts = np.unique(value.numbers, return_counts=True)
        return dict(zip(elements.tolist(), counts.astype(np.float64).tolist(), strict=True))
    if value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value):
        raise RefusalError(missing_message())
    if isinstance(value, int | float | np.number):
        raise RefusalError("it is a number, not a formula: is this the right column?")
    if isinstance(value, bytes):
        raise RefusalError("it is bytes, not text: decode it first")
    if hasattr(value, "isoformat"):
        raise RefusalError(
            "it is a date: a spreadsheet turns formulas such as 'FeB2' into dates; format the column as text and type "
            "the formula again"
        )
    raise RefusalError(
        f"a {type(value).__name__} is no formula, Composition, Structure or mapping of symbols to amounts"
    )


def _read_pymatgen(value: Any) -> dict[int, float]:
    from pymatgen.core.composition import Composition
    from pymatgen.core.periodic_table import DummySpecies
    from pymatgen.core.structure import SiteCollection

    isotopes_count = isinstance(value, SiteCollection)  # as hydrogen
    composition = value.composition if isotopes_count else value
    if not isinstance(composition, Composition):
        raise RefusalError(f"a {type(value).__name__} has no composition: pass a formula, a Composition or a Structure")
    pairs = []
    for species, amount in composition.items():
        if isinstance(species, DummySpecies):
            raise RefusalError(f"{species} is a dummy species, not an element: replace it by a real element")
        # Of an isotope pymatgen gives the symbol H; only the name of the enumeration member tells it.
        name = getattr(species, "element", species).name
        if name in ("D", "T") and not isotopes_count:
            raise RefusalError(isotope_message(name))
        pairs.append((int(species.Z), float(amount)))
    return checked_amounts(pairs)


def _symbol_number(key: Any) -> int:
    symbol = key if isinstance(key, str) else getattr(getattr(key, "element", key), "name", None)
    if symbol in NUMBER_OF:
        return NUMBER_OF[symbol]
    if symbol in ("D", "T"):
        raise RefusalError(isotope_message(symbol))
    guess = SYMBOL_BY_LOWER_CASE.get(symbol.lower()) if isinstance(symbol, str) else None
    raise RefusalError(
        f"the key {key!r} is not an element symbol"
        + (f"; did you mean {guess!r}?" if guess else ": write 'Fe', 'O', ...")
    )


def _number(amount: Any, key: Any) -> float:
    if isinstance(amount, str) and re.fullmatch(rf"-?{AMOUNT}", amount) is None:
        raise RefusalError(f"the amount of {key} is {shown(amount)}, which is not a number")
    try:
        return float(amount)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        raise RefusalError(f"the amount of {key} is {shown(amount)}, which is not a number") from None
