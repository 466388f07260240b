"""Read chemical formulas into element numbers and amounts, and say in a sentence why a formula cannot be read.

The parser is strict and our own. General-purpose parsers accept formulas that mean something else than the author
meant: ``FE2O3`` as a compound of fluorine and a dummy element, ``CuSO4.5H2O`` as O4.5 H2 O, ``Fe1e-9`` as nothing.
Here a formula is read in the one way a chemist would read it, or it is refused with the reason and the remedy.

docs/formulas.md lists with examples what is read and what is refused. In short:

What is understood
    Element symbols with whole or decimal amounts (``Fe2O3``, ``Li2.4O1H0.6Cl1``, ``Ni9.7e-05``), fractions
    (``Mg1/3``), nested ``()``, ``[]`` and ``{}``, unicode subscripts, decimal commas, white space between groups, and
    addition compounds written with ``·``, ``×``, ``*`` or ``.`` (``CuSO4·5H2O``, ``3CaO·Al2O3``). Brackets of alloys
    may be shares (`grammar`). An element with the amount zero is absent.

The rule for the full stop
    1. Before a letter or a bracket it separates: ``LiOH.H2O``.
    2. Before ``<number>H2O`` that ends the formula it separates as well, if every amount before it is whole and not
       zero: ``CuSO4.5H2O``, ``CaSO4.0.5H2O``. If an amount before it is a decimal, both readings are possible and
       the formula is refused (``Na0.5CoO2.5H2O``). ``H2O1`` at the end, or a zero after the point
       (``O4.05H2O``), makes it a decimal point.
    3. Everywhere else it is a decimal point, but if it is the only one and elements before it appear again
       after it (``Al2O3.2SiO2``) the formula is refused as ambiguous.

A formula may be legal and still not what was meant: ``CO`` and ``Co``, or ``SIO2`` for ``SiO2``, cannot be told apart.
What makes no sense as it stands (``NaCI``, ``CO3O4``, ``Cu(OAc)2``) is refused, see `mistaken`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from scotl_matgl.chemistry.elements import ATOMIC_WEIGHTS, NUMBER_OF, SYMBOLS
from scotl_matgl.chemistry.grammar import (
    AMOUNT,
    PAIR,
    GrammarError,
    add_up,
    is_doubtful,
    read_groups,
    read_simple,
    resolve_dots,
)
from scotl_matgl.chemistry.mistaken import SUSPECTS, check_meaning, refuse_steels
from scotl_matgl.chemistry.reasons import explain, refuse_amounts, refuse_zeros
from scotl_matgl.chemistry.refusals import RefusalError, missing_message
from scotl_matgl.chemistry.spelling import (
    GLUED_WEIGHTS,
    MAX_LENGTH,
    MISSING,
    SHORT_NAMES,
    WEIGHTS,
    normalised,
    refuse_bracket,
    weight_parts,
)

Amounts = Literal["atoms", "weight"]
"""What the amounts of a formula count: atoms, or percent by weight."""


SHARES = "read as shares"
WEIGHTS_READ = "read as percent by weight"


_PLAIN = re.compile(rf"(?:[A-Z][a-z]?(?:{AMOUNT})?)+")


# Letters, digits, points and brackets: nothing to rewrite.
_BRACKETS = re.compile(r"[A-Za-z0-9.()\[\]{}]+")


# The amounts of an alloy by weight add up to 100 or to 1, but for rounding.
_WEIGHT_TOLERANCE = 0.02


class CompositionError(ValueError):
    """A formula cannot be read; the message names row, label, value and remedy.

    Attributes
    ----------
    skipped : tuple of SkippedRow
        Every row that could not be read, the first of them being the one in the message; empty when a single formula
        was parsed outside a table.
    """

    def __init__(self, message: str, skipped: tuple[SkippedRow, ...] = ()) -> None:
        super().__init__(message)
        self.skipped = skipped


@dataclass(frozen=True)
class SkippedRow:
    """One row of the input that could not be read.

    Attributes
    ----------
    row : int
        Position in the input, counted from 0.
    label : Hashable
        Label of the row in a pandas index, else the position.
    value : str
        The value as it would be typed.
    reason : str
        Why it was refused and what to do.
    """

    row: int
    label: Hashable
    value: str
    reason: str


def format_formula(numbers: ArrayLike, amounts: ArrayLike) -> str:
    """Write a formula that `parse_formula` reads back to exactly the same amounts.

    Parameters
    ----------
    numbers : array_like of int, shape (k,)
        Atomic numbers, each once.
    amounts : array_like of float, shape (k,)
        Positive amounts.

    Returns
    -------
    str

    Examples
    --------
    >>> format_formula([26, 8], [2, 3])
    'Fe2O3'
    """
    pairs = zip(np.asarray(numbers).tolist(), np.asarray(amounts, dtype=np.float64).tolist(), strict=True)
    content = dict(pairs)
    text = "".join(SYMBOLS[z - 1] + _format_amount(amount) for z, amount in content.items())
    if "." in text and text.endswith("H2O"):
        return text + "1"  # 'Cl2.6H2O' would be read as a hydrate
    return _unmistakable(text, content)


def _unmistakable(text: str, content: dict[int, float]) -> str:
    """Formula in a spelling that is not taken for a name or a designation."""
    if text in SHORT_NAMES and text[-1].isalpha():
        return "".join(f"{SYMBOLS[z - 1]}{_format_amount(amount) or 1}" for z, amount in content.items())
    try:
        if text in SHORT_NAMES:
            raise RefusalError(SHORT_NAMES[text])
        refuse_amounts(text, content)
        check_meaning(text, content)
        refuse_steels(text)
    except RefusalError:
        return "".join(f"{SYMBOLS[z - 1]}{amount!r}" for z, amount in content.items())
    return text


def _format_amount(amount: float) -> str:
    if amount == 1.0:
        return ""
    return str(int(amount)) if amount == int(amount) and amount < 1e15 else repr(amount)


def reduced_formula(numbers: ArrayLike, amounts: ArrayLike) -> str:
    """Write a formula for display: whole amounts without their common divisor, others to four digits.

    Parameters
    ----------
    numbers : array_like of int, shape (k,)
        Atomic numbers, each once.
    amounts : array_like of float, shape (k,)
        Positive amounts.

    Returns
    -------
    str

    Examples
    --------
    >>> reduced_formula([26, 8], [4, 6])
    'Fe2O3'
    """
    values = np.asarray(amounts, dtype=np.float64)
    whole = np.rint(values)
    if np.all(np.abs(values - whole) < 1e-6) and np.all(whole >= 1):
        return format_formula(numbers, whole / math.gcd(*whole.astype(np.int64).tolist()))
    return "".join(
        SYMBOLS[z - 1] + ("" if text == "1" else text)
        for z, text in zip(np.asarray(numbers).tolist(), (f"{v:.4g}" for v in values.tolist()), strict=True)
    )


def parse_formula(text: str, *, amounts: Amounts = "atoms") -> dict[str, float]:
    """Read one formula.

    Parameters
    ----------
    text : str
        The formula; see the module for what is understood.
    amounts : {"atoms", "weight"}, default="atoms"
        What the amounts count. With "weight" they are percent by weight, also in the notation ``Ti-6Al-4V``, and
        the amounts returned are percent of atoms.

    Returns
    -------
    dict of str to float
        Amount of each element, in order of first appearance.

    Raises
    ------
    CompositionError
        With the reason and the remedy.

    Examples
    --------
    >>> parse_formula("CuSO4·5H2O")
    {'Cu': 1.0, 'S': 1.0, 'O': 9.0, 'H': 10.0}
    >>> parse_formula("NACL")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    scotl_matgl.chemistry.formulas.CompositionError: 'NACL' cannot be read: 'A' is not an element symbol; did you ...
    """
    try:
        return {SYMBOLS[z - 1]: amount for z, amount in read_text(text, checked_meaning(amounts))[0].items()}
    except RefusalError as refusal:
        raise CompositionError(f"{shown(text)} cannot be read: {refusal}") from None


def checked_meaning(amounts: str) -> Amounts:
    """Return what amounts count; raise if it is not known."""
    if amounts == "atoms":
        return "atoms"
    if amounts == "weight":
        return "weight"
    raise ValueError(f"amounts is {amounts!r}; choose 'atoms' or 'weight'")


def shown(value: Any) -> str:
    """Return a value as an error shows it: its ``repr``, at most 120 characters."""
    if isinstance(value, str):
        text = repr(str(value[:200]))
    else:
        try:
            text = repr(value)
        except Exception:  # an int of 5,000 digits, or an object that cannot show itself
            text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 120 else text[:117] + "..."


def checked_amounts(pairs: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Add up the amounts of each element, leave out zeros, and refuse what is not a positive amount."""
    return add_up(pairs)


