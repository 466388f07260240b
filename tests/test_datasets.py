"""Tables: the bundled one against its origin, and reading others without losing a formula or a row."""

from __future__ import annotations

import gzip
import json
import math
import sys
from importlib import resources

import numpy as np
import pandas as pd
import pytest

from scotl_matgl import TransferabilityRanker, load_example
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.tables.files import TableError, read_table


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


# -- the bundled table ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_example_is_what_pymatgen_holds() -> None:
    from pymatgen.core import Composition

    source = resources.files("pymatgen.analysis.compatibility") / "exp_compounds.json.gz"
    measured: dict[str, list[tuple[float, float]]] = {}
    for record in json.loads(gzip.decompress(source.read_bytes())):
        composition = Composition(record["formula"])
        if record["uncertainty"] is not None and record["uncertainty"] / composition.num_atoms <= 0.05:
            pair = (record["exp energy"] / composition.num_atoms, record["uncertainty"] / composition.num_atoms)
            measured.setdefault(composition.reduced_formula, []).append(pair)
    table = load_example()
    for formula, energy, uncertainty in table.itertuples(index=False):
        pairs = measured[Composition(formula).reduced_formula]
        assert any(abs(energy - a) < 1e-4 and abs(uncertainty - b) < 1e-4 for a, b in pairs), formula
    assert {Composition(formula).reduced_formula for formula in table["formula"]} == set(measured)


def test_example_is_clean() -> None:
    table = load_example()
    assert list(table.columns) == ["formula", "target", "uncertainty"]
    compositions = parse_compositions(table["formula"])
    assert len(compositions) == len(table) == 1736
    assert len(set(compositions.keys())) == len(table)
    assert table["uncertainty"].between(0, 0.05).all()
    values = table.set_index("formula")["target"]
    # CODATA and JANAF: enthalpies of formation in kJ/mol over the number of atoms.
    for formula, kilojoules, atoms in (("NaCl", -411.1, 2), ("CaO", -635.1, 2), ("TiO2", -944.0, 3)):
        assert values[formula] == pytest.approx(kilojoules / 96.485 / atoms, abs=0.02)


# -- forms ------------------------------------------------------------------------------------------------------------

ROWS = [("NaCl", 1.5), ("NaN", -2.25), ("NA", 3.0), ("None", 0.125), ("Fe2O3", 1e-3), ("", 4.0)]


