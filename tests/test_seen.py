"""Formulas that sources were trained on: kept as small hashes and counted; sources that saw measured values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scotl_matgl import TransferabilityRanker
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.exceptions import StoredFileError
from scotl_matgl.sources import zoo
from scotl_matgl.sources.cards import CardError, SourceCard, all_cards, select
from scotl_matgl.sources.seen import SEEN_FILE, TrainingFormulas, count_seen, training_formulas
from scotl_matgl.storage import write_tensors
from scotl_matgl.tables.files import load_example


def some_sets() -> dict[str, list[str]]:
    """Ten sets, so that a pattern takes more than a byte; the last is empty."""
    rng = np.random.default_rng(0)
    keys = [f"Fe{i}O{10000 - i}" for i in range(1, 400)]
    drawn = {f"set {i}": [key for key in keys if rng.random() < 0.1 * i] for i in range(1, 10)}
    return {**drawn, "none": []}


def test_members_are_those_of_the_sets_also_from_a_file(tmp_path: Path) -> None:
    sets = some_sets()
    known = TrainingFormulas.of(sets)
    known.save(tmp_path / "seen.safetensors")
    keys = [f"Fe{i}O{10000 - i}" for i in range(1, 800)]
    expected = np.array([[key in members for members in sets.values()] for key in keys])
    for item in (known, TrainingFormulas.load(tmp_path / "seen.safetensors")):
        assert item.sets == tuple(sets)
        np.testing.assert_array_equal(item.members(keys), expected)
        assert item.members([]).shape == (0, 10)


@pytest.mark.parametrize("broken", ["pattern", "patterns", "hashes"])
def test_a_list_whose_parts_do_not_fit_is_refused(broken: str, tmp_path: Path) -> None:
    known = TrainingFormulas.of(some_sets())
    tensors = {
        "hashes": known.hashes,
        "patterns": np.packbits(known.patterns, axis=1),
        "pattern": known.pattern,
    }
    wrong = {"pattern": known.pattern + len(known.patterns), "patterns": tensors["patterns"][:, :1]}
    tensors[broken] = wrong.get(broken, known.hashes[::-1].copy())
    write_tensors(tmp_path / "seen.safetensors", tensors, SEEN_FILE, {"sets": list(known.sets)})
    with pytest.raises(StoredFileError, match=r"tensors that do not fit together; reinstall"):
        TrainingFormulas.load(tmp_path / "seen.safetensors")


def test_every_source_of_networks_has_as_many_training_formulas_as_its_card_says() -> None:
    """Those of one property of the zoo ``shotgun`` drew theirs with replacement, at most 8,000 of the set."""
    known = training_formulas()
    inside = known.patterns[known.pattern]
    named = set()
    for card in zoo.own():
        if card.zoo == "elements":
            assert count_seen(card, inside) is None
            continue
        named |= set(card.training_sets)
        count = count_seen(card, inside)
        assert count is not None
        assert card.n_train is not None
        if card.zoo == "properties" or (card.zoo == "shotgun" and len(card.training_sets) > 1):
            assert count == pytest.approx(card.n_train, abs=3)  # two formulas may share a hash
        else:
            assert count >= min(card.n_train, 0.6 * count)
    assert named == set(known.sets)


@pytest.mark.assets
def test_formulas_with_a_calculated_property_are_counted_and_others_are_not(assets: Path) -> None:
    """By the crystals themselves: what has a formation energy, and is not held out, is in the set, and nothing else."""
    from scotl_matgl.bridges.base import split_by_group
    from scotl_matgl.chemistry.corpus import Corpus

    corpus = Corpus.read(assets / "structures" / "crystals.json.gz").one_per_formula()
    manifest = json.loads((zoo.card_folder().parent / "sources" / "shotgun.json").read_text(encoding="utf-8"))
    rule = manifest["held_out"]
    held_out = split_by_group([crystal.chemical_system for crystal in corpus], rule["fraction"], rule["seed"])
    expected = np.isfinite(corpus.values("formation_energy_eV_atom")) & ~held_out
    known = training_formulas()
    found = known.members(corpus.compositions.keys())[:, known.sets.index("Shotgun-FormationEnergy")]
    assert (found != expected).sum() <= 3


def test_a_ranking_counts_the_formulas_that_a_source_has_seen() -> None:
    table = load_example().iloc[::20]
    names = ["Shotgun-FormationEnergy-1", "Elements-CHGNet"]
    ranker = TransferabilityRanker(names, estimators=["loo"], head="kernel ridge").fit(
        table["formula"], table["target"]
    )
    known = training_formulas()
    members = known.members(parse_compositions(table["formula"]).keys())
    seen = {result.source: result.seen for result in ranker.ranking_.results}
    assert seen == {
        "Shotgun-FormationEnergy-1": members[:, known.sets.index("Shotgun-FormationEnergy")].sum(),
        "Elements-CHGNet": None,
    }
    assert 0 < members.any(axis=1).sum() < len(table)
    frame = ranker.ranking_.to_frame().set_index("source")
    assert frame.loc["Shotgun-FormationEnergy-1", "seen"] == seen["Shotgun-FormationEnergy-1"]
    assert np.isnan(frame.loc["Elements-CHGNet", "seen"])


def test_sources_that_saw_measured_values_are_marked_and_can_be_left_out() -> None:
    cards = all_cards()
    marked = {card.name for card in cards if card.trained_on_experiment}
    assert marked == {f"MEGNet-Keras-MF-2020-BandGap-{name}" for name in ("PBE", "GLLB-SC", "HSE", "Exp")}
    calculated = select(cards, "calculated")
    assert {card.name for card in calculated} == {card.name for card in cards} - marked
    assert [card.name for card in select(cards, ["calculated", "MEGNet-Keras-MF-2020-BandGap-Exp"])][-1].endswith("Exp")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trained_on_experiment": 1}, "trained_on_experiment is 1; it must be true or false"),
        ({"training_sets": "gaps"}, "training_sets are 'gaps'; they must be a list of names"),
        ({"training_sets": [7]}, r"training_sets are \[7\]; they must be a list of names"),
    ],
)
def test_what_a_card_says_of_its_training_is_checked(fields: dict[str, object], message: str) -> None:
    values = {**all_cards()[0].to_dict(), **fields}
    with pytest.raises(CardError, match=message):
        SourceCard.from_dict(values)


def test_what_the_first_source_has_seen_is_told() -> None:
    table = load_example().iloc[::30]
    for source, expected in (("Kindred-Stability", True), ("CGCNN-MP-2017-Eform", False)):
        ranking = TransferabilityRanker(source, head="kernel ridge").fit(table["formula"], table["target"]).ranking_
        seen = ranking.results[0].seen
        assert (seen is not None) is expected
        text = " ".join(str(ranking).split())
        assert (f"{source} may have been trained on calculated values of {seen} of these formulas" in text) is expected