def read_text(text: str, amounts: Amounts = "atoms") -> tuple[dict[int, float], str]:
    """Read one formula.

    Parameters
    ----------
    text : str
        The formula.
    amounts : {"atoms", "weight"}, default="atoms"
        What its amounts count.

    Returns
    -------
    content : dict of int to float
        Amounts of atoms by atomic number, in order of first appearance.
    note : str
        `SHARES` where brackets were read as shares, what `check_meaning` says of two readings, else empty.

    Raises
    ------
    RefusalError
        With the reason and the remedy.
    """
    if amounts == "weight":
        return _read_weights(text)
    # Most formulas have neither brackets nor separators: one match, one pass.
    if (
        _PLAIN.fullmatch(text)
        and text not in SHORT_NAMES
        and not (("." in text or "H2O" in text) and is_doubtful(text))
    ):
        read = _read_plain(text)
        if read is not None:
            return read
    return _read_any(text)


def _read_plain(text: str) -> tuple[dict[int, float], str] | None:
    """Read symbols and amounts, and the note on them; None where a symbol is not known or the text is too long."""
    found = PAIR.findall(text)
    if len(text) > MAX_LENGTH:
        return None
    try:
        content = {NUMBER_OF[s]: float(n) if n else 1.0 for s, n in found}
        amounts = content.values()
        if len(content) < len(found) or not min(amounts) > 1e-8 * max(1.0, sum(amounts)):
            pairs = [(NUMBER_OF[s], float(n) if n else 1.0) for s, n in found]
            refuse_zeros(text, pairs)
            content = add_up(pairs)
    except KeyError:
        return None
    note = check_meaning(text, content) if "Co3" in text or not SUSPECTS.isdisjoint(content) else ""
    if max(content.values()) > 6.0:
        refuse_steels(text)
        refuse_amounts(text, content)
    return content, note


