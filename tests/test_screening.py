"""Tables of very many formulas: predicted part by part, resumed, the best of them, and through Dask."""

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import scotl_matgl.tables.chunks
import scotl_matgl.transfer.screening
from scotl_matgl import TransferClassifier, TransferRegressor, load_example
from scotl_matgl.cli.main import app
from scotl_matgl.exceptions import InputError
from scotl_matgl.tables.chunks import read_in_chunks
from scotl_matgl.tables.files import TableError
from scotl_matgl.transfer.screening import Screening

SOURCE = "MEGNet-MP-2018.6.1-Eform"


@pytest.fixture(scope="module")
def model() -> TransferRegressor:
    table = load_example().sample(80, random_state=0)
    return TransferRegressor(SOURCE, on_error="skip").fit(table["formula"], table["target"])


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("screening")
    model.save(folder / "model.skops")
    formulas = load_example()["formula"].iloc[:70].tolist()
    # A bad row, one that a spreadsheet would run, and doubles.
    pd.DataFrame({"id": range(73), "formula": [*formulas[:40], "Xx2", "=1+1", *formulas[30:61]]}).to_csv(
        folder / "many.csv", index=False
    )
    return folder


@pytest.mark.slow
def test_a_table_is_predicted_as_its_formulas_are(model, folder) -> None:
    table = pd.read_csv(folder / "many.csv")[["formula"]].set_index(np.arange(73) * 2)
    found = model.predict_table(table)
    predicted, deviation = model.predict(table["formula"], return_std=True)
    np.testing.assert_array_equal(found["predicted"], predicted)
    np.testing.assert_array_equal(found["deviation"], deviation)
    pd.testing.assert_frame_equal(found[["unseen", "unknown", "distance", "clipped", "inside"]], model.domain(table))
    assert list(found.index) == list(table.index)
    assert [row.row for row in found.attrs["skipped"]] == [40, 41]
    assert found["predicted"].isna().sum() == 2


@pytest.mark.slow
def test_blocks_change_no_number(model, monkeypatch) -> None:
    formulas = load_example()["formula"].iloc[:50]
    whole = model.predict_table(formulas)
    monkeypatch.setattr("scotl_matgl.transfer.model._BLOCK", 7)
    np.testing.assert_allclose(model.predict_table(formulas)["predicted"], whole["predicted"], rtol=1e-5)


def run(folder: Path, name: str, **settings: object) -> tuple[int, tuple[tuple[int, str], ...], int]:
    given = {"model": folder / "model.skops", "table": folder / "many.csv", "output": folder / name, "rows": 20}
    return Screening(**given | settings).run()


@pytest.mark.slow
def test_parts_together_are_the_whole(model, folder) -> None:
    steps = []
    screening = Screening(
        model=folder / "model.skops", table=folder / "many.csv", output=folder / "all.csv", rows=20, n_jobs=2
    )
    n, reasons, lost = screening.run(lambda *step: steps.append(step))
    assert (n, lost, steps) == (73, 2, [(20, 73), (40, 73), (60, 73), (73, 73)])
    assert [row for row, _ in reasons] == [40, 41]
    assert "'Xx2'" in reasons[0][1] or "Xx2" in reasons[0][1]
    found = pd.read_csv(folder / "all.csv", keep_default_na=False, na_values={"predicted": [""], "distance": [""]})
    expected = model.predict_table(pd.read_csv(folder / "many.csv")["formula"])
    np.testing.assert_allclose(found["predicted"], expected["predicted"], rtol=1e-5)
    np.testing.assert_allclose(found["distance"], expected["distance"], rtol=1e-5)
    assert found["formula"][41] == "'=1+1"
    assert not (folder / "all.csv.parts").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_and_another_table_does_not(folder, monkeypatch) -> None:
    predict = TransferRegressor.predict_table
    calls = []

    def dies(self: TransferRegressor, table: pd.DataFrame) -> pd.DataFrame:
        calls.append(len(table))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(self, table)

    monkeypatch.setattr(TransferRegressor, "predict_table", dies)
    with pytest.raises(KeyboardInterrupt):
        run(folder, "resumed.csv")
    assert run(folder, "resumed.csv")[::2] == (73, 2)
    assert calls == [20, 20, 20, 20, 13]
    run(folder, "whole.csv")
    assert (folder / "resumed.csv").read_bytes() == (folder / "whole.csv").read_bytes()
    # Parts of other work are made again; a folder that is none is left alone.
    del calls[:]
    with pytest.raises(KeyboardInterrupt):
        run(folder, "other.csv")
    calls[:] = [0] * 3
    run(folder, "other.csv", rows=40)
    assert calls[3:] == [40, 33]
    (folder / "mine.csv.parts").mkdir()
    (folder / "mine.csv.parts" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match=r"mine.csv.parts holds something else"):
        run(folder, "mine.csv")


