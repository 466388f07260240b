"""Cells of a column of measurements: numbers as people write them, read strictly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.tables.strange_cells import marks_missing, why_no_number
from scotl_matgl.vocabulary import Floats

#: Longer cells are no measurements; reading them would cost time and memory for nothing.
MAX_CELL = 200

_TRANSLATION = {
    **dict.fromkeys(map(ord, "−–‐‑‒﹣－"), "-"),
    **dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f\t"), " "),
    **dict.fromkeys(map(ord, "\u200b\u2060\ufeff"), ""),
    **dict.fromkeys(map(ord, "’ʼ‘`´"), "'"),
    ord("μ"): "µ",
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_POWER = re.compile(r"10([⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)")

_DIGITS = (
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]{1,3}(?:[' ][0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
)
_EXPONENT = r"(?:[eEdD][+-]?[0-9]{1,4}|\s*[x×*·]\s*10\s*(?:\^|\*\*)?\s*\(?[+-]?[0-9]{1,4}\)?)"
_NUMBER = rf"[+-]?\s?{_DIGITS}{_EXPONENT}?"
_UNIT = r"(?:[A-Za-zµΩ°Å%‰$€][^\s,;=<>~±#†‡§¶\[][^,;=<>~±#†‡§¶\[]*|[A-Za-zµΩ°Å%‰$€])"
_CELL = re.compile(
    rf"(?P<open>\()?\s*(?P<about>~|≈|∼|ca\.?\s|c\.\s|about\s)?\s*(?P<sign>[+-]?)\s?(?P<digits>{_DIGITS})"
    rf"(?:\((?P<last>[0-9]{{1,6}})\))?(?P<exponent>{_EXPONENT})?"
    rf"(?:\s*(?:±|\+/-|\+-)\s*(?P<error>{_DIGITS}{_EXPONENT}?))?\s*(?P<close>\))?(?P<power>{_EXPONENT})?"
    rf"\s*(?P<unit>{_UNIT})?"
)
# Footnotes, references and remarks behind a number: marks, what stands in square brackets, words in round ones.
_BRACKETED_ERROR = re.compile(r"\s*[(\[]\s*(?:±|\+/-|\+-)\s*([^()\[\]]+)[)\]]")
_NOTE = re.compile(r"\s*(?:[*†‡§¶#]+|\[[^\[\]]{1,40}\]|\((?=[^()]*[A-Za-z])[^()]{1,40}\)|#.*)$")
# Such as 2D, 1T and 3d: a digit and a letter that name something.
_NAME = re.compile(r"([0-9])([A-Za-z]|st|nd|rd|th)")
# Behind a number: a second one, which no unit has.
_SECOND = re.compile(r"(?:^|\s)(?:or|and|to|oder|und|bis|resp\.?|vs\.?)\s+[+-]?[0-9.]")
_LIMIT = re.compile(rf"(?:<=?|>=?|≤|≥|≪|≫|⩽|⩾)\s*{_NUMBER}\s*(?:{_UNIT})?")
_RANGE = re.compile(rf"{_NUMBER}\s*(?:-|to|\.\.\.?|…|~)\s*{_NUMBER}\s*(?:{_UNIT})?")
_PLAIN = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")
_DECIMAL_COMMA = re.compile(r"(?<![0-9,])(?:0,[0-9]+|[0-9]+,(?:[0-9]{1,2}|[0-9]{4,}))(?![0-9,])")
# A point and three digits behind it, without a comma: where commas are decimal signs it may group thousands.
_MAYBE_GROUPED = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:\.[0-9]{3})+(?![0-9.,])")
_COMMA_GROUPS = re.compile(r"[0-9],[0-9]{3}\.[0-9]|(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3}){2,}(?![0-9.,])")
_GROUPS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:\.[0-9]{3})+(?=,[0-9]+(?![0-9.,]))")


class Unreadable(str):
    """What stands in the place of a cell of a row that could not be read, with the reason as the end of a sentence."""

    __slots__ = ("reason",)
    reason: str

    def __new__(cls, text: str, reason: str) -> Unreadable:
        """Text as it stands in the file, and the reason."""
        made = super().__new__(cls, text)
        made.reason = reason
        return made

    def __reduce__(self) -> tuple[type[Unreadable], tuple[str, str]]:
        return Unreadable, (str(self), self.reason)


Kind = Literal["number", "limit", "range", "doubtful", "other", "empty"]


@dataclass(frozen=True)
class Signs:
    """What commas and points are in the numbers of a column.

    Attributes
    ----------
    comma : bool
        Whether a comma is the decimal sign; otherwise it may only group thousands.
    points_group : bool
        Whether points without a comma behind them group thousands, as those of ``1.234,5`` in the same column do.
    """

    comma: bool = False
    points_group: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell that was read.

    Attributes
    ----------
    kind : {"number", "limit", "range", "doubtful", "other", "empty"}
        What it is; a doubtful one is a number that can be read in two ways.
    value, uncertainty : float
        NaN where there is none.
    unit : str
        What stands behind the number.
    about : bool
        Whether it is marked as approximate.
    plain : bool
        Whether nothing stands around the number.
    noted : bool
        Whether a mark, a reference or a remark stands behind it.
    """

    kind: Kind
    value: float = float("nan")
    uncertainty: float = float("nan")
    unit: str = ""
    about: bool = False
    plain: bool = False
    noted: bool = False


