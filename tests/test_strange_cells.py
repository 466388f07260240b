"""Cells of a column of measurements that are no numbers: each is refused with what it is, and none is read by half."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scotl_matgl.tables.files import read_table
from scotl_matgl.tables.rows import Rows
from scotl_matgl.tables.strange_cells import why_no_number

FORMULAS = [f"Na{i}Cl" for i in range(1, 31)]
POINTS = [f"{1.1 + 0.37 * i:.3f}" for i in range(30)]
COMMAS = [value.replace(".", ",") for value in POINTS]


def read(column: list[str], odd: str) -> float | str:
    """Value that the fourth row has, or why it has none."""
    given = [*column[:3], odd, *column[4:]]
    rows = Rows.read(FORMULAS, np.array(given, dtype=object))
    assert len(rows.y) in (29, 30)
    if len(rows.y) == 30:
        return float(rows.y[rows.kept.tolist().index(3)])
    (skipped,) = rows.skipped
    assert skipped.row == 3
    return skipped.reason.removeprefix("the target of Na4Cl ")


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ("8.5a", "has the letter a behind it, the mark of a footnote"),
        ("0x1F", "is a hexadecimal number"),
        ("01. Mrz", "is a date"),
        ("1.5.2020", "is a date"),
        ("2020-01-03 00:00:00", "is a date"),
        ("Mar-01", "is a date"),
        ("3-Jan", "is a date"),
        ("3:15", "is a time"),
        ("VRAI", "is a truth value"),
        ("#DIV/0!", "is the error of a formula"),
        ("1/2", "is a fraction"),
        ("½", "is a fraction"),
        ("1;2", "holds several numbers"),
        ("1.2, 1.4", "holds several numbers"),
        ("l.5", "has a letter among its digits"),
        ("1O.2", "has a letter among its digits"),
        ("(1.2", "has a bracket that is not closed"),
        ("1.2]", "has a bracket that is not closed"),
        ("12 meV", "has the unit meV where most have none: convert it"),
        ("0,5", "has a comma that groups no thousands"),
        ("not measured", "is no finite number; measure it or leave it out"),
    ],
)
def test_the_reason_says_what_a_cell_is(odd: str, reason: str) -> None:
    found = read(POINTS, odd)
    assert isinstance(found, str)
    assert found.startswith(reason)


@pytest.mark.parametrize("text", ["eV", "1.2", "metal", "Fe2O3", "May", "august", "1e5", "10", "Iron"])
def test_nothing_is_said_of_other_cells(text: str) -> None:
    assert why_no_number(text, decimal_comma=False, otherwise="") == ""


@pytest.mark.parametrize("separator", ["", ";", "\t"])
@pytest.mark.parametrize(
    ("column", "odd", "expected"),
    [
        (COMMAS, "1.234", "has a point, and other numbers of the column a decimal comma"),  # 1,234 or 1234
        (COMMAS, "12.345.678", "has a point, and other numbers of the column a decimal comma"),
        (COMMAS, "1.234,5", 1234.5),
        (COMMAS, "1.2", 1.2),
        (COMMAS, "1,234", 1.234),
        (POINTS, "1,234", 1234.0),  # remarked on
        (POINTS, "0,5", "has a comma that groups no thousands"),
        (POINTS, "1.234", 1.234),
    ],
)
def test_two_decimal_signs_in_one_column(
    separator: str, column: list[str], odd: str, expected: float | str, tmp_path: Path
) -> None:
    # Of commas between points every one of the column groups thousands, or is refused.
    column = [*column[:10], "0" + column[10][1:], *column[11:]]
    if separator:
        given = [*column[:3], odd, *column[4:]]
        lines = [f"{formula}{separator}{value}" for formula, value in zip(FORMULAS, given, strict=True)]
        (tmp_path / "table.csv").write_text("\n".join([f"formula{separator}gap", *lines]))
        table = read_table(tmp_path / "table.csv", formula="formula", target="gap")
        rows = Rows.read(table["formula"], table["gap"])
        at = {int(row): value for row, value in zip(rows.kept, rows.y, strict=True)}
        reasons = {row.row: row.reason for row in rows.skipped}
        found = at.get(3, reasons.get(3, "").removeprefix("the target of Na4Cl "))
        told = rows.remarks
    else:
        found, told = read(column, odd), ()
    if isinstance(expected, str):
        assert isinstance(found, str)
        assert found.startswith(expected)
    else:
        assert found == expected
    if separator and expected == 1234.0:
        assert "Commas in the target were read as separators of thousands." in told
