"""Read chemical formulas into element numbers and amounts, and say in a sentence why a formula cannot be read.

The parser is strict and our own. General-purpose parsers accept formulas that mean something else than the author
meant: ``FE2O3`` as a compound of fluorine and a dummy element, ``CuSO4.5H2O`` as O4.5 H2 O, ``Fe1e-9`` as nothing.
Here a formula is read in the one way a chemist would read it, or it is refused with the reason and the remedy.

What is understood
    Element symbols with whole or decimal amounts (``Fe2O3``, ``Li2.4O1H0.6Cl1``, ``Ni9.7e-05``), nested ``()``,
    ``[]`` and ``{}``, unicode subscripts, white space between groups, and addition compounds written with ``·``,
    ``*`` or ``.`` (``CuSO4·5H2O``, ``3CaO·Al2O3``).

The rule for the full stop
    1. Before a letter or a bracket it separates: ``LiOH.H2O``.
    2. Before ``<number>H2O`` that ends the formula it separates as well, if every amount before it is whole and not
       zero: ``CuSO4.5H2O``, ``CaSO4.0.5H2O``. If an amount before it is a decimal, both readings are possible and
       the formula is refused (``Na0.5CoO2.5H2O``). ``H2O1`` at the end, or a zero after the point
       (``O4.05H2O``), makes it a decimal point.
    3. Everywhere else it is a decimal point, but if it is the only one and elements before it appear again
       after it (``Al2O3.2SiO2``) the formula is refused as ambiguous.

A formula may be legal and still not what was meant: ``CO`` and ``Co``, or ``SIO2`` for ``SiO2``, cannot be told apart.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scotl_matgl.chemistry.elements import NUMBER_OF, SYMBOL_BY_LOWER_CASE, SYMBOLS

# Below this an amount is noise of a calculation and not a constituent; the smallest real dopings are around 1e-6.
_SMALLEST_AMOUNT = 1e-8


_AMOUNT = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:e[+-]?[0-9]+)?"


_PLAIN = re.compile(rf"(?:[A-Z][a-z]?(?:{_AMOUNT})?)+")


_PAIR = re.compile(rf"([A-Z][a-z]?)({_AMOUNT})?")


_TOKEN = re.compile(rf"(?P<symbol>[A-Z][a-z]?)|(?P<number>{_AMOUNT})|(?P<open>[(\[{{])|(?P<close>[)\]}}])|(?P<sep>·)")


_LONE_SEPARATOR = "a separator ('·', '*' or '.') has nothing on one side: remove it or complete the formula"


_CLOSING = {"(": ")", "[": "]", "{": "}"}


# A dot, a coefficient without a leading zero (or 0.5 and the like), and water, at the very end.
_WATER = re.compile(r"\.(?P<n>(?:0\.|[1-9][0-9]*\.?)[0-9]*)(?P<w>H2O|\(H2O\)|\[H2O\]|\{H2O\})$")


# Oxygen in double figures and water behind it: 'CuSO4·5H2O' after a passage through a narrow character set.
_LOST_DOT = re.compile(r"O(?P<n>[1-9][0-9]+)(?P<w>H2O|\(H2O\))$")


_SINGLE_DOT = re.compile(r"(?P<head>[^.]*[1-9][0-9]*)\.(?P<tail>[1-9][0-9]*[A-Z(\[{][^.]*)")


_SEPARATORS = "·•∙⋅・‧*"


_TRANSLATION = {
    **{ord(sub): str(digit) for digit, sub in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    **dict.fromkeys(map(ord, _SEPARATORS), "·"),
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"), ""),
    **dict.fromkeys(map(ord, "−–‐‑"), "-"),
    **dict(zip(map(ord, "₊₋ₓ"), "+-x", strict=True)),
}


_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]")


_PLACEHOLDERS = frozenset({*"AEGJLMQRXZ", "Ae", "An", "Lm", "Ln", "Ma", "Me", "Tr", "Va", "Vac", "Vc", "Xa", "Xx"})


_MISSING = frozenset({"", "nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat", "-", "--", "?"})


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


class RefusalError(Exception):
    """Reason, as a sentence with its remedy, for which one value is refused."""


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
    text = "".join(SYMBOLS[z - 1] + _format_amount(amount) for z, amount in pairs)
    if "." in text and text.endswith("H2O"):
        return text + "1"  # 'Cl2.6H2O' would be read as a hydrate
    return "Na1N1" if text == "NaN" else text


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


def parse_formula(text: str) -> dict[str, float]:
    """Read one formula.

    Parameters
    ----------
    text : str
        The formula; see the module for what is understood.

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
        return {SYMBOLS[z - 1]: amount for z, amount in read_text(text).items()}
    except RefusalError as refusal:
        raise CompositionError(f"{text!r} cannot be read: {refusal}") from None


