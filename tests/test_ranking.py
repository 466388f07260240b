"""The result of a ranking: its intervals, its verdict, and its forms, on losses made for the purpose."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.ranking.result import Ranking, SourceResult
from scotl_matgl.vocabulary import NO_TRANSFER


def ranking_of(
    losses: np.ndarray, control: np.ndarray, names: list[str] | None = None, *, looked_up: int = 0, **fields
) -> Ranking:
    """Ranking of sources with these losses, put in order as the ranker does."""
    losses = np.asarray(losses, dtype=np.float64).reshape(-1, len(control))
    names = [f"source {index}" for index in range(len(losses))] if names is None else names
    order = np.argsort(losses.mean(axis=1), kind="stable") if len(losses) else []
    results = tuple(
        SourceResult(names[index], "band gap", "eV", {"logme": -1.5}, 1.25, looked_up, len(control) - looked_up, 0, 0.5)
        for index in order
    )
    defaults = {"n_rows": len(control), "n_merged": 0, "classification": False, "target_unit": "eV"}
    return Ranking(
        results=results,
        losses=losses[list(order)],
        control=control,
        head="extra trees",
        control_errors={"extra trees": float(control.mean())},
        **({"errors": {}, "skipped": ()} | defaults | fields),
    )


@pytest.fixture
def losses() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    control = rng.gamma(2.0, 0.5, 300)
    return np.stack([control * 1.3, control * 0.7, control * 0.72 + rng.normal(0, 0.2, 300)]), control


def test_gains_and_standard_errors_are_those_of_paired_differences(losses) -> None:
    ranking = ranking_of(*losses)
    assert ranking.sources == ("source 1", "source 2", "source 0")
    for index, row in enumerate((1, 2, 0)):
        difference = losses[1] - losses[0][row]
        assert ranking.gains[index] == pytest.approx(difference.mean(), rel=1e-12)
        assert ranking.gain_errors[index] == pytest.approx(stats.sem(difference), rel=1e-12)
        assert ranking.gain_percents[index] == pytest.approx(100 * difference.mean() / losses[1].mean(), rel=1e-12)


def test_interval_is_that_of_a_normal_mean_for_many_rows(losses) -> None:
    ranking = ranking_of(*losses)
    for index, name in enumerate(ranking.sources):
        low, high = ranking.gain_interval(name)
        width = 1.6449 * ranking.gain_errors[index]
        # 2,000 resamples: an end is uncertain by 5 % of the standard error.
        assert low == pytest.approx(ranking.gains[index] - width, abs=0.2 * ranking.gain_errors[index])
        assert high == pytest.approx(ranking.gains[index] + width, abs=0.2 * ranking.gain_errors[index])
    with pytest.raises(KeyError, match="'nobody' was not ranked; these were: source 1"):
        ranking.gain_interval("nobody")


def test_interval_covers_the_true_gain_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        control = rng.gamma(2.0, 1.0, 120)
        loss = 0.8 * control * rng.lognormal(-0.08, 0.4, 120)
        low, high = ranking_of(loss, control).gain_interval("source 0")
        # The mean of the control is 2, that of the factor 1: the gain is 0.2 of 2.
        covered += low < 0.4 < high
    assert 0.85 <= covered / 200 <= 0.95


def test_probabilities_of_being_best(losses) -> None:
    ranking = ranking_of(*losses)
    best = ranking.probability_best
    assert set(best) == {NO_TRANSFER, *ranking.sources}
    assert sum(best.values()) == pytest.approx(1.0, abs=1e-12)
    # The difference of the two good ones is normal: its mean in standard errors gives the probability.
    difference = losses[0][2] - losses[0][1]
    expected = stats.norm.cdf(difference.mean() / stats.sem(difference))
    assert best["source 1"] == pytest.approx(expected, abs=0.04)
    assert best["source 0"] == best[NO_TRANSFER] == 0.0


def test_the_same_seed_gives_the_same_resamples(losses) -> None:
    first, second = (ranking_of(*losses, settings={"random_state": 7}) for _ in range(2))
    other = ranking_of(*losses, settings={"random_state": 8})
    assert first.gain_interval("source 2") == second.gain_interval("source 2")
    assert first.gain_interval("source 2") != other.gain_interval("source 2")


def test_best_and_ties(losses) -> None:
    ranking = ranking_of(*losses)
    assert ranking.helps
    assert ranking.best == "source 1"
    assert ranking.ties == ("source 2",)
    alone = ranking_of(losses[0][:2], losses[1])
    assert alone.ties == ()
    twins = ranking_of(np.stack([losses[0][1]] * 2), losses[1])
    assert twins.ties == ("source 1",)


def test_worse_or_equal_sources_do_not_help(losses) -> None:
    _, control = losses
    worse = ranking_of(control * 1.1, control)
    assert (worse.helps, worse.best) == (False, NO_TRANSFER)
    equal = ranking_of(control, control)
    assert (equal.helps, equal.best) == (False, NO_TRANSFER)
    assert equal.probability_best == {NO_TRANSFER: 1.0, "source 0": 0.0}
    # What costs nothing comes first where nothing is gained.
    assert list(equal.to_frame()["source"]) == [NO_TRANSFER, "source 0"]


def test_a_certain_gain_below_one_percent_does_not_count(losses) -> None:
    _, control = losses
    little = ranking_of(control * 0.992, control)
    assert little.proven_gain > 0
    assert not little.helps
    assert "is too little" in little.summary()
    assert ranking_of(control * 0.988, control).helps


def test_the_best_of_many_that_know_nothing_rarely_helps() -> None:
    rng = np.random.default_rng(1)
    said = single = 0
    for _ in range(200):
        control = rng.gamma(2.0, 1.0, 100)
        ranking = ranking_of(control + rng.normal(0, 1.0, (12, 100)), control)
        said += ranking.helps
        single += ranking.gain_interval(ranking.sources[0])[0] > 0
    # Of twelve, the best one's own interval is often above zero; the joint bound holds its 5 %.
    assert single / 200 > 0.25
    assert said / 200 <= 0.10


def test_proven_gain_of_one_source_is_the_one_sided_bound(losses) -> None:
    ranking = ranking_of(losses[0][1], losses[1])
    expected = ranking.gains[0] - 1.6449 * ranking.gain_errors[0]
    assert ranking.proven_gain == pytest.approx(expected, abs=0.2 * ranking.gain_errors[0])


def test_sources_that_were_screened_out_count_among_those_tried(losses) -> None:
    sources, control = losses
    measured = ranking_of(sources[1], control)
    for n_tried in (2, 8, 64):
        ranking = replace(measured, screened=measured.results * (n_tried - 1))
        # The largest of N independent normal deviations has its 95 % quantile where one has that of level 0.95^(1/N).
        expected = ranking.gains[0] - stats.norm.ppf(0.95 ** (1 / n_tried)) * ranking.gain_errors[0]
        assert ranking.proven_gain == pytest.approx(expected, abs=0.35 * ranking.gain_errors[0])
        assert ranking.proven_gain < measured.proven_gain


def test_frame_holds_everything_in_order(losses) -> None:
    frame = ranking_of(*losses, looked_up=30).to_frame()
    assert list(frame["source"]) == ["source 1", "source 2", NO_TRANSFER, "source 0"]
    assert list(frame.index) == [1, 2, 3, 4]
    assert frame.index.name == "rank"
    assert list(frame.columns) == [
        "source", "property", "logme", "loo_rmse", "error", "gain", "gain_se", "gain_percent", "p_best", "looked_up",
        "bridged", "refused", "seconds",
    ]  # fmt: skip
    assert np.all(np.diff(frame["error"]) > 0)
    np.testing.assert_allclose(frame["gain"], losses[1].mean() - frame["error"], atol=1e-12)
    np.testing.assert_allclose(frame["gain_percent"], 100 * frame["gain"] / losses[1].mean(), atol=1e-10)
    assert frame["p_best"].sum() == pytest.approx(1.0)
    assert frame.loc[1, "property"] == "band gap [eV]"
    assert (frame.loc[1, "looked_up"], frame.loc[1, "bridged"]) == (30, 270)
    assert math.isnan(frame.loc[3, "logme"])


def test_csv_reads_back_to_the_same_numbers(losses, tmp_path) -> None:
    ranking = ranking_of(*losses)
    frame = ranking.to_frame()
    text = ranking.to_csv()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["source"] for row in rows] == list(frame["source"])
    assert [float(row["error"]) for row in rows] == frame["error"].tolist()
    assert rows[2]["logme"] == ""
    assert ranking.to_csv(tmp_path / "ranking.csv") is None
    assert (tmp_path / "ranking.csv").read_text() == text


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_json_is_strict_and_complete(losses, tmp_path) -> None:
    skipped = (SkippedRow(4, "sample 7", "'FE2O3'", "did you mean 'Fe2O3'?"),)
    ranking = ranking_of(
        *losses, errors={"M3GNet": "no bridge"}, unscored={"scotl": "no labels"}, imputed={"Og": ("magpie Number",)},
        settings={"random_state": np.int64(3)}, skipped=skipped,
    )  # fmt: skip
    content = json.loads(ranking.to_json(), parse_constant=refuse)
    assert content["best"] == "source 1"
    assert content["ties"] == ["source 2"]
    assert content["helps"] is True
    assert content["proven_gain"] == ranking.proven_gain
    assert 0 < content["proven_gain"] < ranking.gains[0]
    assert content["combine"] == "concat"
    assert content["summary"] == ranking.summary()
    assert content["unit"] == "eV"
    assert content["skipped"] == [
        {"row": 4, "label": "sample 7", "value": "'FE2O3'", "reason": "did you mean 'Fe2O3'?"}
    ]
    assert content["errors"] == {"M3GNet": "no bridge"}
    assert content["unscored"] == {"scotl": "no labels"}
    assert content["imputed"] == {"Og": ["magpie Number"]}
    control = content["ranking"][2]
    assert (control["rank"], control["source"], control["logme"], control["loo_rmse"]) == (3, NO_TRANSFER, None, None)
    assert [row["error"] for row in content["ranking"]] == ranking.to_frame()["error"].tolist()
    assert ranking.to_json(tmp_path / "ranking.json") is None
    assert json.loads((tmp_path / "ranking.json").read_text()) == content


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_text_fits_and_keeps_names_errors_and_gains(losses, width) -> None:
    names = ["MEGNet-MP-2019.4.1-BandGap-mfi-GLLB-SC", "TensorNetDGL-MatPES-r2SCAN-v2025.1-PES", "third"]
    ranking = ranking_of(*losses, names, looked_up=60, errors={"M3GNet-MP-2021.2.8-PES": "there is no bridge " * 9})
    lines = ranking.to_text(width).splitlines()
    assert max(map(len, lines)) <= width
    start = next(number for number, line in enumerate(lines) if line.startswith("---"))
    table = lines[start + 1 : start + 5]
    assert [line.split("  ")[1] for line in table] == [names[1], names[2], NO_TRANSFER, names[0]]
    frame = ranking.to_frame()
    for line, (_, row) in zip(table, frame.iterrows(), strict=True):
        assert f"  {row['error']:.3f}" in line
        if row["source"] != NO_TRANSFER:
            assert f"{row['gain']:+.3f}" in line
            assert "±" in line
    text = "\n".join(lines)
    # The unit must survive, which a markup language would take for a tag.
    assert "band gap [eV]" in text or width < 100
    assert ("20%" in text) == (width >= 120)
    assert "M3GNet-MP-2021.2.8-PES" in text


def test_text_without_terminal_is_120_wide(losses, monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback: __import__("os").terminal_size(fallback))
    ranking = ranking_of(*losses)
    assert str(ranking) == ranking.to_text(120)
    assert ranking.to_text(10) == ranking.to_text(80)


def test_summary_of_a_gain_says_how_much_and_how_sure(losses) -> None:
    ranking = ranking_of(*losses)
    low, high = (100 * end / losses[1].mean() for end in ranking.gain_interval("source 1"))
    assert ranking.summary() == (
        f"Transfer from source 1: mean absolute error {losses[0][1].mean():.3g} eV, 30.0 % less (90 % interval "
        f"{low:.1f} to {high:.1f} %); mean absolute error without transfer {losses[1].mean():.3g} eV (extra trees on "
        "descriptors). Not told apart from it: source 2."
    )


def test_summary_of_no_gain_says_so(losses) -> None:
    text = ranking_of(losses[0][:1], losses[1]).summary()
    assert text.startswith("Do not transfer: the best source, source 0, changes the error by +30.0 % (90 % interval +2")
    assert "which for the best of 1 is no proven gain; mean absolute error without transfer" in text


def test_class_labels_are_counted_as_error_rate() -> None:
    control = np.repeat([0.0, 1.0], [60, 40])
    ranking = ranking_of(np.repeat([0.0, 1.0], [90, 10]), control, classification=True)
    assert ranking.summary().startswith("Transfer from source 0: error rate 0.1, 75.0 % less")
    assert "  error rate  " in ranking.to_text(200).splitlines()[2]
    assert " eV" not in ranking.summary()


def test_a_control_without_error_leaves_nothing_to_gain() -> None:
    control = np.zeros(50)
    ranking = ranking_of(np.stack([np.zeros(50), np.eye(50)[0]]), control, classification=True)
    assert ranking.best == NO_TRANSFER
    assert ranking.summary().startswith("Do not transfer: there is no error to reduce;")
    assert np.isnan(ranking.to_frame()["gain_percent"].drop(index=1)).all()
    assert json.loads(ranking.to_json(), parse_constant=refuse)["ranking"][1]["gain_percent"] is None
    assert "nan" not in str(ranking)


def test_nothing_ranked_still_answers() -> None:
    control = np.linspace(0.0, 1.0, 20)
    ranking = ranking_of(np.empty((0, 20)), control, errors={"a": "it hangs", "b": "it is broken"})
    assert ranking.best == NO_TRANSFER
    assert ranking.ties == ()
    assert math.isnan(ranking.proven_gain)
    assert ranking.summary() == (
        "No source could be ranked; mean absolute error without transfer 0.5 eV (extra trees on descriptors)."
    )
    assert list(ranking.to_frame()["source"]) == [NO_TRANSFER]
    content = json.loads(ranking.to_json(), parse_constant=refuse)
    assert content["ranking"][0]["error"] == 0.5
    assert content["proven_gain"] is None
    assert "sources not ranked: 2: a: it hangs; and, for reasons in .errors, b" in str(ranking)


def test_remarks_count_and_show_what_was_left_out(losses) -> None:
    ranking = ranking_of(
        *losses,
        unscored={"scotl": "no labels"},
        imputed={"Og": ("x",), "Ts": ("x",)},
        skipped=tuple(SkippedRow(index, index, f"'bad {index}'", "no element") for index in range(5)),
        n_merged=4,
        n_rows=1000,
    )
    remarks = ranking.to_text(200).split("\n\n")[-1].splitlines()
    assert remarks == [
        "* 1000 formulas; error and gain on 300 of them, drawn at random",
        "* rows skipped: 5: row 0 ('bad 0'): no element; row 1 ('bad 1'): no element; row 2 ('bad 2'): no element; "
        "and 2 more, all in .skipped",
        "* rows merged with another of the same composition: 4",
        "* scores left out: scotl (no labels)",
        "* elements of which some tabulated property is unknown and was imputed: Og, Ts",
    ]


def test_ties_of_a_first_source_that_has_not_the_smallest_loss(losses) -> None:
    # An order by other scores: what is better for certain is not worse, what is worse for certain is no tie.
    _, good, tied = losses[0]
    stacked = np.stack([good, 0.5 * good, 2.0 * good, tied])
    by_loss = ranking_of(stacked, losses[1], settings={"combine": "embedding"})
    by_name = tuple(sorted(by_loss.results, key=lambda result: result.source))
    ranking = replace(by_loss, results=by_name, losses=stacked)
    assert (by_loss.sources[0], by_loss.ties) == ("source 1", ())
    assert ranking.ties == ("source 1", "source 3")
    assert "for training on the embedding alone" in str(ranking)
    assert "for training on the embedding alone" in ranking._repr_html_()


def test_html_escapes_what_others_wrote(losses) -> None:
    html = ranking_of(*losses, errors={"a": "<script>"}, target_unit="<b>")._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "a: &lt;script&gt;" in html


def test_html_has_the_answer_and_the_table(losses) -> None:
    html = ranking_of(*losses)._repr_html_()
    assert "Transfer from source 1" in html
    assert html.count("<tr") == 6  # two of heading, four of rows
