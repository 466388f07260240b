"""Cells as people write them, what a column of them is, and what is told of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scotl_matgl import load_example
from scotl_matgl.exceptions import InputError
from scotl_matgl.tables.cells import Signs, read_cell
from scotl_matgl.tables.rows import Rows
from scotl_matgl.tables.target import read_target

FORMULAS = load_example()["formula"].to_numpy()[:60]


@pytest.mark.parametrize(
    ("text", "value", "uncertainty", "unit"),
    [
        ("0.9 eV", 0.9, None, "eV"),
        ("300K", 300.0, None, "K"),
        ("12%", 12.0, None, "%"),
        ("1.5 J/(mol K)", 1.5, None, "J/(mol K)"),
        ("300\u00a0°C", 300.0, None, "°C"),
        ("1.2±0.1", 1.2, 0.1, ""),
        ("1.2 +/- 0.1 GPa", 1.2, 0.1, "GPa"),
        ("(1.2±0.1)x10^3", 1200.0, 100.0, ""),
        ("1.2±0.1x10^3", 1200.0, 100.0, ""),
        ("0.1(1)", 0.1, 0.1, ""),
        ("1.234(12)", 1.234, 0.012, ""),
        ("1.2(1)e3", 1200.0, 100.0, ""),
        ("~0.1", 0.1, None, ""),
        ("1.2x10^3", 1200.0, None, ""),
        ("1.1 × 10⁻³", 0.0011, None, ""),
        ("−0.87", -0.87, None, ""),
        ("1,000", 1000.0, None, ""),
        ("1,234,567.5", 1234567.5, None, ""),
        ("12 345.6", 12345.6, None, ""),
        ("5e-3", 0.005, None, ""),
        ("0.9*", 0.9, None, ""),
        ("1.2† [12]", 1.2, None, ""),
        ("2.2 (exp.)", 2.2, None, ""),
        ("2.2 eV # by DFT", 2.2, None, "eV"),
        ("'8.5", 8.5, None, ""),
        ("1.1 (±0.2)", 1.1, 0.2, ""),
        ("1.1 (+/- 0.2) GPa", 1.1, 0.2, "GPa"),
    ],
)
def test_cells_that_are_numbers(text: str, value: float, uncertainty: float | None, unit: str) -> None:
    cell = read_cell(text)
    assert (cell.kind, cell.value, cell.unit) == ("number", value, unit)
    assert cell.uncertainty == pytest.approx(uncertainty if uncertainty is not None else float("nan"), nan_ok=True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<0.1", "limit"), ("> 5 GPa", "limit"), ("≤3", "limit"),
        ("0.1-1.1", "range"), ("0.1–1.1", "range"), ("10 to 20 K", "range"), ("2-1", "range"),
        ("metal", "other"), ("Fm-3m", "other"), ("2021-03-04", "other"), ("1_000", "other"), ("0,87", "doubtful"),
        ("1,23,4", "other"), ("1/2", "other"), ("٣", "other"), ("9" * 400, "other"), (True, "other"),
        ("", "empty"), (None, "empty"), (float("nan"), "empty"),
    ],
)  # fmt: skip
def test_cells_that_are_none(text: object, kind: str) -> None:
    assert read_cell(text).kind == kind


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_as_python_reads_it(value: float) -> None:
    for text in (repr(value), f"{value:.3f}", f"{value:.6e}"):
        cell = read_cell(text)
        assert cell.kind == "number" or len(text) > 200
        assert cell.value == float(text) or len(text) > 200


@given(st.text(max_size=30))
def test_no_text_raises(text: str) -> None:
    read_cell(text)
    read_cell(text, Signs(comma=True))


def column(*cells: object) -> np.ndarray:
    values = np.empty(len(cells), dtype=object)
    values[:] = cells
    return values


def test_numbers_with_something_around_them_are_never_labels() -> None:
    target = read_target(column(*["0.9 eV", "1.1 eV"] * 10, "<0.1 eV", "0.1-1.1", "300 K", "2.0"), "auto")
    assert not target.classification
    assert target.values[target.usable].tolist() == [0.9, 1.1] * 10
    assert [reason for reason, usable in zip(target.reasons, target.usable, strict=True) if not usable] == [
        "is a limit and no value",
        "is a range and no value",
        "has the unit K where most have eV: convert it, or leave it out",
        "has no unit where most have eV",
    ]
    assert "The numbers of the target are in eV." in target.remarks


def test_decimal_commas_are_known_by_the_column() -> None:
    assert read_target(column("0,87", "1,250", "3"), "auto").values.tolist() == [0.87, 1.25, 3.0]
    target = read_target(column("1,250", "3,100.5", "12"), "auto")
    assert target.values.tolist() == [1250.0, 3100.5, 12.0]
    assert "Commas in the target were read as separators of thousands." in target.remarks


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 1] * 10, True),
        ([0.0, 1.0] * 10 + [float("nan")], True),
        ([0, 1, None] * 10, True),
        (["0", "1", ""] * 10, True),
        ([-1, 1] * 10, True),
        ([1, 2, 3] * 10, True),
        ([True, False] * 10, True),
        (["metal", "oxide"] * 10, True),
        (list(range(120, 140)), False),  # hardness
        (list(range(300, 1050, 50)) * 4, False),  # temperatures
        (list(range(20)), False),  # each once
        ([1.0, 2.0, 3.0] * 10, False),
        ([0.5, 1.0] * 10, False),
    ],
)
def test_the_task_follows_the_values_and_is_told(values: list, labels: bool) -> None:
    for given_ in (column(*values), np.array(values) if None not in values else column(*values)):
        target = read_target(given_, "auto")
        assert target.classification is labels
        assert any("--task" in remark for remark in target.remarks)
    assert not [remark for remark in read_target(column(*values), "classification").remarks if "--task" in remark]


def test_labels_that_conflict_are_counted() -> None:
    doubled, labels = np.repeat(FORMULAS, 2), ["metal", "insulator"] * len(FORMULAS)
    with pytest.raises(InputError, match=r"every formula has the class 'insulator'.*60 formulas carry more than one"):
        Rows.read(doubled, labels)


def test_merged_values_say_how_far_they_differ() -> None:
    y = np.ravel(np.column_stack([np.arange(1.0, 61.0), 5.9 * np.arange(1.0, 61.0)]))
    (told,) = [remark for remark in Rows.read(np.repeat(FORMULAS, 2), y).remarks if "--column" in remark]
    assert told.startswith("The values of 60 formulas that stand in several rows differ 5.9-fold in the median")
    assert not [remark for remark in Rows.read(FORMULAS, y[:60]).remarks if "--column" in remark]


def test_marks_behind_numbers_are_told() -> None:
    column = np.array([f"{200 + i % 3} [12]" if i % 2 else str(200 + i % 3) for i in range(40)], dtype=object)
    found = read_target(column, "auto")
    assert not found.classification
    assert found.values.tolist() == [200.0 + i % 3 for i in range(40)]
    assert "20 values of the target have a mark or a remark behind them, such as '201 [12]'" in " ".join(found.remarks)


@pytest.mark.parametrize("labels", [("2D", "3D"), ("2H", "1T"), ("3d", "4f"), ("1st", "2nd")])
def test_names_of_a_digit_and_a_letter_are_labels(labels: tuple[str, str]) -> None:
    found = read_target(np.array(labels * 10, dtype=object), "auto")
    assert found.classification
    assert set(found.values) == set(labels)


def test_one_unit_is_no_name() -> None:
    assert not read_target(np.array(["5K", "7K"] * 10, dtype=object), "auto").classification
