"""Evaluation: figures against scipy and hand-made cases, realised errors against direct fits, no leak, resuming."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.learners.kernel import LaplacianKernelClassifier, LaplacianKernelRidge
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.studies import measuring
from scotl_matgl.studies.judging import (
    PLACE,
    calibration_error,
    errors_without_transfer,
    judge_rankings,
    ordered_pairs,
    orders,
    paired_standard_errors,
    rank_correlations,
    regret,
    reliability,
    static_lists,
    summarise,
)
from scotl_matgl.studies.measuring import EvaluationSettings, evaluate
from scotl_matgl.vocabulary import NO_TRANSFER

ELEMENTS = ("Li", "Na", "K", "Mg", "Ca", "Sr", "Al", "Ga", "Ti", "Zr", "Fe", "Ni", "Cu", "Zn", "Sn")


# -- figures --------------------------------------------------------------------------------------


def test_paired_standard_errors_are_those_of_the_paired_t_test() -> None:
    blocks = np.random.default_rng(0).normal(size=(4, 24)) + np.arange(4)[:, None]
    width = paired_standard_errors(blocks)
    for i, j in combinations(range(4), 2):
        statistic = stats.ttest_rel(blocks[i], blocks[j]).statistic
        assert (blocks[i] - blocks[j]).mean() / width[i, j] == pytest.approx(statistic, rel=1e-12)
    np.testing.assert_array_equal(width, width.T)


def test_ordered_pairs_equals_counting() -> None:
    rng = np.random.default_rng(1)
    scores, errors = rng.normal(size=12), rng.normal(size=12)
    width = np.abs(rng.normal(size=(12, 12))) / 2
    right = total = 0
    for i, j in combinations(range(12), 2):
        if abs(errors[i] - errors[j]) > 2 * width[i, j]:
            total += 1
            right += (scores[i] > scores[j]) == (errors[i] < errors[j])
    assert 0 < right < total < 66
    assert ordered_pairs(scores, errors, width) == (right, total)
    assert ordered_pairs(-scores, errors, width) == (total - right, total)
    # The share over all pairs is what Kendall's tau counts.
    share = ordered_pairs(scores, errors, np.zeros((12, 12)))[0] / 66
    assert 2 * share - 1 == pytest.approx(stats.kendalltau(scores, -errors).statistic)


def test_ordered_pairs_counts_ties_and_missing_scores_half() -> None:
    width = np.full((3, 3), 0.1)
    assert ordered_pairs([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], width) == (1.5, 3)
    assert ordered_pairs([1.0, math.nan, 0.0], [1.0, 2.0, 3.0], width) == (2.0, 3)
    assert ordered_pairs([3.0, 2.0, 1.0], [1.0, 1.1, 1.2], width) == (0.0, 0)


def test_regret_is_the_ratio_of_the_pick_to_the_best() -> None:
    errors = [0.2, 0.1, 0.4]
    assert regret([0.0, 5.0, 1.0], errors) == 1.0
    assert regret([0.0, 1.0, 5.0], errors) == pytest.approx(4.0)
    assert regret([1.0, 0.0, 1.0], errors) == pytest.approx(3.0)
    assert regret([math.nan, 0.0, math.nan], errors) == 1.0


def test_rank_correlations_are_scipys() -> None:
    rng = np.random.default_rng(3)
    scores, errors = rng.normal(size=9), rng.normal(size=9)
    found = rank_correlations(scores, errors)
    assert found["spearman"] == pytest.approx(stats.spearmanr(scores, -errors).statistic)
    assert found["kendall"] == pytest.approx(stats.kendalltau(scores, -errors).statistic)
    assert found["weighted_kendall"] == pytest.approx(stats.weightedtau(scores, -errors).statistic)
    # Ties, of either or of both.
    scores, errors = rng.integers(0, 4, 12).astype(float), np.round(rng.normal(size=12))
    scores[3], errors[3] = scores[5], errors[5]
    found = rank_correlations([*scores, math.nan], [*errors, 1.0])
    assert found["spearman"] == pytest.approx(stats.spearmanr(scores, -errors).statistic, rel=1e-12)
    assert found["kendall"] == pytest.approx(stats.kendalltau(scores, -errors).statistic, rel=1e-12)
    assert found["weighted_kendall"] == pytest.approx(stats.weightedtau(scores, -errors).statistic, rel=1e-12)
    assert set(rank_correlations(-errors, errors).values()) == {1.0}
    assert set(rank_correlations(np.ones(12), errors).values()) == {0.0}


# -- rankings ---------------------------------------------------------------------------------------------------------


def row(table: str, source: str, error: float, **fields: Any) -> dict[str, Any]:
    """A row of a result: its errors alternate about the mean by a tenth, in step for all sources."""
    blocks = " ".join(f"{error * (0.9 if index % 2 else 1.1)}" for index in range(8))
    default = {"size": "50", "draw": "0", "n_train": 50, "place": np.nan, "verdict": "yes", "probability": 0.97}
    stated = {"gain": 0.0, "gain_low": 0.0, "gain_high": 0.0, "p_helps": np.nan}
    return {"table": table, "source": source, "error": error, "blocks": blocks, **default, **stated, **fields}


def ranking(table: str, *, control: float = 1.0, errors: tuple[float, ...], gain: float, **fields: Any) -> pd.DataFrame:
    rows = [row(table, NO_TRANSFER, control, **fields)]
    stated = {
        "gain": gain,
        "gain_low": gain - 0.05,
        "gain_high": gain + 0.05,
        "p_helps": fields.get("probability", 0.97),
    }
    rows += [row(table, f"s{i}", error, place=i + 1.0, **stated, **fields) for i, error in enumerate(errors)]
    return pd.DataFrame(rows)


def test_a_ranking_is_judged_by_what_its_answer_gave() -> None:
    frame = ranking("a", errors=(0.8, 0.9), gain=0.17)
    (found,) = judge_rankings(frame).to_dict("records")
    assert (found["answer"], found["stated"], found["covered"], found["certain"]) == ("s0", 0.17, True, True)
    assert found["realised"] == pytest.approx(0.2)
    together = row("a", "first two together", 0.7, gain=0.18, gain_low=0.0, gain_high=0.25, p_helps=0.9)
    (found,) = judge_rankings(pd.concat([frame, pd.DataFrame([together])])).to_dict("records")
    assert found["answer"] == "first two together"
    assert found["realised"] == pytest.approx(0.3)
    assert not found["covered"]


def test_intervals_allow_for_the_error_of_what_was_realised() -> None:
    # Realised is 0.2 with a standard error of 0.1 * 0.2 * sqrt(8 / 7) / sqrt(8); the interval ends at 0.19.
    frame = ranking("a", errors=(0.8,), gain=0.14)
    (found,) = judge_rankings(frame).to_dict("records")
    assert found["realised error"] == pytest.approx(0.02 / np.sqrt(7))
    assert (found["covered"], found["agrees"]) == (False, False)
    reach = np.hypot(0.05, 1.645 * 0.02 / np.sqrt(7))
    for gain, agrees in ((0.2 - 0.99 * reach, True), (0.2 - 1.01 * reach, False), (0.2 + 0.99 * reach, True)):
        (found,) = judge_rankings(ranking("a", errors=(0.8,), gain=gain)).to_dict("records")
        assert (found["covered"], found["agrees"]) == (False, agrees)


def test_figures_of_merit_by_hand() -> None:
    frame = pd.concat(
        [
            ranking("a", errors=(0.8,), gain=0.17),
            ranking("b", errors=(1.1,), gain=0.05, verdict="likely", probability=0.6),
            ranking("c", errors=(1.2,), gain=0.02, verdict="no", probability=0.3),
            ranking("d", errors=(1.1,), gain=0.2),
        ]
    )
    found = summarise(judge_rankings(frame)).loc["all"]
    assert found["bias"] == pytest.approx(100 * np.mean([0.17 - 0.2, 0.05 + 0.1, 0.02 + 0.2, 0.2 + 0.1]))
    expected = np.polyfit([0.17, 0.05, 0.02, 0.2], [0.2, -0.1, -0.2, -0.1], 1)[0]
    assert found["slope"] == pytest.approx(expected)
    assert (found["cover"], found["n_certain"], found["right"]) == (0.25, 4, 0.5)
    assert (found["yes"], found["yes_wrong"]) == (2, 0.5)
    # Two say 0.97 of which one helped, one 0.6 and one 0.3, of which neither did.
    assert found["ece"] == pytest.approx((2 * abs(0.97 - 0.5) + 0.6 + 0.3) / 4)


def test_reliability_counts_what_came_of_each_promise() -> None:
    judged = pd.DataFrame(
        {"probability": [0.2, 0.5, 0.6, 0.95, 0.99, 1.0], "realised": [-0.1, 0.1, -0.1, 0.1, 0.1, 0.1]}
    )
    found = reliability(judged)
    assert list(found.index) == ["0 to 0.5", "0.5 to 0.7", "0.95 to 1"]
    assert list(found["rankings"]) == [1, 2, 3]
    assert list(found["helped"]) == [0.0, 0.5, 1.0]
    assert list(found["probability"]) == pytest.approx([0.2, 0.55, 0.98])


def test_calibration_error_of_promises_that_are_kept_is_small() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(size=20_000)
    kept = rng.uniform(size=20_000) < p
    assert calibration_error(p, kept) < 0.02
    assert calibration_error(p, ~kept) > 0.3


def test_ways_to_order_are_compared_on_the_same_pairs() -> None:
    errors = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    frame = ranking("a", errors=errors, gain=0.5)
    frame["good"] = [np.nan, *(-np.array(errors))]
    frame["bad"] = [np.nan, *errors]
    frame["loo_rmse"] = [np.nan, *errors]
    found = orders(frame).set_index("way")
    assert "loo_rmse" not in found.index, "an error is no score"
    assert found.loc[PLACE, "pairs"] == found.loc["good", "pairs"] == 1.0
    assert found.loc["bad", "pairs"] == 0.0
    assert found.loc[PLACE, "regret"] == 1.0
    assert found.loc["bad", "regret"] == pytest.approx(2.0)
    assert found.loc[PLACE, "gain"] == pytest.approx(50.0)


def test_folds_of_a_whole_table_are_judged_together() -> None:
    folds = [ranking("a", errors=(0.5, 0.6), gain=0.5, size="whole", draw="0")]
    folds.append(ranking("a", errors=(0.9, 0.6), gain=0.5, size="whole", draw="1"))
    found = orders(pd.concat(folds)).set_index("way")
    # Over both folds the first has 0.7, the second 0.6.
    assert found.loc[PLACE, "regret"] == pytest.approx(0.7 / 0.6)


def test_folds_of_a_whole_table_are_one_answer() -> None:
    folds = [ranking("a", errors=(0.5,), gain=0.25, size="whole", draw="0", probability=0.99)]
    folds.append(ranking("a", errors=(1.1,), gain=0.15, size="whole", draw="1", probability=0.9))
    (found,) = judge_rankings(pd.concat(folds)).to_dict("records")
    assert (found["stated"], found["realised"]) == (pytest.approx(0.2), pytest.approx(0.2))
    assert (found["probability"], found["verdict"]) == (pytest.approx(0.945), "likely")
    # Neither interval holds what its own fold realised; the mean interval holds what the table did.
    assert found["covered"]


def test_static_lists_look_at_tables_of_other_families_only() -> None:
    frame = pd.concat(
        [
            ranking("a", errors=(0.5, 1.0), gain=0),
            ranking("b", errors=(1.0, 0.5), gain=0),
            ranking("c", errors=(0.8, 0.7), gain=0),
        ]
    )
    frame["control"] = "kernel ridge"
    lists = static_lists(frame, {"b": "f", "c": "f"})
    assert lists("a")["s1"] > lists("a")["s0"]
    assert lists("b") == pytest.approx({"s0": -np.log(0.5), "s1": 0.0})
    assert lists("c") == lists("b")


# -- measuring --------------------------------------------------------------------------------------------------------


class _Encoder:
    """Embeds formulas by the fraction of their first element and of oxygen, or by noise."""

    def __init__(self, card: SourceCard) -> None:
        self.informative = bool(card.options["informative"])

    def encode(self, formulas, *, layer: str) -> np.ndarray:
        assert layer == "readout"
        compositions = parse_compositions(formulas)
        if not self.informative:
            return np.random.default_rng(5).normal(size=(len(compositions), 4))
        return signal(compositions)


def signal(compositions) -> np.ndarray:
    """What the synthetic target depends on: fraction of oxygen, and mean atomic number."""
    fractions = compositions.dense_fractions()
    return np.column_stack([fractions[:, 7], fractions @ np.arange(1, 119), fractions.max(axis=1)])


def encoder(card: SourceCard) -> _Encoder:
    return _Encoder(card)


def source(name: str, *, informative: bool) -> SourceCard:
    return SourceCard(
        name=name,
        zoo="test",
        modality="composition",
        property="signal",
        unit="1",
        dataset="synthetic",
        architecture="none",
        layers={"readout": 3 if informative else 4},
        loader="test_evaluation:encoder",
        licence="none",
        citation="none",
        options={"informative": informative},
    )


SOURCES = [source("informative", informative=True), source("noise", informative=False)]


@pytest.fixture(scope="module")
def table() -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(7)
    formulas: list[str] = []
    while len(formulas) < 130:
        a, b = rng.choice(ELEMENTS, 2, replace=False)
        formula = f"{a}{rng.integers(1, 5)}{b}{rng.integers(1, 5)}O{rng.integers(1, 9)}"
        if formula not in formulas:
            formulas.append(formula)
    compositions = parse_compositions(formulas)
    keys = compositions.keys()
    # Sorted by composition, as all studies sort the rows of a table.
    unique = sorted((index for index, key in enumerate(keys) if key not in keys[:index]), key=lambda index: keys[index])
    columns = signal(compositions.take(np.array(unique)))
    return [formulas[index] for index in unique], 5 * columns[:, 0] + 0.1 * columns[:, 1]


SETTINGS = EvaluationSettings(
    descriptor="fractions", head="kernel ridge", estimators=("loo", "logme"), sizes=(50, None), repeats=2
)
FEW = replace(SETTINGS, sizes=(50,), repeats=1)


@pytest.fixture(scope="module")
def result(table) -> pd.DataFrame:
    return evaluate(*table, SOURCES, table="synthetic", settings=SETTINGS)


def test_one_row_for_each_ranking_and_source(result, table) -> None:
    assert not result.duplicated(["table", "size", "draw", "source"]).any()
    assert set(result["source"]) == {"informative", "noise", NO_TRANSFER, "first two together"}
    assert sorted(set(zip(result["size"], result["draw"], strict=True))) == [
        ("50", "0"), ("50", "1"), *(("whole", str(fold)) for fold in range(5)),
    ]  # fmt: skip
    assert len(result) == 7 * 4
    fifty = result[result["size"] == "50"]
    assert (fifty["n_train"] == 50).all()
    assert (fifty["n_test"] == len(table[0]) - 50).all()
    whole = result[(result["size"] == "whole") & (result["source"] == NO_TRANSFER)]
    assert whole["n_test"].sum() == len(table[0])


def test_realised_errors_are_those_of_direct_fits(result, table) -> None:
    formulas, y = table
    X = get_descriptor("fractions").fit_transform(formulas)
    # A column without an element of the rows learned from is constant there, and the head leaves it out.
    Z = signal(parse_compositions(formulas))
    order = np.random.default_rng([0, 50, 1]).permutation(len(y))
    train, test = np.sort(order[:50]), np.sort(order[50:])
    errors = result[(result["size"] == "50") & (result["draw"] == "1")].set_index("source")["error"]

    def error(columns: np.ndarray) -> float:
        predicted = LaplacianKernelRidge().fit(columns[train], y[train]).predict(columns[test])
        return float(np.abs(predicted - y[test]).mean())

    assert errors[NO_TRANSFER] == pytest.approx(error(X), rel=1e-9)
    assert errors["informative"] == pytest.approx(error(np.hstack([X, Z])), rel=1e-6)


def test_rankings_see_nothing_of_the_rows_that_judge_them(table, result) -> None:
    formulas, y = table
    train = set(np.random.default_rng([0, 50, 0]).permutation(len(y))[:50].tolist())
    other = np.array([value if row in train else 7.0 - 3 * value for row, value in enumerate(y)])
    changed = evaluate(formulas, other, SOURCES, table="synthetic", settings=FEW)
    before = result[(result["size"] == "50") & (result["draw"] == "0")].reset_index(drop=True)
    said = ["source", "place", "out_of_fold", "gain", "gain_low", "gain_high", "p_helps", "verdict", "loo", "logme"]
    pd.testing.assert_frame_equal(changed[said], before[said])
    assert (changed["error"] != before["error"]).all()


def test_threads_change_nothing_and_the_error_without_transfer_is_the_mean_of_its_draws(table, result) -> None:
    threaded = evaluate(*table, SOURCES, table="synthetic", settings=replace(FEW, n_jobs=2))
    before = result[(result["size"] == "50") & (result["draw"] == "0")].reset_index(drop=True)
    pd.testing.assert_frame_equal(threaded, before)
    stated = errors_without_transfer(result)
    assert list(stated) == ["50", "whole"]
    control = result.set_index(["source", "size", "draw"]).loc[NO_TRANSFER, "error"]
    assert stated["50"] == pytest.approx((control["50", "0"] + control["50", "1"]) / 2)
    assert stated["whole"] == pytest.approx(sum(control["whole", str(fold)] for fold in range(5)) / 5)


def test_signal_is_told_from_noise(result) -> None:
    whole = result[result["size"] == "whole"]
    means = whole.groupby("source")[["error", "gain", "place", "loo"]].mean()
    assert means.loc["informative", "error"] < means.loc[NO_TRANSFER, "error"] < means.loc["noise", "error"]
    assert (means.loc["informative", "place"], means.loc["noise", "place"]) == (1.0, 2.0)
    assert means.loc["informative", "loo"] > means.loc["noise", "loo"]


def test_stops_and_resumes_without_measuring_again(table, result, tmp_path, monkeypatch) -> None:
    path, done = tmp_path / "result.csv", []
    original = measuring._measure

    def measure(*arguments: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(arguments[1])
        return original(*arguments)

    monkeypatch.setattr(measuring, "_measure", measure)
    with pytest.raises(KeyboardInterrupt):
        evaluate(*table, SOURCES, table="synthetic", path=path, settings=SETTINGS)
    monkeypatch.setattr(measuring, "_measure", original)
    lines: list[str] = []
    again = evaluate(*table, SOURCES, table="synthetic", path=path, progress=lines.append, settings=SETTINGS)
    assert len(lines) == 4
    columns = ["size", "draw", "source", "error", "gain", "loo"]
    pd.testing.assert_frame_equal(again[columns], result[columns])


def test_other_settings_are_measured_anew(table, tmp_path) -> None:
    path, lines = tmp_path / "result.csv", []
    for settings in (FEW, FEW, replace(FEW, random_state=1)):
        evaluate(*table, SOURCES, table="synthetic", path=path, progress=lines.append, settings=settings)
    assert len(lines) == 2


def test_class_labels_are_judged_by_the_brier_score(table) -> None:
    formulas, y = table
    labels = np.where(y > np.median(y), "high", "low")
    settings = replace(FEW, estimators=("logme",))
    errors = evaluate(formulas, labels, SOURCES, settings=settings).set_index("source")["error"]
    order = np.random.default_rng([0, 50, 0]).permutation(len(y))
    train, test = np.sort(order[:50]), np.sort(order[50:])
    X = get_descriptor("fractions").fit_transform(formulas)
    predicted = LaplacianKernelClassifier().fit(X[train], labels[train]).predict_proba(X[test])
    truth = labels[test][:, None] == np.array(["high", "low"])
    # As rankings state it: the squared error of the probabilities, and not the share of wrong labels.
    assert errors[NO_TRANSFER] == pytest.approx(float(((predicted - truth) ** 2).sum(axis=1).mean()), rel=1e-9)
    assert 0 < errors["informative"] < errors[NO_TRANSFER] < 0.6


def test_sources_that_fail_are_told_and_left_out(table) -> None:
    broken = replace(source("broken", informative=True), loader="test_evaluation:nowhere")
    with pytest.warns(UserWarning, match="1 of 3 sources are not evaluated, the first is broken"):
        found = evaluate(*table, [*SOURCES, broken], settings=FEW)
    assert "broken" not in set(found["source"])