def shown(value: Any) -> str:
    """Return a value as an error shows it: its ``repr``, at most 120 characters."""
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def checked_amounts(pairs: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Add up the amounts of each element; refuse what is not a positive amount."""
    content: dict[int, float] = {}
    for z, amount in pairs:
        if not amount > _SMALLEST_AMOUNT or amount == math.inf:
            raise RefusalError(_amount_message(SYMBOLS[z - 1], amount))
        content[z] = content.get(z, 0.0) + amount
    if not content:
        raise RefusalError("it holds no element: leave the row out or write its formula")
    if len(content) > 1:
        total = math.fsum(content.values())
        for z, amount in content.items():
            if not amount > _SMALLEST_AMOUNT * total:
                raise RefusalError(_amount_message(SYMBOLS[z - 1], amount))
    return content


def _amount_message(symbol: str, amount: float) -> str:
    if amount == 0:
        return f"the amount of {symbol} is zero: leave {symbol} out"
    if amount < 0:
        return f"the amount of {symbol} is {amount:g}: amounts are positive"
    if not math.isfinite(amount):
        return f"the amount of {symbol} is {amount:g}: write a number"
    return f"the amount of {symbol}, {amount:g}, vanishes beside the rest: leave {symbol} out or correct the amount"


def missing_message() -> str:
    """Reason for which an empty value is refused."""
    return "the formula is missing: fill it in or leave the row out"


def isotope_message(symbol: str) -> str:
    """Reason for which deuterium and tritium are refused in formulas."""
    name = "deuterium" if symbol == "D" else "tritium"
    return f"{symbol} is {name}, and isotopes are not told apart here: write H if hydrogen will do"


def read_text(text: str) -> dict[int, float]:
    """Amounts by atomic number, in order of first appearance."""
    plain = text if text.isascii() and text.isalnum() else _normalised(text)
    if plain.lower() in _MISSING and plain not in ("Na", "NaN"):
        raise RefusalError(missing_message() + ("; for sodium write 'Na'" if plain.lower() == "na" else ""))
    if plain == "NaN":
        raise RefusalError(
            "'NaN' marks a missing value: leave the row out. If sodium nitride is meant, write 'Na1N1', and read the "
            "table with pandas.read_csv(..., keep_default_na=False)"
        )
    # Most formulas have neither brackets nor separators: one match, one pass.
    if _PLAIN.fullmatch(plain) and not _is_doubtful(plain):
        try:
            pairs = [(NUMBER_OF[s], float(n) if n else 1.0) for s, n in _PAIR.findall(plain)]
        except KeyError:
            raise RefusalError(_explain(plain, "")) from None
        return checked_amounts(pairs)
    try:
        return checked_amounts(_read_groups(_resolve_dots(plain)))
    except _GrammarError as error:
        raise RefusalError(_explain(plain, str(error))) from None


class _GrammarError(Exception):
    """What stopped the strict reader; `_explain` finds the likeliest cause behind it."""


def _normalised(text: str) -> str:
    """Subscripts as digits, separators as ``·``, no white space; refuse white space that carries meaning."""
    if _SUPERSCRIPTS.search(text):
        raise RefusalError(_charge_message())
    text = text.translate(_TRANSLATION).strip()
    if not any(c.isspace() for c in text):
        return text
    if re.search(r"[A-Z]\s+[a-z]", text) and not re.search(r"\b[a-z]{2,}", text):
        raise RefusalError("white space splits an element symbol: write the symbol in one piece")
    if re.search(r"[0-9.]\s+[0-9.]|[A-Za-z)\]}]\s+[0-9.]+[A-Z(\[{]", text):
        raise RefusalError(
            "white space stands before a number, which may count what is before or after it: write 'Fe2O3' without "
            "spaces, or '·' before added molecules, as in 'CuSO4·5H2O'"
        )
    return re.sub(r"\s+", "", text)


def _is_doubtful(text: str) -> bool:
    """Whether a formula without brackets needs the rule for the full stop, or may have lost a ``·``."""
    if "." in text and (_WATER.search(text) or _SINGLE_DOT.fullmatch(text)):
        return True
    return text.endswith("H2O") and _LOST_DOT.search(text) is not None


def _resolve_dots(text: str) -> str:
    """Turn every full stop that separates into ``·``; the rule is in the module's docstring."""
    text = re.sub(r"\.(?![0-9])", "·", text)
    water = _WATER.search(text)
    if water:
        head = text[: water.start()]
        if not re.search(r"(?<![0-9.])0$", head):
            if "." in head:
                raise RefusalError(
                    f"the '.' before '{water['n']}{water['w']}' may be a decimal point or may add water: write "
                    f"'{head}·{water['n']}{water['w']}' for water, '{head}.{water['n']}H2O1' for a decimal amount"
                )
            return f"{head}·{water['n']}{water['w']}"
    lost = _LOST_DOT.search(text)
    if lost:
        oxygen, head = lost["n"], text[: lost.start()]
        raise RefusalError(
            f"'O{oxygen}' before '{lost['w']}' looks as if a '·' had been lost: "
            f"write '{head}O{oxygen[0]}·{oxygen[1:]}H2O' or '{head}O{oxygen}·H2O'"
        )
    single = _SINGLE_DOT.fullmatch(text)
    if single:
        again = {m[0] for m in _PAIR.findall(single["head"])} & {m[0] for m in _PAIR.findall(single["tail"])}
        if again:
            head, tail = single["head"], single["tail"]
            decimal = re.sub("^[0-9]+", lambda digits: digits.group() + "0", tail)
            raise RefusalError(
                f"the '.' may be a decimal point or may add '{tail}' (both sides hold {', '.join(sorted(again))}): "
                f"write '{head}·{tail}' for an addition compound, '{head}.{decimal}' for a decimal amount"
            )
    return text


def _read_groups(text: str) -> list[tuple[int, float]]:
    """Read symbols, amounts, brackets and separators in one pass with a stack of open brackets."""
    whole: list[tuple[int, float]] = []
    coefficient = 1.0
    stack: list[tuple[str, list[tuple[int, float]]]] = []
    here: list[tuple[int, float]] = []  # the group that is open now
    last: list[tuple[int, float]] | None = None  # what a following amount multiplies
    position, start = 0, True
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise _GrammarError(f"the character {_name(text[position])} has no place in a formula")
        position = token.end()
        kind, value = token.lastgroup, token.group()
        if kind == "number" and start and not stack:
            if not whole and "·" not in text:
                raise _GrammarError("leading coefficient")
            coefficient = float(value)
            if not (_SMALLEST_AMOUNT < coefficient < math.inf):
                raise RefusalError(f"the coefficient {value} is not a positive amount: leave that part out")
            start = False
            continue
        start = False
        if kind == "number":
            if last is None:
                raise _GrammarError(f"the amount {value} follows nothing that it could count")
            factor = float(value)
            here.extend((z, amount * factor) for z, amount in last)
            last = None
            continue
        if last is not None:
            here.extend(last)
            last = None
        if kind == "symbol":
            number = NUMBER_OF.get(value)
            if number is None:
                raise _GrammarError("symbol")
            last = [(number, 1.0)]
        elif kind == "open":
            stack.append((value, here))
            here = []
        elif kind == "close":
            if not stack or _CLOSING[stack[-1][0]] != value:
                raise RefusalError(f"the '{value}' closes no bracket of its kind: every bracket needs its partner")
            if not here:
                raise RefusalError("a pair of brackets is empty: remove it or fill it")
            last, here = here, stack.pop()[1]
        else:
            if stack:
                raise RefusalError(f"'{value}' stands inside brackets: close them before it")
            if not here:
                raise RefusalError(_LONE_SEPARATOR)
            whole.extend((z, amount * coefficient) for z, amount in here)
            here, coefficient, start = [], 1.0, True
    if last is not None:
        here.extend(last)
    if stack:
        raise RefusalError(f"the '{stack[-1][0]}' is never closed: every bracket needs its partner")
    if not here:
        raise RefusalError(_LONE_SEPARATOR)
    whole.extend((z, amount * coefficient) for z, amount in here)
    return whole


def _name(character: str) -> str:
    return f"{character!r}" if character.isascii() else f"{character!r} ({unicodedata.name(character, 'unnamed')})"


def _charge_message() -> str:
    return "it carries a charge: write the neutral formula without '+', '-' or '^' (SO4, not SO4^2-)"


def _explain(text: str, found: str) -> str:
    """Likeliest reason for which `text` is not a formula, with the remedy."""
    if re.fullmatch(r"[+-]?[0-9.,]+(?:e[+-]?[0-9]+)?%?", text):
        return "it is a number, not a formula: is this the right column?"
    variable = _variable_amount(text)
    if variable:
        return f"'{variable}' is a variable amount: write the number, as in 'Li1.05Mn1.95O4'"
    if re.search(r"(?<![0-9.])-\.?[0-9]+(?:\.[0-9]+)?[A-Z(\[{]", text):
        return "an amount is negative: amounts are positive; if the '-' joins two parts, write one formula with amounts"
    if re.search(r"[0-9][+-]\.?[0-9]+(?:\.[0-9]+)?(?:[A-Z(\[{]|$)", text) and not re.search(r"[0-9][+-][0-9]$", text):
        return "an amount is written as a sum or difference: write the result, 'Li0.8' instead of 'Li1-0.2'"
    if "^" in text or "+" in text or re.search(r"-[0-9]*(?:$|[)\]}])", text):
        return _charge_message()
    if found == "leading coefficient":
        rest = re.sub(rf"^{_AMOUNT}", "", text)
        return f"it starts with a coefficient: write the formula of one unit, '{rest}'"
    suggestion = _suggestion(text)
    hint = f"; did you mean '{suggestion}'?" if suggestion else ""
    for symbol in re.findall(r"[A-Z][a-z]*|[a-z]+", text):
        if symbol in NUMBER_OF or (symbol[:2] in NUMBER_OF and len(symbol) == 3 and not hint):
            continue
        if symbol in ("D", "T"):
            return isotope_message(symbol) + (f". Or did you mean '{suggestion}'?" if hint else "")
        if hint and symbol != "Vac":
            return f"'{symbol}' is not an element symbol" + hint
        if symbol in _PLACEHOLDERS or symbol.startswith("Xx"):
            return f"'{symbol}' is a placeholder, not an element: write one row for each real element"
        if len(symbol) > 3:
            return f"'{symbol}' looks like a word: remove names of compounds and phases, and write the formula"
        return f"'{symbol}' is not an element symbol: correct it or leave the row out"
    if "-" in text:
        return "a '-' joins parts of it: write one formula with the amount of each element, 'Fe0.7Ni0.3'" + hint
    return (found or "it does not follow the grammar of formulas") + (hint or ": write it as 'Fe2O3' or 'CuSO4·5H2O'")


def _variable_amount(text: str) -> str:
    """First amount that holds a letter, such as ``1+x`` or the ``x`` of ``LixCoO2``."""
    match = re.search(r"[0-9.]*[+\-±][0-9.]*[a-zα-ω](?![a-z])|(?<=[)\]}·0-9])[m-nu-z](?![a-z])|[α-ω]", text)
    if match and not text.islower():
        return match.group()
    for symbol in re.findall(r"[A-Z][a-z]+", text):
        if symbol not in NUMBER_OF and symbol[:-1] in NUMBER_OF and symbol[-1] in "uvwxyz":
            return str(symbol[-1])
    return ""


def _suggestion(text: str) -> str:
    """Formula that the author probably meant: mark-up removed, capitals put right; empty if there is none."""
    bare = re.sub(r"</?su[bp]>|[_$~]|\{(?=[0-9.]+\})|(?<=[0-9])\}", "", text)
    for candidate in (bare, re.sub(r"[A-Za-z]+", lambda run: _recapitalised(run.group()), bare)):
        if candidate == text:
            continue
        try:
            checked_amounts(_read_groups(_resolve_dots(candidate)))
        except (_GrammarError, RefusalError):
            continue
        return candidate
    return ""


def _recapitalised(run: str) -> str:
    """Split a run of letters into the fewest symbols, keeping the author's capitals where there is a choice."""
    best: list[tuple[int, int, str] | None] = [(0, 0, "")] + [None] * len(run)
    for end in range(1, len(run) + 1):
        for length in (1, 2):
            before = best[end - length] if end >= length else None
            symbol = SYMBOL_BY_LOWER_CASE.get(run[end - length : end].lower())
            if before is None or symbol is None:
                continue
            changed = sum(a != b for a, b in zip(symbol, run[end - length : end], strict=True))
            option = (before[0] + 1, before[1] + changed, before[2] + symbol)
            current = best[end]
            if current is None or option[:2] < current[:2]:
                best[end] = option
    found = best[-1]
    return run if found is None else found[2]