def text_of(separator: str) -> str:
    lines = [("formula", "target"), *((formula, str(value)) for formula, value in ROWS)]
    return "".join(separator.join(line) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("name", "separator"),
    [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.CSV", ","), ("a.tsv", "\t"), ("a.txt", "\t"), ("a.txt", ";")],
)
def test_formulas_survive_reading_text(write, name, separator) -> None:
    table = read_table(write(name, text_of(separator)), formula="formula", target="target")
    assert table["formula"].tolist() == [formula for formula, _ in ROWS]
    assert table["target"].tolist() == [value for _, value in ROWS]


def test_columns_parted_by_spaces(write) -> None:
    table = read_table(write("a.txt", "comp   gap\nNaCl   8.5\nMgO 7.8\n"), formula="comp", target="gap")
    assert table.to_numpy().tolist() == [["NaCl", 8.5], ["MgO", 7.8]]


def test_compressed_text(tmp_path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(text_of(",").encode()))
    assert read_table(path, formula="formula", target="target")["formula"].tolist()[1] == "NaN"


def test_json_records(write) -> None:
    records = [{"formula": formula, "target": value} for formula, value in ROWS]
    table = read_table(write("a.json", json.dumps(records)), formula="formula", target="target")
    assert table["formula"].tolist() == [formula for formula, _ in ROWS]
    assert table["target"].tolist() == [value for _, value in ROWS]


def test_excel(tmp_path) -> None:
    pytest.importorskip("openpyxl", reason="pandas reads Excel with openpyxl")
    path = tmp_path / "a.xlsx"
    pd.DataFrame([("NaCl", 1.5), ("NaN", None), ("NA", 3.0)], columns=["formula", "target"]).to_excel(path, index=False)
    table = read_table(path, formula="formula", target="target")
    assert table["formula"].tolist() == ["NaCl", "NaN", "NA"]
    assert table["target"][0] == 1.5
    assert pd.isna(table["target"][1])


def test_excel_that_cannot_be_read_says_why(tmp_path, monkeypatch) -> None:
    pytest.importorskip("openpyxl", reason="a workbook is made with openpyxl first")
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(TableError, match=r"a\.xlsx is a damaged workbook: .*zip"):
        read_table(path, formula="formula", target="target")
    pd.DataFrame({"formula": ["NaCl"], "target": [1.5]}).to_excel(path, index=False)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(TableError, match=r"a\.xlsx cannot be read as a table: .*openpyxl"):
        read_table(path, formula="formula", target="target")


def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes("formula;target\nNaCl;1,5\nMgO;2,5\n".encode("utf-8-sig"))
    table = read_table(path, formula="formula", target="target")
    assert table.to_numpy().tolist() == [["NaCl", 1.5], ["MgO", 2.5]]


def test_a_separator_at_the_end_of_each_row_shifts_nothing(write) -> None:
    table = read_table(write("a.csv", "formula,target\nNaCl,1.5,\nMgO,2.5,\n"), formula="formula", target="target")
    assert table["formula"].tolist() == ["NaCl", "MgO"]
    assert table["target"].tolist() == [1.5, 2.5]


# -- cells of the target ----------------------------------------------------------------------------------------------


def cells(write, *values: str) -> list:
    text = "formula,target\n" + "".join(f"NaCl,{value}\n" for value in values)
    return read_table(write("cells.csv", text), formula="formula", target="target")["target"].tolist()


def test_blank_cells_become_none_or_nan_and_text_stays(write) -> None:
    found = cells(write, "1.5", "", "2", "n/a", " 3.5 ", "  ")
    assert found == [1.5, None, 2, "n/a", 3.5, None]
    found = cells(write, "1.5", "", "2.5")
    assert found[::2] == [1.5, 2.5]
    assert math.isnan(found[1])


def test_whole_numbers_stay_whole_beside_a_blank(write) -> None:
    found = cells(write, "1", "0", "n/a", "1", "0")
    assert found == [1, 0, "n/a", 1, 0]
    assert [type(value) for value in found] == [int, int, str, int, int]


def test_labels_stay_text(write) -> None:
    assert cells(write, "metal", "", " oxide ", "3") == ["metal", None, "oxide", "3"]


@pytest.mark.slow
def test_what_was_read_is_listed_as_it_stood(write, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    example = load_example().iloc[::60]
    lines = [f"{row['formula']},{row['target']}" for _, row in example.iterrows()]
    lines[3:3] = ["NaN,1.0", "Fe2O3,n/a", "Fe3O4,", "FE2O3,2.0"]
    table = read_table(write("a.csv", "\n".join(["formula,target", *lines])), formula="formula", target="target")
    ranker = TransferabilityRanker("*Eform", estimators=["loo"], on_error="skip")
    ranking = ranker.fit(table["formula"], table["target"]).ranking_
    assert [(row.row, row.value) for row in ranking.skipped] == [
        (3, "'NaN'"), (4, "'n/a'"), (5, "None"), (6, "'FE2O3'"),
    ]  # fmt: skip
    assert ranking.n_rows == len(example)


# -- what cannot be read ----------------------------------------------------------------------------------------------


def test_faults_are_told_in_a_sentence(write, tmp_path) -> None:
    for path, message in (
        (
            tmp_path / "none.csv",
            "there is no file .*none.csv; give the path of a CSV, TSV, Excel, JSON or Parquet",
        ),
        (tmp_path, "there is no file"),
        (write("a.csv", "comp,gap\nNaCl,1\n"), "has no column 'formula' for the formula; it has: comp, gap"),
        (write("b.csv", "formula,gap\nNaCl,1\n"), "has no column 'target' for the target; it has: formula, gap"),
        (write("c.csv", ""), "c.csv cannot be read as a table: it has no rows"),
        (write("d.json", "[{"), "d.json cannot be read as a table"),
    ):
        with pytest.raises(TableError, match=message):
            read_table(path, formula="formula", target="target")


def test_other_columns_are_kept_and_one_column_may_serve_twice(write) -> None:
    path = write("a.csv", "formula,target,method\nNaCl,1.5,DSC\n")
    assert read_table(path, formula="formula", target="target").loc[0, "method"] == "DSC"
    assert read_table(path, formula="formula", target="formula")["formula"].tolist() == ["NaCl"]
    assert np.isscalar(read_table(path, formula="formula", target="method").loc[0, "method"])
