"""Figures show the numbers that they were given, legends cover none of them, and the user's axes are respected."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

from scotl_matgl.exceptions import InputError
from scotl_matgl.learners.held_out import HeldOut
from scotl_matgl.plotting import Curve, as_svg, plot_calibration, plot_curves, plot_elements, plot_gains, plot_trade
from scotl_matgl.plotting.elements import place_of
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
    assert names == list(ranking.to_frame()["source"])
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
            "no transfer"
            if name == "no transfer"
            else "helps"
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


def held_out() -> HeldOut:
    rng = np.random.default_rng(0)
    measured = rng.normal(size=200)
    predicted = measured + 0.1 * rng.normal(size=200)
    predicted[3] = np.nan
    return HeldOut(("Fe2O3",) * 100 + ("NaCl",) * 97 + ("TiC",) * 3, measured, predicted, np.full(200, 0.1))


def test_predictions_are_drawn_as_they_are_and_misses_told_apart() -> None:
    held = held_out()
    ax = held.plot(unit="eV")
    known = ~np.isnan(held.predicted)
    missed = known & (np.abs(held.measured - held.predicted) > 1.6448536 * 0.1)
    drawn = {box.get_label(): box.lines[0].get_xydata() for box in ax.containers}
    np.testing.assert_array_equal(drawn["interval misses it"], np.column_stack([held.measured, held.predicted])[missed])
    assert sum(map(len, drawn.values())) == known.sum()
    reach = ax.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert np.ptp(reach) == pytest.approx(2 * 1.6448536 * 0.1, rel=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("measured, eV", "predicted, out of fold, eV")
    assert ax.get_xlim() == ax.get_ylim()


def test_residuals_stand_by_element_with_their_mean() -> None:
    held = held_out()
    ax = held.plot_residuals(unit="eV", most=3)
    residual = held.predicted - held.measured
    rows = {"Fe": range(100), "O": range(100), "Na": range(100, 197), "Cl": range(100, 197)}
    names = [label.get_text().split("\n")[0] for label in ax.get_xticklabels()]
    assert len(names) == 3  # of titanium and carbon there are three rows, too few
    assert set(names) < set(rows)
    means = [line.get_ydata()[0] for line in ax.lines if len(line.get_ydata()) == 2 and line.get_linewidth() == 2]
    assert means == pytest.approx([np.nanmean(residual[rows[name]]) for name in names])
    assert ax.get_ylabel() == "predicted − measured, eV"


def test_calibration_is_the_share_inside() -> None:
    held = held_out()
    ax = held.plot_calibration()
    found = next(line for line in ax.lines if line.get_label() == "found")
    share = dict(zip(found.get_xdata().round().tolist(), found.get_ydata(), strict=True))
    assert share[90] == pytest.approx(100 * held.coverage())
    with pytest.raises(InputError, match="no row has a measurement"):
        plot_calibration([1.0], [np.nan], [1.0])


def test_the_periodic_table_has_every_element_at_its_place() -> None:
    places = {z: place_of(z) for z in range(1, 119)}
    assert len(set(places.values())) == 118
    assert [places[z] for z in (1, 2, 5, 26, 57, 71, 72, 86, 92, 118)] == [
        (0, 0), (0, 17), (1, 12), (3, 7), (8, 2), (8, 16), (5, 3), (5, 17), (9, 5), (6, 17),
    ]  # fmt: skip
    ax = plot_elements({"Fe": 3, "O": 40})
    written = [text.get_text() for text in ax.texts]
    assert written[written.index("Fe") + 1] == "3"
    assert written[written.index("O") + 1] == "40"
    faces = {patch.get_xy(): patch.get_facecolor() for patch in ax.patches}
    assert sum(faces[(15, 1)][:3]) < sum(faces[(7, 3)][:3]) < sum(faces[(0, 0)][:3])  # oxygen, iron, hydrogen
    with pytest.raises(InputError, match="'Xx' is no symbol"):
        plot_elements({"Xx": 1})


def figures() -> dict[str, Axes]:
    held, none = held_out(), np.empty(0)
    sizes = np.array([25.0, 50.0, 100.0])
    curve = Curve("one", sizes, 1 / sizes, 0.1 / sizes, none, none, (none, none), 100.0)
    t = np.geomspace(1, 100, 20)
    return {
        "gains": plot_gains(list("ab"), [1, 0], [[0, 2], [0, 0]], ["yes", "control"]),
        "predictions": held.plot(),
        "residuals": held.plot_residuals(),
        "calibration": held.plot_calibration(),
        "curves": plot_curves([curve, replace(curve, name="two", means=2 / sizes)], 100, error=0.02),
        "trade": plot_trade(t, t, 1 / t[None, :] + 1 / t[:, None], measured=((2, 50), (2, 50)), mixes=[[1, 1], [9, 9]]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gains", "predictions", "residuals", "calibration", "curves", "trade"])
def test_legends_cover_no_data_and_axes_are_labelled(name) -> None:
    ax = figures()[name]
    ax.figure.canvas.draw()
    legend, inside = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert legend.y0 >= inside.y1 - 1
    title = ax.get_tightbbox().y1
    assert legend.y1 <= title + 1
    assert ax.get_xlabel()
    assert name == "gains" or ax.get_ylabel()


def test_axes_of_the_user_keep_their_words_and_no_figure_is_opened() -> None:
    figure, ax = plt.subplots()
    ax.set_title("mine")
    ax.set_xlabel("my x")
    before = plt.get_fignums()
    assert held_out().plot(ax, unit="eV") is ax
    assert plt.get_fignums() == before
    assert (ax.get_title(), ax.get_title(loc="left"), ax.get_xlabel()) == ("mine", "", "my x")
    assert tuple(figure.get_size_inches()) == tuple(mpl.rcParams["figure.figsize"])


def test_figures_in_pages_have_an_alternative_text_and_ids_of_their_own() -> None:
    before = plt.get_fignums()
    svg = as_svg(held_out().plot(), "one", 'a "figure" <of> points')
    assert plt.get_fignums() == before
    root = ET.fromstring(svg)  # noqa: S314 - our own
    assert root.get("aria-label") == 'a "figure" <of> points'
    assert root.get("role") == "img"
    identifiers = [item.get("id") for item in root.iter() if item.get("id")]
    assert identifiers
    assert all(identifier.startswith("one-") for identifier in identifiers)
    links = [item.get("{http://www.w3.org/1999/xlink}href", "") for item in root.iter()]
    assert {link[1:] for link in links if link} <= set(identifiers)
    assert "measured" in "".join(root.itertext())


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")
