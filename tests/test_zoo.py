"""The zoos that come with the package: what a bare installation lists, and what it can rank."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scotl_matgl import registry
from scotl_matgl.bridges.store import MANIFEST, find_bridge, list_bridges, shipped_folder
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.sources import zoo
from scotl_matgl.sources.cards import CardError, all_cards, find

PLUGINS = Path(__file__).resolve().parent.parent / "plugins"


@pytest.mark.parametrize("name", zoo.PLUGIN_ZOOS)
def test_cards_of_published_models_are_those_of_their_plugins(name: str) -> None:
    theirs = PLUGINS / f"scotl-matgl-{name}" / f"scotl_matgl_{name}" / "cards.json"
    assert json.loads((zoo.card_folder() / f"{name}.json").read_text()) == json.loads(theirs.read_text())


def test_a_zoo_that_its_plugin_lists_is_not_listed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    names = registry.names("zoos")
    assert Counter(card.zoo for card in zoo.published()) == {"cgcnn": 8, "megnet": 13}
    monkeypatch.setattr(registry, "names", lambda _kind: (*names, "megnet"))
    assert Counter(card.zoo for card in zoo.published()) == {"cgcnn": 8}


def test_a_bare_installation_lists_at_least_45_sources_of_several_kinds_and_all_have_what_ranking_needs() -> None:
    cards = all_cards()
    assert len(cards) >= 45
    assert len({card.architecture for card in cards}) >= 5
    assert {card.modality for card in cards} == {"structure", "composition"}
    descriptor = get_descriptor("standard")
    for card in find(cards, modality="structure"):
        for layer in ("readout", "final"):
            found = find_bridge(card, layer, descriptor, [shipped_folder()])
            assert found.load().n_features_out_ == card.layers[layer]


def test_the_encoder_of_a_published_model_names_the_distribution_to_install() -> None:
    (card,) = [card for card in zoo.published() if card.name == "CGCNN-MP-2017-Eform"]
    with pytest.raises(CardError, match=r"install the missing package 'scotl_matgl_cgcnn'"):
        card.load()


def test_the_manifest_is_that_of_the_files_and_their_bundle_is_small() -> None:
    import hashlib

    manifest: dict[str, Any] = json.loads((shipped_folder() / MANIFEST).read_text())
    files = {file.path.name: file for file in list_bridges([shipped_folder()])}
    assert {row["file"] for row in manifest["bridges"]} == files.keys()
    assert sum(file.path.stat().st_size for file in files.values()) == manifest["bytes"] <= 12e6
    assert manifest["failed"] == {}
    for row in manifest["bridges"]:
        file = files[row["file"]]
        assert hashlib.sha256(file.path.read_bytes()).hexdigest() == row["sha256"]
        assert (file.provenance["source"], file.provenance["layer"]) == (row["source"], row["layer"])
        assert file.provenance["corpus_hash"] == manifest["corpus_hash"]
        assert file.header["dtype"] == manifest["dtype"]
        settings = manifest["recipe"][row["layer"]]
        assert {"kind": file.header["kind"], **file.header["parameters"]} == settings
        assert round(file.header["quality"]["median_r2"], 4) == row["median_r2"]
