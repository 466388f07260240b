"""The resumable results file: shared by runs, cut in the middle of a line, on a full disk."""

from __future__ import annotations

import math
import multiprocessing
from pathlib import Path

import pytest

from scotl_matgl.exceptions import InputError, StoredFileWarning
from scotl_matgl.studies.records import ResultsFile, number

COLUMNS = ("method", "n", "error", "failure")


def open_file(path: Path | None, *, grows: bool = False) -> ResultsFile:
    return ResultsFile(path, key=COLUMNS[:2], columns=COLUMNS, grows=grows)


def record(n: int, method: str = "a", failure: str = "") -> dict[str, object]:
    return {"method": method, "n": n, "error": 1 / (n + 3), "failure": failure}


def add_many(path: Path, method: str, count: int) -> None:
    results = open_file(path)
    for n in range(count):
        results.add([record(n, method, 'a, "quoted"\nfailure' if n % 7 == 0 else "")])


def test_runs_that_share_a_file_lose_no_row_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=add_many, args=(path, method, 60)) for method in "abcd"]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
        assert run.exitcode == 0
    found = open_file(path)
    assert found.rows.keys() == {(method, str(n)) for method in "abcd" for n in range(60)}
    assert all(number(row["error"]) == 1 / (int(row["n"]) + 3) for row in found.rows.values())
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_sees_what_another_has_added(tmp_path: Path) -> None:
    one, two = open_file(tmp_path / "results.csv"), open_file(tmp_path / "results.csv")
    one.add([record(1)])
    assert two.get("a", 1) is None
    two.refresh()
    assert two.get("a", 1) is not None
    two.add([record(2)])
    one.add([record(3)])
    assert set(one.rows) == {("a", "1"), ("a", "2"), ("a", "3")}


def test_a_file_cut_anywhere_goes_on_with_the_rows_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    results = open_file(path)
    for n in range(6):
        results.add([record(n, failure='line\n"two", é' if n == 4 else "")])
    whole, rows = path.read_bytes(), dict(results.rows)
    ends = [0]
    for n in range(6):
        part = tmp_path / "part.csv"
        part.unlink(missing_ok=True)
        open_file(part).add([record(i, failure='line\n"two", é' if i == 4 else "") for i in range(n + 1)])
        ends.append(part.stat().st_size)
    for cut in range(len(b"method,n,error,failure\n"), len(whole)):
        path.write_bytes(whole[:cut])
        again = open_file(path)
        n_kept = max(index for index, end in enumerate(ends) if end <= cut)
        assert list(again.rows) == list(rows)[:n_kept]
        again.add([record(9)])
        assert list(open_file(path).rows) == [*list(rows)[:n_kept], ("a", "9")]


def test_a_row_takes_the_place_of_an_earlier_one_and_rows_may_bring_columns(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    results = open_file(path, grows=True)
    results.add([record(1, failure="broken"), record(2)])
    results.add([record(1)])
    results.add([record(3) | {"score": math.nan, "more": 0.1}])
    assert path.read_text().splitlines() == [
        "method,n,error,failure,score,more",
        "a,1,0.25,,,",
        "a,2,0.2,,,",
        f"a,3,{1 / 6!r},,,0.1",
    ]
    (first, *_, last) = open_file(path, grows=True).records({"method": str, "n": int, "failure": str})
    assert (first["n"], first["failure"], math.isnan(first["more"]), last["more"]) == (1, "", True, 0.1)


def test_a_full_disk_costs_a_sentence_and_no_row_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "results.csv"
    (tmp_path / "folder").write_text("no folder")
    results = open_file(path)
    with pytest.warns(StoredFileWarning, match=r"results\.csv cannot be written .*kept in memory alone"):
        results.add([record(1)])
    results.add([record(2)])
    assert list(results.rows) == [("a", "1"), ("a", "2")]


def test_what_is_no_results_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)))
    for name in ("other.csv", "bytes.csv"):
        with pytest.raises(InputError, match=f"{name} is not the table of an earlier run"):
            open_file(tmp_path / name)
    (tmp_path / "link.csv").symlink_to(tmp_path / "target.csv")
    with pytest.raises(InputError, match=r"link\.csv is no regular file"):
        open_file(tmp_path / "link.csv")
    assert not (tmp_path / "target.csv").exists()


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-NaCl", "@SUM(A1)", "\t=1", "'=1", "''=1", "'", "-1.5", "plain"])
def test_a_spreadsheet_runs_no_text_of_it_and_texts_come_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.csv"
    open_file(path).add([record(1, text, text)])
    cells = path.read_text().splitlines()[1].split(",")
    assert not any(cell.startswith(("=", "+", "@", "\t")) for cell in cells)
    again = open_file(path)
    (row,) = again.rows.values()
    assert (row["method"], row["failure"]) == (text, text)
    again.add([record(1, text)])
    assert len(open_file(path).rows) == 1
