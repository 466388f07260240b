"""`scotl-matgl evaluate` measures, prints the figures, and goes on where it was."""

from __future__ import annotations

import pandas as pd
import pytest
from typer.testing import CliRunner

from scotl_matgl import load_example
from scotl_matgl.cli.main import app
from scotl_matgl.studies.judging import judge_rankings, orders
from scotl_matgl.studies.measuring import EvaluationSettings, evaluate


@pytest.mark.slow
def test_evaluate_writes_what_it_summarises_and_resumes(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    table, output = tmp_path / "table.csv", tmp_path / "out.csv"
    load_example().iloc[::18].to_csv(table, index=False)
    arguments = ["evaluate", str(table), "--sources", "MEGNet*Eform", "--repeats", "1", "--output", str(output),
                 "--unit", "eV/atom", "--jobs", "2"]  # fmt: skip
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    before = output.read_text()
    frame = pd.read_csv(table, keep_default_na=False)
    rows = (frame["formula"], frame["target"].astype(float))
    settings = EvaluationSettings(head="kernel ridge", repeats=1)
    records = evaluate(*rows, "MEGNet*Eform", table="table", path=output, settings=settings)
    assert output.read_text() == before  # it is all there
    assert {"no transfer", "MEGNet-MP-2018.6.1-Eform"} <= set(records["source"])
    assert set(records["size"]) == {"50", "whole"}  # 97 rows are too few to test subsets of 100 and 200
    control = records[records["source"] == "no transfer"].groupby("size")["error"].mean()
    assert f"error without transfer, of 50 rows: {control['50']:.3g} eV/atom\n" in first.stdout
    assert f"error without transfer, of the whole table: {control['whole']:.3g} eV/atom\n" in first.stdout
    form = {"index": False, "float_format": lambda value: f"{value:.3f}"}
    assert judge_rankings(records).to_string(**form) in first.stdout
    assert orders(records).to_string(**form) in first.stdout
    second = CliRunner().invoke(app, arguments)
    assert second.stdout == first.stdout
    assert output.read_text() == before
