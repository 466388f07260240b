"""The sheets of a workbook as cells: percent, dates and formulas that were never calculated as what they are."""

from __future__ import annotations

import datetime as dt
import io
import re
import zipfile
from typing import Any

from scotl_matgl.tables.cells import Unreadable

# A formula without a value: the program that wrote it calculated nothing.
_UNCALCULATED = re.compile(
    rb"</(?:\w{1,20}:)?f>(?:\s*<(?:\w{1,20}:)?v(?:\s*/>|>\s*</(?:\w{1,20}:)?v>))?\s*</(?:\w{1,20}:)?c>"
)
# Of a format: text in quotes, and single characters as they are. A % among them is shown, but multiplies nothing.
_LITERAL = re.compile(r'"[^"]*"|\\.')
_NEVER = "is a formula that was never calculated: open the workbook in a spreadsheet program and save it"


def sheets_of(content: bytes) -> dict[str, list[list[Any]]]:
    """Rows of each sheet, as wide as the widest.

    Parameters
    ----------
    content : bytes
        The workbook; how far its sheets reach has been checked.

    Returns
    -------
    dict of str to list of list
        Cells by title of the sheet; empty ones are "". Numbers that are shown as percent are texts such as ``1.2%``.
    """
    from openpyxl import load_workbook

    book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    formulas = None
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        if any(_UNCALCULATED.search(parts.read(part)) for part in parts.namelist() if part.endswith(".xml")):
            formulas = load_workbook(io.BytesIO(content), read_only=True, data_only=False)
    found = {}
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # which some programs write wrongly
        rows = [[_value(cell) for cell in row] for row in sheet.rows]
        if formulas is not None:
            _mark_formulas(rows, formulas[sheet.title])
        for row in rows:
            while row and row[-1] == "":
                row.pop()
        while rows and not rows[-1]:
            rows.pop()
        width = max(map(len, rows), default=0)
        found[sheet.title] = [row + [""] * (width - len(row)) for row in rows]
    return found


def _value(cell: Any) -> Any:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "%" in _LITERAL.sub("", cell.number_format or ""):
            return f"{100 * value:.15g}%"
        return int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(value, dt.date | dt.time | dt.timedelta):
        return str(value)
    return value


def _mark_formulas(rows: list[list[Any]], sheet: Any) -> None:
    """Put the reason in the place of empty cells that hold a formula."""
    sheet.reset_dimensions()
    for row, cells in zip(rows, sheet.rows, strict=False):
        for place, cell in enumerate(cells):
            if cell.data_type == "f" and place < len(row) and row[place] == "":
                row[place] = Unreadable(str(cell.value)[:80], _NEVER)
