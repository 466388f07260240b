"""Words and checks that every module shares: names, counts, parameters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.exceptions import InputError

if TYPE_CHECKING:
    import pandas as pd

Floats: TypeAlias = NDArray[np.float64]

#: Called with (done, total) steps.
Progress: TypeAlias = Callable[[int, int], None]


def counted(number: int, noun: str) -> str:
    """Number and noun, as a message has them: ``1 row``, ``3 rows``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise unless a parameter is a whole number of at least so much."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} is {value!r}; it must be a whole number of at least {least}")


# Apostrophes count in, so that quoting can be undone.
_RUN = re.compile(r"'*[=+\-@\t\r]")

#: Name of the control: the target learned from descriptors alone.
NO_TRANSFER = "no transfer"

#: How many sources are taken together: in the row "first five together" of a ranking, and in the transferred model.
TOGETHER = 5


def listing(names: Sequence[str], most: int = 6) -> str:
    """Names separated by commas, the first of them where they are many."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def visible(text: str) -> str:
    r"""Text of others as a terminal may have it: control characters, which can move the cursor or hide, are spelt out.

    Line ends and tabs stay, and so do letters of all scripts; what reverses the direction of writing does not.

    Examples
    --------
    >>> print(visible("Na" + chr(27) + "[2JCl"))
    Na\x1b[2JCl
    """
    if text.replace("\n", "").replace("\t", "").isprintable():  # so for almost all texts, and a hundred times faster
        return text
    return "".join(
        character.encode("unicode_escape").decode() if _steers(character) else character for character in text
    )


def _steers(character: str) -> bool:
    return character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def for_spreadsheets(frame: pd.DataFrame) -> pd.DataFrame:
    """Table whose text no spreadsheet runs: cells and headings that begin like a formula get an apostrophe in front.

    Numbers, also those that are stored as text, stay as they are.
    """
    safe = frame.rename(columns=quoted)
    for position, kind in enumerate(frame.dtypes):
        if kind.kind not in "biufcmM":
            safe.isetitem(position, list(frame.iloc[:, position].map(quoted)))
    return safe


def quoted(cell: Any) -> Any:
    """Cell of a table; a text that a spreadsheet would run gets an apostrophe in front, see :func:`unquoted`."""
    if not isinstance(cell, str) or not _RUN.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def unquoted(cell: str) -> str:
    """Text from which :func:`quoted` made a cell."""
    return cell[1:] if cell.startswith("'") and _RUN.match(cell) else cell
