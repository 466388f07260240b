"""CHGNet sources against published energies and moments, the package itself, and the laws of embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import scotl_matgl_chgnet
from scotl_matgl.encoders import probes
from scotl_matgl.plugin import Crystal, IncompatibleWeightsError, reference_crystals
from scotl_matgl.testing.encoders import check_encoder

pytest.importorskip("chgnet")

from scotl_matgl_chgnet.encoder import CHGNetEncoder, load

CARDS = {card.name: card for card in scotl_matgl_chgnet.cards()}

# eV/atom of CsCl, NaCl, MgO and Si by the package itself, one crystal at a time.
ENERGIES = {
    "CHGNet-MPtrj-0.3.0-PES": (-3.5410, -3.6680, -6.3139, -5.3137),
    "CHGNet-MPtrj-0.2.0-PES": (-3.4376, -3.6880, -6.3204, -5.3726),
    "CHGNet-r2SCAN-PES": (-17.7775, -6.8660, -8.0356, -8.7323),
}


@pytest.fixture(scope="session")
def encoder_of() -> Callable[[str], CHGNetEncoder]:
    import torch

    torch.set_num_threads(1)
    loaded: dict[str, CHGNetEncoder] = {}

    def get(name: str) -> CHGNetEncoder:
        if name not in loaded:
            loaded[name] = load(CARDS[name])
        return loaded[name]

    return get


def rocksalt(constant: float, first: int, second: int) -> Crystal:
    centred = constant / 2 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    return Crystal(centred, [[0, 0, 0], [0.5, 0.5, 0.5]], np.array([first, second], np.int16))


def iron(constant: float = 2.83) -> Crystal:
    centred = constant / 2 * np.array([[-1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, -1.0]])
    return Crystal(centred, [[0, 0, 0]], np.array([26], np.int16))


@pytest.fixture(scope="session")
def crystals() -> list[Crystal]:
    """With and without bonds below 3 Å, with and without magnetic moments."""
    return [*reference_crystals().values(), iron(), rocksalt(4.43, 25, 8)]


@pytest.mark.parametrize("name", CARDS)
def test_encoders_conform_and_published_energies_are_reproduced(name: str, encoder_of: Any) -> None:
    check_encoder(encoder_of(name))
    assert list(probes.probe(encoder_of(name)).values()) == pytest.approx(ENERGIES[name], abs=1e-4)


def test_magnetic_moments_are_those_of_iron_and_manganese_oxide(encoder_of: Any) -> None:
    found = encoder_of("CHGNet-MPtrj-0.3.0-PES").encode([iron(), rocksalt(4.43, 25, 8)], layer="moments")
    assert found[0] == pytest.approx([2.39, 2.39], abs=0.01)
    assert found[1, 1] == pytest.approx(4.63, abs=0.01)
    assert found[1, 0] < found[1, 1] / 1.9  # oxygen has next to none


@pytest.mark.parametrize("name", CARDS)
def test_layers_are_those_of_the_package_crystal_by_crystal(
    name: str, encoder_of: Any, crystals: list[Crystal]
) -> None:
    from pymatgen.core import Structure

    encoder = encoder_of(name)
    found = encoder.encode_layers(crystals, layers=encoder.layers)
    assert not found.refused
    for row, crystal in enumerate(crystals):
        structure = Structure(crystal.lattice, crystal.numbers.tolist(), crystal.frac_coords)
        expected = encoder._chgnet.predict_structure(structure, task="em", return_crystal_feas=True)
        assert found.embeddings["final"][row, 0] == pytest.approx(expected["e"], abs=2e-5)
        np.testing.assert_allclose(
            found.embeddings["readout"][row], expected["crystal_fea"] / len(crystal), atol=2e-4, rtol=1e-4
        )
        moments = [expected["m"].mean(), expected["m"].max()]
        np.testing.assert_allclose(found.embeddings["moments"][row], moments, atol=2e-4)


@pytest.mark.parametrize("name", CARDS)
def test_an_embedding_depends_neither_on_its_batch_nor_on_cell_and_order_of_sites(
    name: str, encoder_of: Any, crystals: list[Crystal]
) -> None:
    encoder = encoder_of(name)
    doubled = [
        Crystal(
            np.diag([2.0, 1.0, 1.0]) @ crystal.lattice,
            np.concatenate([crystal.frac_coords * [0.5, 1, 1] + [0.5 * i, 0, 0] for i in (1, 0)])[::-1],
            np.concatenate([crystal.numbers, crystal.numbers])[::-1].copy(),
        )
        for crystal in crystals
    ]
    together = encoder.encode_layers(crystals, layers=encoder.layers).embeddings
    of_doubled = encoder.encode_layers(doubled, layers=encoder.layers).embeddings
    for row, crystal in enumerate(crystals):
        alone = encoder.encode_layers([crystal], layers=encoder.layers).embeddings
        for layer in encoder.layers:
            np.testing.assert_allclose(together[layer][row], alone[layer][0], atol=1e-4, rtol=1e-4)
            np.testing.assert_allclose(of_doubled[layer][row], alone[layer][0], atol=1e-3, rtol=1e-3)


def test_another_file_is_refused() -> None:
    card = CARDS["CHGNet-MPtrj-0.3.0-PES"]
    (file,) = card.weights
    with pytest.raises(IncompatibleWeightsError, match="Install the version of chgnet"):
        load(dataclasses.replace(card, weights={file: "0" * 64}))
    with pytest.raises(FileNotFoundError, match="has no file pretrained/nowhere"):
        load(dataclasses.replace(card, weights={"pretrained/nowhere.tar": "0" * 64}))
