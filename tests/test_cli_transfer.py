"""The commands fit and predict: what they write is what the estimators say."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scotl_matgl import TransferRegressor, load_example
from scotl_matgl.cli.app import app
from scotl_matgl.cli.main import main

SOURCE = "MEGNet-MP-2018.6.1-Eform"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    table = load_example().sample(60, random_state=0)
    table["load"] = np.linspace(0, 1, len(table))
    table["kind"] = np.where(table["target"] < -0.5, "stable", "other")
    table.to_csv(folder / "known.csv", index=False)
    table[:5].drop(columns="target").to_csv(folder / "new.csv", index=False)
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(item) for item in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_is_fitted_and_predicted_is_what_the_estimator_says(folder) -> None:
    said = run("fit", folder / "known.csv", "-o", folder / "m.skops", "-s", SOURCE, "--n-sources", 1)
    table = pd.read_csv(folder / "known.csv")
    model = TransferRegressor(SOURCE, n_sources=1).fit(table["formula"], table["target"])
    first, second = said.splitlines()
    assert first.startswith(f"out-of-fold mean absolute error {model.error_:.3g} with {SOURCE}")
    assert (f"count for {model.share_:.0%}" in first) == (model.share_ < 1)
    single = f"the best single head on descriptors {model.control_error_:.3g}"
    assert second == f"without transfer {model.no_transfer_error_:.3g}; {single}"
    found = pd.read_csv(io.StringIO(run("predict", folder / "m.skops", "NaCl", "FE2O3")))
    predicted, deviation = model.predict(["NaCl"], return_std=True)
    assert found["predicted"][0] == pytest.approx(predicted[0], rel=1e-6)
    assert found["deviation"][0] == pytest.approx(deviation[0], rel=1e-6)
    assert np.isnan(found["predicted"][1])
    assert not found["inside"][1]


def test_further_columns_and_classes(folder) -> None:
    run("fit", folder / "known.csv", "-o", folder / "c.skops", "-s", SOURCE, "--target", "kind", "--classes",
        "--column", "load")  # fmt: skip
    found = pd.read_csv(io.StringIO(run("predict", folder / "c.skops", "--table", folder / "new.csv")))
    assert list(found.columns[:4]) == ["formula", "load", "predicted", "probability"]
    assert set(found["predicted"]) <= {"stable", "other"}
    assert found["probability"].between(0.5, 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "m.skops"], "give formulas, or a table"),
        (["predict", "nowhere.skops", "NaCl"], "no file nowhere.skops"),
        (["fit", "known.csv", "-o", "x.skops", "--column", "mass"], "has no column mass"),
        (["fit", "known.csv", "-o", "none/x.skops"], "no folder none"),
    ],
)
def test_bad_input_ends_with_a_sentence(arguments, message, folder, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["scotl-matgl", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
