"""Validation schemes: what is held out is held out, rows of equal composition stay together, figures are right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition
from sklearn.base import clone
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.model_selection import cross_val_score
from typer.testing import CliRunner

from scotl_matgl import load_example
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.formulas import CompositionError
from scotl_matgl.cli.main import app
from scotl_matgl.exceptions import InputError
from scotl_matgl.studies.settings import StudySettings
from scotl_matgl.studies.splitters import (
    SCHEMES,
    ChemicalSystemKFold,
    CompositionKFold,
    LeaveOneClusterOut,
    LeaveOneElementOut,
    make_splitter,
)
from scotl_matgl.studies.validation import validate
from scotl_matgl.transfer.estimators import TransferRegressor

TABLE = load_example().iloc[::6].reset_index(drop=True)  # 290 rows
FORMULAS = TABLE["formula"]
KERNEL = TransferRegressor(sources=[], head="kernel ridge")
# Each composition a second time, written otherwise, in another order.
DOUBLED = [*FORMULAS, *(f"({formula})3" for formula in FORMULAS[::-1])]
KEYS = np.array(parse_compositions(DOUBLED).keys())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_equal_compositions_are_never_on_both_sides(scheme) -> None:
    splitter = make_splitter(scheme)
    folds = list(splitter.split(DOUBLED))
    assert len(folds) == splitter.get_n_splits(DOUBLED) >= 5
    for train, test in folds:
        assert len(train) + len(test) == len(DOUBLED)
        assert len(np.intersect1d(train, test)) == 0
        assert not set(KEYS[train]) & set(KEYS[test])
        assert len(train)
        assert len(test)


@pytest.mark.parametrize("scheme", ["random", "cluster", "chemical system"])
def test_parts_take_every_row_once(scheme) -> None:
    tested = np.concatenate([test for _, test in make_splitter(scheme).split(DOUBLED)])
    np.testing.assert_array_equal(np.sort(tested), np.arange(len(DOUBLED)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_same_seed_same_folds_and_clones_agree(scheme) -> None:
    splitter = make_splitter(scheme, random_state=3)
    for (_, first), (_, second) in zip(splitter.split(FORMULAS), clone(splitter).split(FORMULAS), strict=True):
        np.testing.assert_array_equal(first, second)


def test_other_seeds_give_other_folds() -> None:
    for kind in (CompositionKFold, ChemicalSystemKFold):
        tests = [next(iter(kind(random_state=seed).split(FORMULAS)))[1].tolist() for seed in range(4)]
        assert len({tuple(test) for test in tests}) == 4


def test_element_folds_hold_out_the_element_and_nothing_else() -> None:
    elements = [{element.symbol for element in Composition(formula)} for formula in FORMULAS]
    folds = LeaveOneElementOut(min_formulas=12).folds(FORMULAS)
    counts = pd.Series([symbol for one in elements for symbol in one]).value_counts()
    assert {name for name, _ in folds} == set(counts[counts >= 12].index)
    for name, test in folds:
        assert [name in one for one in elements] == test.tolist()


def test_elements_in_almost_all_formulas_leave_nothing_to_learn_from() -> None:
    oxides = ["MgO", "CaO", "SrO", "BaO", "FeO", "NaCl"]
    # Oxygen is absent from a single formula.
    assert next(name for name, _ in LeaveOneElementOut(min_formulas=1).folds(oxides)) == "O"
    with pytest.raises(InputError, match="no element is in at least 2"):
        LeaveOneElementOut(min_formulas=2).folds(oxides)


def test_systems_never_straddle_and_parts_are_even() -> None:
    systems = np.array([Composition(formula).chemical_system for formula in FORMULAS])
    folds = list(ChemicalSystemKFold(5).split(FORMULAS))
    for train, test in folds:
        assert not set(systems[train]) & set(systems[test])
        assert abs(len(test) - len(FORMULAS) / 5) <= 1


def test_clusters_are_closer_to_themselves_than_to_each_other() -> None:
    from sklearn.metrics import silhouette_score
    from sklearn.preprocessing import StandardScaler

    from scotl_matgl import get_descriptor

    X = StandardScaler().fit_transform(np.nan_to_num(get_descriptor("standard").fit_transform(list(FORMULAS))))

    def silhouette(splitter):
        label = np.empty(len(FORMULAS), dtype=int)
        for number, (_, test) in enumerate(splitter.split(FORMULAS)):
            label[test] = number
        return silhouette_score(X, label)

    assert silhouette(LeaveOneClusterOut(5)) > 0.05 > silhouette(CompositionKFold(5))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["NaCl", "Na2Cl2", "KCl", "LiF", "Li2F2", "MgO", "FeO", "Fe2O3"]), min_size=2),
    st.integers(2, 4),
)
def test_laws_hold_for_any_list_of_formulas(formulas, n_splits) -> None:
    keys = np.array(parse_compositions(formulas).keys())
    for splitter in (CompositionKFold(n_splits), ChemicalSystemKFold(n_splits), LeaveOneElementOut(1)):
        try:
            folds = list(splitter.split(formulas))
        except InputError:
            continue
        for train, test in folds:
            assert not set(keys[train]) & set(keys[test])
            assert len(train) * len(test) > 0
        if not isinstance(splitter, LeaveOneElementOut):
            assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(formulas)))


@pytest.mark.slow
def test_scikit_learn_takes_the_splitters() -> None:
    element = LeaveOneElementOut(min_formulas=25)
    scores = cross_val_score(KERNEL, FORMULAS, TABLE["target"], cv=element, scoring="neg_mean_absolute_error")
    names = [name for name, _ in element.folds(FORMULAS)]
    assert len(scores) == len(names) > 2
    frame = validate(KERNEL, FORMULAS, TABLE["target"], ["element"], min_formulas=25).frame
    measured = frame[frame["scheme"] == "element"].set_index("held_out")["error"]
    np.testing.assert_allclose(measured[names], -scores, rtol=1e-9)
    # A data frame with other columns beside the formulas.
    both = TABLE[["uncertainty", "formula"]]
    by_column = [test.tolist() for _, test in LeaveOneElementOut(25, column="formula").split(both)]
    assert by_column == [test.tolist() for _, test in element.split(FORMULAS)]


@pytest.mark.slow
def test_validation_stands_beside_random_folds_on_the_same_rows() -> None:
    found = validate(
        {"kernel": KERNEL, "mean": DummyRegressor()},
        FORMULAS,
        TABLE["target"],
        min_formulas=40,
        settings=StudySettings(unit="eV"),
    )
    frame = found.frame
    assert set(frame["scheme"]) == set(SCHEMES)
    assert (frame["failure"] == "").all()
    random = frame[frame["scheme"] == "random"]
    np.testing.assert_allclose(random["error"], random["random"])
    mean = frame[frame["method"] == "mean"]
    np.testing.assert_allclose(mean["error"], mean["constant"])
    # Random errors of all rows, put together from clusters or from random parts, are the same.
    kernel = frame[frame["method"] == "kernel"]
    total = {scheme: np.sum(part["random"] * part["n_test"]) for scheme, part in kernel.groupby("scheme")}
    assert total["cluster"] == pytest.approx(total["random"])
    assert total["chemical system"] == pytest.approx(total["random"])
    summary = found.summary()
    assert summary.loc[("kernel", "cluster"), "error"] == pytest.approx(
        kernel[kernel["scheme"] == "cluster"]["error"].mean()
    )
    # Extrapolation is harder, by far where whole clusters are missing.
    assert summary.loc[("kernel", "cluster"), "ratio"] > 1.5
    assert summary.loc[("kernel", "random"), "ratio"] == pytest.approx(1.0)
    text = str(found)
    assert "mean absolute error eV" in text
    assert f"{summary.loc[('kernel', 'cluster'), 'error']:.3g}" in text


class Moody(DummyRegressor):
    """Fails where too few rows are given."""

    def fit(self, X, y, sample_weight=None):
        if len(X) < 232:
            raise ValueError("too few rows")
        return super().fit(X, y)


def test_failures_and_what_was_left_out_are_listed() -> None:
    found = validate(Moody(), FORMULAS, TABLE["target"], ["element", "cluster"], min_formulas=20, max_folds=3)
    assert found.failures["failure"].str.contains("too few rows").all()
    assert 0 < len(found.failures) < len(found.frame)
    assert (found.frame[found.frame["failure"] != ""]["n_train"] < 232).all()
    assert found.left_out["element"].startswith("3 of ")
    assert "fits failed, the first is Moody" in str(found)
    impossible = validate(DummyRegressor(), FORMULAS, TABLE["target"], ["element"], min_formulas=250)
    assert "no element is in at least 250" in impossible.left_out["element"]
    assert impossible.frame["scheme"].unique().tolist() == ["random"]


def test_class_labels() -> None:
    labels = np.where(TABLE["target"] < -1, "low", "high")
    found = validate(DummyClassifier(), FORMULAS, labels, ["random", "chemical system"])
    np.testing.assert_allclose(found.frame["error"], found.frame["constant"])
    assert found.metric == "error rate"


def test_wrong_input_is_said_in_a_sentence() -> None:
    with pytest.raises(InputError, match="there is no scheme 'leave one out'"):
        validate(DummyRegressor(), FORMULAS, TABLE["target"], ["leave one out"])
    with pytest.raises(InputError, match="5 folds need as many different chemical systems, and there are 2"):
        list(ChemicalSystemKFold().split(["NaCl", "FeO", "Fe2O3"]))
    with pytest.raises(InputError, match="fall into 2 clusters, not 3"):
        list(LeaveOneClusterOut(3, descriptor="stoichiometry").split(["NaCl", "KCl", "FeO", "Fe2O3"]))
    with pytest.raises(InputError, match="n_splits is 1"):
        list(CompositionKFold(1).split(FORMULAS))
    with pytest.raises(InputError, match="needs the formulas"):
        LeaveOneElementOut().get_n_splits()
    with pytest.raises(CompositionError, match="row 1"):
        list(CompositionKFold(2).split(["NaCl", "FE2O3", "KCl"]))
    assert CompositionKFold(4).get_n_splits() == 4


@pytest.mark.slow
def test_command_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    table, output = tmp_path / "table.csv", tmp_path / "folds.csv"
    TABLE.iloc[::2].to_csv(table, index=False)
    arguments = ["validate", str(table), "--scheme", "chemical system", "--folds", "3", "--output", str(output)]
    arguments += ["--head", "kernel ridge", "--jobs", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    frame = pd.read_csv(output, keep_default_na=False)
    assert frame[frame["method"] == "no transfer"]["scheme"].tolist() == ["random"] * 3 + ["chemical system"] * 3
    mean = (
        frame[(frame["method"] == "no transfer") & (frame["scheme"] == "chemical system")]["error"].astype(float).mean()
    )
    assert f"{mean:.3g}" in done.stdout
    wrong = CliRunner().invoke(app, ["validate", str(table), "--scheme", "nothing"])
    assert "there is no scheme 'nothing'" in str(wrong.exception)


def test_what_was_understood_of_a_table_is_told() -> None:
    cells = [f"{value} eV" for value in TABLE["target"]]
    found = validate(DummyRegressor(), FORMULAS, cells, ["element"], min_formulas=250)
    assert any("eV" in remark for remark in found.remarks)
    for remark in found.remarks:
        assert remark in " ".join(str(found).split())