@pytest.mark.slow
@pytest.mark.parametrize("maximise", [True, False])
def test_the_best_are_the_first_of_all_in_order(maximise, folder, model) -> None:
    run(folder, "top.csv", top=9, maximise=maximise)
    found = pd.read_csv(folder / "top.csv")
    table = pd.read_csv(folder / "many.csv")
    everything = table[["formula"]].assign(predicted=model.predict(table["formula"])).dropna()
    expected = everything.sort_values("predicted", ascending=not maximise, kind="stable")[:9]
    assert found["formula"].tolist() == expected["formula"].tolist()
    assert {"deviation", "inside"} <= set(found.columns)


def test_the_command_writes_the_best(folder) -> None:
    words = [
        "predict",
        folder / "model.skops",
        "--table",
        folder / "many.csv",
        "--output",
        folder / "best.csv",
        "--top",
        3,
    ]
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0
    assert len(pd.read_csv(folder / "best.csv")) == 3
    assert "2 rows not predicted\nrow 40 ('Xx2')" in result.output
    result = CliRunner().invoke(app, ["predict", str(folder / "model.skops"), "NaCl", "--top", "3"])
    assert "--top is for a table that is a file" in str(result.exception)


@pytest.mark.slow
def test_classes_have_no_best(folder) -> None:
    table = load_example().sample(60, random_state=0)
    TransferClassifier(()).fit(table["formula"], table["target"] < -0.5).save(folder / "classes.skops")
    with pytest.raises(InputError, match="this model predicts classes"):
        run(folder, "c.csv", top=3, model=folder / "classes.skops")
    run(folder, "c.csv", model=folder / "classes.skops")
    assert set(pd.read_csv(folder / "c.csv")["predicted"].dropna()) == {True, False}


def test_parquet_in_and_out(folder, model) -> None:
    pytest.importorskip("pyarrow")
    table = pd.read_csv(folder / "many.csv")
    table.to_parquet(folder / "many.parquet")
    run(folder, "all.parquet", table=folder / "many.parquet")
    found = pd.read_parquet(folder / "all.parquet")
    np.testing.assert_allclose(found["predicted"], model.predict(table["formula"]), rtol=1e-5)
    assert found["formula"].tolist() == table["formula"].tolist()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_large_text_is_read_as_small_text_is(separator, tmp_path, monkeypatch) -> None:
    table = pd.DataFrame({"a": range(7), "formula": ["NaN", "NaCl", "NA", "", "MgO", "TiO2", "Fe"], "T": [1.5] * 7})
    table.to_csv(tmp_path / "t.csv", index=False, sep=separator)
    n, chunks = read_in_chunks(tmp_path / "t.csv", "formula", ["T"], rows=3)
    small = pd.concat(chunks)
    monkeypatch.setattr(scotl_matgl.tables.chunks, "_LARGE", 0)
    for name in ("t.csv", "t.csv.gz"):
        table.to_csv(tmp_path / name, index=False, sep=separator)
        m, chunks = read_in_chunks(tmp_path / name, "formula", ["T"], rows=3)
        large = pd.concat(chunks)
        assert (n, m - n) == (7, 1) or m == 7
        assert large["formula"].tolist() == small["formula"].tolist()
        assert large["T"].tolist() == small["T"].tolist()
    with pytest.raises(TableError, match="has no column 'gap'; it has: a, formula, T"):
        read_in_chunks(tmp_path / "t.csv", "gap")


