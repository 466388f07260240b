"""Cells of a column of measurements that are no numbers: each is refused with what it is, and none is read by half."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scotl_matgl.tables.files import TableError, read_table
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
        ("not measured", "marks a missing value; measure it or leave it out"),
        ("...", "marks a missing value"),
        ("pending", "is no finite number; measure it or leave it out"),
    ],
)
def test_the_reason_says_what_a_cell_is(odd: str, reason: str) -> None:
    assert str(read(POINTS, odd)).startswith(reason)


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
        assert str(found).startswith(expected)
    else:
        assert found == expected
    if separator and expected == 1234.0:
        assert "Commas in the target were read as separators of thousands." in told


# --- what one column or one workbook says of its cells ---------------------------------------------------------------


def test_points_group_thousands_where_one_cell_shows_it() -> None:
    given = np.array([f"1.{500 + i}" for i in range(25)] + ["1121,5", "987,5", "1.269,5", "0,5", "7"], dtype=object)
    rows = Rows.read(FORMULAS, given)
    assert sorted(rows.y) == sorted([*range(1500, 1525), 1121.5, 987.5, 1269.5, 0.5, 7.0])
    assert "Commas in the target were read as decimal signs, and points as separators of thousands." in rows.remarks


def test_points_that_may_group_thousands_are_refused_where_commas_are_decimal_signs() -> None:
    given = np.array([f"1.{500 + i}" for i in range(18)] + [f"{i},5" for i in range(12)], dtype=object)
    rows = Rows.read(FORMULAS, given)
    assert sorted(rows.y) == [i + 0.5 for i in range(12)]
    assert len(rows.skipped) == 18
    assert all("does it group thousands?" in row.reason for row in rows.skipped)


def test_half_commas_half_points() -> None:
    given = np.array([f"{i}.25" if i % 2 else f"{i},25" for i in range(30)], dtype=object)
    rows = Rows.read(FORMULAS, given)
    assert sorted(rows.y) == [i + 0.25 for i in range(1, 30, 2)]
    assert all("is it the decimal sign?" in row.reason for row in rows.skipped)


def test_numbers_in_brackets_are_not_positive() -> None:
    assert read(POINTS, "(0.41)") == "stands in brackets: is it negative, or uncertain?"
    assert read(POINTS, "(4.1±0.1)x10^1") == 41.0


@pytest.mark.parametrize("group", ["'", "’", " ", "\u202f"])
def test_signs_that_group_thousands(group: str) -> None:
    assert read(POINTS, f"1{group}511") == 1511.0


@pytest.mark.parametrize("mark", ["?", "unknown", "n/a", "-", "n.d.", "TBD"])
def test_marks_of_missing_labels_are_no_classes(mark: str) -> None:
    labels = np.array(["metal", "insulator"] * 14 + [mark, mark], dtype=object)
    rows = Rows.read(FORMULAS, labels)
    assert rows.classes.tolist() == ["insulator", "metal"]
    assert [row.row for row in rows.skipped] == [28, 29]
    assert f"is {mark!r}, which marks a missing label" in rows.skipped[0].reason


@pytest.mark.parametrize("labels", [["+", "-"], ["known", "unknown"], ["p", "n", "-", "+"]])
def test_labels_that_are_classes_after_all(labels: list[str]) -> None:
    rows = Rows.read(FORMULAS[:20], np.array(labels * (20 // len(labels)), dtype=object))
    assert set(rows.classes) == set(labels)


def workbook(path: Path, rows: list[list[object]], percent: tuple[int, ...] = ()) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in rows:
        sheet.append(row)
    for row_number in percent:
        sheet.cell(row_number + 2, 2).number_format = "0.0%"
    book.save(path)
    return path


def test_cells_of_a_workbook_are_what_they_show(tmp_path: Path) -> None:
    import datetime as dt

    values: list[object] = [1.0 + i for i in range(30)]
    values[3], values[5], values[7] = dt.datetime(2020, 1, 3), "=A2*2", "#DIV/0!"
    values[9] = 0.5
    rows = [["formula", "gap"], *map(list, zip(FORMULAS, values, strict=True))]
    table = read_table(workbook(tmp_path / "a.xlsx", rows, percent=(9,)), formula="formula", target="gap")
    found = Rows.read(table["formula"], table["gap"])
    reasons = {row.row: row.reason.partition(" ")[2] for row in found.skipped}
    assert sorted(reasons) == [3, 5, 7, 9]
    for row, reason in ((3, "is a date"), (5, "never calculated"), (7, "error of a formula"), (9, "has the unit %")):
        assert reason in reasons[row]


def test_percent_of_a_workbook_is_a_unit(tmp_path: Path) -> None:
    rows = [["formula", "gap"], *map(list, zip(FORMULAS, [0.011 * (i + 1) for i in range(30)], strict=True))]
    table = read_table(workbook(tmp_path / "a.xlsx", rows, percent=tuple(range(30))), formula="formula", target="gap")
    found = Rows.read(table["formula"], table["gap"])
    np.testing.assert_allclose(sorted(found.y), [1.1 * (i + 1) for i in range(30)])
    assert "The numbers of the target are in %." in found.remarks


@pytest.mark.parametrize("kind", ["xlsx", "csv"])
def test_one_name_above_two_columns_is_refused(kind: str, tmp_path: Path) -> None:
    rows: list[list[object]] = [["compound", "gap", None, "Ref."], [None, "PBE", "exp.", None]]
    rows += [[formula, 0.1 * i, 0.2 * i, i] for i, formula in enumerate(FORMULAS, 1)]
    path = tmp_path / f"a.{kind}"
    if kind == "xlsx":
        workbook(path, rows)
    else:
        path.write_text("\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in rows))
    with pytest.raises(
        TableError, match=r"'gap' stands over several columns, which the row below calls 'PBE' and 'exp\.'"
    ):
        read_table(path, formula="compound", target="gap")


def test_an_index_without_a_name_is_no_missing_header(tmp_path: Path) -> None:
    frame = pd.DataFrame({"composition": FORMULAS, "gap": np.arange(30) / 7})
    frame.to_csv(tmp_path / "a.csv")
    table = read_table(tmp_path / "a.csv")
    assert table.attrs["columns"] == {"formula": "composition", "target": "gap"}
    np.testing.assert_allclose(table["gap"].astype(float), frame["gap"])


def test_a_named_index_of_parquet_is_a_column(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"target": np.arange(30) / 7}, index=pd.Index(FORMULAS, name="formula"))
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet")["formula"].tolist() == FORMULAS


def test_decimals_are_numbers() -> None:
    rows = Rows.read(FORMULAS, np.array([Decimal(value) for value in POINTS], dtype=object))
    assert sorted(rows.y) == sorted(map(float, POINTS))


@pytest.mark.parametrize("separator", [";", ",", "\t"])
def test_points_that_may_group_thousands_are_told(separator: str, tmp_path: Path) -> None:
    column = ["1.234", "2.345", "987", "370", "325", *(f"{i}.500" for i in range(1, 26))]
    lines = [f"{formula}{separator}{value}" for formula, value in zip(FORMULAS, column, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join([f"formula{separator}Tm", *lines]))
    table = read_table(tmp_path / "table.csv", formula="formula", target="Tm")
    rows = Rows.read(table["formula"], table["Tm"])
    assert sorted(rows.y) == sorted(map(float, column))
    assert any("Every point of the target stands before three digits" in remark for remark in rows.remarks)


@pytest.mark.parametrize("odd", ["0.512", "1.5", "12.3456"])
def test_points_that_group_nothing_are_not_told(odd: str) -> None:
    rows = Rows.read(FORMULAS, np.array(["987", odd, *(f"{i}.500" for i in range(1, 29))], dtype=object))
    assert not any("three digits" in remark for remark in rows.remarks)


def test_symbols_of_elements_are_labels() -> None:
    rows = Rows.read(FORMULAS, np.array(["Na", "Nd", "K", "Li", "K"] * 6, dtype=object))
    assert rows.classes.tolist() == ["K", "Li", "Na", "Nd"]
    assert not rows.skipped


def test_a_percent_sign_that_is_text_multiplies_nothing(tmp_path: Path) -> None:
    import openpyxl

    rows = [["formula", "gap"], *map(list, zip(FORMULAS, [1.5 + i for i in range(30)], strict=True))]
    path = workbook(tmp_path / "a.xlsx", rows)
    book = openpyxl.load_workbook(path)
    assert book.active is not None
    for row, form in ((2, '0.0"%"'), (3, "0.0\\%"), (4, '0.0" wt%"')):
        book.active.cell(row, 2).number_format = form
    book.save(path)
    assert read_table(path, formula="formula", target="gap")["gap"].tolist()[:4] == [1.5, 2.5, 3.5, 4.5]


def test_a_number_beyond_all_bounds_in_a_workbook_costs_its_row(tmp_path: Path) -> None:
    import zipfile

    rows = [["formula", "gap"], *map(list, zip(FORMULAS, [1.5 + i for i in range(30)], strict=True))]
    path = workbook(tmp_path / "a.xlsx", rows)
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace(b"<v>4.5</v>", b"<v>1e999</v>")
    with zipfile.ZipFile(path, "w") as book:
        for name, content in parts.items():
            book.writestr(name, content)
    table = read_table(path, formula="formula", target="gap")
    assert [row.row for row in Rows.read(table["formula"], table["gap"]).skipped] == [3]


def test_a_long_blank_behind_a_formula_is_looked_through_once() -> None:
    from scotl_matgl.tables.workbooks import _UNCALCULATED

    # Twice as long takes twice as long, not four times: this would take hours otherwise.
    assert _UNCALCULATED.search(b"<c><f>A1</f>" + b" " * 5_000_000 + b"<x/></c>") is None
    assert _UNCALCULATED.search(b"<c><f>A1</f><v></v></c>") is not None
