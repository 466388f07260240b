"""What the commands say of tables: which task, and why rows are not predicted."""

from __future__ import annotations

from pathlib import Path

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
