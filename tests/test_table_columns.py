"""Further columns in a ranking: a temperature tells rows apart, and rows of one composition count as one witness."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scotl_matgl import TransferabilityRanker, TransferRegressor, load_example
from scotl_matgl.cli.main import app
from scotl_matgl.ranking.result import Ranking
from scotl_matgl.tables.files import read_table
from scotl_matgl.tables.rows import Rows

SOURCES = "MEGNet-MP-2018*"
SETTINGS = {"on_error": "skip", "head": "kernel ridge"}


def ranked(table: pd.DataFrame, y: pd.Series, **settings: object) -> Ranking:
    formula = "formula" if table.shape[1] > 1 else None
    return TransferabilityRanker(SOURCES, formula=formula, **SETTINGS, **settings).fit(table, y).ranking_


def judged(ranking: Ranking) -> pd.DataFrame:
    return ranking.to_frame().drop(columns="seconds")


@pytest.fixture(scope="module")
def heated() -> pd.DataFrame:
    """Three temperatures for each formula, drawn at random, and enthalpies that do not depend on them."""
    some = load_example().iloc[::25]
    table = some.loc[some.index.repeat(3), ["formula", "target"]].reset_index(drop=True)
    return table.assign(T=np.random.default_rng(0).uniform(300, 900, len(table)))


@pytest.mark.slow
def test_a_law_of_the_temperature_alone_is_learned_from_its_column_and_by_no_source(heated) -> None:
    y = np.sin(heated["T"] / 150) + 0.01 * np.random.default_rng(1).normal(size=len(heated))
    with_column, without = ranked(heated[["formula", "T"]], y), ranked(heated[["formula"]], y)
    assert with_column.n_rows == len(heated)
    assert with_column.n_merged == 0
    assert with_column.columns == ("T",)
    assert without.n_merged == 2 * without.n_rows
    assert with_column.error_of_control < 0.4 * without.error_of_control
    assert with_column.verdict != "yes"
    assert with_column.relative_interval[0] < 0


def test_rows_of_one_composition_are_one_witness(heated) -> None:
    """The standard errors of gains are those of the table with each formula once, not 1.7 times smaller."""
    repeated = ranked(heated[["formula", "T"]], heated["target"])
    once = ranked(heated[["formula"]].iloc[::3], heated["target"].iloc[::3])
    for a, b in (
        (repeated.judgement.together, once.judgement.together),
        (repeated.judgement.gains[0], once.judgement.gains[0]),
    ):
        assert a.error == pytest.approx(b.error, rel=0.25)
        assert np.diff(a.interval) == pytest.approx(np.diff(b.interval), rel=0.25)


def test_folds_keep_a_composition_together(heated) -> None:
    rows = Rows.read(heated[["formula", "T"]], heated["target"], formula="formula")
    assert len(rows) == len(heated)
    for train, test in rows.folds():
        assert not set(rows.composition[train]) & set(rows.composition[test])


def test_equal_rows_are_merged_and_the_others_are_not(heated) -> None:
    doubled = pd.concat([heated, heated.assign(target=heated["target"] + 1)])
    rows = Rows.read(doubled[["formula", "T"]], doubled["target"], formula="formula")
    assert rows.n_merged == len(rows) == len(heated)
    expected = heated.set_index(["formula", "T"])["target"] + 0.5
    found = pd.Series(rows.y, index=pd.MultiIndex.from_arrays([rows.formulas.text, rows.numbers[:, 0]]))
    assert expected.loc[found.index].to_numpy() == pytest.approx(found.to_numpy())
    assert "they are alike in T too" in " ".join(rows.remarks)


@pytest.mark.slow
@pytest.mark.parametrize("combine", ["concat", "embedding"])
def test_the_order_of_the_rows_changes_nothing(heated, combine) -> None:
    y = heated["target"] * heated["T"]
    shuffled = heated.sample(frac=1, random_state=3)
    same = ranked(shuffled[["T", "formula"]], y[shuffled.index], combine=combine)
    pd.testing.assert_frame_equal(judged(ranked(heated[["formula", "T"]], y, combine=combine)), judged(same))


@pytest.mark.slow
def test_an_embedding_alone_is_ranked_beside_the_column(heated) -> None:
    """Else the temperature would be known without transfer and unknown with it."""
    ranking = ranked(heated[["formula", "T"]], np.sin(heated["T"] / 150), combine="embedding")
    assert ranking.losses.mean(axis=1).max() < 2 * ranking.error_of_control


def test_fit_and_rank_agree(heated) -> None:
    doubled = pd.concat([heated, heated.iloc[::7]])
    y = doubled["target"] * doubled["T"]
    model = TransferRegressor(SOURCES, formula="formula", **SETTINGS).fit(doubled[["formula", "T"]], y)
    expected = judged(ranked(doubled[["formula", "T"]], y)).drop(columns=["loo", "logme", "scotl"])
    pd.testing.assert_frame_equal(judged(model.ranking_), expected)


def test_rank_takes_columns_from_the_shell(heated, tmp_path) -> None:
    path = tmp_path / "table.csv"
    heated.assign(y=heated["target"] * heated["T"]).drop(columns="target").to_csv(path, index=False)
    arguments = ["rank", str(path), "--sources", SOURCES, "--head", "kernel ridge", "--column", "t"]
    result = CliRunner().invoke(app, [*arguments, "--format", "csv"])
    assert result.exit_code == 0, result.output
    read = pd.read_csv(path)
    expected = ranked(read[["formula", "T"]], read["y"])
    found = pd.read_csv(io.StringIO(result.stdout))
    assert found["source"].tolist() == expected.to_frame()["source"].tolist()
    assert found["error"].to_numpy() == pytest.approx(expected.to_frame()["error"].to_numpy())
    text = CliRunner().invoke(app, arguments).stdout
    assert f"{len(heated)} rows of formula and t" in text


def test_a_column_of_text_is_named(heated) -> None:
    with pytest.raises(ValueError, match="the column 'T' holds no finite number"):
        ranked(heated[["formula", "T"]].assign(T="hot"), heated["target"])


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_a_number_that_trees_cannot_hold_costs_its_row(value: float, heated) -> None:
    table = heated[["formula", "T"]].astype({"T": float})
    table.loc[2, "T"] = value
    (skipped,) = ranked(table, heated["target"]).skipped
    assert skipped.row == 2
    assert "'T' holds a number beyond 3e38" in skipped.reason


def test_the_only_column_is_that_of_the_formulas_whatever_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("compound\nLaF3\nTa2O5\nNaCI\n")
    table = read_table(tmp_path / "a.csv", with_target=False)
    assert table.attrs["columns"] == {"formula": "compound"}
    assert table["compound"].tolist() == ["LaF3", "Ta2O5", "NaCI"]
