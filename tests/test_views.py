"""What notebooks show: tables of results, whose text is escaped; and what is told and cited of a fitted model."""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scotl_matgl import TradeLaw, TransferabilityRanker, TransferClassifier, TransferRegressor, load_example
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.learners.held_out import HeldOut
from scotl_matgl.ranking.cited import entries
from scotl_matgl.sources.cards import all_cards, select
from scotl_matgl.studies.curves import COLUMNS, LearningCurves
from scotl_matgl.studies.validation import Validation
from scotl_matgl.views import DOCUMENTATION, Column, bar, table


class Cells(HTMLParser):
    """Texts of cells, row by row, and every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.inside = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def example() -> pd.DataFrame:
    return load_example().sample(120, random_state=0)


@pytest.fixture(scope="module")
def model(example) -> TransferRegressor:
    sources = ["MEGNet-MP-2018*", "Shotgun-BulkModulus-1"]
    return TransferRegressor(sources, head="kernel ridge", target_unit="eV/atom").fit(
        example["formula"], example["target"]
    )


def test_cells_are_escaped_and_numbers_have_their_values() -> None:
    html = table([Column("<b>", ["a&b", "<i>"]), Column("x", ["1.5", ""], [1.5, float("nan")])], header="<b>")
    parsed = Cells(html)
    assert parsed.rows == [["<b>", "x"], ["a&b", "1.5"], ["<i>", ""]]
    assert {"b", "i"}.isdisjoint(parsed.tags)
    assert re.findall(r'data-value="([^"]*)"', html) == ["1.5", ""]
    assert html.count('scope="row"') == 2


@pytest.mark.parametrize(("value", "left", "width"), [(50.0, 2.0, 58.0), (-25.0, 31.0, 29.0)])
def test_a_bar_begins_at_zero_and_ends_at_its_value(value, left, width) -> None:
    span = (0.0, 100.0) if value > 0 else (-50.0, 50.0)
    found = re.search(r'<rect x="([\d.]+)" y="3" width="([\d.]+)"', bar(value, value, value, span, "yes"))
    assert tuple(map(float, found.groups())) == (left, width)
    assert bar(float("nan"), 0.0, 1.0, span, "no") == ""


def test_a_notebook_shows_eight_rows_of_a_ranking_and_the_control(example) -> None:
    ranker = TransferabilityRanker("MEGNet*", head="kernel ridge")
    ranking = ranker.fit(example["formula"], example["target"]).ranking_
    parsed = Cells(ranking._repr_html_())
    heading, *rows = parsed.rows
    frame = ranking.to_frame()
    names = [row[heading.index("source")] for row in rows]
    assert names[:8] == list(frame["source"][:8])
    assert set(names[8:]) == {"no transfer"} - set(names[:8])
    assert "nan" not in str(rows).lower()
    errors = [float(row[heading.index("error")]) for row in rows[:8]]
    assert errors == pytest.approx(frame["error"][:8], abs=1e-3)
    assert parsed.tags.count("svg") == sum(name != "no transfer" for name in names)


def test_a_card_and_formulas_are_tables() -> None:
    card = select(all_cards(), "MEGNet-MP-2018.6.1-Eform")[0]
    told = dict(row for row in Cells(card._repr_html_()).rows[1:])
    assert told["property"] == card.property
    assert told["elements"].startswith(f"{len(card.elements)}: ")
    formulas = parse_compositions(["Fe2O3", "<b>", "NaCl"], on_error="skip")
    html = formulas._repr_html_()
    assert Cells(html).rows[1:] == [["0", "Fe2O3", "Fe 0.4, O 0.6"], ["2", "NaCl", "Na 0.5, Cl 0.5"]]
    assert "<b>" not in html
    assert "2 of 3 formulas" in html


def test_studies_are_tables() -> None:
    frame = pd.DataFrame(
        {
            "method": ["<m>", "<m>"],
            "scheme": ["random", "element"],
            "fold": [0, 0],
            "held_out": ["", "Fe"],
            "error": [0.1, 0.3],
            "random": [0.1, 0.2],
            "constant": [1.0, 1.0],
            "failure": ["", ""],
        }
    )
    html = Validation(frame, "mean absolute error", "eV", 10, 0, (), {"cluster": "<too few>"})._repr_html_()
    heading, *rows = Cells(html).rows
    assert [row[heading.index("ratio")] for row in rows] == ["1", "1.5"]
    assert "<m>" not in html
    assert "&lt;too few&gt;" in html
    errors = [(n, 2.0 * n**-0.5) for n in (25, 50, 100, 200)]
    records = [["f", "one", r, n, 10, e * (1 + 0.01 * r), 1.0, "", ""] for n, e in errors for r in range(3)]
    curves = LearningCurves(
        pd.DataFrame(records, columns=list(COLUMNS)), ("one",), 250, 0, (), "mean absolute error", "eV", 5
    )
    heading, row = Cells(curves._repr_html_()).rows
    assert heading == ["method", "exponent", "error, 250 rows", "500 rows"]
    assert row[1].partition(" ")[0] == "0.5"
    law = Cells(TradeLaw(1.0, 0.5, 2.0, 0.25)._repr_html_()).rows
    assert ["source data: exponent", "0.25"] in law


def test_the_summary_tells_what_the_model_knows_of_itself(model) -> None:
    told = model.summary()
    text = str(told)
    assert f"{model.error_:.3g} eV/atom" in text
    assert model.source_ in text
    assert f"probability {model.ranking_.probability:.2f}" in text
    assert told.errors["this model"] == model.error_
    assert told.gain(model.error_) == pytest.approx(100 * (1 - model.error_ / model.no_transfer_error_))
    assert sum(told.heads.values()) == pytest.approx(1.0)
    names = [row[0] for row in Cells(told._repr_html_()).rows]
    assert names[:4] == ["model", *told.errors]


def test_without_sources_the_summary_does_not_speak_of_transfer(example) -> None:
    model = TransferRegressor([], head="kernel ridge").fit(example["formula"][:40], example["target"][:40])
    assert "No source was asked for" in str(model.summary())
    labels = example["target"][:40] < -1
    classes = TransferClassifier([], head="kernel ridge").fit(example["formula"][:40], labels)
    assert classes.held_out_ is None
    assert "error rate" in str(classes.summary())


def test_what_was_held_out_has_the_error_that_is_told(model) -> None:
    held = model.held_out_
    assert np.abs(held.measured - held.predicted).mean() == pytest.approx(model.error_)
    assert held.coverage() == pytest.approx(0.9, abs=0.02)
    assert len(held.formulas) == len(held.measured) == 120
    normal = np.random.default_rng(0).normal(size=20_000)
    drawn = HeldOut((), normal, np.zeros(20_000), np.ones(20_000))
    assert drawn.coverage(0.5) == pytest.approx(0.5, abs=0.02)


def test_boxes_of_estimators_link_to_the_reference() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Documentation"] == DOCUMENTATION
    for estimator in (TransferRegressor(), TransferClassifier(), TransferabilityRanker()):
        name = type(estimator).__name__
        assert f'href="{DOCUMENTATION}reference/#scotl_matgl.{name}"' in estimator._repr_html_()


def test_references_become_entries_once_with_keys_of_their_own() -> None:
    found = entries(
        [
            "Xie, Grossman, Phys. Rev. Lett. 2018, 120, 145301, doi:10.1103/PhysRevLett.120.145301",
            "the same paper, doi:10.1103/physrevlett.120.145301.",
            "Xie, Another 100 % of it, 2018",
            "@article{ready, title={x}}",
            "descriptors: those of `standard`",
            "training procedure: H. Yamada et al. (2019)",
        ]
    )
    assert [entry.partition(",")[0] for entry in found] == [
        "@misc{xie2018",
        "@misc{xie2018a",
        "@article{ready",
        "@misc{yamada2019",
    ]
    assert r"100 \% of it" in found[1]


def test_the_card_of_a_model_reads_as_one_of_hugging_face(model) -> None:
    card = model.card()
    _, head, body = card.split("---\n", 2)
    assert "pipeline_tag: tabular-regression" in head
    assert f"| this model | {model.error_:.4g} |" in body
    assert "10.1021/acs.chemmater.9b01294" in body  # MEGNet
    assert "10.1038/npjcompumats.2016.28" in body  # magpie
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub reads the card; it is not installed")
    read = hub.ModelCard(card)
    assert read.data.to_dict()["pipeline_tag"] == "tabular-regression"
    assert read.data.library_name == "sklearn"


def test_a_pipeline_with_a_featurizer_goes_through_skops(example) -> None:
    import skops.io
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.pipeline import make_pipeline

    from scotl_matgl import TransferFeaturizer

    pipeline = make_pipeline(TransferFeaturizer("MEGNet-MP-2018*"), ExtraTreesRegressor(5, random_state=0))
    pipeline.fit(example["formula"], example["target"])
    data = skops.io.dumps(pipeline)
    again = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    np.testing.assert_array_equal(again.predict(["MgO", "TiC"]), pipeline.predict(["MgO", "TiC"]))
