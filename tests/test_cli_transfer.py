"""The commands fit and predict: what they write is what the estimators say."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scotl_matgl import TransferRegressor, load_example
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.elements import ATOMIC_WEIGHTS
from scotl_matgl.chemistry.formulas import format_formula
from scotl_matgl.cli.main import app, main

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


@pytest.mark.slow
def test_what_is_fitted_and_predicted_is_what_the_estimator_says(folder) -> None:
    said = run("fit", folder / "known.csv", "-o", folder / "m.skops", "-s", SOURCE, "--n-sources", 1)
    table = pd.read_csv(folder / "known.csv")
    model = TransferRegressor(SOURCE, n_sources=1).fit(table["formula"], table["target"])
    first, second, verdict = said.splitlines()
    assert first.startswith(f"out-of-fold mean absolute error {model.error_:.3g} with {SOURCE}")
    assert (f"count for {model.share_:.0%}" in first) == (model.share_ < 1)
    single = f"the best single head on descriptors {model.control_error_:.3g}"
    assert second == f"without transfer {model.no_transfer_error_:.3g}; {single}"
    assert verdict == f"Transfer helps (probability that transfer helps {model.ranking_.probability:.2f})"
    found = pd.read_csv(io.StringIO(run("predict", folder / "m.skops", "NaCl", "FE2O3")))
    predicted, deviation = model.predict(["NaCl"], return_std=True)
    assert found["predicted"][0] == pytest.approx(predicted[0], abs=5.1e-3 * deviation[0])
    assert found["deviation"][0] == pytest.approx(deviation[0], rel=5.1e-3)
    assert np.isnan(found["predicted"][1])
    assert not found["inside"][1]


@pytest.mark.slow
def test_further_columns_and_classes(folder) -> None:
    labels = ("--target", "kind", "--task", "classification", "--column", "load")
    run("fit", folder / "known.csv", "-o", folder / "c.skops", "-s", SOURCE, *labels)
    found = pd.read_csv(io.StringIO(run("predict", folder / "c.skops", "--table", folder / "new.csv")))
    assert list(found.columns[:4]) == ["formula", "load", "predicted", "probability"]
    assert set(found["predicted"]) <= {"stable", "other"}
    assert found["probability"].between(0.5, 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "m.skops"], "give formulas, or a table"),
        (["predict", "nowhere.skops", "NaCl"], "no file nowhere.skops"),
        (["fit", "known.csv", "-o", "x.skops", "--column", "mass"], "has no column 'mass'"),
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


@pytest.mark.slow
def test_percent_by_weight(folder) -> None:
    table = pd.read_csv(folder / "known.csv")[["formula", "target"]]
    parsed = parse_compositions(table["formula"])
    weights = parsed.fractions * np.array(ATOMIC_WEIGHTS)[parsed.numbers - 1]
    parts = [slice(start, end) for start, end in zip(parsed.offsets[:-1], parsed.offsets[1:], strict=True)]
    shares = [weights[part] / weights[part].sum() for part in parts]
    table["formula"] = [format_formula(parsed.numbers[part], share) for part, share in zip(parts, shares, strict=True)]
    table.to_csv(folder / "weights.csv", index=False)
    model = folder / "w.skops"
    arguments = ["fit", folder / "weights.csv", "-o", model, "-s", SOURCE, "--n-sources", 1, "--amounts", "weight"]
    said = CliRunner().invoke(app, [str(item) for item in arguments], catch_exceptions=False).output
    assert f"{len(table)} formulas read as percent by weight" in said
    atoms = "Ti86.2037Al10.1962V3.6002"  # weight over atomic weight, by hand
    by_weight, by_atoms = (
        pd.read_csv(io.StringIO(run("predict", model, *formula)))["predicted"][0]
        for formula in (["--amounts", "weight", "--", "Ti-6Al-4V"], [atoms])
    )
    assert by_weight == pytest.approx(by_atoms, abs=1e-3)
    result = CliRunner().invoke(
        app, ["fit", str(folder / "known.csv"), "-o", str(model), "--column", "load", "--amounts", "weight"]
    )
    assert "without further columns" in str(result.exception)


@pytest.mark.slow
def test_shares_are_said_when_a_model_is_fitted(folder) -> None:
    table = pd.read_csv(folder / "known.csv")[["formula", "target"]]
    table.loc[0, "formula"] = "(Fe72Mo4B24)96Dy4"
    table.to_csv(folder / "shares.csv", index=False)
    arguments = ["fit", folder / "shares.csv", "-o", folder / "s.skops", "-s", SOURCE, "--n-sources", 1]
    result = CliRunner().invoke(app, [str(item) for item in arguments], catch_exceptions=False)
    assert "1 formula read as shares, such as (Fe72Mo4B24)96Dy4 as Fe69.12Mo3.84B23.04Dy4" in result.output


def test_predict_says_whose_weights_are_not_its_own(folder, tmp_path, monkeypatch, capsys) -> None:
    run(
        "fit",
        folder / "known.csv",
        "-o",
        tmp_path / "m.skops",
        "-s",
        "Shotgun-FormationEnergy-1",
        "--head",
        "kernel ridge",
    )
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "shotgun.safetensors").write_bytes(b"another file")
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["scotl-matgl", "predict", str(tmp_path / "m.skops"), "NaCl"])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "shotgun.safetensors is not the file of the card Shotgun-FormationEnergy-1" in said
    assert "ValueError" not in said
