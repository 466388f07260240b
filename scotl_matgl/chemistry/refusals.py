"""Why a formula or a crystal is refused: the exceptions of the readers, and sentences that several modules say."""

from __future__ import annotations


class RefusalError(Exception):
    """Reason, as a sentence with its remedy, for which one value is refused."""


class StructureError(ValueError):
    """An object or a file is no crystal that could be used; the message says why and what to do."""


def missing_message() -> str:
    """Reason for which an empty value is refused."""
    return "the formula is missing: fill it in or leave the row out"


def isotope_message(symbol: str) -> str:
    """Reason for which deuterium and tritium are refused in formulas."""
    name = "deuterium" if symbol == "D" else "tritium"
    return f"{symbol} is {name}, and isotopes are not told apart here: write H if hydrogen will do"


def charge_message() -> str:
    """Reason for which a charge is refused."""
    return "it carries a charge: write the neutral formula without '+', '-' or '^' (SO4, not SO4^2-)"
