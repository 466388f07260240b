"""Learning curves: paired, free of leaks, resumable, and no failure ends them."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.model_selection import cross_val_score
from typer.testing import CliRunner

from scotl_matgl import load_example
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.cli.main import app
from scotl_matgl.exceptions import InputError
from scotl_matgl.sources.cards import CardError
from scotl_matgl.studies.curves import learning_curves
from scotl_matgl.studies.power_law import PowerLaw
from scotl_matgl.studies.settings import StudySettings
from scotl_matgl.tables.rows import Rows
from scotl_matgl.transfer.estimators import TransferRegressor

mpl.use("Agg")

TABLE = load_example().iloc[::12].reset_index(drop=True)  # 145 rows
KERNEL = TransferRegressor(sources=[], head="kernel ridge")


class Recorder(RegressorMixin, BaseEstimator):
    """Predicts zero, and remembers which formulas it was given."""

    seen: list = []  # noqa: RUF012 - shared by all clones on purpose

    def __init__(self, name="a", fail_at=0):
        self.name = name
        self.fail_at = fail_at

    def fit(self, X, y):
        if len(X) == self.fail_at:
            raise RuntimeError(f"{self.name} dislikes {len(X)} rows")
        self.train_ = list(X)
        return self

    def predict(self, X):
        Recorder.seen.append((self.name, self.train_, list(X)))
        return np.zeros(len(X))


@pytest.fixture(autouse=True)
def _forget():
    Recorder.seen = []


def test_rows_are_paired_nested_and_never_tested_on_themselves() -> None:
    # Every composition twice, once written otherwise.
    doubled = pd.concat([TABLE, TABLE.assign(formula=[f"({formula})2" for formula in TABLE["formula"]])])
    curves = learning_curves(
        doubled["formula"], doubled["target"], {"a": Recorder("a"), "b": Recorder("b")}, sizes=[20, 50, 100], repeats=5
    )
    assert curves.n_rows == 145
    assert curves.n_merged == 145
    keys = dict(zip(doubled["formula"], parse_compositions(doubled["formula"]).keys(), strict=True))
    by_method = {name: [seen[1:] for seen in Recorder.seen if seen[0] == name] for name in "ab"}
    assert by_method["a"] == by_method["b"]
    assert len(by_method["a"]) == 15
    for train, test in by_method["a"]:
        assert not {keys[formula] for formula in train} & {keys[formula] for formula in test}
    for repeat in range(5):
        small, middle, large = by_method["a"][3 * repeat : 3 * repeat + 3]
        assert small[1] == middle[1] == large[1]
        assert small[0] == middle[0][:20] == large[0][:20]
    # Five repeats of five parts test every row once.
    tested = [formula for _, test in by_method["a"][::3] for formula in test]
    assert len(tested) == len(set(tested)) == 145
    # The error of predicting zero is known.
    frame = curves.frame[(curves.frame["method"] == "a") & (curves.frame["n"] == 20)]
    target = dict(zip(parse_compositions(TABLE["formula"]).keys(), TABLE["target"], strict=True))
    for (_, test), error in zip(by_method["a"][::3], frame["error"], strict=True):
        assert error == pytest.approx(np.mean([abs(target[keys[formula]]) for formula in test]))


def test_mean_error_at_the_largest_size_is_that_of_cross_validation() -> None:
    curves = learning_curves(TABLE["formula"], TABLE["target"], {"kernel": KERNEL}, sizes=[60, 116])
    rows = Rows.read(TABLE["formula"], TABLE["target"])
    y, formulas = rows.y, np.array(rows.formulas.text, dtype=object)
    folds = rows.folds()
    scores = cross_val_score(KERNEL, formulas, y, cv=folds, scoring="neg_mean_absolute_error")
    largest = curves.frame[curves.frame["n"] == 116]
    # Equal up to the order in which the rows are learned from.
    np.testing.assert_allclose(largest["error"], -scores, rtol=1e-6)


@pytest.mark.slow
def test_error_falls_with_rows_and_the_law_is_that_of_the_frame() -> None:
    curves = learning_curves(
        TABLE["formula"], TABLE["target"], {"kernel": KERNEL}, settings=StudySettings(unit="eV/atom")
    )
    means = curves.frame.groupby("n")["error"].mean()
    assert means.iloc[-1] < 0.75 * means.iloc[0]
    law = curves.law("kernel")
    again = PowerLaw.fit(curves.frame["n"], curves.frame["error"], curves.frame["repeat"], independent=5)
    assert (law.a, law.b, law.c) == (again.a, again.b, again.c)
    summary = curves.summary(0.15).loc["kernel"]
    assert summary["now"] == pytest.approx(float(law.predict(145)))
    assert summary["doubled"] == pytest.approx(float(law.predict(290)))
    assert summary["needed"] == pytest.approx(law.needed(0.15).value)
    assert summary["needed_low"] < summary["needed"] < summary["needed_high"]
    text = curves.text(0.15)
    assert str(law.at(290)) in text
    assert "mean absolute error eV/atom" in text
    ax = curves.plot(error=0.15)
    drawn = ax.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(drawn, np.column_stack([means.index, means]))


def test_failures_cost_their_own_line_and_are_listed() -> None:
    methods = {"good": DummyRegressor(), "bad": Recorder(fail_at=50), "lost": Recorder(name="lost", fail_at=20)}
    curves = learning_curves(TABLE["formula"], TABLE["target"], methods, sizes=[20, 50, 80, 110], repeats=2)
    assert len(curves.frame) == 24
    assert curves.frame["error"].isna().sum() == 4
    assert set(curves.failures["failure"]) == {
        "RuntimeError: a dislikes 50 rows",
        "RuntimeError: lost dislikes 20 rows",
    }
    assert "4 of 24 fits failed" in curves.text()
    assert curves.law("bad").sizes.tolist() == [20, 80, 110]
    few = learning_curves(
        TABLE["formula"], TABLE["target"], {"bad": Recorder(fail_at=50)}, sizes=[20, 50, 80], repeats=2
    )
    assert few.summary().loc["bad", "law"] == ""
    assert "2 of its units failed, the first: RuntimeError: a dislikes 50 rows" in few.summary().loc["bad", "remarks"]
    assert "bad" in few.text()


def test_a_run_goes_on_where_it_was(tmp_path) -> None:
    path = tmp_path / "curve.csv"
    arguments = (TABLE["formula"], TABLE["target"])
    options = {"sizes": [20, 50], "repeats": 2, "settings": StudySettings(path=path)}
    first = learning_curves(*arguments, {"a": Recorder(fail_at=50), "mean": DummyRegressor()}, **options)
    assert len(Recorder.seen) == 2
    # Half of a file is never seen; what stands in it is not measured again, what failed is.
    before = pd.read_csv(path)
    assert len(before) == 8
    again = learning_curves(*arguments, {"a": Recorder(fail_at=50), "mean": DummyRegressor()}, **options)
    assert len(Recorder.seen) == 2
    done = first.frame["failure"] == ""
    pd.testing.assert_frame_equal(again.frame[done], first.frame[done], check_dtype=False)
    # Another table, or a method of other settings, is measured anew and kept beside.
    learning_curves(TABLE["formula"], -TABLE["target"], {"a": Recorder(fail_at=50)}, **options)
    assert len(Recorder.seen) == 4
    learning_curves(*arguments, {"a": Recorder(fail_at=51)}, **options)
    assert len(Recorder.seen) == 8
    assert len(pd.read_csv(path)) == 8 + 4 + 4
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="not the table of an earlier run"):
        learning_curves(*arguments, {"a": Recorder()}, settings=StudySettings(path=other))


def test_class_labels_and_other_metrics() -> None:
    labels = np.where(TABLE["target"] < TABLE["target"].median(), "stable", "less")
    curves = learning_curves(
        TABLE["formula"], labels, {"most frequent": DummyClassifier()}, sizes=[30, 60, 100], repeats=2
    )
    assert curves.metric == "error rate"
    assert curves.frame["error"].between(0.3, 0.7).all()
    rows = (TABLE["formula"], TABLE["target"], {"zero": Recorder()})
    squared = learning_curves(*rows, sizes=[50], repeats=1, settings=StudySettings(metric="rmse")).frame["error"][0]
    test = Recorder.seen[-1][2]
    values = TABLE.set_index("formula").loc[test, "target"]
    assert squared == pytest.approx(np.sqrt(np.mean(values**2)))

    def largest(true, predicted):
        return np.abs(true - predicted).max()

    found = learning_curves(*rows, sizes=[50], repeats=1, settings=StudySettings(metric=largest))
    assert found.metric == "largest"
    assert found.frame["error"][0] == pytest.approx(values.abs().max())


def test_bad_rows_are_listed() -> None:
    table = pd.concat([TABLE, pd.DataFrame({"formula": ["FE2O3", "NaCl"], "target": [1.0, np.nan]})], ignore_index=True)
    curves = learning_curves(table["formula"], table["target"], {"zero": Recorder()}, sizes=[20], repeats=1)
    assert [row.row for row in curves.skipped] == [145, 146]
    assert "2 rows were skipped, the first is row 145" in curves.text()


def test_what_was_understood_of_a_table_is_told() -> None:
    table = TABLE.iloc[:60]
    cells = [f"{value} eV" for value in table["target"]]
    with_units = learning_curves(table["formula"], cells, {"zero": Recorder()}, sizes=[20], repeats=1)
    plain = learning_curves(table["formula"], table["target"], {"zero": Recorder()}, sizes=[20], repeats=1)
    assert with_units.frame["error"].tolist() == plain.frame["error"].tolist()
    assert any("'eV'" in remark or " eV" in remark for remark in with_units.remarks)
    for remark in with_units.remarks:
        assert remark in " ".join(with_units.text().split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [400]}, "the size 400 is more than the 116 rows"),
        ({"sizes": [1]}, "a size is 1"),
        ({"repeats": 0}, "repeats is 0"),
        ({"settings": StudySettings(metric="mape")}, "metric is 'mape'"),
        ({"methods": {}}, "no method"),
        ({"methods": {"class": DummyRegressor}}, "unfitted estimator"),
    ],
)
def test_wrong_input_is_said_in_a_sentence(options, message) -> None:
    with pytest.raises(InputError, match=message):
        learning_curves(TABLE["formula"], TABLE["target"], **{"methods": {"a": Recorder()}, **options})


@pytest.mark.slow
def test_methods_without_a_choice_are_with_and_without_transfer() -> None:
    curves = learning_curves(TABLE["formula"], TABLE["target"], "kernel ridge", sizes=[116], repeats=3)
    assert curves.methods == ("no transfer", "transfer")
    errors = curves.frame.groupby("method")["error"].mean()
    assert errors["transfer"] < 0.9 * errors["no transfer"]
    without = learning_curves(TABLE["formula"], TABLE["target"], {"a": KERNEL}, sizes=[116], repeats=3)
    assert without.frame["error"].mean() == pytest.approx(errors["no transfer"])


@pytest.mark.slow
def test_sources_and_layer_are_those_of_the_method_with_transfer(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    table, output = tmp_path / "table.csv", tmp_path / "out.csv"
    TABLE.to_csv(table, index=False)
    asked = ["--sources", "SCOTL-MEGNet-Eform", "--layer", "final", "--head", "kernel ridge"]
    sizes = ["--sizes", "60", "--repeats", "2"]
    done = CliRunner().invoke(app, ["curve", str(table), *sizes, *asked, "--output", str(output)])
    assert done.exit_code == 0, done.output
    found = pd.read_csv(output).query("method == 'transfer'")["error"]
    model = TransferRegressor("SCOTL-MEGNet-Eform", layer="final", head="kernel ridge", on_error="skip")
    expected = learning_curves(TABLE["formula"], TABLE["target"], {"transfer": model}, sizes=[60], repeats=2)
    assert found.tolist() == pytest.approx(expected.frame["error"].tolist(), rel=1e-12)
    mistyped = CliRunner().invoke(app, ["curve", str(table), "--sources", "SCOTL-MEGNet-Efrom"])
    assert isinstance(mistyped.exception, CardError)
    assert "SCOTL-MEGNet-Eform" in str(mistyped.exception)
    for command in ("curve", "validate"):
        for layers, told in ((["noway"], "layer names 'noway', which none"), (["final", "auto"], "or 'auto' alone")):
            options = [part for layer in layers for part in ("--layer", layer)]
            wrong = CliRunner().invoke(app, [command, str(table), "--sources", "SCOTL-MEGNet-Eform", *options])
            assert told in str(wrong.exception)


@pytest.mark.slow
def test_command_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    table, output, figure = tmp_path / "table.csv", tmp_path / "out.csv", tmp_path / "curve.png"
    TABLE.to_csv(table, index=False)
    arguments = [
        "curve",
        str(table),
        "--sizes",
        "20,40,80",
        "--repeats",
        "2",
        "--error",
        "0.2",
        "--output",
        str(output),
    ]
    done = CliRunner().invoke(app, [*arguments, "--plot", str(figure)])
    assert done.exit_code == 0, done.output
    assert figure.read_bytes()[:4] == b"\x89PNG"
    records = pd.read_csv(output)
    assert set(records["n"]) == {20, 40, 80}
    law = PowerLaw.fit(*(records[records["method"] == "no transfer"][name] for name in ("n", "error", "repeat")))
    assert str(law.needed(0.2)) in done.stdout
    again = CliRunner().invoke(app, arguments)
    assert again.stdout == done.stdout
    assert CliRunner().invoke(app, ["curve", str(table), "--sizes", "20,x"]).exit_code == 2
    assert CliRunner().invoke(app, ["curve", str(table), "--error", "-1"]).exit_code == 2
    wrong = CliRunner().invoke(app, [*arguments, "--plot", str(tmp_path / "curve.doc")])
    assert "must end in one of" in str(wrong.exception)
