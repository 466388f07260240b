"""Evaluation: figures against scipy and hand-made cases, realised errors against scikit-learn, no leak, resuming."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.ensemble import RandomForestRegressor

from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.studies.judging import (
    FIXED,
    held_out_regret,
    judge,
    ordered_pairs,
    paired_standard_errors,
    rank_correlations,
    regret,
    summarise,
)
from scotl_matgl.studies.measuring import RANDOM, evaluate
from scotl_matgl.tables.folds import make_folds
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


def test_held_out_regret_of_equal_sources_is_one_on_average() -> None:
    rng = np.random.default_rng(2)
    scores = np.arange(10.0)
    blocks = 1.0 + 0.05 * rng.normal(size=(2000, 10, 24))
    plain = np.mean([regret(scores, sample.mean(axis=1)) for sample in blocks])
    fair = np.mean([held_out_regret(scores, sample) for sample in blocks])
    # All sources are equally good, so no pick can be bad; the smallest of ten means makes plain regret say otherwise.
    assert plain > 1.012
    assert fair == pytest.approx(1.0, abs=2e-3)


def test_held_out_regret_by_hand() -> None:
    blocks = [[1.0, 2.0, 1.0, 2.0], [3.0, 1.0, 3.0, 1.0]]
    # Even groups name source 0, whose odd error is 2; odd groups name source 1, whose even error is 3. Pick: source 0.
    assert held_out_regret([1.0, 0.0], blocks) == pytest.approx((2.0 / 2.0 + 1.0 / 3.0) / 2)


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


def made(
    table: str, errors: dict[str, float], scores: dict[str, float], *, se: float = 0.0, spread: float = 0.01, **more
) -> list[dict]:
    """One unit under D: blocks that alternate about the error by `spread`, a pattern that differs between sources."""
    rows = []
    for index, (source, error) in enumerate(errors.items()):
        pattern = np.where(np.arange(8) // (1 + index) % 2 == 0, spread, -spread)
        rows.append(
            {
                "table": table,
                "n": 50,
                "full": False,
                "repeat": 0,
                "protocol": "D",
                "source": source,
                "head": "extra trees",
                "error": error,
                "blocks": " ".join(f"{value:.6g}" for value in error + pattern - pattern.mean()),
                "head+X": scores[source],
                "head+X se": se,
            }
            | more
        )
    return rows


ERRORS = {NO_TRANSFER: 1.0, "a": 0.8, "b": 0.9, "c": 1.2}


def test_judge_credits_a_right_call_for_transfer() -> None:
    frame = pd.DataFrame(made("t", ERRORS, {NO_TRANSFER: -1.0, "a": -0.7, "b": -0.8, "c": -0.9}))
    row = judge(frame).set_index("score").loc["head+X"]
    assert (row["right"], row["pairs"]) == (3.0, 3)
    assert (row["called"], row["transfers"], row["regret"], row["spearman"]) == (1.0, 1.0, 1.0, 1.0)


def test_judge_charges_a_wrong_call_and_a_missed_one() -> None:
    # The source picked is worse than no transfer.
    wrong = pd.DataFrame(made("t", ERRORS, {NO_TRANSFER: -1.0, "a": -0.9, "b": -0.8, "c": -0.7}))
    row = judge(wrong).set_index("score").loc["head+X"]
    assert (row["called"], row["transfers"], row["right"]) == (0.0, 1.0, 0.0)
    assert row["regret"] == pytest.approx(1.2 / 0.8)
    # The control is preferred although the best-scored source is better.
    missed = pd.DataFrame(made("t", ERRORS, {NO_TRANSFER: -0.5, "a": -0.7, "b": -0.8, "c": -0.9}))
    row = judge(missed).set_index("score").loc["head+X"]
    assert (row["called"], row["transfers"], row["right"]) == (0.0, 0.0, 3.0)
    assert row["regret"] == pytest.approx(1.0 / 0.8)
    # A difference within two standard errors is not held against a score.
    noisy = pd.DataFrame(made("t", ERRORS, {NO_TRANSFER: -0.5, "a": -0.7, "b": -0.8, "c": -0.9}, spread=1.0))
    assert math.isnan(judge(noisy).set_index("score").loc["head+X", "called"])


def test_the_call_is_that_of_the_head_for_the_source_picked() -> None:
    scores = {NO_TRANSFER: -1.0, "a": -1.1, "b": -0.9, "c": -1.2}
    guess = {NO_TRANSFER: math.nan, "a": 3.0, "b": 2.0, "c": 1.0}
    frame = pd.DataFrame(made("t", ERRORS, scores))
    frame["guess"] = frame["source"].map(guess)
    judged = judge(frame).set_index("score")
    # The head expects a loss from a, which the guess picks, and that is wrong; it would itself pick b, and be right.
    row = judged.loc["guess"]
    assert (row["called"], row["helps"], row["transfers"], row["right"]) == (0.0, 1.0, 0.0, 3.0)
    assert row["regret"] == pytest.approx(1.0 / 0.8)
    row = judged.loc["head+X"]
    assert (row["called"], row["helps"], row["transfers"], row["right"]) == (1.0, 1.0, 1.0, 2.0)
    assert row["regret"] == pytest.approx(0.9 / 0.8)


def test_pooled_errors_take_out_the_luck_of_a_subset() -> None:
    scores = {NO_TRANSFER: -1.0, "a": -0.7, "b": -0.8, "c": -0.9}
    lucky = {NO_TRANSFER: 1.0, "a": 1.3, "b": 0.9, "c": 1.2}
    frame = pd.DataFrame([*made("t", ERRORS, scores), *made("t", lucky, scores, repeat=1)])
    alone = judge(frame, pooled=False).query("score == 'head+X'").set_index("repeat")
    assert alone["right"].tolist() == [3.0, 1.0]
    assert alone["regret"].tolist() == pytest.approx([1.0, 1.3 / 0.9])
    together = judge(frame).query("score == 'head+X'")
    # Means: a 1.05, b 0.9, c 1.2. The difference of a and c is -0.4 and 0.1 in the two subsets, of standard error 0.25;
    # that of a and b -0.1 and 0.4; that of b and c is -0.3 in both, and certain.
    assert together["pairs"].tolist() == [1, 1]
    assert together["right"].tolist() == [1.0, 1.0]
    assert together["regret"].tolist() == pytest.approx([1.05 / 0.9] * 2)


def test_repeats_that_lack_a_source_are_left_out() -> None:
    scores = {NO_TRANSFER: -1.0, "a": -0.7, "b": -0.8, "c": -0.9}
    whole = made("t", ERRORS, scores)
    part = [row for row in made("t", ERRORS, scores, repeat=1) if row["source"] != "a"]
    pd.testing.assert_frame_equal(judge(pd.DataFrame([*whole, *part])), judge(pd.DataFrame(whole)))
    other = [row for row in made("t", ERRORS, scores, repeat=2) if row["source"] != "b"]
    with pytest.raises(ValueError, match="no repeat holds all 4 sources"):
        judge(pd.DataFrame([*part, *other]))


def test_caution_turns_a_narrow_gain_into_no_transfer() -> None:
    scores = {NO_TRANSFER: -1.0, "a": -0.9, "b": -0.95, "c": -0.97}
    frame = pd.DataFrame(made("t", ERRORS, scores, se=0.08))
    assert judge(frame, caution=1.2).set_index("score").loc["head+X", "transfers"] == 1.0
    assert judge(frame, caution=1.3).set_index("score").loc["head+X", "transfers"] == 0.0


def test_covered_is_the_share_of_gains_within_their_interval() -> None:
    # Expected gains 0.1, 0.05, 0.03; realised 0.2, 0.1, -0.2; half width 1.645 * 0.08 = 0.1316 and a little more.
    scores = {NO_TRANSFER: -1.0, "a": -0.9, "b": -0.95, "c": -0.97}
    frame = pd.DataFrame(made("t", ERRORS, scores, se=0.08))
    assert judge(frame).set_index("score").loc["head+X", "covered"] == pytest.approx(2 / 3)


def test_fixed_source_looks_at_the_other_tables_only() -> None:
    scores = {NO_TRANSFER: -1.0, "a": -0.5, "b": -0.5, "c": -0.5}
    first = {NO_TRANSFER: 1.0, "a": 0.1, "b": 0.2, "c": 0.4}
    second = {NO_TRANSFER: 1.0, "a": 0.4, "b": 0.2, "c": 0.1}
    third = {NO_TRANSFER: 1.0, "a": 0.3, "b": 0.3, "c": 0.3}
    frame = pd.DataFrame([*made("1", first, scores), *made("2", second, scores), *made("3", third, scores)])
    judged = judge(frame)
    rows = judged[judged["score"] == FIXED].set_index("table")
    # For table 1 the others prefer c, its worst; for table 2 they prefer a, its worst; for table 3 they are undecided.
    assert rows.loc["1", "right"] == 0.0
    assert rows.loc["1", "regret"] == pytest.approx(4.0)
    assert rows.loc["2", "right"] == 0.0
    assert rows.loc["3", "pairs"] == 0


def test_summary_averages_over_tables_not_pairs() -> None:
    good = {NO_TRANSFER: -1.0, "a": -0.7, "b": -0.8, "c": -0.9}
    bad = {NO_TRANSFER: -1.0, "a": -0.9, "b": -0.8, "c": -0.7}
    rows = [*made("1", ERRORS, good), *made("1", ERRORS, good, repeat=1), *made("2", ERRORS, bad)]
    # A table without certain pairs says nothing about the order.
    rows += made("3", ERRORS, bad, spread=1.0)
    summary = summarise(pd.DataFrame(rows)).loc[("D", "head+X")]
    assert summary["pairs_right"] == pytest.approx(0.5)
    assert summary["call_right"] == pytest.approx(0.5)
    assert (summary["pairs"], summary["calls"], summary["tables"]) == (9, 3, 3)
    assert summary["regret"] == pytest.approx((1.0 + 1.5 + 1.5) / 3)
    by_size = summarise(pd.DataFrame(rows), by_size=True)
    assert by_size.loc[("D", 50, "head+X"), "pairs_right"] == summary["pairs_right"]


# -- measuring ------------------------------------------------------------------------------------


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


SETTINGS = {"descriptor": "fractions", "estimators": ("loo", "logme", "knn"), "sizes": (50, None), "repeats": 1}


@pytest.fixture(scope="module")
def result(table) -> pd.DataFrame:
    return evaluate(*table, SOURCES, table="synthetic", **SETTINGS)


def test_one_row_a_unit_and_source(result, table) -> None:
    keys = ["table", "n", "repeat", "protocol", "source"]
    assert not result.duplicated(keys).any()
    assert len(result) == 2 * 2 * 4
    assert set(result["source"]) == {"informative", "noise", RANDOM, NO_TRANSFER}
    assert set(result["n"]) == {50, len(table[0])}
    np.testing.assert_array_equal(result[~result["full"]]["n_test"], len(table[0]) - 50)


def test_error_at_full_size_is_the_forests_cross_validated(result, table) -> None:
    Z, y = signal(parse_compositions(table[0])), table[1]
    losses = []
    for repeat in range(2):
        loss = np.empty(len(y))
        for fold, (train, test) in enumerate(make_folds(y, classification=False, random_state=10_007 + repeat)):
            forest = RandomForestRegressor(100, max_features=1 / 3, random_state=5 * repeat + fold)
            loss[test] = np.abs(forest.fit(Z[train], y[train]).predict(Z[test]) - y[test])
        losses.append(loss)
    expected = np.mean(losses, axis=0)
    row = result[(result["protocol"] == "E") & (result["source"] == "informative") & result["full"]].iloc[0]
    assert row["error"] == pytest.approx(expected.mean(), rel=1e-12)
    assert row["se"] == pytest.approx(stats.sem(expected), rel=1e-12)


def test_scores_tell_signal_from_noise(result) -> None:
    judged = judge(result)
    rows = judged[judged["score"].isin(["loo", "forest", "kernel+X", "head+X"]) & (judged["protocol"] == "E")]
    assert (rows["right"] == rows["pairs"]).all()
    assert (rows["pairs"] == 1).all()
    assert (rows["regret"] == 1.0).all()
    assert rows["right_random"].sum() >= rows["pairs_random"].sum() - 1e-9
    called = judged[(judged["protocol"] == "D") & (judged["score"] == "head+X")]
    # Of the whole table; whether transfer helps on 50 of its rows depends on which are drawn.
    assert called["transfers"].tolist()[-1] == called["called"].tolist()[-1] == 1.0


def test_scores_at_small_size_see_nothing_of_the_test_rows(table, result) -> None:
    formulas, y = table
    rows = np.random.default_rng([0, 50, 0]).permutation(len(y))[:50]
    other = np.random.default_rng(9).permutation(y)
    other[rows] = y[rows]
    settings = {**SETTINGS, "sizes": (50,)}
    changed = evaluate(formulas, other, SOURCES, table="synthetic", **settings)
    before = result[~result["full"]].reset_index(drop=True)
    scores = ["loo", "logme", "knn", "forest", "forest+X", "kernel", "kernel+X", "head+X", "loo+X", "logme+X", "head"]
    pd.testing.assert_frame_equal(changed[scores], before[scores])
    # The test rows have other targets now: what was learned of the old ones fails, the more the better it was.
    ratio = (changed["error"] / before["error"]).groupby(before["source"]).min()
    assert ratio["informative"] > 1.5, ratio
    assert ratio[NO_TRANSFER] > 1.25, ratio


def test_stops_and_resumes_without_measuring_again(table, result, tmp_path) -> None:
    path = tmp_path / "results.csv"
    kept = result[(result["source"] != "noise") & ~((result["source"] == NO_TRANSFER) & result["full"])]
    kept.to_csv(path, index=False)
    lines: list[str] = []
    resumed = evaluate(*table, SOURCES, table="synthetic", path=path, progress=lines.append, **SETTINGS)
    n = len(table[0])
    assert lines == ["synthetic, n = 50, repeat 0: 1 sources", f"synthetic, n = {n}, repeat 0: 2 sources"]
    keys = ["n", "protocol", "source"]
    measured = ["error", "se", "loo", "forest", "head+X"]
    pd.testing.assert_frame_equal(
        resumed.sort_values(keys)[measured].reset_index(drop=True),
        result.sort_values(keys)[measured].reset_index(drop=True),
        rtol=1e-6,
    )
    assert len(pd.read_csv(path)) == len(result)
    evaluate(*table, SOURCES, table="synthetic", path=path, progress=lines.append, **SETTINGS)
    assert len(lines) == 2


def test_measures_again_when_the_embedding_has_changed(table, result, tmp_path) -> None:
    path = tmp_path / "results.csv"
    stale = result.copy()
    stale.loc[stale["source"] == "informative", "checksum"] *= 1.1
    stale.to_csv(path, index=False)
    lines: list[str] = []
    evaluate(*table, SOURCES, table="synthetic", path=path, progress=lines.append, **SETTINGS)
    assert [line.split(": ")[1] for line in lines] == ["1 sources", "1 sources"]


def test_class_labels(table) -> None:
    formulas, y = table
    labels = np.where(y > np.median(y), "high", "low")
    settings = {"descriptor": "fractions", "estimators": ("loo", "logme"), "sizes": (None,), "fold_repeats": 1}
    found = evaluate(formulas, labels, SOURCES, **settings).set_index(["protocol", "source"])
    assert found.loc[("E", "informative"), "error"] < 0.2
    assert found.loc[("E", RANDOM), "error"] > 0.35
    assert "loo" not in found
    assert found.loc[("E", "informative"), "logme"] > found.loc[("E", "noise"), "logme"]


def test_without_any_usable_source() -> None:
    broken = source("broken", informative=True)
    object.__setattr__(broken, "loader", "test_evaluation:missing")
    with (
        pytest.warns(Warning, match="1 of 1 sources are not evaluated"),
        pytest.raises(ValueError, match="no source can be evaluated"),
    ):
        evaluate([f"Fe{i}O{i + 1}" for i in range(1, 30)], np.arange(29.0), [broken], descriptor="fractions")
