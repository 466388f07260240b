"""The figure shows the numbers of the ranking."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np

from scotl_matgl.plotting import plot_gains, plot_trade
from scotl_matgl.ranking.judge import judge
from scotl_matgl.ranking.result import Ranking, SourceResult

mpl.use("Agg")


def ranking_of(losses: np.ndarray, control: np.ndarray) -> Ranking:
    judgement = judge(
        control, losses, np.zeros_like(losses), losses[:, :, None], lambda p: np.abs(p[:, 0]), 10.0 * control
    )
    results = tuple(
        SourceResult(f"source {index}", "band gap", "eV", {}, 1.0, 0, len(control), 0, 0.0) for index in judgement.order
    )
    trees = "extra trees on descriptors"
    return Ranking(
        results, losses[judgement.order], control, judgement, trees, trees, {}, {}, (), len(control), 0, False,
        target_unit="eV",
    )  # fmt: skip


def test_points_and_intervals_are_the_gains_in_percent() -> None:
    rng = np.random.default_rng(0)
    control = rng.gamma(2.0, 1.0, 300)
    losses = np.stack([control * 0.8, control * 1.0 + rng.normal(0, 0.3, 300), control * 1.2])
    ranking = ranking_of(losses, control)
    ax = ranking.plot()
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [ranking.together, *ranking.sources]
    drawn, marked = {}, {}
    for container in ax.containers:
        line, _, (bars,) = container.lines
        for (x, y), segment in zip(line.get_xydata(), bars.get_segments(), strict=True):
            name = names[round(len(names) - 1 - y)]
            drawn[name], marked[name] = (x, *sorted(segment[:, 0])), container.get_label()
    told = ranking.to_frame().set_index("source")
    for name in names:
        row = told.loc[name]
        expected = row[["gain", "gain_low", "gain_high"]].to_numpy(float) * 100 / control.mean()
        np.testing.assert_allclose(drawn[name], expected, rtol=1e-9)
        sure = (
            "helps"
            if row["p_helps"] >= 0.95
            else "is likely to help"
            if row["p_helps"] >= 0.5
            else "is not likely to help"
        )
        assert marked[name] == sure
    assert {text.get_text() for text in ax.get_legend().get_texts()} == set(marked.values())
    assert len(set(marked.values())) > 1


def test_only_the_first_sources_are_drawn_and_the_title_says_so() -> None:
    gains = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    ax = plot_gains(list("abcdef"), gains, np.column_stack([gains - 1, gains + 1]), ["yes"] * 6, title="six", most=4)
    assert [label.get_text() for label in ax.get_yticklabels()] == list("abcd")
    assert ax.get_title(loc="left") == "six (first 4 of 6)"


def test_lines_of_equal_error_lie_where_the_error_is() -> None:
    t, s = np.geomspace(1, 100, 40), np.geomspace(1, 1000, 50)
    ax = plot_trade(t, s, 1 / t[None, :] + 1 / s[:, None], levels=[0.5, 0.1])
    for level, path in zip((0.1, 0.5), ax.collections[0].get_paths(), strict=True):
        on_line = path.vertices
        np.testing.assert_allclose(1 / on_line[:, 0] + 1 / on_line[:, 1], level, rtol=0.03)