def read_cell(value: Any, signs: Signs = Signs()) -> Cell:
    """Read one cell.

    Parameters
    ----------
    value : object
        Number or text.
    signs : Signs, optional
        What commas and points are in its column. Default: points are decimal signs.

    Examples
    --------
    >>> read_cell("1.2 ± 0.1 eV")
    Cell(kind='number', value=1.2, uncertainty=0.1, unit='eV', about=False, plain=False, noted=False)
    >>> read_cell("<0.1").kind, read_cell("0.1-1.1").kind, read_cell("metal").kind
    ('limit', 'range', 'other')
    """
    if not isinstance(value, str):
        if value is None or (isinstance(value, float) and value != value):
            return Cell("empty")
        numeric = isinstance(value, int | float | np.number | Decimal) and not isinstance(value, bool | np.bool_)
        return Cell("number", _float(value), plain=True) if numeric else Cell("other")
    if len(value) > MAX_CELL or isinstance(value, Unreadable):
        return Cell("other")
    if _PLAIN.fullmatch(value) and not (signs.comma and _MAYBE_GROUPED.search(value)):
        return Cell("number", float(value), plain=True)
    text = value.translate(_TRANSLATION).strip()
    if not text:
        return Cell("empty")
    text = _POWER.sub(lambda match: "10^" + match[1].translate(_SUPERSCRIPTS), text)
    if signs.comma:
        text = _ungrouped(text)
        if signs.points_group:
            text = _MAYBE_GROUPED.sub(lambda match: match[0].replace(".", ""), text[:MAX_CELL])
        if _MAYBE_GROUPED.search(text):
            return Cell("doubtful")
        text = text.replace(",", ".")
    elif _DECIMAL_COMMA.fullmatch(text.lstrip("+-")):
        return Cell("doubtful")
    # A spreadsheet marks text by an apostrophe, which some exports keep.
    found = _read_text(text[1:] if re.match(r"'[+-]?[0-9.]", text) else text)
    if found.kind == "other" and re.match(r"[+-]?[0-9.]", text):
        bare = text
        while (shorter := _NOTE.sub("", bare)) != bare:
            bare = shorter
        if bare != text and (again := _read_text(bare)).kind == "number":
            return replace(again, plain=False, noted=True)
    return found


def are_names(values: Sequence[Any]) -> bool:
    """Whether a column names kinds by a digit and a letter, such as 2D and 3D, or 2H and 1T, instead of measuring."""
    cells = [value.strip() for value in values if isinstance(value, str) and value.strip()]
    found = [_NAME.fullmatch(cell) for cell in cells]
    letters = {match[2] for match in found if match is not None}
    # One letter alone is a unit (5K), but for the D of dimensions.
    return bool(cells) and None not in found and (len(letters) > 1 or letters == {"D"})


