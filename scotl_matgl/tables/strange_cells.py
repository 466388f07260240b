"""Why a cell of a column of measurements is no number, as precisely as its text tells."""

from __future__ import annotations

import re
from typing import Any

_MONTH = (
    r"(?:jan|feb|fév|mar|mär|mrz|mrt|apr|avr|may|mai|maj|mei|jun|jui|jul|aug|aoû|ago|sep|oct|okt|out|nov|dec|dez|déc|dic)"
    r"[a-zéûä]{0,6}\.?"
)
# A spreadsheet makes dates of 1.3, 1-3 and 3/1.
_DATE = re.compile(
    rf"[0-9]{{1,4}}[.\-/ ]{{1,2}}{_MONTH}(?:[.\-/ ]{{1,2}}[0-9]{{2,4}})?|{_MONTH}[.\-/ ]{{1,2}}[0-9]{{1,4}}"
    r"|[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}(?:[T ][0-9:.]+)?|[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{4}",
    re.IGNORECASE,
)
_TIME = re.compile(r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?")
_TRUTH = frozenset(
    [
        "true",
        "false",
        "yes",
        "no",
        "wahr",
        "falsch",
        "ja",
        "nein",
        "vrai",
        "faux",
        "oui",
        "non",
        "vero",
        "falso",
        "verdadero",
        "verdadeiro",
    ]
)
_FORMULA_ERRORS = frozenset(("#div/0!", "#ref!", "#name?", "#num!", "#value!", "#null!", "#n/a", "#####", "#spill!"))
MISSING_LABELS = frozenset(
    ["?", "??", "???", "-", "–", "—", "−", "--", "---", "/", "n/a", "#n/a", "na", "n.a.", "nan", "null", "n.d.",
     "n. d.", "nd", "n.r.", "unknown", "unknown?", "undetermined", "not determined", "not measured", "not available",
     "not known", "not reported", "missing", "tbd", "to be determined", "unbekannt", "inconnu", "k.a."]
)  # fmt: skip
"""How people mark class labels that they do not have, in small letters."""

MISSING_MARKS = MISSING_LABELS | {"..", "...", "…", "*", "none", "n.m.", "nm"}
"""The same of numbers: NM may be the class of what has no moment."""

_FRACTION = re.compile(r"[+-]?[0-9]+(?:\s+[0-9]+)?\s*/\s*[0-9]+|[0-9]*\s*[¼½¾⅓⅔⅛⅜⅝⅞]")
_HEXADECIMAL = re.compile(r"[+-]?0[xX][0-9A-Fa-f]+")
_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_POINT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)+")
_CONFUSED = re.compile(r"[+-]?[0-9lIO]*[.,]?[0-9lIO]*")
_SEVERAL = re.compile(r"[+-]?[0-9.]+(?:\s*[;/|]\s*[+-]?[0-9.]+|\s*,\s+[+-]?[0-9.]+)+")
_IN_BRACKETS = re.compile(r"\(\s*[+-]?[0-9][0-9.,]*\s*\)")
_BRACKET = re.compile(r"[(\[]?\s*[+-]?[0-9][0-9.,]*\s*(?:[(\[].*|.*[)\]])?")


def marks_missing(value: Any) -> bool:
    """Whether a cell of numbers says that there is none."""
    return isinstance(value, str) and value.strip().casefold() in MISSING_MARKS


def why_no_number(value: Any, *, decimal_comma: bool, otherwise: str = "is no finite number") -> str:
    """Why a cell is no number, as the end of a sentence.

    Parameters
    ----------
    value : object
        The cell.
    decimal_comma : bool
        Whether a comma is the decimal sign of its column.
    otherwise : str, optional
        What is said where the text tells nothing.

    Examples
    --------
    >>> why_no_number("01. Mrz", decimal_comma=False)
    'is a date, which a spreadsheet may have made of a number: restore the number'
    """
    if not isinstance(value, str):
        return "is a truth value and no number" if isinstance(value, bool) else otherwise
    text = value.strip()
    if marks_missing(text):
        return "marks a missing value"
    if _DATE.fullmatch(text):
        return "is a date, which a spreadsheet may have made of a number: restore the number"
    if _TIME.fullmatch(text):
        return "is a time, which a spreadsheet may have made of a number: restore the number"
    if text.lower() in _TRUTH:
        return "is a truth value and no number"
    if text.lower() in _FORMULA_ERRORS:
        return "is the error of a formula in a spreadsheet"
    if _HEXADECIMAL.fullmatch(text):
        return "is a hexadecimal number: write it in decimals"
    if _FRACTION.fullmatch(text):
        return "is a fraction: write it in decimals"
    if not decimal_comma and _COMMA.fullmatch(text):
        return "has a comma that groups no thousands, and other numbers of the column a point: is it the decimal sign?"
    if decimal_comma and _POINT.fullmatch(text):
        return "has a point, and other numbers of the column a decimal comma: does it group thousands?"
    if _IN_BRACKETS.fullmatch(text):
        return "stands in brackets: is it negative, or uncertain?"
    if _SEVERAL.fullmatch(text):
        return "holds several numbers: give one for each row"
    if not text.isascii() or not re.search("[0-9]", text):
        return otherwise
    if re.search("[lIO]", text) and _CONFUSED.fullmatch(text):
        return "has a letter among its digits: is O a zero, or l a one?"
    if _BRACKET.fullmatch(text) and text.count("(") + text.count("[") != text.count(")") + text.count("]"):
        return "has a bracket that is not closed"
    return otherwise
