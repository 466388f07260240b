"""Table files as people have them: each is read right, or refused with its reason (tests/data/wild/tables)."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scotl_matgl import load_example
from scotl_matgl.exceptions import InputError
from scotl_matgl.tables import files
from scotl_matgl.tables.cells import Signs, Unreadable, read_numbers
from scotl_matgl.tables.files import Limits, TableError, read_table
from scotl_matgl.tables.rows import Rows
from scotl_matgl.tables.target import read_target

WILD = Path(__file__).parent / "data" / "wild" / "tables"

READ = (
    "cp1252.csv", "utf16.csv", "utf16_no_mark.csv", "title_and_comments.csv", "header_behind_sign.txt",
    "header_case_and_blanks.csv", "quoted_decimal_commas.csv", "decimal_commas.tsv", "lines.jsonl", "matbench.json",
    "columns.json", "workbook.xlsx", "workbook_named.csv", "of_pandas.json", "markdown.md",
)  # fmt: skip
REFUSED = {
    "split_decimal_commas.csv": r"row 0 \('NaCl,-0,87'\): a decimal comma in a file separated by commas; write -0.87",
    "lfs_pointer.csv": "pointer of Git LFS and not the table; run `git lfs pull`",
    "web_page.csv": "is a web page and no table",
    "old_workbook.xlsx": "workbook of the old format; save it as .xlsx",
    "no_header.csv": "has no header: its first row holds NaCl, 1.5; write the names of the columns above it",
    "twice.csv": r"several columns 'target': 'target', 'target \(again\)'; rename one",
    "two_numbers.csv": r"several columns that may be the target: gap, density; name it \(target=, --target\)",
}
LISTED = {
    "field_too_many.csv": "stands in a row of 3 fields where the header has 2",
    "stray_quote.csv": "stands in a row with a stray quote",
    "field_too_few.csv": None,
}


@pytest.mark.parametrize("name", READ)
def test_read(name: str) -> None:
    table = read_table(WILD / name, formula="formula", target="target")
    assert table["formula"].tolist() == ["NaCl", "MgO"]
    assert table["target"].tolist() == [1.5, 2.5]


def test_what_is_doubtful_in_a_target_is_said() -> None:
    for case in json.loads((WILD.parent / "doubtful_targets.json").read_text(encoding="utf-8")):
        column = pd.Series(case["values"]).to_numpy()
        said = [remark for remark in read_target(column, task="auto").remarks if "was taken as" not in remark]
        assert [case["says"] in remark for remark in said] == [True] * bool(case["says"]), (case, said)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(TableError, match=REFUSED[name]):
        read_table(WILD / name)


@pytest.mark.parametrize("name", LISTED)
def test_a_bad_row_ends_nothing(name: str) -> None:
    table = read_table(WILD / name, formula="formula", target="target")
    assert table["target"].tolist()[::2] == [1.5, 2.5]
    assert getattr(table["target"].tolist()[1], "reason", None) == LISTED[name]


def test_every_file_is_tested() -> None:
    tested = {*READ, *REFUSED, *LISTED, "other_names.csv", "header_is_a_comment.dat"}
    assert {path.name for path in WILD.iterdir()} == tested


def test_a_header_that_is_a_comment_costs_no_row() -> None:
    table = read_table(WILD / "header_is_a_comment.dat")
    assert table.attrs["columns"] == {"formula": "formula", "target": "gap_eV"}
    assert table["gap_eV"].tolist() == [1.5, 2.5]


def test_columns_are_found_by_what_they_hold() -> None:
    table = read_table(WILD / "other_names.csv", target="GAP (ev)")
    assert table["compound"].tolist() == ["NaCl", "MgO"]
    assert table["GAP (ev)"].tolist() == [1.5, 2.5]
    with pytest.raises(TableError, match="several columns that may be the target: id, gap"):
        read_table(WILD / "other_names.csv")


SIBLINGS = {
    "semicolons": "substance;gap\nNaCl;0,50\nMgO;1,25\n",
    "tabs": "formula\ttarget\nNaCl\t0,50\nMgO\t1,25\n",
    "bars": "formula|target\nNaCl|0.50\nMgO|1.25\n",
    "blanks": "formula target\nNaCl 0.50\nMgO 1.25\n",
    "title": "Gaps, in eV\nformula;target\nNaCl;0,50\nMgO;1,25\n",
    "thousands": "substance;gap\nNaCl;0,50\nMgO;1,25\nGaAs;10.200,00\n",
    "tabs and thousands": "substance\tgap\nNaCl\t0,50\nMgO\t1,25\nGaAs\t10.200,00\n",
    "quoted": 'substance,gap,note\nNaCl,"0,50","a; b"\nMgO,"1,25","c; d"\n',
}


@pytest.mark.parametrize("name", SIBLINGS)
def test_separators_are_found_without_names_of_columns(name: str, tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text(SIBLINGS[name], encoding="utf-8")
    table = read_table(path)
    found = dict(zip(table.iloc[:, 0], table.iloc[:, 1], strict=True))
    assert found == {"NaCl": 0.5, "MgO": 1.25, **({"GaAs": 10_200.0} if "thousands" in name else {})}


def test_a_point_without_a_comma_is_not_a_group() -> None:
    column = np.array(["1.234", "1,5"], dtype=object)
    found = read_numbers(column)
    assert np.isnan(found.values[0])
    assert found.values[1] == 1.5
    assert "does it group thousands?" in found.reasons[0]


def test_exponents_of_fortran_are_no_units() -> None:
    found = read_numbers(np.array(["0.50D-03", "1.2d+02", "3.0"], dtype=object))
    assert (found.values.tolist(), found.unit) == ([0.5e-3, 120.0, 3.0], "")


def test_sheets_without_formulas_are_no_choice(tmp_path: Path) -> None:
    table = pd.DataFrame({"compound": ["NaCl", "MgO"], "gap": [0.5, 1.25]})
    with pd.ExcelWriter(tmp_path / "book.xlsx") as book:
        pd.DataFrame({"note": ["hello"], "date": [3]}).to_excel(book, sheet_name="Read me", index=False)
        table.to_excel(book, sheet_name="Data", index=False)
    found = read_table(tmp_path / "book.xlsx")
    assert (found["gap"].tolist(), found.attrs["sheet"]) == ([0.5, 1.25], "Data")
    assert "sheet" not in read_table(tmp_path / "book.xlsx", sheet="Data").attrs  # there was no choice


def test_marks_of_missing_values_hide_no_column_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    marks = ["-", "—", "N/A", "..", "*", "n.m.", "not reported"]
    cells = [mark if at % 2 else f"{at}.5" for at, mark in enumerate(3 * marks)]
    path.write_text("formula,gap,note\n" + "".join(f"Na{at + 1}Cl,{cell},as grown\n" for at, cell in enumerate(cells)))
    table = read_table(path)
    rows = Rows.read(table["formula"], table["gap"])
    assert sorted(rows.y.tolist()) == [at + 0.5 for at in range(0, 21, 2)]
    assert {row.value.strip("'") for row in rows.skipped} == set(marks)
    assert all("marks a missing value" in row.reason for row in rows.skipped)


def test_the_only_other_column_is_the_target_also_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("compound,class\nNaCl,insulator\nFe,metal\n")
    found = read_table(path)
    assert found.attrs["columns"] == {"formula": "compound", "target": "class"}
    path.write_text("compound,class,note\nNaCl,insulator,a\nFe,metal,b\n")
    with pytest.raises(TableError, match="has no column 'target', and none that looks like it; name it"):
        read_table(path)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        buffer = io.BytesIO(b"formula,target\nNaCl,1.5\n")

    monkeypatch.setattr(sys, "stdin", Stream())
    assert read_table("-")["formula"].tolist() == ["NaCl"]


def test_a_column_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(files, "decimal_signs", lambda cells, **_: calls.append(len(cells)) or Signs())
    path = tmp_path / "a.csv"
    path.write_text("formula,target\n" + "NaCl,1.5\n" * 500)
    read_table(path, formula="formula", target="target")
    assert calls == [500]


def test_limits(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("formula,target\n" + "NaCl,1.5\n" * 300)
    with pytest.raises(TableError, match="larger than 100 bytes"):
        read_table(path, limits=Limits(n_bytes=100))
    with pytest.raises(TableError, match="more than 100 rows"):
        read_table(path, limits=Limits(n_rows=100))
    path.write_text("formula,target\nNaCl,1.5\n" + "x" * 50_000 + ",2\n")
    assert isinstance(read_table(path, formula="formula", target="target")["formula"][1], Unreadable)


def test_what_is_wrong_with_a_row_reaches_the_list_of_skipped_rows(tmp_path: Path) -> None:
    example = load_example().iloc[:30]
    lines = [f"{formula},{value}" for formula, value in zip(example["formula"], example["target"], strict=True)]
    lines[4] = "Fe2O3,1.5,see text"
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["formula,target", *lines]))
    table = read_table(path)
    (row,) = Rows.read(table["formula"], table["target"]).skipped
    assert (row.row, row.reason) == (
        4, "the target of Fe2O3 stands in a row of 3 fields where the header has 2; measure it or leave it out",
    )  # fmt: skip


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_tables_raise_nothing_else_and_change_no_other_row(data: st.DataObject, tmp_path: Path) -> None:
    rows = [("NaCl", "1.5"), ("MgO", "2.5"), ("Fe2O3", "-0.87"), ("TiO2", "3")]
    lines = ["formula,target", *(",".join(row) for row in rows)]
    at = data.draw(st.integers(1, len(rows)))
    position = data.draw(st.integers(0, len(lines[at])))
    inserted = data.draw(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=4))
    lines[at] = lines[at][:position] + inserted + lines[at][position:]
    path = tmp_path / "mutated.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    try:
        table = read_table(path, formula="formula", target="target")
    except InputError:
        return
    found = dict(zip(table["formula"], table["target"], strict=True))
    for number, (formula, value) in enumerate(rows, start=1):
        if number != at and formula in found and not isinstance(found[formula], str):
            assert found[formula] == float(value) or np.isnan(found[formula])


@pytest.mark.parametrize("digits", [19, 20, 400])
def test_whole_numbers_beyond_what_arrays_hold_are_read_as_from_csv(tmp_path: Path, digits: int) -> None:
    numbers = ["1", "2.5", "3", "9" * digits]
    (tmp_path / "t.json").write_text(f'[{", ".join(f"""{{"formula": "NaCl", "target": {n}}}""" for n in numbers)}]')
    (tmp_path / "t.csv").write_text("formula,target\n" + "".join(f"NaCl,{n}\n" for n in numbers))
    as_json, as_csv = (read_table(tmp_path / name)["target"].tolist() for name in ("t.json", "t.csv"))
    assert as_json == as_csv