def _read_any(text: str) -> tuple[dict[int, float], str]:
    """Read a formula with brackets, separators or signs, or say why it is none."""
    if text in SHORT_NAMES:
        raise RefusalError(SHORT_NAMES[text])
    plain = text
    if not _BRACKETS.fullmatch(text) or len(text) > MAX_LENGTH:
        plain = normalised(text)
        if plain in SHORT_NAMES:
            raise RefusalError(SHORT_NAMES[plain])
    elif len(text) < 6 and text.lower() in MISSING:
        raise RefusalError(missing_message() + ("; for sodium write 'Na'" if text.lower() == "na" else ""))
    else:
        refuse_bracket(text)
    simple = read_simple(plain) if plain is text and not is_doubtful(plain) else None
    try:
        resolved = plain if simple is not None else resolve_dots(plain)
        pairs, shares = (simple, False) if simple is not None else read_groups(resolved)
    except GrammarError as error:
        if plain is text and (again := normalised(text)) != text:  # refuses phases and words by their names
            return _read_any(again)
        raise RefusalError(explain(plain, str(error))) from None
    if "0" in plain:
        refuse_zeros(plain, pairs)
        part = next((p for p in resolved.split("·")[1:] if re.fullmatch(r"[0-9./]*H20", p)), "")
        if part:
            raise RefusalError(f"'{part}' has the digit 0 for the letter O: write '{part[:-1]}O'")
    content = add_up(pairs)
    note = check_meaning(resolved, content)
    if max(content.values()) > 6.0:
        refuse_amounts(plain, content)
    return content, SHARES if shares else note


def _read_weights(text: str) -> tuple[dict[int, float], str]:
    """Read an alloy in percent by weight as amounts of atoms, in percent."""
    plain = "-".join(text.translate({0x2013: "-", 0x2212: "-"}).split()) if len(text) <= MAX_LENGTH else text
    parts = WEIGHTS.fullmatch(plain)
    if (parts is not None or GLUED_WEIGHTS.fullmatch(plain)) and not _PLAIN.fullmatch(plain):
        masses = add_up((NUMBER_OF[symbol], amount) for symbol, amount in weight_parts(plain))
    else:
        masses, _ = _read_any(text)
    return atoms_of_weights(masses)


def atoms_of_weights(masses: dict[int, float]) -> tuple[dict[int, float], str]:
    """Percent of atoms from percent by weight, and the note that says so."""
    total = math.fsum(masses.values())
    if len(masses) > 1 and min(abs(total - 100) / 100, abs(total - 1)) > _WEIGHT_TOLERANCE:
        raise RefusalError(
            f"its amounts add up to {total:.6g}, and percents by weight add up to 100 (or 1): correct them, or read "
            "the column without amounts='weight' (--amounts weight)"
        )
    atoms = {z: mass / ATOMIC_WEIGHTS[z - 1] for z, mass in masses.items()}
    scale = 100.0 / math.fsum(atoms.values())
    return {z: amount * scale for z, amount in atoms.items()}, WEIGHTS_READ
