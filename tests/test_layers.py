"""Choice of layers: the best one is found and named, and that it was chosen is counted in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from scotl_matgl import TransferabilityRanker, TransferFeaturizer, TransferRegressor, load_example
from scotl_matgl.bridges.embedding import embed_source
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.cli.main import app
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.encoders.base import Encoded
from scotl_matgl.encoders.probes import reference_crystals
from scotl_matgl.exceptions import InputError
from scotl_matgl.ranking.judge import criterion, judge
from scotl_matgl.ranking.layers import layers_of
from scotl_matgl.ranking.many import rank_many
from scotl_matgl.sources.cards import SourceCard, all_cards, select
from scotl_matgl.studies.judging import orders
from scotl_matgl.studies.measuring import EvaluationSettings, evaluate
from scotl_matgl.tables.rows import read_rows

ENTHALPY = "MEGNet-MP-2018.6.1-Eform"
LAYERS = {"readout": 4, "first": 4, "second": 4, "last": 4}
FACTS = dict.fromkeys(("zoo", "property", "unit", "dataset", "architecture", "licence", "citation"), "x")

pytestmark = pytest.mark.usefixtures("only_what_is_shipped")


def hidden(compositions: Any) -> np.ndarray:
    """What a layer that knows the property holds: four numbers of each formula that no descriptor tells."""
    seeds = map(hash_of, keys(compositions))
    return np.array([np.random.default_rng(seed).normal(size=4) for seed in seeds])


def keys(compositions: Any) -> list[str]:
    return list(compositions.keys())


def hash_of(text: str) -> int:
    return sum(ord(letter) * 31**i for i, letter in enumerate(text)) % 2**32


class Noise:
    """Noise in each layer, another for each name; the layer that the card names holds what the property hangs on."""

    def __init__(self, card: SourceCard) -> None:
        self.card = card

    def encode(self, compositions: Any, *, layer: str) -> np.ndarray:
        if layer == "broken":
            raise RuntimeError("this layer cannot be read")
        if layer == "constant":
            return np.ones((len(compositions), 4))
        if layer == self.card.options.get("knows"):
            return hidden(compositions)
        seed = hash_of(self.card.name + layer)
        return np.array([np.random.default_rng([seed, hash_of(key)]).normal(size=4) for key in keys(compositions)])


def source(name: str, knows: str = "", layers: dict[str, int] = LAYERS) -> SourceCard:
    options = {"knows": knows} if knows else {}
    return SourceCard(
        name=name, modality="composition", layers=layers, loader=f"{__name__}:Noise", options=options, **FACTS
    )


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    frame = load_example().drop_duplicates("formula").sample(70, random_state=0).reset_index(drop=True)
    rows = read_rows(frame["formula"])
    frame["target"] = hidden(rows.compositions) @ [1.0, -1.0, 2.0, 0.5]
    return frame


def ranker(sources: Any, layer: Any = "auto", **options: Any) -> TransferabilityRanker:
    return TransferabilityRanker(sources, layer=layer, **{"head": "kernel ridge", "estimators": ["loo"], **options})


# -- the judgement ----------------------------------------------------------------------------------------------------


def made_up(seed: int, sources: int, layers: int, gain: float = 0.0) -> tuple[np.ndarray, ...]:
    """Control, losses beside descriptors and alone, predictions and the property; layers differ by chance alone."""
    rng = np.random.default_rng(seed)
    y, control = 3 * rng.normal(size=100), rng.gamma(2.0, 0.5, 100)
    losses = control * (1 - gain) + rng.normal(0, 0.4, (sources, layers, 100))
    return control, losses, rng.gamma(2.0, 0.5, losses.shape), (y + losses)[..., None], y


def judged(control: np.ndarray, losses: np.ndarray, alone: np.ndarray, predictions: np.ndarray, y: np.ndarray) -> Any:
    return judge(control, losses, alone, predictions, lambda p: p[:, 0] - y, np.abs(y - np.median(y)))


def test_layers_of_one_source_are_corrected_for_as_so_many_sources_are() -> None:
    control, losses, alone, predictions, y = made_up(0, 1, 12)
    layers, sources = (
        judged(control, losses, alone, predictions, y),
        judged(control, losses[0], alone[0], predictions[0], y),
    )
    assert layers.gains[0] == sources.gains[0]
    assert layers.taken[0] == sources.order[0]
    assert (layers.order.tolist(), layers.probability_first.tolist()) == ([0], [1.0])


def test_layers_are_chosen_anew_on_the_rows_that_are_drawn() -> None:
    control, losses, alone, predictions, y = made_up(1, 4, 5)
    found = judged(control, losses, alone, predictions, y)
    rng, first, seen = np.random.default_rng(9), np.zeros(100), np.zeros(100)
    for _ in range(4000):
        rows = rng.choice(100, size=100)
        out = np.setdiff1d(np.arange(100), rows)
        values = criterion(losses[..., rows].mean(axis=-1), alone[..., rows].mean(axis=-1), 100)
        best = np.unravel_index(values.argmin(), values.shape)
        first[out] += losses[best][out]
        seen[out] += 1
    assert found.gains[0].measured == pytest.approx(1 - (first / seen).mean() / control.mean(), abs=0.01)
    whole = criterion(losses.mean(axis=-1), alone.mean(axis=-1), 100)
    np.testing.assert_array_equal(found.taken, whole.argmin(axis=1))
    np.testing.assert_array_equal(found.order, whole.min(axis=1).argsort())


def test_a_layer_that_is_repeated_changes_nothing() -> None:
    made = made_up(2, 3, 2)
    twice = [made[0], *(np.repeat(array, 2, axis=1) for array in made[1:4]), made[4]]
    once, again = judged(*made), judged(*twice)
    assert once.gains == again.gains
    assert once.together == again.together
    np.testing.assert_array_equal(once.probability_first, again.probability_first)


@pytest.mark.slow
def test_the_best_of_many_layers_that_know_nothing_gains_nothing() -> None:
    naive, stated, sure = [], [], 0
    for seed in range(60):
        made = made_up(seed, 5, 6)
        found = judged(*made)
        naive.append(1 - made[1].mean(axis=-1).min() / made[0].mean())
        stated.append(found.gains[0].measured)
        sure += found.answer.verdict == "yes"
    assert np.mean(naive) > 0.06
    assert abs(np.mean(stated)) < 3 * stats.sem(stated) < 0.02
    assert sure <= 3


# -- rankings ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"head": "extra trees"}, {"combine": "embedding"}])
def test_the_layer_that_knows_the_property_is_found_and_named(table: pd.DataFrame, options: dict[str, Any]) -> None:
    sources = [source("A"), source("B", "second"), source("C")]
    fitted = ranker(sources, **options).fit(table["formula"], table["target"])
    ranking = fitted.ranking_
    assert ranking.sources[0] == "B"
    assert (ranking.results[0].layer, ranking.results[0].n_layers) == ("second", 4)
    assert fitted.embeddings_[0].layer == "second"
    # All numbers are those of this layer.
    alone = ranker(sources[1], "second", **options).fit(table["formula"], table["target"]).ranking_
    np.testing.assert_array_equal(ranking.losses[0], alone.losses[0])
    assert ranking.results[0].scores == alone.results[0].scores
    frame = ranking.to_frame().set_index("source")
    assert frame.loc["B", "layer"] == "second"
    assert frame.loc["no transfer", "layer"] == ""
    listed = {row["source"]: row for row in ranking.to_dict()["ranking"]}
    assert listed["B"]["layer"] == "second"
    assert ranking.to_dict()["settings"]["layer"] == "auto"
    for shown in (ranking.to_text(200), ranking._repr_html_(), ranking.report()):
        assert shown is not None
        assert "second" in shown
        assert "of 12 layers that 3 sources can be had by" in shown
    readout = ranker(sources, "readout", **options).fit(table["formula"], table["target"]).ranking_
    assert readout.verdict != "yes"
    assert "layer" not in readout.to_frame()


@pytest.mark.slow
def test_more_rows_than_the_screen_sees_are_judged_by_the_first_layers() -> None:
    frame = load_example().drop_duplicates("formula").iloc[:340]
    y = hidden(read_rows(frame["formula"]).compositions) @ [1.0, -1.0, 2.0, 0.5]
    layers = {"readout": 4, **{f"noise_{i}": 4 for i in range(5)}, "deep": 4}
    ranking = ranker([source("A", "deep", layers), source("B", "", layers)]).fit(frame["formula"], y).ranking_
    assert (ranking.best, ranking.results[0].layer, ranking.results[0].n_layers) == ("A", "deep", 7)


def test_of_several_layers_each_source_takes_its_best_and_one_alone_is_no_choice(table: pd.DataFrame) -> None:
    given = table["formula"], table["target"]
    sources = [source("A", "second"), source("B", "last", {"readout": 4, "last": 4})]
    found = ranker(sources, ["second", "last"]).fit(*given).ranking_
    assert {result.source: (result.layer, result.n_layers) for result in found.results} == {
        "A": ("second", 2),
        "B": ("last", 1),
    }
    assert found.settings["layer"] == ["second", "last"]
    # A source without any of them is listed, with what it has.
    lost = ranker([sources[0], source("C", "", {"readout": 4})], ["second"], on_error="skip").fit(*given).ranking_
    assert dict(lost.errors) == {"C": "it has none of the layers second; it has readout"}
    only = ranker(sources[0], ["readout"]).fit(*given).ranking_
    alone = ranker(sources[0], "readout").fit(*given).ranking_
    assert only.judgement.gains == alone.judgement.gains
    np.testing.assert_array_equal(only.losses, alone.losses)


def test_a_layer_that_fails_costs_itself(table: pd.DataFrame) -> None:
    layers = {"readout": 4, "broken": 4, "constant": 4, "last": 4}
    ranking = ranker(source("A", "last", layers)).fit(table["formula"], table["target"]).ranking_
    assert not ranking.errors
    assert (ranking.results[0].layer, ranking.results[0].n_layers) == ("last", 2)
    none = source("B", "", {"readout": 4, "broken": 4, "constant": 4})
    lost = ranker([source("A"), none], ["broken", "constant"], on_error="skip").fit(table["formula"], table["target"])
    assert lost.ranking_.errors["B"] == "the source gives the same embedding for every formula of the table"


@pytest.mark.slow
def test_layers_of_noise_do_not_make_transfer_help(table: pd.DataFrame) -> None:
    found: dict[str, list[Any]] = {"readout": [], "auto": []}
    for seed in range(20):
        sources = [source(f"S{seed}-{i}") for i in range(4)]
        shuffled = np.random.default_rng(seed).permutation(table["target"])
        for layer, rankings in found.items():
            rankings.append(ranker(sources, layer).fit(table["formula"], shuffled).ranking_)
    gains = {layer: np.mean([ranking.relative_gain for ranking in rankings]) for layer, rankings in found.items()}
    assert sum(ranking.verdict == "yes" for ranking in found["auto"]) <= 1
    assert gains["auto"] < gains["readout"] + 0.003
    assert abs(np.mean([ranking.judgement.gains[0].measured for ranking in found["auto"]])) < 0.01


def test_formulas_have_the_layers_that_are_bridged() -> None:
    frame = load_example().sample(60, random_state=0)
    ranking = ranker(ENTHALPY).fit(frame["formula"], frame["target"]).ranking_
    (card,) = select(all_cards(), ENTHALPY)
    assert len(card.layers) == 12
    assert ranking.results[0].n_layers == 2
    one_by_one = {
        layer: ranker(ENTHALPY, layer).fit(frame["formula"], frame["target"]).ranking_.judgement.criterion[0]
        for layer in ("readout", "final")
    }
    assert ranking.results[0].layer == min(one_by_one, key=one_by_one.get)  # type: ignore[arg-type]
    unbridged = ranker(ENTHALPY, ["gc_9", "penultimate"], on_error="skip")
    with pytest.raises(InputError, match=r"layer names 'gc_9', which none of the sources has; they have readout, penu"):
        unbridged.fit(frame["formula"], frame["target"])
    lost = ranker(ENTHALPY, ["penultimate", "block_1_node"], on_error="skip").fit(frame["formula"], frame["target"])
    assert "to the layer 'penultimate'" in lost.errors_[ENTHALPY]


# -- crystals ---------------------------------------------------------------------------------------------------------


class Shells:
    """A model of crystals with two layers."""

    def __init__(self, card: SourceCard) -> None:
        self.card, self.layers = card, tuple(card.layers)

    def encode_layers(self, structures: Any, *, layers: Any, **_: Any) -> Encoded:
        volume = np.array([[crystal.volume] for crystal in structures], dtype=np.float32)
        values = {"readout": np.repeat(np.sin(1e4 * volume), 3, axis=1), "gc_1": np.repeat(volume, 2, axis=1)}
        return Encoded({layer: values[layer] for layer in layers})


@pytest.mark.slow
def test_crystals_have_all_layers_without_a_bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    card = SourceCard(
        name="Shells", modality="structure", layers={"readout": 3, "gc_1": 2}, loader=f"{__name__}:Shells", **FACTS
    )
    rng = np.random.default_rng(0)
    crystals = [
        Crystal(edge * np.eye(3), [[0, 0, 0], [0.5] * 3], [cation, anion], f"{cation}-{anion}")
        for cation in (3, 11, 19, 37, 55)
        for anion in (9, 17, 35, 53)
        for edge in rng.uniform(3, 6, size=2)
    ]
    y = np.array([crystal.volume for crystal in crystals])
    ranking = ranker(card).fit(crystals, y).ranking_
    assert (ranking.best, ranking.results[0].layer, ranking.results[0].encoded) == ("Shells", "gc_1", len(crystals))
    errors = {}
    for layer in ("readout", "auto"):
        model = TransferRegressor(card, layer=layer, head="kernel ridge").fit(crystals[::2], y[::2])
        errors[layer] = np.mean(np.abs(model.predict(crystals[1::2]) - y[1::2]))
    assert model.sources_[0].layer == "gc_1"
    # Formulas are told apart: no bridge shows the source anything of them.
    assert "without a bridge, so that rows must be crystals: Shells (layer gc_1)" in model.remarks_
    again = [crystals[0], "LiF"]
    assert model.domain(again)["inside"].tolist() == [True, False]
    assert errors["auto"] < errors["readout"]
    # Formulas beside them have neither layer: they are none of those that can be had.
    rows = read_rows([*list(reference_crystals().values())[:1], "NaCl"])
    described = Described.of(rows.compositions, get_descriptor("standard").fit(rows.compositions), rows.crystals)
    found = embed_source(card, described, layers=("readout", "gc_1"))
    assert [embedded.refused.tolist() for ((_, embedded),) in found.values()] == [[False, True]] * 2


# -- models, studies, commands ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_models_and_featurizers_embed_by_the_layer_taken(table: pd.DataFrame, tmp_path: Path) -> None:
    given = table["formula"], table["target"]
    sources = [source("A"), source("B", "second")]
    model = TransferRegressor(sources, layer="auto", n_sources=1, head="kernel ridge").fit(*given)
    assert [(found.name, found.layer) for found in model.sources_] == [("B", "second")]
    assert model.transfers_
    assert "B (layer second)" in str(model.summary())
    featurizer = TransferFeaturizer(sources[1], layer=["readout", "second"], combine="embedding").fit(*given)
    assert featurizer.get_feature_names_out()[0] == "B[second]_0"
    np.testing.assert_allclose(featurizer.transform(["NaCl"]), hidden(read_rows(["NaCl"]).compositions))
    with pytest.raises(InputError, match="to choose a layer takes a target: pass y, or name one"):
        TransferFeaturizer(sources[1], layer="auto").fit(table["formula"])
    with pytest.raises(InputError, match="layer='auto' is for method='frozen'; 'fine-tune' takes one layer"):
        TransferRegressor(ENTHALPY, layer="auto", method="fine-tune").fit(*given)


@pytest.mark.parametrize("layer", [3, None, "", [], ["auto", "readout"], ["readout", 2]])
def test_what_is_no_layer_is_refused(table: pd.DataFrame, layer: Any) -> None:
    for make in (ranker, lambda sources, layer: TransferRegressor(sources, layer=layer)):
        with pytest.raises(InputError, match="give the name of a layer, a list of names, or 'auto' alone"):
            make(source("A"), layer).fit(table["formula"], table["target"])


def test_evaluation_names_the_layer_and_takes_it_for_no_score(table: pd.DataFrame, tmp_path: Path) -> None:
    settings = EvaluationSettings(head="kernel ridge", layer="auto", sizes=[30], repeats=1, estimators=["loo"])
    sources = [source("A"), source("B", "second")]
    given = table["formula"], table["target"], sources
    found = evaluate(*given, path=tmp_path / "found.csv", settings=settings)
    layers = dict(zip(found["source"], found["layer"], strict=True))
    assert (layers["B"], layers["no transfer"]) == ("second", "")
    assert "layer" not in orders(found).to_string()
    again = evaluate(*given, path=tmp_path / "found.csv", settings=settings)
    pd.testing.assert_frame_equal(found, again)
    assert "layer" not in evaluate(*given, settings=dataclasses.replace(settings, layer="readout"))


def test_many_sources_are_screened_by_their_best_layer(table: pd.DataFrame, tmp_path: Path) -> None:
    from scotl_matgl.ranking.stages import CardSource

    class Lasting(CardSource):
        identity = "1"

    sources = [Lasting(source(f"S{i}", "last" if i == 7 else "")) for i in range(10)]
    options = {"layer": "auto", "max_measured": 3, "head": "kernel ridge", "path": tmp_path / "scores.jsonl"}
    found = rank_many(sources, table["formula"], table["target"], **options)
    assert (found.best, found.results[0].layer) == ("S7", "last")
    again = rank_many(sources, table["formula"], table["target"], **options)
    np.testing.assert_array_equal(found.losses, again.losses)
    assert [result.layer for result in found.screened] == [result.layer for result in again.screened]


def test_layers_are_those_of_the_card_in_its_order() -> None:
    card = source("A")
    assert layers_of(card, "auto") == tuple(LAYERS)
    assert layers_of(card, ["last", "readout"]) == ("readout", "last")
    assert layers_of(card, "other") == ("other",)  # what is wrong with it is said by what embeds


@pytest.mark.slow
def test_commands_take_layers(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    load_example().sample(90, random_state=0).to_csv(file, index=False)
    run = CliRunner().invoke
    common = [str(file), "-s", ENTHALPY, "--head", "kernel ridge", "--layer"]
    told = json.loads(run(app, ["rank", *common, "auto", "--format", "json"]).stdout)
    assert told["ranking"][0]["layer"] in ("readout", "final")
    told = json.loads(run(app, ["rank", *common, "final", "--layer", "readout", "--format", "json"]).stdout)
    assert told["settings"]["layer"] == ["final", "readout"]
    told = json.loads(run(app, ["rank", *common, "final", "--format", "json"]).stdout)
    assert told["settings"]["layer"] == "final"
    assert "layer" not in told["ranking"][0]
    output = tmp_path / "model.skops"
    assert run(app, ["fit", *common, "auto", "-o", str(output)]).exit_code == 0
    model = TransferRegressor.load(output)
    assert model.layer == "auto"
    assert model.sources_[0].layer in ("readout", "final")
    result = run(app, ["evaluate", *common, "auto", "--repeats", "1", "-o", str(tmp_path / "found.csv")])
    assert result.exit_code == 0, result.output
    assert set(pd.read_csv(tmp_path / "found.csv")["layer"].dropna()) <= {"readout", "final"}
