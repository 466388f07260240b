"""Formulas between metal, covalent and ionic, and the count of calculated crystals that they are shown on."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from scotl_matgl import TransferRegressor
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.cli.main import app
from scotl_matgl.descriptors.bonding import STEP, Bonding, calculated_crystals
from scotl_matgl.plotting import plot_bonding
from scotl_matgl.ranking.pages import formulas_figures

ROOT = Path(__file__).parents[1]


def test_means_and_differences_are_those_of_pauling() -> None:
    # Na 0.93, Cl 3.16, Fe 1.83, O 3.44, Cs 0.79, F 3.98.
    found = Bonding.of(parse_compositions(["NaCl", "Fe2O3", "Fe4O6", "CsF", "Fe"]))
    np.testing.assert_allclose(found.mean, [2.045, (2 * 1.83 + 3 * 3.44) / 5, (2 * 1.83 + 3 * 3.44) / 5, 2.385, 1.83])
    np.testing.assert_allclose(found.difference, [2.23, 1.61, 1.61, 3.19, 0.0])


def test_elements_without_a_value_lie_nowhere() -> None:
    found = Bonding.of(parse_compositions(["NaCl", "HeNa2", "Lr"]))
    assert np.isfinite(found.mean).tolist() == np.isfinite(found.difference).tolist() == [True, False, False]
    assert found.counts().sum() == 1
    assert found.is_near(calculated_crystals()).tolist() == [True, False, False]
    assert not len(Bonding.of(parse_compositions([])).mean)
    assert Bonding.of(parse_compositions([])).counts().sum() == 0


def test_counts_stand_in_the_square_of_the_formula_and_near_is_a_square_away() -> None:
    salt = Bonding.of(parse_compositions(["NaCl"]))
    counts = salt.counts()
    assert np.argwhere(counts).tolist() == [[int(2.045 / STEP), int(2.23 / STEP)]]
    assert salt.is_near(np.roll(counts, (1, -1), (0, 1))).all()
    assert not salt.is_near(np.roll(counts, 2, 0)).any()


@pytest.mark.slow
def test_shipped_counts_are_those_of_the_crystals(assets: Path) -> None:
    counted = runpy.run_path(str(ROOT / "tools" / "count_bonding.py"))["counted"]
    np.testing.assert_array_equal(calculated_crystals(), counted(assets / "structures" / "crystals.json.gz"))


def test_figure_shows_the_formulas_that_have_a_place_and_which_are_far() -> None:
    places = Bonding.of(parse_compositions(["NaCl", "Fe2O3", "HeNa2"]))
    near = np.array([True, False, False])
    ax = plot_bonding(places.mean, places.difference, calculated_crystals(), STEP, near=near, title="mine")
    ground, rows, far = ax.collections
    assert ground.get_array().sum() == pytest.approx(np.log1p(calculated_crystals()).sum())
    np.testing.assert_allclose(rows.get_offsets(), [[2.045, 2.23]])
    np.testing.assert_allclose(far.get_offsets(), [[places.mean[1], places.difference[1]]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "rows of the table",
        "rows far from calculated crystals",
    ]
    assert (ax.get_title(loc="left"), ax.get_xlabel()) == ("mine", "mean electronegativity (Pauling)")


def test_reports_show_percents_by_weight_as_they_were_read(tmp_path: Path) -> None:
    # As atoms, these would lie far from all crystals, with mean electronegativities below that of hydrogen and caesium.
    table, page = tmp_path / "table.csv", tmp_path / "page.html"
    rows = [f"H{100 - caesium}Cs{caesium},{caesium % 7 + caesium / 50}" for caesium in range(50, 99, 2)]
    table.write_text("\n".join(["formula,target", *rows]), encoding="utf-8")
    options = ["--amounts", "weight", "--sources", "SCOTL-MEGNet-Eform", "--head", "kernel ridge"]
    for command in (["rank"], ["fit", "--output", str(tmp_path / "model.skops")]):
        done = CliRunner().invoke(app, [*command, str(table), *options, "--report", str(page)])
        assert done.exit_code == 0, done.output
        assert "near one in this plane: 25 of 25 formulas" in page.read_text(encoding="utf-8")


def test_residuals_by_element_know_alloys_by_weight() -> None:
    alloys = parse_compositions([f"Ti-{i}Al-{10 - i}V" for i in range(1, 10)] * 3, amounts="weight")
    y = np.sin(np.arange(27.0))
    model = TransferRegressor((), head="kernel ridge").fit(alloys, y)
    read = parse_compositions(model.held_out_.formulas)
    np.testing.assert_allclose(
        sorted(read.dense_fractions()[:, 12]), sorted(alloys.dense_fractions()[:, 12]), atol=1e-5
    )
    assert model.held_out_.by_element().keys() == {"Ti", "Al", "V"}
    given = TransferRegressor((), head="kernel ridge").fit(["NaCl", "KCl", "LiF", "LiCl", "MgO"] * 4, y[:20])
    assert set(given.held_out_.formulas) == {"NaCl", "KCl", "LiF", "LiCl", "MgO"}


def test_reports_count_the_formulas_near_crystals_and_those_left_out() -> None:
    page = formulas_figures(["NaCl", "Fe2O3", "HeNa2"])
    assert "near one in this plane: 2 of 2 formulas" in page
    assert "1 formula of elements without a value is left out" in page
    assert "near one in this plane: 1 of 1 formula." in formulas_figures(["NaCl", "Na2Cl2", "ClNa"])
    assert "near one" not in formulas_figures(["HeNe", "Ar"])  # there is a periodic table, and nothing else to show
    assert formulas_figures([]) == formulas_figures(None) == ""
