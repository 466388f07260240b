"""The ranker: its numbers against scikit-learn, laws of ranking, what it skips, and what it isolates."""

from __future__ import annotations

import json
import pickle
import warnings
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.ensemble import (
    ExtraTreesClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import BayesianRidge, Ridge, RidgeCV
from sklearn.preprocessing import StandardScaler, normalize

from scotl_matgl import TransferabilityRanker, load_example
from scotl_matgl.bridges.lookup import LookUp
from scotl_matgl.bridges.store import find_bridge, look_up_path
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.formulas import CompositionError
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.estimators import KNN, LogME, LOORidge
from scotl_matgl.estimators.base import TransferabilityEstimator
from scotl_matgl.exceptions import InputError, ScotlMatglWarning
from scotl_matgl.learners.heads import out_of_fold_loss
from scotl_matgl.sources.cards import SourceCard, all_cards, select
from scotl_matgl.studies.judging import ordered_pairs
from scotl_matgl.tables.folds import make_folds
from scotl_matgl.tables.rows import Rows
from scotl_matgl.vocabulary import NO_TRANSFER

ENTHALPY = "MEGNet-MP-2018.6.1-Eform"
GAPS = tuple(f"MEGNet-MP-2019.4.1-BandGap-mfi-{state}" for state in ("GLLB-SC", "HSE", "PBE", "SCAN"))

pytestmark = pytest.mark.usefixtures("only_what_is_shipped")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Some compositions, sorted as a ranking sorts them, so that its rows are those of the table."""
    frame = load_example().iloc[::8]
    keys = pd.Series(parse_compositions(frame["formula"]).keys(), index=frame.index)
    return frame.loc[keys.drop_duplicates().sort_values().index].reset_index(drop=True)


@pytest.fixture(scope="module")
def small(table) -> pd.DataFrame:
    return table.iloc[::4].reset_index(drop=True)


@pytest.fixture(scope="module")
def fitted(table) -> TransferabilityRanker:
    ranker = TransferabilityRanker("MEGNet-MP-*", head="kernel ridge", target_unit="eV/atom")
    return ranker.fit(table["formula"], table["target"])


@pytest.fixture(scope="module")
def described(table) -> np.ndarray:
    return get_descriptor("standard").fit_transform(table["formula"])


def embedding(name: str, X: np.ndarray) -> np.ndarray:
    (card,) = select(all_cards(), name)
    return find_bridge(card, "readout", get_descriptor("standard")).load().transform(X).astype(np.float64)


def quick(sources: Any = ENTHALPY, **parameters: Any) -> TransferabilityRanker:
    return TransferabilityRanker(sources, **({"estimators": ["loo"], "head": "kernel ridge"} | parameters))


# -- the numbers ------------------------------------------------------------------------------------------------------


def test_leave_one_out_error_is_that_of_ridge_cv(fitted, table, described) -> None:
    y = table["target"].to_numpy()
    for result in fitted.ranking_.results:
        Z = embedding(result.source, described)
        alpha = LOORidge().fit(Z, y).alpha_
        oracle = RidgeCV(alphas=[alpha], store_cv_results=True).fit(StandardScaler().fit_transform(Z), y)
        assert result.loo_rmse == pytest.approx(np.sqrt(oracle.cv_results_.mean()), rel=1e-6)
        assert result.scores["loo"] == -result.loo_rmse


def test_scotl_score_is_that_of_ridge_on_unit_rows(fitted, table, described) -> None:
    y = table["target"].to_numpy()
    for result in fitted.ranking_.results:
        Z = normalize(embedding(result.source, described))
        residual = y - Ridge(alpha=1.0).fit(Z, y).predict(Z)
        assert result.scores["scotl"] == pytest.approx(1 / np.sqrt(np.mean(residual**2)), rel=1e-6)


def test_logme_is_the_evidence_of_bayesian_ridge(fitted, table, described) -> None:
    y = table["target"].to_numpy()
    result = fitted.ranking_.results[0]
    Z = embedding(result.source, described)
    none = {"alpha_1": 0.0, "alpha_2": 0.0, "lambda_1": 0.0, "lambda_2": 0.0}
    oracle = BayesianRidge(max_iter=5000, tol=1e-10, compute_score=True, **none)
    oracle.fit(Z - Z.mean(axis=0), y)
    assert result.scores["logme"] == pytest.approx(oracle.scores_[-1] / len(y), rel=1e-3)


def test_coverage_is_counted(fitted, table) -> None:
    ranking = fitted.ranking_
    assert ranking.n_rows == len(ranking.control) == len(set(parse_compositions(table["formula"]).keys()))
    for result in ranking.results:
        assert (result.looked_up, result.bridged, result.refused) == (0, ranking.n_rows, 0)
        assert result.seconds > 0


def test_transform_gives_the_embedding_of_the_first_source(fitted, table, described) -> None:
    assert fitted.best_source_ == ENTHALPY
    Z = embedding(ENTHALPY, described)
    # Bridges work in single precision, whose rounding depends on the size of the batch.
    np.testing.assert_allclose(fitted.transform(table["formula"]), Z, atol=1e-5 * np.abs(Z).max())
    np.testing.assert_allclose(
        fitted.transform(["NaCl"]), fitted.transform(["ClNa", "MgO"])[:1], atol=1e-5 * np.abs(Z).max()
    )


# -- for training on the embedding alone ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(small) -> TransferabilityRanker:
    return quick("MEGNet-MP-*", combine="embedding").fit(small["formula"], small["target"])


@pytest.mark.slow
def test_losses_of_the_embedding_alone_are_those_of_a_forest_out_of_bag(alone, small) -> None:
    X, y = get_descriptor("standard").fit_transform(small["formula"]), small["target"].to_numpy()
    oracle = RandomForestRegressor(100, max_features=1 / 3, oob_score=True, random_state=0)
    ranking = alone.ranking_
    assert ranking.head == ranking.control_name == "random forest on descriptors"
    np.testing.assert_allclose(ranking.control, np.abs(oracle.fit(X, y).oob_prediction_ - y), rtol=1e-9)
    assert dict(ranking.control_errors) == {ranking.head: ranking.error_of_control}
    for result, loss in zip(ranking.results, ranking.losses, strict=True):
        expected = np.abs(oracle.fit(embedding(result.source, X), y).oob_prediction_ - y)
        # Bridges work in single precision: a tree may split otherwise.
        assert loss.mean() == pytest.approx(expected.mean(), rel=0.02)


@pytest.mark.slow
def test_order_for_the_embedding_alone_is_that_of_a_forest_and_kernel_ridge(alone, small) -> None:
    X, y = get_descriptor("standard").fit_transform(small["formula"]), small["target"].to_numpy()
    rows = Rows.read(small["formula"], y)
    sets = [rows.folds(random_state=repeat) for repeat in range(3)]
    ranking = alone.ranking_
    kernel = [
        np.mean([out_of_fold_loss("kernel ridge", embedding(name, X), y, folds).mean() for folds in sets])
        for name in ranking.sources
    ]
    criterion = np.log(ranking.losses.mean(axis=1)) + np.log(kernel)
    assert np.all(np.diff(criterion) >= 0)
    judged = ranking.judgement.criterion[ranking.judgement.order]
    np.testing.assert_allclose(judged, criterion - 2 * np.log(ranking.error_of_control), atol=1e-5)
    content = json.loads(ranking.to_json())
    assert content["combine"] == "embedding"
    assert "for training on the embedding alone" in str(ranking)


@pytest.mark.slow
def test_labels_are_ranked_for_the_embedding_alone_by_what_takes_them(small) -> None:
    labels = np.where(small["target"] < -1, "stable", "loose")
    ranking = quick(GAPS, combine="embedding").fit(small["formula"], labels).ranking_
    X = get_descriptor("standard").fit_transform(small["formula"])
    votes = RandomForestClassifier(100, max_features=1 / 3, oob_score=True, random_state=0).fit(X, labels)
    truth = labels[:, None] == votes.classes_
    np.testing.assert_allclose(ranking.control, ((votes.oob_decision_function_ - truth) ** 2).sum(axis=1), rtol=1e-9)


@pytest.mark.slow
def test_the_first_together_on_the_embedding_alone_are_forests_too(alone, small) -> None:
    # Their mean prediction was that of kernel ridge, against forests as the control.
    y, ranking = small["target"].to_numpy(), alone.ranking_
    forest = RandomForestRegressor(100, max_features=1 / 3, oob_score=True, random_state=0)
    X = get_descriptor("standard").fit_transform(small["formula"])
    predicted = [forest.fit(embedding(name, X), y).oob_prediction_ for name in ranking.sources[:5]]
    expected = np.abs(np.mean(predicted, axis=0) - y).mean()
    assert ranking.judgement.together_error == pytest.approx(expected, rel=0.02)


@pytest.fixture(scope="module", params=["expt_formation_enthalpy", "expt_gap_nonmetals"])
def held_out(request, assets) -> tuple[Rows, np.ndarray, np.ndarray]:
    """A measured table, 200 of its rows to rank on, and 800 others."""
    frame = pd.read_csv(assets / "targets" / f"{request.param}.csv", keep_default_na=False)
    table = Rows.read(frame["composition"], frame["target"])
    order = np.random.default_rng(0).permutation(len(table.y))
    return table, order[:200], order[200:1000]


def test_order_agrees_with_forests_trained_on_the_embedding_alone(held_out) -> None:
    table, train, test = held_out
    ranked = [table.compositions.text[row] for row in train]
    orders = {
        combine: quick("MEGNet-MP-*", combine=combine).fit(ranked, table.y[train]).ranking_.sources
        for combine in ("embedding", "concat")
    }
    X = get_descriptor("standard").fit_transform(table.compositions)
    names = sorted(orders["embedding"])
    losses = []
    for name in names:
        Z = embedding(name, X)
        forest = RandomForestRegressor(100, max_features=1 / 3, random_state=1).fit(Z[train], table.y[train])
        losses.append(np.abs(forest.predict(Z[test]) - table.y[test]))
    # Four standard errors: mostly the source of energies against those of gaps, which 200 rows can tell, and not the
    # four networks of band gaps from each other, which they cannot.
    width = np.array([[2 * stats.sem(one - other) for other in losses] for one in losses])
    right = {}
    for combine, order in orders.items():
        ranks = [-order.index(name) for name in names]
        right[combine], pairs = ordered_pairs(ranks, np.mean(losses, axis=1), width)
    assert pairs >= 3
    assert right["embedding"] == pairs
    assert right["embedding"] >= right["concat"]


class Part:
    """One of two parts of a target: what descriptors can tell too, or what they cannot."""

    def __init__(self, card: SourceCard) -> None:
        self.part = {"known": known_part, "hidden": hidden_part}[card.name]

    def encode(self, compositions: Any, *, layer: str) -> np.ndarray:
        return np.column_stack([self.part(compositions)] * 2)


def known_part(compositions: Any) -> np.ndarray:
    return 1.5 * stats.zscore(compositions.dense_fractions() @ np.arange(1, 119))


def hidden_part(compositions: Any) -> np.ndarray:
    seeds = [int.from_bytes(text.encode(), "little") for text in compositions.text]
    return np.array([np.random.default_rng(seed).normal() for seed in seeds])


@pytest.mark.slow
def test_what_is_best_alone_is_not_what_is_best_beside_descriptors(table) -> None:
    compositions = parse_compositions(table["formula"])
    y = known_part(compositions) + hidden_part(compositions)
    sources = [card(name, "Part") for name in ("known", "hidden")]
    orders = {
        combine: quick(sources, combine=combine).fit(table["formula"], y).ranking_.sources
        for combine in ("embedding", "concat")
    }
    # Alone, the source of the larger part leaves the smaller one as error; beside descriptors, which tell the larger
    # part as well, it adds nothing and the other source nearly all that is missing.
    assert orders == {"embedding": ("known", "hidden"), "concat": ("hidden", "known")}


# -- the verdict ------------------------------------------------------------------------------------------------------


def test_enthalpies_profit_from_the_enthalpy_source_most(fitted) -> None:
    ranking = fitted.ranking_
    assert ranking.sources[0] == ENTHALPY
    assert set(ranking.sources[1:]) == set(GAPS)
    assert ranking.verdict == "yes"
    assert ranking.ties == ()


def test_measured_enthalpies_of_the_assets(assets) -> None:
    frame = pd.read_csv(assets / "targets" / "expt_formation_enthalpy.csv", keep_default_na=False)
    ranking = quick("MEGNet-MP-*", max_rows=400).fit(frame["composition"], frame["target"]).ranking_
    assert ranking.best == ranking.sources[0] == ENTHALPY
    assert set(ranking.sources) == {ENTHALPY, *GAPS}
    assert min(ranking.results, key=lambda result: result.loo_rmse).source == ENTHALPY


def test_measured_band_gaps_of_the_assets(assets) -> None:
    frame = pd.read_csv(assets / "targets" / "expt_gap_nonmetals.csv", keep_default_na=False)
    ranking = quick("MEGNet-MP-*", max_rows=400).fit(frame["composition"], frame["target"]).ranking_
    assert ranking.sources[0] in GAPS
    # The leave-one-out error, on all rows, says the same.
    assert min(ranking.results, key=lambda result: result.loo_rmse).source in GAPS


def test_a_target_that_nothing_knows_is_not_worth_a_transfer(table) -> None:
    shuffled = np.random.default_rng(0).permutation(table["target"])
    ranker = quick("MEGNet-MP-*").fit(table["formula"], shuffled)
    assert ranker.best_source_ == ranker.ranking_.best == NO_TRANSFER
    assert str(ranker.ranking_).startswith("Do not transfer")


def test_a_target_made_from_a_source_finds_that_source(table, described) -> None:
    Z = StandardScaler().fit_transform(embedding(GAPS[1], described))
    y = Z @ np.random.default_rng(0).normal(size=Z.shape[1])
    ranking = quick("MEGNet-MP-*").fit(table["formula"], y).ranking_
    assert ranking.best == GAPS[1]
    left_out = {result.source: result.loo_rmse for result in ranking.results}
    assert left_out.pop(GAPS[1]) < 0.1 * min(left_out.values())


# -- laws -------------------------------------------------------------------------------------------------------------


def without_seconds(ranker: TransferabilityRanker) -> pd.DataFrame:
    return ranker.ranking_.to_frame().drop(columns="seconds")


def test_same_seed_same_result_and_another_seed_other_folds(small) -> None:
    first, second = (quick(GAPS).fit(small["formula"], small["target"]) for _ in range(2))
    pd.testing.assert_frame_equal(without_seconds(first), without_seconds(second), check_exact=True)
    other = quick(GAPS, random_state=1).fit(small["formula"], small["target"])
    assert other.ranking_.error_of_control != first.ranking_.error_of_control
    # What uses no folds does not change.
    assert {item.source: item.loo_rmse for item in other.ranking_.results} == {
        item.source: item.loo_rmse for item in first.ranking_.results
    }


def test_input_may_be_a_list_an_array_or_a_series_with_any_index(small) -> None:
    reference = without_seconds(quick().fit(small["formula"], small["target"]))
    odd = small.set_index(pd.Index(np.arange(len(small)) * 7 + 3)[::-1])
    for formulas, y in (
        (list(small["formula"]), list(small["target"])),
        (small["formula"].to_numpy(), small["target"].to_numpy()),
        (odd["formula"], odd["target"]),
        (parse_compositions(small["formula"]), small["target"].astype("Float64")),
    ):
        pd.testing.assert_frame_equal(without_seconds(quick().fit(formulas, y)), reference, check_exact=True)


@pytest.mark.parametrize(("values", "middle"), [((1.0, 5.0, 3.0), 3.0), ((1.0, 4.0), 2.5), ((2.0, 9.0, 4.0, 3.0), 3.5)])
def test_repeated_compositions_are_one_row_with_their_median(small, values, middle) -> None:
    spellings = ["Li2O", "OLi2", "Li4O2", "Li2O1"][: len(values)]
    others = small[small["formula"] != "Li2O"]
    merged = quick().fit([*others["formula"], "Li2O"], [*others["target"], middle])
    repeated = quick().fit([*others["formula"], *spellings], [*others["target"], *values])
    assert repeated.ranking_.n_merged == merged.ranking_.n_merged + len(values) - 1
    pd.testing.assert_frame_equal(without_seconds(repeated), without_seconds(merged), check_exact=True)
    assert f"rows merged with another of the same composition: {len(values) - 1}" in str(repeated.ranking_)


def test_repeated_compositions_take_the_most_frequent_label(small) -> None:
    others = small[small["formula"] != "Li2O"]
    labels = np.where(others["target"] < -1, "stable", "loose")
    for votes, label in ((["loose", "stable", "loose"], "loose"), (["stable", "loose", "stable"], "stable")):
        repeated = quick().fit([*others["formula"], "Li2O", "OLi2", "Li4O2"], [*labels, *votes])
        merged = quick().fit([*others["formula"], "Li2O"], [*labels, label])
        pd.testing.assert_frame_equal(without_seconds(repeated), without_seconds(merged), check_exact=True)


def test_max_rows_bounds_the_folds_and_not_the_scores(table, fitted) -> None:
    ranking = quick(max_rows=60).fit(table["formula"], table["target"]).ranking_
    assert (ranking.n_rows, ranking.losses.shape) == (fitted.ranking_.n_rows, (1, 60))
    (full,) = (result for result in fitted.ranking_.results if result.source == ENTHALPY)
    assert ranking.results[0].loo_rmse == full.loo_rmse
    assert "errors and gains on 60 of them, drawn at random" in str(ranking)


# -- screening --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("combine", ["concat", "embedding"])
def test_sources_that_are_screened_out_have_scores_and_no_error_and_change_no_other(small, combine) -> None:
    data = small["formula"], small["target"]
    # Of heads other than kernel ridge, which take longer, two thirds of `max_measured` are measured.
    full = quick("MEGNet-MP-*", combine=combine, head="extra trees").fit(*data).ranking_
    part = quick("MEGNet-MP-*", combine=combine, head="extra trees", max_measured=3).fit(*data).ranking_
    assert full.screened == ()
    assert (len(part.results), len(part.screened)) == (2, 3)
    assert {*part.sources, *(result.source for result in part.screened)} == {*full.sources}
    for name, losses in zip(part.sources, part.losses, strict=True):
        np.testing.assert_array_equal(losses, full.losses[full.sources.index(name)])
    known = {result.source: result for result in full.results}
    for result in part.screened:
        assert result.scores["loo"] == known[result.source].scores["loo"]
        assert result.loo_rmse == known[result.source].loo_rmse
    frame = part.to_frame()
    assert list(frame["source"][-3:]) == [result.source for result in part.screened]
    assert frame[["error", "gain", "gain_low", "gain_percent", "p_helps", "p_best"]][-3:].isna().all(axis=None)
    assert not frame[["error", "gain"]][:-3].isna().any(axis=None)
    text = " ".join(str(part).split())
    names = ", ".join(result.source for result in part.screened)
    assert "the first 2 sources; 3 others are in .to_frame() and .to_csv(): " in text
    assert names in text
    assert "the best of 5 sources, " in part.summary() or part.helps
    assert json.loads(str(part.to_json()))["ranking"][-1]["error"] is None


# -- what is skipped --------------------------------------------------------------------------------------------------


def with_faults(small: pd.DataFrame) -> tuple[list[Any], list[Any]]:
    formulas, y = list(small["formula"]), list(small["target"])
    formulas[3], formulas[7] = "FE2O3", ""
    y[0], y[3], y[5], y[9], y[11] = float("nan"), float("nan"), float("inf"), None, "n/a"
    return formulas, y


def test_bad_rows_are_skipped_and_listed_with_their_place(small) -> None:
    formulas, y = with_faults(small)
    labels = [f"sample {row}" for row in range(len(y))]
    with pytest.warns(ScotlMatglWarning, match=r"6 rows were skipped, the first is row 0 \(nan\): the target of"):
        ranking = quick().fit(pd.Series(formulas, index=labels), y).ranking_
    assert [row.row for row in ranking.skipped] == [0, 3, 5, 7, 9, 11]
    assert [row.label for row in ranking.skipped] == [labels[row] for row in (0, 3, 5, 7, 9, 11)]
    assert [row.value for row in ranking.skipped] == ["nan", "'FE2O3'", "inf", "''", "None", "'n/a'"]
    assert "did you mean 'Fe2O3'" in ranking.skipped[1].reason
    assert ranking.skipped[2].reason == (
        f"the target of {formulas[5]} is no finite number; measure it or leave it out"
    )  # fmt: skip
    good = [row for row in range(len(y)) if row not in (0, 3, 5, 7, 9, 11)]
    alone = quick().fit([formulas[row] for row in good], [y[row] for row in good])
    assert ranking.n_rows + ranking.n_merged == len(good)
    np.testing.assert_array_equal(ranking.losses, alone.ranking_.losses)


def test_on_error_raise_and_skip(small) -> None:
    formulas, y = with_faults(small)
    with pytest.raises(CompositionError, match="row 3: 'FE2O3' cannot be read"):
        quick(on_error="raise").fit(formulas, y)
    with pytest.raises(CompositionError, match=r"row 0 \(nan\): the target of .* is no finite number") as caught:
        quick(on_error="raise").fit(small["formula"], y)
    assert [row.row for row in caught.value.skipped] == [0, 3, 5, 9, 11]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(quick(on_error="skip").fit(formulas, y).ranking_.skipped) == 6


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, "", "  "])
def test_a_missing_label_is_no_class(small, missing) -> None:
    labels = list(np.where(small["target"] < -1, "stable", "loose"))
    labels[4] = missing
    ranking = quick(on_error="skip").fit(small["formula"], labels).ranking_
    assert [row.row for row in ranking.skipped] == [4]
    assert ranking.skipped[0].reason.endswith("is no class label; measure it or leave it out")
    assert ranking.measure == "Brier score"


def test_whole_numbers_stay_labels_where_one_is_missing(small) -> None:
    labels = [int(value < -1) for value in small["target"]]
    complete = quick().fit(small["formula"][1:], labels[1:]).ranking_
    assert complete.classification
    for series in ([None, *labels[1:]], pd.Series([None, *labels[1:]], dtype="Int64")):
        gap = quick(on_error="skip").fit(small["formula"], series).ranking_
        assert gap.classification
        np.testing.assert_array_equal(gap.losses, complete.losses)


def test_numbers_written_as_text_are_read_for_regression(small) -> None:
    text = [*map(str, small["target"][:-1]), "unknown"]
    ranking = quick(task="regression", on_error="skip").fit(small["formula"], text).ranking_
    numbers = quick().fit(small["formula"][:-1], small["target"][:-1]).ranking_
    assert [row.value for row in ranking.skipped] == ["'unknown'"]
    np.testing.assert_array_equal(ranking.losses, numbers.losses)


# -- class labels -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_error_of_labels_is_the_brier_score(table, described) -> None:
    labels = np.where(table["target"] < -1, "stable", "loose")
    ranking = quick(estimators=["loo", "logme", "scotl"], head="extra trees").fit(table["formula"], labels).ranking_
    assert ranking.classification
    predicted = np.empty((len(labels), 2))
    for fold, (train, test) in enumerate(Rows.read(table["formula"], labels).folds()):
        oracle = ExtraTreesClassifier(40, max_features=1 / 3, random_state=fold)
        predicted[test] = oracle.fit(described[train], labels[train]).predict_proba(described[test])
    wanted = labels[:, None] == np.unique(labels)
    expected = ((predicted - wanted) ** 2).sum(axis=1).mean()
    assert ranking.control_errors["extra trees on descriptors"] == pytest.approx(expected)
    assert ranking.error_of_control == min(ranking.control_errors.values())
    assert all(np.isnan(result.loo_rmse) for result in ranking.results)
    assert set(ranking.results[0].scores) == {"logme"}
    assert dict(ranking.unscored) == dict.fromkeys(("loo", "scotl"), "it takes no target for classification")


@pytest.mark.parametrize("form", [str, np.asarray, pd.Categorical])
def test_names_of_classes_do_not_matter(small, form) -> None:
    codes = np.digitize(small["target"], [-1.5, -0.5])
    reference = quick().fit(small["formula"], codes).ranking_
    assert reference.classification
    names = np.array(["c", "a", "b"])[codes]
    labels = form(names) if form is not str else [str(name) for name in names]
    ranking = quick().fit(small["formula"], labels).ranking_
    assert len(set(labels)) == 3
    assert dict(ranking.control_errors) == pytest.approx(dict(reference.control_errors), rel=1e-9)
    np.testing.assert_allclose(ranking.losses, reference.losses, rtol=1e-9, atol=1e-12)


def test_a_rare_class_costs_no_folds() -> None:
    y = np.repeat([0, 1, 2], [60, 38, 2])
    folds = make_folds(y, classification=True)
    assert [len(test) for _, test in folds] == [20] * 5
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(100))
    assert [np.bincount(y[test], minlength=2)[0] for _, test in folds] == [12] * 5


def test_a_class_with_one_member_does_not_end_the_run(small) -> None:
    labels = np.where(small["target"] < -1, "stable", "loose").astype(object)
    labels[2] = "odd one"
    ranking = quick().fit(small["formula"], labels).ranking_
    assert ranking.sources == (ENTHALPY,)
    labels[:] = "all"
    labels[2] = "odd one"
    ranking = quick().fit(small["formula"], labels).ranking_
    # Only the odd one has an error worth naming, of at most 2.
    assert ranking.control.max() < 2
    assert ranking.error_of_control < 2.5 / ranking.n_rows


def test_metals_of_the_assets(assets) -> None:
    frame = pd.read_csv(assets / "targets" / "expt_is_metal.csv", keep_default_na=False).iloc[::14]
    ranking = quick("MEGNet-MP-*", estimators=["logme"]).fit(frame["composition"], frame["target"]).ranking_
    assert ranking.classification
    frequent = max(frame["target"].mean(), 1 - frame["target"].mean())
    # Of one share for all rows the Brier score is twice the product of the two.
    assert ranking.error_of_control < 0.6 * 2 * frequent * (1 - frequent)
    assert "Brier score" in ranking.summary()


# -- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"on_error": "ignore"}, "on_error is 'ignore'; it must be 'warn', 'raise' or 'skip'"),
        ({"look_up": "yes"}, "look_up is 'yes'; it must be 'auto', True or False"),
        ({"combine": "both"}, "combine is 'both'; it must be 'concat' or 'embedding'"),
        ({"task": "ranking"}, "task is 'ranking'; it must be 'auto', 'regression' or 'classification'"),
        ({"max_rows": 5}, "max_rows is 5; it must be a whole number of at least 10"),
        ({"max_rows": 50.0}, "max_rows is 50.0; it must be a whole number"),
        ({"max_measured": 0}, "max_measured is 0; it must be a whole number of at least 1"),
        ({"random_state": -1}, "random_state is -1; it must be a whole number of at least 0"),
        ({"random_state": None}, "random_state is None; it must be a whole number"),
        ({"sources": "MEGNet-Eform"}, "There is no source 'MEGNet-Eform'; did you mean"),
        ({"estimators": ["lo"]}, "Unknown estimator 'lo'; did you mean 'loo'?"),
        ({"descriptor": "standart"}, "Unknown descriptor 'standart'; did you mean 'standard'?"),
    ],
)
def test_wrong_parameters_are_told_in_a_sentence(small, parameters, message) -> None:
    with pytest.raises((InputError, ValueError, RuntimeError)) as caught:
        quick(**parameters).fit(small["formula"], small["target"])
    assert message in str(caught.value)


def test_wrong_tables_are_told_in_a_sentence(small) -> None:
    formulas, y = small["formula"], small["target"]
    for bad_formulas, bad_y, message in (
        (formulas, y[:-1], rf"there are {len(y)} formulas and the target has shape \({len(y) - 1},\)"),
        (formulas, np.ones((len(y), 2)), r"the target has shape \(\d+, 2\); give one value for each"),
        (formulas, np.ones(len(y)), "the target is 1 in every row; there is nothing to learn"),
        (formulas, ["metal"] * len(y), "every formula has the class 'metal'; there is nothing to learn"),
        (formulas, [f"sample {row}" for row in range(len(y))], "which are too many for class labels"),
        (formulas, y + 1j, "the target holds values of type complex128"),
        (formulas, pd.date_range("2020", periods=len(y)), "the target holds values of type datetime64"),
        (["xx"] * 12, range(12), r"only 0 different .* of 12 rows; .* row 0 \('xx'\) was skipped: 'xx' is not an"),
        (["NaCl", "MgO"] * 9, range(18), "only 2 different compositions can be used of 18 rows; at least 10"),
        (formulas, [None] * len(y), "only 0 different compositions"),
    ):
        with pytest.raises(InputError, match=message):
            quick(on_error="skip").fit(bad_formulas, bad_y)
    with pytest.raises(TypeError, match="one formula where a column of formulas is expected"):
        quick().fit("NaCl", [1.0])


def test_ten_formulas_are_enough(table) -> None:
    ranking = quick(GAPS).fit(table["formula"][:10], table["target"][:10]).ranking_
    assert ranking.losses.shape == (4, 10)
    assert np.isfinite(ranking.to_frame()["error"]).all()


# -- sources and estimators that fail ---------------------------------------------------------------------------------


def card(name: str, encode: str = "Lengths", **fields: Any) -> SourceCard:
    fixed = {
        "zoo": "test", "modality": "composition", "property": "length", "unit": "1", "dataset": "none",
        "architecture": "none", "layers": {"readout": 2}, "licence": "none", "citation": "none",
    }  # fmt: skip
    return SourceCard(name=name, loader=f"{__name__}:{encode}", **(fixed | fields))


class Lengths:
    """A composition source: number of elements and of characters; it refuses oxides."""

    def __init__(self, card: SourceCard) -> None:
        self.card = card

    def encode(self, compositions: Any, *, layer: str) -> np.ndarray:
        assert layer == "readout"
        lengths = [(len(compositions[i][0]), len(compositions.text[i])) for i in range(len(compositions))]
        values = np.array(lengths, dtype=np.float64)
        values[[8 in compositions[i][0] for i in range(len(compositions))]] = np.nan
        return values


def refuse_to_load(card: SourceCard) -> Any:
    raise RuntimeError("the weights are on another machine")


def wrong_shape(card: SourceCard) -> Any:
    return SimpleNamespace(encode=lambda _compositions, **_: np.zeros((3, 2)))


def constant(card: SourceCard) -> Any:
    return SimpleNamespace(encode=lambda compositions, **_: np.ones((len(compositions), 2)))


def test_sources_that_fail_cost_their_own_line_only(small) -> None:
    broken = [
        card("cannot-load", "refuse_to_load"),
        card("not-there", "no_such_function"),
        card("wrong-shape", "wrong_shape"),
        card("says-nothing", "constant"),
        card("no-bridge", modality="structure"),
    ]
    ranker = quick([*broken, ENTHALPY, card("lengths")], on_error="skip").fit(small["formula"], small["target"])
    alone = quick(ENTHALPY).fit(small["formula"], small["target"])
    assert set(ranker.ranking_.sources) == {ENTHALPY, "lengths"}
    at = ranker.ranking_.sources.index(ENTHALPY)
    np.testing.assert_array_equal(ranker.ranking_.losses[at], alone.ranking_.losses[0])
    assert set(ranker.errors_) == {item.name for item in broken}
    assert "the weights are on another machine" in ranker.errors_["cannot-load"]
    assert "no_such_function" in ranker.errors_["not-there"]
    assert "(3, 2)" in ranker.errors_["wrong-shape"]
    assert "there is no bridge" in ranker.errors_["no-bridge"]
    assert "scotl-matgl bridge build --sources no-bridge" in ranker.errors_["no-bridge"]
    assert ranker.ranking_.errors == ranker.errors_
    with pytest.warns(ScotlMatglWarning, match="5 sources were not ranked, the first is cannot-load: "):
        quick([*broken, ENTHALPY]).fit(small["formula"], small["target"])
    failing = quick([broken[0], ENTHALPY], on_error="raise")
    with pytest.raises(RuntimeError, match=r"cannot-load cannot be ranked: .* another machine$"):
        failing.fit(small["formula"], small["target"])
    assert failing.ranking_.sources == (ENTHALPY,)


def test_nothing_but_failures_still_gives_the_control(small) -> None:
    ranker = quick(card("cannot-load", "refuse_to_load"), on_error="skip").fit(small["formula"], small["target"])
    assert ranker.best_source_ == NO_TRANSFER
    assert ranker.ranking_.summary().startswith("No source could be ranked; mean absolute error 0.")
    with pytest.raises(ValueError, match="no source could be ranked, so there is no embedding; errors_ says why"):
        ranker.transform(["NaCl"])


def test_refused_formulas_are_counted_and_take_the_mean(small) -> None:
    compositions = parse_compositions(small["formula"])
    oxides = np.array([8 in compositions[i][0] for i in range(len(compositions))])
    assert 0 < oxides.sum() < len(oxides)
    ranker = quick(card("lengths"), on_error="skip").fit(small["formula"], small["target"])
    (result,) = ranker.ranking_.results
    assert (result.refused, result.bridged) == (oxides.sum(), (~oxides).sum())
    Z = Lengths(card("lengths")).encode(compositions, layer="readout")
    np.testing.assert_allclose(ranker.transform(small["formula"])[oxides], np.nanmean(Z, axis=0)[None].repeat(
        oxides.sum(), axis=0))  # fmt: skip


class Broken(TransferabilityEstimator):
    """An estimator that fails."""

    tasks: ClassVar[tuple[str, ...]] = ("regression", "classification")

    def _score(self, _spectra: Any, _y: Any) -> float:
        raise ZeroDivisionError("it divides by zero")


def test_an_estimator_that_fails_costs_its_score_only(small) -> None:
    ranking = quick([ENTHALPY, GAPS[0]], estimators=["loo", Broken()]).fit(small["formula"], small["target"]).ranking_
    assert set(ranking.sources) == {ENTHALPY, GAPS[0]}
    assert all(np.isnan(result.scores["Broken"]) for result in ranking.results)
    assert "it divides by zero" in ranking.unscored["Broken"]
    assert json.loads(ranking.to_json())["ranking"][0]["Broken"] is None


def test_estimators_may_be_objects_and_come_twice(small, described) -> None:
    both = [LogME(), LogME(normalize="l2"), KNN(), "loo", "labmse"]
    (result,) = quick(estimators=both).fit(small["formula"], small["target"]).ranking_.results
    assert list(result.scores) == ["LogME", "LogME-2", "KNN", "loo"]
    Z = embedding(ENTHALPY, get_descriptor("standard").fit_transform(small["formula"]))
    y = small["target"]
    assert result.scores["LogME"] == pytest.approx(LogME().fit(Z, y).score_, rel=1e-4)
    assert result.scores["LogME-2"] == pytest.approx(LogME(normalize="l2").fit(Z, y).score_, rel=1e-4)
    assert result.scores["KNN"] == pytest.approx(KNN().fit(Z, y).score_, rel=1e-4)
    assert not hasattr(both[0], "score_")
    assert list(quick(estimators="loo").fit(small["formula"], y).ranking_.results[0].scores) == ["loo"]


def test_an_estimator_of_the_sources_own_output_is_left_out_with_the_reason(small) -> None:
    ranking = quick(estimators=["loo", "labmse"]).fit(small["formula"], small["target"]).ranking_
    assert dict(ranking.unscored) == {"labmse": "it takes the source's own output, which a bridge does not give"}
    assert "labmse" not in ranking.to_frame().columns


def test_threads_leave_the_filters_of_warnings_as_they_were(small) -> None:
    def filters() -> list[Any]:
        # Patterns of modules are compiled on the way, which changes nothing.
        return [(action, category, line) for action, _, category, _, line in warnings.filters]

    before = filters()
    quick(GAPS, n_jobs=2, estimators=["loo", "linmse"]).fit(small["formula"], small["target"])
    assert filters() == before


# -- look-up ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def crystals(table, described, tmp_path, monkeypatch) -> Any:
    """Write a look-up of embeddings that know the target, for all formulas, or of noise, for half of them."""
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    (source,) = select(all_cards(), ENTHALPY)
    compositions = parse_compositions(table["formula"])

    def write(informed: bool) -> np.ndarray:
        rng = np.random.default_rng(0)
        Z = embedding(ENTHALPY, described).astype(np.float32)
        if informed:
            Z[:, :40] += 3 * Z.std() * (table["target"].to_numpy()[:, None] - table["target"].mean())
        else:
            Z = rng.permutation(Z)
        rows = np.unique(compositions.keys(), return_index=True)[1]
        rows = rows if informed else rows[::2]
        keys = [compositions.keys()[row] for row in rows]
        look_up = LookUp.of(keys, Z[rows], {"source_weights": dict(source.weights)})
        look_up.save(look_up_path(ENTHALPY, "readout"))
        known = np.isin(compositions.keys(), keys)
        return np.where(known[:, None], Z, embedding(ENTHALPY, described))

    return write


def count(table: pd.DataFrame, look_up: Any) -> tuple[int, float]:
    (result,) = quick(look_up=look_up).fit(table["formula"], table["target"]).ranking_.results
    assert result.looked_up + result.bridged == len(table)
    return result.looked_up, result.loo_rmse


@pytest.mark.slow
def test_look_up_is_taken_where_it_lowers_the_leave_one_out_error(table, crystals) -> None:
    assert count(table, "auto") == count(table, True) == count(table, False)  # none is there
    for informed in (False, True):
        crystals(informed)
        off, on, auto = (count(table, setting) for setting in (False, True, "auto"))
        assert (off[0], on[0]) == (0, len(table) if informed else (len(table) + 1) // 2)
        assert (on[1] < off[1]) == informed
        assert auto == (on if informed else off)


def test_look_up_holds_the_embedding_of_the_crystal(table, crystals) -> None:
    expected = crystals(informed=False)
    ranker = quick(look_up=True).fit(table["formula"], table["target"])
    # Look-ups are kept in half precision.
    np.testing.assert_allclose(ranker.transform(table["formula"]), expected, rtol=2e-3, atol=1e-4)


def test_look_up_of_other_weights_is_not_used(table, crystals) -> None:
    crystals(informed=False)
    path = look_up_path(ENTHALPY, "readout")
    stale = LookUp.load(path)
    LookUp(stale.hashes, stale.embeddings, {"source_weights": {"state.pt": "0" * 64}}).save(path)
    assert count(table, True)[0] == 0


# -- scikit-learn -----------------------------------------------------------------------------------------------------


def test_parameters_clone_repr(fitted) -> None:
    ranker = TransferabilityRanker("MEGNet-MP-*", max_rows=77, estimators=("loo",))
    assert ranker.get_params()["max_rows"] == 77
    assert clone(ranker).get_params() == ranker.get_params()
    assert ranker.set_params(n_jobs=2).n_jobs == 2
    assert repr(TransferabilityRanker()) == "TransferabilityRanker()"
    assert repr(TransferabilityRanker("MEGNet-MP-*", max_rows=77)) == (
        "TransferabilityRanker(max_rows=77, sources='MEGNet-MP-*')"
    )  # fmt: skip
    assert not hasattr(clone(fitted), "ranking_")
    with pytest.raises(NotFittedError):
        TransferabilityRanker().transform(["NaCl"])


def test_pickle_before_and_after_fit(fitted) -> None:
    ranker = TransferabilityRanker("MEGNet-MP-*")
    assert pickle.loads(pickle.dumps(ranker)).get_params() == ranker.get_params()  # noqa: S301 - made here
    again = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - made here
    assert str(again.ranking_) == str(fitted.ranking_)
    np.testing.assert_array_equal(again.transform(["NaCl"]), fitted.transform(["NaCl"]))


def test_fit_changes_neither_parameters_nor_input(small) -> None:
    ranker = quick(estimators=[LogME()])
    before = str(ranker.get_params())
    formulas, y = small["formula"].copy(), small["target"].copy()
    assert ranker.fit(formulas, y) is ranker
    assert str(ranker.get_params()) == before
    pd.testing.assert_series_equal(formulas, small["formula"])
    pd.testing.assert_series_equal(y, small["target"])


def test_result_names_the_target_and_the_settings(small) -> None:
    ranking = quick(target_unit="eV/atom").fit(small["formula"], small["target"].rename("enthalpy")).ranking_
    content = json.loads(ranking.to_json())
    assert (content["target"], content["unit"], content["task"]) == ("enthalpy", "eV/atom", "regression")
    settings = content["settings"]
    assert settings["descriptor_fingerprint"] == get_descriptor("standard").fingerprint()
    assert settings["random_state"] == 0
    assert "numpy" in settings["versions"]