@pytest.mark.slow
def test_partitions_of_dask_are_predicted_on_a_cluster(model, folder) -> None:
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("pyarrow")
    import dask.dataframe as dd

    table = pd.read_csv(folder / "many.csv")[["formula"]]
    parts = dd.from_pandas(table, npartitions=3)
    meta = model.predict_table(parts._meta)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        found = parts.map_partitions(model.predict_table, meta=meta).compute()
    expected = model.predict_table(table)
    # The networks compute in float32, in which the size of a block decides how sums are rounded.
    np.testing.assert_allclose(found["predicted"], expected["predicted"], rtol=1e-5)
    assert found["inside"].tolist() == expected["inside"].tolist()


# --- large texts are read as small ones are ---------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        "NaCl,300,a",
        "MgO,3.5e2,b",
        ' TiO2 , 300 ,"c, d"',
        'Fe2O3,300,"a remark\nof two lines"',
        '"Al2O3",300,e',
        "CaO,300",
        "BaO,300,f,g",
        'SrO,300,"not closed',
        "Na\xb5Cl,300,h",
        "# a comment",
        "",
        ",,",
        f"ZnO,300,{'x' * 11_000}",
        "NaN,,i",
        "KCl,about 300,j",
    ]
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lines=st.lists(LINES, min_size=1, max_size=60),
    rows=st.sampled_from([1, 2, 7, 30, 1000]),
    separator=st.sampled_from([",", ";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "cp1252"]),
    packed=st.booleans(),
)
def test_odd_large_texts_are_read_as_small_ones(lines, rows, separator, encoding, packed) -> None:
    # 40 whole rows first: decimal commas and quotes are judged by what stands around them.
    text = "\n".join(["Formula, T ,remark", *["LiF,300,z"] * 40, *lines]).replace(",", separator)
    content = text.encode(encoding)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "t.csv"
        path.write_bytes(gzip.compress(content) if packed else content)
        _, chunks = read_in_chunks(path, "formula", ["T"])
        (small,) = chunks
        patch.setattr(scotl_matgl.tables.chunks, "_LARGE", 0)
        n, chunks = read_in_chunks(path, "formula", ["T"], rows=rows)
        parts = list(chunks)
    assert [len(part) for part in parts[:-1]] == [rows] * (len(parts) - 1)
    large = pd.concat(parts)
    assert large.index.tolist() == list(range(len(small)))
    assert n >= len(small)
    assert large["formula"].tolist() == small["formula"].tolist()
    # As a model reads them: a cell that is no number is one without.
    np.testing.assert_array_equal(*(pd.to_numeric(table["T"], errors="coerce") for table in (large, small)))
    reasons = [[getattr(cell, "reason", "") for cell in table["T"]] for table in (large, small)]
    assert reasons[0] == reasons[1]


def test_odd_rows_of_a_large_table_cost_themselves(folder, monkeypatch) -> None:
    monkeypatch.setattr(scotl_matgl.tables.chunks, "_LARGE", 0)
    rows = [b"formula,id", b"NaCl,1", b"MgO,x,y,z", b"Ti\xb5O2,3", b'"CaO,4', b"# what follows was added", b"KCl,5"]
    (folder / "odd.csv").write_bytes(b"\n".join([*rows, b"LiF,6" + b"x" * 3_000_000, b"NaF,7"]))
    n, told, lost = Screening(
        model=folder / "model.skops", table=folder / "odd.csv", output=folder / "odd-out.csv", rows=2
    ).run()
    assert (n, lost) == (7, 2)
    assert {row for row, _ in told} == {2, 3}
    found = pd.read_csv(folder / "odd-out.csv")
    assert found["predicted"].isna().tolist() == [False, False, True, True, False, False, False]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("formula\nNaCl\n".encode("utf-16"), "no UTF-8"),
        (gzip.compress(b"formula\n" + b"NaCl\n" * 9000, mtime=0)[:-30], "cannot be read"),
        (b"\x1f\x8b\x08" + bytes(40), "cannot be read"),
        (b"", "has no column 'formula'"),
        (b"gap\n1\n", "has no column 'formula'"),
        (b"formula,formula\nNaCl,MgO\n", "several columns"),
    ],
)
def test_large_files_that_are_no_tables_say_so(content, reason, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(scotl_matgl.tables.chunks, "_LARGE", -1)
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(TableError, match=reason):
        list(read_in_chunks(tmp_path / "t.csv", "formula", rows=3)[1])