def _read_text(text: str) -> Cell:
    text = _BRACKETED_ERROR.sub(r" ±\1", text)
    if _LIMIT.fullmatch(text):
        return Cell("limit")
    if _RANGE.fullmatch(text):
        return Cell("range")
    found = _CELL.fullmatch(text)
    if found is None or bool(found["open"]) != bool(found["close"]) or (found["power"] and not found["open"]):
        return Cell("other")
    if found["open"] and not (found["power"] or found["error"]):
        return Cell("doubtful")  # negative, as in accounts, or uncertain
    digits = _bare(found["digits"])
    power = _power(found["exponent"]) + _power(found["power"])
    uncertainty = float("nan")
    if found["last"]:
        uncertainty = float(f"{found['last']}e{power - len(digits.partition('.')[2])}")
    elif found["error"]:
        own = re.sub(rf"{_EXPONENT}$", "", found["error"])
        of_error = _power(found["error"][len(own) :])
        uncertainty = float(f"{_bare(own)}e{of_error + _power(found['power'])}")
        # In "1.2±0.1x10^3" the power is of both.
        power += of_error if "10" in found["error"][len(own) :] and not found["exponent"] else 0
    value = float(f"{found['sign']}{digits}e{power}")
    unit = (found["unit"] or "").strip()
    if _SECOND.search(unit):
        return Cell("other")
    plain = not (unit or found["about"] or found["last"] or found["error"])
    return Cell("number", value, uncertainty, unit, bool(found["about"]), plain)


def _bare(digits: str) -> str:
    """Digits without what groups them."""
    return re.sub(r"[,' ]", "", digits)


def _power(exponent: str | None) -> int:
    """Power of ten that an exponent stands for."""
    found = re.search(r"([+-]?[0-9]+)\)?$", exponent or "")
    return int(found[1]) if found else 0


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return float("inf") if value > 0 else float("-inf")


def _ungrouped(text: str) -> str:
    """Text without points that group thousands for certain: a decimal comma stands behind them (``1.234,5``)."""
    return _GROUPS.sub(lambda match: match[0].replace(".", ""), text[:MAX_CELL])


def decimal_signs(values: Sequence[Any], *, semicolons: bool = False) -> Signs:
    """What the commas and points of a column are.

    Commas are decimal signs if one cannot group thousands (between semicolons any one will do), none does for certain,
    and points group thousands for certain, or no point is a decimal sign for certain while at most ten cells have one
    for each with a comma, or more cells have a comma than a point.
    """
    read = [value for value in values if isinstance(value, str) and not isinstance(value, Unreadable)]
    given = [value for value in read if len(value) <= MAX_CELL]
    texts = [_ungrouped(value) for value in given]
    with_comma = [text for text in texts if re.search("[0-9],[0-9]", text)]
    certain = with_comma if semicolons else [text for text in with_comma if _DECIMAL_COMMA.search(text)]
    if not certain or any(map(_COMMA_GROUPS.search, with_comma)):
        return Signs()
    with_point = [text for text in texts if re.search(r"[0-9]\.[0-9]", text)]
    sure = [text for text in with_point if not _MAYBE_GROUPED.search(text)]
    if not sure and texts != given:
        return Signs(comma=True, points_group=bool(with_point))
    doubtful = not sure and len(with_point) <= 10 * len(certain)
    return Signs(comma=doubtful or len(with_comma) > len(with_point))


def points_may_group(values: Sequence[Any], *, alone: bool) -> bool:
    """Whether the points of a column may group thousands: each stands before three digits, as in ``1.234``.

    Unless they may stand `alone`, there must be whole numbers below a thousand too, which have no point then.
    """
    texts = [value.strip() for value in values if isinstance(value, str) and not isinstance(value, Unreadable)]
    pointed = [text for text in texts if "." in text]
    whole = [text for text in texts if re.fullmatch("[+-]?[0-9]{1,3}", text)]
    may = bool(pointed) and all(re.fullmatch(rf"[+-]?{_MAYBE_GROUPED.pattern}", text) for text in pointed)
    return may and (alone or bool(whole))


