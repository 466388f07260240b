"""What the commands say of tables: which task, and why rows are not predicted."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from scotl_matgl import TransferRegressor, load_example
from scotl_matgl.cli.main import app


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.skops"
    table = load_example().iloc[::30]
    TransferRegressor((), head="kernel ridge").fit(table["formula"], table["target"]).save(path)
    return path


LEARNING = ("rank", "fit", "evaluate", "curve", "validate")


@pytest.fixture(scope="module")
def unnamed() -> pd.DataFrame:
    """Formulas and values under headers of which none is asked for."""
    table = load_example().iloc[::60]
    return pd.DataFrame({"ref": "[1]", "Compound": table["formula"], "dH (eV)": table["target"]})


def cheap(command: str, folder: Path) -> list[str]:
    """Arguments with which a command takes a second."""
    return {
        "rank": ["--sources", "MEGNet*Eform", "--head", "kernel ridge"],
        "fit": ["--sources", "MEGNet*Eform", "--head", "kernel ridge", "-o", str(folder / "model.skops")],
        "evaluate": ["--sources", "MEGNet*Eform", "--repeats", "1"],
        "curve": ["--head", "kernel ridge", "--sizes", "15", "--repeats", "1", "--jobs", "1"],
        "validate": ["--head", "kernel ridge", "--scheme", "random", "--folds", "2", "--jobs", "1"],
    }[command]


@pytest.mark.slow
@pytest.mark.parametrize("command", LEARNING)
def test_every_command_finds_the_columns_of_a_sheet(command, unnamed, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    path = tmp_path / "data"
    with pd.ExcelWriter(path, engine="openpyxl") as book:
        for sheet in ("hot", "cold"):
            unnamed.to_excel(book, sheet_name=sheet, index=False)
    both = CliRunner().invoke(app, [command, str(path), *cheap(command, tmp_path)])
    assert "several sheets with such a table: hot, cold" in str(both.exception)
    result = CliRunner().invoke(app, [command, str(path), "--sheet", "cold", *cheap(command, tmp_path)])
    assert result.exit_code == 0, result.output
    assert "column 'Compound' is taken as the formula (--formula)" in result.stderr
    assert "column 'dH (eV)' is taken as the target (--target)" in result.stderr
    assert "was taken as a measured property" in " ".join(result.output.split())
    assert "(--task)" in result.output


@pytest.mark.slow
def test_standard_input_gives_what_the_file_gives(unnamed, tmp_path, monkeypatch) -> None:
    path = tmp_path / "table.csv"
    unnamed.to_csv(path, index=False)
    arguments = ["--format", "csv", *cheap("rank", tmp_path)]
    of_file = CliRunner().invoke(app, ["rank", str(path), *arguments])
    of_input = CliRunner().invoke(app, ["rank", "-", *arguments], input=path.read_text())
    assert of_file.exit_code == of_input.exit_code == 0
    drop = [pd.read_csv(io.StringIO(found.stdout)).drop(columns="seconds") for found in (of_file, of_input)]
    pd.testing.assert_frame_equal(*drop)


def test_predict_finds_the_formulas_of_a_table(model: Path, unnamed, tmp_path) -> None:
    path = tmp_path / "table.tsv"
    unnamed[["ref", "Compound"]].to_csv(path, index=False, sep="\t")
    result = CliRunner().invoke(app, ["predict", str(model), "--table", str(path)])
    assert result.exit_code == 0, result.output
    named = CliRunner().invoke(app, ["predict", str(model), *unnamed["Compound"]])
    found = [pd.read_csv(io.StringIO(one.stdout)) for one in (result, named)]
    assert found[0]["Compound"].tolist() == unnamed["Compound"].tolist()
    assert found[0]["predicted"].tolist() == found[1]["predicted"].tolist()


def test_predict_says_why(model: Path) -> None:
    result = CliRunner().invoke(app, ["predict", str(model), "NaCl", "FE2O3"])
    assert result.exit_code == 0
    assert "1 row not predicted" in result.output
    assert "row 1 ('FE2O3'): 'E' is not an element symbol; did you mean 'Fe2O3'?" in result.output


def test_no_row_predicted_is_bad_input(model: Path) -> None:
    assert CliRunner().invoke(app, ["predict", str(model), "FE2O3"]).exit_code == 2


def test_columns_of_text_are_named() -> None:
    table = load_example().iloc[::60].assign(method="DSC")
    with pytest.raises(ValueError, match=r"n_samples=0 .* row 0 \('DSC'\): the column 'method' holds no finite number"):
        TransferRegressor((), formula="formula", on_error="skip").fit(table[["formula", "method"]], table["target"])
