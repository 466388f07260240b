"""Workbooks that would take all memory are refused before they do."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from scotl_matgl.tables.files import Limits, TableError, read_table


@pytest.fixture(scope="module")
def workbook() -> dict[str, bytes]:
    """Parts of a workbook of two rows, as openpyxl writes them."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["formula", "target"], ["NaCl", 1.0], ["MgO", 2.0]):
        book.active.append(row)
    written = io.BytesIO()
    book.save(written)
    with zipfile.ZipFile(written) as parts:
        return {name: parts.read(name) for name in parts.namelist()}


def _write(path: Path, parts: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, content in parts.items():
            book.writestr(name, content)
    return path


SHEET = "xl/worksheets/sheet1.xml"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'<row r="3"', b'<row r="9000003"', "row 9000003"),
        (b'<row r="3"', b"<row  spans='1:2'  r = '9000003'", "row 9000003"),
        (b'<row r="3"', b'<x:row r="9000003"', "row 9000003"),
        (b'<row r="3"', b'<row r="299999999999999999999"', "no cell"),
        (b'<c r="B3"', b'<c r="XFD900000"', "column 16384"),
        (b'<c r="B3"', b'<c r="ZZZZ3"', "no cell"),
        (b'<row r="3"', b'<row r="&#57;000003"', "no cell"),
    ],
)
@pytest.mark.parametrize("moved", [False, True])
def test_a_sheet_that_reaches_too_far_is_refused(
    old: bytes, new: bytes, reason: str, moved: bool, workbook: dict[str, bytes], tmp_path: Path
) -> None:
    assert old in workbook[SHEET]
    parts = workbook | {SHEET: workbook[SHEET].replace(old, new)}
    if moved:
        parts = {name.replace("worksheets/sheet1.xml", "odd.bin"): content for name, content in parts.items()}
        for name, content in parts.items():
            parts[name] = content.replace(b"worksheets/sheet1.xml", b"odd.bin")
    path = _write(tmp_path / "far.xlsx", parts)
    tracemalloc.start()
    try:
        with pytest.raises(TableError, match=reason):
            read_table(path, limits=Limits(n_bytes=10_000_000))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_workbook_that_unpacks_to_too_much_is_refused(workbook: dict[str, bytes], tmp_path: Path) -> None:
    path = _write(tmp_path / "bomb.xlsx", workbook | {"xl/media/zeros": bytes(3_000_000)})
    assert path.stat().st_size < 20_000
    with pytest.raises(TableError, match="unpacks to more than 2000000 bytes"):
        read_table(path, limits=Limits(n_bytes=2_000_000))


def test_sheets_of_other_encodings_are_refused(workbook: dict[str, bytes], tmp_path: Path) -> None:
    text = workbook[SHEET].decode().replace('<row r="3"', '<row r="9000003"')
    if not text.startswith("<?xml"):
        text = '<?xml version="1.0" encoding="UTF-16"?>' + text
    with pytest.raises(TableError, match="not UTF-8"):
        read_table(_write(tmp_path / "wide.xlsx", workbook | {SHEET: text.encode("utf-16")}))


def test_rows_that_entities_or_encodings_hide_are_refused(workbook: dict[str, bytes], tmp_path: Path) -> None:
    sheet = workbook[SHEET]
    body = sheet[sheet.index(b"<worksheet") :]
    hidden = b"<!DOCTYPE worksheet [<!ENTITY far \"&#60;row r='9000003'/>\">]>" + body.replace(
        b"</sheetData>", b"&far;</sheetData>"
    )
    with pytest.raises(TableError, match="document type"):
        read_table(_write(tmp_path / "entity.xlsx", workbook | {SHEET: hidden}))
    other = b'<?xml version="1.0" encoding="cp037"?>' + body.decode().encode("cp037")
    with pytest.raises(TableError, match="not UTF-8"):
        read_table(_write(tmp_path / "encoding.xlsx", workbook | {SHEET: other}))


def test_a_workbook_within_the_limits_is_read(workbook: dict[str, bytes], tmp_path: Path) -> None:
    assert read_table(_write(tmp_path / "a.xlsx", workbook))["formula"].tolist() == ["NaCl", "MgO"]