@dataclass(frozen=True, eq=False)
class Numbers:
    """A column read as measurements.

    Attributes
    ----------
    values, uncertainty : ndarray of shape (n,)
        NaN where there is none.
    reasons : list of str
        Why a cell has no value; empty where it has one.
    unit : str
        That of all values.
    remarks : tuple of str
        How the cells were understood.
    n_numbers, n_filled, n_dressed : int
        Cells that are numbers, limits, ranges or doubtful, cells that are neither empty nor mark a missing value, and
        numbers with something around them.
    """

    values: Floats
    uncertainty: Floats
    reasons: list[str]
    unit: str
    remarks: tuple[str, ...]
    n_numbers: int
    n_filled: int
    n_dressed: int


def read_numbers(values: NDArray[Any]) -> Numbers:
    """Read a column of measurements.

    Parameters
    ----------
    values : ndarray of shape (n,), object
        Cells, as they stand in the table. Units are read where they are the same in most cells; others are refused.
    """
    column = values.tolist()
    signs = decimal_signs(column)
    cells = [read_cell(value, signs) for value in column]
    numbers = [cell for cell in cells if cell.kind == "number"]
    units = Counter(cell.unit for cell in numbers)
    unit = units.most_common(1)[0][0] if units else ""
    reasons = [
        value.reason if isinstance(value, Unreadable) else _reason(value, cell, unit, signs)
        for value, cell in zip(column, cells, strict=True)
    ]
    good = np.array([not reason for reason in reasons], dtype=bool)
    found = np.array([cell.value for cell in cells], dtype=np.float64)
    uncertainty = np.array([cell.uncertainty for cell in cells], dtype=np.float64)
    found[~good], uncertainty[~good] = np.nan, np.nan
    remarks = []
    if unit:
        remarks.append(f"The numbers of the target are in {unit}.")
    if signs.comma:
        grouped = ", and points as separators of thousands" if signs.points_group else ""
        remarks.append(f"Commas in the target were read as decimal signs{grouped}.")
    elif any(isinstance(value, str) and "," in value and ok for value, ok in zip(column, good.tolist(), strict=True)):
        remarks.append("Commas in the target were read as separators of thousands.")
    elif points_may_group(column, alone=True):
        remarks.append(
            "Every point of the target stands before three digits and was read as a decimal sign: if points group "
            "thousands, write the numbers without them."
        )
    about = sum(cell.about for cell, ok in zip(cells, good.tolist(), strict=True) if ok)
    if about:
        remarks.append(f"{about} values of the target are marked as approximate and were read as they stand.")
    noted = [value for value, cell, ok in zip(column, cells, good.tolist(), strict=True) if ok and cell.noted]
    if noted:
        remarks.append(
            f"{len(noted)} values of the target have a mark or a remark behind them, such as {noted[0]!r}, "
            "and were read as they stand."
        )
    known = int(np.isfinite(uncertainty).sum())
    if known:
        remarks.append(f"{known} values of the target have an uncertainty, which is not used in learning.")
    return Numbers(
        found,
        uncertainty,
        reasons,
        unit,
        tuple(remarks),
        n_numbers=sum(cell.kind in ("number", "limit", "range", "doubtful") for cell in cells),
        n_filled=sum(
            cell.kind != "empty" and not marks_missing(value) for value, cell in zip(column, cells, strict=True)
        ),
        n_dressed=sum(
            cell.kind in ("limit", "range", "doubtful") or (cell.kind == "number" and not cell.plain) for cell in cells
        ),
    )


def _reason(value: Any, cell: Cell, unit: str, signs: Signs) -> str:
    """Why a cell has no value; empty where it has one."""
    if cell.kind == "limit":
        return "is a limit and no value"
    if cell.kind == "range":
        return "is a range and no value"
    if cell.kind != "number" or not np.isfinite(cell.value):
        return why_no_number(value, decimal_comma=signs.comma)
    if cell.unit == unit:
        return ""
    if why := why_no_number(value, decimal_comma=signs.comma, otherwise=""):  # 0x1F, of which x1F is no unit
        return why
    if not cell.unit:
        return f"has no unit where most have {unit}"
    if not unit and cell.unit in tuple("abcdefgh"):
        return f"has the letter {cell.unit} behind it, the mark of a footnote or a unit: leave it out if it is no unit"
    return f"has the unit {cell.unit} where most have {unit or 'none'}: convert it, or leave it out"
