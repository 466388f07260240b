"""Cards of both zoos: complete, unique, listed without heavy imports, and true about their files."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr

import scotl_matgl_papers
from scotl_matgl.plugin import SourceCard, select
from scotl_matgl.testing.encoders import check_encoder
from scotl_matgl.testing.zoos import check_zoo
from scotl_matgl_papers import cromel, random_control, scotl
from scotl_matgl_papers.crystals import structure_card
from scotl_matgl_papers.weights import find_weights


def test_zoos_are_complete(assets: Path) -> None:
    for cards, zoo in ((scotl(), "scotl"), (cromel(), "cromel")):
        published = {path.name for path in (assets / "models" / zoo).glob("*.pt")}
        assert {name for card in cards for name in card.weights} == published
        assert len({card.name for card in cards}) == len(cards) == len(published)
        assert {card.zoo for card in cards} == {zoo}


@pytest.mark.parametrize("card", [*scotl(), *cromel()], ids=lambda card: card.name)
def test_card_is_true_of_its_file(card: SourceCard, assets: Path) -> None:
    import torch

    state = torch.load(find_weights(card), map_location="cpu", weights_only=True)
    assert card.parameters == sum(tensor.numel() for tensor in state.values())
    encoder = card.load()  # compares the sha256
    for layer, width in card.layers.items():
        assert encoder.encode(["NaCl"], layer=layer).shape == (1, width)


def test_control_is_no_member_of_the_zoo() -> None:
    card = random_control(7)
    assert card.weights == {}
    assert card.name not in {member.name for member in scotl()}


def test_zoos_can_be_listed_after_their_models_were_loaded(assets: Path) -> None:
    # A submodule named as the function would take its place in the package once it is imported.
    for card in (scotl()[0], cromel()[0], structure_card(scotl()[0])):
        card.load()
    assert len(scotl_matgl_papers.scotl()) == 24
    assert len(scotl_matgl_papers.cromel()) == 4


def test_listing_needs_no_torch() -> None:
    code = "import sys, scotl_matgl_papers as p; p.scotl(); p.cromel(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - own code
    assert done.stdout.strip() == "False"


@pytest.fixture(scope="module")
def moduli(assets: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Formulas of the corpus with their logarithmic moduli, ln(GPa)."""
    formulas, bulk, shear = [], [], []
    with gzip.open(assets / "structures" / "crystals.json.gz", "rt", encoding="utf-8") as file:
        crystals = json.load(file)
    for crystal in crystals:
        values = [crystal["properties"].get(f"{kind}_modulus_vrh_GPa") for kind in ("bulk", "shear")]
        if all(value is not None and value > 1 for value in values):
            # NaN would be taken for a missing value.
            formulas.append("Na1N1" if crystal["formula"] == "NaN" else crystal["formula"])
            bulk.append(np.log(values[0]))
            shear.append(np.log(values[1]))
    return formulas, {"bulk": np.array(bulk), "shear": np.array(shear)}


@pytest.mark.parametrize("architecture", ["CGCNN", "GAT", "MEGNet"])
@pytest.mark.parametrize(("kind", "other"), [("bulk", "shear"), ("shear", "bulk")])
def test_moduli_are_named_by_what_is_predicted(
    architecture: str, kind: str, other: str, moduli: tuple[list[str], dict[str, np.ndarray]]
) -> None:
    # The published labels of the two are swapped: the values of the corpus go with the labels swapped back.
    formulas, values = moduli
    assert len(formulas) > 1000
    (card,) = select(scotl(), f"SCOTL-{architecture}-MPS-{kind.capitalize()}Modulus")
    assert card.property.startswith(kind)
    assert list(card.weights) == [f"{architecture.lower()}_mps_{other}_mod.pt"]
    predicted = card.load().encode(formulas, layer="final")[:, 0]
    own, wrong = (pearsonr(predicted, values[name]).statistic for name in (kind, other))
    assert own > max(wrong, 0.7)


@pytest.mark.parametrize("card", [*scotl(), *cromel(), random_control()], ids=lambda card: card.name)
def test_conformance(card: SourceCard, assets: Path) -> None:
    check_encoder(card.load())


def test_zoos_conform(assets: Path) -> None:
    for cards in (scotl(), cromel(), [random_control()]):
        check_zoo(cards)
