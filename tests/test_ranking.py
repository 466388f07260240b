"""The result of a ranking: the order of its rows, its answer, and its forms, on losses made for the purpose."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.ranking.judge import judge
from scotl_matgl.ranking.result import Ranking, SourceResult
from scotl_matgl.vocabulary import NO_TRANSFER

TOGETHER = "first three together"


def ranking_of(
    losses: np.ndarray, control: np.ndarray, names: list[str] | None = None, *, looked_up: int = 0, **fields
) -> Ranking:
    """Ranking of sources with these losses, judged as the search does; their predictions are of one side."""
    losses = np.asarray(losses, dtype=np.float64).reshape(-1, len(control))
    names = [f"source {index}" for index in range(len(losses))] if names is None else names
    constant = 10.0 * np.maximum(control, 0.1)
    judgement = judge(control, losses, np.zeros_like(losses), losses[:, :, None], lambda p: np.abs(p[:, 0]), constant)
    results = tuple(
        SourceResult(names[index], "band gap", "eV", {"logme": -1.5}, 1.25, looked_up, len(control) - looked_up, 0, 0.5)
        for index in judgement.order
    )
    name = "extra trees on descriptors"
    defaults = {"n_rows": len(control), "n_merged": 0, "classification": False, "target_unit": "eV"}
    return Ranking(
        results=results,
        losses=losses[judgement.order],
        control=control,
        judgement=judgement,
        head=name,
        control_name=name,
        control_errors={name: float(control.mean())},
        **({"errors": {}, "skipped": ()} | defaults | fields),
    )


@pytest.fixture
def losses() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    control = rng.gamma(2.0, 0.5, 300)
    return np.stack([control * 1.3, control * 0.7, control * 0.71 + rng.normal(0, 0.1, 300)]), control


# -- the answer -------------------------------------------------------------------------------------------------------


def test_gains_and_intervals_are_those_of_the_judgement_in_the_unit_of_the_target(losses) -> None:
    ranking = ranking_of(*losses)
    assert ranking.sources == ("source 1", "source 2", "source 0")
    assert ranking.error_of_control == losses[1].mean()
    for index, name in enumerate(ranking.sources):
        judged = ranking.judgement.gains[index]
        assert ranking.gains[index] == pytest.approx(judged.gain * losses[1].mean(), rel=1e-12)
        assert ranking.gain_interval(name) == pytest.approx(tuple(losses[1].mean() * np.array(judged.interval)))
    first = ranking.judgement.gains[0]
    assert (ranking.relative_gain, ranking.relative_interval) == (first.gain, first.interval)
    assert ranking.relative_gain == pytest.approx(0.3, abs=0.06)
    assert ranking.gain_interval(TOGETHER) == pytest.approx(
        tuple(losses[1].mean() * np.array(ranking.judgement.together.interval))
    )


def test_the_interval_of_the_best_is_always_there(losses) -> None:
    sources, control = losses
    some = [ranking_of(sources, control), ranking_of(control * 1.5, control), ranking_of(sources[:0], control)]
    some.append(ranking_of(sources, np.zeros(300)))
    for ranking in some:
        low, high = ranking.gain_interval(ranking.best)
        assert low <= high
        assert ranking.gain_interval(NO_TRANSFER) == (0.0, 0.0)
    with pytest.raises(KeyError, match="'nobody' was not ranked; these were: source 1"):
        some[0].gain_interval("nobody")


def test_the_verdict_is_that_of_the_better_of_the_first_and_the_first_together(losses) -> None:
    sources, control = losses
    only = ranking_of(sources[1:2], control)
    assert (only.verdict, only.probability) == ("yes", only.judgement.gains[0].probability)
    rng = np.random.default_rng(0)
    both = ranking_of(np.abs(control * rng.choice([-0.9, 0.9], (5, 300))), control)
    signed = control * rng.choice([-0.9, 0.9], (5, 300))
    judgement = judge(
        control, np.abs(signed), np.ones((5, 300)), signed[:, :, None], lambda p: np.abs(p[:, 0]), 10 * control
    )
    both = replace(both, judgement=judgement)
    assert both.together == "first five together"
    assert (both.verdict, both.probability) == ("yes", judgement.together.probability)
    assert "The first five together: " in both.summary()
    assert both.best == both.sources[0]


def test_best_and_ties(losses) -> None:
    ranking = ranking_of(*losses)
    assert ranking.helps
    assert ranking.best == "source 1"
    assert ranking.ties == ("source 2",)
    assert ranking_of(losses[0][:2], losses[1]).ties == ()
    best = ranking.probability_best
    assert tuple(best) == ranking.sources
    assert sum(best.values()) == pytest.approx(1.0)
    assert best["source 0"] == 0.0
    assert best["source 2"] >= 0.05


@pytest.mark.parametrize(
    ("verdict", "best", "words"),
    [
        ("yes", "source 1", "Transfer from source 1: "),
        ("likely", "source 1", "Transfer from source 1 is likely to help: "),
        ("no", NO_TRANSFER, "Do not transfer: the best of 3 sources, source 1, promises "),
    ],
)
def test_one_verdict_everywhere(losses, verdict, best, words) -> None:
    ranking = ranking_of(*losses)
    gain = replace(ranking.judgement.gains[0], verdict=verdict)  # the third is poor: the first alone has more
    judgement = replace(ranking.judgement, gains=(gain, *ranking.judgement.gains[1:]))
    ranking = replace(ranking, judgement=judgement)
    assert (ranking.verdict, ranking.best, ranking.helps) == (verdict, best, verdict != "no")
    assert ranking.summary().startswith(words)
    content = json.loads(ranking.to_json())
    assert (content["verdict"], content["best"], content["helps"]) == (verdict, best, verdict != "no")
    assert ("`scotl-matgl fit`" in ranking.summary()) == (verdict == "likely")


def test_worse_sources_stand_below_the_control(losses) -> None:
    _, control = losses
    worse = ranking_of(np.stack([control * 1.5, control * 1.6]), control)
    assert (worse.verdict, worse.best) == ("no", NO_TRANSFER)
    assert list(worse.to_frame()["source"]) == [NO_TRANSFER, "source 0", "first two together", "source 1"]


def test_the_sentence_says_how_much_and_how_sure(losses) -> None:
    ranking = ranking_of(*losses)
    low, high = (100 * end for end in ranking.relative_interval)
    control = losses[1].mean()
    assert ranking.summary() == (
        f"Transfer from source 1: mean absolute error {control * (1 - ranking.relative_gain):.3g} eV, "
        f"{100 * ranking.relative_gain:.1f} % less (90 % interval {low:.1f} to {high:.1f} %) than {control:.3g} eV "
        f"without transfer (extra trees on descriptors); probability that transfer helps {ranking.probability:.2f}. "
        "Not told apart from it: source 2."
    )
    worse = ranking_of(losses[0][:1], losses[1])
    assert f"{-100 * worse.relative_gain:.1f} % more (90 % interval −" in worse.summary()
    assert "the best of 1 source, source 0, promises" in worse.summary()


def test_the_first_together_and_the_control_are_shown_wherever_they_stand(losses) -> None:
    _, control = losses
    ranking = ranking_of(np.stack([control * (0.5 + 0.01 * index) for index in range(12)]), control)
    judgement = replace(ranking.judgement, together=replace(ranking.judgement.together, gain=-0.5))
    ranking = replace(ranking, judgement=judgement)
    assert ranking.to_frame()["source"].tolist()[-1] == ranking.together == "first five together"
    assert "first five together" in ranking._repr_html_()
    ax = ranking.plot(most=4)
    drawn = [label.get_text() for label in ax.get_yticklabels()]
    assert drawn == ["source 0", "source 1", "source 2", "source 3", NO_TRANSFER, "first five together"]
    assert ax.get_title(loc="left").endswith("(6 of 14 rows)")


# -- forms ------------------------------------------------------------------------------------------------------------


def test_frame_holds_everything_in_order(losses) -> None:
    ranking = ranking_of(*losses, looked_up=30)
    frame = ranking.to_frame()
    assert list(frame["source"]) == ["source 1", "source 2", TOGETHER, NO_TRANSFER, "source 0"]
    judgement = ranking.judgement
    first, second = sorted((gain.gain for gain in judgement.gains[:2]), reverse=True)
    for gain, place in ((first + 0.01, 0), (second - 0.01, 2), (0.001, 2), (-0.001, 3)):
        together = replace(judgement.together, gain=gain)
        moved = replace(ranking, judgement=replace(judgement, together=together)).to_frame()
        assert list(moved["source"]).index(TOGETHER) == place
    assert list(frame.index) == [1, 2, 3, 4, 5]
    assert frame.index.name == "rank"
    assert set(frame.columns) == {
        "source", "property", "logme", "loo_rmse", "error", "gain", "gain_low", "gain_high", "gain_percent", "p_helps",
        "p_best", "looked_up", "bridged", "refused", "seconds", "seen",
    }  # fmt: skip
    by_name = frame.set_index("source")
    for index, name in enumerate(("source 0", "source 1", "source 2")):
        assert by_name.loc[name, "error"] == pytest.approx(losses[0][index].mean(), rel=1e-12)
        judged = ranking.judgement.gains[ranking.sources.index(name)]
        assert by_name.loc[name, "gain_percent"] == pytest.approx(100 * judged.gain)
        assert by_name.loc[name, "p_helps"] == judged.probability
        assert tuple(by_name.loc[name, ["gain_low", "gain_high"]]) == ranking.gain_interval(name)
    together = by_name.loc[TOGETHER]
    assert together["error"] == pytest.approx(np.abs(losses[0].mean(axis=0)).mean(), rel=1e-12)
    assert together["p_helps"] == ranking.judgement.together.probability
    assert math.isnan(together["p_best"])
    np.testing.assert_allclose(frame["gain_percent"], 100 * frame["gain"] / losses[1].mean(), atol=1e-10)
    assert frame["p_best"].sum() == pytest.approx(1.0)
    assert by_name.loc["source 1", "property"] == "band gap [eV]"
    assert tuple(by_name.loc["source 1", ["looked_up", "bridged"]]) == (30, 270)
    control = by_name.loc[NO_TRANSFER]
    assert control["error"] == losses[1].mean()
    assert (control["gain"], control["gain_low"], control["gain_high"], control["gain_percent"]) == (0, 0, 0, 0)
    assert math.isnan(control["logme"])


def test_one_source_has_no_row_of_several_together(losses) -> None:
    ranking = ranking_of(losses[0][1], losses[1])
    assert (ranking.n_together, ranking.together) == (0, "")
    assert list(ranking.to_frame()["source"]) == ["source 0", NO_TRANSFER]


def test_screened_sources_come_last_without_error_and_gain(losses) -> None:
    ranking = ranking_of(*losses)
    behind = replace(ranking.results[0], source="behind")
    frame = replace(ranking, screened=(behind,)).to_frame()
    assert frame["source"].iloc[-1] == "behind"
    measured = ["error", "gain", "gain_low", "gain_high", "gain_percent", "p_helps", "p_best"]
    assert frame[measured].iloc[-1].isna().all()
    assert frame["logme"].iloc[-1] == -1.5
    assert "behind" in replace(ranking, screened=(behind,)).to_text(120)


def test_csv_reads_back_to_the_same_numbers(losses, tmp_path) -> None:
    ranking = ranking_of(*losses)
    frame = ranking.to_frame()
    text = ranking.to_csv()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["source"] for row in rows] == list(frame["source"])
    assert [float(row["error"]) for row in rows] == frame["error"].tolist()
    assert rows[3]["logme"] == ""
    assert ranking.to_csv(tmp_path / "ranking.csv") is None
    assert (tmp_path / "ranking.csv").read_text() == text


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_json_is_strict_and_complete(losses, tmp_path) -> None:
    skipped = (SkippedRow(4, "sample 7", "'FE2O3'", "did you mean 'Fe2O3'?"),)
    ranking = ranking_of(
        *losses, errors={"M3GNet": "no bridge"}, unscored={"scotl": "no labels"}, imputed={"Og": ("magpie Number",)},
        settings={"n": np.int64(3)}, random_state=3, skipped=skipped,
    )  # fmt: skip
    content = json.loads(ranking.to_json(), parse_constant=refuse)
    assert (content["verdict"], content["best"], content["helps"]) == ("yes", "source 1", True)
    assert content["probability"] == ranking.probability
    assert content["relative_gain"] == ranking.relative_gain
    assert content["relative_interval"] == list(ranking.relative_interval)
    assert content["ties"] == ["source 2"]
    assert content["combine"] == "concat"
    assert content["summary"] == ranking.summary()
    assert content["unit"] == "eV"
    assert content["control"] == content["head"] == "extra trees on descriptors"
    assert content["control_errors"] == {"extra trees on descriptors": losses[1].mean()}
    assert content["settings"]["random_state"] == 3
    assert content["skipped"] == [
        {"row": 4, "label": "sample 7", "value": "'FE2O3'", "reason": "did you mean 'Fe2O3'?"}
    ]
    assert content["errors"] == {"M3GNet": "no bridge"}
    assert content["unscored"] == {"scotl": "no labels"}
    assert content["imputed"] == {"Og": ["magpie Number"]}
    control = content["ranking"][3]
    assert (control["rank"], control["source"], control["logme"], control["loo_rmse"]) == (4, NO_TRANSFER, None, None)
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
    table = lines[start + 1 : start + 6]
    assert [line.split("  ")[1] for line in table] == [names[1], names[2], TOGETHER, NO_TRANSFER, names[0]]
    for line, (_, row) in zip(table, ranking.to_frame().iterrows(), strict=True):
        assert f"  {row['error']:.3f}" in line
        if row["source"] != NO_TRANSFER:
            assert f"{row['gain_percent']:+.1f}" in line
    text = "\n".join(lines)
    # The unit must survive, which a markup language would take for a tag.
    assert "band gap [eV]" in text or width < 140
    assert "20%" in text or width < 200
    assert "M3GNet-MP-2021.2.8-PES" in text


def test_text_without_terminal_is_120_wide(losses, monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback: __import__("os").terminal_size(fallback))
    ranking = ranking_of(*losses)
    assert str(ranking) == ranking.to_text(120)
    assert ranking.to_text(10) == ranking.to_text(80)


def test_class_labels_are_judged_by_the_brier_score() -> None:
    control = np.repeat([0.0, 1.0], [60, 40])
    ranking = ranking_of(np.repeat([0.0, 1.0], [90, 10]), control, classification=True)
    assert "than 0.4 without transfer (extra trees on descriptors)" in ranking.summary()
    assert "Brier score" in ranking.summary()
    assert "  Brier score  " in ranking.to_text(200).splitlines()[2]
    assert "Brier score" in replace(ranking, combine="embedding").summary()
    assert " eV" not in ranking.summary()


def test_a_control_without_error_leaves_nothing_to_gain() -> None:
    ranking = ranking_of(np.stack([np.zeros(50), np.eye(50)[0]]), np.zeros(50), classification=True)
    assert (ranking.verdict, ranking.best, ranking.probability) == ("no", NO_TRANSFER, 0.0)
    assert math.isnan(ranking.relative_gain)
    assert ranking.summary().startswith("Do not transfer: there is no error to reduce;")
    frame = ranking.to_frame().set_index("source")
    assert frame["gain_percent"].drop(index=NO_TRANSFER).isna().all()
    content = json.loads(ranking.to_json(), parse_constant=refuse)
    assert (content["relative_gain"], content["relative_interval"]) == (None, [None, None])
    assert "nan" not in str(ranking)


def test_nothing_ranked_still_answers() -> None:
    control = np.linspace(0.0, 1.0, 20)
    ranking = ranking_of(np.empty((0, 20)), control, errors={"a": "it hangs", "b": "it is broken"})
    assert (ranking.verdict, ranking.best, ranking.probability) == ("no", NO_TRANSFER, 0.0)
    assert (ranking.ties, ranking.together, ranking.probability_best) == ((), "", {})
    assert math.isnan(ranking.relative_gain)
    assert ranking.summary() == (
        "No source could be ranked; mean absolute error 0.5 eV without transfer (extra trees on descriptors)."
    )
    assert list(ranking.to_frame()["source"]) == [NO_TRANSFER]
    assert NO_TRANSFER in ranking._repr_html_()
    content = json.loads(ranking.to_json(), parse_constant=refuse)
    assert content["ranking"][0]["error"] == 0.5
    assert content["relative_gain"] is None
    assert "sources not ranked: 2: a: it hangs; and, for reasons in .errors, b" in str(ranking)


def test_remarks_count_and_show_what_was_left_out(losses) -> None:
    ranking = ranking_of(
        *losses,
        unscored={"scotl": "no labels"},
        imputed={"Og": ("x",), "Ts": ("x",)},
        skipped=tuple(SkippedRow(index, index, f"'bad {index}'", "no element") for index in range(5)),
        n_merged=4,
        n_rows=1000,
        remarks=("the target was read as numbers",),
    )
    remarks = ranking.to_text(200).split("\n\n")[-1].splitlines()
    assert remarks == [
        "* 1000 formulas; errors and gains on 300 of them, drawn at random",
        "* the target was read as numbers",
        "* error: out of fold; gain: on rows that nobody has seen, the choice of the source counted in",
        "* intervals and probabilities were calibrated with kernel ridge on descriptors and embedding together; with "
        "extra trees on descriptors they are untested",
        "* rows skipped: 5: row 0 ('bad 0'): no element; row 1 ('bad 1'): no element; row 2 ('bad 2'): no element; "
        "and 2 more, all in .skipped",
        "* rows merged with another of the same composition: 4",
        "* scores left out: scotl (no labels)",
        "* elements of which some tabulated property is unknown and was imputed: Og, Ts",
    ]


def test_what_was_not_calibrated_says_so(losses) -> None:
    kernel, trees = "kernel ridge on descriptors", "extra trees on descriptors"
    for head, combine, calibrated in ((kernel, "concat", True), (trees, "concat", False), (kernel, "embedding", False)):
        ranking = replace(ranking_of(*losses), head=head, combine=combine)
        assert ranking.calibrated is ranking.to_dict()["calibrated"] is calibrated
        assert ("they are untested" in ranking.to_text(400)) is not calibrated


def test_html_escapes_what_others_wrote(losses) -> None:
    html = ranking_of(*losses, errors={"a": "<script>"}, target_unit="<b>")._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "a: &lt;script&gt;" in html


def test_html_has_the_answer_the_table_and_the_remarks(losses) -> None:
    html = ranking_of(*losses, combine="embedding")._repr_html_()
    assert "Transfer from source 1" in html
    assert html.count("<tr") == 6  # one of heading, five of rows
    assert "for training on the embedding alone" in html
